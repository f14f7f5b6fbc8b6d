package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

// crew is the Breakwater side under -kill: a server that takes the webhooks, and workers, each a process of its own on the same queue. The
// server, and one worker after the other, are killed at random moments and started again at once; so is Redis, if it is ours.
type crew struct {
	set     settings
	systems *systems
	home    home
	jobs    *queue.Queue
	trouble chan error    // a process has ended by itself
	calm    chan struct{} // closed when nobody is to be killed any more

	server *child
	url    string
	hands  [workers]*child
	hired  int // workers so far

	mu     sync.Mutex
	killed kills
}

// kills are those so far.
type kills struct {
	servers, redis []time.Time
	workers        int
}

func newCrew(ctx context.Context, o options, systems *systems) (*crew, error) {
	h, err := open(o)
	if err != nil {
		return nil, err
	}
	c := &crew{set: settings{options: o, URL: systems.url}, systems: systems, home: h, trouble: make(chan error, 1), calm: make(chan struct{})}
	if c.jobs, err = queue.New(h.broker, queue.Config{}); err != nil {
		return c, err
	}
	if h.file != nil {
		if err := h.file.make(ctx); err != nil {
			return c, err
		}
	}
	if err := c.serve(); err != nil {
		return c, err
	}
	for place := range c.hands {
		if err := c.hire(place); err != nil {
			return c, err
		}
	}
	return c, nil
}

// serve starts a server, at the address of the one before.
func (c *crew) serve() (err error) {
	set := c.set
	set.Addr = strings.TrimPrefix(c.url, "http://")
	if c.server, err = start("child-server", set); err != nil {
		return err
	}
	if c.url, err = c.server.line(); err != nil {
		return fmt.Errorf("the server process did not start: %w", err)
	}
	c.watch(c.server, "the server process")
	return nil
}

// hire starts a worker in a place.
func (c *crew) hire(place int) (err error) {
	c.hired++
	set := c.set
	set.Worker = c.hired
	if c.hands[place], err = start("child-worker", set); err != nil {
		return err
	}
	c.hands[place].worker = set.Worker
	c.watch(c.hands[place], fmt.Sprintf("worker process %d", c.hired))
	return nil
}

// watch tells of a process that ends by itself. It ends with the process.
func (c *crew) watch(p *child, name string) {
	go func() {
		if p.wait(); !p.expected.Load() {
			select {
			case c.trouble <- fmt.Errorf("%s has ended by itself: %v", name, p.cmd.ProcessState):
			default:
			}
		}
	}()
}

// run kills until calm is closed. It returns when ctx ends, with all processes up, or when one of them ends by itself.
func (c *crew) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func(ctx context.Context) error{c.killServers, c.killWorkers, c.killRedis, c.follow, func(ctx context.Context) error {
		select {
		case err := <-c.trouble:
			return err
		case <-ctx.Done():
			return nil
		}
	}}
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() {
			if errs[i] = part(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// pause waits for a time of the storm's and a time of the machine's, which needs some to start a process. It says false
// when there is nobody to kill any more.
func (c *crew) pause(ctx context.Context, storm float64, machine time.Duration) bool {
	t := time.NewTimer(machine + time.Duration(storm*float64(time.Second)/c.set.Scale))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.calm:
	case <-ctx.Done():
	}
	return false
}

func (c *crew) killServers(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(c.set.Seed, 0))
	for c.pause(ctx, 6+18*rng.Float64(), 500*time.Millisecond) {
		c.mu.Lock()
		c.killed.servers = append(c.killed.servers, time.Now())
		c.mu.Unlock()
		if err := c.server.kill(); err != nil {
			return err
		}
		if err := c.serve(); err != nil {
			return err
		}
	}
	return nil
}

// killWorkers kills one worker after the other. Each lives for about 50 s of the storm's time, and a job takes 6 s at most, when the systems are
// slow, so that it meets few deaths: fewer than the five that would make it a dead letter.
func (c *crew) killWorkers(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(c.set.Seed, 1))
	for turn := 0; c.pause(ctx, 6+12*rng.Float64(), 300*time.Millisecond); turn++ {
		place := turn % workers
		c.systems.kills(c.hands[place].worker)
		if err := c.hands[place].kill(); err != nil {
			return err
		}
		c.mu.Lock()
		c.killed.workers++
		c.mu.Unlock()
		if err := c.hire(place); err != nil {
			return err
		}
	}
	return nil
}

// away is for how many seconds of the storm's time Redis stays away at most: less than a webhook waits for its answer, or on this clock subscriptions
// would be deleted for their 8 failures in a row, and less than what is left of a lease.
const away = 3.0

// killRedis kills the server that has the queue, if this program started it, and starts it again with what is on its disk.
func (c *crew) killRedis(ctx context.Context) error {
	server := c.set.server
	if server == nil {
		return nil
	}
	rng := rand.New(rand.NewPCG(c.set.Seed, 2))
	for c.pause(ctx, 10+15*rng.Float64(), time.Second) {
		c.mu.Lock()
		c.killed.redis = append(c.killed.redis, time.Now())
		c.mu.Unlock()
		if err := server.Kill(); err != nil {
			return err
		}
		time.Sleep(time.Duration(away * rng.Float64() * float64(time.Second) / c.set.Scale))
		if err := server.Start(); err != nil {
			return fmt.Errorf("after a kill of Redis: %w", err)
		}
	}
	return nil
}

// follow takes what is written in the database into the log of the systems, if it is not one of them.
func (c *crew) follow(ctx context.Context) error {
	if c.home.file == nil {
		return nil
	}
	after := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			last = true
		}
		effects, err := c.home.file.effects(context.WithoutCancel(ctx), after)
		if err != nil {
			return err
		}
		after += len(effects)
		c.systems.read(effects)
	}
	return nil
}

// letters are the events that are dead letters, with the reason.
func (c *crew) letters(ctx context.Context) (map[string]string, error) {
	list, err := c.jobs.Dead(ctx, queue.DeadFilter{Limit: 1000})
	if err != nil {
		return nil, err
	}
	dead := map[string]string{}
	for _, l := range list {
		dead[enqueue.Delivery(l.Job).WebhookID] = l.Error
	}
	return dead, nil
}

func (c *crew) kills() kills {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.killed
	k.servers, k.redis = slices.Clip(k.servers), slices.Clip(k.redis)
	return k
}

func (c *crew) stop() {
	for _, p := range append(c.hands[:], c.server) {
		if p != nil {
			p.stop()
		}
	}
	_ = c.home.close() // what it was asked is done
}
