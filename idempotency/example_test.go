package idempotency_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
)

func Example() {
	keeper, err := idempotency.New(new(idempotency.Memory), idempotency.Config{}) // redisstore.New or sqlstore.New in earnest
	if err != nil {
		panic(err)
	}
	type event struct{ shop, subject string }
	ship := idempotency.Once(keeper, "ship", func(e event) idempotency.Key {
		return idempotency.Key{Scope: e.shop, ID: e.subject}
	}, func(_ context.Context, e event) error {
		fmt.Println("shipped", e.subject, "of", e.shop)
		return nil
	})
	ctx := context.Background()
	for _, e := range []event{{"a.myshopify.com", "order/1"}, {"a.myshopify.com", "order/1"}, {"b.myshopify.com", "order/1"}} {
		fmt.Println(ship(ctx, e))
	}
	// Output:
	// shipped order/1 of a.myshopify.com
	// <nil>
	// <nil>
	// shipped order/1 of b.myshopify.com
	// <nil>
}

func ExampleLatest() {
	keeper, err := idempotency.New(new(idempotency.Memory), idempotency.Config{})
	if err != nil {
		panic(err)
	}
	type product struct {
		id      string
		title   string
		updated time.Time
	}
	sync := idempotency.Latest(keeper, "sync", func(p product) idempotency.Key {
		return idempotency.Key{ID: p.id}
	}, func(p product) idempotency.Version {
		return idempotency.Updated(p.updated, time.Time{}) // with a webhook: Updated(e.UpdatedAt, e.TriggeredAt)
	}, func(_ context.Context, p product) error {
		fmt.Println(p.title)
		return nil
	})
	noon := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for _, p := range []product{{"1", "Shirt", noon}, {"1", "Shirt, sold out", noon.Add(2 * time.Second)}, {"1", "Shirt, last one", noon.Add(time.Second)}} {
		if err := sync(context.Background(), p); err != nil {
			panic(err)
		}
	}
	// Output:
	// Shirt
	// Shirt, sold out
}

func ExampleOnceValue() {
	keeper, err := idempotency.New(new(idempotency.Memory), idempotency.Config{})
	if err != nil {
		panic(err)
	}
	labels := 0
	buy := idempotency.OnceValue(keeper, "buy-label", func(order string) idempotency.Key {
		return idempotency.Key{ID: order}
	}, func(context.Context, string) (string, error) {
		labels++
		return fmt.Sprint("label ", labels), nil
	})
	for range 2 {
		fmt.Println(buy(context.Background(), "order/1"))
	}
	// Output:
	// label 1 <nil>
	// label 1 <nil>
}

func ExampleNewMiddleware() {
	keeper, err := idempotency.New(new(idempotency.Memory), idempotency.Config{})
	if err != nil {
		panic(err)
	}
	account := func(*http.Request) string { return "a.myshopify.com" } // as the authentication before it has found
	m, err := idempotency.NewMiddleware(keeper, account, idempotency.HTTPConfig{})
	if err != nil {
		panic(err)
	}
	refunds := 0
	handler := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refunds++
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprint(w, "refund ", refunds)
	}))
	for _, body := range []string{`{"amount": 10}`, `{"amount":10}`, `{"amount": 20}`} {
		r := httptest.NewRequest(http.MethodPost, "/refunds", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", `"8e03978e-40d5-43dd-bc93-6894a57f9324"`)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("Idempotency-Replayed") == "true")
	}
	fmt.Println(refunds, "refund")
	// Output:
	// 201 false
	// 201 true
	// 422 false
	// 1 refund
}

func ExampleChildKey() {
	keeper, err := idempotency.New(new(idempotency.Memory), idempotency.Config{})
	if err != nil {
		panic(err)
	}
	carrier := map[string]bool{} // what the carrier remembers
	tries := 0
	ship := idempotency.Once(keeper, "ship", func(order string) idempotency.Key {
		return idempotency.Key{ID: order}
	}, func(ctx context.Context, _ string) error {
		key, err := idempotency.ChildKey(ctx, "label") // the same in every run
		if err != nil {
			return err
		}
		carrier[key] = true // the carrier makes a label, if it does not know the key
		if tries++; tries == 1 {
			return fmt.Errorf("the answer was lost")
		}
		return nil
	})
	fmt.Println(ship(context.Background(), "order/1"))
	fmt.Println(ship(context.Background(), "order/1"))
	fmt.Println(len(carrier), "label")
	// Output:
	// the answer was lost
	// <nil>
	// 1 label
}
