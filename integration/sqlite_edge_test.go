package integration_test

import (
	"context"
	"database/sql"
	"errors"
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

// What a fault hunt found.

// P3: "A job takes effect once", also if its handler is called again by what is around it.
func TestInTxIsNotRunAgainOnceItIsCommitted(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	charge := sqlqueue.InTx(s.broker, func(ctx context.Context, tx *sql.Tx, _ queue.Job) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO orders (name) VALUES ('charge')")
		return err
	})
	mux := queue.NewMux()
	mux.Handle("order", func(ctx context.Context, j queue.Job) error {
		assert.NoError(t, charge(ctx, j))
		assert.ErrorIs(t, charge(ctx, j), queue.ErrCompleted)
		assert.ErrorIs(t, queue.SetResult(ctx, []byte("late")), queue.ErrCompleted)
		_, err := s.jobs.EnqueueOnAck(ctx, queue.Job{Kind: "order"})
		assert.ErrorIs(t, err, queue.ErrCompleted, "nothing can be added")
		return errors.New("the mail server is away")
	})
	_, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "order"})
	require.NoError(t, err)
	s.drain(t, mux)
	require.Equal(t, []string{"charge"}, s.orders(t))
}

func TestWhatIsKeptForTheEndGoesWithTheTransaction(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	_, err := s.db.ExecContext(t.Context(), "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
	require.NoError(t, err)
	var mu sync.Mutex
	ran := map[string]int{}
	mux := queue.NewMux()
	mux.Handle("child", func(_ context.Context, j queue.Job) error {
		mu.Lock()
		defer mu.Unlock()
		ran[string(j.Payload)]++
		return nil
	})
	follow := func(ctx context.Context, what string) {
		_, err := s.jobs.EnqueueOnAck(ctx, queue.Job{Kind: "child", Payload: []byte(what)})
		assert.NoError(t, err)
	}
	for kind, fails := range map[string]func(ctx context.Context, tx *sql.Tx) error{
		"fails": func(context.Context, *sql.Tx) error { return errors.New("no") },
		"can't be committed": func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "PRAGMA defer_foreign_keys = ON; INSERT INTO child VALUES (7)")
			return err
		},
	} {
		mux.Handle(kind, func(ctx context.Context, j queue.Job) error {
			follow(ctx, kind+", before")
			err := sqlqueue.InTx(s.broker, func(ctx context.Context, tx *sql.Tx, _ queue.Job) error {
				follow(ctx, kind+", rolled back")
				return fails(ctx, tx)
			})(ctx, j)
			if kind == "fails" {
				assert.Error(t, err)
			}
			return sqlqueue.InTx(s.broker, func(ctx context.Context, _ *sql.Tx, _ queue.Job) error {
				follow(ctx, kind+", committed")
				return nil
			})(ctx, j)
		})
	}
	_, err = s.jobs.Enqueue(t.Context(), queue.Job{Kind: "fails", MaxAttempts: 1})
	require.NoError(t, err)
	s.drain(t, mux)
	require.Equal(t, map[string]int{"fails, before": 1, "fails, committed": 1}, ran)
}

func TestWhatIsInTheIntakeIsNotOvertaken(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	batch := make([]queue.Job, 1100)
	for i := range batch {
		batch[i] = queue.Job{Kind: "k", Key: "k", Payload: []byte(strconv.Itoa(i)), Track: i == 1099}
	}
	receipts, err := s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), tx), batch...)
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	state, err := s.jobs.Cancel(t.Context(), receipts[1099].ID)
	require.NoError(t, err)
	require.Equal(t, queue.Cancelled, state)
	_, err = s.jobs.Enqueue(t.Context(), queue.Job{Kind: "k", Key: "k", Payload: []byte("1099")})
	require.NoError(t, err)
	next := 0
	mux := queue.NewMux()
	mux.Handle("k", func(_ context.Context, j queue.Job) error {
		assert.Equal(t, strconv.Itoa(next), string(j.Payload))
		next++
		return nil
	})
	s.drain(t, mux)
	require.Equal(t, 1100, next)
}

func TestBatchInATransactionIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "CREATE TRIGGER full BEFORE INSERT ON breakwater_intake WHEN NEW.kind = 'third' BEGIN SELECT RAISE(FAIL, 'no'); END")
	require.NoError(t, err)
	_, err = s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), tx), queue.Job{Kind: "first"}, queue.Job{Kind: "second", Track: true, DedupeKey: "d"}, queue.Job{Kind: "third"})
	require.ErrorContains(t, err, "no")
	_, err = tx.ExecContext(t.Context(), "DROP TRIGGER full")
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	stats, err := s.jobs.Stats(t.Context())
	require.NoError(t, err)
	require.Zero(t, stats.Jobs)
	r, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "k", DedupeKey: "d"})
	require.NoError(t, err)
	require.False(t, r[0].Duplicate)
	_, err = s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), nil), queue.Job{Kind: "k"})
	require.ErrorContains(t, err, "tx is nil")
}

// What would wait for the transaction that it is called in fails at once; reading works.
func TestNothingWaitsForTheTransactionThatItIsIn(t *testing.T) {
	t.Parallel()
	for _, connections := range []int{0, 1} {
		t.Run(strconv.Itoa(connections), func(t *testing.T) {
			t.Parallel()
			s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
			s.db.SetMaxOpenConns(connections)
			mux := queue.NewMux()
			mux.Handle("k", sqlqueue.InTx(s.broker, func(ctx context.Context, _ *sql.Tx, j queue.Job) error {
				if len(j.Payload) > 0 {
					return nil
				}
				_, err := s.jobs.Enqueue(ctx, queue.Job{Kind: "k", Payload: []byte("child"), Track: true})
				assert.NoError(t, err)
				_, err = s.jobs.Stats(ctx)
				assert.NoError(t, err)
				_, err = s.jobs.Status(ctx, j.ID)
				assert.NoError(t, err)
				assert.NoError(t, s.jobs.Health(ctx))
				_, err = s.jobs.Cancel(ctx, j.ID)
				assert.ErrorContains(t, err, "context of a transaction")
				assert.ErrorContains(t, sqlqueue.InTx(s.broker, func(context.Context, *sql.Tx, queue.Job) error { return nil })(ctx, j), "context of a transaction")
				return nil
			}))
			_, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "k", Track: true})
			require.NoError(t, err)
			s.drain(t, mux)
		})
	}
}

func TestBusyFilePutsATransactionsJobOff(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	s := newShopWith(t, file, sqlqueue.Config{NoReserve: true, BusyTimeout: 20 * time.Millisecond}, queue.Config{})
	other := newShop(t, file)
	tries := 0
	mux := queue.NewMux()
	handler := sqlqueue.InTx(s.broker, func(context.Context, *sql.Tx, queue.Job) error { return nil })
	mux.Handle("k", func(ctx context.Context, j queue.Job) error {
		if tries++; tries > 1 {
			assert.Zero(t, j.Attempts)
			return handler(ctx, j)
		}
		tx, err := other.db.BeginTx(ctx, nil) // it has the file
		assert.NoError(t, err)
		defer tx.Rollback() //nolint:errcheck // nothing was written
		return handler(ctx, j)
	})
	_, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "k", MaxAttempts: 1})
	require.NoError(t, err)
	s.drain(t, mux)
	require.Equal(t, 2, tries)
}

func TestPurgeOfAWholePageForgetsWhatHasEnded(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	mux := queue.NewMux()
	mux.Handle("done", func(ctx context.Context, _ queue.Job) error { return queue.SetResult(ctx, []byte("personal")) })
	r, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "done", Group: "g", Track: true, DedupeKey: "jane@example.com"})
	require.NoError(t, err)
	s.drain(t, mux)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 64 { // 1,024 in all: what one step erases
				_, err := s.jobs.Bury(t.Context(), queue.Job{Kind: "k", Group: "g"}, errors.New("no"))
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()
	n, err := s.jobs.Purge(t.Context(), queue.PurgeFilter{Group: "g"})
	require.NoError(t, err)
	require.Equal(t, 1024, n)
	_, err = s.jobs.Status(t.Context(), r[0].ID)
	require.ErrorIs(t, err, queue.ErrUnknownJob)
	for _, table := range []string{"jobs", "records", "dedupe", "status", "groups"} {
		var left int
		require.NoError(t, s.db.QueryRowContext(t.Context(), "SELECT count(*) FROM breakwater_"+table).Scan(&left))
		require.Zero(t, left, table)
	}
}

// Two processes on one file: neither keeps it from the other, transactions of handlers included.
func TestProcessesMakeRoomForEachOther(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	busy, other := newShop(t, file), newShop(t, file)
	ctx, stop := context.WithCancel(t.Context())
	mux := queue.NewMux()
	mux.Handle("k", sqlqueue.InTx(busy.broker, func(ctx context.Context, _ *sql.Tx, _ queue.Job) error {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
		return nil
	}))
	jobs := make([]queue.Job, 1000)
	for i := range jobs {
		jobs[i].Kind = "k"
	}
	_, err := busy.jobs.Enqueue(ctx, jobs...)
	require.NoError(t, err)
	ran := make(chan error, 1)
	go func() { ran <- busy.jobs.Run(ctx, mux, queue.WorkerConfig{Concurrency: 32}) }()
	begin := time.Now()
	for range 50 {
		_, err := other.jobs.Enqueue(ctx, queue.Job{Kind: "k"})
		require.NoError(t, err)
	}
	require.Less(t, time.Since(begin), 25*time.Second, "each waits for a transaction or two of 10 ms, not for SQLite's back-off of up to 5 s")
	stop()
	require.NoError(t, <-ran)
}
