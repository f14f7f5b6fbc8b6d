package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

const secret = "hush"

func accept(context.Context, webhook.Delivery) error { return nil }

func newHandler(t testing.TB, sink webhook.Sink, cfg webhook.Config) *webhook.Handler {
	t.Helper()
	h, err := webhook.New(webhook.Secrets(secret), sink, cfg)
	require.NoError(t, err)
	return h
}

func order() webhook.Delivery {
	return webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", WebhookID: "w1", EventID: "e1"}}
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// logged gives a logger and what it wrote.
func logged() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

// Each row is one request and the exact answer to it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	events := func(*http.Request) *http.Request {
		return webhooktest.NewRequest(secret, webhook.Delivery{Meta: webhook.Meta{Family: webhook.Events, Topic: "Product", Action: "update"},
			Body: []byte(`{"topic":"Product","action":"update"}`)})
	}
	set := func(key string, values ...string) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request {
			r.Header[http.CanonicalHeaderKey(key)] = values
			return r
		}
	}
	body := func(b string, length int64) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(b)), length
			return r
		}
	}
	for name, tt := range map[string]struct {
		change func(*http.Request) *http.Request
		status int
		answer string
		count  func(webhook.Stats) uint64
		log    string
	}{
		"accepted":           {nil, 200, "", func(s webhook.Stats) uint64 { return s.Accepted }, ""},
		"accepted of Events": {events, 200, "", func(s webhook.Stats) uint64 { return s.Accepted }, ""},
		"body without a length": {func(r *http.Request) *http.Request { r.ContentLength = -1; return r }, 200, "",
			func(s webhook.Stats) uint64 { return s.Accepted }, ""},
		"not POST": {func(r *http.Request) *http.Request { r.Method = "GET"; return r }, 405, "use POST\n",
			func(s webhook.Stats) uint64 { return s.Malformed }, ""},
		"no signature": {set("X-Shopify-Hmac-Sha256"), 401, "signature is missing\n",
			func(s webhook.Stats) uint64 { return s.Unauthorized }, "no signature header"},
		"signature of another secret": {set("X-Shopify-Hmac-Sha256", webhook.Sign(webhooktest.Payload("orders/create"), "other")), 401, "signature does not match\n",
			func(s webhook.Stats) uint64 { return s.Unauthorized }, "no secret of this shop made this signature"},
		"signature in hex": {set("X-Shopify-Hmac-Sha256", strings.Repeat("0f", 32)), 401, "signature does not match\n",
			func(s webhook.Stats) uint64 { return s.Unauthorized }, "not base64 of 32 bytes"},
		"signature of 44 characters that are not base64": {set("X-Shopify-Hmac-Sha256", strings.Repeat("*", 44)), 401, "signature does not match\n",
			func(s webhook.Stats) uint64 { return s.Unauthorized }, "not base64 of 32 bytes"},
		"body changed": {body(`{"id": 2}`, -1), 401, "signature does not match\n",
			func(s webhook.Stats) uint64 { return s.Unauthorized }, "no secret of this shop made this signature"},
		"body shorter than announced": {body(`{"id": 2}`, 700), 401, "signature does not match\n",
			func(s webhook.Stats) uint64 { return s.Unauthorized }, "its length is not the Content-Length"},
		"body read before": {body("", 14894), 401, "signature does not match\n",
			func(s webhook.Stats) uint64 { return s.Unauthorized }, "something before this handler has read it"},
		"body empty": {body("", 0), 400, "body is empty\n", func(s webhook.Stats) uint64 { return s.Malformed }, ""},
		"body over the limit by its length": {body("{}", 32<<20+1), 413, "body is too large\n",
			func(s webhook.Stats) uint64 { return s.TooLarge }, ""},
		"topic missing":    {set("X-Shopify-Topic"), 400, "header X-Shopify-Topic is missing\n", func(s webhook.Stats) uint64 { return s.Malformed }, ""},
		"webhook ID empty": {set("X-Shopify-Webhook-Id", ""), 400, "header X-Shopify-Webhook-Id is missing\n", func(s webhook.Stats) uint64 { return s.Malformed }, ""},
		"shop repeated": {set("X-Shopify-Shop-Domain", "example.myshopify.com", "other.myshopify.com"), 400, "header X-Shopify-Shop-Domain is repeated\n",
			func(s webhook.Stats) uint64 { return s.Malformed }, ""},
		"signature repeated": {set("X-Shopify-Hmac-Sha256", "a", "b"), 400, "header X-Shopify-Hmac-Sha256 is repeated\n",
			func(s webhook.Stats) uint64 { return s.Malformed }, ""},
		"shop of another host": {set("X-Shopify-Shop-Domain", "evil.tld/x.myshopify.com"), 400, "X-Shopify-Shop-Domain is not a name.myshopify.com\n",
			func(s webhook.Stats) uint64 { return s.Malformed }, ""},
		"topic of the other family": {set("Shopify-Topic", "Product"), 400, "headers of both families, X-Shopify- and Shopify-\n",
			func(s webhook.Stats) uint64 { return s.Malformed }, ""},
		"signature of the other family": {set("Shopify-Hmac-Sha256", "x"), 400, "headers of both families, X-Shopify- and Shopify-\n",
			func(s webhook.Stats) uint64 { return s.Malformed }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger, log := logged()
			h := newHandler(t, accept, webhook.Config{Logger: logger})
			r := webhooktest.NewRequest(secret, order())
			if tt.change != nil {
				r = tt.change(r)
			}
			w := serve(h, r)
			assert.Equal(t, tt.status, w.Code)
			assert.Equal(t, tt.answer, w.Body.String())
			assert.EqualValues(t, 1, tt.count(h.Stats()))
			assert.Contains(t, log.String(), tt.log)
			assert.NotContains(t, log.String(), secret)
			if tt.status == 200 {
				assert.Empty(t, log.String())
			}
		})
	}
}

// Each row is what a sink returns and the exact answer.
func TestSinkAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sink   webhook.Sink
		status int
		want   webhook.Stats
	}{
		"nil":       {accept, 200, webhook.Stats{Accepted: 1}},
		"duplicate": {func(context.Context, webhook.Delivery) error { return webhook.ErrDuplicate }, 200, webhook.Stats{Duplicates: 1}},
		"unknown topic": {func(context.Context, webhook.Delivery) error { return webhook.ErrUnhandled }, 200,
			webhook.Stats{Unhandled: 1}},
		"buried":  {func(context.Context, webhook.Delivery) error { return webhook.ErrBuried }, 200, webhook.Stats{Buried: 1}},
		"failure": {func(context.Context, webhook.Delivery) error { return errors.New("queue is down") }, 503, webhook.Stats{Failed: 1}},
		"panic":   {func(context.Context, webhook.Delivery) error { panic("boom") }, 503, webhook.Stats{Failed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger, log := logged()
			h := newHandler(t, tt.sink, webhook.Config{Logger: logger, RetryAfter: 1500 * time.Millisecond})
			w := serve(h, webhooktest.NewRequest(secret, order()))
			assert.Equal(t, tt.status, w.Code)
			assert.Equal(t, tt.want, h.Stats())
			if tt.status == 503 {
				assert.Equal(t, "not taken; send it again\n", w.Body.String())
				assert.Equal(t, "2", w.Header().Get("Retry-After"), "rounded up to whole seconds")
			}
			if name == "panic" {
				assert.Contains(t, log.String(), "boom")
				assert.Contains(t, log.String(), "TestSinkAnswers", "the stack")
			}
		})
	}
}

func TestGoexitInSinkIs503(t *testing.T) {
	t.Parallel()
	h := newHandler(t, func(context.Context, webhook.Delivery) error { runtime.Goexit(); return nil }, webhook.Config{})
	w := httptest.NewRecorder()
	var wg sync.WaitGroup
	wg.Go(func() { h.ServeHTTP(w, webhooktest.NewRequest(secret, order())) })
	wg.Wait()
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, webhook.Stats{Failed: 1}, h.Stats())
}

// P1: "Acknowledged means durable. 200 is sent only after the job is in a durable queue. Queue down or
// slow: 503 inside the deadline, so Shopify redelivers."
func TestP1SlowSinkIs503AtTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ended error
		h := newHandler(t, func(ctx context.Context, _ webhook.Delivery) error {
			<-ctx.Done()
			ended = ctx.Err()
			time.Sleep(time.Hour) // ignores its context
			return nil            // too late to count
		}, webhook.Config{})
		got := make(chan time.Duration, 1)
		start := time.Now()
		go h.ServeHTTP(flushed{httptest.NewRecorder(), func(w *httptest.ResponseRecorder) {
			assert.Equal(t, 503, w.Code)
			assert.Equal(t, "10", w.Header().Get("Retry-After"))
			assert.Equal(t, "not taken; send it again\n", w.Body.String())
			got <- time.Since(start)
		}}, webhooktest.NewRequest(secret, order()))
		assert.Equal(t, 3*time.Second, <-got)
		synctest.Wait()
		require.ErrorIs(t, ended, context.DeadlineExceeded)
		time.Sleep(2 * time.Hour)
		assert.Equal(t, webhook.Stats{Late: 1}, h.Stats())
	})
}

// flushed calls back when the answer is flushed while the handler still runs.
type flushed struct {
	*httptest.ResponseRecorder
	on func(*httptest.ResponseRecorder)
}

func (f flushed) Flush() { f.on(f.ResponseRecorder) }

func TestReadingAndSinkEndWithin4500ms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		h := newHandler(t, func(ctx context.Context, _ webhook.Delivery) error {
			end, _ := ctx.Deadline()
			left = time.Until(end)
			return nil
		}, webhook.Config{})
		r := webhooktest.NewRequest(secret, order())
		r.Body = io.NopCloser(delayed{r.Body, 4 * time.Second})
		assert.Equal(t, 200, serve(h, r).Code)
		assert.Equal(t, 500*time.Millisecond, left)

		r = webhooktest.NewRequest(secret, order())
		r.Body = io.NopCloser(delayed{r.Body, 5 * time.Second})
		assert.Equal(t, 503, serve(h, r).Code)
		assert.Equal(t, webhook.Stats{Accepted: 1, Late: 1}, h.Stats())
	})
}

type delayed struct {
	io.Reader
	by time.Duration
}

func (d delayed) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if err == io.EOF {
		time.Sleep(d.by)
	}
	return n, err
}

// Over a real connection: an upload that stops half-way is cut at 4.5 s and answered.
func TestStalledUploadIs503(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := pipeServer(t, newHandler(t, accept, webhook.Config{}))
		start := time.Now()
		_, err := io.WriteString(client, "POST / HTTP/1.1\r\nHost: x\r\nX-Shopify-Hmac-Sha256: x\r\nX-Shopify-Topic: orders/create\r\n"+
			"X-Shopify-Shop-Domain: example.myshopify.com\r\nX-Shopify-Webhook-Id: w\r\nX-Shopify-API-Version: 2026-04\r\nContent-Length: 10\r\n\r\n{\"i")
		require.NoError(t, err)
		answer, err := io.ReadAll(client)
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(answer), "HTTP/1.1 503 Service Unavailable\r\n"), "%s", answer)
		assert.Equal(t, 4500*time.Millisecond, time.Since(start))
	})
}

// A sink that outlives its deadline on a real connection: the client has its 503 while the sink runs,
// and knows that the connection is done for.
func TestSlowSinkOverAConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		returned := make(chan struct{})
		client := pipeServer(t, newHandler(t, func(context.Context, webhook.Delivery) error { <-returned; return nil }, webhook.Config{}))
		start := time.Now()
		go func() { _ = webhooktest.NewRequest(secret, order()).Write(client) }()
		resp := make([]byte, 4096)
		n, err := client.Read(resp)
		require.NoError(t, err)
		assert.Equal(t, 3*time.Second, time.Since(start))
		assert.True(t, strings.HasPrefix(string(resp[:n]), "HTTP/1.1 503 Service Unavailable\r\n"), "%s", resp[:n])
		assert.Contains(t, string(resp[:n]), "Connection: close\r\n")
		assert.True(t, strings.HasSuffix(string(resp[:n]), "not taken; send it again\n"), "%s", resp[:n])
		close(returned)
		rest, err := io.ReadAll(client)
		require.NoError(t, err)
		assert.Empty(t, rest, "one answer, no second one")
	})
}

// pipeServer serves h on an in-memory connection, which works in a bubble.
func pipeServer(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	l := &oneConn{conns: make(chan net.Conn, 1)}
	l.conns <- server
	s := &http.Server{Handler: h} //nolint:gosec // no ReadHeaderTimeout: the client is this test
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { _ = client.Close(); _ = s.Close(); <-done })
	return client
}

type oneConn struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func TestCutUploadIs400(t *testing.T) {
	t.Parallel()
	h := newHandler(t, accept, webhook.Config{})
	r := webhooktest.NewRequest(secret, order())
	r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 100), failing{}))
	w := serve(h, r)
	assert.Equal(t, 400, w.Code)
	assert.Equal(t, "body is incomplete\n", w.Body.String())
	assert.Equal(t, webhook.Stats{Malformed: 1}, h.Stats())
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestBodyOverTheLimitIs413(t *testing.T) {
	t.Parallel()
	h := newHandler(t, accept, webhook.Config{MaxBytes: 8 << 10})
	for _, length := range []int64{14894, -1} {
		r := webhooktest.NewRequest(secret, order())
		r.ContentLength = length
		w := serve(h, r)
		assert.Equal(t, 413, w.Code)
		assert.Equal(t, "body is too large\n", w.Body.String())
		assert.Equal(t, "close", w.Header().Get("Connection"))
	}
	small := order()
	small.Body = bytes.Repeat([]byte("x"), 8<<10)
	assert.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, small)).Code, "exactly the limit")
	assert.Equal(t, webhook.Stats{TooLarge: 2, Accepted: 1}, h.Stats())
}

func TestMiddlewareLimitIs413(t *testing.T) {
	t.Parallel()
	h := newHandler(t, accept, webhook.Config{})
	r := webhooktest.NewRequest(secret, order())
	w := httptest.NewRecorder()
	r.Body = http.MaxBytesReader(w, r.Body, 100)
	h.ServeHTTP(w, r)
	assert.Equal(t, 413, w.Code)
}

func TestDeliveryHasEveryHeader(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 11, 15, 6, 59, 110521905, time.UTC)
	for name, want := range map[string]webhook.Meta{
		"classic": {Shop: "example.myshopify.com", Topic: "orders/create", WebhookID: "w", EventID: "e", APIVersion: "2026-04", TriggeredAt: at,
			Name: "sub", SubTopic: "lookbook", Test: true, OrderID: "1", ProductID: "2", CustomerID: "3"},
		"events": {Family: webhook.Events, Shop: "example.myshopify.com", Topic: "Product", WebhookID: "w", EventID: "e", APIVersion: "unstable",
			TriggeredAt: at, Handle: "h", Action: "update", ResourceID: "gid://shopify/Product/9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got webhook.Delivery
			h := newHandler(t, func(_ context.Context, d webhook.Delivery) error {
				got = d
				got.Body = bytes.Clone(d.Body)
				return nil
			}, webhook.Config{})
			body := []byte(`{"id":1}`)
			require.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, webhook.Delivery{Meta: want, Body: body})).Code)
			assert.Equal(t, want, got.Meta)
			assert.Equal(t, body, got.Body)
			stored := http.Header{}
			got.SetHeader(stored)
			assert.Equal(t, want, webhook.ParseMeta(stored))
			if name == "events" {
				assert.Equal(t, "product/9", got.Subject())
			}
		})
	}
}

func TestClientHangingUpDoesNotCancelTheSink(t *testing.T) {
	t.Parallel()
	h := newHandler(t, func(ctx context.Context, _ webhook.Delivery) error { return ctx.Err() }, webhook.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, order()).WithContext(ctx)).Code)
}

func TestSecretFunc(t *testing.T) {
	t.Parallel()
	t.Run("names the app whose secret matched, through a rotation", func(t *testing.T) {
		t.Parallel()
		var app string
		h, err := webhook.New(func(context.Context, string) ([]webhook.Secret, error) {
			return []webhook.Secret{{App: "orders", Key: "new"}, {App: "orders", Key: "old"}, {App: "returns", Key: "r"}}, nil
		}, func(_ context.Context, d webhook.Delivery) error { app = d.App; return nil }, webhook.Config{})
		require.NoError(t, err)
		for key, want := range map[string]string{"new": "orders", "old": "orders", "r": "returns"} {
			require.Equal(t, 200, serve(h, webhooktest.NewRequest(key, order())).Code)
			assert.Equal(t, want, app)
		}
		assert.Equal(t, 401, serve(h, webhooktest.NewRequest("none", order())).Code)
	})
	t.Run("an empty secret is nobody's", func(t *testing.T) {
		t.Parallel()
		h, err := webhook.New(webhook.Secrets(""), accept, webhook.Config{})
		require.NoError(t, err)
		assert.Equal(t, 401, serve(h, webhooktest.NewRequest("", order())).Code)
	})
	t.Run("results are cached for SecretTTL, unknown shops for 10 s", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			calls := map[string]int{}
			h, err := webhook.New(func(_ context.Context, shop string) ([]webhook.Secret, error) {
				calls[shop]++
				if shop == "unknown.myshopify.com" {
					return nil, nil
				}
				return []webhook.Secret{{Key: secret}}, nil
			}, accept, webhook.Config{SecretTTL: time.Hour})
			require.NoError(t, err)
			send := func(shop string) int {
				d := order()
				d.Shop = shop
				return serve(h, webhooktest.NewRequest(secret, d)).Code
			}
			for range 3 {
				assert.Equal(t, 200, send("known.myshopify.com"))
				assert.Equal(t, 401, send("unknown.myshopify.com"))
			}
			assert.Equal(t, map[string]int{"known.myshopify.com": 1, "unknown.myshopify.com": 1}, calls)
			time.Sleep(10 * time.Second)
			send("known.myshopify.com")
			send("unknown.myshopify.com")
			assert.Equal(t, map[string]int{"known.myshopify.com": 1, "unknown.myshopify.com": 2}, calls)
			time.Sleep(time.Hour)
			send("known.myshopify.com")
			assert.Equal(t, 2, calls["known.myshopify.com"])
		})
	})
	t.Run("its failure, panic and delay are 503", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			logger, log := logged()
			for _, f := range []webhook.SecretFunc{
				func(context.Context, string) ([]webhook.Secret, error) { return nil, errors.New("database is down") },
				func(context.Context, string) ([]webhook.Secret, error) { panic("boom") },
				func(context.Context, string) ([]webhook.Secret, error) { runtime.Goexit(); return nil, nil },
				func(ctx context.Context, _ string) ([]webhook.Secret, error) { <-ctx.Done(); return nil, ctx.Err() },
			} {
				h, err := webhook.New(f, accept, webhook.Config{Logger: logger})
				require.NoError(t, err)
				assert.Equal(t, 503, serve(h, webhooktest.NewRequest(secret, order())).Code)
			}
			time.Sleep(5 * time.Second) // the calls end after those who waited
			assert.Contains(t, log.String(), "SecretFunc panicked: boom")
			assert.Contains(t, log.String(), "TestSecretFunc", "the stack")
		})
	})
	t.Run("one that ignores its context is left behind and called again", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			h, err := webhook.New(func(context.Context, string) ([]webhook.Secret, error) {
				if calls.Add(1) == 1 {
					time.Sleep(time.Hour)
				}
				return []webhook.Secret{{Key: secret}}, nil
			}, accept, webhook.Config{})
			require.NoError(t, err)
			assert.Equal(t, 503, serve(h, webhooktest.NewRequest(secret, order())).Code)
			assert.Equal(t, webhook.Stats{Late: 1}, h.Stats())
			time.Sleep(2 * time.Second)
			assert.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, order())).Code)
			time.Sleep(time.Hour)
		})
	})
	t.Run("a shop that is not known any more is cached too", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			h, err := webhook.New(func(context.Context, string) ([]webhook.Secret, error) {
				if calls++; calls == 1 {
					return []webhook.Secret{{Key: secret}}, nil
				}
				return nil, nil
			}, accept, webhook.Config{})
			require.NoError(t, err)
			assert.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, order())).Code)
			time.Sleep(time.Hour)
			for range 100 {
				assert.Equal(t, 401, serve(h, webhooktest.NewRequest(secret, order())).Code)
			}
			assert.Equal(t, 2, calls)
			time.Sleep(5 * time.Second)
		})
	})
	t.Run("a flood of invented shops runs 32 calls at most and holds up no known shop", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var running, peak int
			h, err := webhook.New(func(_ context.Context, shop string) ([]webhook.Secret, error) {
				if shop == "known.myshopify.com" {
					return []webhook.Secret{{Key: secret}}, nil
				}
				mu.Lock()
				running++
				peak = max(peak, running)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				running--
				mu.Unlock()
				return nil, nil
			}, accept, webhook.Config{SecretTTL: time.Second})
			require.NoError(t, err)
			known := order()
			known.Shop = "known.myshopify.com"
			require.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, known)).Code)
			var wg sync.WaitGroup
			for i := range 500 {
				d := order()
				d.Shop = "x" + strings.Repeat("y", i%50) + string(rune('a'+i%10)) + string(rune('a'+i/10%10)) + ".myshopify.com"
				wg.Go(func() { serve(h, webhooktest.NewRequest(secret, d)) })
			}
			synctest.Wait()
			start := time.Now()
			assert.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, known)).Code)
			assert.Zero(t, time.Since(start))
			time.Sleep(1500 * time.Millisecond) // the known shop's secrets have to be renewed by now
			start = time.Now()
			assert.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, known)).Code)
			assert.Zero(t, time.Since(start))
			wg.Wait()
			time.Sleep(5 * time.Second) // the last calls end after the requests that wanted them
			mu.Lock()
			defer mu.Unlock()
			assert.Equal(t, 32, peak)
		})
	})
}

// What a sink leaves behind on its context ends when the sink returns.
func TestContextEndsWithTheSink(t *testing.T) {
	t.Parallel()
	var kept context.Context
	h := newHandler(t, func(ctx context.Context, _ webhook.Delivery) error {
		kept = ctx //nolint:fatcontext // to look at afterwards
		return ctx.Err()
	}, webhook.Config{})
	require.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, order())).Code)
	<-kept.Done()
	assert.Equal(t, context.Canceled, kept.Err())
}

// A sink that outlives its deadline keeps its own body: the buffer is not used for the next request.
func TestLateSinkKeepsItsBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var late []byte
		var first atomic.Bool
		h := newHandler(t, func(_ context.Context, d webhook.Delivery) error {
			if first.CompareAndSwap(false, true) {
				<-release
				late = bytes.Clone(d.Body)
			}
			return nil
		}, webhook.Config{})
		var wg sync.WaitGroup
		wg.Go(func() { serve(h, webhooktest.NewRequest(secret, order())) })
		time.Sleep(4 * time.Second)
		for range 100 {
			other := order()
			other.Body = bytes.Repeat([]byte("z"), 14894)
			require.Equal(t, 200, serve(h, webhooktest.NewRequest(secret, other)).Code)
		}
		close(release)
		wg.Wait()
		assert.Equal(t, webhooktest.Payload("orders/create"), late)
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]func() (*webhook.Handler, error){
		"secrets is nil": func() (*webhook.Handler, error) { return webhook.New(nil, accept, webhook.Config{}) },
		"sink is nil":    func() (*webhook.Handler, error) { return webhook.New(webhook.Secrets("x"), nil, webhook.Config{}) },
		"MaxBytes is -1": func() (*webhook.Handler, error) {
			return webhook.New(webhook.Secrets("x"), accept, webhook.Config{MaxBytes: -1})
		},
		"SinkTimeout is -1s": func() (*webhook.Handler, error) {
			return webhook.New(webhook.Secrets("x"), accept, webhook.Config{SinkTimeout: -time.Second})
		},
		"RetryAfter is -1s": func() (*webhook.Handler, error) {
			return webhook.New(webhook.Secrets("x"), accept, webhook.Config{RetryAfter: -time.Second})
		},
		"SecretTTL is -1s": func() (*webhook.Handler, error) {
			return webhook.New(webhook.Secrets("x"), accept, webhook.Config{SecretTTL: -time.Second})
		},
	} {
		_, err := f()
		require.ErrorContains(t, err, want)
	}
}

// The cost that the package promises: at most 6 allocations and 400 bytes a delivery beyond its body.
//
//nolint:paralleltest // it counts the whole process's allocations
func TestAllocations(t *testing.T) {
	// A collection in between would empty the pools and count against us.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, size := range []int{1 << 10, 100 << 10, 1 << 20, 5 << 20} {
		h := newHandler(t, accept, webhook.Config{})
		d := order()
		d.Body = bytes.Repeat([]byte("x"), size)
		r := webhooktest.NewRequest(secret, d)
		rd := bytes.NewReader(d.Body)
		r.Body = io.NopCloser(rd)
		w := discard{http.Header{}}
		deliver := func() {
			rd.Reset(d.Body)
			h.ServeHTTP(w, r)
		}
		deliver()
		const runs = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			deliver()
		}
		runtime.ReadMemStats(&after)
		if raceEnabled { // pools forget at random then
			assert.LessOrEqual(t, (after.Mallocs-before.Mallocs)/runs, uint64(12), "%d bytes", size)
			continue
		}
		assert.LessOrEqual(t, (after.Mallocs-before.Mallocs)/runs, uint64(6), "%d bytes", size)
		assert.Less(t, (after.TotalAlloc-before.TotalAlloc)/runs, uint64(400), "%d bytes", size)
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// Whatever the headers and the body are: no panic, and 200 only for a body that the secret signed.
func FuzzHandler(f *testing.F) {
	h := newHandler(f, func(_ context.Context, d webhook.Delivery) error {
		_, _ = webhook.Decode[any](d)
		return nil
	}, webhook.Config{MaxBytes: 1 << 16})
	d := webhooktest.Fill(order())
	f.Add(d.Topic, d.Shop, d.WebhookID, d.APIVersion, "2026-05-11T15:06:59.110521905Z", webhook.Sign(d.Body, secret), "", d.Body)
	f.Add("Product", "a.myshopify.com", "w", "2026-04", "x", "x", "x", []byte("{}"))
	f.Fuzz(func(t *testing.T, topic, shop, id, version, triggered, signature, other string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		for name, value := range map[string]string{
			"X-Shopify-Topic": topic, "X-Shopify-Shop-Domain": shop, "X-Shopify-Webhook-Id": id, "X-Shopify-Api-Version": version,
			"X-Shopify-Triggered-At": triggered, "X-Shopify-Hmac-Sha256": signature, "Shopify-Hmac-Sha256": other,
		} {
			if value != "" {
				r.Header[name] = []string{value}
			}
		}
		if w := serve(h, r); w.Code == 200 {
			require.NoError(t, webhook.VerifyBody(signature, body, secret))
		}
	})
}
