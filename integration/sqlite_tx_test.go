package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

// shop is a service with a database of its own that is also its queue's.
type shop struct {
	db     *sql.DB
	broker *sqlqueue.Broker
	jobs   *queue.Queue
	slots  int // of its worker; 0 means the default
}

func newShop(t testing.TB, file string) *shop {
	t.Helper()
	return newShopWith(t, file, sqlqueue.Config{NoReserve: true}, queue.Config{})
}

func newShopWith(t testing.TB, file string, cfg sqlqueue.Config, of queue.Config) *shop {
	t.Helper()
	s := &shop{db: open(t, file+"?_txlock=immediate&_pragma=busy_timeout(5000)")}
	s.broker = sqlqueue.New(s.db, cfg)
	var err error
	s.jobs, err = queue.New(s.broker, of)
	require.NoError(t, err)
	require.NoError(t, s.broker.Migrate(t.Context()))
	_, err = s.db.ExecContext(t.Context(), "CREATE TABLE IF NOT EXISTS orders (name TEXT NOT NULL)")
	require.NoError(t, err)
	return s
}

func (s *shop) orders(t testing.TB) (names []string) {
	t.Helper()
	rows, err := s.db.QueryContext(t.Context(), "SELECT name FROM orders ORDER BY rowid")
	require.NoError(t, err)
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(t, rows.Err())
	return names
}

// drain works until nothing is left but dead letters.
func (s *shop) drain(t testing.TB, mux *queue.Mux) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.jobs.Run(ctx, mux, queue.WorkerConfig{Concurrency: s.slots, Backoff: func(int) time.Duration { return 0 }})
	}()
	require.Eventually(t, func() bool {
		st, err := s.jobs.Stats(ctx)
		return assert.NoError(t, err) && st.Jobs+st.Scheduled == 0
	}, 2*time.Minute, 5*time.Millisecond, "%+v", left{s})
	stop()
	require.NoError(t, <-done)
}

func TestEnqueueInATransactionCommitsWithItOrNotAtAll(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	place := func(name string, commit bool) string {
		tx, err := s.db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
		_, err = tx.ExecContext(t.Context(), "INSERT INTO orders (name) VALUES (?)", name)
		require.NoError(t, err)
		r, err := s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), tx), queue.Job{Kind: "ship", Key: "k", Payload: []byte(name), DedupeKey: name, Track: true})
		require.NoError(t, err)
		require.False(t, r[0].Duplicate)
		again, err := s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), tx), queue.Job{Kind: "ship", Payload: []byte(name), DedupeKey: name})
		require.NoError(t, err)
		require.Equal(t, queue.Receipt{ID: r[0].ID, Duplicate: true}, again[0])
		if commit {
			require.NoError(t, tx.Commit())
		}
		return r[0].ID
	}
	first := place("first", true)
	gone := place("gone", false)
	// One that is enqueued afterwards comes after it.
	_, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "ship", Key: "k", Payload: []byte("second")})
	require.NoError(t, err)
	third := place("third", true)
	place("gone", true) // the key of what was rolled back is free

	st, err := s.jobs.Status(t.Context(), first)
	require.NoError(t, err)
	require.Equal(t, queue.Pending, st.State)
	_, err = s.jobs.Status(t.Context(), gone)
	require.ErrorIs(t, err, queue.ErrUnknownJob)
	stats, err := s.jobs.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 4, stats.Jobs)
	r, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "ship", DedupeKey: "third"})
	require.NoError(t, err)
	require.Equal(t, queue.Receipt{ID: third, Duplicate: true}, r[0])

	var ran []string
	mux := queue.NewMux()
	mux.Handle("ship", func(_ context.Context, j queue.Job) error {
		ran = append(ran, string(j.Payload))
		return nil
	})
	s.drain(t, mux)
	require.Equal(t, []string{"first", "second", "third", "gone"}, ran)
	require.Equal(t, []string{"first", "third", "gone"}, s.orders(t))
}

func TestTransactionKeepsDelaysAndDeadLetters(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	ctx := sqlqueue.WithTx(t.Context(), tx)
	_, err = s.jobs.Enqueue(ctx, queue.Job{Kind: "later", Delay: time.Hour}, queue.Job{Kind: "on time", NotBefore: time.Now().Add(time.Hour)})
	require.NoError(t, err)
	_, err = s.jobs.Bury(ctx, queue.Job{Kind: "never"}, errors.New("too large"))
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	jobs, err := s.jobs.Jobs(t.Context(), queue.JobFilter{})
	require.NoError(t, err)
	require.Len(t, jobs, 2)
	for _, j := range jobs {
		require.WithinDuration(t, time.Now().Add(time.Hour), j.Due, time.Minute)
	}
	dead, err := s.jobs.Dead(t.Context(), queue.DeadFilter{})
	require.NoError(t, err)
	require.Len(t, dead, 1)
	require.Equal(t, "too large", dead[0].Error)
}

func TestWorkerIsWokenByATransaction(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	woken := make(chan error, 1)
	go func() { woken <- s.broker.Wait(t.Context(), "default", 0) }()
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = s.jobs.Enqueue(sqlqueue.WithTx(t.Context(), tx), queue.Job{Kind: "k"})
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	select {
	case err := <-woken:
		require.NoError(t, err)
	case <-time.After(5 * time.Second):
		require.Fail(t, "nobody woke it")
	}
}

// P3: "A job takes effect once. … one transaction where the effect is in the same database"
func TestP3EffectCompletionAndNewJobsAreOneTransaction(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	mux := queue.NewMux()
	tries := map[string]int{}
	insert := func(ctx context.Context, tx *sql.Tx, name string) {
		_, err := tx.ExecContext(ctx, "INSERT INTO orders (name) VALUES (?)", name)
		assert.NoError(t, err)
	}
	mux.Handle("order", sqlqueue.InTx(s.broker, func(ctx context.Context, tx *sql.Tx, j queue.Job) error {
		name := string(j.Payload)
		tries[name]++ // transactions come one at a time
		insert(ctx, tx, name)
		_, err := s.jobs.Enqueue(ctx, queue.Job{Kind: "child", Payload: []byte("child of " + name)})
		assert.NoError(t, err)
		_, err = s.jobs.EnqueueOnAck(ctx, queue.Job{Kind: "child", Payload: []byte("second child of " + name)})
		assert.NoError(t, err)
		assert.NoError(t, queue.SetResult(ctx, []byte("result of "+name)))
		switch tries[name] {
		case 1:
			return errors.New("not yet") // nothing of it happened
		case 2:
			panic("nor now")
		}
		return nil
	}))
	mux.Handle("child", sqlqueue.InTx(s.broker, func(ctx context.Context, tx *sql.Tx, j queue.Job) error {
		insert(ctx, tx, string(j.Payload))
		return nil
	}))
	// What the handler returns after its transaction is committed changes nothing of that.
	inner := sqlqueue.InTx(s.broker, func(ctx context.Context, tx *sql.Tx, j queue.Job) error {
		insert(ctx, tx, string(j.Payload))
		return nil
	})
	ungrateful := 0
	mux.Handle("ungrateful", func(ctx context.Context, j queue.Job) error {
		ungrateful++
		return errors.Join(inner(ctx, j), errors.New("an error after all"))
	})
	r, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "order", Payload: []byte("#1"), Track: true}, queue.Job{Kind: "ungrateful", Payload: []byte("#2"), Track: true})
	require.NoError(t, err)
	s.drain(t, mux)
	require.ElementsMatch(t, []string{"#2", "#1", "child of #1", "second child of #1"}, s.orders(t))
	require.Equal(t, map[string]int{"#1": 3}, tries)
	require.Equal(t, 1, ungrateful)
	st, err := s.jobs.Status(t.Context(), r[0].ID)
	require.NoError(t, err)
	require.Equal(t, queue.Succeeded, st.State)
	require.Equal(t, "result of #1", string(st.Result))
	st, err = s.jobs.Status(t.Context(), r[1].ID)
	require.NoError(t, err)
	require.Equal(t, queue.Succeeded, st.State)
}

// A worker that has lost its lease can't complete or overwrite.
func TestP3LostLeaseCommitsNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	s.slots = 1 // taken by the run that loses its lease: its own worker can't be who takes over
	_, err := s.jobs.Enqueue(t.Context(), queue.Job{Kind: "order", Track: true})
	require.NoError(t, err)
	mux := queue.NewMux()
	runs := 0
	handler := sqlqueue.InTx(s.broker, func(ctx context.Context, tx *sql.Tx, _ queue.Job) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO orders (name) VALUES ('once')")
		return err
	})
	mux.Handle("order", func(ctx context.Context, j queue.Job) error {
		if runs++; runs > 1 {
			return handler(ctx, j)
		}
		// Its lease ends, and another process takes the job over, while this one thinks that it has it.
		_, err := s.db.ExecContext(ctx, "UPDATE breakwater_jobs SET at = 1, spared = 1")
		assert.NoError(t, err)
		c, err := s.broker.Claim(ctx, "default", queue.Call{Process: "other", Number: 1, Max: 1, Lease: time.Minute})
		assert.NoError(t, err)
		if assert.Len(t, c.Jobs, 1) {
			assert.ErrorIs(t, handler(ctx, j), queue.ErrLeaseLost)
			_, err = s.broker.Claim(ctx, "default", queue.Call{Process: "other", Number: 2, Lease: time.Minute, Settle: []queue.Settlement{{Token: c.Jobs[0].Token, Action: queue.Release}}})
			assert.NoError(t, err)
		}
		return queue.ErrLeaseLost
	})
	s.drain(t, mux)
	require.Equal(t, []string{"once"}, s.orders(t))

	handler = sqlqueue.InTx(s.broker, func(context.Context, *sql.Tx, queue.Job) error { return nil })
	require.ErrorIs(t, handler(t.Context(), queue.Job{}), queue.ErrNoJob)
	other := newShop(t, filepath.Join(t.TempDir(), "other.db"))
	_, err = other.jobs.Enqueue(t.Context(), queue.Job{Kind: "foreign", MaxAttempts: 1})
	require.NoError(t, err)
	mux = queue.NewMux()
	mux.Handle("foreign", handler)
	other.drain(t, mux)
	dead, err := other.jobs.Dead(t.Context(), queue.DeadFilter{})
	require.NoError(t, err)
	require.Contains(t, dead[0].Error, "not one of this Broker")
}

// The effect is committed and its worker dies before it can say so: the job is done all the same.
func TestP3JobWhoseEffectIsCommittedIsDoneWhateverBecomesOfItsWorker(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]queue.Settlement{
		"the lease ends": {}, "released": {Action: queue.Release}, "retried": {Action: queue.Retry, Error: "no"}, "killed": {Action: queue.Kill, Error: "no"}, "snoozed": {Action: queue.Snooze, After: time.Hour},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
			ctx := t.Context()
			r, err := s.jobs.Enqueue(ctx, queue.Job{Kind: "order", Key: "k", Track: true}, queue.Job{Kind: "next", Key: "k"})
			require.NoError(t, err)
			c, err := s.broker.Claim(ctx, "default", queue.Call{Process: "p", Number: 1, Max: 1, Lease: time.Minute})
			require.NoError(t, err)
			require.Len(t, c.Jobs, 1)
			_, err = s.db.ExecContext(ctx, "UPDATE breakwater_jobs SET done = 1 WHERE state = 2")
			require.NoError(t, err)
			call := queue.Call{Process: "p", Number: 2, Max: 1, Lease: time.Minute}
			if end.Token = c.Jobs[0].Token; end.Action != 0 {
				call.Settle = []queue.Settlement{end}
			} else {
				_, err = s.db.ExecContext(ctx, "UPDATE breakwater_jobs SET at = 1, spared = 1 WHERE state = 2")
				require.NoError(t, err)
			}
			c, err = s.broker.Claim(ctx, "default", call)
			require.NoError(t, err)
			require.Empty(t, c.Died)
			require.Len(t, c.Jobs, 1)
			require.Equal(t, "next", c.Jobs[0].Job.Kind)
			st, err := s.jobs.Status(ctx, r[0].ID)
			require.NoError(t, err)
			require.Equal(t, queue.Succeeded, st.State)
		})
	}
}

// left says what a shop's queue still holds.
type left struct{ *shop }

func (l left) String() string {
	jobs, err := l.jobs.Jobs(context.Background(), queue.JobFilter{})
	return fmt.Sprint(jobs, err)
}
