package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// cacheSizes is how much is measured.
type cacheSizes struct {
	turns, remoteTurns int           // of each contender at a case
	turn, remoteTurn   time.Duration // how long one takes
	keys, full         int           // of hits, at least 64: few, and almost as many as there is room for
	remoteKeys         int           // of hits in Redis

	rounds  int
	callers int // who miss a key
	takes   time.Duration

	tries  int           // of a race
	joins  time.Duration // for how long it is looked whether a Get waits for an old load
	settle time.Duration // after an invalidation, until another process is asked

	memory  int   // keys that go through a cache
	entries int   // that it is bounded by
	bytes   int64 // the same
}

// cacheBench is one run.
type cacheBench struct {
	*redisBench

	sizes   cacheSizes
	timeout time.Duration // rediscache.Config.Timeout: the default, but in tests, whose machine may be busy with others
	ends    []func()      // of what a part has opened, before its clients are closed
}

// benchCache measures caches beside peers.
func benchCache(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("cache", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object per case and line")
	rounds := flags.Int("rounds", 0, "`rounds` over which medians are taken; 0 means 5")
	keys := flags.Int("keys", 10_000_000, "`keys` that go through a cache whose memory is measured")
	part := flags.String("part", "", "`part` to run: hits, remote, misses, bulk, races or memory; by default all")
	dir := flags.String("dir", os.TempDir(), "`directory` for the files of redis")
	addr := flags.String("redis", "", "`address` of a Redis with an empty database; by default a private one is started")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 0 || *keys < 1 {
		return errors.New("bench: -rounds and -keys must be positive; -rounds may be 0 for the default")
	}
	n := cmp.Or(*rounds, redisRounds)
	sizes := cacheSizes{
		turns: 20 * n, remoteTurns: 10 * n, turn: turnTime, remoteTurn: 5 * turnTime, keys: 1 << 10, full: 1 << 13, remoteKeys: 1 << 10,
		rounds: n, callers: 1000, takes: 20 * time.Millisecond,
		tries: 20, joins: 20 * time.Millisecond, settle: time.Second,
		memory: *keys, entries: 100_000, bytes: 64 << 20,
	}
	rep := &report{out: out, json: *asJSON}
	return withRedis(*dir, *addr, func(addr string) error {
		r, err := newRedisBench(ctx, rep, addr, redisSizes{})
		if err != nil {
			return err
		}
		b := &cacheBench{redisBench: r, sizes: sizes}
		return errors.Join(b.run(ctx, *part), b.admin.Close())
	})
}

// cachePart is a part of the benchmark.
type cachePart struct {
	name string
	run  func(context.Context) error
}

func (b *cacheBench) parts() []cachePart {
	return []cachePart{{"hits", b.hits}, {"remote", b.remoteHits}, {"misses", b.misses}, {"bulk", b.bulk}, {"races", b.races}, {"memory", b.weigh}}
}

// run runs one part, or all.
func (b *cacheBench) run(ctx context.Context, only string) error {
	parts := b.parts()
	if only != "" {
		i := slices.IndexFunc(parts, func(p cachePart) bool { return p.name == only })
		if i < 0 {
			return fmt.Errorf("bench: cache: no part %q", only)
		}
		parts = parts[i : i+1]
	}
	b.rep.head()
	for _, p := range parts {
		if err := errors.Join(p.run(ctx), b.end(ctx)); err != nil {
			return fmt.Errorf("bench: cache: %s: %w", p.name, err)
		}
	}
	return b.rep.finish()
}

// end ends what a part has opened.
func (b *cacheBench) end(ctx context.Context) error {
	for _, end := range b.ends {
		end()
	}
	b.ends = nil
	return errors.Join(b.close(), b.empty(ctx))
}

// stock is what there is to be cached.
type stock[K comparable] struct {
	keys   []K
	values [][]byte
	number map[K]int
}

// newStock makes n things of a size, each other than the rest.
func newStock[K comparable](n, size int, key func(i int) K) *stock[K] {
	s := &stock[K]{number: make(map[K]int, n)}
	for i := range n {
		v := bytes.Repeat([]byte{byte(i)}, size)
		binary.BigEndian.PutUint64(v, uint64(i))
		s.keys, s.values = append(s.keys, key(i)), append(s.values, v)
		s.number[s.keys[i]] = i
	}
	return s
}

func (s *stock[K]) load(_ context.Context, key K) ([]byte, error) {
	i, ok := s.number[key]
	if !ok {
		return nil, fmt.Errorf("%v was asked for, which does not exist", key)
	}
	return s.values[i], nil
}

// entrant is a contender that has everything in the tier that is measured.
type entrant struct {
	name  string
	trial func(ctx context.Context, callers int) *cacheTrial
}

// enter opens a contender and has it load all of s once. With own, no two callers ask for one key: they might be given one answer.
func enter[K comparable](ctx context.Context, name string, s *stock[K], own bool, open opener[K]) (*entrant, error) {
	var loads atomic.Int64
	p, err := open(func(ctx context.Context, key K) ([]byte, error) {
		loads.Add(1)
		return s.load(ctx, key)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := p.get(ctx, s.keys[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	pause(ctx, calm) // until it is connected, and told of invalidations: before that memory is not trusted for long
	if err := p.drop(ctx, s.keys[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	loads.Store(0)
	for range 2 { // the second time it has them
		for _, key := range s.keys {
			if _, err := p.get(ctx, key); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return &entrant{name, func(ctx context.Context, callers int) *cacheTrial {
		list := make([]*hitCaller[K], callers)
		for c := range list {
			list[c] = &hitCaller[K]{stock: s, get: p.get}
			for i := range s.keys {
				if !own || i%callers == c {
					list[c].order = append(list[c].order, i)
				}
			}
			rand.Shuffle(len(list[c].order), func(i, j int) {
				list[c].order[i], list[c].order[j] = list[c].order[j], list[c].order[i]
			})
		}
		before := uint64(0)
		if p.hits != nil {
			before = p.hits()
		}
		return &cacheTrial{
			name: name, callers: callers,
			serve: func(n int) {
				if len(list) == 1 {
					list[0].serve(ctx, n)
					return
				}
				var all sync.WaitGroup
				for _, c := range list {
					all.Go(func() { c.serve(ctx, n) })
				}
				all.Wait()
			},
			check: func() error {
				calls := uint64(0)
				for _, c := range list {
					calls += c.calls
					if err := c.problem(); err != nil {
						return err
					}
				}
				if n := loads.Load(); n != int64(len(s.keys)) {
					return fmt.Errorf("%d loads of %d keys", n, len(s.keys))
				}
				if p.hits != nil && p.hits()-before != calls {
					return fmt.Errorf("%d of %d answers were hits", p.hits()-before, calls)
				}
				return nil
			},
		}
	}}, nil
}

// hitCaller is who calls from one goroutine.
type hitCaller[K comparable] struct {
	_            [64]byte // no two of them share a line of a cache
	stock        *stock[K]
	get          func(ctx context.Context, key K) ([]byte, error)
	order        []int
	at           int
	calls, wrong uint64
	err          error
	_            [64]byte
}

func (c *hitCaller[K]) serve(ctx context.Context, n int) {
	for range n {
		i := c.order[c.at]
		if c.at++; c.at == len(c.order) {
			c.at = 0
		}
		c.calls++
		v, err := c.get(ctx, c.stock.keys[i])
		if err != nil {
			c.err = err
		} else if !bytes.Equal(v, c.stock.values[i]) {
			c.wrong++
		}
	}
}

func (c *hitCaller[K]) problem() error {
	if c.err == nil && c.wrong > 0 {
		return fmt.Errorf("%d of %d values were wrong", c.wrong, c.calls)
	}
	return c.err
}

// cacheTrial is one contender at one case.
type cacheTrial struct {
	name    string
	callers int
	serve   func(n int)  // makes n calls from each caller
	check   func() error // says what makes the figures invalid

	batch  int // calls of each caller that fill a turn
	turns  []float64
	allocs float64 // of 1,000 calls of one caller
}

// problem says why the trial's figures mean nothing, if they don't.
func (t *cacheTrial) problem() error {
	if err := t.check(); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return nil
}

// calibrate takes the most of several: a pause of the machine's would make turns far too short.
func (t *cacheTrial) calibrate(length time.Duration) {
	for range 5 {
		for n := 1; ; n *= 2 {
			start := time.Now()
			t.serve(n)
			if took := time.Since(start); took > length/4 {
				t.batch = max(t.batch, 1, int(int64(n)*int64(length)/int64(took)))
				break
			}
		}
	}
}

// turn takes one measurement: the time from the first call to the last, divided by the calls of all.
func (t *cacheTrial) turn() {
	runtime.GC()
	t.serve(1 + t.batch/8) // what it needs is in the processor's caches again
	start := time.Now()
	t.serve(t.batch)
	t.turns = append(t.turns, float64(time.Since(start))/float64(t.batch*t.callers))
}

// measureAllocs takes the median of several: what runs in the background allocates too, now and then.
func (t *cacheTrial) measureAllocs() {
	runtime.GC()
	t.serve(4)
	var allocs []float64
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		t.serve(memoryRuns)
		runtime.ReadMemStats(&after)
		allocs = append(allocs, float64(after.Mallocs-before.Mallocs))
	}
	t.allocs = median(allocs)
}

// alternate has trials take turns, each time in another order.
func alternate(ctx context.Context, turns int, length time.Duration, trials []*cacheTrial) error {
	for _, t := range trials {
		t.calibrate(length)
	}
	order := slices.Clone(trials)
	for range turns {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, t := range order {
			if err := ctx.Err(); err != nil {
				return err
			}
			t.turn()
		}
	}
	return nil
}

// contest has entrants take turns, and gives what came of it by their names.
func contest(ctx context.Context, list []*entrant, callers, turns int, length time.Duration) (func(name string) *cacheTrial, error) {
	trials := make([]*cacheTrial, len(list))
	for i, e := range list {
		trials[i] = e.trial(ctx, callers)
		if callers == 1 {
			trials[i].measureAllocs()
		}
	}
	return func(name string) *cacheTrial {
		return trials[slices.IndexFunc(trials, func(t *cacheTrial) bool { return t.name == name })]
	}, alternate(ctx, turns, length, trials)
}

// compare prints what a call costs two contenders; per is how many nanoseconds the unit has.
func (b *cacheBench) compare(what, unit string, per float64, ours, peer *cacheTrial, w want) {
	b.rep.add(fmt.Sprintf("%s, %s vs %s", what, ours.name, peer.name), unit, median(ours.turns)/per, median(peer.turns)/per, w, errors.Join(ours.problem(), peer.problem()))
}
