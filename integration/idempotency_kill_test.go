package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
	"github.com/breakwater-go/breakwater/idempotency/sqlstore"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

const (
	onceKills    = 1000
	onceChildren = 3
	// onceLease is short, so that what a killed process had comes back while the test runs.
	onceLease = 200 * time.Millisecond
	// onceReady is how many keys of each way are there to work on. Each process takes any of them, so that two have one at a time now and then.
	onceReady = 12
)

// Each way of doing something once has a list of keys that are not known to be done, todo:way, as a queue that delivers at least once has.
const (
	byKeeper = "keeper"
	byRecipe = "get-work-set"
	byTx     = "OnceTx"
)

// effects counts what happened to a key in a way: the world outside, which is in no transaction with us.
func effects(way, key string) string { return "effects:" + way + ":" + key }

// dependency does something once for each key that it is given.
var dependency = redis.NewScript("if redis.call('SET', KEYS[1], 1, 'NX') then redis.call('INCR', KEYS[2]) end return 1")

// onceWorker works through keys in all three ways at once. args: the Redis server's address, a SQLite file.
func onceWorker(args []string) error {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: args[0]})
	keeper, err := idempotency.New(redisstore.New(client, redisstore.Config{}), idempotency.Config{Lease: onceLease})
	if err != nil {
		return err
	}
	db, err := onceFile(args[1])
	if err != nil {
		return err
	}
	work := func() { time.Sleep(rand.N(3 * time.Millisecond)) } // so that a kill finds it at work

	withKeeper := idempotency.Once(keeper, "ship", itself, func(ctx context.Context, key string) error {
		if err := client.Incr(ctx, "begun:"+key).Err(); err != nil {
			return err
		}
		work()
		if err := client.Incr(ctx, effects(byKeeper, key)).Err(); err != nil {
			return err
		}
		// The same effect by a dependency that remembers keys.
		child, err := idempotency.ChildKey(ctx, "label")
		if err != nil {
			return err
		}
		err = dependency.Run(ctx, client, []string{"remembered:" + child, effects("passed on", key)}).Err()
		work()
		return err
	})
	withRecipe := func(ctx context.Context, key string) error {
		switch err := client.Get(ctx, "seen:"+key).Err(); {
		case err == nil:
			return nil
		case !errors.Is(err, redis.Nil):
			return err
		}
		work()
		if err := client.Incr(ctx, effects(byRecipe, key)).Err(); err != nil {
			return err
		}
		work()
		return client.Set(ctx, "seen:"+key, 1, time.Hour).Err()
	}
	withTx := sqlstore.OnceTx(sqlstore.New(db, sqlstore.Config{}), "ship", itself, func(ctx context.Context, tx *sql.Tx, key string) error {
		work()
		err := insert(ctx, tx, key)
		work()
		return err
	})

	_, _ = os.Stdout.WriteString("works\n")
	failed := make(chan error)
	for way, handle := range map[string]func(context.Context, string) error{byKeeper: withKeeper, byRecipe: withRecipe, byTx: withTx} {
		go func() { failed <- workThrough(ctx, client, way, handle) }()
	}
	return <-failed
}

// onceFile is a database with a table of effects. It is not synced: a process that is killed loses nothing that way.
func onceFile(file string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)")
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(context.Background(), "CREATE TABLE IF NOT EXISTS effects (key TEXT NOT NULL)")
	return db, err
}

// workThrough takes one key after the other, any of those that are to be done, and takes it from the list when it is.
func workThrough(ctx context.Context, client *redis.Client, way string, handle func(context.Context, string) error) error {
	for {
		key, err := client.LIndex(ctx, "todo:"+way, rand.Int64N(onceReady)).Result()
		if errors.Is(err, redis.Nil) {
			time.Sleep(time.Millisecond) // there are fewer, or none
			continue
		}
		if err == nil {
			err = handle(ctx, key)
		}
		if errors.Is(err, idempotency.ErrInProgress) || errors.Is(err, idempotency.ErrLeaseLost) || errors.Is(err, idempotency.ErrUnknownOutcome) {
			time.Sleep(time.Millisecond) // another has it, or had it meanwhile, or the lease of one that was killed is not over
			continue
		}
		if err == nil {
			err = client.LRem(ctx, "todo:"+way, 0, key).Err()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
	}
}

// TestP3KilledBetweenClaimAndComplete kills processes that do things once, in three ways at the same time, a thousand times; and counts what happened twice. What a keeper
// leaves is the remainder that docs/idempotency.md speaks of; what closes it is one transaction, or a dependency that remembers keys.
//
// P3: "A job takes effect once. … one transaction where the effect is in the same database"
func TestP3KilledBetweenClaimAndComplete(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	client := redistest.Dial(t, s.Addr)
	ways := []string{byKeeper, byRecipe, byTx}
	file := filepath.Join(t.TempDir(), "shop.db")
	db, err := onceFile(file)
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // the test is over
	require.NoError(t, sqlstore.New(db, sqlstore.Config{}).Migrate(t.Context()))

	keys := map[string]int{}
	left := func() (n int64) {
		for _, way := range ways {
			of, err := client.LLen(t.Context(), "todo:"+way).Result()
			require.NoError(t, err)
			n += of
		}
		return n
	}
	more := func() {
		for _, way := range ways {
			n, err := client.LLen(t.Context(), "todo:"+way).Result()
			require.NoError(t, err)
			for ; n < 2*onceReady; n++ {
				require.NoError(t, client.RPush(t.Context(), "todo:"+way, strconv.Itoa(keys[way])).Err())
				keys[way]++
			}
		}
	}
	more()
	var running [onceChildren]*child
	for i := range onceKills + onceChildren {
		place := i % onceChildren
		if c := running[place]; c != nil {
			c.line(t, "works")
			time.Sleep(rand.N(12 * time.Millisecond)) // the moment is what is tried
			c.kill(t)
		}
		running[place] = nil
		if i < onceKills {
			more()
			running[place] = startChild(t, "once-worker", s.Addr, file)
		}
	}
	last := startChild(t, "once-worker", s.Addr, file) // what is left is done in peace
	require.Eventually(t, func() bool { return left() == 0 }, time.Minute, 10*time.Millisecond)
	last.kill(t)

	// doubled counts effects after a key's first, and holds that none is missing.
	doubled := func(way string, keys int) (n int) {
		for key := range keys {
			times, err := client.Get(t.Context(), effects(way, strconv.Itoa(key))).Int()
			require.NoError(t, err, "%s: key %d is missing", way, key)
			n += times - 1
		}
		return n
	}
	begun := 0
	for key := range keys[byKeeper] {
		n, err := client.Get(t.Context(), "begun:"+strconv.Itoa(key)).Int()
		require.NoError(t, err)
		begun += n
	}
	remainder, recipe := doubled(byKeeper, keys[byKeeper]), doubled(byRecipe, keys[byRecipe])
	passed := doubled("passed on", keys[byKeeper])
	var inTx, distinct int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*), count(DISTINCT key) FROM effects").Scan(&inTx, &distinct))
	require.Equal(t, keys[byTx], distinct, "effects in the transaction are missing")
	require.Equal(t, distinct, inTx, "effects in the transaction are doubled")
	require.Zero(t, passed, "effects of a dependency that remembers keys are doubled")
	require.Greater(t, begun-keys[byKeeper], onceKills/10, "too few were killed between claim and complete")
	require.Positive(t, remainder, "that it is not zero is what the documentation says")
	require.Greater(t, recipe, remainder, "the usual recipe, which also doubles what two have at one time")
	t.Logf("%d kills, %d of them between claim and complete: keeper %d doubles of %d, get-work-set %d doubles of %d, OnceTx 0 of %d, key passed on 0 of %d",
		onceKills, begun-keys[byKeeper], remainder, keys[byKeeper], recipe, keys[byRecipe], keys[byTx], keys[byKeeper])
}
