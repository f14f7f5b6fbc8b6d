package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// What any queue in a file is up against: the disk, and the database without a queue.

const (
	blockBytes = 4 << 10 // a page of SQLite
	overwrites = 1 << 10 // blocks of a file that are written again and again: what SQLite's log has before it starts over
)

// syncs writes a block and has the disk confirm it, again and again for d. It says how often a second. The file is a new one that
// grows, or one whose blocks are all there already.
func syncs(dir string, blocks int, d time.Duration) (perSecond float64, err error) {
	f, err := os.CreateTemp(dir, "sync-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := payload(blockBytes)
	for i := range blocks {
		if _, err := f.WriteAt(block, int64(i)*blockBytes); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	n := 0
	start := time.Now()
	for time.Since(start) < d {
		at := n
		if blocks > 0 {
			at = n % blocks
		}
		if _, err := f.WriteAt(block, int64(at)*blockBytes); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// bare is the least that a queue in a table can be: rows are inserted in one transaction and deleted in another, on the
// only connection, with the same driver and as durably as a queue.
type bare struct {
	db             *sql.DB
	path           string
	insert, remove *sql.Stmt
	batch          int // rows of a transaction
	n              int
	body           []byte

	inserts, both []float64 // rows a second, by turn: inserted; inserted and deleted
	problem       error
}

func newBare(ctx context.Context, dir string, batch int) (b *bare, err error) {
	b = &bare{path: filepath.Join(dir, fmt.Sprintf("bare-%d.db", batch)), batch: batch, body: payload(jobBytes)}
	if b.db, err = sql.Open(driver, b.path); err != nil {
		return nil, err
	}
	b.db.SetMaxOpenConns(1)
	for _, text := range []string{"PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE jobs (n INTEGER PRIMARY KEY, body BLOB NOT NULL)"} {
		if _, err := b.db.ExecContext(ctx, text); err != nil {
			return nil, errors.Join(err, b.db.Close())
		}
	}
	var e1, e2 error
	b.insert, e1 = b.db.PrepareContext(ctx, "INSERT INTO jobs (n, body) VALUES (?, ?)")
	b.remove, e2 = b.db.PrepareContext(ctx, "DELETE FROM jobs WHERE n = ?")
	if err := errors.Join(e1, e2); err != nil {
		return nil, errors.Join(err, b.db.Close())
	}
	return b, nil
}

// turn inserts and deletes so many rows.
func (b *bare) turn(ctx context.Context, rows int) error {
	var inserting, deleting time.Duration
	for done := 0; done < rows; done += b.batch {
		start := time.Now()
		if err := b.transact(ctx, b.insert, b.body); err != nil {
			return err
		}
		inserting += time.Since(start)
		if done+b.batch >= rows {
			if err := b.check(ctx, b.batch); err != nil {
				return err
			}
		}
		start = time.Now()
		if err := b.transact(ctx, b.remove); err != nil {
			return err
		}
		deleting += time.Since(start)
		b.n += b.batch
	}
	b.inserts = append(b.inserts, float64(rows)/inserting.Seconds())
	b.both = append(b.both, float64(rows)/(inserting+deleting).Seconds())
	return b.check(ctx, 0)
}

func (b *bare) transact(ctx context.Context, statement *sql.Stmt, more ...any) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()                        //nolint:errcheck // after Commit it does nothing
	statement = tx.StmtContext(ctx, statement) //nolint:sqlclosecheck // it is closed with the transaction
	for i := range b.batch {
		if _, err := statement.ExecContext(ctx, append([]any{b.n + i}, more...)...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// check sees whether so many rows of the right length are in the file, for somebody who opens it anew.
func (b *bare) check(ctx context.Context, want int) error {
	db, err := sql.Open(driver, b.path)
	if err != nil {
		return err
	}
	var rows, bytes int
	err = db.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(length(body)), 0) FROM jobs").Scan(&rows, &bytes)
	if b.problem == nil && (rows != want || bytes != want*jobBytes) {
		b.problem = fmt.Errorf("the table has %d rows and %d bytes; want %d rows", rows, bytes, want)
	}
	return errors.Join(err, db.Close())
}
