package main

import (
	"context"
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
		mux.Handle(topic, func(ctx context.Context, job queue.Job) error {
			d := enqueue.Delivery(job)
			in := call{Event: d.WebhookID, Topic: d.Topic, Shop: d.Shop, Subject: d.Subject()}
			for _, system := range systemsOfTopic {
				if done.has(job.ID, system) {
					continue
				}
				if err := systems.do(ctx, system, in); err != nil {
					return err // the queue tries again, and nothing of this order runs meanwhile
				}
				done.add(job.ID, system)
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

// doneSteps remembers which steps of a job are done, so that a retry after the carrier failed does not
// create the order in the ERP again. It lives in this process's memory alone: it is what package
// idempotency will do for real, across crashes. It goes by the job and not by the delivery, so that it can't
// hide a delivery that was queued twice.
type doneSteps struct{ steps sync.Map }

func (d *doneSteps) has(job, system string) bool {
	_, ok := d.steps.Load(job + " " + system)
	return ok
}

func (d *doneSteps) add(job, system string) { d.steps.Store(job+" "+system, true) }
