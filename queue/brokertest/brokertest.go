// Package brokertest checks engines of package queue: each must behave as QUEUE-MODEL says.
//
//	func TestBroker(t *testing.T) {
//		brokertest.Run(t, brokertest.Config{
//			New:    func(testing.TB) brokertest.Engine { return new(queue.Memory) },
//			Bubble: synctest.Test, // nil for engines behind a network
//		})
//	}
//
// The suite plays random sequences of operations on the engine and on a plain model of the queue, compares
// answers and state after each, and shrinks a sequence that differs to the shortest one that still does. Beside
// that it has directed cases, which are named for what they check.
package brokertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// Engine is what the suite checks.
type Engine interface {
	queue.Broker
	queue.Operator
}

// Config tells the suite about an engine. New is required.
type Config struct {
	// New gives an engine that holds nothing in the queues whose names begin with "brokertest". It is called once for each
	// check and sequence, in the bubble if there is one; it may be the same engine each time, as each uses queues of its own.
	New func(t testing.TB) Engine

	// Bubble runs a check with virtual time; synctest.Test for an engine in the process. nil means real time.
	Bubble func(t *testing.T, f func(*testing.T))

	// Sleep lets d pass for the engine, by its own clock: minutes and hours, so that an engine with a real clock
	// needs one that can be put forward. nil means time.Sleep, which is right in a bubble.
	Sleep func(d time.Duration)

	// Sequences is how many random sequences are played, Steps how long each is; 0 means 200 of 120.
	Sequences, Steps int
	// Seed of the sequences; 0 draws one, which a failure names.
	Seed uint64
}

var names atomic.Int64

// Run checks an engine. Every check is a subtest.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if cfg.Bubble == nil {
		cfg.Bubble = func(t *testing.T, f func(*testing.T)) { t.Helper(); f(t) }
	}
	if cfg.Sleep == nil {
		cfg.Sleep = time.Sleep
	}
	if cfg.Sequences == 0 {
		cfg.Sequences = 200
	}
	if cfg.Steps == 0 {
		cfg.Steps = 120
	}
	if cfg.Seed == 0 {
		cfg.Seed = uint64(time.Now().UnixNano()) //nolint:gosec // any seed will do
	}
	t.Run("RandomOperationsAsTheModel", func(t *testing.T) {
		t.Parallel()
		for i := range cfg.Sequences {
			seed := cfg.Seed + uint64(i) //nolint:gosec // counts
			var err error
			steps := sequence(seed, cfg.Steps)
			try := func(steps []step) (err error) {
				cfg.Bubble(t, func(t *testing.T) { //nolint:thelper // not one
					err = newWorld(cfg.New(t), newName(), cfg.Sleep).play(t.Context(), steps)
				})
				return err
			}
			if err = try(steps); err != nil {
				steps, err = shrink(steps, try)
				t.Fatalf("Config.Seed %d, shrunk to %d steps: %v", seed, len(steps), err)
			}
		}
	})
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg.Bubble(t, func(t *testing.T) { //nolint:thelper // not one
				if err := c.run(t.Context(), &rig{engine: cfg.New(t), name: newName(), sleep: cfg.Sleep}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func newName() string { return "brokertest" + strconv.FormatInt(names.Add(1), 10) }

func sequence(seed uint64, n int) []step {
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's sequence
	steps := make([]step, n)
	for i := range steps {
		steps[i] = step(rng.Uint64())
	}
	return steps
}

// check is a directed case.
type check struct {
	name string
	run  func(ctx context.Context, r *rig) error
}

// rig is an engine and one of its queues, with short ways to call it.
type rig struct {
	engine Engine
	name   string
	sleep  func(time.Duration)
	number uint64
	ids    int
}

// failed is an error of a check.
func failed(format string, args ...any) error { return fmt.Errorf(format, args...) } //nolint:goerr113 // a test's message

var checks []check
