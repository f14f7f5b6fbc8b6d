package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

// faulty is an engine that does something wrong with what it is given, or with what it gives.
type faulty struct {
	backend
	enqueue func([]queue.Entry) []queue.Entry
	settle  func([]queue.Settlement)
	claimed func([]queue.Lease)
	wait    func(context.Context) error
}

func (f *faulty) Enqueue(ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
	if f.enqueue != nil {
		batch.Jobs = f.enqueue(slices.Clone(batch.Jobs))
	}
	return f.backend.Enqueue(ctx, name, batch)
}

func (f *faulty) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	if f.settle != nil && len(call.Settle) > 0 {
		call.Settle = slices.Clone(call.Settle)
		f.settle(call.Settle)
	}
	claimed, err := f.backend.Claim(ctx, name, call)
	if f.claimed != nil {
		f.claimed(claimed.Jobs)
	}
	return claimed, err
}

func (f *faulty) Wait(ctx context.Context, name string, partition int) error {
	if f.wait != nil {
		return f.wait(ctx)
	}
	return f.backend.Wait(ctx, name, partition)
}

// fault is a faulty engine and what must be said of it where it is behind a worker, and where it is driven alone.
type fault struct {
	engine        faulty
	worker, drive string
}

// faults has each by what is wrong.
func faults() map[string]fault {
	return map[string]fault{
		"loses a job": {faulty{enqueue: func(jobs []queue.Entry) []queue.Entry {
			return jobs[1:]
		}}, "no job ran for", "gave job 2 of its lane after job 0"},
		"runs a job twice": {faulty{settle: func(settle []queue.Settlement) {
			settle[0].Action = queue.Release
		}}, "ran twice or out of order", "gave job 1 of its lane after job 1"},
		"turns an order round": {faulty{enqueue: func(jobs []queue.Entry) []queue.Entry {
			slices.Reverse(jobs)
			return jobs
		}}, "ran twice or out of order", "of its lane after job 0"},
		"keeps a job": {faulty{enqueue: func(jobs []queue.Entry) []queue.Entry {
			one := jobs[0]
			one.Job.Delay = time.Hour
			return append(jobs, one)
		}}, "scheduled, 0 dead", "scheduled, 0 dead"},
		"buries a job": {faulty{settle: func(settle []queue.Settlement) {
			settle[0].Action = queue.Kill
		}}, "dead, 0 groups", "jobs died"},
		"cuts payloads": {faulty{claimed: func(leases []queue.Lease) {
			for i := range leases {
				leases[i].Job.Payload = leases[i].Job.Payload[:512]
			}
		}}, "had a wrong payload", "gave a wrong payload"},
		"changes payloads": {faulty{claimed: func(leases []queue.Lease) {
			for i := range leases {
				leases[i].Job.Payload = bytes.ToUpper(leases[i].Job.Payload)
				copy(leases[i].Job.Payload, make([]byte, 8)) // any stamp will do
			}
		}}, "had a wrong payload", "gave a wrong payload"},
		"gives another's job": {faulty{claimed: func(leases []queue.Lease) {
			for i := range leases {
				leases[i].Job.Group = "other"
			}
		}}, "", "not what was sent"},
	}
}

func TestFaultyEngineIsInvalid(t *testing.T) {
	t.Parallel()
	for what, f := range faults() {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if f.worker != "" {
				engine := f.engine
				engine.backend = new(queue.Memory)
				l, err := newLoad(&engine, laneNames(32, 2), 1, batchJobs) // a batch has two of each lane
				require.NoError(t, err)
				require.NoError(t, l.round(t.Context(), 16*batchJobs, 200*time.Millisecond))
				require.ErrorContains(t, l.problem(t.Context()), f.worker)
			}
			engine := f.engine
			engine.backend = new(queue.Memory)
			d := newDrive(t.Context(), &engine, population{lanes: 63, groups: 3, backlog: 6300})
			d.turn(t.Context(), bulk, 1, 16*batchJobs)
			require.ErrorContains(t, d.finish(t.Context(), queue.Stats{}), f.drive)
		})
	}
}

func TestDriveMissesWhatIsLost(t *testing.T) {
	t.Parallel()
	engine := &faulty{backend: new(queue.Memory)}
	d := newDrive(t.Context(), engine, population{lanes: 100, groups: 1, backlog: 100})
	engine.enqueue = func(jobs []queue.Entry) []queue.Entry { return jobs[1:] }
	d.build(batchJobs, batchJobs)
	d.enqueue(t.Context(), d.batches[0])
	require.ErrorContains(t, d.finish(t.Context(), queue.Stats{}), "1 jobs never came back")
}

// tiny is a run that takes no time and measures nothing.
var tiny = queueSizes{rounds: 1, jobs: batchJobs * batchJobs, turn: turnParts * batchJobs, points: []int{1, 100}, heapJobs: 1000, shops: 10, idle: 50 * time.Millisecond, stall: 10 * time.Second}

func TestFaultyEngineFailsTheRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	sizes := tiny
	sizes.stall = 200 * time.Millisecond
	b := &queueBench{rep: &report{out: &out}, engine: "faulty", sizes: sizes, open: func() backend {
		f := faults()["keeps a job"].engine
		f.backend = new(queue.Memory)
		return &f
	}}
	require.ErrorIs(t, b.run(t.Context()), errInvalid)
	require.Contains(t, out.String(), " invalid ")
	require.NotContains(t, out.String(), " met\n")
}

//nolint:paralleltest // it counts what is the process's
func TestQueueRuns(t *testing.T) {
	var out bytes.Buffer
	b := &queueBench{rep: &report{out: &out, json: true}, engine: "memory", sizes: tiny, open: func() backend { return new(queue.Memory) }}
	require.NoError(t, b.run(t.Context()))
	assert.Equal(t, 5+2*(2+1)+(2+1)+2*3+3+3, validRows(t, &out))
}

// validRows counts the rows of a run, all of which must be valid.
func validRows(t *testing.T, out io.Reader) (n int) {
	t.Helper()
	for dec := json.NewDecoder(out); dec.More(); n++ {
		var got struct {
			Case       string
			Ours, Peer float64
			Ratio      float64 // "invalid" does not decode
		}
		require.NoError(t, dec.Decode(&got))
		assert.Positive(t, got.Peer, got.Case)
		assert.InDelta(t, got.Ours/got.Peer, got.Ratio, 1e-9, got.Case)
	}
	return n
}

// watched is what watch sees of an engine with a fault.
func watched(t *testing.T, shops int, f *faulty) quiet {
	t.Helper()
	f.backend = new(queue.Memory)
	b := &queueBench{sizes: tiny, open: func() backend { return f }}
	seen, err := b.watch(t.Context(), shops, 300*time.Millisecond)
	require.NoError(t, err)
	require.NoError(t, seen.problem)
	return seen
}

//nolint:paralleltest // it counts what is the process's
func TestWatchSeesWhatIsNotIdle(t *testing.T) {
	idle := watched(t, 1, &faulty{})
	assert.Zero(t, idle.calls)

	polls := watched(t, 1, &faulty{wait: func(context.Context) error { return nil }})
	assert.Greater(t, polls.calls, int64(3))

	const shops = 100
	grows := watched(t, shops, &faulty{enqueue: func(jobs []queue.Entry) []queue.Entry {
		for _, e := range jobs {
			if e.Job.Delay > 0 {
				timer := time.AfterFunc(time.Hour, func() {})
				t.Cleanup(func() { timer.Stop() })
				go func() { <-t.Context().Done() }()
			}
		}
		return jobs
	}})
	assert.GreaterOrEqual(t, grows.timers, idle.timers+shops)
	assert.GreaterOrEqual(t, grows.goroutines, idle.goroutines+shops)
}
