package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/internal/sqlite"
)

// OnceTx makes a handler whose effect happens exactly once for each key: mark and effect are one transaction of the Store's database. next writes through tx, which it neither
// commits nor rolls back. If it returns nil, both are committed; an error, a panic or the death of the process leaves neither. A call of what was done
// returns nil. No lease is needed: a second call waits for the first, and then finds it done.
//
// SQLite has one writer: while next runs, nothing else is written to the file. Do what is slow before, in a step of its own. next must not write to the file but through tx, nor
// use a [idempotency.Keeper] over the Store, which fails with [idempotency.ErrNested] there.
//
// Errors: those of next; [idempotency.ErrInProgress] while a Keeper's lease holds the key; [idempotency.ErrMismatch]; [idempotency.ErrKey]; and one with a RetryAfter method
// where the file was busy for longer than Config.BusyTimeout.
func OnceTx[T any](s *Store, op string, keyOf func(in T) idempotency.Key, next func(ctx context.Context, tx *sql.Tx, in T) error) func(ctx context.Context, in T) error {
	return inTx(s, op, keyOf, nil, next)
}

// LatestTx is [OnceTx] for handlers that replace a state: a version older than one that was committed never runs, an equal one not again. It needs no memory of what
// has failed: that left nothing behind.
func LatestTx[T any](s *Store, op string, keyOf func(in T) idempotency.Key, versionOf func(in T) idempotency.Version, next func(ctx context.Context, tx *sql.Tx, in T) error) func(ctx context.Context, in T) error {
	return inTx(s, op, keyOf, versionOf, next)
}

func inTx[T any](s *Store, op string, keyOf func(in T) idempotency.Key, versionOf func(in T) idempotency.Version, next func(ctx context.Context, tx *sql.Tx, in T) error) func(ctx context.Context, in T) error {
	return func(ctx context.Context, in T) error {
		key := keyOf(in)
		var version []idempotency.Version
		if versionOf != nil {
			version = append(version, versionOf(in))
		}
		r, err := idempotency.NewRequest(op, key, version...)
		if err != nil {
			return err
		}
		if s.within(ctx) {
			return fmt.Errorf("sqlstore: %v: %w", r.Name, errWithin)
		}
		if err := s.Migrate(ctx); err != nil {
			return err
		}
		var first bool
		var tx *sql.Tx
		var end func()
		err = s.patiently(ctx, func() error { // nothing has run when it is busy
			var err error
			if tx, end, err = s.begin(ctx); err != nil {
				return err
			}
			if first, err = s.mark(ctx, tx, r); err != nil {
				end()
			}
			return err
		})
		if err != nil {
			return putOff(err)
		}
		defer end()
		if !first {
			return nil
		}
		if err := next(s.withTx(idempotency.WithOperation(ctx, r)), tx, in); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return putOff(fmt.Errorf("sqlstore: %v: %w", r.Name, err))
		}
		return nil
	}
}

type txKey struct{}

// errWithin is the error of what would wait for the transaction that it is called in.
var errWithin = permanent{fmt.Errorf("%w: not within OnceTx or LatestTx of the same Store, whose transaction it would wait for (Mark is possible there, with that)", idempotency.ErrNested)}

func (s *Store) withTx(ctx context.Context) context.Context {
	return context.WithValue(ctx, txKey{}, s)
}

// within says whether ctx is that of a transaction of the Store.
func (s *Store) within(ctx context.Context) bool { return ctx.Value(txKey{}) == s }

// Mark marks an operation on a key as done in a transaction of yours, which has begun in the Store's database; first is false if it was done before, and then nothing was changed. It is what
// OnceTx is made of, for handlers that have a transaction already, as those of sqlqueue.InTx do. If tx is rolled back, the key is as it was. Let it be the first statement
// of tx: it takes the lock. The table has to be there: see [Store.Migrate].
func (s *Store) Mark(ctx context.Context, tx *sql.Tx, op string, key idempotency.Key) (first bool, err error) {
	r, err := idempotency.NewRequest(op, key)
	if err != nil {
		return false, err
	}
	if s.err != nil {
		return false, s.err
	}
	first, err = s.mark(ctx, tx, r)
	return first, putOff(err)
}

func (s *Store) mark(ctx context.Context, tx *sql.Tx, r idempotency.Request) (first bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("sqlstore: %v: %w", r.Name, err)
		}
	}()
	if err := sweepSome(ctx, tx); err != nil {
		return false, err
	}
	now := time.Now().UnixMicro()
	rec, there, err := read(ctx, tx, r.Name, now)
	if err != nil {
		return false, err
	}
	if there {
		switch c := rec.Judge(&r); c.State {
		case idempotency.Claimed:
		case idempotency.Done, idempotency.Superseded:
			return false, nil
		case idempotency.Mismatch:
			return false, permanent{idempotency.ErrMismatch}
		default:
			return false, later{idempotency.ErrInProgress, max(time.Millisecond, min(c.Rest, 5*time.Second))}
		}
	}
	return true, write(ctx, tx, r.Lease, rowDone, 0, now+s.cfg.Retention.Microseconds(), r.Fingerprint, r.Version, nil)
}

// later is an error that says when to come back, permanent one that no later try can change.
type (
	later struct {
		error
		after time.Duration
	}
	permanent struct{ error }
)

func (e later) Unwrap() error             { return e.error }
func (e later) RetryAfter() time.Duration { return e.after }
func (e permanent) Unwrap() error         { return e.error }
func (e permanent) Permanent() bool       { return true }

// putOff makes an error of a busy file one that says when to come back.
func putOff(err error) error {
	if sqlite.IsBusy(err) {
		return later{err, time.Second}
	}
	return err
}
