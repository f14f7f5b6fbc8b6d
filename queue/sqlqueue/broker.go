package sqlqueue

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	stepIDs = 128 // of one Replay or Drop
	// batchMemory is how long an answer to an Enqueue is remembered for a repetition, batchesKept how many are, answerMemory
	// how long a process's last answer is: whoever repeats a call is in this process, and does so soon.
	batchMemory  = 2 * time.Minute
	batchesKept  = 1 << 12
	answerMemory = 10 * time.Minute
	// poll is how often a worker that waits looks for what another process has enqueued.
	poll = 50 * time.Millisecond
)

// Config tunes a Broker. The zero value is valid.
type Config struct {
	// Synchronous is how much a commit waits for the disk; Full by default.
	Synchronous Synchronous

	// BusyTimeout is how long a step waits for another process, or another connection, that writes to the file; 0 means 5 s.
	BusyTimeout time.Duration

	// MaxBytes bounds the file: an Enqueue that finds more in use is refused whole with [ErrFull], while workers go on. 0 means
	// no bound but the disk.
	MaxBytes int64

	// ReserveBytes is the size of a file beside the database, named after it with "-reserve" behind, which is given up when the disk
	// is full so that workers can go on. 0 means 8 MiB.
	ReserveBytes int64
	NoReserve    bool // do without

	Logger *slog.Logger // nil discards
}

// Synchronous is SQLite's setting of that name, https://www.sqlite.org/pragma.html#pragma_synchronous.
type Synchronous uint8

const (
	// Full has the disk confirm every commit: what was accepted survives a power cut.
	Full Synchronous = iota
	// Normal lets the last moments be lost in a power cut, not in a crash of the process. The broker is then volatile.
	Normal
	// Off lets the system write when it likes; a power cut may damage the file. For tests.
	Off
)

func (s Synchronous) String() string {
	if s > Off {
		return fmt.Sprintf("Synchronous(%d)", uint8(s))
	}
	return [...]string{"FULL", "NORMAL", "OFF"}[s]
}

// Broker keeps queues in one SQLite file. It is safe for concurrent use, and several processes may use one file.
type Broker struct {
	db  *sql.DB
	cfg Config
	log *slog.Logger
	err error // what is wrong with how it was made

	opening   chan struct{} // held by whoever opens the file
	open      atomic.Bool
	stmts     [statements]*sql.Stmt
	path      string
	reserved  *reserve
	noReserve sync.Once // has been logged

	mu      sync.Mutex
	pending []*op
	writing bool
	waiters map[string]chan struct{} // by queue, closed when there is something to claim

	clock    clock
	writer   chan struct{} // held by whoever has a transaction that writes: the next commit, or a handler's
	handlers chan struct{} // held by the handler that has or waits for a transaction
	company  company

	knowing sync.Mutex
	known   known

	// of the writer alone
	answers map[answerKey]answer
	swept   int64
	batches map[batchKey][]queue.Receipt
	sent    []sentBatch
}

type answerKey struct{ queue, process string }

type answer struct {
	number  uint64
	claimed queue.Claimed
	at      int64
}

type batchKey struct{ queue, id string }

type sentBatch struct {
	batchKey
	at int64
}

var (
	_ queue.Broker   = (*Broker)(nil)
	_ queue.Operator = (*Broker)(nil)
)

// New makes a Broker over a database of SQLite, which the caller opens and closes. It does no I/O; the tables are made before the
// first use, or by [Broker.Migrate]. What is wrong with db or cfg is said by queue.New.
func New(db *sql.DB, cfg Config) *Broker {
	b := &Broker{db: db, cfg: cfg, log: cfg.Logger, waiters: map[string]chan struct{}{}, writer: make(chan struct{}, 1), handlers: make(chan struct{}, 1), opening: make(chan struct{}, 1),
		answers: map[answerKey]answer{}, batches: map[batchKey][]queue.Receipt{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	switch {
	case db == nil:
		b.err = errors.New("sqlqueue: New: db is nil")
	case cfg.Synchronous > Off:
		b.err = fmt.Errorf("sqlqueue: New: Config.Synchronous is %v; want Full, Normal or Off", cfg.Synchronous)
	case cfg.BusyTimeout < 0:
		b.err = fmt.Errorf("sqlqueue: New: Config.BusyTimeout is %v; want 0 for the default, or more", cfg.BusyTimeout)
	case cfg.MaxBytes < 0:
		b.err = fmt.Errorf("sqlqueue: New: Config.MaxBytes is %d; want 0 for no bound, or more", cfg.MaxBytes)
	case cfg.ReserveBytes < 0:
		b.err = fmt.Errorf("sqlqueue: New: Config.ReserveBytes is %d; want 0 for the default, or more", cfg.ReserveBytes)
	}
	b.cfg.BusyTimeout = cmp.Or(cfg.BusyTimeout, 5*time.Second)
	b.cfg.ReserveBytes = cmp.Or(cfg.ReserveBytes, 8<<20)
	return b
}

// Info says "sqlite", and durable unless Config.Synchronous says otherwise.
func (b *Broker) Info() queue.BrokerInfo {
	return queue.BrokerInfo{Engine: "sqlite", Durable: b.cfg.Synchronous == Full, Partitions: 1, Err: b.err}
}

// wrap says whose error it is.
func wrap(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case name == "":
		return fmt.Errorf("sqlqueue: %w", err)
	default:
		return fmt.Errorf("sqlqueue: queue %q: %w", name, err)
	}
}

// Enqueue implements [queue.Broker]. With a context of [WithTx] the jobs are written in that transaction.
func (b *Broker) Enqueue(ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
	entries := make([]entry, len(batch.Jobs))
	for i := range batch.Jobs {
		var err error
		if entries[i], err = encode(&batch.Jobs[i]); err != nil {
			return nil, err
		}
	}
	if tx, in := txFrom(ctx); in {
		return b.enqueueIn(ctx, tx, name, entries)
	}
	var receipts []queue.Receipt
	err := b.do(ctx, name, true, func(s *step, q *queueRow) error {
		if err := s.ran(q); err != nil {
			return err
		}
		key := batchKey{name, batch.ID}
		if receipts = b.batches[key]; receipts != nil {
			return nil
		}
		if receipts = s.batches[key]; receipts != nil {
			return nil
		}
		for i := range entries {
			r, err := s.accept(q, &entries[i])
			if err != nil {
				return err
			}
			receipts = append(receipts, r)
		}
		s.batches[key] = receipts
		return nil
	})
	if err != nil { // its step may be under way all the same, and receipts its
		return nil, err
	}
	return slices.Clone(receipts), nil
}

// rememberBatch keeps what a batch was answered.
func (b *Broker) rememberBatch(now int64, key batchKey, receipts []queue.Receipt) {
	for len(b.sent) > 0 && (now-b.sent[0].at > batchMemory.Microseconds() || len(b.sent) > batchesKept) {
		delete(b.batches, b.sent[0].batchKey)
		b.sent = b.sent[1:]
	}
	b.batches[key] = receipts
	b.sent = append(b.sent, sentBatch{key, now})
}

// Claim implements [queue.Broker].
func (b *Broker) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	if call.Partition != 0 {
		return queue.Claimed{}, fmt.Errorf("sqlqueue: there is no partition %d of 1", call.Partition)
	}
	call.Settle, call.Held = slices.Clone(call.Settle), slices.Clone(call.Held) // the caller may give up before its turn comes
	var c queue.Claimed
	err := b.do(ctx, name, false, func(s *step, q *queueRow) (err error) {
		key := answerKey{name, call.Process}
		last, known := b.answers[key]
		switch {
		case known && last.number == call.Number:
			c, err = s.unpurged(q, last.claimed)
			return err
		case known && call.Number < last.number: // given up long ago, and only now here: nobody waits for what it would lease
			c = queue.Claimed{}
			for _, st := range call.Settle {
				c.Lost = append(c.Lost, st.Token)
			}
			return nil
		}
		if c, err = s.claim(q, call); err != nil {
			return err
		}
		kept := answer{call.Number, c, s.now}
		s.after = append(s.after, func() { b.rememberAnswer(key, kept) })
		return nil
	})
	if err != nil {
		return queue.Claimed{}, err
	}
	return c, nil
}

// rememberAnswer keeps a process's last answer, and drops those of processes that are gone.
func (b *Broker) rememberAnswer(key answerKey, a answer) {
	if a.at-b.swept > time.Minute.Microseconds() {
		b.swept = a.at
		for k, old := range b.answers {
			if a.at-old.at > answerMemory.Microseconds() {
				delete(b.answers, k)
			}
		}
	}
	b.answers[key] = a
}

// unpurged is a remembered answer without the jobs that were purged meanwhile: the process never got them, and no handler is
// to get what is left of one.
func (s *step) unpurged(q *queueRow, c queue.Claimed) (queue.Claimed, error) {
	jobs := c.Jobs
	c.Jobs = nil
	for _, l := range jobs {
		j, err := s.held(q, l.Token)
		if err != nil {
			return c, err
		}
		if j == nil || !j.purged {
			c.Jobs = append(c.Jobs, l)
			continue
		}
		if err := s.settle(q, j, queue.Settlement{Action: queue.Release}, nil); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Extend implements [queue.Broker].
func (b *Broker) Extend(ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
	if beat.Partition != 0 {
		return queue.Extended{}, fmt.Errorf("sqlqueue: there is no partition %d of 1", beat.Partition)
	}
	var e queue.Extended
	if len(beat.Tokens) == 0 {
		if err := b.ready(ctx); err != nil {
			return e, err
		}
		var one int
		return e, wrap(name, b.reader(ctx).QueryRowContext(ctx, "SELECT one FROM breakwater_space").Scan(&one))
	}
	beat.Tokens = slices.Clone(beat.Tokens)
	err := b.do(ctx, name, false, func(s *step, q *queueRow) (err error) {
		e, err = s.extend(q, beat)
		return err
	})
	if err != nil {
		return queue.Extended{}, err
	}
	return e, nil
}

// Wait implements [queue.Broker]. What this process enqueues wakes it at once; what others do, or a transaction of
// [WithTx], within 50 ms.
func (b *Broker) Wait(ctx context.Context, name string, partition int) error {
	if partition != 0 {
		return fmt.Errorf("sqlqueue: there is no partition %d of 1", partition)
	}
	if err := b.ready(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		b.mu.Lock()
		woken := b.waiters[name]
		if woken == nil {
			woken = make(chan struct{})
			b.waiters[name] = woken
		}
		b.mu.Unlock()
		var some bool
		err := b.db.QueryRowContext(ctx, "SELECT NOT paused AND (EXISTS (SELECT 1 FROM breakwater_groups WHERE queue = q.id AND seat_live > 0) OR "+
			"EXISTS (SELECT 1 FROM breakwater_groups WHERE queue = q.id AND seat_bulk > 0) OR EXISTS (SELECT 1 FROM breakwater_intake WHERE queue = q.id)) FROM breakwater_queues q WHERE name = ?", name).Scan(&some)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return cmp.Or(ctx.Err(), wrap(name, err))
		}
		if some {
			return nil
		}
		timer.Reset(poll)
		select {
		case <-woken:
			return nil
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *Broker) wake(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if woken := b.waiters[name]; woken != nil {
		close(woken)
		delete(b.waiters, name)
	}
}

// change is do for operators.
func (b *Broker) change(ctx context.Context, name string, f func(s *step, q *queueRow) error) error {
	return b.do(ctx, name, false, f)
}

func (b *Broker) each(ctx context.Context, name string, ids []string, f func(s *step, q *queueRow, id string) (bool, error)) (int, error) {
	if len(ids) > stepIDs {
		return 0, fmt.Errorf("sqlqueue: queue %q: %d ids in one step; at most %d", name, len(ids), stepIDs)
	}
	var n int
	err := b.change(ctx, name, func(s *step, q *queueRow) error {
		n = 0
		for _, id := range ids {
			did, err := f(s, q, id)
			if err != nil {
				return err
			}
			if did {
				n++
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Replay implements [queue.Operator].
func (b *Broker) Replay(ctx context.Context, name string, ids []string) (int, error) {
	return b.each(ctx, name, ids, (*step).replay)
}

// Drop implements [queue.Operator].
func (b *Broker) Drop(ctx context.Context, name string, ids []string) (int, error) {
	return b.each(ctx, name, ids, (*step).drop)
}

// Cancel implements [queue.Operator].
func (b *Broker) Cancel(ctx context.Context, name, id string) (queue.State, error) {
	var state queue.State
	var unknown error // an answer, which should not cost those their step that share it
	err := b.change(ctx, name, func(s *step, q *queueRow) (err error) {
		unknown = nil
		if state, err = s.cancel(q, id); errors.Is(err, queue.ErrUnknownJob) {
			unknown, err = err, nil
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return state, unknown
}

// Purge implements [queue.Operator]. Its cursor is the last job that the first call was about, and how far it has come.
func (b *Broker) Purge(ctx context.Context, name string, filter queue.PurgeFilter) (queue.Purged, error) {
	var p queue.Purged
	var upTo, after int64
	if filter.Cursor == "" {
		if _, _, err := b.look(ctx, name); err != nil { // what is in the intake has been accepted
			return p, err
		}
	} else {
		to, from, _ := strings.Cut(filter.Cursor, ",")
		var e1, e2 error
		upTo, e1 = strconv.ParseInt(to, 10, 64)
		after, e2 = strconv.ParseInt(from, 10, 64)
		if e1 != nil || e2 != nil {
			return p, fmt.Errorf("sqlqueue: %q is not a cursor of Purge", filter.Cursor)
		}
	}
	err := b.change(ctx, name, func(s *step, q *queueRow) error {
		last := upTo
		if filter.Cursor == "" {
			last = s.seq
		}
		n, at, done, err := s.purge(q, filter, after, last)
		if err != nil {
			return err
		}
		p = queue.Purged{Jobs: n}
		if !done {
			p.Cursor = strconv.FormatInt(last, 10) + "," + strconv.FormatInt(at, 10)
			return nil
		}
		return s.forgetPurged(q, filter)
	})
	if err != nil {
		return queue.Purged{}, err
	}
	return p, nil
}

// forgetPurged takes what is purged out of the answers that are remembered.
func (s *step) forgetPurged(q *queueRow, f queue.PurgeFilter) error {
	gone := func(j queue.Job) bool {
		return (f.Group == "" || f.Group == j.Group) && (f.Key == "" || f.Key == j.Key) && (f.Kind == "" || f.Kind == j.Kind)
	}
	for key, a := range s.b.answers {
		if key.queue != q.name {
			continue
		}
		a.claimed.Jobs = slices.Clone(a.claimed.Jobs)
		for i := range a.claimed.Jobs {
			l := &a.claimed.Jobs[i]
			if !gone(l.Job) {
				continue
			}
			held, err := s.held(q, l.Token)
			if err != nil {
				return err
			}
			if held == nil || held.purged { // else it was accepted after the purge had begun
				l.Job.Payload, l.Job.Headers = nil, nil
			}
		}
		a.claimed.Died = slices.Clone(a.claimed.Died)
		for i := range a.claimed.Died {
			if d := &a.claimed.Died[i]; gone(d.Job) {
				d.Job.Headers, d.Job.History, d.Error = nil, nil, "purged"
			}
		}
		s.after = append(s.after, func() { s.b.answers[key] = a })
	}
	return nil
}

// Pause implements [queue.Operator].
func (b *Broker) Pause(ctx context.Context, name string) error { return b.setPaused(ctx, name, true) }

// Resume implements [queue.Operator].
func (b *Broker) Resume(ctx context.Context, name string) error { return b.setPaused(ctx, name, false) }

func (b *Broker) setPaused(ctx context.Context, name string, paused bool) error {
	return b.change(ctx, name, func(s *step, q *queueRow) error {
		q.paused, q.dirty, s.changed = paused, true, true
		s.woken[name] = s.woken[name] || !paused
		return nil
	})
}

// Park implements [queue.Operator].
func (b *Broker) Park(ctx context.Context, name, group string, d time.Duration) error {
	return b.change(ctx, name, func(s *step, q *queueRow) error {
		g, err := s.group(q, group)
		if err == nil {
			s.park(q, g, d)
		}
		return err
	})
}

// Limit implements [queue.Operator].
func (b *Broker) Limit(ctx context.Context, name, group string, limits queue.Limits) error {
	return b.change(ctx, name, func(s *step, q *queueRow) error { return s.limit(q, group, limits) })
}
