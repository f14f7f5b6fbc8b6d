package breaker

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// NoTimeout as Config.Timeout lets a call take as long as it takes.
	NoTimeout time.Duration = -1
	// NoWait as Config.MaxWait rejects at once what a limit has no place for.
	NoWait time.Duration = -1

	defaultTimeout = 3 * time.Second
	// longest is a setting's most, so that sums of them don't overflow.
	longest = 365 * 24 * time.Hour
)

// buckets is how many steps the window moves in.
const buckets = 10

// Config tunes a Breaker. The zero value is valid.
type Config struct {
	// Timeout is how long one attempt may take; 0 means 3 s. Do and Call return then, even if the call does not; see MaxAbandoned. Guard and
	// Transport say what it means to them. A caller's own deadline counts as the dependency's failure if it left the call at least half of this (1.5 s without a timeout):
	// set Timeout to less than what callers wait, or a breaker never opens for those who give up before.
	Timeout time.Duration
	// Window is the time that failures are counted over, in ten steps; 0 means 10 s. At least 10 ms. A call counts when it ends.
	Window time.Duration
	// MinCalls is how many calls must have ended in the window before a rate is looked at; 0 means 10.
	MinCalls int
	// FailureRate is the share of failed calls, among those that succeeded or failed, from which the breaker opens; 0 means 0.5, at most 1. It is
	// looked at whenever a call fails.
	FailureRate float64
	// ConsecutiveFailures opens the breaker after so many failures in a row, whatever the window and MinCalls; 0 means that only the rates do.
	ConsecutiveFailures int
	// SlowCall is the time over which a call counts as slow, even if it succeeds; 0 means that none does. Less than Timeout.
	SlowCall time.Duration
	// SlowRate is the share of slow calls from which the breaker opens; 0 means 0.5, at most 1.
	SlowRate float64
	// OpenFor is how long the breaker stays open before the first trial; 0 means 30 s. Up to a tenth of it is added, at random, so that the processes
	// of a fleet do not come back together. From the third trip in a row it doubles with each, up to MaxOpenFor, before that tenth: 0 means twice OpenFor; more spares a dependency that is down for
	// long a few trials, and leaves one that is back waiting. A trip is not in a row once the breaker has stayed closed for as long as the window and as it was open.
	OpenFor, MaxOpenFor time.Duration
	// Trials is how many calls at once may try the dependency after the open time; 0 means 1. One that fails opens the breaker again.
	Trials int
	// TrialSuccesses is how many trials must succeed to close the breaker; 0 means as many as Trials.
	TrialSuccesses int
	// TrialLease is how long a trial keeps its place, at least Timeout; 0 means Timeout and MaxWait and 1 s, or 30 s and MaxWait without a timeout. After it the next call is a trial, and
	// what the late one brings counts for nothing.
	TrialLease time.Duration
	// Retry is for calls through Breaker.Idempotent, and for requests that say that they are; no other call is made twice.
	Retry Retry
	// Limiter bounds the rate of calls; nil does not. It may be shared with others. A turn is used up even if MaxConcurrent has no place then, or the caller leaves while others wait behind it.
	Limiter *rate.Limiter
	// MaxConcurrent bounds the calls under way; 0 does not.
	MaxConcurrent int
	// MaxWait is how long a call waits for a place in Limiter and MaxConcurrent, together; 0 means 1 s.
	MaxWait time.Duration
	// MaxAbandoned bounds the calls that have not returned after their timeout, or when their caller left, and run on with nobody waiting; 0 means 64. With more, callers wait for
	// theirs, or for one of those to return: the number of goroutines stays bounded.
	MaxAbandoned int
	// Classify says what an error that is not nil means; nil, and a result of 0, mean what the func Classify says. It is not asked when the caller has given
	// up. It is called from many goroutines.
	Classify func(err error) Class
	// Hooks are told of every call and transition.
	Hooks Hooks
	// Logger gets transitions, and panics that nobody waits for; nil discards.
	Logger *slog.Logger
}

// Breaker protects one dependency. Make one, and share it: it is safe for concurrent use. It starts nothing: what time brings is found out by the
// next call.
type Breaker struct {
	core       *core
	repeatable bool
}

type core struct {
	name string
	cfg  Config
	log  *slog.Logger

	plain, idempotent Breaker

	timeout *timeoutError // the cause of contexts that our timeout ended
	timed   bool          // somebody wants to know how long calls take
	fair    time.Duration // a caller's deadline that leaves a call less says nothing about the dependency

	slots  chan struct{} // a place for each call under way; nil without a limit
	budget budget
	counts counters
	events events

	now atomic.Pointer[period]

	mu    sync.Mutex // held to replace now
	trips int        // in a row
}

// New makes a closed Breaker for the dependency of that name, which its errors, log and hooks carry.
func New(name string, cfg Config) (*Breaker, error) {
	if name == "" {
		return nil, errors.New("breaker: name is empty; give the dependency's")
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &newCore(name, cfg).plain, nil
}

func newCore(name string, cfg Config) *core {
	c := &core{name: name, cfg: cfg, log: cfg.Logger}
	c.plain, c.idempotent = Breaker{core: c}, Breaker{core: c, repeatable: true}
	c.timeout = &timeoutError{name: name, after: cfg.Timeout}
	c.timed = cfg.SlowCall > 0 || cfg.Hooks.Called != nil
	c.fair = fairShare(cfg.Timeout)
	if cfg.MaxConcurrent > 0 {
		c.slots = make(chan struct{}, cfg.MaxConcurrent)
	}
	c.budget.init(cfg.Retry)
	c.events.log = c.log
	c.now.Store(c.closed(0))
	return c
}

// complete puts the defaults in, and says what is wrong.
func (cfg *Config) complete() error {
	for _, d := range [...]struct {
		name            string
		v               *time.Duration
		zero, off, from time.Duration
	}{
		{"Timeout", &cfg.Timeout, defaultTimeout, NoTimeout, time.Nanosecond},
		{"Window", &cfg.Window, 10 * time.Second, 0, 10 * time.Millisecond},
		{"SlowCall", &cfg.SlowCall, 0, 0, 0},
		{"OpenFor", &cfg.OpenFor, 30 * time.Second, 0, time.Nanosecond},
		{"MaxWait", &cfg.MaxWait, time.Second, NoWait, time.Nanosecond},
		{"Retry.Backoff", &cfg.Retry.Backoff, 100 * time.Millisecond, 0, time.Nanosecond},
		{"Retry.MaxBackoff", &cfg.Retry.MaxBackoff, max(2*time.Second, cfg.Retry.Backoff), 0, max(cfg.Retry.Backoff, time.Nanosecond)},
		{"Retry.MaxRetryAfter", &cfg.Retry.MaxRetryAfter, 10 * time.Second, 0, time.Nanosecond},
	} {
		if *d.v == 0 {
			*d.v = d.zero
		}
		if *d.v > longest {
			return fmt.Errorf("breaker: Config.%s is %v; want at most %v", d.name, *d.v, longest)
		}
		if *d.v < d.from && (d.off == 0 || *d.v != d.off) {
			return fmt.Errorf("breaker: Config.%s is %v; want at least %v", d.name, *d.v, d.from)
		}
	}
	if cfg.MaxOpenFor == 0 {
		cfg.MaxOpenFor = min(2*cfg.OpenFor, longest)
	}
	if cfg.MaxOpenFor < cfg.OpenFor || cfg.MaxOpenFor > longest {
		return fmt.Errorf("breaker: Config.MaxOpenFor is %v; want OpenFor, %v, to %v", cfg.MaxOpenFor, cfg.OpenFor, longest)
	}
	switch lease := cfg.TrialLease; {
	case lease == 0 && cfg.Timeout == NoTimeout:
		cfg.TrialLease = 30*time.Second + max(cfg.MaxWait, 0)
	case lease == 0:
		cfg.TrialLease = cfg.Timeout + max(cfg.MaxWait, 0) + time.Second
	case lease < max(cfg.Timeout, 1) || lease > longest:
		return fmt.Errorf("breaker: Config.TrialLease is %v; want at least Timeout, %v, and at most %v", lease, max(cfg.Timeout, 1), longest)
	}
	if cfg.Timeout != NoTimeout && cfg.SlowCall >= cfg.Timeout {
		return fmt.Errorf("breaker: Config.SlowCall is %v; want less than Timeout, %v", cfg.SlowCall, cfg.Timeout)
	}
	if cfg.SlowRate != 0 && cfg.SlowCall == 0 {
		return fmt.Errorf("breaker: Config.SlowRate is %v, and SlowCall is not set", cfg.SlowRate)
	}
	for _, n := range [...]struct {
		name string
		v    *int
		zero int
	}{
		{"MinCalls", &cfg.MinCalls, 10},
		{"ConsecutiveFailures", &cfg.ConsecutiveFailures, 0},
		{"Trials", &cfg.Trials, 1},
		{"MaxConcurrent", &cfg.MaxConcurrent, 0},
		{"MaxAbandoned", &cfg.MaxAbandoned, 64},
		{"Retry.MaxAttempts", &cfg.Retry.MaxAttempts, 3},
		{"Retry.Burst", &cfg.Retry.Burst, 10},
	} {
		if *n.v == 0 {
			*n.v = n.zero
		}
		if *n.v < 0 || *n.v > math.MaxInt32 {
			return fmt.Errorf("breaker: Config.%s is %d; want 0 to %d", n.name, *n.v, math.MaxInt32)
		}
	}
	if cfg.TrialSuccesses == 0 {
		cfg.TrialSuccesses = cfg.Trials
	}
	if cfg.TrialSuccesses < 0 {
		return fmt.Errorf("breaker: Config.TrialSuccesses is %d; want 0 or more", cfg.TrialSuccesses)
	}
	for _, r := range [...]struct {
		name string
		v    *float64
		zero float64
	}{
		{"FailureRate", &cfg.FailureRate, 0.5},
		{"SlowRate", &cfg.SlowRate, 0.5},
		{"Retry.Budget", &cfg.Retry.Budget, 0.1},
	} {
		if *r.v == 0 {
			*r.v = r.zero
		}
		if !(*r.v > 0 && *r.v <= 1) { // so that NaN is refused too
			return fmt.Errorf("breaker: Config.%s is %v; want a share, over 0 and at most 1", r.name, *r.v)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Name is what New got.
func (b *Breaker) Name() string { return b.core.name }

// fairShare is how much time a call must have had before its caller's deadline is held against the dependency: half of the timeout, and without one half of the
// default.
func fairShare(timeout time.Duration) time.Duration {
	if timeout == NoTimeout {
		timeout = defaultTimeout
	}
	return timeout / 2
}

// Idempotent is the same Breaker for calls that may be made again: those that change nothing, or that the dependency knows by a key
// (idempotency.ChildKey makes one). They are retried as Config.Retry says.
//
//	err := carrier.Idempotent().Do(ctx, cancelLabel)
func (b *Breaker) Idempotent() *Breaker { return &b.core.idempotent }
