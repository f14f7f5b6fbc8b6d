package breaker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/breaker"
)

// What the two libraries that people come from document of their options, as cases. Where ours differs on purpose, the case shows it and says so. Sources:
// opossum's README and the comments of its CircuitBreaker (nodeshift.dev/opossum); resilience4j's table of CircuitBreakerConfig
// (resilience4j.readme.io/docs/circuitbreaker). docs/breaker.md has this as a table.
var references = []struct {
	name    string
	differs string // how, and why; "" if it does not
	cfg     breaker.Config
	run     func(t *testing.T, b *breaker.Breaker)
}{
	{
		name: "opossum timeout: a call that takes longer fails, and counts",
		cfg:  breaker.Config{Timeout: time.Second, MinCalls: 1},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			require.ErrorIs(t, b.Do(t.Context(), sleeps(2*time.Second)), breaker.ErrTimeout)
			require.Equal(t, breaker.Open, b.State())
		},
	},
	{
		name: "opossum timeout false: a call may take as long as it takes",
		cfg:  breaker.Config{Timeout: breaker.NoTimeout},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			require.NoError(t, b.Do(t.Context(), sleeps(time.Hour)))
		},
	},
	{
		name:    "opossum errorThresholdPercentage 50: opens over it",
		differs: "ours opens at it, as resilience4j does: half of the calls fail is bad enough, and the number means what it says",
		cfg:     breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 4},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, true, true, false)
			require.Equal(t, breaker.Closed, b.State())
			outcome(t, b, false)
			require.Equal(t, breaker.Open, b.State())
		},
	},
	{
		name:    "opossum volumeThreshold: with fewer calls in the window it stays closed",
		differs: "ours has 10 by default and not 0, by which one failed call is 100 %",
		cfg:     breaker.Config{Timeout: breaker.NoTimeout},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, make([]bool, 9)...)
			require.Equal(t, breaker.Closed, b.State())
			outcome(t, b, false)
			require.Equal(t, breaker.Open, b.State())
		},
	},
	{
		name: "opossum rollingCountTimeout and rollingCountBuckets: what is older than ten steps of a second is forgotten",
		cfg:  breaker.Config{Timeout: breaker.NoTimeout},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, make([]bool, 9)...)
			time.Sleep(10 * time.Second)
			outcome(t, b, false)
			require.Equal(t, breaker.Closed, b.State())
			require.Equal(t, 1, b.Stats().WindowCalls)
		},
	},
	{
		name:    "opossum resetTimeout: 30 s after it opened, a call tries",
		differs: "ours adds up to a tenth, and doubles it when it trips again and again: a fleet does not come back at one instant, nor every 30 s for hours",
		cfg:     hairTrigger,
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, false)
			time.Sleep(30*time.Second - 1)
			rejected(t, b)
			time.Sleep(3*time.Second + 1)
			require.NoError(t, b.Do(t.Context(), succeed))
			require.Equal(t, breaker.Closed, b.State())
		},
	},
	{
		name: "opossum half-open: one call is pending, the others are rejected; its failure opens, its success closes",
		cfg:  hairTrigger,
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			due(trip(t, b))
			p := begin(t, b)
			rejected(t, b)
			require.Error(t, p.finish(errDown))
			due(trip(t, b))
			p = begin(t, b)
			rejected(t, b)
			require.NoError(t, p.finish(nil))
			require.Equal(t, breaker.Closed, b.State())
		},
	},
	{
		name:    "opossum capacity: calls beyond it are rejected",
		differs: "ours waits Config.MaxWait for a place first, unless that is NoWait, and the rejection does not count as a failure",
		cfg:     breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 1, MaxConcurrent: 1, MaxWait: breaker.NoWait},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			p := begin(t, b)
			require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrLimited)
			require.NoError(t, p.finish(nil))
			require.Zero(t, b.Stats().Failures)
		},
	},
	{
		name:    "opossum errorFilter: an error that it names is not a failure",
		differs: "there it counts as a success; ours has Success and Ignored, which counts neither way, and closes no half-open breaker",
		cfg:     breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 1, Classify: func(error) breaker.Class { return breaker.Ignored }},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, false, false)
			require.Equal(t, breaker.Closed, b.State())
			require.Zero(t, b.Stats().WindowCalls)
		},
	},
	{
		name:    "opossum fallback: runs for failures and while it is open, and gets the error",
		differs: "ours is given where the call is made, CallOr, so that it is typed; it is not run for a caller who has left",
		cfg:     hairTrigger,
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			for _, want := range []error{errDown, breaker.ErrOpen} {
				v, err := breaker.CallOr(t.Context(), b, func(ctx context.Context) (string, error) { return "", fail(ctx) },
					func(_ context.Context, cause error) (string, error) {
						require.ErrorIs(t, cause, want)
						return "queued", nil
					})
				require.NoError(t, err)
				require.Equal(t, "queued", v)
			}
		},
	},
	{
		name:    "opossum allowWarmUp: never opens in its first window",
		differs: "ours has MinCalls for that: a dependency that is down at the start is left alone as well",
		cfg:     breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 3},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, false, false, false)
			require.Equal(t, breaker.Open, b.State())
		},
	},
	{
		name: "opossum abortController: the call's signal is aborted with the timeout",
		cfg:  breaker.Config{Timeout: time.Second},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			ended := make(chan time.Duration, 1)
			begun := time.Now()
			require.ErrorIs(t, b.Do(t.Context(), func(ctx context.Context) error {
				<-ctx.Done()
				ended <- time.Since(begun)
				return ctx.Err()
			}), breaker.ErrTimeout)
			require.Equal(t, time.Second, <-ended)
		},
	},
	{
		name: "opossum enable and disable, resilience4j DISABLED: all calls go through",
		cfg:  hairTrigger,
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			b.ForceClosed()
			outcome(t, b, make([]bool, 100)...)
			require.Equal(t, breaker.Closed, b.State())
		},
	},
	{
		name: "resilience4j FORCED_OPEN: no call goes through until it is told otherwise",
		cfg:  hairTrigger,
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			b.ForceOpen()
			time.Sleep(1000 * time.Hour)
			rejected(t, b)
			b.Reset()
			require.NoError(t, b.Do(t.Context(), succeed))
		},
	},
	{
		name: "resilience4j failureRateThreshold 50: opens at it",
		cfg:  breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 100},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			for range 50 {
				outcome(t, b, true)
			}
			for range 49 {
				outcome(t, b, false)
			}
			require.Equal(t, breaker.Closed, b.State())
			outcome(t, b, false)
			require.Equal(t, breaker.Open, b.State())
		},
	},
	{
		name:    "resilience4j minimumNumberOfCalls: with fewer it stays closed; with so many the rate is looked at after every call",
		differs: "ours looks when a call fails (by rate) or is slow (by that rate): a success can't be what makes it too many",
		cfg:     breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 10},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, make([]bool, 9)...)
			outcome(t, b, true)
			require.Equal(t, breaker.Closed, b.State())
			outcome(t, b, false)
			require.Equal(t, breaker.Open, b.State())
		},
	},
	{
		name:    "resilience4j slidingWindowType: the last 100 calls, or a time",
		differs: "ours is a time: the last 100 calls of a shop that sleeps at night are of yesterday",
		cfg:     breaker.Config{Timeout: breaker.NoTimeout, Window: time.Minute},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, make([]bool, 9)...)
			time.Sleep(53 * time.Second)
			require.Equal(t, 9, b.Stats().WindowFailures)
			time.Sleep(7 * time.Second)
			require.Zero(t, b.Stats().WindowFailures)
		},
	},
	{
		name: "resilience4j slowCallDurationThreshold and slowCallRateThreshold: opens at a share of calls that take longer, if they succeed too",
		cfg:  breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 4, SlowCall: time.Second},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			for _, d := range []time.Duration{time.Second, time.Second, time.Second + 1} {
				require.NoError(t, b.Do(t.Context(), sleeps(d)))
				require.Equal(t, breaker.Closed, b.State())
			}
			require.NoError(t, b.Do(t.Context(), sleeps(2*time.Second)))
			require.Equal(t, breaker.Open, b.State(), "2 of 4")
			require.ErrorContains(t, b.Stats().Cause, "slow")
		},
	},
	{
		name: "resilience4j slow calls in half-open: a trial that is slow does not close",
		cfg:  breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 1, SlowCall: time.Second},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			due(trip(t, b))
			require.NoError(t, b.Do(t.Context(), sleeps(2*time.Second)))
			require.Equal(t, breaker.Open, b.State())
		},
	},
	{
		name:    "resilience4j permittedNumberOfCallsInHalfOpenState 10: so many calls are let in, and their rates decide",
		differs: "ours lets in one (Trials), closes after TrialSuccesses, and opens at the first failure: a dependency that comes up is not sent ten calls to fail",
		cfg:     breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 1, Trials: 3, TrialSuccesses: 4},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			due(trip(t, b))
			p, q, r := begin(t, b), begin(t, b), begin(t, b)
			rejected(t, b)
			require.NoError(t, p.finish(nil))
			require.NoError(t, q.finish(nil))
			require.NoError(t, r.finish(nil))
			require.Equal(t, breaker.HalfOpen, b.State(), "3 of 4")
			p, q = begin(t, b), begin(t, b)
			require.Error(t, p.finish(errDown))
			require.Equal(t, breaker.Open, b.State())
			require.NoError(t, q.finish(nil))
			require.Equal(t, breaker.Open, b.State())
		},
	},
	{
		name:    "resilience4j maxWaitDurationInHalfOpenState 0: waits for all trials, for ever if one hangs (its issue 903)",
		differs: "ours gives each trial a lease: the next caller is let in when it is over",
		cfg:     hairTrigger,
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			due(trip(t, b))
			p := begin(t, b)
			time.Sleep(31 * time.Second) // TrialLease and MaxWait, without a timeout
			require.NoError(t, b.Do(t.Context(), succeed))
			require.Equal(t, breaker.Closed, b.State())
			require.Error(t, p.finish(errDown))
			require.Equal(t, breaker.Closed, b.State())
		},
	},
	{
		name: "resilience4j automaticTransitionFromOpenToHalfOpenEnabled false: the next call is what finds the time over",
		cfg:  hairTrigger,
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			open := trip(t, b)
			time.Sleep(time.Hour)
			require.Equal(t, breaker.Open, b.State())
			require.Equal(t, open.NextTrial, b.Stats().NextTrial, "which says that it is over")
			require.NoError(t, b.Do(t.Context(), succeed))
		},
	},
	{
		name: "resilience4j recordExceptions and ignoreExceptions: one names failures, the other what counts neither way",
		cfg: breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 2, Classify: func(err error) breaker.Class {
			if err == errDown { //nolint:errorlint // a test's own
				return breaker.Ignored
			}
			return breaker.Failure
		}},
		run: func(t *testing.T, b *breaker.Breaker) {
			t.Helper()
			outcome(t, b, make([]bool, 100)...)
			require.Equal(t, breaker.Closed, b.State())
			for range 2 {
				_ = b.Do(t.Context(), func(context.Context) error { return &breaker.StatusError{Code: 404} })
			}
			require.Equal(t, breaker.Open, b.State())
		},
	},
}

// hairTrigger opens at the first failure, for 30 s.
var hairTrigger = breaker.Config{Timeout: breaker.NoTimeout, MinCalls: 1}

func sleeps(d time.Duration) func(context.Context) error {
	return func(context.Context) error { time.Sleep(d); return nil }
}

// outcome makes calls that succeed or not.
func outcome(t *testing.T, b *breaker.Breaker, ok ...bool) {
	t.Helper()
	for _, ok := range ok {
		if ok {
			require.NoError(t, b.Do(t.Context(), succeed))
		} else {
			require.Equal(t, errDown, b.Do(t.Context(), fail))
		}
	}
}

func TestDocumentedBehavioursOfOpossumAndResilience4j(t *testing.T) {
	t.Parallel()
	for _, c := range references {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.differs != "" {
				t.Log("differs: " + c.differs)
			}
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, c.cfg)
				c.run(t, b)
				time.Sleep(2 * time.Hour) // what was left alone ends
			})
		})
	}
}
