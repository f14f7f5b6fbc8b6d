package enqueue_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	mux := queue.NewMux()
	enqueue.Handle(mux, "orders/create", func(_ context.Context, e webhook.Event[struct{ Name string }]) error {
		fmt.Println("order", e.Body.Name, "of", e.Shop)
		stop()
		return nil
	})
	hooks, err := webhook.New(webhook.Secrets("hush"), enqueue.To(jobs, mux), webhook.Config{})
	if err != nil {
		panic(err)
	}

	order := webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", WebhookID: "1"}}
	for range 3 { // Shopify sends it three times
		w := httptest.NewRecorder()
		hooks.ServeHTTP(w, webhooktest.NewRequest("hush", order))
		fmt.Println(w.Code)
	}
	if err := jobs.Run(ctx, mux, queue.WorkerConfig{}); err != nil {
		panic(err)
	}
	// Output:
	// 200
	// 200
	// 200
	// order #9999 of example.myshopify.com
}

// A process that only receives: the handlers live elsewhere.
func ExampleTopics() {
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	hooks, err := webhook.New(webhook.Secrets("hush"), enqueue.To(jobs, enqueue.Topics("orders/create", "orders/paid")), webhook.Config{})
	if err != nil {
		panic(err)
	}
	for _, topic := range []string{"orders/create", "orders/paid", "carts/update"} {
		hooks.ServeHTTP(httptest.NewRecorder(), webhooktest.NewRequest("hush", webhook.Delivery{Meta: webhook.Meta{Topic: topic}}))
	}
	fmt.Printf("%d queued, %d unhandled\n", hooks.Stats().Accepted, hooks.Stats().Unhandled)
	// Output: 2 queued, 1 unhandled
}
