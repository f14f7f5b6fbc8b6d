package main

import (
	"context"
	"database/sql"
	"strings"
	"time"

	_ "modernc.org/sqlite"

	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

// fileBook is two tables in the queue's file: the notes, and the database of the storm.
type fileBook struct {
	db   *sql.DB
	inTx func(ctx context.Context, c call) error // record, as part of the transaction that completes a job
}

var _ interface {
	book
	database
} = fileBook{}

func openFile(file string) (fileBook, *sqlqueue.Broker, error) {
	db, err := sql.Open("sqlite", file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return fileBook{}, nil, err
	}
	broker := sqlqueue.New(db, sqlqueue.Config{})
	return fileBook{db, sqlqueue.InTx(broker, insert)}, broker, nil
}

func (b fileBook) make(ctx context.Context) error {
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
func rowsOf[T any](ctx context.Context, b fileBook, scan func(rows *sql.Rows) (T, error), query string, args ...any) ([]T, error) {
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

func (b fileBook) steps(ctx context.Context, job string) ([]string, error) {
	scan := func(rows *sql.Rows) (system string, err error) {
		err = rows.Scan(&system)
		return system, err
	}
	return rowsOf(ctx, b, scan, "SELECT system FROM storm_steps WHERE job = ?", job)
}

func (b fileBook) did(ctx context.Context, batch []note) error {
	var values []any
	for _, n := range batch {
		values = append(values, n.job, n.system)
	}
	_, err := b.db.ExecContext(ctx, "INSERT INTO storm_steps (job, system) VALUES (?, ?)"+strings.Repeat(", (?, ?)", len(batch)-1), values...) //nolint:gosec // nothing but question marks
	return err
}

func (b fileBook) record(ctx context.Context, c call) error { return b.inTx(ctx, c) }

func insert(ctx context.Context, tx *sql.Tx, c call) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO storm_effects (event, shop, subject, topic, worker, crashes, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
		c.Event, c.Shop, c.Subject, c.Topic, c.Worker, c.Crashes, time.Now().UnixNano())
	return err
}

func (b fileBook) read(ctx context.Context, after *mark) (keys []string, effects []effect, err error) {
	if keys, err = b.noted(ctx, after.notes); err != nil {
		return nil, nil, err
	}
	if effects, err = b.effects(ctx, after.effects); err != nil {
		return nil, nil, err
	}
	after.notes += len(keys)
	after.effects += len(effects)
	return keys, effects, nil
}

// effects are those after the first ones, in the order in which they were committed.
func (b fileBook) effects(ctx context.Context, after int) ([]effect, error) {
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
func (b fileBook) noted(ctx context.Context, after int) ([]string, error) {
	scan := func(rows *sql.Rows) (string, error) {
		var job, system string
		err := rows.Scan(&job, &system)
		return keyOf(job, system), err
	}
	return rowsOf(ctx, b, scan, "SELECT job, system FROM storm_steps WHERE rowid > ? ORDER BY rowid", after)
}

func (b fileBook) close() error { return b.db.Close() }
