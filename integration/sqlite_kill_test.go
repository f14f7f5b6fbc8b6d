package integration_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

const (
	kills = 200
	// killLease is short, so that what a killed process had comes back while the test runs.
	killLease = time.Second
)

// ledgerOf opens a file with a table in which the handler of these tests leaves its effect: not unique, so that a doubled one shows.
func ledgerOf(file string) (*sql.DB, *sqlqueue.Broker, *queue.Queue, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err := db.ExecContext(context.Background(), "CREATE TABLE IF NOT EXISTS ledger (job TEXT NOT NULL, kind TEXT NOT NULL, lane TEXT NOT NULL, number INTEGER NOT NULL)"); err != nil {
		return nil, nil, nil, err
	}
	b := sqlqueue.New(db, sqlqueue.Config{NoReserve: true})
	q, err := queue.New(b, queue.Config{})
	return db, b, q, err
}

// effect writes a job into the ledger, in the transaction that completes it.
func effect(b *sqlqueue.Broker, q *queue.Queue) *queue.Mux {
	mux := queue.NewMux()
	write := func(ctx context.Context, tx *sql.Tx, j queue.Job) error {
		number, err := strconv.Atoi(string(j.Payload))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO ledger (job, kind, lane, number) VALUES (?, ?, ?, ?)", j.ID, j.Kind, j.Key, number)
		return err
	}
	mux.Handle("effect", sqlqueue.InTx(b, write))
	mux.Handle("child", sqlqueue.InTx(b, write))
	mux.Handle("parent", sqlqueue.InTx(b, func(ctx context.Context, tx *sql.Tx, j queue.Job) error {
		if err := write(ctx, tx, j); err != nil {
			return err
		}
		_, err := q.Enqueue(ctx, queue.Job{Kind: "child", Key: "child", MaxCrashes: 1000, Payload: j.Payload, DedupeKey: j.ID})
		return err
	}))
	return mux
}

// sqliteLoad enqueues and works at once, and prints the ID of every job once it is acknowledged. args: file, first number.
func sqliteLoad(args []string) error {
	_, b, q, err := ledgerOf(args[0])
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make(chan error, 8)
	for p := range 3 {
		all.Go(func() {
			for i := 0; ; i++ {
				number := first + p + 3*i
				kind, lane := "effect", fmt.Sprintf("%d of %s", p, args[1])
				if i%4 == 0 {
					kind = "parent"
				}
				r, err := q.Enqueue(context.Background(), queue.Job{Kind: kind, Key: lane, Group: strconv.Itoa(number % 5), MaxCrashes: 1000, Payload: []byte(strconv.Itoa(number))})
				if err != nil {
					errs <- err
					return
				}
				_, _ = os.Stdout.WriteString("acknowledged " + r[0].ID + " " + kind + "\n") // at once: no buffer that dies with the process
				time.Sleep(5 * time.Millisecond)                                            // so that what is left in the end is worked off in reasonable time
			}
		})
	}
	all.Go(func() {
		errs <- q.Run(context.Background(), effect(b, q), queue.WorkerConfig{Concurrency: 8, Lease: killLease})
	})
	return <-errs
}

// TestNothingIsLostOrDoubledWhenProcessesAreKilled holds P1 and P3 against 200 kills: two processes on one file enqueue and work; one
// after the other is killed at a random moment.
//
// P1: "Acknowledged means durable. 200 is sent only after the job is in a durable queue."
// P3: "A job takes effect once. … one transaction where the effect is in the same database"
func TestNothingIsLostOrDoubledWhenProcessesAreKilled(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	acknowledged := map[string]string{}
	var running [2]*child
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for i := range kills + len(running) {
		place := i % len(running)
		if c := running[place]; c != nil {
			time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond) // the moment is random; nothing is waited for
			for _, l := range c.kill(t) {
				if f := strings.Fields(l); len(f) == 3 && f[0] == "acknowledged" {
					acknowledged[f[1]] = f[2]
				}
			}
		}
		if i < kills {
			running[place] = startChild(t, "sqlite-load", file, strconv.Itoa(i*1_000_000))
			if i%4 > 0 { // now and then one is killed before it has done anything
				running[place].line(t, "acknowledged ")
			}
		}
	}
	require.Greater(t, len(acknowledged), kills)

	// What is left is worked off.
	db, b, q, err := ledgerOf(file)
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // the test is over
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx, effect(b, q), queue.WorkerConfig{Concurrency: 8, Lease: killLease}) }()
	require.Eventually(t, func() bool {
		s, err := q.Stats(ctx)
		return assert.NoError(t, err) && s.Jobs+s.Scheduled == 0
	}, 3*time.Minute, 50*time.Millisecond)
	stop()
	require.NoError(t, <-ran)

	stats, err := q.Stats(t.Context())
	require.NoError(t, err)
	require.Zero(t, stats.Dead)
	times, lanes := map[string]int{}, map[string]int{}
	kinds := map[string]int{}
	rows, err := db.QueryContext(t.Context(), "SELECT job, kind, lane, number FROM ledger ORDER BY rowid")
	require.NoError(t, err)
	defer rows.Close() //nolint:errcheck // the test is over
	for rows.Next() {
		var job, kind, lane string
		var number int
		require.NoError(t, rows.Scan(&job, &kind, &lane, &number))
		kinds[kind]++
		times[job]++
		require.Equal(t, 1, times[job], "the effect of %s is doubled", job)
		if kind == "child" {
			continue
		}
		// Each lane is enqueued by one goroutine, in the order of its numbers; groups split it in five.
		split := lane + " " + strconv.Itoa(number%5)
		last, seen := lanes[split]
		require.True(t, !seen || number > last, "lane %s out of order: %d after %d", lane, number, last)
		lanes[split] = number
	}
	require.NoError(t, rows.Err())
	for id := range acknowledged {
		require.Equal(t, 1, times[id], "job %s was acknowledged and its effect is missing", id)
	}
	require.Equal(t, kinds["parent"], kinds["child"], "the effect of a job and the job that it enqueued are one")
	t.Logf("%d kills: %d jobs acknowledged, effects %v", kills, len(acknowledged), kinds)
}

const hush = "hush"

// sqliteReceiver takes webhooks into a file and works off nothing. args: file.
func sqliteReceiver(args []string) error {
	db, err := sql.Open("sqlite", "file:"+args[0])
	if err != nil {
		return err
	}
	q, err := queue.New(sqlqueue.New(db, sqlqueue.Config{NoReserve: true}), queue.Config{})
	if err != nil {
		return err
	}
	hooks, err := webhook.New(webhook.Secrets(hush), enqueue.To(q, enqueue.Topics("orders/create")), webhook.Config{})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, _ = os.Stdout.WriteString("listening http://" + l.Addr().String() + "\n") // a parent that is gone needs no word
	srv := &http.Server{Handler: hooks, ReadHeaderTimeout: time.Second}
	return srv.Serve(l)
}

// P1: "Acknowledged means durable. 200 is sent only after the job is in a durable queue. Queue down or slow: 503 inside the
// deadline, so Shopify redelivers."
func TestP1KilledBetweenAcknowledgementAndWork(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	db, err := sql.Open("sqlite", "file:"+file+"?_txlock=immediate&_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // the test is over
	broker := sqlqueue.New(db, sqlqueue.Config{NoReserve: true})
	require.NoError(t, broker.Migrate(t.Context()))
	jobs, err := queue.New(broker, queue.Config{})
	require.NoError(t, err)

	accepted := 0
	for i := range 20 {
		receiver := startChild(t, "sqlite-receiver", file)
		url := receiver.line(t, "listening ")
		// Somebody else writes to the file meanwhile: nothing can be stored before that ends.
		var busy *sql.Tx
		if i%2 == 0 {
			busy, err = db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
		}
		answered := make(chan int, 1)
		go func() { answered <- deliver(t, url, i) }()
		if busy != nil {
			select {
			case status := <-answered:
				receiver.kill(t)
				require.NoError(t, busy.Rollback())
				require.NotEqual(t, http.StatusOK, status, "it was acknowledged while nothing could be stored")
				continue
			case <-time.After(50 * time.Millisecond): // an answer that is too early has had its chance
			}
			require.NoError(t, busy.Rollback())
		}
		require.Equal(t, http.StatusOK, <-answered)
		receiver.kill(t)
		accepted++
		stats, err := jobs.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, accepted, stats.Jobs, "delivery %d was acknowledged", i)
	}

	var mu sync.Mutex
	ran := map[string]int{}
	mux := queue.NewMux()
	ctx, stop := context.WithCancel(t.Context())
	mux.Handle("orders/create", func(_ context.Context, j queue.Job) error {
		mu.Lock()
		defer mu.Unlock()
		if ran[enqueue.Delivery(j).WebhookID]++; len(ran) == accepted {
			stop()
		}
		return nil
	})
	require.NoError(t, jobs.Run(ctx, mux, queue.WorkerConfig{}))
	require.Len(t, ran, accepted)
}

// deliver sends a signed webhook and answers the status; 0 if there was no answer.
func deliver(t testing.TB, url string, i int) int {
	t.Helper()
	req := webhooktest.NewRequest(hush, webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", Shop: "a.myshopify.com", WebhookID: "w" + strconv.Itoa(i)}})
	out, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, req.Body)
	if err != nil {
		return 0
	}
	out.Header = req.Header
	client := &http.Client{}
	resp, err := client.Do(out)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
