package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// pickUp measures how long a job of a trickle waits for an otherwise idle worker: from the return of its Enqueue until its handler
// starts, which may be a little before.
type pickUp struct {
	system system
	dedupe bool // each job has a key that no other has
	rate   int  // jobs a second

	p50, p99 []float64 // milliseconds, by round
	sent     int
	problem  error
}

// round sends so many jobs while a worker runs.
func (p *pickUp) round(ctx context.Context, jobs int, stall time.Duration) error {
	var ran, wrong atomic.Int64
	started, returned := make([]atomic.Int64, jobs), make([]int64, jobs) // when, in nanoseconds since start
	all := make(chan struct{})
	start := time.Now()
	take := func(body []byte) {
		now := int64(time.Since(start))
		if len(body) != jobBytes {
			wrong.Add(1)
			return
		}
		n := int64(binary.BigEndian.Uint64(body[8:])) - int64(p.sent) //nolint:gosec // a count
		if n < 0 || n >= int64(jobs) || !started[n].CompareAndSwap(0, now) {
			wrong.Add(1)
		} else if ran.Add(1) == int64(jobs) {
			close(all)
		}
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.system.work(running, take) }()
	pause(ctx, calm)

	sending := p.send(ctx, start, returned)
	if sending == nil {
		select {
		case <-all:
		case <-time.After(stall):
		case <-ctx.Done():
		}
	}
	stop()
	if err := errors.Join(sending, <-ended, ctx.Err()); err != nil {
		return err
	}
	p.sent += jobs
	if p.problem == nil && (ran.Load() != int64(jobs) || wrong.Load() > 0) {
		p.problem = fmt.Errorf("%d jobs ran of %d, and %d others or again", ran.Load(), jobs, wrong.Load())
	}
	waits := make([]float64, jobs)
	for i := range waits {
		waits[i] = max(0, float64(started[i].Load()-returned[i])/float64(time.Millisecond))
	}
	p.p50, p.p99 = append(p.p50, quantile(waits, 0.5)), append(p.p99, quantile(waits, 0.99))
	return nil
}

// send enqueues the jobs of a round at the rate, each with a key of its own.
func (p *pickUp) send(ctx context.Context, start time.Time, returned []int64) error {
	const shops = 100
	names := laneNames(len(returned), shops)
	body := payload(jobBytes)
	tick := time.NewTicker(time.Second / time.Duration(p.rate))
	defer tick.Stop()
	for i := range returned {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		stamp(body, i, int64(p.sent+i))
		job := queue.Job{Kind: topic, Payload: body, Group: names[i].group, Key: names[i].key}
		if p.dedupe {
			job.DedupeKey = dedupeKey(i, int64(p.sent+i))
		}
		if n, err := p.system.enqueue(ctx, job); err != nil {
			return err
		} else if n > 0 {
			return errors.New("a job was taken for another that came before")
		}
		returned[i] = int64(time.Since(start))
	}
	return nil
}

// quantile sorts values. It is one of them: so many are not above it.
func quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(0, int(math.Ceil(share*float64(len(values))))-1)]
}
