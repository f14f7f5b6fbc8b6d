package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
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

// invariants are those of docs/queue.md and of the tables, each a statement that finds what breaks it. The numbers are the model's.
var invariants = map[string]string{
	"a group's counts are those of its jobs":                            "SELECT g.queue, g.name, g.jobs, g.held, g.ready_live, g.ready_bulk, j.jobs, j.held, j.rl, j.rb FROM breakwater_groups g LEFT JOIN (SELECT queue, grp, sum(state < 5) jobs, sum(state = 2) held, sum(state = 1 AND class = 0) rl, sum(state = 1 AND class = 1) rb FROM breakwater_jobs GROUP BY queue, grp) j ON j.queue = g.queue AND j.grp = g.name WHERE g.jobs <> coalesce(j.jobs, 0) OR g.held <> coalesce(j.held, 0) OR g.ready_live <> coalesce(j.rl, 0) OR g.ready_bulk <> coalesce(j.rb, 0)",
	"a job has its group":                                               "SELECT queue, grp, count(*) FROM breakwater_jobs j WHERE state < 5 AND NOT EXISTS (SELECT 1 FROM breakwater_groups g WHERE g.queue = j.queue AND g.name = j.grp) GROUP BY queue, grp",
	"4. a group is in a ring if and only if the ring's condition holds": "SELECT queue, name, ready_live, ready_bulk, seat_live, seat_bulk, parked, cap, held FROM breakwater_groups WHERE (seat_live > 0) <> (ready_live > 0 AND parked = 0 AND (cap = 0 OR held < cap)) OR (seat_bulk > 0) <> (ready_bulk > 0 AND parked = 0 AND (cap = 0 OR held < cap))",
	"9. a group that nothing is left of is gone":                        "SELECT queue, name FROM breakwater_groups WHERE jobs = 0 AND parked = 0 AND cap = 0 AND weight = 0",
	"4. a group is in a ring once":                                      "SELECT queue, seat_live, count(*) FROM breakwater_groups WHERE seat_live > 0 GROUP BY 1, 2 HAVING count(*) > 1",
	"2. a lane has one head, which is ready, leased or waiting":         "SELECT queue, grp, class, lane, count(*), sum(state IN (1,2,3)), min(ord) FROM breakwater_jobs WHERE lane <> '' GROUP BY queue, grp, class, lane HAVING sum(state IN (1,2,3)) <> 1",
	"3. the head of a lane is the first":                                "SELECT queue, grp, class, lane, n FROM breakwater_jobs j WHERE lane <> '' AND state IN (1,2,3) AND EXISTS (SELECT 1 FROM breakwater_jobs k WHERE k.queue = j.queue AND k.grp = j.grp AND k.class = j.class AND k.lane = j.lane AND k.ord < j.ord)",
	"1. a job is in its lane or outside":                                "SELECT n, state, lane, key FROM breakwater_jobs WHERE (state >= 4 AND lane <> '') OR (state < 4 AND lane <> key)",
	"3. jobs of a lane have an order":                                   "SELECT queue, grp, class, lane, ord FROM breakwater_jobs WHERE lane <> '' GROUP BY 1,2,3,4,5 HAVING count(*) > 1",
	"4. a ready lane is in its group's list once":                       "SELECT queue, grp, class, place FROM breakwater_jobs WHERE state = 1 GROUP BY 1,2,3,4 HAVING count(*) > 1",
	"tokens differ":                       "SELECT token, count(*) FROM breakwater_jobs WHERE state = 2 GROUP BY token HAVING count(*) > 1 OR token = ''",
	"a token is a leased lane's":          "SELECT n, state, token FROM breakwater_jobs WHERE state <> 2 AND state IN (0,5) AND token <> ''",
	"a job has its record":                "SELECT n FROM breakwater_jobs EXCEPT SELECT n FROM breakwater_records",
	"a record has its job":                "SELECT n FROM breakwater_records EXCEPT SELECT n FROM breakwater_jobs",
	"1. a job is in one place":            "SELECT queue, id, count(*) FROM breakwater_jobs GROUP BY 1, 2 HAVING count(*) > 1",
	"a status without an end has its job": "SELECT queue, id FROM breakwater_status s WHERE state = '' AND NOT EXISTS (SELECT 1 FROM breakwater_jobs j WHERE j.queue = s.queue AND j.id = s.id AND j.state < 5) AND NOT EXISTS (SELECT 1 FROM breakwater_intake)",
	"a tracked job has its status":        "SELECT queue, id, state FROM breakwater_jobs j WHERE tracked AND state < 5 AND NOT purged AND NOT cancelled AND NOT EXISTS (SELECT 1 FROM breakwater_status s WHERE j.queue = s.queue AND j.id = s.id AND s.state = '')",
	"numbers are not used twice":          "SELECT seq FROM breakwater_space WHERE seq < (SELECT max(max(n), max(ord), max(armed), max(claim)) FROM breakwater_jobs)",
	"the file is whole":                   "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
	"what is done is leased":              "SELECT n, state FROM breakwater_jobs WHERE done AND state <> 2",
}

// walk looks at all rows of a file as of one moment, and answers what breaks an invariant.
func walk(ctx context.Context, db *sql.DB) (broken []string, err error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // it has only read
	for what, query := range invariants {
		found, err := rowsOf(ctx, tx, query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		for _, f := range found[:min(len(found), 5)] {
			broken = append(broken, what+": "+f)
		}
	}
	return broken, nil
}

func rowsOf(ctx context.Context, tx *sql.Tx, query string) (found []string, err error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		found = append(found, fmt.Sprint(values...))
	}
	return found, rows.Err()
}

// Three processes' worth of brokers on one file, each with workers that come and go, handlers that fail, panic and enqueue in their transactions,
// enqueues that are rolled back, and operators that do whatever operators do.
func TestInvariantsHoldUnderLoad(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "queue.db")
	l := &load{holds: map[string]string{}}
	for i := range 3 {
		p := &process{load: l, db: open(t, file+"?_txlock=immediate&_pragma=busy_timeout(20000)")}
		if i == 2 {
			p.db.SetMaxOpenConns(1)
		}
		p.broker = sqlqueue.New(p.db, sqlqueue.Config{NoReserve: true, Synchronous: sqlqueue.Off, BusyTimeout: 20 * time.Second})
		require.NoError(t, p.broker.Migrate(t.Context()))
		for k := range p.queues {
			var err error
			p.queues[k], err = queue.New(p.broker, queue.Config{AllowVolatile: true, Name: "q" + strconv.Itoa(k)})
			require.NoError(t, err)
		}
		l.processes = append(l.processes, p)
	}
	ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
	defer stop()
	var all sync.WaitGroup
	for _, p := range l.processes {
		for k := range p.queues {
			all.Go(func() { p.work(ctx, k) })
		}
		all.Go(func() { p.enqueue(ctx) })
		all.Go(func() { p.operate(ctx, t) })
	}
	first := l.processes[0]
	for ctx.Err() == nil {
		broken, err := walk(t.Context(), first.db)
		require.NoError(t, err)
		if !assert.Empty(t, broken) {
			stop()
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	all.Wait()
	require.Empty(t, l.doubles, "two workers held one lane")

	for k, q := range first.queues {
		require.NoError(t, q.Resume(t.Context()))
		for _, g := range loadGroups {
			require.NoError(t, errors.Join(q.Limit(t.Context(), g, queue.Limits{}), q.Park(t.Context(), g, 0)))
		}
		mux := queue.NewMux()
		for _, kind := range loadKinds {
			mux.Handle(kind, func(context.Context, queue.Job) error { return nil })
		}
		(&shop{db: first.db, broker: first.broker, jobs: first.queues[k]}).drain(t, mux)
	}
	broken, err := walk(t.Context(), first.db)
	require.NoError(t, err)
	require.Empty(t, broken)
}

var (
	loadGroups = []string{"0", "1", "2", "3", "4", "5"}
	loadKinds  = []string{"plain", "in tx"}
)

// load is what all processes of the test share.
type load struct {
	processes []*process

	mu      sync.Mutex
	ids     []string
	holds   map[string]string // jobs, by lane
	doubles []string
}

type process struct {
	*load
	db     *sql.DB
	broker *sqlqueue.Broker
	queues [2]*queue.Queue
}

func pick[T any](list []T) T { return list[rand.IntN(len(list))] }

func upTo(d time.Duration) time.Duration { return rand.N(d) }

// alone notes when two jobs of a lane run at once.
func (l *load) alone(k int) func(next queue.Handler) queue.Handler {
	return func(next queue.Handler) queue.Handler {
		return func(ctx context.Context, j queue.Job) error {
			if j.Key == "" {
				return next(ctx, j)
			}
			lane := fmt.Sprint(k, j.Group, j.Class, j.Key)
			l.mu.Lock()
			if other := l.holds[lane]; other != "" {
				l.doubles = append(l.doubles, other+" and "+j.ID)
			}
			l.holds[lane] = j.ID
			l.mu.Unlock()
			defer func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.holds[lane] = ""
			}()
			return next(ctx, j)
		}
	}
}

// work runs one worker after the other.
func (p *process) work(ctx context.Context, k int) {
	mux := queue.NewMux()
	mux.Use(p.alone(k))
	mux.Handle("in tx", sqlqueue.InTx(p.broker, func(ctx context.Context, tx *sql.Tx, j queue.Job) error {
		if _, err := tx.ExecContext(ctx, "SELECT 1"); err != nil {
			return err
		}
		var err error
		switch rand.IntN(6) {
		case 0:
			err = errors.New("no")
		case 1:
			panic("no")
		case 2:
			_, err = p.queues[k].Enqueue(ctx, queue.Job{Kind: "plain", Group: j.Group, Key: j.Key, Track: true})
		case 3:
			_, err = p.queues[1-k].EnqueueOnAck(ctx, queue.Job{Kind: "plain", Group: j.Group, Key: j.Key})
		}
		return err
	}))
	mux.Handle("plain", func(ctx context.Context, _ queue.Job) error {
		switch rand.IntN(8) {
		case 0:
			return errors.New("no")
		case 1:
			return later{upTo(50 * time.Millisecond)}
		case 2:
			return queue.Permanent(errors.New("never"))
		case 3:
			select {
			case <-time.After(upTo(20 * time.Millisecond)):
			case <-ctx.Done():
			}
		}
		return nil
	})
	for ctx.Err() == nil {
		life, end := context.WithTimeout(ctx, 500*time.Millisecond+upTo(1500*time.Millisecond))
		_ = p.queues[k].Run(life, mux, queue.WorkerConfig{Concurrency: 6, Lease: 3 * time.Second, Drain: 50 * time.Millisecond, // its jobs come to others
			Backoff: func(int) time.Duration { return upTo(30 * time.Millisecond) }})
		end()
	}
}

type later struct{ after time.Duration }

func (l later) Error() string             { return "later" }
func (l later) RetryAfter() time.Duration { return l.after }

func (p *process) enqueue(ctx context.Context) {
	for ctx.Err() == nil {
		q := pick(p.queues[:])
		job := queue.Job{Kind: pick(loadKinds), Group: pick(loadGroups), Key: pick([]string{"", "a", "b", "c"}), Class: pick([]queue.Class{queue.Live, queue.Bulk}),
			Order: pick([]queue.Order{queue.Strict, queue.Relaxed}), Track: rand.IntN(2) == 0, MaxAttempts: 4}
		if rand.IntN(4) == 0 {
			job.DedupeKey, job.DedupeFor = strconv.Itoa(rand.IntN(50)), time.Second
		}
		if rand.IntN(5) == 0 {
			job.Delay = upTo(300 * time.Millisecond)
		}
		if rand.IntN(10) == 0 {
			job.Deadline = time.Millisecond
		}
		with, end := ctx, func() error { return nil }
		if rand.IntN(3) == 0 {
			tx, err := p.db.BeginTx(ctx, nil)
			if err != nil {
				continue
			}
			with, end = sqlqueue.WithTx(ctx, tx), pick([]func() error{tx.Commit, tx.Rollback})
		}
		receipts, err := q.Enqueue(with, job, job)
		if rand.IntN(15) == 0 {
			_, err = q.Bury(with, job, errors.New("buried"))
		}
		if err = errors.Join(err, end()); err == nil {
			p.mu.Lock()
			p.ids = append(p.ids[max(0, len(p.ids)-200):], receipts[0].ID)
			p.mu.Unlock()
		}
	}
}

func (p *process) operate(ctx context.Context, t *testing.T) {
	t.Helper()
	for ctx.Err() == nil {
		q, group := pick(p.queues[:]), pick(loadGroups)
		p.mu.Lock()
		id := pick(append([]string{"unknown"}, p.ids...))
		p.mu.Unlock()
		var err error
		switch rand.IntN(12) {
		case 0, 1, 2:
			_, err = q.Cancel(ctx, id)
		case 3:
			err = q.Park(ctx, group, upTo(100*time.Millisecond))
		case 4:
			err = q.Limit(ctx, group, queue.Limits{Cap: rand.IntN(4), Weight: rand.IntN(3)})
		case 5:
			_, err = q.Purge(ctx, pick([]queue.PurgeFilter{{Group: group}, {Key: "a", Kind: "plain"}}))
		case 6:
			err = q.Pause(ctx)
		case 7, 8:
			err = q.Resume(ctx)
		case 9:
			_, err = q.Replay(ctx, queue.DeadFilter{Group: group})
		case 10:
			_, err = q.Drop(ctx, queue.DeadFilter{Group: group})
		case 11:
			_, err = q.Status(ctx, id)
		}
		assert.True(t, err == nil || ctx.Err() != nil || errors.Is(err, queue.ErrUnknownJob), "%v", err)
		select {
		case <-time.After(upTo(20 * time.Millisecond)):
		case <-ctx.Done():
		}
	}
}
