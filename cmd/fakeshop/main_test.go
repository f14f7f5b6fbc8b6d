package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/webhook"
)

// lines lets a test read what a command prints while it runs.
type lines struct {
	mu   sync.Mutex
	b    bytes.Buffer
	some chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.some <- struct{}{}:
	default:
	}
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// app is an app's handler, which does something at its first webhook, and how many of a topic it has seen.
func app(t *testing.T, first func()) (url string, seen func(topic string) int) {
	t.Helper()
	var mu sync.Mutex
	var once sync.Once
	all := map[string]int{}
	h, err := webhook.New(webhook.Secrets("hush"), func(_ context.Context, d webhook.Delivery) error {
		once.Do(first)
		mu.Lock()
		defer mu.Unlock()
		all[d.Topic]++
		return nil
	}, webhook.Config{})
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL, func(topic string) int {
		mu.Lock()
		defer mu.Unlock()
		return all[topic]
	}
}

// create makes a product by the API that a command has printed.
func create(t *testing.T, out *lines) {
	t.Helper()
	_, rest, ok := strings.Cut(out.String(), "Admin API: ")
	if !assert.True(t, ok, out.String()) {
		return
	}
	api, _, _ := strings.Cut(rest, " ")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.TrimSuffix(api, ","), strings.NewReader(`{"query":"mutation { productCreate(product: {title: \"New\"}) { product { id } } }"}`))
	if !assert.NoError(t, err) {
		return
	}
	r.Header.Set("X-Shopify-Access-Token", "t")
	resp, err := http.DefaultClient.Do(r)
	if !assert.NoError(t, err) {
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	assert.Contains(t, string(b), "gid://shopify/Product/")
}

func TestServe(t *testing.T) {
	t.Parallel()
	url, seen := app(t, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	out := &lines{some: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, strings.Fields("-addr 127.0.0.1:0 -products 3 -webhooks "+url+" -secret hush -latency 1ms -faults lost=0,429=0"), out)
	}()
	<-out.some
	create(t, out)
	require.Eventually(t, func() bool { return seen("products/create") > 0 }, 10*time.Second, 5*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.Contains(t, out.String(), "requests 1, throttled 0, points used 10")
}

func TestStorm(t *testing.T) {
	t.Parallel()
	out := &lines{}
	url, seen := app(t, func() { create(t, out) })
	require.NoError(t, run(t.Context(), strings.Fields("storm -addr 127.0.0.1:0 -to "+url+" -secret hush -orders 60 -for 500ms -seed 7 -retry 10000"), out), out.String())
	require.GreaterOrEqual(t, seen("orders/create"), 60)
	require.Positive(t, seen("orders/paid"))
	require.Positive(t, seen("inventory_levels/update"))
	require.Contains(t, out.String(), "given up 0, dropped 0")
	require.Contains(t, out.String(), "Admin API: requests 1, throttled 0, points used 10")
	require.Eventually(t, func() bool { return seen("products/create") == 1 }, 10*time.Second, 5*time.Millisecond, "the app's own")

	down := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(down.Close)
	require.ErrorContains(t, run(t.Context(), strings.Fields("storm -addr 127.0.0.1:0 -to "+down.URL+" -secret hush -orders 2 -for 10ms -retry 1000000"), out), "were not acknowledged")
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-plan gold":                      `-plan "gold"`,
		"-faults 418=1":                   `"418=1"`,
		"-faults 429=0.9,500=0.9":         "more than 1",
		"-webhooks nowhere -secret x":     `-webhooks "nowhere"`,
		"-nope":                           "-nope",
		"serve":                           `"serve"`,
		"-shop example.com -products 0":   "example.com",
		"storm -secret x":                 "no -to",
		"storm -to http://x -orders 0":    "more than 0",
		"storm -to http://x -latency -1s": "negative",
		"storm -to x -secret y -orders 1": `-to "x"`,
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard)
		require.ErrorIs(t, err, errUsage, args)
		require.ErrorContains(t, err, want, args)
	}
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-h"}, &out))
	require.Contains(t, out.String(), "usage: fakeshop")
	require.Contains(t, out.String(), "-faults")
}
