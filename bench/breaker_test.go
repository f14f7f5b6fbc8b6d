package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

//nolint:paralleltest // it measures, if little, and would disturb those that measure beside it
func TestBreakerRuns(t *testing.T) {
	var out bytes.Buffer
	b := &breakerBench{rep: &report{out: &out, json: true}, rivals: rivals, total: time.Millisecond}
	require.NoError(t, b.run(t.Context()), &out)
	assert.Equal(t, 2*6+3+2*6+2*4+1, validRows(t, &out))
}

// spoil is a rival that does something wrong in every call of the dependency, or of its own.
func spoil(rv rival, how func(call func() (int64, error), dep dependency) func() (int64, error)) rival {
	open := rv.open
	rv.open = func(ctx context.Context, timeout time.Duration) (func(dependency) func() (int64, error), error) {
		protect, err := open(ctx, timeout)
		return func(dep dependency) func() (int64, error) { return how(protect(dep), dep) }, err
	}
	return rv
}

func TestCheatingBreakerIsInvalid(t *testing.T) {
	t.Parallel()
	type call = func() (int64, error)
	closed, timeout, open := breakerCase{name: "closed"}, breakerCase{name: "timeout", timeout: rivalTimeout}, breakerCase{name: "open", open: true}
	for what, w := range map[string]struct {
		breakerCase
		how  func(do call, dep dependency) call
		want string
	}{
		"calls nobody": {closed, func(do call, _ dependency) call {
			var last int64
			return func() (int64, error) {
				if last++; last%64 == 0 {
					return last * factor, nil
				}
				return do()
			}
		}, "ran the dependency"},
		"calls twice": {closed, func(do call, dep dependency) call {
			n := 0
			return func() (int64, error) {
				if n++; n%64 == 0 {
					_, _ = dep(t.Context())
				}
				return do()
			}
		}, "ran the dependency"},
		"gives another's value": {closed, func(do call, _ dependency) call {
			var last int64
			return func() (int64, error) {
				v, err := do()
				last, v = v, last
				return v, err
			}
		}, "gave back a wrong value"},
		"makes errors": {closed, func(do call, _ dependency) call {
			n := 0
			return func() (int64, error) {
				v, err := do()
				if n++; n > failuresToTrip+1 && n%64 == 0 {
					err = errDown
				}
				return v, err
			}
		}, "calls with an error"},
		"never opens": {closed, func(_ call, dep dependency) call {
			return func() (int64, error) { return dep(t.Context()) }
		}, "after 20 failures answered with"},
		"has no timeout": {timeout, func(do call, dep dependency) call {
			return func() (int64, error) {
				if v, err := dep(t.Context()); err == nil {
					return v, nil
				}
				return do()
			}
		}, "did not end a call after 10ms"},
		"calls while it is open": {open, func(do call, dep dependency) call {
			n := 0
			return func() (int64, error) {
				if n++; n%64 == 0 {
					_, _ = dep(t.Context())
				}
				return do()
			}
		}, "ran the dependency"},
		"rejects in its own way": {open, func(do call, _ dependency) call {
			n := 0
			return func() (int64, error) {
				v, err := do()
				if n++; n%64 == 0 {
					err = errors.New("no")
				}
				return v, err
			}
		}, "calls otherwise than with"},
		"does nothing wrong": {closed, func(do call, _ dependency) call { return do }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for _, rv := range rivals(w.breakerCase) {
				for _, callers := range []int{1, 2} {
					trial, err := newBreakerTrial(t.Context(), spoil(rv, w.how), w.breakerCase, callers)
					require.NoError(t, err)
					trial.turn()
					if w.want == "" {
						require.NoError(t, trial.problem())
						continue
					}
					require.ErrorContains(t, trial.problem(), w.want, rv.name)
				}
			}
		})
	}
}
