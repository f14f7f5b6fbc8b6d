package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	driven = "default" // queue of a drive
	// drivenProcess is as long as a worker's: it is part of each token.
	drivenProcess = "06H5D1V3B0J9E8K2N7R4S6T8AA"
	// farAway is longer than any run and shorter than a job's deadline.
	farAway = 24 * time.Hour

	// The first half of an ID says whose it is: a lane's, from 0, or one of these.
	batchIDs = 1 << 32
	restIDs  = 1 << 33
	idLane   = 10 // digits
	idNumber = 16

	fillJobs     = 1 << 10 // of an Enqueue that is not measured
	parkedGroups = 1000
)

// calls is how many jobs go into one call of a broker.
type calls struct{ enqueue, claim int }

func (c calls) String() string { return fmt.Sprintf("%d a call", c.claim) }

// drive calls a broker as one producer and one worker do, but from one goroutine and with nothing around it.
// What it claims it settles with the next Claim, and it enqueues as much as it claims, so that what is queued
// stays the same.
type drive struct {
	broker backend
	lanes  []laneName
	sent   []int64 // by lane: how many jobs
	got    []int64 // by lane: how many came back
	next   int     // lane of the next job
	body   []byte
	dedupe bool // each job has a key that no other has

	number  uint64 // of the last call
	entries []queue.Entry
	batches []queue.Batch
	held    []queue.Settlement // of what the last Claim gave
	given   [][]queue.Lease    // that are not checked yet
	checked int

	costs costs
	err   error // the first thing that went wrong, after which it does no more
}

// costs are nanoseconds a job, by measurement.
type costs struct{ enqueue, claim, all []float64 }

// population is what a queue holds while jobs go through it.
type population struct {
	lanes, groups int // that jobs go through
	backlog       int // jobs in these, evenly; fewer than lanes leave some of them empty at a time
	waiting       int // lanes beside these whose head is snoozed
	scheduled     int // jobs beside these
	parked        int // lanes beside these, of one job that is ready, in parkedGroups groups that are parked
	dedupe        bool
}

func newDrive(ctx context.Context, broker backend, p population) *drive {
	d := &drive{broker: broker, lanes: laneNames(p.lanes, p.groups), sent: make([]int64, p.lanes), got: make([]int64, p.lanes),
		body: payload(jobBytes), dedupe: p.dedupe}
	d.rest(ctx, p.waiting, 1, 0)
	for left := p.waiting; left > 0 && d.err == nil; left -= claimJobs {
		d.claim(ctx, claimJobs)
		for i := range d.held {
			d.held[i].Action, d.held[i].After = queue.Snooze, farAway
		}
	}
	d.claim(ctx, 0)
	d.given = nil
	d.rest(ctx, p.scheduled, 1, farAway)
	for i := range min(p.parked, parkedGroups) {
		if d.err == nil {
			d.err = d.broker.Park(ctx, driven, restGroups(i), farAway)
		}
	}
	d.rest(ctx, p.parked, parkedGroups, 0)
	for left := p.backlog; left > 0; left -= fillJobs {
		d.build(min(left, fillJobs), fillJobs)
		d.enqueue(ctx, d.batches[0])
	}
	if d.next == 0 { // a lane that is claimed right after it got a job would still be in the caches
		d.next = p.lanes / 2
	}
	return d
}

// rest enqueues jobs that are to stay, each with a key of its own.
func (d *drive) rest(ctx context.Context, jobs, groups int, delay time.Duration) {
	for i := range jobs {
		e := d.entry(laneName{restGroups(i % groups), fmt.Sprintf("%013d", i)}, restIDs+int64(i), int64(delay)+int64(groups))
		e.Job.Delay = delay
		if d.entries = append(d.entries, e); len(d.entries) == fillJobs || i == jobs-1 {
			d.enqueue(ctx, queue.Batch{ID: d.batchID(), Jobs: d.entries})
			d.entries = d.entries[:0]
		}
	}
}

func restGroups(i int) string { return fmt.Sprintf("shop-that-waits-%06d.myshopify.com", i) }

// entry is a job as Queue would make it.
func (d *drive) entry(l laneName, whose, number int64) queue.Entry {
	id, dedupe := drivenID(whose, number), ""
	if d.dedupe {
		dedupe = id
	}
	return queue.Entry{Job: queue.Job{
		ID: id, Kind: topic, Payload: d.body, Group: l.group, Key: l.key,
		DedupeKey: dedupe, DedupeFor: 48 * time.Hour, MaxAttempts: 30, MaxCrashes: 5, Deadline: 72 * time.Hour, StatusFor: 24 * time.Hour,
	}}
}

func drivenID(whose, number int64) string {
	const digits = "0123456789abcdef"
	var b [idLane + idNumber]byte
	for i := idLane - 1; i >= 0; i-- {
		b[i], whose = digits[whose&15], whose>>4
	}
	for i := len(b) - 1; i >= idLane; i-- {
		b[i], number = digits[number&15], number>>4
	}
	return string(b[:])
}

func (d *drive) batchID() string {
	d.number++
	return drivenID(batchIDs, int64(d.number)) //nolint:gosec // a count
}

// build makes batches of the next jobs.
func (d *drive) build(jobs, size int) {
	d.entries, d.batches = d.entries[:0], d.batches[:0]
	for range jobs {
		d.sent[d.next]++
		d.entries = append(d.entries, d.entry(d.lanes[d.next], int64(d.next), d.sent[d.next]))
		d.next = (d.next + 1) % len(d.lanes)
	}
	for at := 0; at < jobs; at += size {
		d.batches = append(d.batches, queue.Batch{ID: d.batchID(), Jobs: d.entries[at:min(at+size, jobs)]})
	}
}

func (d *drive) enqueue(ctx context.Context, batch queue.Batch) {
	if d.err == nil {
		_, d.err = d.broker.Enqueue(ctx, driven, batch)
	}
}

// claim settles what is held and claims up to most jobs.
func (d *drive) claim(ctx context.Context, most int) (n int) {
	if d.err != nil {
		return 0
	}
	d.number++
	claimed, err := d.broker.Claim(ctx, driven, queue.Call{Process: drivenProcess, Number: d.number, Settle: d.held, Max: most, Lease: time.Hour})
	if err != nil {
		d.err = err
		return 0
	}
	if len(claimed.Lost)+len(claimed.Died) > 0 {
		d.err = fmt.Errorf("a Claim lost %d leases and %d jobs died", len(claimed.Lost), len(claimed.Died))
	}
	d.held = d.held[:0]
	for i := range claimed.Jobs {
		d.held = append(d.held, queue.Settlement{Token: claimed.Jobs[i].Token, Action: queue.Ack})
	}
	d.given = append(d.given, claimed.Jobs)
	return len(claimed.Jobs)
}

// takeTurns has drives take turns in random order: so the noise of the machine hits all alike.
func takeTurns(ctx context.Context, drives []*drive, rounds int, c calls, measurements, jobs int) error {
	order := slices.Clone(drives)
	for range rounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, d := range order {
			if d.turn(ctx, c, measurements, jobs); ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// turn takes some measurements of so many jobs each. It starts with the garbage of the others collected, and with
// a few jobs that fill the caches again.
func (d *drive) turn(ctx context.Context, c calls, measurements, jobs int) {
	runtime.GC()
	for range 4 {
		d.chunk(ctx, c)
	}
	for range measurements {
		var enqueue, claim time.Duration
		for range jobs / batchJobs {
			e, c := d.chunk(ctx, c)
			enqueue, claim = enqueue+e, claim+c
		}
		d.costs.enqueue = append(d.costs.enqueue, float64(enqueue)/float64(jobs))
		d.costs.claim = append(d.costs.claim, float64(claim)/float64(jobs))
		d.costs.all = append(d.costs.all, float64(enqueue+claim)/float64(jobs))
	}
	d.claim(ctx, 0)
}

// chunk enqueues batchJobs jobs and claims as many. What it took is without making and checking them. Where the
// calls come one by one, claim stands for both: a clock that is read in between would cost too much.
func (d *drive) chunk(ctx context.Context, c calls) (enqueue, claim time.Duration) {
	d.build(batchJobs, c.enqueue)
	start := time.Now()
	begun := start
	claimed := 0
	for i := range d.batches {
		d.enqueue(ctx, d.batches[i])
		if len(d.batches) == 1 {
			begun = time.Now()
		}
		for range c.enqueue / c.claim {
			claimed += d.claim(ctx, c.claim)
		}
	}
	end := time.Now()
	if claimed != batchJobs && d.err == nil {
		d.err = fmt.Errorf("a broker gave %d of %d jobs", claimed, batchJobs)
	}
	d.check()
	return begun.Sub(start), end.Sub(begun)
}

// check sees whether what was claimed is what was sent, in the order of the lanes.
func (d *drive) check() {
	for _, leases := range d.given {
		for i := range leases {
			job := &leases[i].Job
			var lane, number int64
			if len(job.ID) == idLane+idNumber {
				lane, _ = strconv.ParseInt(job.ID[:idLane], 16, 64)
				number, _ = strconv.ParseInt(job.ID[idLane:], 16, 64)
			}
			d.checked++
			switch {
			case d.err != nil:
				return
			case lane < 0 || lane >= int64(len(d.lanes)) || job.Key != d.lanes[lane].key || job.Group != d.lanes[lane].group:
				d.err = fmt.Errorf("a Claim gave job %q of group %q and key %q, which is not what was sent", job.ID, job.Group, job.Key)
			case number != d.got[lane]+1:
				d.err = fmt.Errorf("a Claim gave job %d of its lane after job %d", number, d.got[lane])
			case len(job.Payload) != len(d.body) || d.checked%sampleEvery == 0 && !bytes.Equal(job.Payload, d.body):
				d.err = errors.New("a Claim gave a wrong payload")
			default:
				d.got[lane] = number
			}
		}
	}
	d.given = d.given[:0]
}

// finish takes out all that can be claimed and says why the drive's figures mean nothing, if they don't.
// rest is what should be left.
func (d *drive) finish(ctx context.Context, rest queue.Stats) error {
	for d.claim(ctx, claimJobs) > 0 {
		d.check()
	}
	if d.err != nil {
		return d.err
	}
	if n := d.queued(); n != 0 {
		return fmt.Errorf("%d jobs never came back", n)
	}
	return d.leave(ctx, rest)
}

// queued is how many jobs should be in the lanes.
func (d *drive) queued() (n int64) {
	for i := range d.sent {
		n += d.sent[i] - d.got[i]
	}
	return n
}

// leave says why the drive's figures mean nothing, if they don't, and leaves what is queued where it is. rest is what should be there
// beside it.
func (d *drive) leave(ctx context.Context, rest queue.Stats) error {
	if d.err != nil {
		return d.err
	}
	stats, err := d.broker.Stats(ctx, driven)
	if err != nil {
		return err
	}
	rest.Jobs += int(d.queued())
	return checkStats(stats, rest)
}
