package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

// The test's binary is the server of its -kill run.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		return
	}
	// With modernc.org/sqlite built without -race, as the project's test command has it, the race detector can't see what sync.Map orders in the whole
	// program, and takes encoding/json's cache for a race. So the cache is filled before there is anybody to race with.
	_, _ = json.Marshal(status{Result: &result{FirstBad: []badRow{{}}}})
	_ = json.Unmarshal([]byte("{}"), new(status))
	os.Exit(m.Run())
}

// What a user runs, smaller: everything is checked by the program itself.
func TestDemo(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-rows", "2000", "-pace", "1ms", "-seed", "7"}, &out), "%s", &out)
	assert.Contains(t, out.String(), "100 %  2000 rows: ")
	assert.Contains(t, out.String(), "checked in the database: each of the ")
}

// The server is killed with SIGKILL in mid-import, and no row is lost or there twice.
func TestKill(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := options{Rows: 2500, Seed: 3, DB: filepath.Join(t.TempDir(), "kill.db"), Pace: 200 * time.Millisecond, Kills: 2}
	require.NoError(t, demo(t.Context(), o, &out), "%s", &out)
	assert.Equal(t, 2, strings.Count(out.String(), "SIGKILL"))
	assert.Contains(t, out.String(), "checked in the database")
}

// A demo whose import was over too soon says so: it has proved nothing.
func TestKillThatComesTooLate(t *testing.T) {
	t.Parallel()
	o := options{Rows: 10, Seed: 1, DB: filepath.Join(t.TempDir(), "late.db"), Pace: time.Millisecond, Kills: 3}
	require.ErrorContains(t, demo(t.Context(), o, io.Discard), "the import was over when the server had been killed")
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"-rows 0", "-serve -kill", "more"} {
		assert.Error(t, run(t.Context(), strings.Fields(args), io.Discard), args)
	}
}

func TestGenerateIsTheSeeds(t *testing.T) {
	t.Parallel()
	a := generate(1000, 1)
	assert.Equal(t, a, generate(1000, 1))
	assert.NotEqual(t, a, generate(1000, 2))
	assert.Len(t, append(a.good, make([]product, len(a.bad))...), 1000)
	f, err := newFile(a.csv)
	require.NoError(t, err)
	assert.Len(t, f.chunk(2000), 1000)
}

func TestBar(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for _, terminal := range []bool{true, false} {
		b := &bar{out: &out, terminal: terminal, tenth: -1}
		for _, percent := range []int{0, 0, 3, 50, 51, 100} {
			b.show(status{Status: "processing", Progress: percent})
		}
		b.say("done")
	}
	const line = "\r\x1b[K["
	assert.Equal(t, line+"........................]   0 %  processing"+line+"........................]   3 %  processing"+line+"############............]  50 %  processing"+
		line+"############............]  51 %  processing"+line+"########################] 100 %  processing\ndone\n"+
		"  0 %  processing\n 50 %  processing\n100 %  processing\ndone\n", out.String())
}

// rig is a service in this process: its API, and workers if they are started.
type rig struct {
	*service
	client
	t *testing.T
}

func newRig(t *testing.T, o options) *rig {
	t.Helper()
	if o.DB == "" {
		o.DB = filepath.Join(t.TempDir(), "imports.db")
	}
	s, err := open(o, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	web := httptest.NewServer(s.routes())
	t.Cleanup(func() {
		s.api.EndStreams()
		web.Close()
		assert.NoError(t, s.db.Close())
	})
	return &rig{s, client{web.URL}, t}
}

// start starts the workers, until the end of the test or until stop is called.
func (r *rig) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		assert.NoError(r.t, r.jobs.Run(ctx, r.work, queue.WorkerConfig{Lease: time.Second, Drain: 10 * time.Millisecond}))
	})
	stop = func() { cancel(); wg.Wait() }
	r.t.Cleanup(stop)
	return stop
}

// imported requires that an import has done exactly what it should have.
func (r *rig) imported(id string, s sample) {
	r.t.Helper()
	products, err := r.products(r.t.Context(), id)
	require.NoError(r.t, err)
	bad, err := r.service.badRows(r.t.Context(), id, -1)
	require.NoError(r.t, err)
	require.Equal(r.t, s.good, products)
	require.Equal(r.t, s.bad, bad)
}
