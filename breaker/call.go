package breaker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Do makes a call through the breaker. call gets a context that ends with the timeout; after it, or when ctx ends, Do returns even if call has not, so call
// must not write to what the caller reads then: [Call] hands a result over safely.
//
// Errors: call's own, as they are; one that Classify calls Permanent gets a Permanent method if it has none. ErrOpen, ErrLimited: call was not run. ErrTimeout. The
// context's, wrapped. When retries were given up for want of time, or because the breaker opened, the error is that and the last one of call as well.
//
// A panic of call is a failure of the dependency, and is passed on: as it is, or with a timeout as an error with the stack it had, which wraps it if it is an error.
func (b *Breaker) Do(ctx context.Context, call func(ctx context.Context) error) error {
	_, _, err := run(ctx, b, plain(call), how[struct{}]{repeatable: b.repeatable})
	return err
}

// Call is Breaker.Do for a call with a result. If the result comes too late and has a Close method, or is an *http.Response, it is closed. The context of an *http.Response lives
// until its body is read or closed; that of any other result is over when Call returns.
func Call[T any](ctx context.Context, b *Breaker, call func(ctx context.Context) (T, error)) (T, error) {
	v, _, err := run(ctx, b, valued[T](call), how[T]{repeatable: b.repeatable, keep: keepOf[T]()})
	return v, err
}

// CallOr is Call with a fallback, which gets what went wrong: a failure, an answer that says to come later, or that the breaker or a limit did not let the
// call through; errors.Is(cause, ErrOpen) tells. It is not asked for errors that Classify calls Success or Permanent, the dependency has answered; nor when
// ctx was cancelled, nobody waits. Its error keeps the cause. It runs outside the limits and the timeout, with ctx, whose deadline may be over.
func CallOr[T any](ctx context.Context, b *Breaker, call func(ctx context.Context) (T, error), fallback func(ctx context.Context, cause error) (T, error)) (T, error) {
	v, class, cause := run(ctx, b, valued[T](call), how[T]{repeatable: b.repeatable, keep: keepOf[T]()})
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
// still be running. A queue puts a job off whose handler returns the error of an open breaker, and does not count an attempt. What next returns is what the breaker hears: nil, from a
// handler that found nothing to do, is a success of the dependency.
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

// keepOf is keepBody for an *http.Response, and nil for any other type.
func keepOf[T any]() func(T, func()) T {
	keep, _ := any(keepBody).(func(T, func()) T)
	return keep
}

// trialKey marks the context of a trial of a breaker: a call within it of the same breaker is part of it.
type trialKey struct{ *core }

// attempt is one try: breaker(rate limit(concurrency limit(timeout(call)))).
func attempt[T any, C caller[T]](ctx context.Context, c *core, n int, call C, h how[T]) (v T, class Class, err error) {
	tk, err := c.admit(ctx)
	if err != nil {
		c.counts.rejected.Add(1)
		c.observe(Attempt{Number: n, Rejected: true, Class: Ignored, Err: err})
		return v, Ignored, err
	}
	a := Attempt{Number: n, Class: Failure, Err: errUnfinished}
	defer func() { // also if the call panics or ends its goroutine: every call that was let in is accounted for, once
		if a.Err == errUnfinished { //nolint:errorlint // this very value
			discard(v, errUnfinished)
		}
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
	if tk.trial != 0 {
		ctx = context.WithValue(ctx, trialKey{c}, true)
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
	case limited && errors.Is(ctx.Err(), context.DeadlineExceeded) && deadline.Sub(begun) >= c.fair, c.outer(ctx) >= c.fair: // it had time enough
		a.Class, a.Err = c.classify(err), err
	default: // the caller has left, or was in too much of a hurry
		a.Class, a.Err = Ignored, err
	}
	return v, a.Class, err
}

var errUnfinished = errors.New("breaker: the call panicked")

// outer is the timeout of a breaker around this one, if that has ended ctx; otherwise 0.
func (c *core) outer(ctx context.Context) time.Duration {
	if t, ok := errors.AsType[*timeoutError](context.Cause(ctx)); ok {
		return t.after
	}
	return 0
}

func (c *core) classify(err error) Class {
	if errors.Is(err, errBody) {
		return Ignored
	}
	if c.cfg.Classify != nil {
		if class := c.cfg.Classify(err); class >= Success && class <= Throttled {
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

// enter waits for a place in both limits, and gives the ticket that counts then: the breaker may have opened meanwhile, or a trial's lease ended. A call that has had its turn in the
// rate limit and finds no other place has used it up.
func (c *core) enter(ctx context.Context, tk ticket) (ticket, error) {
	begun, wait := time.Now(), max(c.cfg.MaxWait, 0)
	if c.cfg.Limiter != nil && !c.cfg.Limiter.Allow() {
		if err := c.queue(ctx, wait); err != nil {
			return tk, err
		}
	}
	if c.slots != nil {
		if err := c.take(ctx, wait-time.Since(begun)); err != nil {
			return tk, err
		}
	}
	if c.now.Load() == tk.period && (tk.trial == 0 || tk.period.holds(tk.trial)) {
		return tk, nil
	}
	next, err := c.admit(ctx)
	if err != nil {
		c.counts.rejected.Add(1)
		c.leave()
		return tk, err
	}
	return next, nil
}

// queue waits for a turn in the rate limit. It knows at once if there will be none in time, and takes none then.
func (c *core) queue(ctx context.Context, wait time.Duration) error {
	lim := c.cfg.Limiter
	if wait > 0 {
		limited, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if lim.Wait(limited) == nil {
			return nil
		}
		if ctx.Err() != nil {
			return &contextError{c.name, ctx.Err()}
		}
	}
	c.counts.limited.Add(1)
	d := c.cfg.MaxOpenFor // of a limiter that lets nothing through
	if limit := float64(lim.Limit()); limit > 0 {
		d = time.Duration(min(max(1-lim.Tokens(), 0)/limit*float64(time.Second), float64(d)))
	}
	d = max(d, time.Millisecond)
	return &limitError{c.name, "rate", d + rand.N(d)} // those who are sent away do not all come back together
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
			return &contextError{c.name, ctx.Err()}
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
