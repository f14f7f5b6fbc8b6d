package main

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

// newBreakwater is the same integration on Breakwater: the handler verifies, queues and answers, and the
// work runs behind the queue, in order per order, each shop in its turn, again when a system fails or a worker dies. The workers
// that die are made up, see fleet; with -kill they are processes, see crew.
func newBreakwater(ctx context.Context, set settings) (http.Handler, func() error, error) {
	broker, cfg, err := open(set.options)
	if err != nil {
		return nil, nil, err
	}
	hooks, err := receive(broker, cfg)
	f := &fleet{broker: broker, cfg: cfg, systems: newClient(set.URL), set: set}
	return hooks, func() error { return f.run(ctx) }, err
}

// receive makes the handler that verifies, queues and answers.
func receive(broker queue.Broker, cfg queue.Config) (http.Handler, error) {
	jobs, err := queue.New(broker, cfg)
	if err != nil {
		return nil, err
	}
	topics := enqueue.Topics(slices.Collect(maps.Keys(steps))...)
	return webhook.New(webhook.Secrets(secret), enqueue.To(jobs, topics), webhook.Config{})
}

// workerConfig is that of every worker, made up or real.
func workerConfig(o options) queue.WorkerConfig {
	least := retryWait(o) / 2
	return queue.WorkerConfig{
		Concurrency: 256 / workers,
		Lease:       lease(o.Scale),
		Drain:       time.Second,
		Backoff:     func(int) time.Duration { return least + rand.N(least) },
	}
}

// retryWait is how long a job that has failed waits at most. Processes that share a file wait for each other there, and on a clock as fast as this
// one the retries of a system that is down would take all of the file's time: under -kill they come less often.
func retryWait(o options) time.Duration {
	wait := 10 * time.Second
	if o.Kill {
		wait *= 2
	}
	return time.Duration(float64(wait) / o.Scale)
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
