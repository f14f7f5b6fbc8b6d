package breaker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Do makes a call through the breaker. call gets a context that ends with the timeout; after it, or when ctx ends, Do returns even if call has not, so call
// must not write to what the caller reads then: [Call] hands a result over safely.
//
// Errors: call's own, as they are; one that Classify calls Permanent gets a Permanent method if it has none. ErrOpen, ErrLimited: call was not run. ErrTimeout. The
// context's, wrapped. When retries were given up for want of time, or because the breaker opened, the error is that and the last one of call as well.
//
// A panic of call is a failure of the dependency, and is passed on.
func (b *Breaker) Do(ctx context.Context, call func(ctx context.Context) error) error {
	_, _, err := run(ctx, b, plain(call), how[struct{}]{repeatable: b.repeatable})
	return err
}

// Call is Breaker.Do for a call with a result. If the result comes too late and has a Close method, or is an *http.Response, it is closed.
func Call[T any](ctx context.Context, b *Breaker, call func(ctx context.Context) (T, error)) (T, error) {
	v, _, err := run(ctx, b, valued[T](call), how[T]{repeatable: b.repeatable})
	return v, err
}

// CallOr is Call with a fallback, which gets what went wrong: a failure, an answer that says to come later, or that the breaker or a limit did not let the
// call through; errors.Is(cause, ErrOpen) tells. It is not asked for errors that Classify calls Success or Permanent, the dependency has answered; nor when
// ctx was cancelled, nobody waits. Its error keeps the cause. It runs outside the limits and the timeout, with ctx, whose deadline may be over.
func CallOr[T any](ctx context.Context, b *Breaker, call func(ctx context.Context) (T, error), fallback func(ctx context.Context, cause error) (T, error)) (T, error) {
	v, class, cause := run(ctx, b, valued[T](call), how[T]{repeatable: b.repeatable})
	if cause == nil || class == Success || class == Permanent || errors.Is(ctx.Err(), context.Canceled) {
		return v, cause
	}
	discard(v, cause)
	v, err := fallback(ctx, cause)
	if err != nil && !errors.Is(err, cause) {
		err = &fallbackError{err, cause}
	}
	return v, err
}

// Guard makes a handler that calls next through the breaker. Unlike Do it does not return before next has, timeout or not: a handler that is tried again must not
// still be running. A queue puts a job off whose handler returns the error of an open breaker, and does not count an attempt.
//
//	enqueue.Handle(mux, "orders/create", breaker.Guard(carrier, ship))
func Guard[T any](b *Breaker, next func(ctx context.Context, in T) error) func(ctx context.Context, in T) error {
	return func(ctx context.Context, in T) error {
		_, _, err := run(ctx, b, guarded[T]{next, in}, how[struct{}]{repeatable: b.repeatable, inline: true})
		return err
	}
}

// caller is what is called, whose forms are types and not closures, so that a call that goes through allocates nothing.
type caller[T any] interface {
	call(ctx context.Context) (T, error)
}

type (
	plain          func(ctx context.Context) error
	valued[T any]  func(ctx context.Context) (T, error)
	guarded[T any] struct {
		next func(ctx context.Context, in T) error
		in   T
	}
)

func (f plain) call(ctx context.Context) (struct{}, error)      { return struct{}{}, f(ctx) } //nolint:unparam // it has no result
func (f valued[T]) call(ctx context.Context) (T, error)         { return f(ctx) }
func (g guarded[T]) call(ctx context.Context) (struct{}, error) { return struct{}{}, g.next(ctx, g.in) } //nolint:unparam // as plain

// how is what one kind of call needs.
type how[T any] struct {
	repeatable bool
	inline     bool // the caller waits for the call's end, timeout or not
	// keep takes the result of a call whose context must live on, with the func that ends it. The timeout is then one for the call to return.
	keep func(v T, end func()) T
}

// attempt is one try: breaker(rate limit(concurrency limit(timeout(call)))).
func attempt[T any, C caller[T]](ctx context.Context, c *core, n int, call C, h how[T]) (v T, class Class, err error) {
	tk, err := c.admit()
	if err != nil {
		c.counts.rejected.Add(1)
		c.observe(Attempt{Number: n, Rejected: true, Class: Ignored, Err: err})
		return v, Ignored, err
	}
	a := Attempt{Number: n, Class: Failure, Err: errUnfinished}
	defer func() { // also if the call panics or ends its goroutine: every call that was let in is accounted for, once
		a.Trial = tk.trial != 0
		c.finish(tk, a)
	}()
	if c.cfg.Limiter != nil || c.slots != nil {
		if tk, err = c.enter(ctx, tk); err != nil {
			a.Rejected, a.Class, a.Err = true, Ignored, err
			return v, Ignored, err
		}
		defer c.leave()
	}
	var begun time.Time
	deadline, limited := ctx.Deadline()
	if limited || c.timed {
		begun = time.Now()
	}
	v, late, err := invoke(ctx, c, call, h)
	if c.timed {
		a.Took = time.Since(begun)
	}
	switch {
	case late:
		c.counts.timeouts.Add(1)
		a.Class, a.Err = Failure, err
		if err == nil { // too late to count as an answer, but one; the caller gets it
			a.Err = c.timeout
			return v, Success, nil
		}
		a.Class = c.classify(err)
	case err == nil:
		a.Class, a.Err = Success, nil
	case ctx.Err() == nil:
		a.Class, a.Err = c.classify(err), err
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && limited && deadline.Sub(begun) >= c.fair: // it had time enough
		a.Class, a.Err = c.classify(err), err
	default: // the caller has left, or was in too much of a hurry
		a.Class, a.Err = Ignored, err
	}
	return v, a.Class, err
}

var errUnfinished = errors.New("breaker: the call panicked")

func (c *core) classify(err error) Class {
	if c.cfg.Classify != nil {
		if class := c.cfg.Classify(err); class != 0 {
			return class
		}
	}
	return Classify(err)
}

// finish accounts for a call that was let in.
func (c *core) finish(tk ticket, a Attempt) {
	if !a.Rejected {
		c.counts.calls.Add(1)
	}
	if a.Class == Failure {
		c.counts.failures.Add(1)
	}
	if c.cfg.Hooks.Called != nil {
		c.called(a)
		defer c.events.deliver()
	}
	class := a.Class
	switch class {
	case Permanent:
		class = Success
	case Throttled:
		class = Ignored
	default:
	}
	c.report(tk, class, c.cfg.SlowCall > 0 && a.Took > c.cfg.SlowCall, a.Err)
}

func (c *core) observe(a Attempt) {
	if c.cfg.Hooks.Called != nil {
		c.called(a)
		c.events.deliver()
	}
}

// enter waits for a place in both limits, and gives the ticket that counts then: the breaker may have opened meanwhile.
func (c *core) enter(ctx context.Context, tk ticket) (ticket, error) {
	var (
		begun = time.Now()
		wait  = max(c.cfg.MaxWait, 0)
	)
	if lim := c.cfg.Limiter; lim != nil {
		r := lim.ReserveN(begun, 1)
		d := c.cfg.OpenFor // of a limiter that lets nothing through
		if r.OK() {
			d = r.DelayFrom(begun)
		}
		if deadline, ok := ctx.Deadline(); !r.OK() || d > wait || ok && deadline.Sub(begun) < d {
			r.Cancel()
			c.counts.limited.Add(1)
			d = min(d, c.cfg.MaxOpenFor)
			return tk, &limitError{c.name, "rate", d + rand.N(d+1)} // those who are sent away do not all come back together
		}
		if d > 0 {
			if err := sleep(ctx, d); err != nil {
				r.Cancel()
				return tk, fmt.Errorf("breaker: %s: %w", c.name, err)
			}
			wait -= d
		}
	}
	if c.slots != nil {
		if err := c.take(ctx, wait); err != nil {
			return tk, err
		}
	}
	if c.now.Load() == tk.period {
		return tk, nil
	}
	next, err := c.admit()
	if err != nil {
		c.counts.rejected.Add(1)
		c.leave()
		return tk, err
	}
	return next, nil
}

// take takes a place among those under way.
func (c *core) take(ctx context.Context, wait time.Duration) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	default:
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case c.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("breaker: %s: %w", c.name, ctx.Err())
		case <-timer.C:
		}
	}
	c.counts.limited.Add(1)
	return &limitError{c.name, "concurrency", c.patience()}
}

func (c *core) leave() {
	if c.slots != nil {
		<-c.slots
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
