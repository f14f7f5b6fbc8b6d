package webhooktest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

func ExampleNewRequest() {
	hooks, err := webhook.New(webhook.Secrets("hush"), func(context.Context, webhook.Delivery) error { return nil }, webhook.Config{})
	if err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	hooks.ServeHTTP(w, webhooktest.NewRequest("hush", webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create"}}))
	fmt.Println(w.Code)
	// Output: 200
}

// A handler that fails at first gets its deliveries again, with the same webhook IDs.
func ExampleSender() {
	tries := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Shopify-Webhook-Id")
		if tries[id]++; tries[id] < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()

	sender, err := webhooktest.NewSender(server.URL, "hush", webhooktest.Config{RetrySpeed: 10_000, MaxInFlight: 1})
	if err != nil {
		panic(err)
	}
	ledger, err := sender.Send(context.Background(), []webhooktest.Outgoing{
		{Delivery: webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create"}}},
		{Delivery: webhook.Delivery{Meta: webhook.Meta{Topic: "orders/paid"}}},
	})
	fmt.Println(ledger.Sent, ledger.Acknowledged, ledger.Redelivered, err)
	// Output: 2 2 4 <nil>
}
