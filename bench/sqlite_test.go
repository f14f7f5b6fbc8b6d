package main

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

// tinyFile is a run that takes little time and measures nothing.
var tinyFile = fileSizes{
	rounds: 1, jobs: 4 * batchJobs, first: batchJobs, alone: batchJobs, syncs: time.Millisecond, noDisk: 1e9, rate: 1000, trickle: 20,
	turn: batchJobs, points: []int{100, 200}, refills: 2, fill: batchJobs, stall: 10 * time.Second,
}

// faultyFiles opens files whose engine has a fault.
func faultyFiles(t *testing.T, f faulty) *fileBench {
	t.Helper()
	sizes := tinyFile
	sizes.stall = 300 * time.Millisecond
	return &fileBench{rep: &report{out: io.Discard}, dir: t.TempDir(), sizes: sizes, open: func(path string) (*file, error) {
		opened, err := openFile(path)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = opened.db.Close() })
		engine := f
		engine.backend = opened.backend
		opened.backend = &engine
		return opened, nil
	}}
}

func TestFaultyFileIsInvalid(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{
		"loses a job":          "the queue holds 315 jobs in lanes",
		"runs a job twice":     "ran twice or out of order",
		"turns an order round": "ran twice or out of order",
		"keeps a job":          "5 scheduled",
		"buries a job":         "dead, 0 groups",
		"cuts payloads":        "had a wrong payload",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := faultyFiles(t, faults()[what].engine)
			// A batch has two of each lane.
			s := &stored{load: makeLoad(laneNames(32, 2), 1, batchJobs), path: b.path("faulty")}
			require.NoError(t, b.enqueue(t.Context(), s, 4*batchJobs))
			problem, err := b.problem(t.Context(), s.load, s.path)
			require.NoError(t, err)
			require.ErrorContains(t, problem, want)
		})
	}
}

func TestEngineThatKeepsNothingIsInvalid(t *testing.T) {
	t.Parallel()
	opened := 0
	b := faultyFiles(t, faulty{})
	whole := b.open
	b.open = func(path string) (*file, error) {
		f, err := whole(path)
		if opened++; opened == 1 { // those who open the file anew see what is in it
			f.backend = new(queue.Memory)
		}
		return f, err
	}
	s := b.newStored("forgetful", batchJobs, 1)
	require.NoError(t, b.enqueue(t.Context(), s, batchJobs))
	problem, err := b.problem(t.Context(), s.load, s.path)
	require.NoError(t, err)
	require.ErrorContains(t, problem, "the queue holds 0 jobs in lanes")
}

func TestFaultyPickUpIsInvalid(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{
		"loses a job":   "0 jobs ran of 20",
		"cuts payloads": "and 20 others or again",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := faultyFiles(t, faults()[what].engine)
			f, err := b.keep(b.path("faulty"))
			require.NoError(t, err)
			q, err := newQueues(f, f)
			require.NoError(t, err)
			p := &pickUp{system: q, rate: 1000}
			require.NoError(t, p.round(t.Context(), 20, 300*time.Millisecond))
			require.ErrorContains(t, p.problem, want)
		})
	}
	b := faultyFiles(t, faulty{settle: func(settle []queue.Settlement) {
		settle[0].Action = queue.Release
	}})
	f, err := b.keep(b.path("faulty"))
	require.NoError(t, err)
	q, err := newQueues(f, f)
	require.NoError(t, err)
	p := &pickUp{system: q, rate: 1000}
	require.NoError(t, p.round(t.Context(), 20, 300*time.Millisecond))
	require.ErrorContains(t, p.problem, "others or again")
}

// unparked is an engine that forgets what is parked.
type unparked struct{ backend }

func (unparked) Park(context.Context, string, string, time.Duration) error { return nil }

func TestDriveSeesWhatIsParked(t *testing.T) {
	t.Parallel()
	p := population{lanes: 100, groups: 10, backlog: 200, parked: 2000}
	rest := queue.Stats{Jobs: 2000, Parked: parkedGroups}
	d := newDrive(t.Context(), new(queue.Memory), p)
	d.turn(t.Context(), bulk, 1, batchJobs)
	require.NoError(t, d.finish(t.Context(), rest))
	d = newDrive(t.Context(), unparked{new(queue.Memory)}, p)
	d.turn(t.Context(), bulk, 1, batchJobs)
	require.ErrorContains(t, d.finish(t.Context(), rest), "not what was sent")
}

func TestBareMissesRows(t *testing.T) {
	t.Parallel()
	b, err := newBare(t.Context(), t.TempDir(), 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.db.Close()) })
	require.NoError(t, b.turn(t.Context(), 8))
	require.NoError(t, b.problem)
	require.NoError(t, b.transact(t.Context(), b.insert, b.body)) // nobody deletes these
	require.NoError(t, b.check(t.Context(), 3))
	require.ErrorContains(t, b.problem, "has 2 rows and 2048 bytes; want 3 rows")
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	assert.Zero(t, quantile(nil, 0.5))
	values := []float64{4, 1, 3, 2}
	for share, want := range map[float64]float64{0: 1, 0.25: 1, 0.5: 2, 0.51: 3, 0.99: 4, 1: 4} {
		assert.InDelta(t, want, quantile(values, share), 0, share)
	}
}

func TestMemoryIsNoDisk(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := &fileBench{rep: &report{out: &out}, dir: t.TempDir(), open: openFile, sizes: tinyFile}
	b.sizes.noDisk = 1
	require.NoError(t, b.throughput(t.Context()))
	require.NoError(t, b.close())
	require.ErrorIs(t, b.rep.finish(), errInvalid)
	require.NotContains(t, out.String(), " met\n")
	require.Contains(t, out.String(), "name a directory on one with -dir")
}

func TestSQLiteRuns(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	dir := t.TempDir()
	b := &fileBench{rep: &report{out: &out, json: true}, dir: dir, open: openFile, sizes: tinyFile}
	require.NoError(t, b.run(t.Context()))
	assert.Equal(t, 5+7+4+3+(2+3)+3*(2+1), validRows(t, &out))
	left, err := filepath.Glob(filepath.Join(dir, "backlog-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}
