package integration_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

func TestBrokerSaysWhatIsWrongWithHowItWasMade(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "queue.db"))
	for want, b := range map[string]*sqlqueue.Broker{
		"db is nil": sqlqueue.New(nil, sqlqueue.Config{}),
		"Config.Synchronous is Synchronous(9); want Full, Normal or Off": sqlqueue.New(db, sqlqueue.Config{Synchronous: 9}),
		"Config.BusyTimeout is -1s":                                      sqlqueue.New(db, sqlqueue.Config{BusyTimeout: -time.Second}),
		"Config.MaxBytes is -1":                                          sqlqueue.New(db, sqlqueue.Config{MaxBytes: -1}),
		"Config.ReserveBytes is -1":                                      sqlqueue.New(db, sqlqueue.Config{ReserveBytes: -1}),
	} {
		_, err := queue.New(b, queue.Config{})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, b.Migrate(t.Context()), want)
	}
	for _, sync := range []sqlqueue.Synchronous{sqlqueue.Normal, sqlqueue.Off} {
		_, err := queue.New(sqlqueue.New(db, sqlqueue.Config{Synchronous: sync}), queue.Config{})
		require.ErrorIs(t, err, queue.ErrVolatile, "%v may lose what was acknowledged", sync)
	}
}

func TestDatabaseInMemoryIsRefused(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", ":memory:")
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // the test is over
	require.ErrorContains(t, sqlqueue.New(db, sqlqueue.Config{}).Migrate(t.Context()), "the database is in memory")
}

func TestOneConnectionIsEnough(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	s.db.SetMaxOpenConns(1)
	mux := queue.NewMux()
	mux.Handle("k", sqlqueue.InTx(s.broker, func(ctx context.Context, _ *sql.Tx, j queue.Job) error {
		if len(j.Payload) > 0 {
			return nil
		}
		_, err := s.jobs.Enqueue(ctx, queue.Job{Kind: "k", Payload: []byte("child")})
		return err
	}))
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), tx), queue.Job{Kind: "k"})
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	for range 20 {
		_, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "k"})
		require.NoError(t, err)
	}
	s.drain(t, mux)
}

func TestEveryCommitIsSynchronousWhateverTheConnectionWas(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	db := open(t, file+"?_pragma=synchronous(OFF)")
	q, err := queue.New(sqlqueue.New(db, sqlqueue.Config{NoReserve: true}), queue.Config{})
	require.NoError(t, err)
	db.SetMaxOpenConns(1) // so that the question below is put to the same one
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.NoError(t, err)
	var level int
	require.NoError(t, db.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&level))
	require.Equal(t, 2, level, "FULL")
}

func TestManyOpenOneNewFileAtOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			db, err := sql.Open("sqlite", "file:"+file)
			if !assert.NoError(t, err) {
				return
			}
			defer db.Close() //nolint:errcheck // the test is over
			q, err := queue.New(sqlqueue.New(db, sqlqueue.Config{NoReserve: true}), queue.Config{})
			assert.NoError(t, err)
			_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k", Key: strconv.Itoa(i)})
			assert.NoError(t, err)
		})
	}
	all.Wait()
	s := newShop(t, file)
	stats, err := s.jobs.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 8, stats.Jobs)
}

func TestFileOfALaterVersionIsRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	s := newShop(t, file)
	_, err := s.db.ExecContext(t.Context(), "INSERT INTO breakwater_migrations (version, readable) VALUES (1000, 1)")
	require.NoError(t, err)
	newShop(t, file) // of a later version that this one can read
	_, err = s.db.ExecContext(t.Context(), "INSERT INTO breakwater_migrations (version, readable) VALUES (1001, 1001)")
	require.NoError(t, err)
	late := sqlqueue.New(s.db, sqlqueue.Config{})
	require.ErrorIs(t, late.Migrate(t.Context()), sqlqueue.ErrNewerSchema)
	_, err = late.Enqueue(t.Context(), "default", queue.Batch{})
	require.ErrorIs(t, err, sqlqueue.ErrNewerSchema)
}

// TRAPS 8: what another process enqueues is found by looking.
func TestWorkerFindsWhatAnotherProcessEnqueues(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	receiver, worker := newShop(t, file), newShop(t, file)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	began := make(chan time.Time, 1)
	mux := queue.NewMux()
	mux.Handle("k", func(context.Context, queue.Job) error {
		began <- time.Now()
		return nil
	})
	ran := make(chan error, 1)
	go func() { ran <- worker.jobs.Run(ctx, mux, queue.WorkerConfig{}) }()
	for range 10 {
		sent := time.Now()
		_, err := receiver.jobs.Enqueue(ctx, queue.Job{Kind: "k"})
		require.NoError(t, err)
		require.Less(t, (<-began).Sub(sent), 2*time.Second, "it polls 20 times a second")
	}
	stop()
	require.NoError(t, <-ran)
}

func TestClockThatIsSetBackStopsNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	ctx := t.Context()
	_, err := s.jobs.Enqueue(ctx, queue.Job{Kind: "now"}, queue.Job{Kind: "soon", Delay: 300 * time.Millisecond})
	require.NoError(t, err)
	before, err := s.jobs.Stats(ctx)
	require.NoError(t, err)
	// The system's clock is two hours behind what it was.
	_, err = s.db.ExecContext(ctx, "UPDATE breakwater_space SET ahead = ahead - ?", (2 * time.Hour).Microseconds())
	require.NoError(t, err)
	after, err := s.jobs.Stats(ctx)
	require.NoError(t, err)
	require.False(t, after.Now.Before(before.Now), "the engine's clock went back from %v to %v", before.Now, after.Now)
	var ran []string
	mux := queue.NewMux()
	for _, kind := range []string{"now", "soon"} {
		mux.Handle(kind, func(context.Context, queue.Job) error {
			ran = append(ran, kind)
			return nil
		})
	}
	s.drain(t, mux) // what was due in 300 ms still is, not in two hours
	require.Equal(t, []string{"now", "soon"}, ran)
	end, err := s.jobs.Stats(ctx)
	require.NoError(t, err)
	require.WithinDuration(t, before.Now, end.Now, time.Minute)
}

// A WAL that ends in the middle of what was being written when the power went: what was committed before is there.
func TestTruncatedLogLosesOnlyWhatWasNotCommitted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "queue.db")
	s := newShop(t, file)
	var sizes []int64
	for i := range 20 {
		_, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "k", Key: "k", Payload: []byte(strconv.Itoa(i))})
		require.NoError(t, err)
		info, err := os.Stat(file + "-wal")
		require.NoError(t, err)
		sizes = append(sizes, info.Size())
	}
	for i, cut := range map[int]int64{19: sizes[19], 10: sizes[11] - 1, 5: sizes[5] + 3000, 15: sizes[15] + 24} {
		copied := filepath.Join(dir, fmt.Sprintf("copy%d.db", i))
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(file + suffix)
			require.NoError(t, err)
			if suffix != "" {
				b = b[:cut]
			}
			require.NoError(t, os.WriteFile(copied+suffix, b, 0o600)) //nolint:gosec // a directory of this test
		}
		c := newShop(t, copied)
		var ran []int
		mux := queue.NewMux()
		mux.Handle("k", func(_ context.Context, j queue.Job) error {
			n, err := strconv.Atoi(string(j.Payload))
			ran = append(ran, n)
			return err
		})
		c.drain(t, mux)
		require.Len(t, ran, i+1, "the log was cut to %d bytes", cut)
		for k := range ran {
			require.Equal(t, k, ran[k])
		}
	}
}

// TRAPS 16: finished_jobs_leave_nothing_behind_unless_asked.
func TestFinishedJobsLeaveNothingAndTheFileStaysAsItIs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	s := newShopWith(t, file, sqlqueue.Config{NoReserve: true, Synchronous: sqlqueue.Off}, queue.Config{AllowVolatile: true})
	mux := queue.NewMux()
	mux.Handle("k", func(context.Context, queue.Job) error { return nil })
	size := func() (total int64) {
		for _, suffix := range []string{"", "-wal"} {
			info, err := os.Stat(file + suffix)
			require.NoError(t, err)
			total += info.Size()
		}
		return total
	}
	var sizes []int64
	for round := range 8 {
		for i := range 10 {
			batch := make([]queue.Job, 50)
			for k := range batch {
				batch[k] = queue.Job{Kind: "k", Group: strconv.Itoa(k % 7), Key: strconv.Itoa(i*50 + k), Payload: make([]byte, 2000)}
			}
			_, err := s.jobs.Enqueue(t.Context(), batch...)
			require.NoError(t, err)
		}
		s.drain(t, mux)
		sizes = append(sizes, size())
		for _, table := range []string{"jobs", "records", "groups", "dedupe", "status", "intake"} {
			var n int
			require.NoError(t, s.db.QueryRowContext(t.Context(), "SELECT count(*) FROM breakwater_"+table).Scan(&n))
			require.Zero(t, n, "round %d leaves rows in breakwater_%s", round, table)
		}
	}
	require.LessOrEqual(t, sizes[7], sizes[3]*11/10, "the sizes after each round are %v", sizes)
}

func TestDedupeKeysAndStatusesEndByThemselves(t *testing.T) {
	t.Parallel()
	e := newTimed(t).(timed) //nolint:forcetypeassert // that is what it is
	q, err := queue.New(e, queue.Config{AllowVolatile: true})
	require.NoError(t, err)
	for i := range 300 {
		_, err := q.Enqueue(t.Context(), queue.Job{Kind: "k", DedupeKey: strconv.Itoa(i), DedupeFor: time.Hour, Track: true, StatusFor: time.Hour})
		require.NoError(t, err)
	}
	call := queue.Call{Process: "p", Lease: time.Hour}
	for range 11 {
		call.Number++
		call.Max = 32
		c, err := e.Claim(t.Context(), "default", call)
		require.NoError(t, err)
		call.Settle = nil
		for _, l := range c.Jobs {
			call.Settle = append(call.Settle, queue.Settlement{Token: l.Token, Action: queue.Ack})
		}
	}
	sleep(e, 2*time.Hour)
	for range 3 { // each step forgets some
		require.NoError(t, e.Pause(t.Context(), "default"))
	}
	for _, table := range []string{"dedupe", "status"} {
		var n int
		require.NoError(t, e.db.QueryRowContext(t.Context(), "SELECT count(*) FROM breakwater_"+table).Scan(&n))
		require.Zero(t, n, table)
	}
}

func TestCallThatIsGivenUpBeforeItsTurnChangesNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	_, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "busy"})
	require.NoError(t, err)
	mux := queue.NewMux()
	mux.Handle("busy", sqlqueue.InTx(s.broker, func(context.Context, *sql.Tx, queue.Job) error { // nothing else is written meanwhile
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		_, err := s.jobs.Enqueue(ctx, queue.Job{Kind: "given up"})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		return nil
	}))
	mux.Handle("given up", func(context.Context, queue.Job) error {
		assert.Fail(t, "it was never enqueued")
		return nil
	})
	s.drain(t, mux)
}

// TRAPS 10: broker_out_of_memory_refuses_the_enqueue_whole …
func TestFileOverItsBoundRefusesNewJobsWholeAndDrains(t *testing.T) {
	t.Parallel()
	s := newShopWith(t, filepath.Join(t.TempDir(), "queue.db"), sqlqueue.Config{NoReserve: true, MaxBytes: 2 << 20}, queue.Config{})
	fillAndDrain(t, s, 1<<20, 4<<20, func() {
		tx, err := s.db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), tx), queue.Job{Kind: "k"})
		require.ErrorIs(t, err, sqlqueue.ErrFull)
		require.NoError(t, tx.Rollback())
	})
}

// fillAndDrain enqueues until there is no room, after so many bytes, looks and then works.
func fillAndDrain(t testing.TB, s *shop, least, most int, look func()) {
	t.Helper()
	const size, perBatch = 8 << 10, 10
	batch := func() error {
		jobs := make([]queue.Job, perBatch)
		for i := range jobs {
			jobs[i] = queue.Job{Kind: "k", Group: strconv.Itoa(i), Payload: make([]byte, size)}
		}
		_, err := s.jobs.Enqueue(t.Context(), jobs...)
		return err
	}
	for round := range 2 {
		accepted := 0
		var err error
		for err == nil && accepted <= most/size {
			if err = batch(); err == nil {
				accepted += perBatch
			}
		}
		require.ErrorIs(t, err, sqlqueue.ErrFull, "round %d, after %d jobs", round, accepted)
		require.Greater(t, accepted, least/size)
		look()
		stats, err := s.jobs.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, accepted, stats.Jobs, "round %d: all of a batch or nothing", round)
		var mu sync.Mutex
		ran := 0
		mux := queue.NewMux()
		mux.Handle("k", func(context.Context, queue.Job) error {
			mu.Lock()
			defer mu.Unlock()
			ran++
			return nil
		})
		s.drain(t, mux)
		require.Equal(t, accepted, ran)
	}
}

// A file with jobs in every state, as a version of each format has written it. "go test -run Golden -update" writes a new one.
func TestGoldenFiles(t *testing.T) {
	t.Parallel()
	golden, err := filepath.Glob(filepath.Join("testdata", "sqlite", "v*.db"))
	require.NoError(t, err)
	require.NotEmpty(t, golden)
	for _, from := range golden {
		t.Run(filepath.Base(from), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "queue.db")
			b, err := os.ReadFile(from)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, b, 0o600)) //nolint:gosec // a directory of this test
			s := newShop(t, file)
			dead, err := s.jobs.Dead(t.Context(), queue.DeadFilter{})
			require.NoError(t, err)
			require.Len(t, dead, 1)
			require.Equal(t, "died", dead[0].Job.Kind)
			require.Equal(t, "it is over", dead[0].Error)
			require.Len(t, dead[0].Job.History, 1)
			n, err := s.jobs.Replay(t.Context(), queue.DeadFilter{})
			require.NoError(t, err)
			require.Equal(t, 1, n)
			st, err := s.jobs.Status(t.Context(), string(must(os.ReadFile(from+".done"))))
			if err == nil { // it ends by itself, a hundred years later
				require.Equal(t, queue.Succeeded, st.State)
				require.Equal(t, "result", string(st.Result))
			} else {
				require.ErrorIs(t, err, queue.ErrUnknownJob)
			}
			r, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "first", Group: "a.myshopify.com", DedupeKey: "taken"})
			require.NoError(t, err)
			require.True(t, r[0].Duplicate)
			var mu sync.Mutex
			ran := map[string]int{}
			mux := queue.NewMux()
			for _, kind := range []string{"first", "second", "leased", "waiting", "scheduled", "in a transaction", "died"} {
				mux.Handle(kind, func(_ context.Context, j queue.Job) error {
					mu.Lock()
					defer mu.Unlock()
					ran[kind+" "+string(j.Payload)]++
					return nil
				})
			}
			s.drain(t, mux)
			require.Equal(t, map[string]int{"first 1": 1, "second 2": 1, "leased 3": 1, "waiting 4": 1, "scheduled 5": 1, "in a transaction 6": 1, "died 7": 1}, ran)
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var update = flag.Bool("update", false, "write the golden file of the present format")

func TestGoldenUpdate(t *testing.T) {
	t.Parallel()
	if !*update {
		return
	}
	file := filepath.Join("testdata", "sqlite", "v1.db")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o750))
	require.NoError(t, os.RemoveAll(file))
	const forever = 100 * 365 * 24 * time.Hour
	func() {
		s := newShop(t, file)
		job := func(kind, payload string) queue.Job {
			return queue.Job{Kind: kind, Payload: []byte(payload), Group: "a.myshopify.com", Deadline: forever, MaxCrashes: 100, Headers: map[string]string{"shop": "a"}}
		}
		number := uint64(0)
		claim := func(settle ...queue.Settlement) queue.Lease {
			number++
			c, err := s.broker.Claim(t.Context(), "default", queue.Call{Process: "p", Number: number, Max: 1, Lease: time.Second, Settle: settle})
			require.NoError(t, err)
			require.Len(t, c.Jobs, 1)
			return c.Jobs[0]
		}
		put := func(j queue.Job) string {
			r, err := s.jobs.Enqueue(t.Context(), j)
			require.NoError(t, err)
			return r[0].ID
		}
		done := job("done", "0")
		done.Track, done.StatusFor = true, forever
		id := put(done)
		require.NoError(t, os.WriteFile(file+".done", []byte(id), 0o600))
		end := queue.Settlement{Token: claim().Token, Action: queue.Ack, Result: []byte("result")}
		put(job("died", "7"))
		end = queue.Settlement{Token: claim(end).Token, Action: queue.Kill, Error: "it is over"}
		put(job("waiting", "4"))
		end = queue.Settlement{Token: claim(end).Token, Action: queue.Retry, After: time.Second, Error: "not now"}
		put(job("leased", "3"))
		claim(end)
		first, second, later := job("first", "1"), job("second", "2"), job("scheduled", "5")
		first.Key, second.Key, later.Delay = "k", "k", time.Second
		first.DedupeKey, first.DedupeFor = "taken", forever
		put(first)
		put(second)
		put(later)
		tx, err := s.db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), tx), job("in a transaction", "6"))
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		_, err = s.db.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)")
		require.NoError(t, err)
	}()
}
