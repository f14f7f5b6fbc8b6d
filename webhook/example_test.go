package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

func Example() {
	sink := func(_ context.Context, d webhook.Delivery) error {
		fmt.Println("storing", d.Topic, "of", d.Shop, "about", d.Subject())
		return nil // stored durably: Shopify gets its 200
	}
	hooks, err := webhook.New(webhook.Secrets("hush"), sink, webhook.Config{})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks", hooks)

	for _, secret := range []string{"hush", "guessed"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, webhooktest.NewRequest(secret, webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create"}}))
		fmt.Println(w.Code)
	}
	// Output:
	// storing orders/create of example.myshopify.com about order/820982911946154508
	// 200
	// 401
}

// Several apps behind one endpoint, one of them in a rotation, and a shop that made webhooks in its admin.
func ExampleSecretFunc() {
	secrets := func(_ context.Context, shop string) ([]webhook.Secret, error) {
		list := []webhook.Secret{
			{App: "erp", Key: "erp new"},
			{App: "erp", Key: "erp old"},
			{App: "returns", Key: "returns"},
		}
		if shop == "own.myshopify.com" {
			list = append(list, webhook.Secret{App: "admin", Key: "the shop's own"})
		}
		return list, nil
	}
	hooks, err := webhook.New(secrets, func(_ context.Context, d webhook.Delivery) error {
		fmt.Println(d.Shop, d.App)
		return nil
	}, webhook.Config{})
	if err != nil {
		panic(err)
	}
	send := func(shop, secret string) {
		d := webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", Shop: shop}}
		hooks.ServeHTTP(httptest.NewRecorder(), webhooktest.NewRequest(secret, d))
	}
	send("some.myshopify.com", "erp old")
	send("own.myshopify.com", "the shop's own")
	send("some.myshopify.com", "the shop's own") // refused
	// Output:
	// some.myshopify.com erp
	// own.myshopify.com admin
}

func ExampleDecode() {
	event, err := webhook.Decode[map[string]any](webhook.Delivery{
		Meta: webhook.Meta{Topic: "refunds/create"},
		Body: []byte(`{"id": 890088186047892319, "order_id": 820982911946154508}`),
	})
	fmt.Println(event.Subject, event.Body["id"], err)
	// Output: order/820982911946154508 890088186047892319 <nil>
}
