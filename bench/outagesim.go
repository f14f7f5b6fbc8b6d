package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/breakwater-go/breakwater/breaker"
)

// What the dependency is like. It works on so many calls at a time that it can answer half as many again as its callers make.
const (
	serveTime  = 20 * time.Millisecond
	capacity   = 1.5                   // of the callers' rate
	queueTime  = 2 * time.Second       // in a dependency that refuses what would wait longer
	refuseTime = 50 * time.Millisecond // until a 503 is there

	callTimeout  = 3 * time.Second // of all contenders, for one attempt
	naiveRetries = 3
	naiveBackoff = 100 * time.Millisecond // doubles
)

// outageServer is the dependency: some workers, who take calls in their order and do not notice that a caller has left.
type outageServer struct {
	plan  outagePlan
	kind  outageKind
	begun time.Time

	mu       sync.Mutex
	free     []time.Time // when each worker will be; each takes a serveTime, so that they come free in turn
	next     int
	accepted int
	reached  []int
}

func newOutageServer(plan outagePlan, kind outageKind) *outageServer {
	workers := float64(plan.rate) * capacity * serveTime.Seconds()
	return &outageServer{plan: plan, kind: kind, begun: time.Now(), free: make([]time.Time, max(1, int(workers+0.5))), reached: make([]int, ticks(plan.total()))}
}

// call returns id.
func (s *outageServer) call(ctx context.Context, id int) (int, error) {
	now := time.Now()
	wait, down, ok := s.take(now)
	switch {
	case down && s.kind.hangs:
		<-ctx.Done()
		return 0, ctx.Err()
	case !ok:
		if err := rest(ctx, refuseTime); err != nil {
			return 0, err
		}
		return 0, &breaker.StatusError{Code: 503, Host: "carrier"}
	}
	if err := rest(ctx, wait); err != nil {
		return 0, err
	}
	return id, nil
}

// take takes a call in, and says when its answer is there.
func (s *outageServer) take(now time.Time) (wait time.Duration, down, ok bool) {
	at := now.Sub(s.begun)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := ticks(at); t < len(s.reached) {
		s.reached[t]++
	}
	if at >= s.plan.before && at < s.plan.before+s.plan.down {
		return 0, true, false
	}
	start := s.free[s.next]
	if start.Before(now) {
		start = now
	}
	if start.Sub(now) > s.kind.queue {
		return 0, false, false
	}
	s.accepted++
	s.free[s.next] = start.Add(serveTime)
	s.next = (s.next + 1) % len(s.free)
	return start.Add(serveTime).Sub(now), false, true
}

func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// outageCall is what became of a caller's call.
type outageCall struct {
	value    int
	err      error
	rejected bool // the last attempt did not reach the dependency
	took     time.Duration
	late     time.Duration // how long after its time it was made
	results  int
}

// attempt is one call of the dependency.
type attempt func(ctx context.Context) (int, error)

// outageContender makes calls in some way.
type outageContender struct {
	name string
	// open returns what makes a call, by one breaker if there is any.
	open func() (call func(ctx context.Context, try attempt) (int, error), err error)
}

func outageContenders() []outageContender {
	do := func(b *breaker.Breaker) func(context.Context, attempt) (int, error) {
		return func(ctx context.Context, try attempt) (int, error) { return breaker.Call(ctx, b, try) }
	}
	ours := func(cfg breaker.Config, of func(*breaker.Breaker) *breaker.Breaker) func() (func(context.Context, attempt) (int, error), error) {
		return func() (func(context.Context, attempt) (int, error), error) {
			b, err := breaker.New("carrier", cfg)
			if err != nil {
				return nil, err
			}
			return do(of(b)), nil
		}
	}
	plain := func(b *breaker.Breaker) *breaker.Breaker { return b }
	return []outageContender{
		{"naive retries", func() (func(context.Context, attempt) (int, error), error) { return naive(timed), nil }},
		{"gobreaker", func() (func(context.Context, attempt) (int, error), error) { return outageGobreaker(), nil }},
		{"gobreaker, naive retries", func() (func(context.Context, attempt) (int, error), error) { return naive(outageGobreaker()), nil }},
		{"breakwater", ours(breaker.Config{}, plain)},
		{"breakwater, Idempotent", ours(breaker.Config{}, (*breaker.Breaker).Idempotent)},
		{"breakwater, tuned", ours(breaker.Config{OpenFor: 5 * time.Second, ConsecutiveFailures: 20}, plain)},
	}
}

// outageGobreaker is a gobreaker as it is, with a timeout in it.
func outageGobreaker() func(context.Context, attempt) (int, error) {
	settings := gobreaker2Settings()
	settings.Timeout = 30 * time.Second
	cb := gobreaker.NewCircuitBreaker[int](settings)
	return func(ctx context.Context, try attempt) (int, error) {
		return cb.Execute(func() (int, error) { return timed(ctx, try) })
	}
}

// timed gives an attempt the time that all contenders give it.
func timed(ctx context.Context, try attempt) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return try(ctx)
}

// naive tries again whatever the error: without jitter, without a budget.
func naive(call func(context.Context, attempt) (int, error)) func(context.Context, attempt) (int, error) {
	return func(ctx context.Context, try attempt) (int, error) {
		for n := 0; ; n++ {
			v, err := call(ctx, try)
			if err == nil || n == naiveRetries {
				return v, err
			}
			if err := rest(ctx, naiveBackoff<<n); err != nil {
				return 0, err
			}
		}
	}
}

// simulate is one outage for one contender. Its calls come evenly, each from a caller of its own, who waits for nobody else.
func simulate(ctx context.Context, plan outagePlan, kind outageKind, contender outageContender) *outageRun {
	r := &outageRun{kind: kind.name, contender: contender.name, plan: plan}
	call, err := contender.open()
	if err != nil {
		r.problem = err
		return r
	}
	s := newOutageServer(plan, kind)
	r.calls = make([]outageCall, int(plan.total().Seconds()*float64(plan.rate)))
	var all sync.WaitGroup
	for i := range r.calls {
		due := s.begun.Add(time.Duration(i) * time.Second / time.Duration(plan.rate))
		if time.Sleep(time.Until(due)); ctx.Err() != nil {
			break
		}
		all.Go(func() {
			c, begun := &r.calls[i], time.Now()
			c.late = begun.Sub(due)
			c.value, c.err = call(ctx, func(ctx context.Context) (int, error) { return s.call(ctx, i) })
			c.took = time.Since(begun)
			c.rejected = errors.Is(c.err, breaker.ErrOpen) || errors.Is(c.err, gobreaker.ErrOpenState) || errors.Is(c.err, gobreaker.ErrTooManyRequests)
			c.results++
		})
	}
	all.Wait()
	r.reached, r.succeeded, r.ended = s.reached, make([]int, len(s.reached)), make([]int, len(s.reached))
	for i, c := range r.calls {
		at := time.Duration(i)*time.Second/time.Duration(plan.rate) + c.late + c.took
		if t := ticks(at); t < len(r.ended) {
			r.ended[t]++
			if c.err == nil {
				r.succeeded[t]++
			}
		}
	}
	r.measure()
	r.problem = r.check(s.accepted)
	return r
}
