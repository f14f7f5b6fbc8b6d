package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// pickUp is how long a job of a trickle waits for a worker in another process that has nothing else to do.
func (b *redisBench) pickUp(ctx context.Context) error {
	two, err := newQueues(b.open(b.client(), "pick-up"), b.open(b.client(), "pick-up"))
	if err != nil {
		return err
	}
	ours := &pickUp{system: two, dedupe: true, rate: b.sizes.rate}
	asynq := &pickUp{system: newAsynq(b.client(), b.client()), dedupe: true, rate: b.sizes.rate}
	for range b.sizes.rounds {
		for _, p := range []*pickUp{ours, asynq} {
			if err := p.round(ctx, b.sizes.trickle, b.sizes.stall); err != nil {
				return err
			}
		}
	}
	for _, p := range []*pickUp{ours, asynq} {
		p.problem = errors.Join(p.problem, p.system.holds(ctx, 0))
	}
	both := errors.Join(ours.problem, asynq.problem)
	b.add("pick-up p50 vs limit", "ms", median(ours.p50), pickUpMedian, want{"<=", 1}, ours.problem)
	b.add("pick-up p99 vs limit", "ms", median(ours.p99), pickUpTail, want{"<=", 1}, ours.problem)
	b.add("pick-up p50 vs asynq", "ms", median(ours.p50), median(asynq.p50), want{}, both)
	b.add("pick-up p99 vs asynq", "ms", median(ours.p99), median(asynq.p99), want{}, both)
	return nil
}

// commands counts those that a client sends.
type commands struct{ n atomic.Int64 }

// DialHook implements redis.Hook.
func (c *commands) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook implements redis.Hook.
func (c *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook.
func (c *commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

// unused is what was seen of a process that has nothing to do.
type unused struct {
	sent     float64 // commands a second
	executed float64 // by the server, those in scripts too
	problem  error
}

// idle is what a process sends that has nothing to do.
func (b *redisBench) idle(ctx context.Context) error {
	client := b.client()
	engine := b.open(client, "idle")
	ours, err := newQueues(engine, engine)
	if err != nil {
		return err
	}
	quiet, err := b.watch(ctx, client, ours)
	if err != nil {
		return err
	}
	client = b.client()
	polls, err := b.watch(ctx, client, newAsynq(client, client))
	if err != nil {
		return err
	}
	name := fmt.Sprintf("idle %v, commands ", b.sizes.idle)
	b.add(name+"sent vs limit", "1/s", quiet.sent, idleRate, want{"<=", 1}, quiet.problem)
	b.add(name+"sent vs asynq", "1/s", quiet.sent, polls.sent, want{}, errors.Join(quiet.problem, polls.problem))
	b.add(name+"executed vs asynq", "1/s", quiet.executed, polls.executed, want{}, errors.Join(quiet.problem, polls.problem))
	return nil
}

// watch runs a worker that has just had a job, and lets it have another one in the end: one that sleeps too well is not idle.
func (b *redisBench) watch(ctx context.Context, client *redis.Client, s system) (seen unused, err error) {
	l := makeLoad(laneNames(2, 1), 1, 1)
	l.system, l.dedupe = s, true
	var counted commands
	client.AddHook(&counted)
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.work(running, l.tally.take) }()
	pause(ctx, calm)
	probe := func() error {
		if err := l.send(ctx, 1, nil)(); err != nil {
			return err
		}
		if !l.tally.wait(ctx, l.total, b.sizes.stall) && ctx.Err() == nil && l.err == nil {
			l.err = errors.New("the idle worker did not take a job")
		}
		pause(ctx, calm) // until that is settled
		return ctx.Err()
	}
	if err := probe(); err != nil {
		return seen, err
	}
	before, err := b.info(ctx, "stats")
	if err != nil {
		return seen, err
	}
	sent := counted.n.Load()
	pause(ctx, b.sizes.idle)
	sent = counted.n.Load() - sent
	after, err := b.info(ctx, "stats")
	if err != nil {
		return seen, err
	}
	if err := probe(); err != nil {
		return seen, err
	}
	stop()
	if err := <-ended; err != nil {
		return seen, err
	}
	const own = 1 // INFO
	const executed = "total_commands_processed"
	seen.sent = float64(sent) / b.sizes.idle.Seconds()
	seen.executed = (after(executed) - before(executed) - own) / b.sizes.idle.Seconds()
	seen.problem = l.problem(ctx)
	return seen, nil
}
