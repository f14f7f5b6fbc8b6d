package integration_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver

	"github.com/breakwater-go/breakwater/queue/brokertest"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

// timed is a broker whose clock can be put forward.
type timed struct {
	*sqlqueue.Broker
	t  testing.TB
	db *sql.DB
}

// open opens a SQLite file.
func open(t testing.TB, file string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func newTimed(t testing.TB) brokertest.Engine {
	t.Helper()
	db := open(t, filepath.Join(t.TempDir(), "queue.db"))
	e := timed{sqlqueue.New(db, sqlqueue.Config{Synchronous: sqlqueue.Off, NoReserve: true}), t, db}
	require.NoError(t, e.Migrate(t.Context()))
	t.Cleanup(func() { // whatever was done, the rows are as they should be
		broken, err := walk(context.WithoutCancel(t.Context()), db) // which has ended by then
		require.NoError(t, err)
		require.Empty(t, broken)
	})
	return e
}

// sleep puts the engine's clock forward.
func sleep(e brokertest.Engine, d time.Duration) {
	to := e.(timed) //nolint:forcetypeassert // newTimed's
	ctx := to.t.Context()
	_, err := to.db.ExecContext(ctx, "UPDATE breakwater_space SET ahead = ahead + ?", d.Microseconds())
	require.NoError(to.t, err)
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, brokertest.Config{New: newTimed, Sleep: sleep, Sequences: 10, Steps: 80})
}
