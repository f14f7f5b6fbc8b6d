// Command quickstart receives Shopify webhooks, queues them and works them off in order.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"time"

	_ "modernc.org/sqlite"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
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
	file := flag.String("db", "jobs.db", "SQLite `file` of the queue")
	memory := flag.Bool("memory", false, "use no file: what is queued is lost with the process")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once

	db, err := sql.Open("sqlite", *file) // nothing is opened before it is used
	check(err)
	var broker queue.Broker = sqlqueue.New(db, sqlqueue.Config{Logger: slog.Default()})
	if *memory {
		broker = new(queue.Memory)
	}
	jobs, err := queue.New(broker, queue.Config{AllowVolatile: *memory, Logger: slog.Default()})
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
	check(db.Close())
}

func check(err error) {
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
