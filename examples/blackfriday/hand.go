package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

// The processes of the Breakwater side under -kill. Each opens the queue for itself and is killed when it least expects it.

// newServer only takes webhooks into the queue.
func newServer(ctx context.Context, set settings) (http.Handler, func() error, error) {
	broker, cfg, err := open(set.options)
	if err != nil {
		return nil, nil, err
	}
	hooks, err := receive(broker, cfg)
	return hooks, func() error { <-ctx.Done(); return nil }, err
}

// hand is a worker process.
type hand struct {
	number  int
	systems *client
	book    book
	notes   chan note
}

// hired is what a worker process does all its life.
func hired(raw string) error {
	var set settings
	if err := json.Unmarshal([]byte(raw), &set); err != nil {
		return err
	}
	ctx, cancel := untilAlone()
	defer cancel()
	b, broker, err := openBook(set.options)
	if err != nil {
		return err
	}
	h := &hand{number: set.Worker, systems: newClient(set.URL), book: b, notes: make(chan note)}
	jobs, err := queue.New(broker, queue.Config{})
	if err != nil {
		return err
	}
	mux := queue.NewMux()
	for topic := range steps {
		mux.Handle(topic, h.handle)
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	worked, enough := context.WithCancel(context.WithoutCancel(ctx))
	defer enough()
	writing.Go(func() { h.write(worked) })
	return jobs.Run(ctx, mux, workerConfig(set.options))
}

// handle tells the systems of an event, those that are done left out. Where the database is in the same place as the queue, its turn is last, in
// the transaction that completes the job.
func (h *hand) handle(ctx context.Context, job queue.Job) error {
	d := enqueue.Delivery(job)
	in := call{Event: d.WebhookID, Topic: d.Topic, Shop: d.Shop, Subject: d.Subject(), Worker: h.number, Crashes: job.Crashes}
	done, err := h.book.steps(ctx, job.ID)
	if err != nil {
		return err
	}
	own, last := h.book.(database)
	for _, system := range steps[job.Kind] {
		if last && system == "database" || slices.Contains(done, system) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		// If this process dies between the call and the note of it, nobody knows whether it happened, and it is made again. The key
		// tells the system that it is the same one.
		if err := h.systems.do(context.WithoutCancel(ctx), system, in, keyOf(job.ID, system)); err != nil {
			return err // the queue tries again, and nothing of this order runs meanwhile
		}
		if err := h.did(job.ID, system); err != nil {
			return err
		}
	}
	if !last {
		return nil
	}
	return own.record(ctx, in)
}

func (h *hand) did(job, system string) error {
	n := note{job, system, make(chan error, 1)}
	h.notes <- n
	return <-n.written
}

// write writes notes until ctx ends, all that wait at a moment at once: each is waited for until it is on the disk.
func (h *hand) write(ctx context.Context) {
	for {
		var batch []note
		select {
		case n := <-h.notes:
			batch = append(batch, n)
		case <-ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case n := <-h.notes:
				batch = append(batch, n)
			default:
				more = false
			}
		}
		err := h.book.did(ctx, batch)
		for _, n := range batch {
			n.written <- err
		}
	}
}
