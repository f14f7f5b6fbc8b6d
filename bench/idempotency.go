package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
)

const (
	onceCallers = 64
	onceTurns   = 4 // of a round, in memory
	onceWarm    = 4 // keys of each caller before a round in Redis

	overLimit    = 1.25 // what a claim and its completion may cost at most, in what two round trips cost
	replayLimit  = 300  // ns, from the process's own memory
	freshLimit   = 1500 // ns, in memory
	recordLimit  = 200  // bytes of the server that a finished key may take
	payloadBytes = 10 << 10
)

// onceSizes is how much is measured.
type onceSizes struct {
	rounds  int
	keys    int // of a round in Redis, at least 64
	again   int // keys that are replayed, at least 64
	replays int // of each of them in a turn
	records int // whose memory is measured
	memory  int // keys of a turn in memory, at least 64
}

// onceBench is one run.
type onceBench struct {
	*redisBench

	store  func(client *redis.Client, cfg redisstore.Config) idempotency.Store
	memory func() idempotency.Store
	sizes  onceSizes
}

// benchIdempotency measures a Keeper over Redis and over memory.
func benchIdempotency(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("idempotency", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object per case and line")
	rounds := flags.Int("rounds", 0, "`rounds` over which medians are taken; 0 means 5")
	dir := flags.String("dir", os.TempDir(), "`directory` on a disk for the files of redis")
	addr := flags.String("redis", "", "`address` of a Redis with an empty database; by default a private one is started")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 0 {
		return errors.New("bench: -rounds must be positive, or 0 for the default")
	}
	live := make([]byte, liveHeap)
	defer runtime.KeepAlive(live)
	rep := &report{out: out, json: *asJSON}
	return withRedis(*dir, *addr, func(addr string) error {
		r, err := newRedisBench(ctx, rep, addr, redisSizes{})
		if err != nil {
			return err
		}
		b := newOnceBench(r, onceSizes{rounds: cmp.Or(*rounds, redisRounds), keys: 1 << 14, again: 1 << 12, replays: 4, records: 65_000, memory: 1 << 14})
		return errors.Join(b.run(ctx), b.admin.Close())
	})
}

func newOnceBench(r *redisBench, sizes onceSizes) *onceBench {
	return &onceBench{
		redisBench: r, sizes: sizes,
		store:  func(c *redis.Client, cfg redisstore.Config) idempotency.Store { return redisstore.New(c, cfg) },
		memory: func() idempotency.Store { return new(idempotency.Memory) },
	}
}

func (b *onceBench) run(ctx context.Context) error {
	b.rep.head()
	for _, part := range []func(context.Context) error{b.fresh, b.replay, b.memo, b.bytes, b.inMemory} {
		if err := errors.Join(part(ctx), b.close(), b.empty(ctx)); err != nil {
			return fmt.Errorf("bench: idempotency: %w", err)
		}
	}
	return b.rep.finish()
}

// contender does keys that nobody has done, in a Redis that is empty.
type contender struct {
	name  string
	open  func(*redis.Client) (guard, error)
	again int64 // effects of a key that is done a second time: 1 of one who remembers

	took, cpu []float64 // µs of a key, by round: from first to last, and of the server
	problem   error
}

// contenders lists ours and, after it, those that it is compared with.
func (b *onceBench) contenders() []*contender {
	return []*contender{
		{name: "breakwater", again: 1, open: func(c *redis.Client) (guard, error) { return newKept(b.store(c, redisstore.Config{}), nil) }},
		{name: "limit", again: 1, open: func(c *redis.Client) (guard, error) { return twoTrips{c}, nil }},
		{name: "redislock", again: 2, open: func(c *redis.Client) (guard, error) { return newLocked(c), nil }},
		{name: "gofiber, lock in process", again: 1, open: func(c *redis.Client) (guard, error) { return newFiber(c, nil), nil }},
		{name: "gofiber, lock in Redis", again: 1, open: func(c *redis.Client) (guard, error) { return newFiber(c, newLocked(c)), nil }},
	}
}

// fresh is what a key costs that is claimed, done and completed.
func (b *onceBench) fresh(ctx context.Context) error {
	list := b.contenders()
	for range b.sizes.rounds {
		for _, c := range list {
			if c.problem != nil { // which is said in the end
				continue
			}
			if err := b.round(ctx, c); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	for i, c := range list[1:] {
		w := want{"<", 1}
		if i == 0 {
			w = want{"<=", overLimit}
		}
		b.add("claim and complete vs "+c.name, "us", median(list[0].took), median(c.took), w, errors.Join(list[0].problem, c.problem))
	}
	for _, c := range list[1:] {
		b.add("server CPU vs "+c.name, "us", median(list[0].cpu), median(c.cpu), want{}, errors.Join(list[0].problem, c.problem))
	}
	return nil
}

// round is one run of a contender.
func (b *onceBench) round(ctx context.Context, c *contender) error {
	g, err := c.open(b.client())
	if err != nil {
		return err
	}
	things := newThings(b.sizes.keys + onceCallers*onceWarm)
	warm, timed := things[b.sizes.keys:], things[:b.sizes.keys]
	first := doAll(ctx, g, onceCallers, 1, warm) // they open the connections, and the server gets to know the scripts
	runtime.GC()
	before, err := b.cpu(ctx)
	if err != nil {
		return err
	}
	res := doAll(ctx, g, onceCallers, 1, timed)
	after, err := b.cpu(ctx)
	if err != nil {
		return err
	}
	c.took = append(c.took, micros(res.took)/float64(len(timed)))
	c.cpu = append(c.cpu, micros(after-before)/float64(len(timed)))
	if c.problem = errors.Join(first.problem(0), res.problem(0), check(ctx, g, things, 1)); c.problem == nil {
		replays := int64(len(things))
		if c.again > 1 {
			replays = 0
		}
		second := doAll(ctx, g, onceCallers, 1, things)
		c.problem = errors.Join(second.problem(replays), check(ctx, g, things, c.again))
	}
	if c.problem != nil {
		c.problem = fmt.Errorf("%s: %w", c.name, c.problem)
	}
	return errors.Join(ctx.Err(), b.close(), b.empty(ctx))
}

// replayer is who answers again and again for keys that are done.
type replayer struct {
	guard

	callers int
	things  []thing
	took    []float64 // ns a call, by turn
	problem error
}

// newReplayer does the keys, and asks for each of them once: that opens the connections, and fills a memory.
func newReplayer(ctx context.Context, g guard, callers, keys int) *replayer {
	r := &replayer{guard: g, callers: callers, things: newThings(keys)}
	r.problem = errors.Join(doAll(ctx, g, callers, 1, r.things).problem(0), r.warm(ctx))
	return r
}

func (r *replayer) warm(ctx context.Context) error {
	return doAll(ctx, r.guard, r.callers, 1, r.things).problem(int64(len(r.things)))
}

func (r *replayer) turn(ctx context.Context, times int) {
	runtime.GC()
	res := doAll(ctx, r.guard, r.callers, times, r.things)
	calls := times * len(r.things)
	r.took = append(r.took, float64(res.took)/float64(calls))
	r.problem = errors.Join(r.problem, res.problem(int64(calls)))
}

func (r *replayer) finish(ctx context.Context) {
	r.problem = errors.Join(r.problem, check(ctx, r.guard, r.things, 1))
}

// replay is what an answer from the server costs, beside a GET.
func (b *onceBench) replay(ctx context.Context) error {
	k, err := newKept(b.store(b.client(), redisstore.Config{NoMemo: true}), nil)
	if err != nil {
		return err
	}
	ours := newReplayer(ctx, k, onceCallers, b.sizes.again)
	bare := newReplayer(ctx, oneTrip{twoTrips{b.client()}}, onceCallers, b.sizes.again)
	for range b.sizes.rounds {
		for _, r := range []*replayer{ours, bare} {
			if r.turn(ctx, b.sizes.replays); ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	ours.finish(ctx)
	bare.finish(ctx)
	b.add("replay, no memo vs GET", "us", median(ours.took)/1000, median(bare.took)/1000, want{}, errors.Join(ours.problem, bare.problem))
	return nil
}

// memo is what an answer costs that the process remembers.
func (b *onceBench) memo(ctx context.Context) error {
	var list []*replayer
	var asked []*commands
	for _, callers := range []int{1, onceCallers} {
		client, sent := b.client(), &commands{}
		client.AddHook(sent)
		k, err := newKept(b.store(client, redisstore.Config{Space: fmt.Sprint("memo-", callers)}), nil)
		if err != nil {
			return err
		}
		list, asked = append(list, newReplayer(ctx, k, callers, b.sizes.again)), append(asked, sent)
	}
	for range onceTurns * b.sizes.rounds {
		for i, r := range list {
			r.problem = errors.Join(r.problem, r.warm(ctx)) // a memo keeps for a minute
			before := asked[i].n.Load()
			if r.turn(ctx, onceTurns*b.sizes.replays); ctx.Err() != nil {
				return ctx.Err()
			}
			if n := asked[i].n.Load() - before; n > int64(len(r.things)) { // more than a minute's end explains
				r.problem = errors.Join(r.problem, fmt.Errorf("the server was asked %d times", n))
			}
		}
	}
	for _, r := range list {
		r.finish(ctx)
		b.add(fmt.Sprintf("replay, memo, %s vs target", callersText(r.callers)), "ns", median(r.took), replayLimit, want{"<=", 1}, r.problem)
	}
	return nil
}

func callersText(n int) string {
	if n == 1 {
		return "1 caller"
	}
	return fmt.Sprintf("%d callers", n)
}

// bytes is what a finished key takes of the server.
func (b *onceBench) bytes(ctx context.Context) error {
	k, err := newKept(b.store(b.client(), redisstore.Config{}), nil)
	if err != nil {
		return err
	}
	things := newThings(b.sizes.records + onceCallers*onceWarm)
	kept, warm := things[:b.sizes.records], things[b.sizes.records:]
	problem := doAll(ctx, k, onceCallers, 1, warm).problem(0) // as in a round; what they take is not counted
	before, err := b.info(ctx, "memory")
	if err != nil {
		return err
	}
	problem = errors.Join(problem, doAll(ctx, k, onceCallers, 1, kept).problem(0))
	after, err := b.info(ctx, "memory")
	if err != nil {
		return err
	}
	keys, err := b.admin.DBSize(ctx).Result()
	if err != nil {
		return err
	}
	if keys != int64(len(things)) {
		problem = errors.Join(problem, fmt.Errorf("the server has %d keys; want %d", keys, len(things)))
	}
	problem = errors.Join(problem, check(ctx, k, things, 1))
	used := after("used_memory") - before("used_memory")
	b.add("memory of a finished key vs limit", "B", used/float64(len(kept)), recordLimit, want{"<=", 1}, problem)
	return nil
}
