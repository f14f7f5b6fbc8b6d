package sqlqueue

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/internal/sqlite"
)

// opsInStep bounds how many calls share a transaction.
const opsInStep = 256

const (
	// companyFor is for how long a process that has met another one at the file makes room for it.
	companyFor = 10 * time.Second
	// holdFor is how long such a process goes from one transaction to the next before it leaves the file alone, for roomFor.
	holdFor = 20 * time.Millisecond
	roomFor = 2 * time.Millisecond
)

// op is one call that waits for its transaction.
type op struct {
	queue string
	adds  bool // it accepts jobs: refused when the disk is full
	do    func(s *step, q *queueRow) error
	done  chan error
	begun bool
}

// company is what a process knows of others at its file.
type company struct {
	mu  sync.Mutex
	met time.Time // when another one's step was last seen
	had time.Time // since when others have had no chance
}

func (c *company) meet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met = time.Now()
	c.had = c.met
}

// yield lets other processes have the file: they look for it every millisecond, and one that takes it again at once would keep
// it from them.
func (c *company) yield() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.met) < companyFor && time.Since(c.had) >= holdFor {
		time.Sleep(roomFor)
		c.had = time.Now()
	}
}

// do runs f in a transaction, together with others that wait at that moment, and returns once it is on the disk. If ctx ends
// before the transaction begins nothing is changed; if it ends later, f may have been carried out.
func (b *Broker) do(ctx context.Context, name string, adds bool, f func(s *step, q *queueRow) error) error {
	if _, in := txFrom(ctx); in {
		return wrap(name, errInTx)
	}
	if err := b.ready(ctx); err != nil {
		return err
	}
	o := &op{queue: name, adds: adds, do: f, done: make(chan error, 1)}
	b.mu.Lock()
	b.pending = append(b.pending, o)
	if !b.writing {
		b.writing = true
		go b.write() // ends when nothing waits
	}
	b.mu.Unlock()
	select {
	case err := <-o.done:
		return wrap(name, err)
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !o.begun {
		o.do = nil
	}
	return fmt.Errorf("sqlqueue: queue %q: %w", name, context.Cause(ctx))
}

// write carries out what waits, a transaction at a time, until nothing does.
func (b *Broker) write() {
	for {
		runtime.Gosched() // those whose calls have just been answered come with the next: the larger the step, the less each costs
		b.writer <- struct{}{}
		ops := b.take()
		if len(ops) == 0 {
			b.mu.Lock()
			if len(b.pending) == 0 {
				b.writing = false
				b.mu.Unlock()
				<-b.writer
				return
			}
			b.mu.Unlock()
			<-b.writer
			continue
		}
		b.transact(ops)
		b.company.yield()
		<-b.writer
	}
}

// take takes those that wait and have not been given up.
func (b *Broker) take() []*op {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.pending), opsInStep)
	ops := make([]*op, 0, n)
	for _, o := range b.pending[:n] {
		if o.do != nil {
			o.begun = true
			ops = append(ops, o)
		}
	}
	clear(b.pending[:n])
	b.pending = b.pending[n:]
	return ops
}

// errNoConnection is why a transaction could not begin.
var errNoConnection = errors.New("no connection")

// transact carries out calls in one transaction. If that fails each gets one of its own, so that none fails for another's sake; but
// not if it was the file or the pool that could not be had: to wait again for each would make the last wait for ever. Nor after a commit that
// failed: it may have happened all the same.
func (b *Broker) transact(ops []*op) {
	err := b.attempt(ops)
	_, unknown := errors.AsType[*commitError](err)
	if err == nil || len(ops) == 1 || sqlite.IsBusy(err) || errors.Is(err, errNoConnection) || unknown && !sqlite.IsFull(err) {
		for _, o := range ops {
			o.done <- err
		}
		return
	}
	for _, o := range ops {
		o.done <- b.attempt([]*op{o})
	}
}

// attempt tries calls in one transaction. When the disk is full, the reserve is given up for those that do not add to it.
func (b *Broker) attempt(ops []*op) error {
	adds := false
	for _, o := range ops {
		adds = adds || o.adds
	}
	if adds {
		if err := b.room(context.Background(), b.db); err != nil {
			return err
		}
	}
	err := b.commit(ops)
	if !sqlite.IsFull(err) {
		return err
	}
	if adds {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	if b.reserved.giveUp() {
		b.log.Error("sqlqueue: the disk is full: new jobs are refused until there is room, workers go on with what was held in reserve", "file", b.path)
	}
	b.checkpoint() // what the log takes up can be used again
	return b.commit(ops)
}

// commit is one transaction.
func (b *Broker) commit(ops []*op) error {
	conn, tx, s, err := b.enter(context.Background()) // the transaction is not one caller's
	if err != nil {
		return err
	}
	bad := false
	defer func() { giveBack(conn, bad) }()
	if err := s.run(ops); err != nil {
		e := tx.Rollback()
		bad = e != nil
		return errors.Join(err, e)
	}
	number := s.number
	if s.changed {
		number++
		err = tx.Commit()
	} else {
		err = tx.Rollback() // nothing that needs the disk
	}
	if err != nil {
		bad = true
		return &commitError{err}
	}
	s.keep(number)
	for key, receipts := range s.batches {
		b.rememberBatch(s.now, key, receipts)
	}
	for _, f := range s.after {
		f()
	}
	for name := range s.woken {
		b.wake(name)
	}
	return nil
}

func (s *step) run(ops []*op) error {
	s.recall()
	for _, o := range ops {
		q, err := s.queue(o.queue)
		if err != nil {
			return err
		}
		if err := s.takeIn(q); err != nil {
			return err
		}
		if err := o.do(s, q); err != nil {
			return err
		}
	}
	return s.end()
}

// enter takes a connection, sees to it that it does what Config says, and begins a transaction that has the file to itself. It looks for
// the file every millisecond: SQLite's own way of waiting, up to 100 ms at a time, would miss the moments in which another
// process makes room.
func (b *Broker) enter(ctx context.Context) (conn *sql.Conn, tx *sql.Tx, s *step, err error) {
	begun := time.Now()
	within, cancel := context.WithTimeout(ctx, b.cfg.BusyTimeout)
	defer cancel()
	if conn, err = b.db.Conn(within); err != nil {
		if within.Err() != nil {
			err = fmt.Errorf("%w within %v: all that sql.DB.SetMaxOpenConns allows are in use: %w", errNoConnection, b.cfg.BusyTimeout, err)
		}
		return nil, nil, nil, err
	}
	if _, err := conn.ExecContext(ctx, fmt.Sprintf("PRAGMA synchronous = %v; PRAGMA busy_timeout = 0", b.cfg.Synchronous)); err != nil {
		giveBack(conn, true)
		return nil, nil, nil, err
	}
	patient := fmt.Sprintf("PRAGMA busy_timeout = %d", b.cfg.BusyTimeout/time.Millisecond)
	for {
		tx, s, err = b.tryBegin(ctx, conn)
		if err == nil || !sqlite.IsBusy(err) || time.Since(begun) > b.cfg.BusyTimeout || ctx.Err() != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		_, e := conn.ExecContext(context.WithoutCancel(ctx), patient)
		giveBack(conn, e != nil || !sqlite.IsBusy(err))
		return nil, nil, nil, err
	}
	if _, err := tx.ExecContext(ctx, patient); err != nil {
		giveBack(conn, true)
		return nil, nil, nil, err
	}
	return conn, tx, s, nil
}

func (b *Broker) tryBegin(ctx context.Context, conn *sql.Conn) (*sql.Tx, *step, error) {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	s := newStep(ctx, b, tx)
	if err := s.begin(); err != nil {
		return nil, nil, errors.Join(err, tx.Rollback())
	}
	return tx, s, nil
}

// giveBack returns a connection to the pool, or ends one that may still be in a transaction, and hold the file.
func giveBack(conn *sql.Conn, bad bool) {
	if bad {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // that is how sql.DB is told
	}
	_ = conn.Close() // it only goes back
}

// commitError is the error of a commit: nobody knows for certain that it did not happen.
type commitError struct{ error }

func (e *commitError) Unwrap() error { return e.error }
