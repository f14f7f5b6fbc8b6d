package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

// newBreakwater is the same integration on Breakwater: the handler verifies, queues and answers, and the
// work runs behind the queue, in order per order, each shop in its turn, again when a system fails.
func newBreakwater(ctx context.Context, set settings) (http.Handler, func() error, error) {
	// The broker is the one in memory, so this process must not die. Durable ones are on their way.
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true, MaxAttempts: 1000})
	if err != nil {
		return nil, nil, err
	}
	systems := newClient(set.URL)
	done := new(doneSteps)
	mux := queue.NewMux()
	for topic, systemsOfTopic := range steps {
		enqueue.Handle(mux, topic, func(ctx context.Context, e webhook.Event[json.RawMessage]) error {
			in := call{Event: e.WebhookID, Topic: e.Topic, Shop: e.Shop, Subject: e.Subject}
			for _, system := range systemsOfTopic {
				if done.has(e.WebhookID, system) {
					continue
				}
				if err := systems.do(ctx, system, in); err != nil {
					return err // the queue tries again, and nothing of this order runs meanwhile
				}
				done.add(e.WebhookID, system)
			}
			return nil
		})
	}
	hooks, err := webhook.New(webhook.Secrets(secret), enqueue.To(jobs, mux), webhook.Config{})
	if err != nil {
		return nil, nil, err
	}
	work := func() error {
		return jobs.Run(ctx, mux, queue.WorkerConfig{
			Concurrency: 256,
			Drain:       time.Second,
			// A retry every 5 to 10 s of the storm's time.
			Backoff: func(int) time.Duration {
				return time.Duration((5 + 5*rand.Float64()) * float64(time.Second) / set.Scale)
			},
		})
	}
	return hooks, work, nil
}

// doneSteps remembers which steps of an event are done, so that a retry after the carrier failed does
// not create the order in the ERP again. It lives in this process's memory alone: it is what package
// idempotency will do for real, across crashes.
type doneSteps struct{ steps sync.Map }

func (d *doneSteps) has(event, system string) bool {
	_, ok := d.steps.Load(event + " " + system)
	return ok
}

func (d *doneSteps) add(event, system string) { d.steps.Store(event+" "+system, true) }
