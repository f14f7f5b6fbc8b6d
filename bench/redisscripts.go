package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	slowerThan = "slowlog-log-slower-than"
	slowLength = "slowlog-max-len"
	// slow is what the server logs, in µs. The limit is far above; less would log what scripts call, which takes time of its own.
	slow = 100
)

// scripts is how long the server does nothing else, while as much goes into one call as ever does. The server has timed that itself.
func (b *redisBench) scripts(ctx context.Context) (err error) {
	restore := make([]func() error, 0, 2)
	for name, value := range map[string]string{slowerThan: strconv.Itoa(slow), slowLength: strconv.Itoa(4 * b.sizes.scripts)} {
		was, err := b.admin.ConfigGet(ctx, name).Result()
		if err == nil {
			err = b.admin.ConfigSet(ctx, name, value).Err()
		}
		if err != nil {
			return err
		}
		restore = append(restore, func() error { return b.admin.ConfigSet(context.WithoutCancel(ctx), name, was[name]).Err() })
	}
	defer func() {
		for _, r := range restore {
			err = errors.Join(err, r())
		}
	}()

	d := newDrive(ctx, b.open(b.client(), "scripts"), population{lanes: redisKeys, groups: redisShops, backlog: redisKeys, dedupe: true})
	var problem error
	timed := func(call func()) ([]float64, error) {
		if err := b.admin.SlowLogReset(ctx).Err(); err != nil {
			return nil, err
		}
		for range b.sizes.scripts {
			call()
		}
		log, err := b.admin.SlowLogGet(ctx, -1).Result()
		took := make([]float64, b.sizes.scripts) // what was not logged is as good as nothing
		n := 0
		for _, entry := range log {
			if len(entry.Args) > 0 && strings.HasPrefix(strings.ToLower(entry.Args[0]), "eval") && n < len(took) {
				took[n] = float64(entry.Duration) / float64(time.Millisecond)
				n++
			}
		}
		return took, err
	}
	enqueues, err := timed(func() {
		d.build(batchJobs, batchJobs)
		d.enqueue(ctx, d.batches[0])
	})
	if err != nil {
		return err
	}
	d.claim(ctx, claimJobs)
	claims, err := timed(func() {
		if n := d.claim(ctx, claimJobs); n != claimJobs && d.err == nil {
			problem = fmt.Errorf("a Claim gave %d of %d jobs", n, claimJobs)
		}
	})
	if err != nil {
		return err
	}
	d.check()
	problem = errors.Join(problem, d.finish(ctx, queue.Stats{}))
	for _, s := range []struct {
		name string
		took []float64
	}{{"Enqueue script, 64", enqueues}, {"Claim script, 32 + 32", claims}} {
		b.add(s.name+", p50 vs limit of p99", "ms", quantile(s.took, 0.5), scriptLimit, want{}, problem)
		b.add(s.name+", p99 vs limit", "ms", quantile(s.took, 0.99), scriptLimit, want{"<=", 1}, problem)
		b.add(s.name+", longest vs limit of p99", "ms", quantile(s.took, 1), scriptLimit, want{}, problem)
	}
	return nil
}
