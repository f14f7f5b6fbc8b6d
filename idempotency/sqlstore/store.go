// Package sqlstore keeps the records of package idempotency in a SQL database: SQLite now, in the file of your own data, with any driver for database/sql.
//
// It has what no other store can have: [OnceTx] and [LatestTx] put the mark and the effect into one transaction, so that the work takes effect exactly once, whatever dies
// when. As a [idempotency.Store] it serves the rest, for any number of processes on one machine.
//
// Times are those of the processes' clock. Set back, it lengthens what is held and kept by as much; set forward, it ends leases early.
package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/internal/coalesce"
	"github.com/breakwater-go/breakwater/internal/sqlite"
)

// Config tunes a Store. The zero value is valid.
type Config struct {
	// BusyTimeout is how long a step waits for others who write to the file; 0 means 5 s.
	BusyTimeout time.Duration
	// Retention is how long a mark of OnceTx and LatestTx is kept; 0 means 48 h. (A Keeper has its own.)
	Retention time.Duration
}

// Store keeps records in a table of its own. It is safe for concurrent use.
type Store struct {
	db   *sql.DB
	cfg  Config
	err  error
	line coalesce.Line[*call]

	opening chan struct{} // held by whoever makes the table
	open    atomic.Bool
}

var (
	_ idempotency.Store    = (*Store)(nil)
	_ idempotency.Operator = (*Store)(nil)
)

//go:embed schema.sql
var schema string

const (
	format = 1
	// together is how many steps share a transaction at most, and so the time that the disk takes for one.
	together      = 64
	togetherBytes = 1 << 20
	// sweep is how many records that are over a step removes. It is more than a step adds.
	sweep = 2 * together
)

// New makes a Store over db, a SQLite file. It does no I/O; the table is made at the first use. How durable a record is, the connections of db decide:
// journal_mode WAL and synchronous FULL, SQLite's default, survive a power cut.
func New(db *sql.DB, cfg Config) *Store {
	s := &Store{db: db, cfg: cfg, opening: make(chan struct{}, 1)}
	s.cfg.BusyTimeout = cmp.Or(cfg.BusyTimeout, 5*time.Second)
	s.cfg.Retention = cmp.Or(cfg.Retention, 48*time.Hour)
	switch {
	case db == nil:
		s.err = errors.New("sqlstore: New: db is nil")
	case cfg.BusyTimeout < 0:
		s.err = fmt.Errorf("sqlstore: New: Config.BusyTimeout is %v; want 0 for the default, or more", cfg.BusyTimeout)
	case s.cfg.Retention < 4*time.Hour:
		s.err = fmt.Errorf("sqlstore: New: Config.Retention is %v; want at least 4h: Shopify sends again for so long", cfg.Retention)
	}
	s.line.MaxCount, s.line.MaxBytes, s.line.AtOnce, s.line.Send = together, togetherBytes, 1, s.send
	return s
}

// Check tells idempotency.New what is wrong with how the Store was made.
func (s *Store) Check() error { return s.err }

// Migrate makes the table. It is done before the first use anyway; call it before a transaction of yours is to Mark.
func (s *Store) Migrate(ctx context.Context) error {
	if s.open.Load() {
		return nil
	}
	if s.err != nil {
		return s.err
	}
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return fmt.Errorf("sqlstore: %w", context.Cause(ctx))
	}
	if s.open.Load() {
		return nil
	}
	err := s.patiently(ctx, func() error {
		_, err := s.db.ExecContext(ctx, schema)
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlstore: make the table: %w", err)
	}
	s.open.Store(true)
	return nil
}

// patiently does what others' writing may keep it from, until it can.
func (s *Store) patiently(ctx context.Context, do func() error) error {
	begin := time.Now()
	for {
		err := do()
		if !sqlite.IsBusy(err) || ctx.Err() != nil || time.Since(begin) > s.cfg.BusyTimeout {
			return err
		}
		time.Sleep(2 * time.Millisecond) // SQLite has no queue of writers: who asks often gets it
	}
}

// call is one step, and what it fails with.
type call struct {
	do  func(ctx context.Context, tx *sql.Tx, now int64) error
	err error
}

// run does one step, in a transaction with those that come together with it. What it answers is nobody's before it has ended, for a caller may leave.
func run[T any](ctx context.Context, s *Store, name idempotency.Name, bytes int, do func(ctx context.Context, tx *sql.Tx, now int64) (T, error)) (T, error) {
	var none T
	fail := func(err error) (T, error) { return none, fmt.Errorf("sqlstore: %v: %w", name, err) }
	if err := ctx.Err(); err != nil {
		return fail(context.Cause(ctx))
	}
	if s.within(ctx) {
		return fail(errWithin)
	}
	if err := s.Migrate(ctx); err != nil {
		return none, err
	}
	answer := new(T)
	c := &call{do: func(ctx context.Context, tx *sql.Tx, now int64) (err error) {
		*answer, err = do(ctx, tx, now)
		return err
	}}
	select {
	case err := <-s.line.Join(ctx, c, 1, bytes):
		if err == nil {
			err = c.err
		}
		if err != nil {
			return fail(err)
		}
		return *answer, nil
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
}

func (s *Store) send(ctx context.Context, calls []*call) error {
	return s.patiently(ctx, func() error {
		tx, end, err := s.begin(ctx)
		if err != nil {
			return err
		}
		defer end()
		if err := sweepSome(ctx, tx); err != nil {
			return err
		}
		now := time.Now().UnixMicro() // not before: what waited for the lock would take an earlier time for now
		for _, c := range calls {
			if c.err = c.do(ctx, tx, now); c.err != nil && (sqlite.IsBusy(c.err) || ctx.Err() != nil) {
				return c.err
			}
		}
		return tx.Commit()
	})
}

// begin begins a transaction. It does not wait for a connection for longer than for the file: whoever holds the last one may be waiting for this. end ends what was not
// committed.
func (s *Store) begin(ctx context.Context) (tx *sql.Tx, end func(), err error) {
	within, cancel := context.WithTimeout(ctx, s.cfg.BusyTimeout)
	defer cancel()
	conn, err := s.db.Conn(within)
	if err != nil {
		if within.Err() != nil && ctx.Err() == nil {
			err = later{fmt.Errorf("no connection within %v: all that sql.DB.SetMaxOpenConns allows are in use: %w", s.cfg.BusyTimeout, err), time.Second}
		}
		return nil, nil, err
	}
	if tx, err = conn.BeginTx(ctx, nil); err != nil {
		_ = conn.Close() // it only goes back
		return nil, nil, err
	}
	return tx, func() {
		_ = tx.Rollback() // after Commit it does nothing
		_ = conn.Close()
	}, nil
}

// sweepSome removes what is over. It is a transaction's first statement, and writes: so it takes the lock at once, where a reader that wants to write later might
// never get it.
func sweepSome(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM breakwater_once WHERE rowid IN (SELECT rowid FROM breakwater_once WHERE kept <= ? ORDER BY kept LIMIT ?)", time.Now().UnixMicro(), sweep)
	return err
}

// States of a record, as they are stored.
const (
	rowProgress  = 1
	rowDone      = 2
	rowReleased  = 3
	rowTakenOver = 4 // in progress, from a lease that ended without a word
)

// read reads a record as others see it; ok is false if there is none.
func read(ctx context.Context, tx *sql.Tx, name idempotency.Name, now int64) (rec idempotency.Record, ok bool, err error) {
	var f, state int
	var ends, kept int64
	var token, fingerprint, version []byte
	err = tx.QueryRowContext(ctx, "SELECT format, state, token, ends, kept, fingerprint, version, result FROM breakwater_once WHERE scope = ? AND op = ? AND id = ? AND kept > ?",
		name.Scope, name.Op, name.ID, now).Scan(&f, &state, &token, &ends, &kept, &fingerprint, &version, &rec.Result)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return rec, false, nil
	case err != nil:
		return rec, false, err
	case f != format:
		return rec, false, fmt.Errorf("%w: its format is %d", idempotency.ErrNewerFormat, f)
	}
	rec.Name, rec.Kept, rec.Fingerprint, rec.Version = name, micros(kept-now), string(fingerprint), idempotency.Version(version)
	copy(rec.Token[:], token)
	rec.TakenOver = state == rowTakenOver
	switch {
	case state == rowDone:
		rec.State = idempotency.Done
	case state == rowReleased:
		rec.State = idempotency.Released
	case state != rowProgress && state != rowTakenOver:
		return rec, false, fmt.Errorf("%w: its state is %d", idempotency.ErrNewerFormat, state)
	case ends > now:
		rec.State, rec.Rest = idempotency.InProgress, micros(ends-now)
	default:
		rec.State = idempotency.Unknown
	}
	return rec, true, nil
}

// write puts a record in the place of what is there.
func write(ctx context.Context, tx *sql.Tx, l idempotency.Lease, state int, ends, kept int64, fingerprint string, version idempotency.Version, result []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO breakwater_once (scope, op, id, format, state, token, ends, kept, fingerprint, version, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (scope, op, id) DO UPDATE SET format = excluded.format, state = excluded.state, token = excluded.token, ends = excluded.ends, kept = excluded.kept,
		fingerprint = excluded.fingerprint, version = excluded.version, result = excluded.result`,
		l.Scope, l.Op, l.ID, format, state, l.Token[:], ends, kept, []byte(fingerprint), []byte(version), result)
	return err
}

// held says whether a lease still holds its record, and reads that.
func held(ctx context.Context, tx *sql.Tx, l idempotency.Lease, now int64) (rec idempotency.Record, ok bool, err error) {
	rec, ok, err = read(ctx, tx, l.Name, now)
	return rec, ok && rec.State == idempotency.InProgress && rec.Token == l.Token, err
}

// Claim implements [idempotency.Store].
func (s *Store) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	return run(ctx, s, r.Name, 0, func(ctx context.Context, tx *sql.Tx, now int64) (idempotency.Claim, error) {
		rec, there, err := read(ctx, tx, r.Name, now)
		if err != nil {
			return idempotency.Claim{}, err
		}
		c := idempotency.Claim{State: idempotency.Claimed}
		if there {
			c = rec.Judge(&r)
		}
		if c.State != idempotency.Claimed {
			return c, nil
		}
		state := rowProgress
		if c.TakenOver {
			state = rowTakenOver
		}
		ends := now + r.For.Microseconds()
		return c, write(ctx, tx, r.Lease, state, ends, ends+r.Retention.Microseconds(), r.Fingerprint, r.Version, nil)
	})
}

// Extend implements [idempotency.Store].
func (s *Store) Extend(ctx context.Context, leases []idempotency.Lease, lease time.Duration) (idempotency.Extended, error) {
	if len(leases) == 0 {
		return idempotency.Extended{}, nil
	}
	return run(ctx, s, leases[0].Name, 0, func(ctx context.Context, tx *sql.Tx, now int64) (e idempotency.Extended, err error) {
		for _, l := range leases {
			ends := now + lease.Microseconds()
			done, err := tx.ExecContext(ctx, "UPDATE breakwater_once SET kept = kept - ends + ?, ends = ? WHERE scope = ? AND op = ? AND id = ? AND format = ? AND state IN (?, ?) AND token = ? AND ends > ?",
				ends, ends, l.Scope, l.Op, l.ID, format, rowProgress, rowTakenOver, l.Token[:], now)
			if err != nil {
				return e, err
			}
			n, err := done.RowsAffected()
			if err != nil {
				return e, err
			}
			if n == 0 {
				e.Lost = append(e.Lost, l)
			}
		}
		return e, nil
	})
}

// settle is a step that answers nothing.
func (s *Store) settle(ctx context.Context, name idempotency.Name, bytes int, do func(ctx context.Context, tx *sql.Tx, now int64) error) error {
	_, err := run(ctx, s, name, bytes, func(ctx context.Context, tx *sql.Tx, now int64) (struct{}, error) {
		return struct{}{}, do(ctx, tx, now)
	})
	return err
}

// Complete implements [idempotency.Store].
func (s *Store) Complete(ctx context.Context, l idempotency.Lease, result []byte, retention time.Duration) error {
	return s.settle(ctx, l.Name, len(result), func(ctx context.Context, tx *sql.Tx, now int64) error {
		rec, ok, err := held(ctx, tx, l, now)
		switch {
		case err != nil:
			return err
		case ok:
			return write(ctx, tx, l, rowDone, 0, now+retention.Microseconds(), rec.Fingerprint, rec.Version, result)
		case rec.State == idempotency.Done && rec.Token == l.Token: // sent again
			return nil
		default:
			return idempotency.ErrLeaseLost
		}
	})
}

// Release implements [idempotency.Store].
func (s *Store) Release(ctx context.Context, l idempotency.Lease, retention time.Duration) error {
	return s.settle(ctx, l.Name, 0, func(ctx context.Context, tx *sql.Tx, now int64) error {
		rec, ok, err := held(ctx, tx, l, now)
		switch {
		case err != nil || !ok:
			return err
		case rec.Version == "":
			return remove(ctx, tx, l.Name)
		default:
			return write(ctx, tx, l, rowReleased, 0, now+retention.Microseconds(), rec.Fingerprint, rec.Version, nil)
		}
	})
}

func remove(ctx context.Context, tx *sql.Tx, n idempotency.Name) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM breakwater_once WHERE scope = ? AND op = ? AND id = ?", n.Scope, n.Op, n.ID)
	return err
}

// Inspect implements [idempotency.Operator].
func (s *Store) Inspect(ctx context.Context, name idempotency.Name) (idempotency.Record, error) {
	return run(ctx, s, name, 0, func(ctx context.Context, tx *sql.Tx, now int64) (idempotency.Record, error) {
		rec, there, err := read(ctx, tx, name, now)
		if err == nil && !there {
			err = idempotency.ErrNoRecord
		}
		return rec, err
	})
}

// Resolve implements [idempotency.Operator].
func (s *Store) Resolve(ctx context.Context, seen idempotency.Record, as idempotency.Resolution) error {
	return s.settle(ctx, seen.Name, len(as.Result), func(ctx context.Context, tx *sql.Tx, now int64) error {
		rec, there, err := read(ctx, tx, seen.Name, now)
		if err != nil {
			return err
		}
		is := &rec
		if !there {
			is = nil
		}
		change, err := is.JudgeResolve(&seen, &as)
		switch {
		case !change:
			return err
		case as.Forget:
			return remove(ctx, tx, seen.Name)
		default:
			return write(ctx, tx, idempotency.Lease{Name: rec.Name, Token: rec.Token.Resolved()}, rowDone, 0, now+as.Retention.Microseconds(), rec.Fingerprint, rec.Version, as.Result)
		}
	})
}

// Purge implements [idempotency.Operator].
func (s *Store) Purge(ctx context.Context, scope string) (int, error) {
	return run(ctx, s, idempotency.Name{Scope: scope}, 0, func(ctx context.Context, tx *sql.Tx, now int64) (int, error) {
		done, err := tx.ExecContext(ctx, "DELETE FROM breakwater_once WHERE scope = ? AND kept > ?", scope, now)
		if err != nil {
			return 0, err
		}
		n, err := done.RowsAffected()
		return int(n), err
	})
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
