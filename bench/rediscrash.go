package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/queue"
)

// crashes are how long it took until a job ran again whose worker was cut off, each time.
type crashes struct {
	mu      sync.Mutex
	took    []float64 // seconds
	problem error
}

// crash cuts workers off in the middle of a job: where another one is alive, and where the next one starts when the lease has just ended.
// All times are at once, since nothing but leases has to be waited for.
func (b *redisBench) crash(ctx context.Context) error {
	var alive, only crashes
	failed := make(chan error, 2*b.sizes.rounds)
	for i := range b.sizes.rounds {
		a, s, o, n := b.client(), b.client(), b.client(), b.client()
		go func() { failed <- b.crashOne(ctx, &alive, fmt.Sprintf("alive-%d", i), a, s, 0) }()
		go func() { failed <- b.crashOne(ctx, &only, fmt.Sprintf("only-%d", i), o, n, b.sizes.lease+calm) }()
	}
	var err error
	for range 2 * b.sizes.rounds {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		return err
	}
	lease := b.sizes.lease
	name := fmt.Sprintf("crash, lease %v, ", lease)
	b.add(name+"another alive vs limit", "s", quantile(alive.took, 1), (lease + takeover).Seconds(), want{"<=", 1}, alive.problem)
	b.add(name+"the only one vs limit", "s", quantile(only.took, 1), (2*lease + takeover).Seconds(), want{"<=", 1}, only.problem)
	return nil
}

// crashOne cuts one worker off while it has the first of two jobs of a lane. The other worker is there by then if it has no delay.
func (b *redisBench) crashOne(ctx context.Context, c *crashes, space string, first, second *redis.Client, delay time.Duration) error {
	var mu sync.Mutex
	var runs []string // by whom, and the number of the job
	var at []time.Time
	ran := make(chan struct{}, 16)
	start := func(by string, engine queue.Broker, hold <-chan struct{}) (stop func() error, err error) {
		q, err := queue.New(engine, queue.Config{AllowVolatile: true})
		if err != nil {
			return nil, err
		}
		mux := queue.NewMux()
		mux.Handle(topic, func(_ context.Context, job queue.Job) error {
			mu.Lock()
			runs, at = append(runs, fmt.Sprintf("%s %d", by, binary.BigEndian.Uint64(job.Payload[8:]))), append(at, time.Now())
			mu.Unlock()
			ran <- struct{}{}
			<-hold
			return nil
		})
		running, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() {
			ended <- q.Run(running, mux, queue.WorkerConfig{Lease: b.sizes.lease, Drain: time.Millisecond})
		}()
		return func() error { cancel(); return <-ended }, nil
	}
	wait := func(runs int) (problem error) {
		for range runs {
			select {
			case <-ran:
			case <-time.After(2*b.sizes.lease + takeover + b.sizes.stall):
				return errors.New("the job of a worker that was cut off did not run again")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}

	alive := b.open(second, space)
	l := makeLoad(laneNames(1, 1), 1, 2)
	l.dedupe = true
	if err := l.over(alive); err != nil {
		return err
	}
	if err := l.send(ctx, 2, nil)(); err != nil {
		return err
	}
	hold, open := make(chan struct{}), make(chan struct{})
	close(open)
	stopFirst, err := start("first", b.open(first, space), hold)
	if err != nil {
		return err
	}
	problem := wait(1)
	var stopSecond func() error
	if delay == 0 {
		stopSecond, err = start("second", alive, open)
	}
	pause(ctx, calm)
	err = errors.Join(err, first.Close()) // to the server and to all others that process is dead now
	if err != nil {
		return err
	}
	cut := time.Now()
	if delay > 0 {
		pause(ctx, delay)
		if stopSecond, err = start("second", alive, open); err != nil {
			return err
		}
	}
	problem = errors.Join(problem, wait(2))
	pause(ctx, calm) // for what should not run
	close(hold)
	err = errors.Join(stopSecond(), stopFirst(), ctx.Err())
	if err != nil {
		return err
	}
	problem = errors.Join(problem, l.system.holds(ctx, 0))
	if want := []string{"first 1", "second 1", "second 2"}; !slices.Equal(runs, want) {
		problem = errors.Join(problem, fmt.Errorf("the jobs ran as %q; want %q", runs, want))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = errors.Join(c.problem, problem)
	if problem == nil {
		c.took = append(c.took, at[1].Sub(cut).Seconds())
	}
	return nil
}
