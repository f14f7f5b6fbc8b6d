package main

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/timeout"
	gobreaker1 "github.com/sony/gobreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/breakwater-go/breakwater/breaker"
)

const (
	rivalCall       = "Call"
	rivalDo         = "Do"
	rivalGuard      = "Guard"
	rivalGobreaker1 = "gobreaker v1"
	rivalGobreaker2 = "gobreaker v2"
	rivalByHand     = "goroutine by hand"
	rivalFailsafe   = "failsafe"
	rivalPermits    = "failsafe permits"

	// All breakers are tuned alike, as Config's defaults are, but for the time open, which no run outlasts.
	rivalTimeout = 3 * time.Second
	rivalWindow  = 10 * time.Second
	rivalBuckets = 10
	rivalCalls   = 10
	rivalRate    = 0.5
	rivalOpen    = time.Hour
)

// dependency is what is called.
type dependency func(ctx context.Context) (int64, error)

// rival protects a dependency.
type rival struct {
	name string
	// open makes one breaker, and returns what makes calls through it, for one goroutine each. A timeout of 0 means none.
	open      func(ctx context.Context, timeout time.Duration) (protect func(dependency) func() (int64, error), err error)
	rejection error // of an open one
}

// rivals lists ours and those that they are compared with.
func rivals(c breakerCase) []rival {
	ours := []rival{
		{rivalCall, ours(callThrough), breaker.ErrOpen},
		{rivalDo, ours(doThrough), breaker.ErrOpen},
		{rivalGuard, ours(guardThrough), breaker.ErrOpen},
	}
	peers := []rival{
		{rivalGobreaker2, openGobreaker2, gobreaker.ErrOpenState},
		{rivalFailsafe, openFailsafe, circuitbreaker.ErrOpen},
	}
	switch {
	case c.open:
		ours = ours[:1]
		fallthrough
	case c.timeout == 0:
		peers = append(peers, rival{rivalGobreaker1, openGobreaker1, gobreaker1.ErrOpenState}, rival{rivalPermits, openPermits, circuitbreaker.ErrOpen})
	default:
		peers = append(peers, rival{rivalByHand, openByHand, gobreaker.ErrOpenState})
	}
	return append(ours, peers...)
}

// ours opens a Breaker whose calls are made by through.
func ours(through func(context.Context, *breaker.Breaker, dependency) func() (int64, error)) func(context.Context, time.Duration) (func(dependency) func() (int64, error), error) {
	return func(ctx context.Context, timeout time.Duration) (func(dependency) func() (int64, error), error) {
		cfg := breaker.Config{Timeout: timeout, OpenFor: rivalOpen}
		if timeout == 0 {
			cfg.Timeout = breaker.NoTimeout
		}
		b, err := breaker.New("carrier", cfg)
		return func(dep dependency) func() (int64, error) { return through(ctx, b, dep) }, err
	}
}

func callThrough(ctx context.Context, b *breaker.Breaker, dep dependency) func() (int64, error) {
	return func() (int64, error) { return breaker.Call(ctx, b, dep) }
}

func doThrough(ctx context.Context, b *breaker.Breaker, dep dependency) func() (int64, error) {
	var v int64
	call := func(ctx context.Context) error {
		got, err := dep(ctx)
		if err == nil {
			v = got
		}
		return err
	}
	return func() (int64, error) {
		if err := b.Do(ctx, call); err != nil { // the call may still be running
			return 0, err
		}
		return v, nil
	}
}

func guardThrough(ctx context.Context, b *breaker.Breaker, dep dependency) func() (int64, error) {
	var v int64
	handler := breaker.Guard(b, func(ctx context.Context, out *int64) (err error) {
		*out, err = dep(ctx)
		return err
	})
	return func() (int64, error) {
		v = 0
		err := handler(ctx, &v)
		return v, err
	}
}

func gobreaker2Settings() gobreaker.Settings {
	return gobreaker.Settings{
		Name: "carrier", Interval: rivalWindow, BucketPeriod: rivalWindow / rivalBuckets, Timeout: rivalOpen,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			return n.Requests >= rivalCalls && float64(n.TotalFailures) >= rivalRate*float64(n.Requests)
		},
	}
}

// openGobreaker2 has a context with a timeout, where there is one, as its users write it.
func openGobreaker2(ctx context.Context, timeout time.Duration) (func(dependency) func() (int64, error), error) {
	cb := gobreaker.NewCircuitBreaker[int64](gobreaker2Settings())
	return func(dep dependency) func() (int64, error) {
		call := func() (int64, error) { return dep(ctx) }
		if timeout > 0 {
			call = func() (int64, error) {
				ctx, cancel := context.WithTimeout(ctx, timeout)
				defer cancel()
				return dep(ctx)
			}
		}
		return func() (int64, error) { return cb.Execute(call) }
	}, nil
}

// openByHand does not wait for a call that does not return after its timeout.
func openByHand(ctx context.Context, timeout time.Duration) (func(dependency) func() (int64, error), error) {
	type result struct {
		v   int64
		err error
	}
	cb := gobreaker.NewCircuitBreaker[int64](gobreaker2Settings())
	return func(dep dependency) func() (int64, error) {
		call := func() (int64, error) {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			done := make(chan result, 1)
			go func() {
				v, err := dep(ctx)
				done <- result{v, err}
			}()
			select {
			case r := <-done:
				return r.v, r.err
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		return func() (int64, error) { return cb.Execute(call) }
	}, nil
}

// openGobreaker1 has no rolling window: it forgets all at its end.
func openGobreaker1(ctx context.Context, _ time.Duration) (func(dependency) func() (int64, error), error) {
	cb := gobreaker1.NewCircuitBreaker(gobreaker1.Settings{
		Name: "carrier", Interval: rivalWindow, Timeout: rivalOpen,
		ReadyToTrip: func(n gobreaker1.Counts) bool {
			return n.Requests >= rivalCalls && float64(n.TotalFailures) >= rivalRate*float64(n.Requests)
		},
	})
	return func(dep dependency) func() (int64, error) {
		call := func() (any, error) { return dep(ctx) }
		return func() (int64, error) {
			v, err := cb.Execute(call)
			n, _ := v.(int64)
			return n, err
		}
	}, nil
}

func newFailsafe() circuitbreaker.CircuitBreaker[int64] {
	return circuitbreaker.NewBuilder[int64]().WithFailureRateThreshold(rivalRate, rivalCalls, rivalWindow).WithDelay(rivalOpen).Build()
}

func openFailsafe(ctx context.Context, limit time.Duration) (func(dependency) func() (int64, error), error) {
	if limit == 0 {
		executor := failsafe.With(newFailsafe())
		return func(dep dependency) func() (int64, error) {
			call := func() (int64, error) { return dep(ctx) }
			return func() (int64, error) { return executor.Get(call) }
		}, nil
	}
	executor := failsafe.With(newFailsafe(), timeout.New[int64](limit))
	return func(dep dependency) func() (int64, error) {
		call := func(exec failsafe.Execution[int64]) (int64, error) { return dep(exec.Context()) }
		return func() (int64, error) { return executor.WithContext(ctx).GetWithExecution(call) }
	}, nil
}

// openPermits is a failsafe breaker without its executor.
func openPermits(ctx context.Context, _ time.Duration) (func(dependency) func() (int64, error), error) {
	cb := newFailsafe()
	return func(dep dependency) func() (int64, error) {
		return func() (int64, error) {
			if !cb.TryAcquirePermit() {
				return 0, circuitbreaker.ErrOpen
			}
			v, err := dep(ctx)
			if err != nil {
				cb.RecordError(err)
			} else {
				cb.RecordSuccess()
			}
			return v, err
		}
	}, nil
}
