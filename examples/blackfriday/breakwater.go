package main

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

// newBreakwater is the same integration on Breakwater: the handler verifies, queues and answers, and the
// work runs behind the queue, in order per order, each shop in its turn, again when a system fails or a worker dies.
func newBreakwater(ctx context.Context, set settings) (http.Handler, func() error, error) {
	// The broker is the one in memory, so this process must not die; its workers may. Durable ones are on their way.
	broker, cfg := new(queue.Memory), queue.Config{AllowVolatile: true, MaxAttempts: 1000}
	jobs, err := queue.New(broker, cfg)
	if err != nil {
		return nil, nil, err
	}
	topics := enqueue.Topics(slices.Collect(maps.Keys(steps))...)
	hooks, err := webhook.New(webhook.Secrets(secret), enqueue.To(jobs, topics), webhook.Config{})
	if err != nil {
		return nil, nil, err
	}
	f := &fleet{broker: broker, cfg: cfg, systems: newClient(set.URL), set: set}
	return hooks, func() error { return f.run(ctx) }, nil
}

// doneSteps remembers which steps of a job are done, so that a retry after the carrier failed, or the
// worker that takes the job over, does not create the order in the ERP again. It stands for a database that all
// workers share and that outlives them: it is what package idempotency will do for real. It goes by the job
// and not by the delivery, so that it can't hide a delivery that was queued twice. And it is no lock: two
// workers that had one job at once would both do its next step, for the ledger to see.
type doneSteps struct{ steps sync.Map }

func (d *doneSteps) has(job, system string) bool {
	_, ok := d.steps.Load(job + " " + system)
	return ok
}

func (d *doneSteps) add(job, system string) { d.steps.Store(job+" "+system, true) }
