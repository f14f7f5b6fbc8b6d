package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

// place decides where the queue's file is, and makes a directory for it if nobody said. done is called with whether anything was wrong:
// then the file is kept, to be looked at.
func place(o *options) (done func(wrong bool), err error) {
	if o.Memory {
		return func(bool) {}, nil
	}
	if o.DB != "" {
		// The webhook IDs of a storm are its seed's: in the file of an earlier one they would be redeliveries.
		if _, err := os.Stat(o.DB); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("-db %s is there already; a storm needs a file of its own", o.DB)
		}
		return func(bool) {}, nil
	}
	dir, err := os.MkdirTemp("", "blackfriday-")
	if err != nil {
		return nil, err
	}
	o.DB = filepath.Join(dir, "storm.db")
	return func(wrong bool) {
		if wrong {
			fmt.Fprintln(os.Stderr, "blackfriday: the queue's file is kept:", o.DB)
			return
		}
		_ = os.RemoveAll(dir) // it is in the temporary directory
	}, nil
}

// open gives the broker of a side and its configuration.
func open(o options) (queue.Broker, queue.Config, error) {
	cfg := queue.Config{MaxAttempts: 1000} // the systems are down for long
	if o.Memory {
		cfg.AllowVolatile = true
		return new(queue.Memory), cfg, nil
	}
	_, broker, err := openFile(o.DB)
	return broker, cfg, err
}

func openFile(file string) (*sql.DB, *sqlqueue.Broker, error) {
	db, err := sql.Open("sqlite", file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, nil, err
	}
	return db, sqlqueue.New(db, sqlqueue.Config{}), nil
}

// book is what the workers under -kill write into the queue's file: a table of their own, which is the database of the storm, and the
// steps of jobs that are done. Neither has a key that would refuse a second effect: it is there to be counted.
type book struct{ db *sql.DB }

func (b book) make(ctx context.Context) error {
	_, err := b.db.ExecContext(ctx, `
		CREATE TABLE storm_effects (
			event TEXT NOT NULL, shop TEXT NOT NULL, subject TEXT NOT NULL, topic TEXT NOT NULL,
			worker INTEGER NOT NULL, crashes INTEGER NOT NULL, at INTEGER NOT NULL -- nanoseconds since 1970
		);
		CREATE TABLE storm_steps (job TEXT NOT NULL, system TEXT NOT NULL);
		CREATE INDEX storm_steps_job ON storm_steps (job)`)
	return err
}

// rowsOf reads all rows of a query.
func rowsOf[T any](ctx context.Context, b book, scan func(rows *sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := b.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // they were only read
	var list []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, rows.Err()
}

// steps are the systems that are done with a job.
func (b book) steps(ctx context.Context, job string) ([]string, error) {
	scan := func(rows *sql.Rows) (system string, err error) {
		err = rows.Scan(&system)
		return system, err
	}
	return rowsOf(ctx, b, scan, "SELECT system FROM storm_steps WHERE job = ?", job)
}

// note says that a system is done with a job.
type note struct {
	job, system string
	written     chan error
}

// write writes notes until ctx ends, all that wait at a moment in one transaction: SQLite has one writer, and it is the queue's file.
func (b book) write(ctx context.Context, notes <-chan note) {
	for {
		var batch []note
		select {
		case n := <-notes:
			batch = append(batch, n)
		case <-ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case n := <-notes:
				batch = append(batch, n)
			default:
				more = false
			}
		}
		err := b.did(ctx, batch)
		for _, n := range batch {
			n.written <- err
		}
	}
}

func (b book) did(ctx context.Context, batch []note) error {
	var values []any
	for _, n := range batch {
		values = append(values, n.job, n.system)
	}
	_, err := b.db.ExecContext(ctx, "INSERT INTO storm_steps (job, system) VALUES (?, ?)"+strings.Repeat(", (?, ?)", len(batch)-1), values...) //nolint:gosec // nothing but question marks
	return err
}

// record is the effect of a call in the storm's database, as part of a transaction.
func (book) record(ctx context.Context, tx *sql.Tx, c call) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO storm_effects (event, shop, subject, topic, worker, crashes, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
		c.Event, c.Shop, c.Subject, c.Topic, c.Worker, c.Crashes, time.Now().UnixNano())
	return err
}

// effects are those after the first ones, in the order in which they were committed.
func (b book) effects(ctx context.Context, after int) ([]effect, error) {
	scan := func(rows *sql.Rows) (effect, error) {
		e, at := effect{System: "database"}, int64(0)
		err := rows.Scan(&e.Event, &e.Shop, &e.Subject, &e.Topic, &e.Worker, &e.Crashes, &at)
		e.Came = time.Unix(0, at)
		e.Done = e.Came
		return e, err
	}
	return rowsOf(ctx, b, scan, "SELECT event, shop, subject, topic, worker, crashes, at FROM storm_effects WHERE rowid > ? ORDER BY rowid", after)
}

// noted are the keys of the notes after the first ones, in the order in which they were committed.
func (b book) noted(ctx context.Context, after int) ([]string, error) {
	scan := func(rows *sql.Rows) (string, error) {
		var job, system string
		err := rows.Scan(&job, &system)
		return keyOf(job, system), err
	}
	return rowsOf(ctx, b, scan, "SELECT job, system FROM storm_steps WHERE rowid > ? ORDER BY rowid", after)
}
