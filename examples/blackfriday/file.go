package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

// fileBook is the database of the storm: a table in the queue's file, which is written in the transaction that completes a job. It has no key that would refuse a second effect: it
// is there to be counted.
type fileBook struct {
	db   *sql.DB
	inTx func(ctx context.Context, c call) error
}

func newFileBook(db *sql.DB, broker *sqlqueue.Broker) *fileBook {
	return &fileBook{db, sqlqueue.InTx(broker, insert)}
}

// make prepares it, once.
func (b *fileBook) make(ctx context.Context) error {
	_, err := b.db.ExecContext(ctx, `
		CREATE TABLE storm_effects (
			event TEXT NOT NULL, shop TEXT NOT NULL, subject TEXT NOT NULL, topic TEXT NOT NULL, stock INTEGER NOT NULL,
			worker INTEGER NOT NULL, crashes INTEGER NOT NULL, at INTEGER NOT NULL -- nanoseconds since 1970
		)`)
	return err
}

// record writes the effect of a call in the transaction that completes its job.
func (b *fileBook) record(ctx context.Context, c call) error { return b.inTx(ctx, c) }

func insert(ctx context.Context, tx *sql.Tx, c call) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO storm_effects (event, shop, subject, topic, stock, worker, crashes, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		c.Event, c.Shop, c.Subject, c.Topic, c.Stock, c.Worker, c.Crashes, time.Now().UnixNano())
	return err
}

// effects are those after the first ones, in the order in which they were committed.
func (b *fileBook) effects(ctx context.Context, after int) (list []effect, err error) {
	rows, err := b.db.QueryContext(ctx, "SELECT event, shop, subject, topic, stock, worker, crashes, at FROM storm_effects WHERE rowid > ? ORDER BY rowid", after)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // they were only read
	for rows.Next() {
		e, at := effect{System: "database"}, int64(0)
		if err := rows.Scan(&e.Event, &e.Shop, &e.Subject, &e.Topic, &e.Stock, &e.Worker, &e.Crashes, &at); err != nil {
			return nil, err
		}
		e.Came = time.Unix(0, at)
		e.Done = e.Came
		list = append(list, e)
	}
	return list, rows.Err()
}
