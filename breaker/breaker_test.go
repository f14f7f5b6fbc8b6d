package breaker_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/breaker"
)

var errDown = errors.New("down")

func fail(context.Context) error    { return errDown }
func succeed(context.Context) error { return nil }

func newBreaker(t *testing.T, cfg breaker.Config) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New("erp", cfg)
	require.NoError(t, err)
	return b
}

// hair is a Config under which the first failure opens, for a minute, and nothing runs in a goroutine of its own.
func hair() breaker.Config {
	return breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 1, OpenFor: time.Minute}
}

// trip opens b, and returns the error of the calls it rejects.
func trip(t *testing.T, b *breaker.Breaker) *breaker.OpenError {
	t.Helper()
	for range 1000 {
		err := b.Do(t.Context(), fail)
		if open, ok := errors.AsType[*breaker.OpenError](err); ok {
			require.Equal(t, breaker.Open, b.State())
			return open
		}
	}
	t.Fatal("it does not open")
	return nil
}

// due sleeps until the open period is over.
func due(open *breaker.OpenError) { time.Sleep(time.Until(open.NextTrial)) }

// pending is a call that ends when it is told to.
type pending struct {
	end  chan error
	got  chan error      // what the caller got
	ctx  context.Context //nolint:containedctx // the one that the call got, to look at
	stop context.CancelFunc
}

// begin starts a call, and returns once it is under way.
func begin(t *testing.T, b *breaker.Breaker) *pending {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	p := &pending{end: make(chan error, 1), got: make(chan error, 1), stop: stop}
	started := make(chan struct{})
	go func() {
		p.got <- b.Do(ctx, func(ctx context.Context) error {
			p.ctx = ctx
			close(started)
			return <-p.end
		})
	}()
	select {
	case <-started:
	case err := <-p.got:
		t.Fatalf("it did not begin: %v", err)
	}
	return p
}

func (p *pending) finish(err error) error {
	p.end <- err
	return <-p.got
}

// rejected says that b lets no call through.
func rejected(t *testing.T, b *breaker.Breaker) {
	t.Helper()
	called := false
	err := b.Do(t.Context(), func(context.Context) error { called = true; return nil })
	require.ErrorIs(t, err, breaker.ErrOpen)
	require.False(t, called)
}

// P8: A broken dependency is left alone. While its breaker is open, calls fail fast or fall back, and jobs wait without spending attempts.
func TestP8LeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{OpenFor: 30 * time.Second})
		reached := 0
		call := func(context.Context) (string, error) { reached++; return "", errDown }
		for range 20 {
			_, _ = breaker.Call(t.Context(), b, call)
		}
		require.Equal(t, 10, reached, "MinCalls, all of them failures")

		begun := time.Now()
		for time.Since(begun) < 29*time.Second {
			v, err := breaker.CallOr(t.Context(), b, call, func(_ context.Context, cause error) (string, error) {
				require.ErrorIs(t, cause, breaker.ErrOpen)
				return "queued", nil
			})
			require.NoError(t, err)
			require.Equal(t, "queued", v)
			time.Sleep(10 * time.Millisecond)
		}
		require.Equal(t, 10, reached, "while it is open no call reaches the dependency")
		time.Sleep(5 * time.Second)
		for range 100 {
			_, _ = breaker.Call(t.Context(), b, call)
		}
		require.Equal(t, 11, reached, "one is the trial")
	})
}

func TestResultOfCallAdmittedWhileClosedIsIgnoredInHalfOpen(t *testing.T) {
	t.Parallel()
	for _, late := range []error{nil, errDown} {
		synctest.Test(t, func(t *testing.T) {
			cfg := hair()
			cfg.TrialSuccesses = 2
			b := newBreaker(t, cfg)
			old := begin(t, b)
			due(trip(t, b))
			require.NoError(t, b.Do(t.Context(), succeed)) // one of the two that it needs
			require.Equal(t, breaker.HalfOpen, b.State())
			require.Equal(t, late, old.finish(late), "its caller gets it all the same")
			require.Equal(t, breaker.HalfOpen, b.State())
			require.NoError(t, b.Do(t.Context(), succeed))
			require.Equal(t, breaker.Closed, b.State())
		})
	}
}

func TestResultOfAnEarlierHalfOpenPeriodNeitherClosesNorFreesASlotInALaterOne(t *testing.T) {
	t.Parallel()
	for _, late := range []error{nil, errDown} {
		synctest.Test(t, func(t *testing.T) {
			cfg := hair()
			cfg.Trials, cfg.TrialSuccesses, cfg.TrialLease = 2, 2, time.Hour
			b := newBreaker(t, cfg)
			due(trip(t, b))
			old := begin(t, b)
			require.ErrorIs(t, b.Do(t.Context(), fail), errDown) // the other trial: open again
			due(trip(t, b))
			first, second := begin(t, b), begin(t, b)
			require.Equal(t, late, old.finish(late))
			require.Equal(t, breaker.HalfOpen, b.State())
			rejected(t, b)
			require.NoError(t, first.finish(nil))
			require.Equal(t, breaker.HalfOpen, b.State(), "two of this period must succeed")
			require.NoError(t, second.finish(nil))
			require.Equal(t, breaker.Closed, b.State())
		})
	}
}

func TestHalfOpenAdmitsAtMostNTrialsUnder1000ConcurrentCallersAtTheInstantOfExpiry(t *testing.T) {
	t.Parallel()
	for _, trials := range []int{1, 3} {
		for _, outcome := range []error{nil, errDown} {
			synctest.Test(t, func(t *testing.T) {
				cfg := hair()
				cfg.Trials = trials
				b := newBreaker(t, cfg)
				open := trip(t, b)
				var (
					mu      sync.Mutex
					reached int
					end     = make(chan struct{})
					all     sync.WaitGroup
				)
				for range 1000 {
					all.Go(func() {
						due(open)
						_ = b.Do(t.Context(), func(context.Context) error {
							mu.Lock()
							reached++
							mu.Unlock()
							<-end
							return outcome
						})
					})
				}
				due(open)
				synctest.Wait()
				require.Equal(t, trials, reached)
				close(end)
				all.Wait()
				require.Equal(t, trials, reached)
				require.Equal(t, map[bool]breaker.State{true: breaker.Closed, false: breaker.Open}[outcome == nil], b.State())
			})
		}
	}
}

func TestPanickingTrialReleasesItsSlotAndCountsAsFailure(t *testing.T) {
	t.Parallel()
	for name, timeout := range map[string]time.Duration{"inline": breaker.NoTimeout, "detached": time.Second} {
		synctest.Test(t, func(t *testing.T) {
			cfg := hair()
			cfg.Timeout = timeout
			b := newBreaker(t, cfg)
			open := trip(t, b)
			due(open)
			func() {
				defer func() {
					v := recover()
					require.NotNil(t, v, name)
					err, _ := v.(error)
					require.ErrorIs(t, err, errDown)
					if timeout > 0 {
						require.Contains(t, err.Error(), "breaker_test.go", "where it was, in the other goroutine")
					}
				}()
				_ = b.Do(t.Context(), func(context.Context) error { panic(errDown) })
			}()
			require.Equal(t, breaker.Open, b.State())
			require.NotEqual(t, open.NextTrial, b.Stats().NextTrial)
			due(trip(t, b))
			require.NoError(t, b.Do(t.Context(), succeed), "the slot is free")
			require.Equal(t, breaker.Closed, b.State())
		})
	}
}

func TestGoexitInTrialReleasesItsSlot(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{breaker.NoTimeout, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			cfg := hair()
			cfg.Timeout = timeout
			b := newBreaker(t, cfg)
			due(trip(t, b))
			returned := false
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = b.Do(t.Context(), func(context.Context) error { runtime.Goexit(); return nil })
				returned = true
			}()
			<-done
			require.False(t, returned, "it ends the caller's goroutine, as it would without a breaker")
			require.Equal(t, breaker.Open, b.State())
			due(trip(t, b))
			require.NoError(t, b.Do(t.Context(), succeed))
		})
	}
}

func TestTrialThatNeverReturnsDoesNotBlockRecoveryPastTheTrialLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := hair()
		cfg.TrialLease = 20 * time.Second
		b := newBreaker(t, cfg)
		due(trip(t, b))
		lost := begin(t, b)
		time.Sleep(20*time.Second - 1)
		rejected(t, b)
		time.Sleep(time.Nanosecond)
		next := begin(t, b)
		require.ErrorIs(t, lost.finish(errDown), errDown)
		require.Equal(t, breaker.HalfOpen, b.State(), "it lost its say with its lease")
		rejected(t, b)
		require.NoError(t, next.finish(nil))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestTrialCancelledByItsCallerReleasesTheSlotWithoutDeciding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, hair())
		due(trip(t, b))
		p := begin(t, b)
		rejected(t, b)
		p.stop()
		require.ErrorIs(t, p.finish(p.ctx.Err()), context.Canceled)
		require.Equal(t, breaker.HalfOpen, b.State())
		require.NoError(t, b.Do(t.Context(), succeed), "the next caller is the trial")
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestCallerCancellationNeverTripsAndNeverCloses(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{breaker.NoTimeout, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			cfg := hair()
			cfg.Timeout, cfg.TrialSuccesses, cfg.ConsecutiveFailures = timeout, 3, 1
			b := newBreaker(t, cfg)
			cancelled := func() {
				for range 5 {
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Second, cancel)
					require.ErrorIs(t, b.Do(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }), context.Canceled)
				}
			}
			cancelled()
			require.Equal(t, breaker.Closed, b.State())
			require.Zero(t, b.Stats().WindowCalls)
			due(trip(t, b))
			cancelled()
			require.Equal(t, breaker.HalfOpen, b.State())
		})
	}
}

func TestDependencyDeadlineExceededWhileCallerCtxAliveCountsAsFailure(t *testing.T) {
	t.Parallel()
	for _, err := range []error{context.DeadlineExceeded, context.Canceled} { // of its own context, inside
		b := newBreaker(t, hair())
		require.ErrorIs(t, b.Do(t.Context(), func(context.Context) error { return err }), err)
		require.Equal(t, breaker.Open, b.State())
	}
	synctest.Test(t, func(t *testing.T) {
		cfg := hair()
		cfg.Timeout = time.Second
		b := newBreaker(t, cfg)
		err := b.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		require.ErrorIs(t, err, breaker.ErrTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, breaker.Open, b.State())
	})
}

// The policy: the caller's deadline is held against the dependency if the call had half of Config.Timeout (1.5 s without one).
func TestDeadlineThatWasTooShortAtAdmissionIsNotBlamedOnTheDependency(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		timeout, granted time.Duration
		state            breaker.State
	}{
		{2 * time.Second, time.Second - 1, breaker.Closed},
		{2 * time.Second, time.Second, breaker.Open},
		{breaker.NoTimeout, 1500*time.Millisecond - 1, breaker.Closed},
		{breaker.NoTimeout, 1500 * time.Millisecond, breaker.Open},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := hair()
			cfg.Timeout = c.timeout
			b := newBreaker(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), c.granted)
			defer cancel()
			require.ErrorIs(t, b.Do(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }), context.DeadlineExceeded)
			require.Equal(t, c.state, b.State(), "%+v", c)
		})
	}
}

func TestExcludedErrorInHalfOpenIsNotASuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		errOurs := errors.New("ours")
		cfg := hair()
		cfg.Classify = func(err error) breaker.Class {
			if errors.Is(err, errOurs) {
				return breaker.Ignored
			}
			return 0
		}
		b := newBreaker(t, cfg)
		due(trip(t, b))
		for _, err := range []error{errOurs, &breaker.StatusError{Code: http.StatusTooManyRequests}, breaker.ErrLimited} {
			require.ErrorIs(t, b.Do(t.Context(), func(context.Context) error { return err }), err)
			require.Equal(t, breaker.HalfOpen, b.State(), "%v", err)
		}
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestStateChangeCallbackMayCallAnyBreakerMethod(t *testing.T) {
	t.Parallel()
	var (
		b    *breaker.Breaker
		seen []breaker.State
		cfg  = hair()
	)
	cfg.Hooks.Changed = func(c breaker.Change) {
		seen = append(seen, c.To)
		_, _, _, _ = b.Stats(), b.State(), b.Name(), b.Idempotent()
		_ = b.Do(context.Background(), succeed) //nolint:usetesting // any
		switch len(seen) {
		case 1:
			b.Reset()
		case 2:
			b.ForceOpen()
		case 3:
			b.ForceClosed()
		}
	}
	b = newBreaker(t, cfg)
	require.ErrorIs(t, b.Do(t.Context(), fail), errDown)
	require.Equal(t, []breaker.State{breaker.Open, breaker.Closed, breaker.Open, breaker.Closed}, seen)
}

func TestStateChangeEventsAreDeliveredInOrderAndOnce(t *testing.T) {
	t.Parallel()
	var (
		changes []breaker.Change // hooks are told one at a time: no lock
		calls   int
		cfg     = hair()
	)
	cfg.OpenFor, cfg.MaxOpenFor = time.Microsecond, time.Microsecond
	told := make(chan struct{})
	cfg.Hooks.Changed = func(c breaker.Change) {
		changes = append(changes, c)
		if c.Forced && c.To == breaker.Closed {
			close(told)
		}
	}
	cfg.Hooks.Called = func(breaker.Attempt) { calls++ }
	b := newBreaker(t, cfg)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 500 {
				switch {
				case i%50 == 49 && g == 0:
					b.ForceOpen()
					b.Reset()
				case (i+g)%3 == 0:
					_ = b.Do(t.Context(), fail)
				default:
					_ = b.Do(t.Context(), succeed)
				}
			}
		})
	}
	all.Wait()
	b.ForceClosed() // nobody did yet: the last of all
	<-told
	state, trips := breaker.Closed, int64(0)
	for i, c := range changes {
		require.Equal(t, state, c.From, "%d: each begins where the one before ended", i)
		state = c.To
		if c.To == breaker.Open && !c.Forced {
			trips++
			require.Error(t, c.Cause)
		}
	}
	require.Equal(t, b.State(), state)
	require.Equal(t, b.Stats().Trips, trips)
	require.Equal(t, 8*500-10, calls)
}

func TestWindowBucketRolloverForgetsExactlyTheOldBucket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 1000})
		for i := range 10 { // i+1 failures in the i-th second
			for range i + 1 {
				_ = b.Do(t.Context(), fail)
			}
			time.Sleep(time.Second)
		}
		for i := range 10 {
			want := 0
			for j := i + 1; j < 10; j++ {
				want += j + 1
			}
			s := b.Stats()
			require.Equal(t, want, s.WindowFailures, "after %d more seconds", i)
			require.Equal(t, want, s.WindowCalls)
			time.Sleep(time.Second)
		}
	})
}

func TestIdleForManyWindowsStartsEmpty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Timeout: breaker.NoTimeout})
		for range 9 {
			_ = b.Do(t.Context(), fail)
		}
		time.Sleep(1000 * time.Hour)
		for range 9 {
			_ = b.Do(t.Context(), fail)
		}
		require.Equal(t, 9, b.Stats().WindowFailures)
		require.Equal(t, breaker.Closed, b.State())
		_ = b.Do(t.Context(), fail)
		require.Equal(t, breaker.Open, b.State())
	})
}

// The wall clock can't be set back in a test, but what is left without it can be seen: everything that is compared has a monotonic reading, which Sub and Since
// prefer (package time). Stripped of it, a time compares by the wall clock.
func TestBackwardWallClockStepDoesNotExtendOpenState(t *testing.T) {
	t.Parallel()
	b := newBreaker(t, hair())
	open := trip(t, b)
	for name, at := range map[string]time.Time{"Since": open.Since, "NextTrial": open.NextTrial, "Stats.Since": b.Stats().Since} {
		require.Contains(t, at.String(), " m=", name)
	}
	require.Equal(t, open.Since, b.Stats().Since, "and it is what the open time is counted from")
}

func TestMinimumVolumeNotMetNeverTrips(t *testing.T) {
	t.Parallel()
	b := newBreaker(t, breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 20})
	for range 19 {
		require.ErrorIs(t, b.Do(t.Context(), fail), errDown)
		require.Equal(t, breaker.Closed, b.State())
	}
	require.ErrorIs(t, b.Do(t.Context(), fail), errDown)
	require.Equal(t, breaker.Open, b.State())
}

func TestExactlyAtThresholdTrips(t *testing.T) {
	t.Parallel()
	for percent := 1; percent <= 100; percent++ { // all of them: 0.55 * 100 is more than 55, in binary
		b := newBreaker(t, breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 100, FailureRate: float64(percent) / 100})
		for range 100 - percent {
			require.NoError(t, b.Do(t.Context(), succeed))
		}
		for range percent {
			require.Equal(t, breaker.Closed, b.State(), "%d %%", percent)
			require.ErrorIs(t, b.Do(t.Context(), fail), errDown)
		}
		require.Equal(t, breaker.Open, b.State(), "%d %%", percent)
	}
}

func TestConfigValidationRejectsRateOver1ZeroWindowAndTrialCountZero(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  breaker.Config
		want string
	}{
		{breaker.Config{FailureRate: 1.1}, "FailureRate is 1.1"},
		{breaker.Config{FailureRate: 50}, "FailureRate is 50"},
		{breaker.Config{FailureRate: -0.1}, "FailureRate is -0.1"},
		{breaker.Config{FailureRate: math.NaN()}, "FailureRate is NaN"},
		{breaker.Config{SlowRate: math.Inf(1)}, "SlowRate is +Inf"},
		{breaker.Config{Window: 1}, "Window is 1ns; want at least 10ms"},
		{breaker.Config{Window: -time.Second}, "Window is -1s"},
		{breaker.Config{Trials: -1}, "Trials is -1"},
		{breaker.Config{TrialSuccesses: -1}, "TrialSuccesses is -1"},
		{breaker.Config{TrialLease: -1}, "TrialLease is -1ns"},
		{breaker.Config{MinCalls: -1}, "MinCalls is -1"},
		{breaker.Config{Timeout: -2}, "Timeout is -2ns"},
		{breaker.Config{Timeout: math.MaxInt64}, "Timeout is 2562047h47m16.854775807s; want at most"},
		{breaker.Config{OpenFor: -1}, "OpenFor is -1ns"},
		{breaker.Config{OpenFor: time.Minute, MaxOpenFor: time.Second}, "MaxOpenFor is 1s"},
		{breaker.Config{SlowCall: -1}, "SlowCall is -1ns"},
		{breaker.Config{MaxWait: -2}, "MaxWait is -2ns"},
		{breaker.Config{MaxConcurrent: -1}, "MaxConcurrent is -1"},
		{breaker.Config{MaxAbandoned: -1}, "MaxAbandoned is -1"},
		{breaker.Config{ConsecutiveFailures: -1}, "ConsecutiveFailures is -1"},
		{breaker.Config{Retry: breaker.Retry{MaxAttempts: -1}}, "Retry.MaxAttempts is -1"},
		{breaker.Config{Retry: breaker.Retry{Budget: 2}}, "Retry.Budget is 2"},
		{breaker.Config{Retry: breaker.Retry{Backoff: -1}}, "Retry.Backoff is -1ns"},
	} {
		_, err := breaker.New("erp", c.cfg)
		require.ErrorContains(t, err, "breaker: Config."+c.want)
		_, err = breaker.NewGroup("erp", 1, c.cfg)
		require.ErrorContains(t, err, "breaker: Config."+c.want)
	}
	_, err := breaker.New("", breaker.Config{})
	require.ErrorContains(t, err, "name is empty")
	_, err = breaker.NewGroup("", 1, breaker.Config{})
	require.ErrorContains(t, err, "name is empty")
	_, err = breaker.NewGroup("erp", 0, breaker.Config{})
	require.ErrorContains(t, err, "maxKeys is 0")
	_, err = breaker.NewGroup("erp", 1, breaker.Config{Limiter: rate.NewLimiter(1, 1)})
	require.ErrorContains(t, err, "Config.Limiter")
	_, err = breaker.New("erp", breaker.Config{})
	require.NoError(t, err, "zero means the default, also of Window and Trials")
}

// An option that is added must be looked at here: is its zero a default, is it checked, is it told of in docs/breaker.md?
func TestConfigFieldsAreAllKnown(t *testing.T) {
	t.Parallel()
	require.Equal(t, 20, reflect.TypeFor[breaker.Config]().NumField())
	require.Equal(t, 6, reflect.TypeFor[breaker.Retry]().NumField())
}

func TestOpenErrorSaysWhatToDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, hair())
		open := trip(t, b)
		require.Equal(t, "erp", open.Name)
		require.Equal(t, errDown, open.Cause)
		require.NotErrorIs(t, open, errDown, "this call has not had that failure")
		require.GreaterOrEqual(t, open.NextTrial.Sub(open.Since), time.Minute)
		require.LessOrEqual(t, open.NextTrial.Sub(open.Since), 66*time.Second, "jitter is upwards only")
		require.Equal(t, "breaker: erp is open since 2000-01-01T00:00:00Z, next trial at "+open.NextTrial.UTC().Format(time.RFC3339)+": down", open.Error())
		again := b.Do(t.Context(), succeed)
		require.Same(t, open, again, "one value per open period")
		time.Sleep(30 * time.Second)
		for range 100 {
			rest := time.Until(open.NextTrial)
			require.GreaterOrEqual(t, open.RetryAfter(), rest)
			require.LessOrEqual(t, open.RetryAfter(), rest+7*time.Second)
		}
		due(open)
		p := begin(t, b)
		require.Same(t, open, b.Do(t.Context(), succeed), "also while the trial is under way")
		require.GreaterOrEqual(t, open.RetryAfter(), 6*time.Second)
		require.LessOrEqual(t, open.RetryAfter(), 14*time.Second)
		require.NoError(t, p.finish(nil))
	})
}

func TestOpenForGrowsWithTripsInARowUpToItsMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := hair()
		cfg.OpenFor, cfg.MaxOpenFor = 10*time.Second, 35*time.Second
		b := newBreaker(t, cfg)
		for _, want := range []time.Duration{10 * time.Second, 10 * time.Second, 20 * time.Second, 35 * time.Second, 35 * time.Second} {
			open := trip(t, b)
			got := open.NextTrial.Sub(open.Since)
			require.GreaterOrEqual(t, got, want)
			require.LessOrEqual(t, got, want*11/10)
			due(open)
		}
		require.NoError(t, b.Do(t.Context(), succeed))
		time.Sleep(30 * time.Second) // not as long as it was open
		open := trip(t, b)
		require.GreaterOrEqual(t, open.NextTrial.Sub(open.Since), 35*time.Second)
		due(open)
		require.NoError(t, b.Do(t.Context(), succeed))
		time.Sleep(40 * time.Second)
		open = trip(t, b)
		require.Less(t, open.NextTrial.Sub(open.Since), 12*time.Second, "it has proven itself")
		b.Reset()
		open = trip(t, b)
		require.Less(t, open.NextTrial.Sub(open.Since), 12*time.Second)
	})
}

func TestOperatorsForceAndReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, hair())
		p := begin(t, b)
		b.ForceOpen()
		require.ErrorIs(t, p.finish(errDown), errDown)
		time.Sleep(1000 * time.Hour)
		rejected(t, b)
		open, ok := errors.AsType[*breaker.OpenError](b.Do(t.Context(), succeed))
		require.True(t, ok)
		require.Zero(t, open.NextTrial)
		require.Contains(t, open.Error(), "forced")
		require.GreaterOrEqual(t, open.RetryAfter(), time.Minute)
		require.LessOrEqual(t, open.RetryAfter(), 66*time.Second)
		s := b.Stats()
		require.True(t, s.Forced)
		require.Equal(t, breaker.Open, s.State)

		b.ForceClosed()
		for range 100 {
			require.ErrorIs(t, b.Do(t.Context(), fail), errDown)
		}
		require.True(t, b.Stats().Forced)
		require.Equal(t, breaker.Closed, b.State())

		b.Reset()
		require.False(t, b.Stats().Forced)
		_ = trip(t, b)
		b.Reset()
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Zero(t, b.Stats().WindowFailures)
	})
}

func TestStatsAddUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Timeout: time.Second, SlowCall: 500 * time.Millisecond, MinCalls: 5, FailureRate: 1, SlowRate: 1})
		for _, d := range []time.Duration{0, 600 * time.Millisecond, 2 * time.Second} {
			_ = b.Do(t.Context(), func(context.Context) error { time.Sleep(d); return nil })
		}
		s := b.Stats()
		assert.Equal(t, 1, s.Abandoned)
		assert.Equal(t, []int{3, 1, 2}, []int{s.WindowCalls, s.WindowFailures, s.WindowSlow})
		time.Sleep(2 * time.Second)
		assert.Zero(t, b.Stats().Abandoned)
		for range 20 {
			_ = b.Do(t.Context(), fail)
		}
		s = b.Stats()
		assert.Equal(t, breaker.Closed, s.State, "not all failed")
		assert.Equal(t, []int64{23, 21, 0, 1}, []int64{s.Calls, s.Failures, s.Rejected, s.Timeouts})
		b.Reset()
		for range 7 {
			_ = b.Do(t.Context(), fail)
		}
		s = b.Stats()
		assert.Equal(t, []int64{28, 26, 2, 1}, []int64{s.Calls, s.Failures, s.Rejected, s.Trips})
		assert.Equal(t, errDown, s.Cause)
		assert.False(t, s.NextTrial.IsZero())
	})
}

func TestHookThatPanicsIsLoggedAndStopsNothing(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	cfg := hair()
	cfg.Logger = textLogger(&log)
	told := 0
	cfg.Hooks.Changed = func(breaker.Change) { told++; panic("oops") }
	b := newBreaker(t, cfg)
	_ = trip(t, b)
	b.Reset()
	require.Equal(t, 2, told)
	require.Contains(t, log.String(), "a hook panicked")
	require.Contains(t, log.String(), "breaker_test.go")
	require.Contains(t, log.String(), "breaker: opened")
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
