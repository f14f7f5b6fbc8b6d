package breaker_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/breaker"
)

// closer says whether it was closed.
type closer struct{ closed atomic.Bool }

func (c *closer) Close() error             { c.closed.Store(true); return nil }
func (c *closer) Read([]byte) (int, error) { return 0, io.EOF }

func TestAttemptTimeoutReturnsOnTimeEvenIfFuncIgnoresCtx(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // with a bound on abandoned goroutines
		b := newBreaker(t, breaker.Config{Timeout: time.Second, MaxAbandoned: 3, MinCalls: 1000})
		ignores := sleeps(time.Hour)
		for n := 1; n <= 3; n++ {
			begun := time.Now()
			err := b.Do(t.Context(), ignores)
			require.ErrorIs(t, err, breaker.ErrTimeout)
			require.EqualError(t, err, "breaker: erp did not answer within 1s")
			require.Equal(t, time.Second, time.Since(begun))
			require.Equal(t, n, b.Stats().Abandoned)
		}
		begun := time.Now()
		require.NoError(t, b.Do(t.Context(), sleeps(10*time.Second)), "the fourth is waited for, and what it brings is there")
		require.Equal(t, 10*time.Second, time.Since(begun))
		require.EqualValues(t, 4, b.Stats().Failures, "but it counts as too late")
		require.ErrorIs(t, b.Do(t.Context(), sleeps(2*time.Hour)), breaker.ErrTimeout)
		require.InDelta(t, time.Hour, time.Since(begun), float64(5*time.Second), "until one of the others has returned")
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		require.Zero(t, b.Stats().Abandoned)
	})
}

func TestLateResultIsDiscardedAndClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Timeout: time.Second})
		c, body := new(closer), new(closer)
		got, err := breaker.Call(t.Context(), b, func(context.Context) (*closer, error) { time.Sleep(2 * time.Second); return c, nil })
		require.ErrorIs(t, err, breaker.ErrTimeout)
		require.Nil(t, got)
		resp, err := breaker.Call(t.Context(), b, func(context.Context) (*http.Response, error) {
			time.Sleep(2 * time.Second)
			return &http.Response{Body: body}, errDown
		})
		if resp != nil {
			resp.Body.Close()
		}
		require.ErrorIs(t, err, breaker.ErrTimeout)
		require.Nil(t, resp)
		require.False(t, body.closed.Load())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.True(t, c.closed.Load())
		require.True(t, body.closed.Load())
		// In time, it is the caller's.
		c = new(closer)
		got, err = breaker.Call(t.Context(), b, func(context.Context) (*closer, error) { return c, nil })
		require.NoError(t, err)
		require.Same(t, c, got)
		require.False(t, c.closed.Load())
	})
}

func TestLatePanicIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		b := newBreaker(t, breaker.Config{Timeout: time.Second, Logger: textLogger(&log)})
		require.ErrorIs(t, b.Do(t.Context(), func(context.Context) error { time.Sleep(2 * time.Second); panic("oops") }), breaker.ErrTimeout)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Contains(t, log.String(), "a call panicked after its timeout")
		require.Contains(t, log.String(), "oops")
		require.Zero(t, b.Stats().Abandoned)
	})
}

func TestTimeoutOfAnOuterBreakerIsNotTheInnersFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outer, inner := newBreaker(t, breaker.Config{Timeout: time.Second}), newBreaker(t, breaker.Config{Timeout: 10 * time.Second})
		err := outer.Do(t.Context(), func(ctx context.Context) error {
			return inner.Do(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		})
		require.ErrorIs(t, err, breaker.ErrTimeout)
		synctest.Wait()
		require.EqualValues(t, 1, outer.Stats().Failures)
		require.Zero(t, inner.Stats().Failures)
		require.Zero(t, inner.Stats().Timeouts)
	})
}

// A job that is tried again must not still be running.
func TestGuardReturnsAfterItsHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Timeout: time.Second, MinCalls: 1000})
		for _, c := range []struct {
			err     error
			timeout bool
		}{{nil, false}, {errDown, true}, {context.DeadlineExceeded, true}} {
			begun := time.Now()
			err := breaker.Guard(b, func(ctx context.Context, in string) error {
				require.Equal(t, "in", in)
				<-ctx.Done()
				time.Sleep(time.Second)
				return c.err
			})(t.Context(), "in")
			require.Equal(t, 2*time.Second, time.Since(begun))
			require.Equal(t, c.timeout, errors.Is(err, breaker.ErrTimeout), "what is done is done")
			require.ErrorIs(t, err, c.err)
		}
		require.EqualValues(t, 3, b.Stats().Failures, "but late")
	})
}

func TestBulkheadPermitIsReleasedOnceOnPanicCancelWhileQueuedAndTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Timeout: time.Minute, MaxConcurrent: 2, MinCalls: 1000})
		free := func() { // there are two places, no more and no fewer
			t.Helper()
			p, q := begin(t, b), begin(t, b)
			begun := time.Now()
			err := b.Do(t.Context(), func(context.Context) error { panic("a third") })
			require.ErrorIs(t, err, breaker.ErrLimited)
			require.Equal(t, time.Second, time.Since(begun), "MaxWait")
			require.NoError(t, p.finish(nil))
			require.NoError(t, q.finish(nil))
		}
		free()
		require.Panics(t, func() { _ = b.Do(t.Context(), func(context.Context) error { panic("oops") }) })
		free()
		p, q := begin(t, b), begin(t, b)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		require.ErrorIs(t, b.Do(ctx, succeed), context.Canceled) // while it waits
		require.NoError(t, p.finish(nil))
		require.NoError(t, q.finish(nil))
		free()
		require.ErrorIs(t, b.Do(t.Context(), func(context.Context) error { time.Sleep(time.Hour); return nil }), breaker.ErrTimeout)
		free()
		time.Sleep(2 * time.Hour)
		free()
	})
}

func TestBulkheadRejectionDoesNotCountAsBreakerFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := hair()
		cfg.MaxConcurrent, cfg.MaxWait, cfg.ConsecutiveFailures = 1, breaker.NoWait, 1
		b := newBreaker(t, cfg)
		p := begin(t, b)
		for range 100 {
			err := b.Do(t.Context(), succeed)
			require.ErrorIs(t, err, breaker.ErrLimited)
			l, ok := errors.AsType[interface {
				error
				RetryAfter() time.Duration
			}](err)
			require.True(t, ok)
			require.GreaterOrEqual(t, l.RetryAfter(), 50*time.Millisecond)
			require.LessOrEqual(t, l.RetryAfter(), 150*time.Millisecond)
		}
		require.NoError(t, p.finish(nil))
		require.Equal(t, breaker.Closed, b.State())
		s := b.Stats()
		require.Equal(t, []int64{1, 0, 100}, []int64{s.Calls, s.Failures, s.Limited})
	})
}

func TestRateLimitWaitsWithinMaxWaitAndTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := hair()
		cfg.Limiter = rate.NewLimiter(2, 1)
		b := newBreaker(t, cfg)
		begun := time.Now()
		require.NoError(t, b.Do(t.Context(), succeed))
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, 500*time.Millisecond, time.Since(begun))
		ctx, cancel := context.WithTimeout(t.Context(), 499*time.Millisecond)
		defer cancel()
		begun = time.Now()
		err := b.Do(ctx, succeed)
		require.ErrorIs(t, err, breaker.ErrLimited)
		require.Zero(t, time.Since(begun), "it knows at once")
		l, ok := errors.AsType[interface {
			error
			RetryAfter() time.Duration
		}](err)
		require.True(t, ok)
		require.GreaterOrEqual(t, l.RetryAfter(), 500*time.Millisecond)
		require.LessOrEqual(t, l.RetryAfter(), time.Second)
		var all sync.WaitGroup
		var limited atomic.Int64
		for range 5 {
			all.Go(func() {
				if err := b.Do(t.Context(), succeed); err != nil {
					limited.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 3, limited.Load(), "two find a place within a second")

		cfg.Limiter = rate.NewLimiter(0, 0)
		err = newBreaker(t, cfg).Do(t.Context(), succeed)
		require.ErrorIs(t, err, breaker.ErrLimited)
	})
}

// It waited for a place, and the breaker opened: the place is of no use.
func TestCallThatWaitedForAPlaceMeetsTheBreakerAsItIsThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := hair()
		cfg.MaxConcurrent, cfg.MaxWait = 1, time.Minute
		b := newBreaker(t, cfg)
		p := begin(t, b)
		waits := make(chan error, 1)
		go func() { waits <- b.Do(t.Context(), func(context.Context) error { panic("called") }) }()
		synctest.Wait()
		require.ErrorIs(t, p.finish(errDown), errDown)
		require.ErrorIs(t, <-waits, breaker.ErrOpen)
		time.Sleep(2 * time.Minute)
		require.NoError(t, b.Do(t.Context(), succeed), "and nobody keeps it")
	})
}

func TestFallbackIsNotRunOnCallerCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, calm())
		for name, c := range map[string]struct {
			call     func(context.CancelFunc) error
			fallback bool
		}{
			"failure":    {func(context.CancelFunc) error { return errDown }, true},
			"throttled":  {func(context.CancelFunc) error { return busy{} }, true},
			"limited":    {func(context.CancelFunc) error { return breaker.ErrLimited }, true},
			"cancelled":  {func(cancel context.CancelFunc) error { cancel(); return context.Canceled }, false},
			"gone":       {func(cancel context.CancelFunc) error { cancel(); return errDown }, false},
			"answered":   {func(context.CancelFunc) error { return &breaker.StatusError{Code: 404} }, false},
			"permanent":  {func(context.CancelFunc) error { return permanent{} }, false},
			"it is well": {func(context.CancelFunc) error { return nil }, false},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			asked := false
			_, err := breaker.CallOr(ctx, b, func(context.Context) (int, error) { return 0, c.call(cancel) }, func(context.Context, error) (int, error) {
				asked = true
				return 0, nil
			})
			cancel()
			require.Equal(t, c.fallback, asked, name)
			require.Equal(t, c.fallback || name == "it is well", err == nil, name)
		}
	})
}

func TestFallbackErrorKeepsTheCause(t *testing.T) {
	t.Parallel()
	b := newBreaker(t, calm())
	errCache := errors.New("nothing cached")
	call := func(context.Context) (int, error) { return 0, errDown }
	_, err := breaker.CallOr(t.Context(), b, call, func(_ context.Context, cause error) (int, error) {
		require.Equal(t, errDown, cause)
		return 0, errCache
	})
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, errCache)
	require.EqualError(t, err, "nothing cached (a fallback for: down)")
	_, err = breaker.CallOr(t.Context(), b, call, func(_ context.Context, cause error) (int, error) { return 0, cause })
	require.Equal(t, errDown, err)
	v, err := breaker.CallOr(t.Context(), b, call, func(context.Context, error) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, v)
}

func TestClassPermanentReachesTheQueue(t *testing.T) {
	t.Parallel()
	cfg := hair()
	cfg.Classify = func(err error) breaker.Class {
		if errors.Is(err, errDown) {
			return breaker.Permanent
		}
		return 0
	}
	b := newBreaker(t, cfg)
	err := b.Do(t.Context(), fail)
	require.ErrorIs(t, err, errDown)
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	require.True(t, ok)
	require.True(t, p.Permanent())
	require.Equal(t, "down", err.Error())
	require.Equal(t, breaker.Closed, b.State(), "it has answered")
	require.Equal(t, 1, b.Stats().WindowCalls)
}

func TestNothingIsLeftRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // a bubble with a goroutine or a timer left in it fails
		b := newBreaker(t, breaker.Config{Timeout: time.Hour, Limiter: rate.NewLimiter(1, 1), MaxConcurrent: 1})
		for range 3 {
			require.NoError(t, b.Do(t.Context(), succeed))
		}
		_ = trip(t, newBreaker(t, breaker.Config{}))
	})
}
