package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/sqlstore"
	"github.com/breakwater-go/breakwater/idempotency/storetest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

func TestSQLStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.Config{
		New: func(t *testing.T) idempotency.Store {
			t.Helper()
			return sqlstore.New(open(t, filepath.Join(t.TempDir(), "marks.db?_pragma=synchronous(off)")), sqlstore.Config{})
		},
		Short: time.Second,
	})
}

// ledger is a database with a store and a table of effects.
type ledger struct {
	db    *sql.DB
	store *sqlstore.Store
}

func newLedger(t *testing.T, file string) *ledger {
	t.Helper()
	db := open(t, file)
	_, err := db.ExecContext(t.Context(), "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS effects (key TEXT NOT NULL, version TEXT NOT NULL DEFAULT '')")
	require.NoError(t, err)
	return &ledger{db, sqlstore.New(db, sqlstore.Config{})}
}

func (l *ledger) effects(t *testing.T, key string) (n int) {
	t.Helper()
	require.NoError(t, l.db.QueryRowContext(t.Context(), "SELECT count(*) FROM effects WHERE key = ?", key).Scan(&n))
	return n
}

func insert(ctx context.Context, tx *sql.Tx, key string) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO effects (key) VALUES (?)", key)
	return err
}

func itself(key string) idempotency.Key { return idempotency.Key{Scope: "shop", ID: key} }

// TestP3EffectAndMarkAreOneTransaction is P3, a job takes effect once: one transaction where the effect is in the same database.
func TestP3EffectAndMarkAreOneTransaction(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "shop.db"))
	boom := errors.New("boom")
	var fail error
	var before, after int
	handle := sqlstore.OnceTx(l.store, "ship", itself, func(ctx context.Context, tx *sql.Tx, key string) error {
		before++
		if err := insert(ctx, tx, key); err != nil {
			return err
		}
		if key == "panics" && before == 1 {
			panic(boom)
		}
		after++
		return fail
	})

	require.PanicsWithValue(t, boom, func() { _ = handle(t.Context(), "panics") })
	require.Zero(t, l.effects(t, "panics"), "a panic leaves neither effect nor mark")
	fail = boom
	require.ErrorIs(t, handle(t.Context(), "panics"), boom)
	require.Zero(t, l.effects(t, "panics"), "an error leaves neither")
	fail = nil
	require.NoError(t, handle(t.Context(), "panics"))
	require.NoError(t, handle(t.Context(), "panics"))
	require.Equal(t, 1, l.effects(t, "panics"))
	require.Equal(t, 2, after, "the last call ran nothing")
}

func TestConcurrentInsertBlocksThenReplays(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "shop.db"))
	running := make(chan struct{})
	errs := make([]error, 16)
	var wg, others sync.WaitGroup
	others.Add(len(errs) - 1)
	handle := sqlstore.OnceTx(l.store, "ship", itself, func(ctx context.Context, tx *sql.Tx, key string) error {
		close(running) // a second run would panic
		others.Wait()  // they are about to call, and meet this transaction
		return insert(ctx, tx, key)
	})
	for i := range errs {
		wg.Go(func() {
			if i > 0 {
				<-running
				others.Done()
			}
			errs[i] = handle(t.Context(), "k")
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, 1, l.effects(t, "k"))
}

func TestOnceTxAndAKeeperKnowEachOther(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "shop.db"))
	keeper, err := idempotency.New(l.store, idempotency.Config{})
	require.NoError(t, err)
	inTx := sqlstore.OnceTx(l.store, "ship", itself, func(ctx context.Context, tx *sql.Tx, key string) error {
		child, err := idempotency.ChildKey(ctx, "label")
		require.NoError(t, err)
		require.Len(t, child, 36)
		return insert(ctx, tx, key)
	})
	_, err = keeper.Do(t.Context(), "ship", itself("k"), func(ctx context.Context) ([]byte, error) {
		err := inTx(ctx, "k")
		require.ErrorIs(t, err, idempotency.ErrInProgress)
		later, ok := errors.AsType[interface {
			error
			RetryAfter() time.Duration
		}](err)
		require.True(t, ok)
		require.Positive(t, later.RetryAfter())
		return nil, errors.New("gives the key back")
	})
	require.ErrorContains(t, err, "gives the key back")
	require.NoError(t, inTx(t.Context(), "k"))
	result, err := keeper.Do(t.Context(), "ship", itself("k"), func(context.Context) ([]byte, error) {
		t.Error("it ran again")
		return nil, nil
	})
	require.NoError(t, err)
	require.True(t, result.Replayed)

	other := sqlstore.OnceTx(l.store, "ship", func(key string) idempotency.Key {
		return idempotency.Key{Scope: "shop", ID: "paid", Payload: []byte(key)}
	}, insert)
	require.NoError(t, other(t.Context(), "10 EUR"))
	require.NoError(t, other(t.Context(), "10 EUR"))
	require.ErrorIs(t, other(t.Context(), "20 EUR"), idempotency.ErrMismatch)
	require.Zero(t, l.effects(t, "20 EUR"))
	require.ErrorIs(t, inTx(t.Context(), ""), idempotency.ErrKey)
}

// TestP5NewestWinsInATransaction is P5, the newest wins: an older version of a resource that arrives late never overwrites a newer one.
func TestP5NewestWinsInATransaction(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "shop.db"))
	type state struct {
		version uint64
		fails   bool
	}
	handle := sqlstore.LatestTx(l.store, "sync", func(state) idempotency.Key { return itself("product/1") },
		func(s state) idempotency.Version { return idempotency.Number(s.version) },
		func(ctx context.Context, tx *sql.Tx, s state) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO effects (key, version) VALUES ('product/1', ?)", fmt.Sprint(s.version))
			if s.fails {
				err = errors.New("fails")
			}
			return err
		})
	for _, s := range []state{{version: 2}, {version: 1}, {version: 2}, {version: 9, fails: true}, {version: 4}, {version: 3}} {
		require.Equal(t, s.fails, handle(t.Context(), s) != nil)
	}
	rows, err := l.db.QueryContext(t.Context(), "SELECT version FROM effects ORDER BY rowid")
	require.NoError(t, err)
	defer rows.Close() //nolint:errcheck // read to its end
	var got []string
	for rows.Next() {
		var v string
		require.NoError(t, rows.Scan(&v))
		got = append(got, v)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, []string{"2", "4"}, got, "the failed one has left nothing behind, so 4 is the newest")
}

// TestMarkInTheQueuesTransaction has mark, effect and the job's completion in one transaction.
func TestMarkInTheQueuesTransaction(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "shop.db")
	l := newLedger(t, file)
	require.NoError(t, l.store.Migrate(t.Context()))
	broker := sqlqueue.New(l.db, sqlqueue.Config{})
	jobs, err := queue.New(broker, queue.Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	firsts := make(chan bool, 2)
	mux := queue.NewMux()
	mux.Handle("ship", sqlqueue.InTx(broker, func(ctx context.Context, tx *sql.Tx, _ queue.Job) error {
		first, err := l.store.Mark(ctx, tx, "ship", itself("k"))
		if err == nil && first {
			err = insert(ctx, tx, "k")
		}
		firsts <- first
		return err
	}))
	for range 2 {
		_, err := jobs.Enqueue(ctx, queue.Job{Kind: "ship", Key: "k"})
		require.NoError(t, err)
	}
	done := make(chan error, 1)
	go func() { done <- jobs.Run(ctx, mux, queue.WorkerConfig{}) }()
	assert.Equal(t, []bool{true, false}, []bool{<-firsts, <-firsts})
	cancel()
	require.NoError(t, <-done)
	require.Equal(t, 1, l.effects(t, "k"))
}

// TestRowOfALaterVersionIsAnErrorNotAFreshRun has a row of a format that this version does not know.
func TestRowOfALaterVersionIsAnErrorNotAFreshRun(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "shop.db"))
	handle := sqlstore.OnceTx(l.store, "ship", itself, insert)
	require.NoError(t, handle(t.Context(), "k"))
	for _, later := range []string{"UPDATE breakwater_once SET state = 9", "UPDATE breakwater_once SET format = 2"} {
		_, err := l.db.ExecContext(t.Context(), later)
		require.NoError(t, err)
		require.ErrorIs(t, handle(t.Context(), "k"), idempotency.ErrNewerFormat)
	}
	require.Equal(t, 1, l.effects(t, "k"))
	keeper, err := idempotency.New(l.store, idempotency.Config{FailOpen: true})
	require.NoError(t, err)
	_, err = keeper.Do(t.Context(), "ship", itself("k"), nil)
	require.ErrorIs(t, err, idempotency.ErrNewerFormat)
}

func TestSQLStoreSaysWhatIsWrongWithHowItWasMade(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "marks.db"))
	for want, s := range map[string]*sqlstore.Store{
		"db is nil":                   sqlstore.New(nil, sqlstore.Config{}),
		"Config.BusyTimeout is -1s":   sqlstore.New(db, sqlstore.Config{BusyTimeout: -time.Second}),
		"Config.Retention is 1h0m0s;": sqlstore.New(db, sqlstore.Config{Retention: time.Hour}),
	} {
		_, err := idempotency.New(s, idempotency.Config{})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, s.Migrate(t.Context()), want)
		_, err = s.Claim(t.Context(), idempotency.Request{})
		require.ErrorContains(t, err, want)
	}
}

// TestOneConnectionIsEnoughForMarks asks within the one transaction that there can be for what would wait for it: that fails at once, and nothing is lost.
func TestOneConnectionIsEnoughForMarks(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "shop.db"))
	l.db.SetMaxOpenConns(1)
	store := sqlstore.New(l.db, sqlstore.Config{BusyTimeout: 100 * time.Millisecond})
	keeper, err := idempotency.New(store, idempotency.Config{})
	require.NoError(t, err)
	nothing := func(context.Context) ([]byte, error) { return nil, nil }
	again := sqlstore.OnceTx(store, "again", itself, insert)
	handle := sqlstore.OnceTx(store, "ship", itself, func(ctx context.Context, tx *sql.Tx, key string) error {
		_, err := keeper.Do(ctx, "other", itself(key), nothing)
		require.ErrorIs(t, err, idempotency.ErrNested)
		require.ErrorIs(t, again(ctx, key), idempotency.ErrNested)
		return insert(ctx, tx, key)
	})
	require.NoError(t, handle(t.Context(), "k"))
	require.Equal(t, 1, l.effects(t, "k"))
	_, err = keeper.Do(t.Context(), "other", itself("k"), nothing)
	require.NoError(t, err)

	conn, err := l.db.Conn(t.Context())
	require.NoError(t, err)
	_, err = keeper.Do(t.Context(), "third", itself("k"), nothing)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	require.ErrorContains(t, err, "SetMaxOpenConns")
	require.NoError(t, conn.Close())
}

// TestMarksThatAreOverAreSwept holds the table to what is known yet.
func TestMarksThatAreOverAreSwept(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "shop.db"))
	for i := range 300 {
		r, err := idempotency.NewRequest("ship", itself(fmt.Sprint(i)))
		require.NoError(t, err)
		r.For = time.Millisecond
		_, err = l.store.Claim(t.Context(), r)
		require.NoError(t, err)
	}
	count := func() (n int) {
		require.NoError(t, l.db.QueryRowContext(t.Context(), "SELECT count(*) FROM breakwater_once").Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { // each look sweeps some
		_, err := l.store.Inspect(t.Context(), idempotency.Name{Op: "ship", ID: "none"})
		return assert.ErrorIs(t, err, idempotency.ErrNoRecord) && count() == 0
	}, 10*time.Second, time.Millisecond)
}
