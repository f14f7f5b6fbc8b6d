package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/breakwater-go/breakwater/queue"
)

// The processes of the Breakwater side under -kill. Each opens the queue for itself and is killed when it least expects it.

// newServer only takes webhooks into the queue.
func newServer(ctx context.Context, set settings) (http.Handler, func() error, error) {
	h, err := open(set.options)
	if err != nil {
		return nil, nil, err
	}
	hooks, err := receive(h)
	return hooks, func() error { <-ctx.Done(); return nil }, err
}

// hired is what a worker process does all its life.
func hired(raw string) error {
	var set settings
	if err := json.Unmarshal([]byte(raw), &set); err != nil {
		return err
	}
	ctx, cancel := untilAlone()
	defer cancel()
	h, err := open(set.options)
	if err != nil {
		return err
	}
	g, err := newGuard(set, h.store, h.quota)
	if err != nil {
		return err
	}
	if h.file != nil {
		g.own = h.file.record
	}
	jobs, err := queue.New(h.broker, queue.Config{})
	if err != nil {
		return err
	}
	mux := queue.NewMux()
	for topic := range steps {
		mux.Handle(topic, g.handle(set.Worker))
	}
	return jobs.Run(ctx, mux, workerConfig(set.options))
}
