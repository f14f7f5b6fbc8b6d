package sqlqueue

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/breakwater-go/breakwater/internal/sqlite"
)

// ErrFull is wrapped by Enqueue's error when the disk is full, or when more than Config.MaxBytes are in use. Nothing of
// the batch was accepted; workers go on.
var ErrFull = errors.New("sqlqueue: no room for new jobs")

// ErrNewerSchema is wrapped by every error of a Broker whose file was changed by a version of this module that this one
// can't share it with.
var ErrNewerSchema = errors.New("sqlqueue: the file belongs to a later version")

//go:embed migrations/*.sql
var migrations embed.FS

// A migration's number and the oldest version whose programs can go on using the file after it.
type migration struct {
	version, readable int
	file              string
}

var versions = []migration{
	{1, 1, "migrations/0001.sql"},
}

// Migrate makes the tables, or brings them up to date. It is safe in several processes at once, and is done before the first use
// anyway. It fails with [ErrNewerSchema] if a later version of the module has changed the file so that this one can't use it.
func (b *Broker) Migrate(ctx context.Context) error { return b.ready(ctx) }

// ready opens the file once.
func (b *Broker) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sqlqueue: %w", context.Cause(ctx))
	}
	if b.open.Load() {
		return nil
	}
	select {
	case b.opening <- struct{}{}:
		defer func() { <-b.opening }()
	case <-ctx.Done():
		return fmt.Errorf("sqlqueue: %w", context.Cause(ctx))
	}
	if b.open.Load() {
		return nil
	}
	if b.err != nil {
		return b.err
	}
	// To make a file's journal a WAL does not wait for others that use the file, as everything else does.
	begin := time.Now()
	err := b.prepare(ctx)
	for ctx.Err() == nil && sqlite.IsBusy(err) && time.Since(begin) < b.cfg.BusyTimeout {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
		err = b.prepare(ctx)
	}
	b.open.Store(err == nil)
	return wrap("", err)
}

func (b *Broker) prepare(ctx context.Context) error {
	conn, err := b.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it only goes back
	if _, err := conn.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d", b.cfg.BusyTimeout/time.Millisecond)); err != nil {
		return err
	}
	var one int
	var name string
	if err := conn.QueryRowContext(ctx, "PRAGMA database_list").Scan(&one, &name, &b.path); err != nil {
		return fmt.Errorf("this is no SQLite database: %w", err)
	}
	if b.path == "" {
		return errors.New("the database is in memory: every connection would have one of its own, and nothing would survive; name a file, or use queue.Memory")
	}
	var mode string
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if !strings.EqualFold(mode, "wal") {
		return fmt.Errorf("the file's journal mode is %q and can't be made WAL (is it on a network file system?)", mode)
	}
	// A writing statement comes first, so that of several processes one goes on and the others wait for it.
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS breakwater_migrations (version INTEGER PRIMARY KEY, readable INTEGER NOT NULL)"); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM breakwater_migrations WHERE version < 0"); err != nil { // takes the lock
		return err
	}
	var at, readable int
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(version), 0), coalesce(max(readable), 0) FROM breakwater_migrations").Scan(&at, &readable); err != nil {
		return err
	}
	if newest := versions[len(versions)-1].version; readable > newest {
		return fmt.Errorf("%w: its tables have version %d, which programs from version %d on can use; this one has version %d", ErrNewerSchema, at, readable, newest)
	}
	for _, m := range versions {
		if m.version <= at {
			continue
		}
		script, err := migrations.ReadFile(m.file)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, string(script)); err != nil {
			return fmt.Errorf("%s: %w", path.Base(m.file), err)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO breakwater_migrations (version, readable) VALUES (?, ?)", m.version, m.readable); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	for i := range texts {
		if b.stmts[i], err = b.db.PrepareContext(ctx, texts[i]); err != nil { //nolint:sqlclosecheck // they are closed with the database
			return fmt.Errorf("statement %d: %w", i, err)
		}
	}
	if !b.cfg.NoReserve {
		b.reserved = &reserve{path: b.path + "-reserve", size: b.cfg.ReserveBytes}
	}
	return nil
}

// room says whether new jobs may be accepted. db is asked: the database, or a transaction that may have its only connection.
func (b *Broker) room(ctx context.Context, db querier) error {
	full := b.reserved.keep()
	if full != nil && !isNoSpace(full) {
		b.noReserve.Do(func() {
			b.log.Warn("sqlqueue: no reserve can be kept beside the file; a full disk will stop workers as well", "file", b.path, "error", full)
		})
		full = nil
	}
	if full == nil && b.cfg.MaxBytes == 0 {
		return nil
	}
	var pages, free, size int64
	if err := db.QueryRowContext(ctx, "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&pages, &free, &size); err != nil {
		return err
	}
	if full != nil && free*size < b.cfg.ReserveBytes { // else there is room in the file itself
		return fmt.Errorf("%w: the disk is full: %w", ErrFull, full)
	}
	if used := (pages - free) * size; b.cfg.MaxBytes > 0 && used > b.cfg.MaxBytes {
		return fmt.Errorf("%w: %d bytes are in use; Config.MaxBytes is %d", ErrFull, used, b.cfg.MaxBytes)
	}
	return nil
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// reader is what to read with: the database, or the transaction that the context belongs to.
func (b *Broker) reader(ctx context.Context) querier {
	if tx, _ := txFrom(ctx); tx != nil {
		return tx
	}
	return b.db
}

// checkpoint brings the log into the file, so that the log's room can be used again.
func (b *Broker) checkpoint() {
	if _, err := b.db.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		b.log.Warn("sqlqueue: checkpoint", "error", err)
	}
}

// reserve is a file that takes up room, to be given up when there is no other: a queue that can't write can't even say
// that a job is done. nil is none.
type reserve struct {
	path string
	size int64

	mu     sync.Mutex
	tried  time.Time
	failed error
}

// keep makes the file if it is not there; while that fails, new jobs are refused. Another process may have given it up.
func (r *reserve) keep() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if info, err := os.Stat(r.path); err == nil && info.Size() >= r.size {
		r.failed = nil
		return nil
	}
	if r.failed != nil && time.Since(r.tried) < time.Second {
		return r.failed
	}
	r.tried = time.Now()
	r.failed = r.fill()
	return r.failed
}

// fill writes random bytes: a file system that compresses would keep no room for zeros.
func (r *reserve) fill() error {
	f, err := os.CreateTemp(filepath.Dir(r.path), filepath.Base(r.path)+".*")
	if err != nil {
		return err
	}
	part := f.Name()
	block := make([]byte, 1<<16)
	_, _ = rand.Read(block) // never fails
	for left := r.size; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))])
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(part, r.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return nil
}

// isNoSpace says whether a file could not be written for want of room, and not for another reason.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// giveUp frees the room, and says whether there was any.
func (r *reserve) giveUp() bool {
	return r != nil && os.Remove(r.path) == nil
}
