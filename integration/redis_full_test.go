package integration_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// TestBrokerOutOfMemoryRefusesTheEnqueueWholeAndWebhookAnswers503 sends webhooks until Redis is full; what was answered 200 is done, and once
// that is done there is room again.
func TestBrokerOutOfMemoryRefusesTheEnqueueWholeAndWebhookAnswers503(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: redistest.Start(t, "--maxmemory", "8mb").Addr})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	hooks, err := webhook.New(webhook.Secrets(hush), enqueue.To(q, enqueue.Topics("orders/create")), webhook.Config{})
	require.NoError(t, err)
	sent := 0
	send := func() int {
		sent++
		d := webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", Shop: "a.myshopify.com", WebhookID: "w" + strconv.Itoa(sent)}}
		w := httptest.NewRecorder()
		hooks.ServeHTTP(w, webhooktest.NewRequest(hush, d))
		return w.Code
	}
	accepted := 0
	for status := send(); status != http.StatusServiceUnavailable; status = send() {
		require.Equal(t, http.StatusOK, status)
		accepted++
		require.Less(t, accepted, 15_000)
	}
	s, err := q.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, accepted, s.Jobs)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done atomic.Int64
	mux := queue.NewMux()
	mux.Handle("orders/create", func(context.Context, queue.Job) error {
		if done.Add(1) == int64(accepted) {
			stop()
		}
		return nil
	})
	require.NoError(t, q.Run(ctx, mux, queue.WorkerConfig{Concurrency: 32}))
	require.Equal(t, http.StatusOK, send(), "there is room again")
	problems, err := b.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, problems)
}
