// Package brokertest checks engines of package queue: each must behave as the model does that docs/queue.md
// describes.
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
	"cmp"
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

	// Sleep lets d pass for an engine that New gave, by its own clock: minutes and hours, so that an engine with a real clock
	// needs one that can be put forward. nil means time.Sleep, which is right in a bubble.
	Sleep func(e Engine, d time.Duration)

	// Sequences is how many random sequences are played, Steps how long each is; 0 means 100 of 120.
	Sequences, Steps int
	// Seed of the sequences; 0 draws one, which a failure names.
	Seed uint64
}

var names atomic.Int64

// Run checks an engine. Every check is a subtest. Of an engine with partitions, one is checked as if it were all (the
// suite finds groups that live in it), and then what concerns them all.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if cfg.Bubble == nil {
		cfg.Bubble = func(t *testing.T, f func(*testing.T)) { t.Helper(); f(t) }
	}
	if cfg.Sleep == nil {
		cfg.Sleep = func(_ Engine, d time.Duration) { time.Sleep(d) }
	}
	cfg.Sequences = cmp.Or(cfg.Sequences, 100)
	cfg.Steps = cmp.Or(cfg.Steps, 120)
	cfg.Seed = cmp.Or(cfg.Seed, uint64(time.Now().UnixNano()))
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := cfg.check(t, c); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("RandomOperationsAsTheModel", func(t *testing.T) {
		t.Parallel()
		for i := range cfg.Sequences {
			seed := cfg.Seed + uint64(i)
			if err := cfg.random(t, seed); err != nil {
				t.Fatalf("Config.Seed %d: %v", seed, err)
			}
		}
	})
}

// engine is a new one, or the last partition of one that has several, and how time passes for it.
func (cfg *Config) engine(t *testing.T, parted bool) (Engine, func(time.Duration)) {
	t.Helper()
	e := cfg.New(t)
	sleep := func(d time.Duration) { cfg.Sleep(e, d) }
	if n := e.Info().Partitions; n > 1 && !parted {
		return newHomed(e, n-1), sleep
	}
	return e, sleep
}

// check runs one directed case.
func (cfg *Config) check(t *testing.T, c check) (err error) {
	t.Helper()
	cfg.Bubble(t, func(t *testing.T) { //nolint:thelper // not one
		e, sleep := cfg.engine(t, c.parted)
		err = c.run(t.Context(), &rig{engine: e, name: newName(), sleep: sleep})
	})
	return err
}

// random plays one sequence, and if it fails the shortest part of it that does.
func (cfg *Config) random(t *testing.T, seed uint64) error {
	t.Helper()
	play := func(steps []step) (err error) {
		cfg.Bubble(t, func(t *testing.T) { //nolint:thelper // not one
			e, sleep := cfg.engine(t, false)
			err = newWorld(e, newName(), sleep).play(t.Context(), steps)
		})
		return err
	}
	steps := sequence(seed, cfg.Steps)
	for {
		began := time.Now()
		err := play(steps)
		if err == nil {
			return nil
		}
		if time.Since(began) < unit/8 {
			break
		}
		steps = steps[:len(steps)*2/3] // the clock of an engine that has its own went on meanwhile: that proves nothing
	}
	steps, err := shrink(steps, play)
	if err != nil {
		return fmt.Errorf("shrunk to %d steps: %w", len(steps), err)
	}
	return nil
}

func newName() string { return "brokertest" + strconv.FormatInt(names.Add(1), 10) }

func sequence(seed uint64, n int) []step {
	rng := rand.New(rand.NewPCG(seed, 0))
	steps := make([]step, n)
	for i := range steps {
		steps[i] = step(rng.Uint64())
	}
	return steps
}

// check is a directed case.
type check struct {
	name   string
	run    func(ctx context.Context, r *rig) error
	parted bool // it is about all partitions of an engine
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
func failed(format string, args ...any) error { return fmt.Errorf(format, args...) }
