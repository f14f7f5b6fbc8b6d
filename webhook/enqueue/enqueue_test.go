package enqueue_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

const secret = "hush"

// durable is a memory broker that says it is durable, and can fail or hang.
type durable struct {
	queue.Memory
	fail, hang atomic.Bool
	processes  atomic.Int64
}

func (*durable) Info() queue.BrokerInfo { return queue.BrokerInfo{Engine: "test", Durable: true} }

func (d *durable) Enqueue(ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
	if d.hang.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if d.fail.Load() {
		return nil, errors.New("broker is down")
	}
	return d.Memory.Enqueue(ctx, name, batch)
}

// jobs takes every job out of the broker, as another process would.
func (d *durable) jobs(t *testing.T) []queue.Job {
	t.Helper()
	call := queue.Call{Process: strconv.FormatInt(d.processes.Add(1), 10), Max: 1000, Lease: time.Minute}
	var jobs []queue.Job
	for {
		call.Number++
		claimed, err := d.Claim(t.Context(), "default", call)
		require.NoError(t, err)
		if len(claimed.Jobs) == 0 {
			return jobs
		}
		call.Settle = nil
		for _, l := range claimed.Jobs {
			jobs = append(jobs, l.Job)
			call.Settle = append(call.Settle, queue.Settlement{Token: l.Token, Action: queue.Ack})
		}
	}
}

func newHandler(t *testing.T, b queue.Broker, cfg queue.Config, topics ...string) (*webhook.Handler, *queue.Queue) {
	t.Helper()
	q, err := queue.New(b, cfg)
	require.NoError(t, err)
	h, err := webhook.New(webhook.Secrets(secret), enqueue.To(q, enqueue.Topics(topics...)), webhook.Config{})
	require.NoError(t, err)
	return h, q
}

func send(h http.Handler, d webhook.Delivery) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, webhooktest.NewRequest(secret, d))
	return w
}

func order(id string) webhook.Delivery {
	return webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", WebhookID: id}}
}

// P1: "Acknowledged means durable. 200 is sent only after the job is in a durable queue. Queue down or
// slow: 503 inside the deadline, so Shopify redelivers."
func TestP1AcknowledgedMeansDurable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(durable)
		h, _ := newHandler(t, b, queue.Config{}, "orders/create")

		assert.Equal(t, 200, send(h, order("w1")).Code)
		jobs := b.jobs(t)
		require.Len(t, jobs, 1, "answered 200, so it is in the broker")
		assert.Equal(t, webhooktest.Payload("orders/create"), jobs[0].Payload)
		assert.Equal(t, "/example.myshopify.com", jobs[0].Group)
		assert.Equal(t, "order/820982911946154508", jobs[0].Key)

		b.fail.Store(true)
		down := send(h, order("w2"))
		assert.Equal(t, 503, down.Code)
		assert.Equal(t, "10", down.Header().Get("Retry-After"))
		assert.Empty(t, b.jobs(t))

		b.hang.Store(true)
		start := time.Now()
		assert.Equal(t, 503, send(h, order("w2")).Code)
		assert.Equal(t, 3*time.Second, time.Since(start))

		b.hang.Store(false)
		b.fail.Store(false)
		assert.Equal(t, 200, send(h, order("w2")).Code, "dedupe_key_does_not_survive_an_enqueue_that_failed")
		assert.Len(t, b.jobs(t), 1)
	})
}

// P2: "A delivery enqueues once. Its redelivery is dropped at the door, in the same atomic step as the
// enqueue, and answered 200."
func TestP2DeliveryEnqueuesOnce(t *testing.T) {
	t.Parallel()
	b := new(durable)
	h, _ := newHandler(t, b, queue.Config{}, "orders/create", "orders/paid")
	var wg sync.WaitGroup
	for range 50 { // at the same instant, as Shopify does at times
		wg.Go(func() { assert.Equal(t, 200, send(h, order("w1")).Code) })
	}
	wg.Wait()
	assert.Equal(t, 200, send(h, order("w1")).Code)
	assert.Len(t, b.jobs(t), 1)
	assert.Equal(t, webhook.Stats{Accepted: 1, Duplicates: 50}, h.Stats())

	// What differs in webhook ID, topic or shop is another delivery.
	other := order("w1")
	other.Topic = "orders/paid"
	elsewhere := order("w1")
	elsewhere.Shop = "other.myshopify.com"
	for _, d := range []webhook.Delivery{order("w2"), other, elsewhere} {
		assert.Equal(t, 200, send(h, d).Code)
	}
	assert.Equal(t, webhook.Stats{Accepted: 4, Duplicates: 50}, h.Stats())
}

// Done and gone from the queue, a delivery is still known for 48 h.
func TestRedeliveryAfterTheJobIsDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(durable)
		h, q := newHandler(t, b, queue.Config{}, "orders/create")
		var runs atomic.Int64
		mux := queue.NewMux()
		mux.Handle("orders/create", func(context.Context, queue.Job) error { runs.Add(1); return nil })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, q.Run(ctx, mux, queue.WorkerConfig{})) })
		for range 5 {
			assert.Equal(t, 200, send(h, order("w1")).Code)
			time.Sleep(time.Hour)
		}
		assert.EqualValues(t, 1, runs.Load())
		time.Sleep(44 * time.Hour)
		assert.Equal(t, 200, send(h, order("w1")).Code)
		synctest.Wait()
		assert.EqualValues(t, 2, runs.Load())
		cancel()
		wg.Wait()
	})
}

func TestTopicThatNobodyListsIs200AndNotQueued(t *testing.T) {
	t.Parallel()
	b := new(durable)
	h, _ := newHandler(t, b, queue.Config{}, "orders/paid")
	assert.Equal(t, 200, send(h, order("w1")).Code)
	assert.Empty(t, b.jobs(t))
	assert.Equal(t, webhook.Stats{Unhandled: 1}, h.Stats())
}

// An authentic delivery that can never be taken is kept as a dead letter, and not sent for ever.
func TestPayloadOverTheQueuesLimitIsBuried(t *testing.T) {
	t.Parallel()
	b := new(durable)
	h, q := newHandler(t, b, queue.Config{MaxPayloadBytes: 1000}, "orders/create")
	assert.Equal(t, 200, send(h, order("w1")).Code)
	assert.Equal(t, 200, send(h, order("w1")).Code)
	assert.Equal(t, webhook.Stats{Buried: 1, Duplicates: 1}, h.Stats())
	assert.Empty(t, b.jobs(t))
	dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 10})
	require.NoError(t, err)
	require.Len(t, dead, 1)
	assert.Equal(t, "queue: payload of orders/create has 14894 bytes; Config.MaxPayloadBytes is 1000", dead[0].Error)
	assert.Empty(t, dead[0].Job.Payload)
	assert.Equal(t, "order/820982911946154508", dead[0].Job.Key)
	assert.Equal(t, "w1", dead[0].Job.Headers["X-Shopify-Webhook-Id"])

	b.fail.Store(true)
	assert.Equal(t, 503, send(h, order("w2")).Code, "not kept, so not acknowledged")
}

// So is one whose key no queue can store.
func TestKeyThatIsTooLongIsBuried(t *testing.T) {
	t.Parallel()
	q, err := queue.New(new(durable), queue.Config{})
	require.NoError(t, err)
	long := enqueue.Config{Key: func(webhook.Delivery) string { return strings.Repeat("x", 1<<16) }}
	h, err := webhook.New(webhook.Secrets(secret), long.To(q, enqueue.Topics("orders/create")), webhook.Config{})
	require.NoError(t, err)
	assert.Equal(t, 200, send(h, order("w1")).Code)
	assert.Equal(t, webhook.Stats{Buried: 1}, h.Stats())
	dead, err := q.Dead(t.Context(), queue.DeadFilter{})
	require.NoError(t, err)
	require.Len(t, dead, 1)
	assert.Equal(t, "queue: Job.Key has 65536 bytes; at most 65535 are possible", dead[0].Error)
}

func TestHandlerGetsTheEventThatShopifySent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, err := queue.New(new(durable), queue.Config{})
		require.NoError(t, err)
		type body struct {
			ID   int64
			Name string
		}
		mux := queue.NewMux()
		events := make(chan webhook.Event[body], 1)
		enqueue.Handle(mux, "orders/create", func(_ context.Context, e webhook.Event[body]) error { events <- e; return nil })
		h, err := webhook.New(func(context.Context, string) ([]webhook.Secret, error) {
			return []webhook.Secret{{App: "erp", Key: secret}}, nil
		}, enqueue.To(q, mux), webhook.Config{})
		require.NoError(t, err)
		at := time.Date(2026, 5, 11, 15, 6, 59, 110521905, time.UTC)
		sent := webhook.Meta{Shop: "a.myshopify.com", Topic: "orders/create", WebhookID: "w", EventID: "e", APIVersion: "2026-04", TriggeredAt: at, Name: "sub", Test: true, OrderID: "1"}
		require.Equal(t, 200, send(h, webhook.Delivery{Meta: sent}).Code)

		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, q.Run(ctx, mux, queue.WorkerConfig{})) })
		e := <-events
		sent.App = "erp"
		assert.Equal(t, sent, e.Meta)
		assert.Equal(t, "order/820982911946154508", e.Subject)
		assert.Equal(t, body{820982911946154508, "#9999"}, e.Body)
		assert.Equal(t, time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC), e.UpdatedAt.UTC())

		// A body that no handler can read is a dead letter at once.
		bad := order("w2")
		bad.Body = []byte(`{"id":"not a number"}`)
		require.Equal(t, 200, send(h, bad).Code)
		synctest.Wait()
		cancel()
		wg.Wait()
		dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 10})
		require.NoError(t, err)
		require.Len(t, dead, 1)
		assert.True(t, strings.HasPrefix(dead[0].Error, "webhook: body of orders/create does not decode: "), dead[0].Error)
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	b := new(durable)
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	sink := enqueue.Config{
		DedupeKey: func(d webhook.Delivery) string { return d.Topic + " " + d.EventID },
		Key:       func(d webhook.Delivery) string { return d.Topic },
	}.To(q, enqueue.Topics("orders/create"))
	d := webhooktest.Fill(order("w1"))
	require.NoError(t, sink(t.Context(), d))
	d.WebhookID = "w2"
	require.ErrorIs(t, sink(t.Context(), d), webhook.ErrDuplicate, "another subscription, the same event")
	assert.Equal(t, "orders/create", b.jobs(t)[0].Key)
}

func TestToPanicsForProgrammerMistakes(t *testing.T) {
	t.Parallel()
	q, err := queue.New(new(durable), queue.Config{})
	require.NoError(t, err)
	assert.Panics(t, func() { enqueue.To(nil, enqueue.Topics()) })
	assert.Panics(t, func() { enqueue.To(q, nil) })
	assert.Panics(t, func() { enqueue.Config{DedupeFor: -time.Second}.To(q, enqueue.Topics()) })
}
