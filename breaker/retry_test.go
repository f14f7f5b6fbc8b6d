package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/breaker"
)

// calm is a Config that does not open.
func calm() breaker.Config {
	return breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 1 << 30}
}

// busy is an error of a dependency that says when to come back.
type busy struct{ after time.Duration }

func (busy) Error() string               { return "busy" }
func (b busy) RetryAfter() time.Duration { return b.after }

// tries makes a call that may be repeated and always fails with err, and says at what times it was tried.
func tries(ctx context.Context, b *breaker.Breaker, err error) ([]time.Duration, error) {
	var (
		at    []time.Duration
		begun = time.Now()
	)
	got := b.Idempotent().Do(ctx, func(context.Context) error {
		at = append(at, time.Since(begun))
		return err
	})
	return at, got
}

func TestRetriesOnlyWhatMayHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{errDown, 3},
		{context.DeadlineExceeded, 3}, // the dependency's own
		{&breaker.StatusError{Code: http.StatusServiceUnavailable}, 3},
		{&breaker.StatusError{Code: http.StatusTooManyRequests}, 3},
		{busy{time.Second}, 3},
		{&breaker.StatusError{Code: http.StatusNotFound}, 1},
		{&breaker.StatusError{Code: http.StatusUnprocessableEntity}, 1},
		{permanent{}, 1},
		{breaker.ErrLimited, 1},
		{breaker.ErrOpen, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			at, err := tries(t.Context(), newBreaker(t, calm()), c.err)
			require.Len(t, at, c.want, "%v", c.err)
			require.Equal(t, c.err, err, "the last real error, as it is")
		})
	}
}

type permanent struct{}

func (permanent) Error() string   { return "never" }
func (permanent) Permanent() bool { return true }

func TestRetryBackoffHasFullJitterAndABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := calm()
		cfg.Retry = breaker.Retry{MaxAttempts: 6, Backoff: 100 * time.Millisecond, MaxBackoff: 300 * time.Millisecond, Budget: 1, Burst: 1000}
		b := newBreaker(t, cfg)
		most, sum := make([]time.Duration, 5), make([]time.Duration, 5)
		const rounds = 200
		for range rounds {
			at, err := tries(t.Context(), b, errDown)
			require.Equal(t, errDown, err)
			for i := range most {
				wait := at[i+1] - at[i]
				most[i], sum[i] = max(most[i], wait), sum[i]+wait
			}
			for range 10 { // the budget is another test's
				_ = b.Idempotent().Do(t.Context(), succeed)
			}
		}
		for i, bound := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 300 * time.Millisecond, 300 * time.Millisecond} {
			assert.LessOrEqual(t, most[i], bound)
			assert.Greater(t, most[i], bound*9/10)
			assert.InDelta(t, float64(bound/2), float64(sum[i]/rounds), float64(bound/8), "the mean of all of it")
		}
	})
}

func TestOpenErrorIsNotRetriedAndCarriesRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, hair())
		open := trip(t, b)
		begun := time.Now()
		at, err := tries(t.Context(), b, nil)
		require.Empty(t, at)
		require.Same(t, open, err)
		require.Zero(t, time.Since(begun))
		d, ok := errors.AsType[interface {
			error
			RetryAfter() time.Duration
		}](fmt.Errorf("ship: %w", err))
		require.True(t, ok)
		require.GreaterOrEqual(t, d.RetryAfter(), time.Minute)
		require.Zero(t, b.Stats().Retries)
	})
}

func TestRetryStopsWhenTheBreakerOpensAndKeepsTheLastError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := hair()
		cfg.MinCalls = 2
		b := newBreaker(t, cfg)
		at, err := tries(t.Context(), b, busy{time.Second})
		require.Len(t, at, 3, "throttled is not a failure")
		require.Equal(t, busy{time.Second}, err)
		begun := time.Now()
		at, err = tries(t.Context(), b, errDown)
		require.Len(t, at, 2, "the second one opens it")
		require.Less(t, time.Since(begun), 100*time.Millisecond+1, "and it does not sleep again")
		require.Equal(t, errDown, err, "it has failed: a queue counts an attempt, or a poison job would never die")
		// Another opens it during the wait.
		cfg.Retry.Backoff, cfg.Retry.MaxBackoff = time.Hour, time.Hour
		cfg.OpenFor, cfg.MaxOpenFor = 1000*time.Hour, 1000*time.Hour
		b = newBreaker(t, cfg)
		time.AfterFunc(1, b.ForceOpen)
		at, err = tries(t.Context(), b, errDown)
		require.Len(t, at, 1)
		require.Equal(t, errDown, err)
	})
}

func TestRetryDoesNotSleepWhenBackoffExceedsTheDeadlineAndReturnsTheLastErrorJoinedWithCtxError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, calm())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		at, err := tries(ctx, b, busy{5 * time.Second})
		require.Len(t, at, 1)
		require.Zero(t, time.Since(begun))
		require.NoError(t, ctx.Err())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, busy{5 * time.Second})
		require.EqualError(t, err, "breaker: erp: no more tries after 1: context deadline exceeded: busy")
	})
	synctest.Test(t, func(t *testing.T) { // one who leaves during the wait
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun := time.Now()
		at, err := tries(ctx, newBreaker(t, calm()), busy{5 * time.Second})
		require.Len(t, at, 1)
		require.Equal(t, time.Second, time.Since(begun))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, busy{5 * time.Second})
	})
}

func TestDeadContextRunsZeroAttempts(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := newBreaker(t, hair())
	at, err := tries(ctx, b, nil)
	require.Empty(t, at)
	require.ErrorIs(t, err, context.Canceled)
	require.EqualError(t, err, "breaker: erp was not called: context canceled")
	require.Zero(t, b.Stats().Calls)
	_, err = breaker.CallOr(ctx, b, func(context.Context) (int, error) { panic("called") }, func(context.Context, error) (int, error) { panic("fallback") })
	require.ErrorIs(t, err, context.Canceled)
}

func TestRetryAfterFromServerIsAFloorWithJitterAndACap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := calm()
		cfg.Retry = breaker.Retry{MaxAttempts: 2, Burst: 1000}
		b := newBreaker(t, cfg)
		seen := map[time.Duration]bool{}
		for range 100 {
			at, _ := tries(t.Context(), b, busy{3 * time.Second})
			require.Len(t, at, 2)
			require.GreaterOrEqual(t, at[1], 3*time.Second)
			require.LessOrEqual(t, at[1], 3100*time.Millisecond)
			seen[at[1]] = true
		}
		require.Greater(t, len(seen), 50, "those who were sent away do not come back together")
		at, err := tries(t.Context(), b, busy{10 * time.Second})
		require.Len(t, at, 2)
		require.Equal(t, busy{10 * time.Second}, err)
		begun := time.Now()
		at, err = tries(t.Context(), b, busy{10*time.Second + 1})
		require.Len(t, at, 1, "that is for a queue to wait for")
		require.Equal(t, busy{10*time.Second + 1}, err)
		require.Zero(t, time.Since(begun))
		at, _ = tries(t.Context(), b, busy{-time.Second})
		require.Len(t, at, 2)
	})
}

func TestRetryBudgetBoundsAmplificationToRatioUnderTotalOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, calm())
		reached := 0
		for range 1000 {
			at, err := tries(t.Context(), b, errDown)
			require.Equal(t, errDown, err)
			reached += len(at)
		}
		require.LessOrEqual(t, reached, 1000+100+10, "a tenth, and the burst")
		require.GreaterOrEqual(t, reached, 1000+100)
		s := b.Stats()
		require.EqualValues(t, reached-1000, s.Retries)
		require.NotZero(t, s.RetriesRefused)
	})
	synctest.Test(t, func(t *testing.T) { // across nested layers: marked attempts don't multiply
		cfg := calm()
		cfg.Retry.Burst = 1000
		outer, inner := newBreaker(t, cfg), newBreaker(t, cfg)
		reached := 0
		err := outer.Idempotent().Do(t.Context(), func(ctx context.Context) error {
			at, err := tries(ctx, inner, errDown)
			reached += len(at)
			return err
		})
		require.Equal(t, errDown, err)
		require.Equal(t, 3+1+1, reached, "not 3 times 3")
	})
}

func TestBudgetIsPerDependencySoAFailingOneDoesNotStarveAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down, up := newBreaker(t, calm()), newBreaker(t, calm())
		for range 1000 {
			_, _ = tries(t.Context(), down, errDown)
		}
		reached := 0
		for range 10 {
			at, _ := tries(t.Context(), down, errDown)
			reached += len(at)
		}
		require.Equal(t, 10+1, reached, "it has a tenth")
		at, _ := tries(t.Context(), up, errDown)
		require.Len(t, at, 3)
	})
}

func TestNonIdempotentOperationIsNotRetriedUnlessMarked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, calm())
		count := 0
		call := func(context.Context) error { count++; return errDown }
		require.Equal(t, errDown, b.Do(t.Context(), call))
		require.Equal(t, 1, count)
		require.Equal(t, errDown, b.Idempotent().Do(t.Context(), call))
		require.Equal(t, 1+3, count)
		require.Equal(t, errDown, breaker.Guard(b, func(ctx context.Context, _ int) error { return call(ctx) })(t.Context(), 1))
		require.Equal(t, 1+3+1, count)
		require.Equal(t, errDown, breaker.Guard(b.Idempotent(), func(ctx context.Context, _ int) error { return call(ctx) })(t.Context(), 1))
		require.Equal(t, 1+3+1+3, count)
		require.Equal(t, b.Stats(), b.Idempotent().Stats(), "it is the same breaker")
	})
}

func TestRetrySucceedsAndSaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen []breaker.Attempt
		cfg := calm()
		cfg.Hooks.Called = func(a breaker.Attempt) { seen = append(seen, a) }
		b := newBreaker(t, cfg)
		n := 0
		v, err := breaker.Call(t.Context(), b.Idempotent(), func(context.Context) (int, error) {
			time.Sleep(time.Second)
			if n++; n < 3 {
				return 0, errDown
			}
			return n, nil
		})
		require.NoError(t, err)
		require.Equal(t, 3, v)
		require.Equal(t, []breaker.Attempt{
			{Name: "erp", Number: 1, Class: breaker.Failure, Err: errDown, Took: time.Second},
			{Name: "erp", Number: 2, Class: breaker.Failure, Err: errDown, Took: time.Second},
			{Name: "erp", Number: 3, Class: breaker.Success, Took: time.Second},
		}, seen)
	})
}
