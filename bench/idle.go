package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	slots = 64                     // of a worker at its defaults
	calm  = 100 * time.Millisecond // for what has just ended to be over
)

// idle is what a worker does while there is nothing for it to do, and what shops cost it that have nothing but
// jobs for later.
func (b *queueBench) idle(ctx context.Context) error {
	one, err := b.watch(ctx, 1, 0)
	if err != nil {
		return err
	}
	many, err := b.watch(ctx, b.sizes.shops, b.sizes.idle)
	if err != nil {
		return err
	}
	problem := errors.Join(one.problem, many.problem)
	looks := math.Ceil(float64(b.sizes.idle) / float64(backstop))
	b.add(fmt.Sprintf("idle %v, calls vs backstop", b.sizes.idle), "calls", float64(many.calls), looks, want{"<=", 1}, problem)
	b.add(fmt.Sprintf("idle, goroutines of %d shops vs 1", b.sizes.shops), "", float64(many.goroutines), float64(one.goroutines), want{"<=", 1}, problem)
	b.add(fmt.Sprintf("idle, timers of %d shops vs 1", b.sizes.shops), "", float64(many.timers), float64(one.timers), want{"<=", 1}, problem)
	return nil
}

// quiet is what was seen of an idle worker.
type quiet struct {
	calls              int64 // of the broker
	goroutines, timers int   // of worker and engine
	problem            error
}

// watch runs a worker on the queue of so many shops, each of which is parked, with one job that is scheduled and
// one that is snoozed, and counts for d what it does.
func (b *queueBench) watch(ctx context.Context, shops int, d time.Duration) (seen quiet, err error) {
	// Timers can be found by where they were allocated, if all of them are profiled.
	defer func(rate int) { runtime.MemProfileRate = rate }(runtime.MemProfileRate)
	runtime.MemProfileRate = 1
	pause(ctx, calm) // goroutines of what ran before may still be on their way out
	goroutines, timers := runtime.NumGoroutine(), timersInUse()

	engine := &counting{backend: b.open()}
	q, err := queue.New(engine, queue.Config{AllowVolatile: true})
	if err != nil {
		return seen, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	awake := make(chan struct{}, 1)
	mux := queue.NewMux()
	mux.Handle(topic, func(context.Context, queue.Job) error { return later{} })
	mux.Handle("warm", together(slots, b.sizes.stall))
	mux.Handle("probe", func(context.Context, queue.Job) error {
		awake <- struct{}{}
		return nil
	})
	go func() { ended <- q.Run(running, mux, queue.WorkerConfig{}) }()
	// Whatever a worker keeps for each of its slots is there from now on, for one shop as for many.
	if _, err := q.Enqueue(ctx, slices.Repeat([]queue.Job{{Kind: "warm"}}, slots)...); err != nil {
		return seen, err
	}
	if seen.problem, err = b.settles(ctx, q, queue.Stats{}); err != nil {
		return seen, err
	}
	names := laneNames(shops, shops)
	for i := range names {
		job := queue.Job{Kind: topic, Group: names[i].group, Key: names[i].key}
		scheduled := job
		scheduled.Delay = farAway
		if _, err := q.Enqueue(ctx, job, scheduled); err != nil {
			return seen, err
		}
	}
	quiet := queue.Stats{Jobs: shops, Waiting: shops, Scheduled: shops, Parked: shops}
	problem, err := b.settles(ctx, q, quiet)
	if err != nil {
		return seen, err
	}
	seen.problem = errors.Join(seen.problem, problem)

	seen.goroutines, seen.timers = runtime.NumGoroutine()-goroutines, timersInUse()-timers
	before := engine.calls.Load()
	pause(ctx, d)
	seen.calls = engine.calls.Load() - before

	// One that sleeps too well is not idle.
	if _, err := q.Enqueue(ctx, queue.Job{Kind: "probe"}); err != nil {
		return seen, err
	}
	select {
	case <-awake:
	case <-time.After(b.sizes.stall):
		seen.problem = errors.Join(seen.problem, errors.New("the idle worker did not take a job"))
	case <-ctx.Done():
	}
	stop()
	if err := <-ended; err != nil {
		return seen, err
	}
	stats, err := q.Stats(ctx)
	if err != nil {
		return seen, err
	}
	seen.problem = errors.Join(seen.problem, checkStats(stats, quiet))
	return seen, ctx.Err()
}

// settles waits until the queue holds what it should.
func (b *queueBench) settles(ctx context.Context, q *queue.Queue, want queue.Stats) (problem, err error) {
	for start := time.Now(); ; pause(ctx, 10*time.Millisecond) {
		stats, err := q.Stats(ctx)
		if err != nil {
			return nil, err
		}
		if problem = checkStats(stats, want); problem == nil || time.Since(start) > b.sizes.stall {
			pause(ctx, calm) // the worker looks once more
			return problem, ctx.Err()
		}
	}
}

// together is a handler that returns when n of it run, or after a time.
func together(n int64, atMost time.Duration) queue.Handler {
	var running atomic.Int64
	all := make(chan struct{})
	return func(context.Context, queue.Job) error {
		if running.Add(1) == n {
			close(all)
		}
		select {
		case <-all:
		case <-time.After(atMost):
		}
		return nil
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// later puts a job off, and its whole shop.
type later struct{}

func (later) Error() string             { return "later" }
func (later) RetryAfter() time.Duration { return farAway }
func (later) ParkGroup() bool           { return true }

// counting counts the calls of a broker by a worker.
type counting struct {
	backend
	calls atomic.Int64
}

func (c *counting) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	c.calls.Add(1)
	return c.backend.Claim(ctx, name, call)
}

func (c *counting) Extend(ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
	c.calls.Add(1)
	return c.backend.Extend(ctx, name, beat)
}

func (c *counting) Wait(ctx context.Context, name string, partition int) error {
	c.calls.Add(1)
	return c.backend.Wait(ctx, name, partition)
}

// timersInUse counts the timers that were made while everything was profiled.
func timersInUse() int {
	runtime.GC()
	runtime.GC() // the profile is that of the collection before
	records := make([]runtime.MemProfileRecord, 1000)
	n, ok := runtime.MemProfile(records, false)
	for !ok {
		records = make([]runtime.MemProfileRecord, 2*n)
		n, ok = runtime.MemProfile(records, false)
	}
	timers := int64(0)
	for _, r := range records[:n] {
		frames := runtime.CallersFrames(r.Stack())
		for more := true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if slices.Contains([]string{"time.NewTimer", "time.NewTicker", "time.AfterFunc"}, f.Function) {
				timers += r.InUseObjects()
				break
			}
		}
	}
	return int(timers)
}
