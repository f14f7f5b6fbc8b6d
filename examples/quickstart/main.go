// Command quickstart receives Shopify webhooks, queues them and works them off in order.
package main

import (
	"cmp"
	"context"
	"errors"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

// Order is what this service needs of an order.
type Order struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Total string `json:"total_price"`
}

func ship(_ context.Context, e webhook.Event[Order]) error {
	slog.Info("shipping", "shop", e.Shop, "order", e.Body.Name, "id", e.Body.ID, "total", e.Body.Total)
	return nil // an error here means: try again later, in order
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once

	// The memory broker loses its jobs with the process; durable ones are on their way.
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true, Logger: slog.Default()})
	check(err)
	mux := queue.NewMux()
	enqueue.Handle(mux, "orders/create", ship)

	secret := webhook.Secrets(os.Getenv("SHOPIFY_API_SECRET"))
	hooks, err := webhook.New(secret, enqueue.To(jobs, mux), webhook.Config{Logger: slog.Default()})
	check(err)
	http.Handle("POST /webhooks", hooks)
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), ReadHeaderTimeout: time.Second}
	go func() { check(server.ListenAndServe()) }()
	context.AfterFunc(ctx, func() { _ = server.Shutdown(context.Background()) }) // take nothing that nobody works off

	slog.Info("listening", "url", "http://"+server.Addr+"/webhooks")
	check(jobs.Run(ctx, mux, queue.WorkerConfig{}))
}

func check(err error) {
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
