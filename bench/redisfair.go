package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	fairSlots  = 50
	crowdLanes = 1000
	lateJobs   = 3 // of each shop
)

// turns counts claims of all processes, and sees after how many of them the shops that came late have had all of theirs.
type turns struct {
	claims, late atomic.Int64
	last         atomic.Int64 // the claim of the last of them
	jobs         int64        // that they have
}

// turnsBroker is the engine of one process.
type turnsBroker struct {
	backend
	turns *turns
}

func (t turnsBroker) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	claimed, err := t.backend.Claim(ctx, name, call)
	for i := range claimed.Jobs {
		n := t.turns.claims.Add(1)
		if isLate(claimed.Jobs[i].Job.Group) && t.turns.late.Add(1) == t.turns.jobs {
			t.turns.last.Store(n)
		}
	}
	return claimed, err
}

const latePrefix = "late-"

func isLate(group string) bool { return strings.HasPrefix(group, latePrefix) }

// fairness is how soon shops have their turn whose few jobs come when one shop has very many.
func (b *redisBench) fairness(ctx context.Context) error {
	for _, processes := range []int{1, 3} {
		crowd := makeLoad(laneNames(crowdLanes, 1), batchJobs, batchJobs)
		crowd.dedupe = true
		space := fmt.Sprintf("fairness-%d", processes)
		if err := crowd.over(b.open(b.client(), space)); err != nil {
			return err
		}
		var worst float64
		var problem error
		for round := range b.sizes.rounds {
			behind := crowd.total - crowd.tally.ran.Load()
			more := (int64(b.sizes.crowd) - behind + batchJobs*batchJobs - 1) / (batchJobs * batchJobs) * batchJobs * batchJobs
			if err := crowd.send(ctx, int(more), nil)(); err != nil {
				return err
			}
			claims, wrong, err := b.lateShops(ctx, crowd, space, processes, round)
			if err != nil {
				return err
			}
			worst, problem = max(worst, float64(claims)), errors.Join(problem, wrong)
		}
		b.add(fmt.Sprintf("%d jobs behind a crowd, %d processes vs limit", b.sizes.late*lateJobs, processes), "claims", worst, fairClaims, want{"<=", 1}, problem)
	}
	return nil
}

// lateShops has the shops come while workers are busy with the crowd, and counts the claims until all of their jobs are claimed.
func (b *redisBench) lateShops(ctx context.Context, crowd *load, space string, processes, round int) (claims int64, problem, err error) {
	names := laneNames(b.sizes.late*lateJobs, b.sizes.late)
	for i := range names {
		names[i].group = fmt.Sprintf("%s%d-%s", latePrefix, round, names[i].group)
	}
	late := makeLoad(names, 1, len(names))
	late.dedupe = true
	late.system = crowd.system
	seen := &turns{jobs: int64(len(names))}

	running, stop := context.WithCancel(ctx)
	defer stop()
	mux := queue.NewMux()
	mux.Handle(topic, func(_ context.Context, job queue.Job) error {
		time.Sleep(b.sizes.handling)
		if isLate(job.Group) {
			late.tally.take(job.Payload)
		} else {
			crowd.tally.take(job.Payload)
		}
		return nil
	})
	ended := make(chan error, processes)
	for p := range processes {
		q, err := queue.New(turnsBroker{b.open(b.client(), space), seen}, queue.Config{AllowVolatile: true})
		if err != nil {
			return 0, nil, err
		}
		mine := (fairSlots + p) / processes // all together have fairSlots
		go func() { ended <- q.Run(running, mux, queue.WorkerConfig{Concurrency: mine}) }()
	}
	for begun := time.Now(); seen.claims.Load() < 2*fairSlots && time.Since(begun) < b.sizes.stall; {
		pause(ctx, time.Millisecond)
	}
	before := seen.claims.Load()
	if err := late.send(ctx, len(names), nil)(); err != nil {
		return 0, nil, err
	}
	late.tally.wait(ctx, late.total, b.sizes.stall) // what was just claimed would be given back
	stop()
	for range processes {
		err = errors.Join(err, <-ended)
	}
	if err := errors.Join(err, ctx.Err()); err != nil {
		return 0, nil, err
	}
	left := crowd.total - crowd.tally.ran.Load()
	return seen.last.Load() - before, errors.Join(late.tally.problem(late.total), crowd.tally.problem(crowd.tally.ran.Load()), crowd.system.holds(ctx, int(left))), nil
}
