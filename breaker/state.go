package breaker

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is where a Breaker stands.
type State int

const (
	_ State = iota
	// Closed lets calls through, and counts.
	Closed
	// Open lets none through.
	Open
	// HalfOpen lets Config.Trials through at a time.
	HalfOpen
)

// String returns "closed", "open" or "half-open".
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	default:
		return "unknown"
	}
}

// period is the time between two transitions. It is never used again: what a call has to tell goes to the period that let it in, and if that is over, to nobody.
type period struct {
	state  State
	forced bool
	since  time.Time // with a monotonic reading: a step of the wall clock changes nothing

	// Closed:
	failures, slow *gobreaker.CircuitBreaker[struct{}] // slow is nil if no call counts as slow
	row            atomic.Int64                        // failures since the last success
	tripped        atomic.Bool                         // by failures
	dragged        atomic.Bool                         // by slow

	// Open, and kept by HalfOpen; in Closed, length is that of the open period before:
	length time.Duration
	err    *OpenError

	// HalfOpen:
	mu        sync.Mutex
	trials    []trial
	last      uint64 // id of the newest trial
	successes int
	failed    bool // a trial has: the next period is open
}

// trial is the lease of a call that may try the dependency.
type trial struct {
	id   uint64
	ends time.Time
}

// ticket is an admitted call's. It is handed in once.
type ticket struct {
	period *period
	trial  uint64 // 0 if it is none
}

// never is longer than any period, and no overflow when it is added to now.
const never = 100 * 365 * 24 * time.Hour

func (c *core) closed(openBefore time.Duration) *period {
	p := &period{state: Closed, since: time.Now(), length: openBefore}
	count := func(limit float64, over *atomic.Bool) *gobreaker.CircuitBreaker[struct{}] {
		return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
			Name: c.name, Interval: c.cfg.Window, BucketPeriod: c.cfg.Window / buckets, Timeout: never,
			ReadyToTrip: func(n gobreaker.Counts) bool {
				calls := int(n.TotalFailures) + int(n.TotalSuccesses)
				return calls >= c.cfg.MinCalls && float64(n.TotalFailures)/float64(calls) >= limit
			},
			OnStateChange: func(string, gobreaker.State, gobreaker.State) { over.Store(true) },
		})
	}
	p.failures = count(c.cfg.FailureRate, &p.tripped)
	if c.cfg.SlowCall > 0 {
		p.slow = count(c.cfg.SlowRate, &p.dragged)
	}
	return p
}

// admit lets a call in, or says why not.
func (c *core) admit(ctx context.Context) (ticket, error) {
	for {
		p := c.now.Load()
		switch p.state {
		case Closed:
			return ticket{period: p}, nil
		case Open:
			if p.forced || time.Since(p.since) < p.length {
				return ticket{}, p.err
			}
			c.change(p, func(now time.Time) *period {
				return &period{state: HalfOpen, since: now, length: p.length, err: p.err}
			})
		default:
			id, ok := p.try(c.cfg)
			if !ok && ctx.Value(trialKey{c}) != nil && c.now.Load() == p {
				return ticket{period: p}, nil // it is part of a trial, whose outcome decides
			}
			if !ok {
				return ticket{}, p.err
			}
			if c.now.Load() == p { // it was not decided meanwhile
				return ticket{period: p, trial: id}, nil
			}
		}
	}
}

// try takes the lease of a trial.
func (p *period) try(cfg Config) (id uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.trials = slices.DeleteFunc(p.trials, func(t trial) bool { return !now.Before(t.ends) })
	if p.failed || len(p.trials) >= cfg.Trials {
		return 0, false
	}
	p.last++
	p.trials = append(p.trials, trial{p.last, now.Add(cfg.TrialLease)})
	return p.last, true
}

// end gives the lease of a trial back. ok is false if it was over.
func (p *period) end(id uint64, class Class) (successes int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.leased(id)
	if i < 0 {
		return 0, false
	}
	p.trials = slices.Delete(p.trials, i, i+1)
	if p.failed {
		return 0, false // another has decided
	}
	if class == Success {
		p.successes++
	}
	p.failed = class == Failure
	return p.successes, true
}

// holds says whether a trial has its lease.
func (p *period) holds(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leased(id) >= 0
}

// leased finds a trial whose lease is not over; -1 if it is. The caller holds mu.
func (p *period) leased(id uint64) int {
	now := time.Now()
	return slices.IndexFunc(p.trials, func(t trial) bool { return t.id == id && now.Before(t.ends) })
}

// report hands a ticket in, with what became of the call: a Success, a Failure, or Ignored. cause is its error.
func (c *core) report(t ticket, class Class, slow bool, cause error) {
	p := t.period
	if p.forced || class == Ignored && t.trial == 0 {
		return
	}
	if p.state == Closed {
		c.count(p, class, slow, cause)
		return
	}
	if slow && class == Success {
		class, cause = Failure, errSlow
	}
	switch n, ok := p.end(t.trial, class); {
	case !ok || class == Ignored:
	case class == Failure:
		c.trip(p, cause)
	case n >= c.cfg.TrialSuccesses:
		c.change(p, func(time.Time) *period { return c.closed(p.length) })
	}
}

var (
	errSlow   = errors.New("breaker: too many slow calls")
	errFailed = errors.New("failed")
)

// How gobreaker is told of a call that is over: it counts in its newest bucket, however long it took.
func succeeded() (struct{}, error) { return struct{}{}, nil }
func failed() (struct{}, error)    { return struct{}{}, errFailed }

// count adds a call to a closed period, and ends the period if it was the one too many.
func (c *core) count(p *period, class Class, slow bool, cause error) {
	how := succeeded
	if class == Failure {
		how = failed
	}
	_, _ = p.failures.Execute(how)
	if p.slow != nil {
		how = succeeded
		if slow {
			how = failed
		}
		_, _ = p.slow.Execute(how)
	}
	trip := class == Failure && p.tripped.Load() || slow && p.dragged.Load()
	if c.cfg.ConsecutiveFailures > 0 {
		if class == Success {
			p.row.Store(0)
		} else if p.row.Add(1) >= int64(c.cfg.ConsecutiveFailures) {
			trip = true
		}
	}
	if trip {
		if class == Success {
			cause = errSlow
		}
		c.trip(p, cause)
	}
}

// trip opens the breaker.
func (c *core) trip(p *period, cause error) {
	c.change(p, func(now time.Time) *period {
		if p.state == Closed && now.Sub(p.since) >= max(c.cfg.Window, p.length) {
			c.trips = 0
		}
		length := c.cfg.OpenFor
		for n := 1; n < c.trips; n++ { // not yet for the second: most outages are short
			if length >= c.cfg.MaxOpenFor/2 {
				length = c.cfg.MaxOpenFor
				break
			}
			length *= 2
		}
		c.trips++
		length += rand.N(length/10 + 1)
		c.counts.trips.Add(1)
		return c.open(now, length, &OpenError{Name: c.name, Since: now, NextTrial: now.Add(length), Cause: cause, spread: length / 10})
	})
}

func (c *core) open(now time.Time, length time.Duration, err *OpenError) *period {
	err.spread = max(err.spread, time.Millisecond)
	return &period{state: Open, since: now, length: length, err: err}
}

// change replaces the period from, or any if it is nil, and tells those who want to know.
func (c *core) change(from *period, next func(now time.Time) *period) {
	c.mu.Lock()
	p := c.now.Load()
	if from != nil && from != p {
		c.mu.Unlock()
		return // another was first
	}
	n := next(time.Now())
	c.tell(p, n)
	c.mu.Unlock()
	c.events.deliver()
}

// ForceOpen rejects all calls, until ForceClosed or Reset: somebody knows better than the counts. Callers are told to come back after OpenFor.
func (b *Breaker) ForceOpen() {
	c := b.core
	c.change(nil, func(now time.Time) *period {
		p := c.open(now, 0, &OpenError{Name: c.name, Since: now, rest: c.cfg.OpenFor, spread: c.cfg.OpenFor / 10})
		p.forced = true
		return p
	})
}

// ForceClosed lets all calls through, until ForceOpen or Reset, and does not count their failures. The limits and the timeout stay.
func (b *Breaker) ForceClosed() {
	c := b.core
	c.change(nil, func(time.Time) *period {
		p := c.closed(0)
		p.forced = true
		return p
	})
}

// Reset makes the breaker as it was when new: closed, nothing counted, and the next trip the first in a row. What calls under way bring counts for nothing.
func (b *Breaker) Reset() {
	c := b.core
	c.change(nil, func(time.Time) *period {
		c.trips = 0
		c.budget.fill()
		return c.closed(0)
	})
}
