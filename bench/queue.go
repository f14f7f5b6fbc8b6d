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
	"slices"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	defaultRounds = 10

	jobBytes  = 1 << 10
	batchJobs = 64 // of an Enqueue
	claimJobs = 32 // and settlements of a Claim, as a worker's

	targetRate = 500_000 // jobs a second that are enqueued, claimed and settled
	heapLimit  = 1638    // bytes that a waiting job may take: 1.6 KB
	flat       = 1.2     // what a job may cost at most, in what it costs at the smallest size
	backstop   = 5 * time.Second

	groups  = 64   // tenants where their number is not what is measured
	working = 1024 // lanes that jobs go through where their number is not what is measured
	// depth is how many jobs each lane of a series has at least: with one, it would be gone once that is settled, and
	// the number of lanes would not be what it says.
	depth = 2
	// turnParts are how many measurements a turn of a series is: so short that most of them are over before the
	// machine does something else.
	turnParts = 8
)

var (
	bulk   = calls{enqueue: 64, claim: 32} // batches, and what a busy worker claims and settles at once
	singly = calls{enqueue: 1, claim: 1}   // all that a single lane allows
)

// backend is an engine as the benchmark needs it.
type backend interface {
	queue.Broker
	queue.Operator
}

// queueSizes is how much is measured.
type queueSizes struct {
	rounds   int
	jobs     int           // of a round of the throughput cases, a multiple of batchJobs*batchJobs
	turn     int           // jobs of a round at one point of a series, a multiple of turnParts*batchJobs
	points   []int         // sizes of a series
	heapJobs int           // that wait while the heap is measured
	shops    int           // that an idle worker has
	idle     time.Duration // how long it is watched
	stall    time.Duration // without a job that ran: the rest never will
}

// benchQueue measures an engine through Queue and a worker, and alone.
func benchQueue(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("queue", flag.ContinueOnError)
	engine := flags.String("engine", "memory", "`engine` that keeps the queue: memory, sqlite or redis")
	asJSON := flags.Bool("json", false, "print one JSON object per case and line")
	rounds := flags.Int("rounds", 0, "`rounds` over which medians are taken; 0 means 10, or 5 with redis")
	dir := flags.String("dir", os.TempDir(), "`directory` on a disk for the files of sqlite and redis")
	addr := flags.String("redis", "", "`address` of a Redis with an empty database; by default a private one is started")
	most := flags.Int("waiting", 1_000_000, "`jobs` that wait in the largest queue of sqlite and redis")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case *engine != "memory" && *engine != "sqlite" && *engine != "redis":
		return fmt.Errorf("bench: no engine %q; there are memory, sqlite and redis", *engine)
	case *rounds < 0:
		return errors.New("bench: -rounds must be positive, or 0 for the default")
	case *most < smallest:
		return fmt.Errorf("bench: -waiting must be %d at least", smallest)
	}
	live := make([]byte, liveHeap)
	defer runtime.KeepAlive(live)
	rep := &report{out: out, json: *asJSON}
	if *engine == "redis" {
		return benchRedis(ctx, rep, *dir, *addr, cmp.Or(*rounds, redisRounds), *most)
	}
	*rounds = cmp.Or(*rounds, defaultRounds)
	if *engine == "sqlite" {
		return benchSQLite(ctx, rep, *dir, *rounds, *most)
	}
	open := func() backend { return new(queue.Memory) }
	b := &queueBench{rep: rep, engine: *engine, open: open, sizes: queueSizes{
		rounds: *rounds, jobs: 1 << 17, turn: 1 << 13, points: []int{1, 10, 100, 1000, 10_000, 100_000},
		heapJobs: 100_000, shops: 10_000, idle: 2 * backstop, stall: 10 * time.Second,
	}}
	return b.run(ctx)
}

// queueBench is one run.
type queueBench struct {
	rep    *report
	engine string
	open   func() backend // a new one, empty
	sizes  queueSizes
}

func (b *queueBench) run(ctx context.Context) error {
	b.rep.head()
	for _, part := range []func(context.Context) error{b.throughput, b.series, b.heap, b.idle} {
		if err := part(ctx); err != nil {
			return fmt.Errorf("bench: %s: %w", b.engine, err)
		}
	}
	return b.rep.finish()
}

func (b *queueBench) add(name, unit string, ours, peer float64, w want, problem error) {
	b.rep.add(b.engine+" "+name, unit, ours, peer, w, problem)
}

// throughput is how many jobs a second go through: by way of Queue and a worker, and through the broker alone.
func (b *queueBench) throughput(ctx context.Context) error {
	const lanes = 1 << 14
	var loads []*load
	for _, producers := range []int{1, batchJobs} {
		l, err := newLoad(b.open(), laneNames(lanes, groups), producers, batchJobs/producers)
		if err != nil {
			return err
		}
		loads = append(loads, l)
	}
	// Each job makes its lane and is its last, as in the loads.
	alone := newDrive(ctx, b.open(), population{lanes: 2 * lanes, groups: groups, backlog: lanes})
	for range b.sizes.rounds {
		for _, l := range loads {
			if err := l.round(ctx, b.sizes.jobs, b.sizes.stall); err != nil {
				return err
			}
		}
		if alone.turn(ctx, bulk, 1, b.sizes.jobs); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	b.add("end to end, batches of 64 vs target", "job/s", median(loads[0].rates), targetRate, want{">=", 1}, loads[0].problem(ctx))
	b.add("end to end, 64 callers vs target", "job/s", median(loads[1].rates), targetRate, want{">=", 1}, loads[1].problem(ctx))
	problem := alone.finish(ctx, queue.Stats{})
	cost := &alone.costs
	all := median(cost.all)
	b.add("broker alone vs target", "job/s", float64(time.Second)/all, targetRate, want{">=", 1}, problem)
	b.add("broker alone, Enqueue of all", "ns", median(cost.enqueue), all, want{}, problem)
	b.add("broker alone, Claim and settle of all", "ns", median(cost.claim), all, want{}, problem)
	return nil
}

// point is one size of a series.
type point struct {
	size int
	population
}

// series are what a job costs at each size of what a queue may hold much of. All else is the same at each point:
// with as many jobs in one lane as in 100,000, the caches have as little to offer to the one as to the other.
func (b *queueBench) series(ctx context.Context) error {
	most := slices.Max(b.sizes.points)
	for _, s := range []struct {
		what  string
		first int // the smallest size
		calls calls
		at    func(n int) population
	}{
		{"lanes", 1, singly, func(n int) population { return population{lanes: n, groups: 1, backlog: depth * most} }},
		{"lanes", claimJobs, bulk, func(n int) population { return population{lanes: n, groups: 1, backlog: depth * most} }},
		{"groups", 1, singly, func(n int) population { return population{lanes: n, groups: n, backlog: depth * most} }},
		{"groups", claimJobs, bulk, func(n int) population { return population{lanes: n, groups: n, backlog: depth * most} }},
		{"backlog", 1, singly, func(n int) population { return population{lanes: 1, groups: 1, backlog: n} }},
		{"backlog", 2 * claimJobs, bulk, func(n int) population { return population{lanes: claimJobs, groups: 1, backlog: n} }},
		{"waiting", 0, bulk, func(n int) population {
			return population{lanes: working, groups: groups, backlog: depth * working, waiting: n}
		}},
		{"scheduled", 0, bulk, func(n int) population {
			return population{lanes: working, groups: groups, backlog: depth * working, scheduled: n}
		}},
	} {
		var points []point
		if s.first == 0 {
			points = append(points, point{0, s.at(0)})
		}
		for _, n := range b.sizes.points {
			if n >= s.first {
				points = append(points, point{n, s.at(n)})
			}
		}
		if err := b.measure(ctx, s.what, points, s.calls); err != nil {
			return err
		}
	}
	return nil
}

// measure prints a series. Its queues are all there at once and take turns: so the collector hits all alike, which has
// the same heap to look through whose turn it is.
func (b *queueBench) measure(ctx context.Context, what string, points []point, c calls) error {
	drives := make([]*drive, len(points))
	for i, p := range points {
		drives[i] = newDrive(ctx, b.open(), p.population)
	}
	if err := takeTurns(ctx, drives, b.sizes.rounds, c, turnParts, b.sizes.turn/turnParts); err != nil {
		return err
	}
	problems := make([]error, len(points))
	for i, p := range points {
		problems[i] = drives[i].finish(ctx, queue.Stats{Jobs: p.waiting, Waiting: p.waiting, Scheduled: p.scheduled})
	}
	least := median(drives[0].costs.all)
	for i, p := range points {
		problem := problems[0]
		if i > 0 {
			problem = errors.Join(problems[i], problem)
		}
		b.add(fmt.Sprintf("%s %d vs %d, %v", what, p.size, points[0].size, c), "ns", median(drives[i].costs.all), least, want{"<=", flat}, problem)
	}
	return nil
}

// heap measures what a waiting job takes of it.
func (b *queueBench) heap(ctx context.Context) error {
	n := b.sizes.heapJobs
	for _, h := range []struct {
		name         string
		lanes, batch int
	}{
		{"heap, a key each vs limit", n, batchJobs},
		{"heap, a key each, single jobs vs limit", n, 1},
		{"heap, 100 lanes vs limit", 100, batchJobs},
	} {
		l, err := newLoad(b.open(), laneNames(h.lanes, 100), 1, h.batch)
		if err != nil {
			return err
		}
		before := heapInUse()
		l.total = int64(n)
		if err := l.produce(ctx, 0, n, nil); err != nil {
			return err
		}
		used := heapInUse() - before
		if err := l.work(ctx, b.sizes.stall); err != nil {
			return err
		}
		b.add(h.name, "B/job", float64(used)/float64(n), heapLimit, want{"<=", 1}, l.problem(ctx))
	}
	return nil
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one's finalizers and pools let go
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // far from 2^63
}
