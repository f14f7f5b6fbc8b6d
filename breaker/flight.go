package breaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// invoke makes the call, and gives it no longer than the timeout. late says that the timeout has passed; err is then nil, if the call has succeeded all the
// same, or an ErrTimeout.
func invoke[T any, C caller[T]](ctx context.Context, c *core, call C, h how[T]) (v T, late bool, err error) {
	if c.cfg.Timeout == NoTimeout {
		v, err = call.call(ctx)
		return v, false, err
	}
	if h.keep != nil {
		return stream(ctx, c, call, h)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, c.timeout)
	defer cancel()
	if h.inline {
		v, err = call.call(ctx)
	} else {
		v, err = detach[T](ctx, c, call)
	}
	if context.Cause(ctx) != error(c.timeout) { //nolint:errorlint // this very value: one of another breaker, around this call, is not ours
		return v, false, err
	}
	return v, true, c.timedOut(err)
}

// stream is invoke for a call whose result needs the context after it returned.
func stream[T any, C caller[T]](ctx context.Context, c *core, call C, h how[T]) (v T, late bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.cfg.Timeout, func() { cancel(c.timeout) })
	returned := false
	defer func() {
		if !returned { // it panicked
			timer.Stop()
			cancel(nil)
		}
	}()
	v, err = detach[T](ctx, c, call)
	returned = true
	if !timer.Stop() {
		<-ctx.Done() // its func is about to end it
	}
	if context.Cause(ctx) == error(c.timeout) { //nolint:errorlint // as above
		discard(v, err) // its context is over
		var none T
		return none, true, c.timeout
	}
	return h.keep(v, func() { cancel(nil) }), false, err
}

// timedOut is the error for a call that ran into the timeout, of what it returned.
func (c *core) timedOut(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, c.timeout):
		return c.timeout
	default:
		return &timeoutError{name: c.name, after: c.cfg.Timeout, cause: err}
	}
}

// flight is a call in a goroutine of its own.
type flight[T any] struct {
	core  *core
	state atomic.Int32
	done  chan struct{} // closed when the rest is there to be read

	v        T
	err      error
	returned bool
	panicked *panicError // nil for a call that ended its goroutine
}

const (
	waiting int32 = iota // for its goroutine to begin
	flying
	landed
	abandoned
	unbegun // nor may it begin any more
)

// anotherLook is how often a caller who may not leave its call alone looks whether it may now.
const anotherLook = 10 * time.Millisecond

// detach makes the call in a goroutine, and waits for it or for the end of ctx. Then it leaves the call alone, unless too many have been left already.
func detach[T any, C caller[T]](ctx context.Context, c *core, call C) (T, error) {
	f := &flight[T]{core: c, done: make(chan struct{})}
	go fly(ctx, f, call)
	select {
	case <-f.done:
	case <-ctx.Done():
		if f.abandon() {
			var none T
			if context.Cause(ctx) == error(c.timeout) { //nolint:errorlint // this very value
				return none, c.timeout
			}
			return none, &contextError{c.name, ctx.Err()}
		}
	}
	switch {
	case f.returned:
		return f.v, f.err
	case f.panicked == nil:
		runtime.Goexit() // as the call did, which t.FailNow does too
	case f.panicked.value == http.ErrAbortHandler: //nolint:errorlint // net/http compares so
		panic(http.ErrAbortHandler)
	}
	panic(f.panicked)
}

func fly[T any, C caller[T]](ctx context.Context, f *flight[T], call C) {
	if !f.state.CompareAndSwap(waiting, flying) {
		return
	}
	defer f.land()
	f.v, f.err = call.call(ctx)
	f.returned = true
}

// land is deferred.
func (f *flight[T]) land() {
	if !f.returned {
		if v := recover(); v != nil {
			f.panicked = &panicError{v, debug.Stack()}
		}
	}
	if f.state.CompareAndSwap(flying, landed) {
		close(f.done)
		return
	}
	defer f.core.counts.abandoned.Add(-1)
	if f.panicked != nil {
		f.core.log.Error("breaker: a call panicked after its timeout", "name", f.core.name, "panic", f.panicked.value, "stack", string(f.panicked.stack))
	}
	defer func() {
		if v := recover(); v != nil {
			f.core.log.Error("breaker: closing a late result panicked", "name", f.core.name, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	if f.returned {
		discard(f.v, f.err)
	}
}

// abandon leaves the call alone, as soon as not too many are. It says false if the call is over.
func (f *flight[T]) abandon() bool {
	if f.state.CompareAndSwap(waiting, unbegun) {
		return true
	}
	for n := &f.core.counts.abandoned; ; {
		if n.Add(1) <= int64(f.core.cfg.MaxAbandoned) && f.state.CompareAndSwap(flying, abandoned) {
			return true
		}
		n.Add(-1)
		timer := time.NewTimer(anotherLook)
		select {
		case <-f.done:
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// discard closes a result that nobody will. One that comes with an error is nothing to close, but for an answer.
func discard(v any, err error) {
	switch v := v.(type) {
	case *http.Response:
		if v != nil && v.Body != nil {
			v.Body.Close()
		}
	case io.Closer:
		if err == nil {
			v.Close()
		}
	}
}

// panicError is a panic of a call in a goroutine of its own, raised again in the caller's.
type panicError struct {
	value any
	stack []byte // where it was
}

func (e *panicError) Error() string { return fmt.Sprintf("%v\n\n%s", e.value, e.stack) }

// Unwrap returns the panic's value, if that is an error.
func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}
