// Package docs_test holds the code that the documents show, so that it compiles.
package docs_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

type (
	// Order is what a handler needs of an order.
	Order struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	}
	// Product is what a handler needs of a product.
	Product struct {
		ID int64 `json:"id"`
	}
)

// ProductKey names a product in the cache.
type ProductKey struct{ Shop, Subject string }

// CacheKey implements cache.Keyer.
func (k ProductKey) CacheKey() cache.Key { return cache.Key{Scope: k.Shop, ID: k.Subject} }

// wiring is how an app is put together. It grows with the packages. With redisqueue, redisstore and rediscache in the places of the three Memory stores it is fit for several machines, and changes no other line.
func wiring(ctx context.Context, httpMux *http.ServeMux, secret string,
	ship func(context.Context, webhook.Event[Order]) error,
	loadProduct func(context.Context, ProductKey) (Product, error),
	syncProduct func(context.Context, webhook.Event[Product]) error,
) (run func() error, err error) {
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		return nil, err
	}
	keeper, err := idempotency.New(new(idempotency.Memory), idempotency.Config{})
	if err != nil {
		return nil, err
	}
	products, err := cache.New(loadProduct, cache.Config[ProductKey, Product]{Name: "products", TTL: 5 * time.Minute, Remote: new(cache.Memory)})
	if err != nil {
		return nil, err
	}

	carrier, err := breaker.New("carrier", breaker.Config{Timeout: 3 * time.Second, FailureRate: 0.5, OpenFor: 30 * time.Second})
	if err != nil {
		return nil, err
	}

	mux := queue.NewMux()
	enqueue.Handle(mux, "orders/create", idempotency.Once(keeper, "ship", func(e webhook.Event[Order]) idempotency.Key {
		return idempotency.Key{Scope: e.Shop, ID: e.Subject}
	}, breaker.Guard(carrier, ship)))
	enqueue.Handle(mux, "products/update", idempotency.Latest(keeper, "sync", func(e webhook.Event[Product]) idempotency.Key {
		return idempotency.Key{Scope: e.Shop, ID: e.Subject}
	}, func(e webhook.Event[Product]) idempotency.Version {
		return idempotency.Updated(e.UpdatedAt, e.TriggeredAt)
	}, cache.InvalidateOn(products, func(e webhook.Event[Product]) ProductKey {
		return ProductKey{e.Shop, e.Subject}
	}, syncProduct)))

	hooks, err := webhook.New(webhook.Secrets(secret), enqueue.To(jobs, mux), webhook.Config{})
	if err != nil {
		return nil, err
	}

	httpMux.Handle("POST /webhooks", hooks)
	return func() error { return jobs.Run(ctx, mux, queue.WorkerConfig{Concurrency: 64}) }, nil
}

func TestWiring(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	names := make(chan string, 1)
	httpMux := http.NewServeMux()
	run, err := wiring(ctx, httpMux, "hush",
		func(_ context.Context, e webhook.Event[Order]) error { names <- e.Body.Name; return nil },
		func(context.Context, ProductKey) (Product, error) { return Product{}, nil },
		func(context.Context, webhook.Event[Product]) error { return nil })
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- run() }()

	w := httptest.NewRecorder()
	httpMux.ServeHTTP(w, webhooktest.NewRequest("hush", webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create"}}))
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, "#9999", <-names)
	cancel()
	require.NoError(t, <-done)
}
