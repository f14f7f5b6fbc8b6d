package main

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

// newBreakwater is the same integration on Breakwater: the handler verifies, queues and answers, and the
// work runs behind the queue, in order per order, each shop in its turn, again when a system fails or a worker dies. The workers
// that die are made up, see fleet; with -kill they are processes, see crew.
func newBreakwater(ctx context.Context, set settings) (http.Handler, func() error, error) {
	h, err := open(set.options)
	if err != nil {
		return nil, nil, err
	}
	hooks, err := receive(h)
	f := &fleet{home: h, systems: newClient(set.URL), set: set}
	return hooks, func() error { return f.run(ctx) }, err
}

// receive makes the handler that verifies, queues and answers.
func receive(h home) (http.Handler, error) {
	jobs, err := queue.New(h.broker, h.cfg)
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
