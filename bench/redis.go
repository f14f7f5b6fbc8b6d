package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/internal/redisserver"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

const (
	redisRounds = 5
	redisShops  = 1000
	redisKeys   = 20_000

	memoryLimit     = 1536 // bytes that a waiting job may take: 1.5 KB
	memoryLimitLane = 1843 // and when it is a lane of its own: 1.8 KB
	growth          = 1.5  // what a job may cost at most, in what it costs at the smallest size
	scriptLimit     = 5    // ms that 99 of 100 scripts may take
	pickUpMedian    = 0.5  // ms within which half of a trickle is picked up
	pickUpTail      = 2    // and 99 of 100
	idleRate        = 1    // commands a second that an idle process may send
	fairClaims      = 1000 // within which those are claimed who came last
	takeover        = 5 * time.Second
)

// redisSizes is how much is measured.
type redisSizes struct {
	rounds     int
	jobs       int // of a round of a race, a multiple of batchJobs*batchJobs
	rate       int // jobs a second of the trickle
	trickle    int // jobs of a round of it
	idle       time.Duration
	lease      time.Duration // of a worker that is cut off
	crowd      int           // jobs of one shop, a multiple of batchJobs
	late       int           // shops that come after it
	handling   time.Duration // that a job takes meanwhile
	memoryJobs int           // a multiple of batchJobs
	turn       int           // jobs of a turn of a series, a multiple of batchJobs
	waiting    []int         // how many jobs wait
	lanes      []int         // in how many lanes
	scripts    int           // of each kind that are timed
	stall      time.Duration // without a job that ran: the rest never will
}

// redisBench is one run.
type redisBench struct {
	rep   *report
	addr  string
	admin *redis.Client
	open  func(client *redis.Client, space string) backend
	sizes redisSizes

	opened []io.Closer // by the part that runs
}

func openRedis(client *redis.Client, space string) backend {
	return redisqueue.New(client, redisqueue.Config{Space: space})
}

// benchRedis measures queues in the Redis at addr, or in one of its own beneath dir.
func benchRedis(ctx context.Context, rep *report, dir, addr string, rounds, most int) error {
	return withRedis(dir, addr, func(addr string) error {
		b, err := newRedisBench(ctx, rep, addr, redisSizes{
			rounds: rounds, jobs: 1 << 15, rate: 200, trickle: 600, idle: 10 * time.Second, lease: 2 * time.Second, crowd: 100_032, late: 200,
			handling: 20 * time.Millisecond, memoryJobs: 100_032, turn: 1 << 10, lanes: []int{1000, 10_000, 100_000}, scripts: 1000, stall: 10 * time.Second,
		})
		if err != nil {
			return err
		}
		for n := smallest; n <= most; n *= 10 {
			b.sizes.waiting = append(b.sizes.waiting, n)
		}
		return errors.Join(b.run(ctx), b.admin.Close())
	})
}

// withRedis has bench use the Redis at addr, or, if that is empty, a private one beneath dir.
func withRedis(dir, addr string, bench func(addr string) error) (err error) {
	if addr != "" {
		return bench(addr)
	}
	if dir, err = os.MkdirTemp(dir, "bench-*"); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := redisserver.Start(dir)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer server.Kill() //nolint:errcheck // it ends with this process
	return bench(server.Addr)
}

// newRedisBench takes the first database of a Redis, which must be empty.
func newRedisBench(ctx context.Context, rep *report, addr string, sizes redisSizes) (*redisBench, error) {
	b := &redisBench{rep: rep, addr: addr, open: openRedis, sizes: sizes}
	b.admin = redis.NewClient(&redis.Options{Addr: addr})
	keys, err := b.admin.DBSize(ctx).Result()
	if err == nil && keys > 0 {
		err = fmt.Errorf("its database holds %d keys, and what is in it is removed now and then", keys)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bench: redis at %s: %w", addr, err), b.admin.Close())
	}
	return b, nil
}

func (b *redisBench) run(ctx context.Context) error {
	b.rep.head()
	for _, part := range []func(context.Context) error{b.race, b.pickUp, b.idle, b.crash, b.fairness, b.memory, b.series, b.scripts} {
		if err := errors.Join(part(ctx), b.close(), b.empty(ctx)); err != nil {
			return fmt.Errorf("bench: redis: %w", err)
		}
	}
	return b.rep.finish()
}

func (b *redisBench) add(name, unit string, ours, peer float64, w want, problem error) {
	b.rep.add("redis "+name, unit, ours, peer, w, problem)
}

// client is what a process would have, until the part is over.
func (b *redisBench) client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: b.addr})
	b.opened = append(b.opened, c)
	return c
}

func (b *redisBench) close() (err error) {
	for _, c := range b.opened {
		if e := c.Close(); !errors.Is(e, redis.ErrClosed) { // Watermill closes what it is given
			err = errors.Join(err, e)
		}
	}
	b.opened = nil
	return err
}

// empty removes all that was stored.
func (b *redisBench) empty(ctx context.Context) error {
	return b.admin.FlushDB(context.WithoutCancel(ctx)).Err()
}

// info is what the server says of itself, by name.
func (b *redisBench) info(ctx context.Context, section string) (func(name string) float64, error) {
	text, err := b.admin.Info(ctx, section).Result()
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			values[name], _ = strconv.ParseFloat(value, 64) // some are no numbers
		}
	}
	return func(name string) float64 { return values[name] }, err
}

// cpu is how long the server has computed.
func (b *redisBench) cpu(ctx context.Context) (time.Duration, error) {
	info, err := b.info(ctx, "cpu")
	return time.Duration((info("used_cpu_user") + info("used_cpu_sys")) * float64(time.Second)), err
}

// memory is what a waiting job takes of it.
func (b *redisBench) memory(ctx context.Context) error {
	for _, m := range []struct {
		name  string
		lanes int
		limit float64
		peer  bool
	}{
		{"memory, 20000 keys vs limit", redisKeys, memoryLimit, false},
		{"memory, a lane each vs limit", b.sizes.memoryJobs, memoryLimitLane, false},
		{"memory, asynq vs payload", redisKeys, jobBytes, true},
	} {
		l := makeLoad(laneNames(min(m.lanes, b.sizes.memoryJobs), redisShops), 1, batchJobs)
		l.dedupe = true
		client := b.client()
		if m.peer {
			l.system = newAsynq(client, client)
			l.tally.anyOrder(b.sizes.memoryJobs/len(l.lanes) + 1)
		} else if err := l.over(b.open(client, "memory")); err != nil {
			return err
		}
		before, err := b.info(ctx, "memory")
		if err != nil {
			return err
		}
		if err := l.send(ctx, b.sizes.memoryJobs, nil)(); err != nil {
			return err
		}
		after, err := b.info(ctx, "memory")
		if err != nil {
			return err
		}
		problem := l.system.holds(ctx, b.sizes.memoryJobs)
		if err := l.work(ctx, b.sizes.stall); err != nil {
			return err
		}
		w := want{"<=", 1}
		if m.peer {
			w = want{}
		}
		used := after("used_memory") - before("used_memory")
		b.add(m.name, "B/job", used/float64(b.sizes.memoryJobs), m.limit, w, errors.Join(problem, l.problem(ctx)))
		if err := b.empty(ctx); err != nil {
			return err
		}
	}
	return nil
}

// series are what a job costs at each size of what a queue may hold much of, and with all of it in one lane.
func (b *redisBench) series(ctx context.Context) error {
	var points []point
	for _, n := range b.sizes.waiting {
		points = append(points, point{n, population{lanes: redisKeys, groups: redisShops, backlog: n, dedupe: true}})
	}
	if err := b.measure(ctx, "waiting", points); err != nil {
		return err
	}
	points = nil
	most := b.sizes.lanes[len(b.sizes.lanes)-1]
	for _, n := range append(b.sizes.lanes, 1) {
		points = append(points, point{n, population{lanes: n, groups: min(n, redisShops), backlog: depth * most, dedupe: true}})
	}
	return b.measure(ctx, "lanes", points)
}

// measure prints a series. Its queues are all there at once and take turns. One lane gives one job to a call, and so it is measured apart.
func (b *redisBench) measure(ctx context.Context, what string, points []point) error {
	drives := make([]*drive, len(points))
	var many []*drive
	var alone *drive
	for i, p := range points {
		drives[i] = newDrive(ctx, b.open(b.client(), fmt.Sprintf("%s-%d", what, p.size)), p.population)
		if p.size == 1 {
			alone = drives[i]
		} else {
			many = append(many, drives[i])
		}
	}
	for range 4 * b.sizes.rounds {
		if err := takeTurns(ctx, many, 1, bulk, 1, b.sizes.turn); err != nil {
			return err
		}
		if alone != nil {
			if alone.turn(ctx, singly, 1, batchJobs); ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	problems := make([]error, len(points))
	for i, p := range points {
		if p.backlog <= redisKeys && p.size != 1 {
			problems[i] = drives[i].finish(ctx, queue.Stats{})
		} else {
			problems[i] = drives[i].leave(ctx, queue.Stats{})
		}
	}
	const micro = 1000 // ns
	least := median(drives[0].costs.all) / micro
	for i, p := range points {
		problem := problems[0]
		if i > 0 {
			problem = errors.Join(problems[i], problem)
		}
		w, c := want{"<=", growth}, bulk
		if drives[i] == alone {
			w, c = want{}, singly
		}
		b.add(fmt.Sprintf("%s %d vs %d, %v", what, p.size, points[0].size, c), "us", median(drives[i].costs.all)/micro, least, w, problem)
	}
	return errors.Join(b.close(), b.empty(ctx))
}
