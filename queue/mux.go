package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Handler handles one job. nil means that the job is done. An error means that it comes again,
// unless a Permanent() bool method of it (see [Permanent]) says true; an error with a
// RetryAfter() time.Duration method puts the job off for that long without counting a failure, and if it has a
// ParkGroup() bool method that says true, all other jobs of its group with it.
type Handler = func(ctx context.Context, job Job) error

// Mux finds the handler of a job by its kind. Fill it before it is used; after that it is safe for
// concurrent use.
type Mux struct {
	handlers   map[string]Handler
	middleware []func(Handler) Handler
}

// NewMux makes an empty Mux.
func NewMux() *Mux { return &Mux{handlers: map[string]Handler{}} }

// Handle registers the handler of a kind. It panics if the kind is empty or has one, or h is nil.
func (m *Mux) Handle(kind string, h Handler) {
	if kind == "" || h == nil {
		panic("queue: Mux.Handle needs a kind and a handler")
	}
	if _, taken := m.handlers[kind]; taken {
		panic(fmt.Sprintf("queue: kind %q has a handler already", kind))
	}
	m.handlers[kind] = h
}

// Use wraps all handlers of the mux, those registered before and after, in middleware. The first is the outermost.
func (m *Mux) Use(middleware ...func(next Handler) Handler) {
	m.middleware = append(m.middleware, middleware...)
}

// wrapped are the handlers as they are called.
func (m *Mux) wrapped() (map[string]Handler, error) {
	all := maps.Clone(m.handlers)
	for kind, h := range all {
		for i, wrap := range slices.Backward(m.middleware) {
			if h = wrap(h); h == nil {
				return nil, fmt.Errorf("queue: Run: middleware %d made nil of the handler of %s", i, kind)
			}
		}
		all[kind] = h
	}
	return all, nil
}

// Has says whether a kind has a handler.
func (m *Mux) Has(kind string) bool { return m.handlers[kind] != nil }

// Kinds lists the kinds that have a handler, sorted.
func (m *Mux) Kinds() []string { return slices.Sorted(maps.Keys(m.handlers)) }

// Handle registers a handler that gets the payload decoded from JSON; numbers decoded into an any keep
// their digits, as [json.Number]. A payload that does not decode kills its job.
func Handle[T any](m *Mux, kind string, h func(ctx context.Context, in T) error) {
	m.Handle(kind, func(ctx context.Context, job Job) error {
		var in T
		dec := json.NewDecoder(bytes.NewReader(job.Payload))
		dec.UseNumber()
		err := dec.Decode(&in)
		if err == nil && dec.More() {
			err = errors.New("more than one JSON value")
		}
		if err != nil {
			return Permanent(fmt.Errorf("queue: payload of %s does not decode: %w", job.Kind, err))
		}
		return h(ctx, in)
	})
}
