package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
)

// inProcess does keys in a store within the process, that is new each turn, and asks for them again.
type inProcess struct {
	name    string
	callers int
	payload []byte
	store   func() idempotency.Store
	things  []thing

	fresh, again             []float64 // ns a call, by turn
	freshAllocs, againAllocs []float64
	problem                  error
}

// turn takes one measurement of each.
func (p *inProcess) turn(ctx context.Context, replays int) error {
	k, err := newKept(p.store(), p.payload)
	if err != nil {
		return err
	}
	for i := range p.things {
		p.things[i].effects.Store(0)
	}
	first, took, allocs := p.measure(ctx, k, 1)
	p.fresh, p.freshAllocs = append(p.fresh, took), append(p.freshAllocs, allocs)
	second, took, allocs := p.measure(ctx, k, replays)
	p.again, p.againAllocs = append(p.again, took), append(p.againAllocs, allocs)
	p.problem = errors.Join(p.problem, first.problem(0), second.problem(int64(replays*len(p.things))), check(ctx, k, p.things, 1))
	return ctx.Err()
}

// measure does each thing so many times. What it takes itself is a goroutine and a closure or two for each caller.
func (p *inProcess) measure(ctx context.Context, g guard, times int) (res result, took, allocs float64) {
	calls := float64(times * len(p.things))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res = doAll(ctx, g, p.callers, times, p.things)
	runtime.ReadMemStats(&after)
	return res, float64(res.took) / calls, float64(after.Mallocs-before.Mallocs) / calls
}

// inMemory is what a key costs within the process.
func (b *onceBench) inMemory(ctx context.Context) error {
	body := payload(payloadBytes)
	things := newThings(b.sizes.memory)
	alone := &inProcess{name: "1 caller", callers: 1}
	many := &inProcess{name: "64 callers", callers: onceCallers}
	with := &inProcess{name: "10 KB payload", callers: 1, payload: body}
	list := []*inProcess{alone, many, with}
	for _, p := range list {
		p.store, p.things = b.memory, things
	}
	var hashes []float64
	for range onceTurns * b.sizes.rounds {
		for _, p := range list {
			if err := p.turn(ctx, b.sizes.replays); err != nil {
				return err
			}
		}
		hashes = append(hashes, hashing(body, len(things)))
	}
	add := func(name, unit string, ours, peer float64, w want, problem error) {
		b.rep.add("memory "+name, unit, ours, peer, w, problem)
	}
	for _, p := range []*inProcess{alone, many} {
		add("claim and complete, "+p.name+" vs target", "ns", median(p.fresh), freshLimit, want{"<=", 1}, p.problem)
		add("replay, "+p.name+" vs target", "ns", median(p.again), replayLimit, want{"<=", 1}, p.problem)
	}
	add("claim and complete, "+with.name+" vs SHA-256", "ns", median(with.fresh), median(hashes), want{}, with.problem)
	add("replay, "+with.name+" vs SHA-256", "ns", median(with.again), median(hashes), want{}, with.problem)
	both := errors.Join(alone.problem, with.problem)
	add("allocations of a replay vs a claim", "allocs", median(alone.againAllocs), median(alone.freshAllocs), want{}, alone.problem)
	add("allocations, "+with.name+" vs none", "allocs", median(with.freshAllocs), median(alone.freshAllocs), want{}, both)
	return nil
}

// hashing is how many nanoseconds the fingerprint of a body takes.
func hashing(body []byte, times int) float64 {
	var sum byte
	start := time.Now()
	for range times {
		h := sha256.Sum256(body)
		sum ^= h[0]
	}
	took := time.Since(start)
	runtime.KeepAlive(sum)
	return float64(took) / float64(times)
}
