package docs_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// P9: The quota is never overrun: the client knows what a query costs before it sends it, and keeps the bucket busy without a throttled answer. A job that finds no quota in time waits with its shop, spends no
// attempt, and hurts no other shop.
func TestP9AShopWithoutQuotaIsParked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, err := shopifytest.New(shopifytest.Config{Latency: func() time.Duration { return 100 * time.Millisecond }})
		require.NoError(t, err)
		client, err := shopify.New(shopify.StaticToken("token"), shopify.ClientConfig{Config: shopify.Config{Base: fake}})
		require.NoError(t, err)
		var mu sync.Mutex
		done, attempts := map[string][]time.Duration{}, 0
		begun := time.Now()
		mux := queue.NewMux()
		mux.Handle("read", func(ctx context.Context, job queue.Job) error {
			shop, err := client.Shop(job.Group)
			if err != nil {
				return err
			}
			// 156 points, of which a few are taken.
			if _, err := shopify.Query[any](ctx, shop, `{ products(first: 250) { nodes { id variants(first: 50) { nodes { id inventoryItem { id } } } } } }`, nil); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			done[job.Group] = append(done[job.Group], time.Since(begun))
			attempts += job.Attempts
			return nil
		})
		jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
		require.NoError(t, err)
		// A stranger empties the bucket of one of the shops, and takes nearly all that comes back for a minute.
		busy := fake.Shop("busy.myshopify.com")
		require.True(t, busy.Use("token", 2000))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for time.Since(begun) < time.Minute {
				time.Sleep(100 * time.Millisecond)
				busy.Use("token", 9)
			}
		}()
		for i := range 40 {
			for _, shop := range []string{"busy.myshopify.com", "quiet.myshopify.com"} {
				_, err := jobs.Enqueue(ctx, queue.Job{Kind: "read", Group: shop, Key: fmt.Sprint(i)})
				require.NoError(t, err)
			}
		}
		ended := make(chan error, 1)
		go func() { ended <- jobs.Run(ctx, mux, queue.WorkerConfig{Concurrency: 8}) }()
		time.Sleep(20 * time.Second)
		mu.Lock()
		assert.Len(t, done["quiet.myshopify.com"], 40, "the other shop is not held up")
		assert.Less(t, len(done["busy.myshopify.com"]), 40)
		mu.Unlock()
		time.Sleep(10 * time.Minute)
		mu.Lock()
		assert.Len(t, done["busy.myshopify.com"], 40)
		assert.Zero(t, attempts, "waiting for quota is no failure")
		mu.Unlock()
		// Nobody tells of a stranger but the answers.
		assert.LessOrEqual(t, busy.Stats().Throttled, 10)
		assert.Zero(t, fake.Shop("quiet.myshopify.com").Stats().Throttled)
		cancel()
		require.NoError(t, <-ended)
	})
}

// any client gets the quota by the Transport: here a plain one.
func transport() (*http.Client, error) {
	t, err := shopify.NewTransport(shopify.Config{Version: "2026-04"})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t}, nil
}

func TestTransport(t *testing.T) {
	t.Parallel()
	client, err := transport()
	require.NoError(t, err)
	require.NotNil(t, client.Transport)
}
