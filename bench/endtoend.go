package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// backlog is how many batches may be on their way before a producer waits: enough that the worker always has
// something to claim, so little that the queue is no warehouse.
const backlog = 256

// laneName is a group and key.
type laneName struct{ group, key string }

// laneNames makes n of them that take turns through groups, with names as long as shops' and orders' are.
func laneNames(n, groups int) []laneName {
	names := make([]laneName, n)
	for i := range names {
		names[i] = laneName{group: fmt.Sprintf("shop-%06d.myshopify.com", i%groups), key: fmt.Sprintf("%013d", i)}
	}
	return names
}

// system takes jobs and runs them: Queue, or a peer.
type system interface {
	// enqueue says how many of the jobs it has dropped because they were there already.
	enqueue(ctx context.Context, jobs ...queue.Job) (dropped int, err error)
	// work hands the payload of each job to take, until ctx ends and what has run is settled.
	work(ctx context.Context, take func(body []byte)) error
	// holds fails unless there are so many jobs, all ready, and nothing else.
	holds(ctx context.Context, jobs int) error
}

// queues are a Queue that jobs are sent to and one that works them off, over the same jobs, at default settings.
type queues struct{ sender, worker *queue.Queue }

func newQueues(sender, worker queue.Broker) (q queues, err error) {
	if q.sender, err = queue.New(sender, queue.Config{AllowVolatile: true}); err != nil {
		return q, err
	}
	if q.worker = q.sender; sender != worker {
		q.worker, err = queue.New(worker, queue.Config{AllowVolatile: true})
	}
	return q, err
}

func (q queues) enqueue(ctx context.Context, jobs ...queue.Job) (dropped int, err error) {
	receipts, err := q.sender.Enqueue(ctx, jobs...)
	for i := range receipts {
		if receipts[i].Duplicate {
			dropped++
		}
	}
	return dropped, err
}

func (q queues) work(ctx context.Context, take func(body []byte)) error {
	mux := queue.NewMux()
	mux.Handle(topic, func(_ context.Context, job queue.Job) error {
		take(job.Payload)
		return nil
	})
	return q.worker.Run(ctx, mux, queue.WorkerConfig{})
}

func (q queues) holds(ctx context.Context, jobs int) error {
	stats, err := q.sender.Stats(ctx)
	if err != nil {
		return err
	}
	return checkStats(stats, queue.Stats{Jobs: jobs})
}

// load sends jobs through a system and keeps account of them.
type load struct {
	system    system
	dedupe    bool // each job has a key that no other has
	producers int
	batch     int // jobs of an Enqueue
	lanes     []laneName
	sent      []int64 // by lane: how many jobs
	total     int64
	dropped   atomic.Int64 // although they were sent for the first time
	tally     *tally

	ran   time.Duration // from the start of the last worker until all jobs had run
	rates []float64     // jobs a second, by round
	err   error         // what ended it early
}

func newLoad(engine queue.Broker, lanes []laneName, producers, batch int) (*load, error) {
	l := makeLoad(lanes, producers, batch)
	err := l.over(engine)
	return l, err
}

// makeLoad makes one that has no engine yet.
func makeLoad(lanes []laneName, producers, batch int) *load {
	return &load{producers: producers, batch: batch, lanes: lanes, sent: make([]int64, len(lanes)), tally: newTally(len(lanes))}
}

// over has the load go on over an engine, which must have what is left of it.
func (l *load) over(engine queue.Broker) error { return l.between(engine, engine) }

// between has it sent to one engine and worked off by another, which both have the same jobs.
func (l *load) between(sender, worker queue.Broker) (err error) {
	l.system, err = newQueues(sender, worker)
	return err
}

// round sends so many jobs while a worker runs, and ends when that has settled the last of them.
func (l *load) round(ctx context.Context, jobs int, stall time.Duration) error {
	if l.err != nil {
		return nil // which problem tells
	}
	runtime.GC()
	producing, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	produced := l.send(producing, jobs, l.tally.room)
	err := l.work(ctx, stall)
	took := time.Since(start)
	cancel() // those that wait for a job that is lost
	if failed := produced(); !errors.Is(failed, context.Canceled) {
		err = errors.Join(err, failed)
	}
	l.rates = append(l.rates, float64(jobs)/took.Seconds())
	return errors.Join(err, ctx.Err())
}

// send has all producers send so many jobs together. wait waits for them, and answers the first error.
func (l *load) send(ctx context.Context, jobs int, room chan<- struct{}) (wait func() error) {
	l.total += int64(jobs)
	produced := make(chan error, l.producers)
	for p := range l.producers {
		go func() { produced <- l.produce(ctx, p, jobs/l.producers, room) }()
	}
	return func() (err error) {
		for range l.producers {
			err = cmp.Or(err, <-produced)
		}
		return err
	}
}

// produce sends the jobs of one producer, which has lanes of its own. It takes a place in room for every
// batchJobs of them; nil has no end of it.
func (l *load) produce(ctx context.Context, producer, jobs int, room chan<- struct{}) error {
	batch := make([]queue.Job, l.batch)
	for i := range batch {
		batch[i] = queue.Job{Kind: topic, Payload: bytes.Clone(l.tally.want)}
	}
	own := len(l.lanes) / l.producers
	for sent := 0; sent < jobs; {
		if room != nil && sent%batchJobs == 0 {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		batch = batch[:min(len(batch), jobs-sent)]
		for i := range batch {
			lane := producer + l.producers*((sent+i)%own)
			l.sent[lane]++
			l.fill(&batch[i], lane, l.sent[lane])
		}
		dropped, err := l.system.enqueue(ctx, batch...)
		if err != nil {
			return err
		}
		l.dropped.Add(int64(dropped))
		sent += len(batch)
	}
	return nil
}

// fill makes job the one of that number in its lane.
func (l *load) fill(job *queue.Job, lane int, number int64) {
	job.Group, job.Key = l.lanes[lane].group, l.lanes[lane].key
	stamp(job.Payload, lane, number)
	if l.dedupe {
		job.DedupeKey = dedupeKey(lane, number)
	}
}

// dedupeKey looks like the UUID that comes with a webhook.
func dedupeKey(lane int, number int64) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", lane, number)
}

// repeat sends the first jobs of some lanes again, none of which may be accepted.
func (l *load) repeat(ctx context.Context) error {
	jobs := make([]queue.Job, min(batchJobs, len(l.lanes)))
	for i := range jobs {
		jobs[i] = queue.Job{Kind: topic, Payload: bytes.Clone(l.tally.want)}
		l.fill(&jobs[i], i, 1)
	}
	n, err := l.system.enqueue(ctx, jobs...)
	if n != len(jobs) && l.err == nil {
		l.err = fmt.Errorf("%d jobs of %d were accepted a second time", len(jobs)-n, len(jobs))
	}
	return err
}

// work runs a worker until all jobs are settled, or until none has run for stall.
func (l *load) work(ctx context.Context, stall time.Duration) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- l.system.work(running, l.tally.take) }()
	if !l.tally.wait(ctx, l.total, stall) && ctx.Err() == nil {
		l.err = fmt.Errorf("no job ran for %v", stall)
	}
	l.ran = time.Since(start)
	stop() // what has run is settled before Run returns
	return <-ended
}

// problem says why the load's figures mean nothing, if they don't.
func (l *load) problem(ctx context.Context) error {
	var dropped error
	if n := l.dropped.Load(); n > 0 {
		dropped = fmt.Errorf("%d jobs were taken for others", n)
	}
	return errors.Join(l.err, dropped, l.tally.problem(l.total), l.system.holds(ctx, 0))
}

// checkStats says what a queue holds, if that is not what it should.
func checkStats(got, want queue.Stats) error {
	got.Now = want.Now
	if got == want {
		return nil
	}
	describe := func(s queue.Stats) string {
		return fmt.Sprintf("%d jobs in lanes, %d held, %d waiting, %d scheduled, %d dead, %d groups parked", s.Jobs, s.Held, s.Waiting, s.Scheduled, s.Dead, s.Parked)
	}
	return fmt.Errorf("the queue holds %s; want %s", describe(got), describe(want))
}

// stampLen is how many bytes of a payload say which job it is.
const stampLen = 16

func stamp(body []byte, lane int, number int64) {
	binary.BigEndian.PutUint64(body, uint64(lane))       //nolint:gosec // an index
	binary.BigEndian.PutUint64(body[8:], uint64(number)) //nolint:gosec // a count
}

// tally counts the jobs that run and sees whether they are the right ones in the right order. It does no more
// than that: the handler is meant to be empty.
type tally struct {
	want  []byte         // a payload but for its stamp
	last  []atomic.Int64 // by lane: the number of the last job that ran
	ran   atomic.Int64
	wrong atomic.Int64  // not the next of their lane
	seen  []atomic.Bool // by number and lane: the jobs that ran, where they may do so in any order; nil where they may not
	bad   atomic.Int64  // not what was sent

	until atomic.Int64  // how many are to run
	all   chan struct{} // they have
	room  chan struct{} // has an entry for every batchJobs that are on their way
}

func newTally(lanes int) *tally {
	return &tally{want: payload(jobBytes), last: make([]atomic.Int64, lanes), all: make(chan struct{}, 1), room: make(chan struct{}, backlog)}
}

func (t *tally) take(body []byte) {
	n := t.ran.Add(1)
	if len(body) != len(t.want) || n%sampleEvery == 0 && !bytes.Equal(body[stampLen:], t.want[stampLen:]) {
		t.bad.Add(1)
	} else {
		lane, number := binary.BigEndian.Uint64(body), int64(binary.BigEndian.Uint64(body[8:])) //nolint:gosec // a count
		if lane >= uint64(len(t.last)) || !t.isNext(int(lane), number) {                        //nolint:gosec // an index
			t.wrong.Add(1)
		}
	}
	if n%batchJobs == 0 {
		select {
		case <-t.room:
		default:
		}
	}
	if n == t.until.Load() {
		select {
		case t.all <- struct{}{}:
		default:
		}
	}
}

// anyOrder is for systems that promise none: so many jobs of each lane may then run in any, but each once.
func (t *tally) anyOrder(numbers int) { t.seen = make([]atomic.Bool, numbers*len(t.last)) }

func (t *tally) isNext(lane int, number int64) bool {
	if t.seen == nil {
		return t.last[lane].CompareAndSwap(number-1, number)
	}
	at := (number-1)*int64(len(t.last)) + int64(lane)
	return at >= 0 && at < int64(len(t.seen)) && t.seen[at].CompareAndSwap(false, true)
}

// wait waits until so many jobs have run in all. It says false if none did for stall, or if ctx has ended.
func (t *tally) wait(ctx context.Context, until int64, stall time.Duration) bool {
	t.until.Store(until)
	look := time.NewTicker(stall)
	defer look.Stop()
	for last := t.ran.Load(); t.ran.Load() < until; {
		select {
		case <-t.all:
		case <-look.C:
			ran := t.ran.Load()
			if ran == last {
				return false
			}
			last = ran
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (t *tally) problem(sent int64) error {
	var problems []error
	if n := t.ran.Load(); n != sent {
		problems = append(problems, fmt.Errorf("%d jobs ran of %d", n, sent))
	}
	if n := t.wrong.Load(); n > 0 {
		problems = append(problems, fmt.Errorf("%d jobs ran twice or out of order", n))
	}
	if n := t.bad.Load(); n > 0 {
		problems = append(problems, fmt.Errorf("%d jobs had a wrong payload", n))
	}
	return errors.Join(problems...)
}
