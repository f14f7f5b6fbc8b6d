// Package enqueue is the bridge between webhooks and the queue: [To] makes deliveries into jobs, and
// [Handle] makes the jobs back into typed events.
//
// A delivery becomes one job: its kind is the topic, its group the app and shop (so that shops take
// turns), its key the subject (so that all that happens to one order runs in order), and its dedupe key
// the webhook ID (so that a redelivery is dropped in the same step as the enqueue, and answered 200).
//
//	enqueue.Handle(mux, "orders/create", func(ctx context.Context, e webhook.Event[Order]) error { … })
//	hooks, err := webhook.New(webhook.Secrets(secret), enqueue.To(jobs, mux), webhook.Config{})
package enqueue

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
)

// Lister says which topics to take: a [queue.Mux] that has their handlers, or [Topics] in a process
// that only receives. Deliveries of other topics are answered 200 and not queued.
type Lister interface{ Has(topic string) bool }

// Topics is a Lister for a process that has no handlers of its own.
func Topics(topics ...string) Lister {
	set := make(set, len(topics))
	for _, t := range topics {
		set[t] = true
	}
	return set
}

type set map[string]bool

func (s set) Has(topic string) bool { return s[topic] }

// To makes a sink that enqueues each delivery of a listed topic into jobs. It is Config{}.To.
func To(jobs *queue.Queue, topics Lister) webhook.Sink { return Config{}.To(jobs, topics) }

// Config tunes how deliveries become jobs. The zero value is valid.
type Config struct {
	// DedupeFor is how long a delivery's redeliveries are dropped; 0 means 48 h. Shopify redelivers for 4 h.
	DedupeFor time.Duration
	// DedupeKey names what counts as the same delivery, within its app and shop; nil means topic and
	// webhook ID, which Shopify keeps on every redelivery. Topic and event ID would collapse several
	// subscriptions to one topic into one. "" is never a duplicate.
	DedupeKey func(d webhook.Delivery) string
	// Key names what is kept in order, within the app and shop; nil means the delivery's subject.
	// Deliveries with the key "" run apart from all others.
	Key func(d webhook.Delivery) string
}

// To makes a sink that enqueues each delivery of a listed topic into jobs. Its errors are those
// that [webhook.Handler] answers 200 to: [webhook.ErrUnhandled], [webhook.ErrDuplicate] and, for a payload
// over the queue's limit or a key that no queue can store, [webhook.ErrBuried]; anything else is the queue's failure, and Shopify sends the
// delivery again. It panics if jobs or topics is nil or DedupeFor negative.
func (c Config) To(jobs *queue.Queue, topics Lister) webhook.Sink {
	switch {
	case jobs == nil || topics == nil:
		panic("enqueue: To needs a queue and the topics to take")
	case c.DedupeFor < 0:
		panic(fmt.Sprintf("enqueue: Config.DedupeFor is %v; want 0 for the default, or more", c.DedupeFor))
	}
	if c.DedupeKey == nil {
		c.DedupeKey = func(d webhook.Delivery) string { return d.Topic + " " + d.WebhookID }
	}
	if c.Key == nil {
		c.Key = webhook.Delivery.Subject
	}
	return func(ctx context.Context, d webhook.Delivery) error {
		if !topics.Has(d.Topic) {
			return webhook.ErrUnhandled
		}
		job := queue.Job{
			Kind:      d.Topic,
			Payload:   d.Body,
			Headers:   headers(d.Meta),
			Group:     d.App + "/" + d.Shop,
			Key:       c.Key(d),
			DedupeKey: c.DedupeKey(d),
			DedupeFor: c.DedupeFor,
		}
		receipts, err := jobs.Enqueue(ctx, job)
		if errors.Is(err, queue.ErrPayloadTooLarge) || errors.Is(err, queue.ErrNameTooLong) { // it can never be taken
			receipt, buryErr := jobs.Bury(ctx, job, err)
			switch {
			case buryErr != nil:
				return buryErr
			case receipt.Duplicate:
				return webhook.ErrDuplicate
			}
			return webhook.ErrBuried
		}
		if err != nil {
			return err
		}
		if receipts[0].Duplicate {
			return webhook.ErrDuplicate
		}
		return nil
	}
}

// Handle registers a handler of a topic. It gets each job as the event that Shopify sent, its body
// decoded into a T; a body that does not decode kills its job. It panics as [queue.Mux.Handle] does.
func Handle[T any](mux *queue.Mux, topic string, h func(ctx context.Context, e webhook.Event[T]) error) {
	mux.Handle(topic, func(ctx context.Context, job queue.Job) error {
		e, err := webhook.Decode[T](Delivery(job))
		if err != nil {
			return err
		}
		return h(ctx, e)
	})
}

// appHeader carries Meta.App, which no header of Shopify's does.
const appHeader = "Breakwater-App"

// headers are d's headers under their canonical names.
func headers(m webhook.Meta) map[string]string {
	h := make(http.Header, 8)
	m.SetHeader(h)
	flat := make(map[string]string, len(h)+1)
	for k, v := range h {
		flat[k] = v[0]
	}
	if m.App != "" {
		flat[appHeader] = m.App
	}
	return flat
}

// Delivery makes a job that came through [To] back into the delivery, for handlers that want the raw
// body. The body is the job's payload, not a copy.
func Delivery(job queue.Job) webhook.Delivery {
	h := make(http.Header, len(job.Headers))
	for k, v := range job.Headers {
		h[k] = []string{v}
	}
	d := webhook.Delivery{Meta: webhook.ParseMeta(h), Body: job.Payload}
	d.App = job.Headers[appHeader]
	return d
}
