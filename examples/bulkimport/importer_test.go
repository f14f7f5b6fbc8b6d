package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errKilled = errors.New("killed")

// An import that ended anywhere goes on where it was, in a process that knows nothing but the file.
func TestResume(t *testing.T) {
	t.Parallel()
	o := options{DB: filepath.Join(t.TempDir(), "imports.db")}
	s := generate(4*chunkRows+17, 8)
	var seen []int // percents: where each run began, and where it was killed
	for killed := 0; ; killed++ {
		r := newRig(t, o)
		rounds := 0
		_, err := importer{r.store, 0}.run(t.Context(), "1", s.csv, func(percent int, _ string) error {
			seen = append(seen, percent)
			if rounds++; rounds == 2 { // after one chunk
				return errKilled
			}
			return nil
		})
		if err == nil {
			assert.Equal(t, 5, killed)
			break
		}
		require.ErrorIs(t, err, errKilled)
	}
	require.Len(t, seen, 11)
	for i := 1; i < len(seen); i += 2 {
		assert.Less(t, seen[i-1], seen[i])
		assert.Equal(t, seen[i], seen[i+1], "it goes on where it was")
	}
	newRig(t, o).imported("1", s)
}

// Two workers have the same import, which happens when one was taken for dead and was not. They are at each chunk at the same time, and it
// is imported by one of them.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	o := options{DB: filepath.Join(t.TempDir(), "imports.db")}
	s := generate(6*chunkRows, 9)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	meet := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		r := newRig(t, o)
		wg.Go(func() {
			defer cancel() // who fails leaves the other nobody to meet
			rounds := 0
			p, err := importer{r.store, 0}.run(t.Context(), "1", s.csv, func(int, string) error {
				rounds++
				select {
				case meet <- struct{}{}:
				case <-meet:
				case <-ctx.Done():
				}
				return nil
			})
			assert.NoError(t, err)
			assert.Equal(t, position{place{len(s.csv), p.Line}, len(s.good), len(s.bad)}, p)
			assert.Equal(t, 7, rounds)
		})
	}
	wg.Wait()
	newRig(t, o).imported("1", s)
}

// A worker that comes late with a chunk that another has saved changes nothing.
func TestLateChunk(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := generate(2*chunkRows, 10)
	f, err := newFile(s.csv)
	require.NoError(t, err)
	require.NoError(t, r.begin(t.Context(), "1", f.first))
	rows := f.chunk(chunkRows)
	for _, want := range []bool{true, false} {
		saved, err := r.save(t.Context(), "1", f.first, f.place, &f.columns, rows)
		require.NoError(t, err)
		require.Equal(t, want, saved)
	}
	p, err := r.position(t.Context(), "1")
	require.NoError(t, err)
	require.Equal(t, chunkRows, p.Imported+p.Bad)
	good, err := r.products(t.Context(), "1")
	require.NoError(t, err)
	require.Equal(t, s.good[:p.Imported], good)
}

// A chunk that fails at one of its last rows leaves nothing, neither rows nor a position.
func TestChunkIsOneStep(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := generate(100, 11)
	_, err := r.db.ExecContext(t.Context(), "CREATE TRIGGER full BEFORE INSERT ON import_rows WHEN (SELECT count(*) FROM import_rows) = 90 BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
	require.NoError(t, err)
	im := importer{r.store, 0}
	report := func(int, string) error { return nil }
	_, err = im.run(t.Context(), "1", s.csv, report)
	require.ErrorContains(t, err, "the disk is full")
	r.imported("1", sample{})
	_, err = r.db.ExecContext(t.Context(), "DROP TRIGGER full")
	require.NoError(t, err)
	_, err = im.run(t.Context(), "1", s.csv, report)
	require.NoError(t, err)
	r.imported("1", s)
}

// A worker that has lost its job or is told to stop says why, and does no more.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := importer{r.store, 0}.run(ctx, "1", generate(300, 1).csv, func(int, string) error {
		cancel(errKilled)
		return nil
	})
	require.ErrorIs(t, err, errKilled)
	r.imported("1", sample{})
}
