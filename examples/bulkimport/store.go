package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

const schema = `
CREATE TABLE IF NOT EXISTS imports (
	id       TEXT PRIMARY KEY, -- the job's
	at       INTEGER NOT NULL, -- how many bytes of the file are done with
	line     INTEGER NOT NULL, -- that begins there
	imported INTEGER NOT NULL DEFAULT 0,
	bad      INTEGER NOT NULL DEFAULT 0
);
-- What an import has done: it stands for your products. Nothing in it is unique, so that a row which was imported twice would be there twice.
CREATE TABLE IF NOT EXISTS import_rows (
	import TEXT NOT NULL, line INTEGER NOT NULL, handle TEXT NOT NULL, title TEXT NOT NULL, sku TEXT NOT NULL, cents INTEGER NOT NULL, quantity INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS import_rows_sku ON import_rows (import, sku);
CREATE INDEX IF NOT EXISTS import_rows_handle ON import_rows (import, handle);
CREATE TABLE IF NOT EXISTS import_bad (import TEXT NOT NULL, line INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS import_bad_line ON import_bad (import, line);
`

// store keeps what imports have done, in the file of the queue. A real app gives the rows of old imports up some day.
type store struct{ db *sql.DB }

func (s store) create(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, schema)
	return err
}

// position is how far an import has come.
type position struct {
	place
	Imported, Bad int
}

// begin gives an import a position, if it has none.
func (s store) begin(ctx context.Context, id string, first place) error {
	_, err := s.db.ExecContext(ctx, "INSERT INTO imports (id, at, line) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", id, first.At, first.Line)
	return err
}

func (s store) position(ctx context.Context, id string) (p position, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT at, line, imported, bad FROM imports WHERE id = ?", id).Scan(&p.At, &p.Line, &p.Imported, &p.Bad)
	return p, err
}

// save writes a chunk and the position behind it, or, if the import is not at from any more, nothing: then it says false.
func (s store) save(ctx context.Context, id string, from, behind place, c *columns, rows []row) (bool, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	// This comes first: it has SQLite's only lock for writing from here on, so that of two who are at the same chunk the
	// second sees what the first has done.
	res, err := tx.ExecContext(ctx, "UPDATE imports SET at = ?, line = ? WHERE id = ? AND at = ?", behind.At, behind.Line, id, from.At)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	imported := 0
	for _, r := range rows {
		p, reason := c.product(r)
		if reason == "" {
			if reason, err = fits(ctx, tx, id, p); err != nil {
				return false, err
			}
		}
		if reason == "" {
			imported++
			_, err = tx.ExecContext(ctx, "INSERT INTO import_rows (import, line, handle, title, sku, cents, quantity) VALUES (?, ?, ?, ?, ?, ?, ?)",
				id, p.Line, p.Handle, p.Title, p.SKU, p.Cents, p.Quantity)
		} else {
			_, err = tx.ExecContext(ctx, "INSERT INTO import_bad (import, line, reason) VALUES (?, ?, ?)", id, r.line, reason)
		}
		if err != nil {
			return false, err
		}
	}
	if _, err := tx.ExecContext(ctx, "UPDATE imports SET imported = imported + ?, bad = bad + ? WHERE id = ?", imported, len(rows)-imported, id); err != nil {
		return false, err
	}
	return true, tx.Commit()
}

// fits checks a product against what the import has brought before. It asks the database, which knows that after a restart too.
func fits(ctx context.Context, tx *sql.Tx, id string, p product) (reason string, err error) {
	var line int
	switch err := tx.QueryRowContext(ctx, "SELECT line FROM import_rows WHERE import = ? AND sku = ?", id, p.SKU).Scan(&line); {
	case err == nil:
		return fmt.Sprintf("Variant SKU %s is on line %d already", quote(p.SKU), line), nil
	case !errors.Is(err, sql.ErrNoRows):
		return "", err
	case p.Title != "":
		return "", nil
	}
	err = tx.QueryRowContext(ctx, "SELECT line FROM import_rows WHERE import = ? AND handle = ?", id, p.Handle).Scan(&line)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Sprintf("Title is empty, and no row before has brought the product %s", quote(p.Handle)), nil
	}
	return "", err
}

// badRows are the bad rows of an import, by line. A negative limit is none.
func (s store) badRows(ctx context.Context, id string, limit int) ([]badRow, error) {
	return all(ctx, s.db, func(b *badRow) []any { return []any{&b.Line, &b.Reason} },
		"SELECT line, reason FROM import_bad WHERE import = ? ORDER BY line LIMIT ?", id, limit)
}

// products are what an import has brought, by line.
func (s store) products(ctx context.Context, id string) ([]product, error) {
	return all(ctx, s.db, func(p *product) []any { return []any{&p.Line, &p.Handle, &p.Title, &p.SKU, &p.Cents, &p.Quantity} },
		"SELECT line, handle, title, sku, cents, quantity FROM import_rows WHERE import = ? ORDER BY line", id)
}

func all[T any](ctx context.Context, db *sql.DB, fields func(*T) []any, query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // they were only read
	var list []T
	for rows.Next() {
		var one T
		if err := rows.Scan(fields(&one)...); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, rows.Err()
}
