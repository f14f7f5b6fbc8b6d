package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/redis/go-redis/v9"
)

const subscribers = 10 // of Watermill and of the bare stream

// racer is a contender in the race: jobs are enqueued by 64 goroutines, and when all of them are there they are worked off.
type racer struct {
	name    string
	system  func(*redis.Client) (system, error)
	batch   int // jobs of an Enqueue
	part    int // it gets that part of the jobs
	ordered bool
	dedupe  bool

	enqueued, processed []float64 // jobs a second, by round
	in, out, cpu        []float64 // µs of the server a job: enqueued, processed, both
	problem             error
}

// course is what a racer has to run.
func (b *redisBench) course(r *racer) (l *load, jobs int) {
	l, jobs = makeLoad(laneNames(redisKeys, redisShops), batchJobs, r.batch), b.sizes.jobs/r.part
	if !r.ordered {
		l.tally.anyOrder(jobs/len(l.lanes) + 4)
	}
	return l, jobs
}

// round is one run of a racer, for whom the server is empty.
func (b *redisBench) round(ctx context.Context, r *racer, l *load, jobs int) (err error) {
	if l.system, err = r.system(b.client()); err != nil {
		return err
	}
	l.dedupe = r.dedupe
	first := l.producers * l.batch // they open the connections, and the server gets to know the scripts
	if err := l.send(ctx, first, nil)(); err != nil {
		return err
	}
	runtime.GC()
	var cpu [4]time.Duration
	if cpu[0], err = b.cpu(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := l.send(ctx, jobs, nil)(); err != nil {
		return err
	}
	r.enqueued = append(r.enqueued, float64(jobs)/time.Since(start).Seconds())
	if cpu[1], err = b.cpu(ctx); err != nil {
		return err
	}
	if r.dedupe {
		if err := l.repeat(ctx); err != nil {
			return err
		}
	}
	r.problem = l.system.holds(ctx, first+jobs)
	runtime.GC()
	if cpu[2], err = b.cpu(ctx); err != nil {
		return err
	}
	if err := l.work(ctx, b.sizes.stall); err != nil {
		return err
	}
	if cpu[3], err = b.cpu(ctx); err != nil {
		return err
	}
	r.processed = append(r.processed, float64(l.total)/l.ran.Seconds())
	in, out := micros(cpu[1]-cpu[0])/float64(jobs), micros(cpu[3]-cpu[2])/float64(l.total)
	r.in, r.out, r.cpu = append(r.in, in), append(r.out, out), append(r.cpu, in+out)
	// Watermill has closed its client by now, and who counts has another.
	if l.system, err = r.system(b.client()); err != nil {
		return err
	}
	r.problem = errors.Join(r.problem, l.problem(ctx))
	return errors.Join(b.close(), b.empty(ctx))
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// race is how many jobs a second go into a Redis and through one process, and what each costs the server.
func (b *redisBench) race(ctx context.Context) error {
	ours := func(c *redis.Client) (system, error) {
		engine := b.open(c, "race")
		return newQueues(engine, engine)
	}
	watermill := func(subscribers int) func(*redis.Client) (system, error) {
		return func(c *redis.Client) (system, error) { return newWatermill(c, subscribers) }
	}
	batches := &racer{name: "batches of 64", system: ours, batch: batchJobs, part: 1, ordered: true, dedupe: true}
	callers := &racer{name: "64 callers", system: ours, batch: 1, part: 1, ordered: true, dedupe: true}
	tasks := &racer{name: "asynq", batch: 1, part: 1, dedupe: true, system: func(c *redis.Client) (system, error) { return newAsynq(c, c), nil }}
	topics := &racer{name: "Watermill (10)", system: watermill(subscribers), batch: 1, part: 1}
	topic := &racer{name: "Watermill (1)", system: watermill(1), batch: 1, part: 4, ordered: true}
	bare := &racer{name: "bare stream", batch: batchJobs, part: 1, system: func(c *redis.Client) (system, error) { return bareStream{streamed{c}, subscribers}, nil }}
	for range b.sizes.rounds {
		for _, r := range []*racer{batches, tasks, callers, topics, bare, topic} {
			if r.problem != nil { // which is said in the end
				continue
			}
			course, jobs := b.course(r)
			if err := b.round(ctx, r, course, jobs); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	compare := func(what, unit string, ours, peer *racer, figure func(*racer) float64, w want) {
		b.add(what+" vs "+peer.name, unit, figure(ours), figure(peer), w, errors.Join(ours.problem, peer.problem))
	}
	enqueued := func(r *racer) float64 { return median(r.enqueued) }
	processed := func(r *racer) float64 { return median(r.processed) }
	cpu := func(r *racer) float64 { return median(r.cpu) }
	compare("enqueue, batches of 64", "job/s", batches, tasks, enqueued, want{">=", 1.8})
	compare("enqueue, batches of 64", "job/s", batches, bare, enqueued, want{})
	compare("enqueue, 64 callers", "job/s", callers, tasks, enqueued, want{">=", 1.2})
	compare("enqueue, 64 callers", "job/s", callers, topics, enqueued, want{})
	compare("process", "job/s", callers, tasks, processed, want{">=", 3})
	compare("process", "job/s", callers, topics, processed, want{">=", 1.1})
	compare("process", "job/s", callers, topic, processed, want{})
	compare("process", "job/s", callers, bare, processed, want{})
	compare("server CPU, batches of 64", "us/job", batches, tasks, cpu, want{"<=", 0.62})
	compare("server CPU, 64 callers", "us/job", callers, tasks, cpu, want{"<=", 0.62})
	compare("server CPU to enqueue, batches of 64", "us/job", batches, tasks, func(r *racer) float64 { return median(r.in) }, want{})
	compare("server CPU to enqueue, 64 callers", "us/job", callers, tasks, func(r *racer) float64 { return median(r.in) }, want{})
	compare("server CPU to process", "us/job", callers, tasks, func(r *racer) float64 { return median(r.out) }, want{})
	compare("server CPU, 64 callers", "us/job", callers, topics, cpu, want{})
	compare("server CPU, batches of 64", "us/job", batches, bare, cpu, want{})
	return nil
}
