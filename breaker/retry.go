package breaker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Retry tunes how calls are made again that may be: those through Breaker.Idempotent and, by a Transport, of requests that say so. What Classify calls a Failure or
// Throttled is; what an open breaker or a limit rejects is not. A retry within a retry, of another breaker further down, is not made: layers don't multiply.
type Retry struct {
	// MaxAttempts counts the first one; 0 means 3, and 1 no retries.
	MaxAttempts int
	// Backoff bounds the wait before the first retry; 0 means 100 ms. The bound doubles up to MaxBackoff, where 0 means 2 s or, if that is more, Backoff; the wait is a random time
	// under it (full jitter; aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter). An error's RetryAfter, as a Retry-After header makes it, comes on top.
	Backoff, MaxBackoff time.Duration
	// MaxRetryAfter is the longest RetryAfter that is waited for; 0 means 10 s. With more the error is returned.
	MaxRetryAfter time.Duration
	// Budget is how many retries each call allows for, for all calls to the dependency together; 0 means 0.1, at most 1: under an outage
	// retries add a tenth to the load (sre.google/sre-book/handling-overload). Burst is how many may be saved up, and are there at first; 0 means 10.
	Budget float64
	Burst  int
}

// retryKey marks the context of a retry.
type retryKey struct{}

// run is retry(breaker(…)), for a call. class is what the last attempt came to.
func run[T any, C caller[T]](ctx context.Context, b *Breaker, call C, h how[T]) (v T, class Class, err error) {
	c := b.core
	if err := ctx.Err(); err != nil {
		return v, Ignored, &stoppedError{name: c.name, why: err}
	}
	v, class, err = attempt(ctx, c, 1, call, h)
	if h.repeatable && class != Ignored {
		c.budget.deposit()
		if class == Failure || class == Throttled {
			v, class, err = again(ctx, c, call, h, v, class, err)
		}
	}
	if class == Permanent {
		if p, ok := errors.AsType[permanent](err); !ok || !p.Permanent() {
			err = &permanentError{err}
		}
	}
	return v, class, err
}

// again tries a call again that has failed.
func again[T any, C caller[T]](ctx context.Context, c *core, call C, h how[T], v T, class Class, err error) (T, Class, error) {
	if err == nil || ctx.Value(retryKey{}) != nil {
		return v, class, err
	}
	var (
		r    = c.cfg.Retry
		none T
		mark = context.WithValue(ctx, retryKey{}, true)
		// Around half the bound, all the way, is full jitter.
		pause = backoff.NewExponentialBackOff(backoff.WithInitialInterval(max(r.Backoff/2, 1)), backoff.WithMaxInterval(max(r.MaxBackoff/2, 1)),
			backoff.WithMultiplier(2), backoff.WithRandomizationFactor(1), backoff.WithMaxElapsedTime(0))
	)
	for n := 1; n < r.MaxAttempts && (class == Failure || class == Throttled); n++ {
		wait := pause.NextBackOff()
		if d, ok := errors.AsType[delayer](err); ok {
			after := d.RetryAfter()
			if after > r.MaxRetryAfter {
				return v, class, err
			}
			wait += max(after, 0)
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return v, class, &stoppedError{c.name, n, context.DeadlineExceeded, err}
		}
		if c.closedFor(wait) { // it failed, whatever the breaker says now: a queue counts an attempt
			return v, class, err
		}
		if !c.budget.withdraw() {
			c.counts.refused.Add(1)
			return v, class, err
		}
		discard(v, err)
		if why := sleep(ctx, wait); why != nil {
			return none, class, &stoppedError{c.name, n, why, err}
		}
		c.counts.retries.Add(1)
		before, last := class, err
		v, class, err = attempt(mark, c, n+1, call, h)
		switch {
		case err == nil || class != Ignored:
		case ctx.Err() == nil && (errors.Is(err, ErrOpen) || errors.Is(err, ErrLimited)):
			return none, before, last
		default: // the caller has left, or there is no body to send
			err = &stoppedError{c.name, n, err, last}
		}
	}
	return v, class, err
}

// closedFor says whether the breaker will still be open after wait.
func (c *core) closedFor(wait time.Duration) bool {
	p := c.now.Load()
	return p.state == Open && (p.forced || time.Since(p.since)+wait < p.length)
}

// wholeRetry is one in a budget, which counts in thousandths.
const wholeRetry = 1000

// budget is a bucket of retries.
type budget struct {
	left       atomic.Int64
	each, most int64
}

func (b *budget) init(r Retry) {
	b.each, b.most = max(int64(r.Budget*wholeRetry), 1), int64(r.Burst)*wholeRetry
	b.fill()
}

func (b *budget) fill() { b.left.Store(b.most) }

// deposit is for each call that may be retried.
func (b *budget) deposit() {
	for {
		n := b.left.Load()
		if n >= b.most || b.left.CompareAndSwap(n, min(n+b.each, b.most)) {
			return
		}
	}
}

// withdraw is for each retry. It fails if there is none left.
func (b *budget) withdraw() bool {
	for {
		n := b.left.Load()
		if n < wholeRetry {
			return false
		}
		if b.left.CompareAndSwap(n, n-wholeRetry) {
			return true
		}
	}
}
