package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// carrier is a shipping company's API, a real HTTP server, which has good and bad times. It sells labels:
//
//	POST /labels with {"order":"1001"} and an Idempotency-Key: 200 {"label":"tortoise-1"}
//
// Who asks again with the same key gets the same label. Without a key every call buys one, as every order with two labels in the ledger would show.
type carrier struct {
	name  string
	ails  func(n int) manner // how it answers its n-th call in bad times
	limit *rate.Limiter      // calls over it are answered 429; nil has no limit

	mu     sync.Mutex
	bad    bool
	byKey  map[string]string   // labels
	bought map[string][]string // labels, by order
	sold   int
	seen   seen
}

// manner is how a carrier answers a call.
type manner struct {
	after  time.Duration
	status int
	buys   bool // whatever the status is
}

// seen counts the calls that have reached a carrier.
type seen struct {
	Calls     int
	WhileBad  int
	Throttled int // answered 429
	Again     int // for a label that was bought already: its first answer was late or lost
}

func newCarrier(name string, ails func(n int) manner, limit *rate.Limiter) *carrier {
	return &carrier{name: name, ails: ails, limit: limit, byKey: map[string]string{}, bought: map[string][]string{}}
}

const goodAnswer = 20 * time.Millisecond

// slow answers too late for its caller every other time, and so that it just gets by otherwise. The label is bought either way.
func slow(n int) manner {
	if n%2 == 0 {
		return manner{after: 8 * goodAnswer, status: http.StatusOK, buys: true}
	}
	return manner{after: 30 * goodAnswer, status: http.StatusOK, buys: true}
}

// failing answers 503, which does not say that nothing was done: every third time the label is bought.
func failing(n int) manner {
	return manner{after: goodAnswer / 4, status: http.StatusServiceUnavailable, buys: n%3 == 0}
}

// ServeHTTP sells a label.
func (c *carrier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct{ Order string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Order == "" {
		http.Error(w, "which order?", http.StatusBadRequest)
		return
	}
	label, m := c.sell(in.Order, r.Header.Get("Idempotency-Key"))
	select {
	case <-time.After(m.after):
	case <-r.Context().Done(): // the caller has given up; what was bought stays bought
		return
	}
	if m.status != http.StatusOK {
		if m.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, http.StatusText(m.status), m.status)
		return
	}
	writeJSON(w, m.status, map[string]string{"label": label})
}

// sell decides on a call, and buys the label before the answer goes out.
func (c *carrier) sell(order, key string) (label string, m manner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Calls++
	m = manner{after: goodAnswer, status: http.StatusOK, buys: true}
	if c.bad {
		c.seen.WhileBad++
		if c.ails != nil {
			m = c.ails(c.seen.WhileBad)
		}
	}
	if c.limit != nil && !c.limit.Allow() {
		c.seen.Throttled++
		return "", manner{status: http.StatusTooManyRequests}
	}
	if !m.buys {
		return "", m
	}
	label, known := c.byKey[key]
	if known {
		c.seen.Again++
	} else {
		c.sold++
		label = fmt.Sprintf("%s-%d", c.name, c.sold)
		c.bought[order] = append(c.bought[order], label)
		if key != "" {
			c.byKey[key] = label
		}
	}
	return label, m
}

// turn makes the carrier bad, or good again. One with a limit allows for a fifth of it in bad times.
func (c *carrier) turn(bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.bad == bad:
		return
	case c.limit != nil && bad:
		c.limit.SetLimit(c.limit.Limit() / 5)
	case c.limit != nil:
		c.limit.SetLimit(c.limit.Limit() * 5)
	}
	c.bad = bad
}

func (c *carrier) look() (bad bool, n seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bad, c.seen
}

// labels are those that were bought for an order.
func (c *carrier) labels(order string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bought[order]
}

// serve serves h on a free port of this machine until ctx ends.
func serve(ctx context.Context, h http.Handler) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	return "http://" + l.Addr().String(), nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
