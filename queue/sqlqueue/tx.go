package sqlqueue

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/internal/sqlite"
	"github.com/breakwater-go/breakwater/queue"
)

// intakeStep bounds how many jobs of transactions one step moves into their lanes.
const intakeStep = 1024

type txKey struct{}

// WithTx makes what is enqueued with the context part of a transaction: the jobs are there when tx is committed, and never if
// it is not. tx is one of the Broker's database, whose tables have been made (see [Broker.Migrate]), and decides how durable its commit
// is. The jobs enter their lanes when the queue is next looked at, in the order of the commits. queue.Hooks are told at once, before anybody knows
// whether tx will be committed. With the context, reading sees what tx has written; what would have to wait for tx fails.
//
//	ctx = sqlqueue.WithTx(ctx, tx)
//	_, err = jobs.Enqueue(ctx, queue.Job{Kind: "ship", Payload: order})
//	err = tx.Commit()
func WithTx(ctx context.Context, tx *sql.Tx) context.Context {
	return context.WithValue(ctx, txKey{}, tx)
}

// txFrom is the transaction that a context belongs to, if it does to any.
func txFrom(ctx context.Context) (tx *sql.Tx, in bool) {
	tx, in = ctx.Value(txKey{}).(*sql.Tx)
	return tx, in
}

// errInTx is the error of what would wait for the transaction that it is called in.
var errInTx = errors.New("not with the context of a transaction, which it would wait for (WithTx, InTx): only Enqueue and reading are possible there")

// enqueueIn writes jobs in a user's transaction, into the intake: all of them, or none.
func (b *Broker) enqueueIn(ctx context.Context, tx *sql.Tx, name string, entries []entry) (receipts []queue.Receipt, err error) {
	if tx == nil {
		return nil, wrap(name, errors.New("WithTx: tx is nil"))
	}
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	if err := b.room(ctx, tx); err != nil {
		return nil, wrap(name, err)
	}
	if _, err := tx.ExecContext(ctx, "SAVEPOINT breakwater"); err != nil {
		return nil, wrap(name, err)
	}
	defer func() {
		end := "RELEASE breakwater"
		if err != nil {
			end = "ROLLBACK TO breakwater; RELEASE breakwater"
		}
		if _, e := tx.ExecContext(context.WithoutCancel(ctx), end); e != nil && err == nil {
			receipts, err = nil, wrap(name, e)
		}
	}()
	s := newStep(ctx, b, tx)
	if err := s.begin(); err != nil {
		return nil, wrap(name, err)
	}
	q, err := s.queue(name)
	if err != nil {
		return nil, wrap(name, err)
	}
	receipts = make([]queue.Receipt, len(entries))
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

// takeIn moves what transactions have enqueued into the lanes, all of it: what comes later must not overtake it.
func (s *step) takeIn(q *queueRow) error {
	for !q.taken {
		rows, err := each(s, intakePage, scanTaken, q.id, intakeStep)
		if err != nil {
			return err
		}
		if q.taken = len(rows) < intakeStep; len(rows) == 0 {
			return nil
		}
		for i := range rows {
			r := &rows[i]
			if err := s.put(q, &r.job, r.record, r.due, r.died); err != nil {
				return err
			}
		}
		if _, err = s.exec(intakeDelete, q.id, rows[len(rows)-1].seq); err != nil {
			return err
		}
	}
	return nil
}

// InTx makes a handler whose effect, whose job's completion and whose new jobs are one transaction of the Broker's database: all
// of it happens, once, or nothing. handle writes through tx, which it neither commits nor rolls back; what it enqueues with its context, or by
// Queue.EnqueueOnAck, belongs to tx as well. If it returns nil, tx is committed and the job is done, whatever the handler around it returns or does
// then. An error rolls tx back and goes to the queue.
//
// SQLite has one writer: while handle runs, nothing else is written to the file, by this process or another. Do what is slow
// before, in a job of its own. handle must use the context that it is given, and not write to the file but through tx: it would wait for itself.
//
// The transaction begins with the check that the job is still this worker's; it fails with [queue.ErrLeaseLost] if not, with
// [queue.ErrCompleted] if an InTx has completed the job before, and with [queue.ErrNoJob] outside a handler of a Queue over b. A file that is busy for
// longer than Config.BusyTimeout puts the job off, without an attempt.
func InTx[T any](b *Broker, handle func(ctx context.Context, tx *sql.Tx, in T) error) func(ctx context.Context, in T) error {
	return func(ctx context.Context, in T) error {
		if _, in := txFrom(ctx); in {
			return fmt.Errorf("sqlqueue: InTx: %w", errInTx)
		}
		return queue.CompleteIn(ctx, func(c queue.Completion) error {
			if c.Broker != queue.Broker(b) {
				return fmt.Errorf("sqlqueue: InTx: the job is not one of this Broker: %w", queue.ErrNoJob)
			}
			return b.inTx(ctx, c, func(ctx context.Context, tx *sql.Tx) error { return handle(ctx, tx, in) })
		})
	}
}

func (b *Broker) inTx(ctx context.Context, c queue.Completion, handle func(ctx context.Context, tx *sql.Tx) error) error {
	// One at a time stands in line with the writer, so that the writer has its turn after each.
	for _, turn := range []chan struct{}{b.handlers, b.writer} {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			if turn == b.writer {
				<-b.handlers
			}
			return context.Cause(ctx)
		}
	}
	// The transaction ends with its context, and so does its hold on others, even if handle goes on.
	release := sync.OnceFunc(func() {
		<-b.writer
		<-b.handlers
	})
	defer release()
	conn, tx, s, err := b.enter(ctx)
	if err != nil {
		return wrap(c.Queue, putOff(err))
	}
	defer context.AfterFunc(ctx, release)()
	ended := false
	defer func() { // also when handle panics
		if !ended {
			err := tx.Rollback()
			giveBack(conn, err != nil && !errors.Is(err, sql.ErrTxDone))
		}
	}()
	q, job, err := s.complete(c)
	if err != nil {
		return wrap(c.Queue, err)
	}
	if err := handle(WithTx(ctx, tx), tx); err != nil {
		return err
	}
	if err := s.completion(q, job, c); err != nil {
		return wrap(c.Queue, err)
	}
	if err = tx.Commit(); err == nil {
		s.passed()
	}
	ended = true
	giveBack(conn, err != nil)
	b.company.yield()
	return wrap(c.Queue, err)
}

// busyError puts a job off whose transaction could not begin: that is no failure of the job.
type busyError struct{ error }

func (e busyError) Unwrap() error             { return e.error }
func (e busyError) RetryAfter() time.Duration { return time.Second }

func putOff(err error) error {
	if sqlite.IsBusy(err) || errors.Is(err, errNoConnection) {
		return busyError{err}
	}
	return err
}

// complete marks a job as done, if it is still its worker's. That it is, holds until the transaction ends: it has the lock.
func (s *step) complete(c queue.Completion) (*queueRow, *jobRow, error) {
	q, err := s.queue(c.Queue)
	if err != nil {
		return nil, nil, err
	}
	j, err := s.held(q, c.Token)
	if err != nil {
		return nil, nil, err
	}
	if j == nil {
		return nil, nil, queue.ErrLeaseLost
	}
	if j.done {
		return nil, nil, queue.ErrCompleted
	}
	_, err = s.exec(jobDone, j.n)
	return q, j, err
}

// completion writes what the handler leaves for the job's end: its result and the jobs that follow.
func (s *step) completion(q *queueRow, j *jobRow, c queue.Completion) error {
	result, follow := c.Kept()
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
		to, err := s.queue(cmp.Or(follow[i].Queue, q.name))
		if err != nil {
			return err
		}
		if _, err := s.intake(to, &e); err != nil {
			return err
		}
	}
	return s.stamp()
}
