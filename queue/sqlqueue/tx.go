package sqlqueue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// intakeStep bounds how many jobs of transactions one step moves into their lanes.
const intakeStep = 1024

type txKey struct{}

// WithTx makes what is enqueued with the context part of a transaction: the jobs are there when tx is committed, and never if
// it is not. tx is one of the Broker's database, whose tables have been made (see [Broker.Migrate]), and decides how durable its commit
// is. The jobs enter their lanes when the queue is next looked at, in the order of the commits.
//
//	ctx = sqlqueue.WithTx(ctx, tx)
//	_, err = jobs.Enqueue(ctx, queue.Job{Kind: "ship", Payload: order})
//	err = tx.Commit()
func WithTx(ctx context.Context, tx *sql.Tx) context.Context {
	return context.WithValue(ctx, txKey{}, tx)
}

func txFrom(ctx context.Context) *sql.Tx {
	tx, _ := ctx.Value(txKey{}).(*sql.Tx)
	return tx
}

// enqueueIn writes jobs in a user's transaction, into the intake.
func (b *Broker) enqueueIn(ctx context.Context, tx *sql.Tx, name string, entries []entry) ([]queue.Receipt, error) {
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	if err := b.room(tx); err != nil {
		return nil, wrap(name, err)
	}
	s := newStep(ctx, b, tx)
	if err := s.begin(); err != nil {
		return nil, wrap(name, err)
	}
	q, err := s.queue(name)
	if err != nil {
		return nil, wrap(name, err)
	}
	receipts := make([]queue.Receipt, len(entries))
	for i := range entries {
		if receipts[i], err = s.intake(q, &entries[i]); err != nil {
			return nil, wrap(name, err)
		}
	}
	return receipts, nil
}

func (s *step) intake(q *queueRow, e *entry) (queue.Receipt, error) {
	first, taken, err := s.announce(q, e)
	if err != nil || taken {
		return queue.Receipt{ID: first, Duplicate: true}, err
	}
	j := &e.job
	_, err = s.exec(intakeInsert, q.id, e.due(s.now), e.dead, j.ID, j.Kind, j.Group, int(j.Class), j.Key, j.Order == queue.Relaxed, j.Track,
		j.MaxAttempts, j.MaxCrashes, micros(j.Deadline), j.DedupeKey, e.record)
	return queue.Receipt{ID: j.ID}, err
}

// taken is a job that was in the intake. Its record is not read: another version may have written it.
type taken struct {
	seq, due int64
	job      queue.Job
	record   []byte
	died     string
}

func scanTaken(row scanner) (in taken, err error) {
	j := &in.job
	var relaxed bool
	var deadline int64
	err = row.Scan(&in.seq, &in.due, &in.died, &j.ID, &j.Kind, &j.Group, &j.Class, &j.Key, &relaxed, &j.Track, &j.MaxAttempts, &j.MaxCrashes, &deadline, &j.DedupeKey, &in.record)
	if relaxed {
		j.Order = queue.Relaxed
	}
	j.Deadline = time.Duration(deadline) * time.Microsecond
	return in, err
}

// takeIn moves what transactions have enqueued into the lanes.
func (s *step) takeIn(q *queueRow) error {
	if q.taken {
		return nil
	}
	rows, err := each(s, intakePage, scanTaken, q.id, intakeStep)
	if err != nil || len(rows) == 0 {
		q.taken = err == nil
		return err
	}
	for i := range rows {
		r := &rows[i]
		if err := s.put(q, &r.job, r.record, r.due, r.died); err != nil {
			return err
		}
	}
	_, err = s.exec(intakeDelete, q.id, rows[len(rows)-1].seq)
	q.taken = len(rows) < intakeStep
	s.changed = true
	return err
}

// InTx makes a handler whose effect, whose job's completion and whose new jobs are one transaction of the Broker's database: all
// of it happens, once, or nothing. handle writes through tx; what it enqueues with its context, or by Queue.EnqueueOnAck, belongs
// to tx as well. If it returns nil, tx is committed. An error rolls it back and goes to the queue.
//
// SQLite has one writer: while handle runs, nothing else is written to the file, by this process or another. Do what is slow
// before, in a job of its own. handle must not write to the file but through tx: it would wait for itself.
//
// The transaction begins with the check that the job is still this worker's; it fails with [queue.ErrLeaseLost] if not, and with
// [queue.ErrNoJob] outside a handler of a Queue over b.
func InTx[T any](b *Broker, handle func(ctx context.Context, tx *sql.Tx, in T) error) func(ctx context.Context, in T) error {
	return func(ctx context.Context, in T) error {
		return b.inTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return handle(ctx, tx, in) })
	}
}

func (b *Broker) inTx(ctx context.Context, handle func(ctx context.Context, tx *sql.Tx) error) (err error) {
	lease, err := queue.LeaseFrom(ctx)
	if err != nil {
		return err
	}
	if lease.Broker != queue.Broker(b) {
		return fmt.Errorf("sqlqueue: InTx: the job is not one of this Broker: %w", queue.ErrNoJob)
	}
	select {
	case b.writer <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// The transaction ends with its context, and so does its hold on others, even if handle goes on.
	release := sync.OnceFunc(func() { <-b.writer })
	defer release()
	conn, err := b.connect()
	if err != nil {
		return wrap(lease.Queue, err)
	}
	defer context.AfterFunc(ctx, release)()
	defer func() { err = errors.Join(err, conn.Close()) }()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return wrap(lease.Queue, err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	s := newStep(ctx, b, tx)
	q, job, err := s.complete(lease)
	if err != nil {
		return err
	}
	if err := handle(WithTx(ctx, tx), tx); err != nil {
		return err
	}
	if err := s.completion(ctx, q, job); err != nil {
		return wrap(lease.Queue, err)
	}
	if err := tx.Commit(); err != nil {
		return wrap(lease.Queue, err)
	}
	return nil
}

// complete marks a job as done, if it is still its worker's. That it is, holds until the transaction ends: it has the lock.
func (s *step) complete(lease queue.LeaseInfo) (*queueRow, *jobRow, error) {
	if err := s.begin(); err != nil {
		return nil, nil, wrap(lease.Queue, err)
	}
	q, err := s.queue(lease.Queue)
	if err != nil {
		return nil, nil, wrap(lease.Queue, err)
	}
	j, err := s.held(q, lease.Token)
	if err != nil {
		return nil, nil, wrap(lease.Queue, err)
	}
	if j == nil {
		return nil, nil, queue.ErrLeaseLost
	}
	_, err = s.exec(jobDone, j.n)
	return q, j, wrap(lease.Queue, err)
}

// completion writes what the handler leaves for the job's end: its result and the jobs that follow.
func (s *step) completion(ctx context.Context, q *queueRow, j *jobRow) error {
	result, follow, err := queue.TakeOnAck(ctx)
	if err != nil {
		return err
	}
	if j.tracked && result != nil {
		if _, err := s.exec(statusResult, result, q.id, j.id); err != nil {
			return err
		}
	}
	for i := range follow {
		e, err := encode(&follow[i])
		if err != nil {
			return err
		}
		to := q
		if name := follow[i].Queue; name != "" {
			if to, err = s.queue(name); err != nil {
				return err
			}
		}
		if _, err := s.intake(to, &e); err != nil {
			return err
		}
	}
	return nil
}
