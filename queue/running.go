package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// running is a job that a handler has, and the handler's context, which so knows its job.
type running struct {
	context.Context //nolint:containedctx // it is one

	f       *fetcher
	handler Handler
	token   Token
	job     *Job // as it is stored; the broker's as well, so nobody writes to it
	given   *Job // as the handler gets it, whose goroutine alone uses it
	age     time.Duration
	cancel  context.CancelCauseFunc
	timer   *time.Timer // until it is a zombie; nil if it has no timeout and nothing has ended its context

	// guarded by worker.mu
	lost      bool // another worker has it: there is nothing to settle
	cancelled bool // the job was cancelled
	stopped   bool // its context was cancelled because the worker stops
	gone      bool // it is a zombie: whatever it says changes nothing
	progress  *Progress
	percent   int
	result    []byte
	follow    []Entry
}

func (r *running) attrs() []slog.Attr {
	return append(jobAttrs(r.job), slog.String(logToken, string(r.token)))
}

// stop ends the handler's context. One that does not listen becomes a zombie. The caller holds worker.mu.
func (r *running) stop(cause error) {
	r.cancel(cause)
	if r.timer != nil {
		r.timer.Stop()
	}
	r.timer = time.AfterFunc(zombieGrace, r.ignored)
}

// ignored makes a handler that ignores the end of its context a zombie.
func (r *running) ignored() {
	w := r.f.w
	w.mu.Lock()
	if r.f.held[r.token] != r {
		w.mu.Unlock()
		return // it has just returned
	}
	w.zombie(r)
	w.mu.Unlock()
	poke(r.f.poke)
	ctx := context.Background()
	w.q.log.LogAttrs(ctx, slog.LevelError, "queue: handler ignores the end of its context; it has lost its slot", r.attrs()...)
	if w.q.cfg.Hooks.Zombie != nil {
		w.q.hook(ctx, "Zombie", func() { w.q.cfg.Hooks.Zombie(ctx, *r.job) })
	}
}

// zombie takes a running handler's lease and slot. The caller holds mu.
func (w *worker) zombie(r *running) {
	delete(r.f.held, r.token)
	r.gone = true
	if w.zombies++; w.zombies <= w.cfg.Concurrency {
		w.giveSlots(1)
	} else {
		w.owed++
	}
	if r.lost {
		return
	}
	s := settled{Settlement: Settlement{Token: r.token, Action: Release}, job: r.job}
	if !r.stopped {
		s.Action, s.err, s.Error = Retry, errZombie, errZombie.Error()
		s.After = defaultBackoff(r.job.Attempts + 1)
	}
	r.f.settled = append(r.f.settled, s)
}

// start runs one job's handler on a goroutine of its own. Its slot is taken already.
func (f *fetcher) start(base context.Context, lease *Lease) {
	w := f.w
	h, unready := w.ready(lease)
	if unready != nil {
		w.mu.Lock()
		f.settled = append(f.settled, settled{Settlement: *unready, job: &lease.Job})
		w.giveSlots(1)
		w.mu.Unlock()
		poke(f.poke)
		return
	}
	r := &running{f: f, token: lease.Token, job: &lease.Job, age: lease.Age}
	var ctx context.Context
	ctx, r.cancel = context.WithCancelCause(base)
	r.Context, r.handler = r.limit(ctx), h
	w.mu.Lock()
	f.held[r.token] = r
	w.mu.Unlock()
	select {
	case w.idle <- r:
	default:
		go w.handleAll(r)
	}
}

// handleAll runs a handler, and then others, until Run ends: a goroutine that has grown its stack is worth keeping. There are
// as many as handlers ever ran at once.
func (w *worker) handleAll(r *running) {
	for r != nil {
		w.handle(r)
		select {
		case r = <-w.idle:
		case <-w.ended:
			return
		}
	}
}

// limit gives the context of a kind with a timeout its end.
func (r *running) limit(ctx context.Context) context.Context {
	cfg := &r.f.w.cfg
	d, ok := cfg.Timeouts[r.job.Kind]
	if !ok {
		d = cfg.Timeout
	}
	if d <= 0 {
		return ctx
	}
	limited, release := context.WithTimeoutCause(ctx, d, ErrTimeout)
	outer := r.cancel
	r.cancel = func(cause error) { outer(cause); release() }
	r.timer = time.AfterFunc(d+zombieGrace, r.ignored)
	return limited
}

// ready finds the handler of a job, or says what becomes of one that can't be run now.
func (w *worker) ready(lease *Lease) (Handler, *Settlement) {
	job := &lease.Job
	if lease.Err != nil {
		s := Settlement{Token: lease.Token, Action: Kill, Error: lease.Err.Error()}
		if errors.Is(lease.Err, ErrNewerFormat) { // a worker of that version will come
			s = Settlement{Token: lease.Token, Action: Snooze, After: unknownWait}
		}
		w.q.log.LogAttrs(context.Background(), slog.LevelError, "queue: job can't be read", slog.String(logToken, string(lease.Token)), slog.Any(logError, lease.Err))
		return nil, &s
	}
	h := w.handlers[job.Kind]
	if h == nil {
		s := w.unknownThing(lease, job.Kind, ErrNoHandler)
		return nil, &s
	}
	if p := w.pacers[job.Kind]; p != nil {
		if after := p.wait(); after > 0 {
			return nil, &Settlement{Token: lease.Token, Action: Snooze, After: after}
		}
	}
	return h, nil
}

// unknownThing is what becomes of a job that this worker can't run but another may: a rolling deploy may bring
// one that can.
func (w *worker) unknownThing(lease *Lease, what string, err error) Settlement {
	s := Settlement{Token: lease.Token, Action: Snooze, After: unknownWait, Error: cut(err.Error(), maxErrorLen)}
	if lease.Age >= unknownFor && w.met(what) >= unknownMet {
		s.Action = Kill
	}
	w.q.log.LogAttrs(context.Background(), slog.LevelWarn, "queue: this worker can't run the job; it waits for one that can", append(jobAttrs(&lease.Job), slog.Any(logError, err))...)
	return s
}

// met says how long ago this worker first met a thing that it can't run. A job that is old because
// everything was down must not die at the first look of a worker that is about to be replaced.
func (w *worker) met(what string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, known := w.unknown[what]
	if !known {
		first = time.Now()
		w.unknown[what] = first
	}
	return time.Since(first)
}

// handle runs a handler and hands on what became of it.
func (w *worker) handle(r *running) {
	err := errGone // stands if the handler ends its goroutine
	var begun time.Time
	if w.q.cfg.Hooks.Ended != nil {
		begun = time.Now()
	}
	defer func() {
		if w.q.cfg.Hooks.Ended != nil {
			w.q.hook(r, "Ended", func() { w.q.cfg.Hooks.Ended(r, *r.given, err, time.Since(begun)) })
		}
		w.finish(r, w.outcome(r, err), err)
		r.cancel(nil)
	}()
	r.given = r.job
	if r.job.codec != "" {
		given := *r.job
		r.given = &given
		if err = w.q.decode(r.given); err != nil {
			return
		}
	}
	err = errGone
	if w.q.cfg.Hooks.Started != nil {
		w.q.hook(r, "Started", func() { w.q.cfg.Hooks.Started(r, *r.given) })
	}
	err = w.call(r)
}

// call runs a handler; a panic is an error.
func (w *worker) call(r *running) (err error) {
	defer func() {
		if v := recover(); v != nil {
			w.q.log.LogAttrs(r, slog.LevelError, "queue: handler panicked", append(jobAttrs(r.given), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))...)
			err = &panicError{v}
		}
	}()
	return r.handler(r, *r.given)
}

// outcome turns a handler's error into a settlement. The error's methods and Backoff are the user's code
// as well: if they panic, that is one more failed attempt.
func (w *worker) outcome(r *running, err error) (s Settlement) {
	defer func() {
		if v := recover(); v != nil {
			w.q.log.LogAttrs(r, slog.LevelError, "queue: a handler's error or Backoff panicked", append(jobAttrs(r.job), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))...)
			s = Settlement{Token: r.token, Action: Retry, Error: (&panicError{v}).Error(), After: defaultBackoff(r.job.Attempts + 1)}
		}
	}()
	s.Token = r.token
	if err == nil {
		s.Action = Ack
		return s
	}
	if errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(r), ErrTimeout) {
		err = fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	s.Error = cut(err.Error(), maxErrorLen)
	if p, ok := errors.AsType[permanent](err); ok && p.Permanent() {
		s.Action = Kill
	} else if r.given.codec != "" && (errors.Is(err, ErrNoCodec) || errors.Is(err, ErrNewerFormat)) {
		return w.unknownThing(&Lease{Token: r.token, Job: *r.job, Age: r.age}, "codec "+r.job.codec, err)
	} else if r.given.codec != "" { // it can't be decoded, now or later
		s.Action = Kill
	} else if d, ok := errors.AsType[delayer](err); ok {
		s.Action, s.After = Snooze, max(d.RetryAfter(), minSnooze)
		if p, ok := errors.AsType[parker](err); ok {
			s.Park = p.ParkGroup()
		}
	} else {
		s.Action, s.After = Retry, w.backoff(r.job.Kind)(r.job.Attempts+1)
	}
	w.q.log.LogAttrs(r, slog.LevelWarn, "queue: job failed", append(jobAttrs(r.job), slog.Duration("again_in", s.After), slog.Any(logError, err))...)
	return s
}

func (w *worker) backoff(kind string) Backoff {
	if b := w.cfg.Backoffs[kind]; b != nil {
		return b
	}
	return w.cfg.Backoff
}

// finish hands a settlement to the fetcher and frees the slot.
func (w *worker) finish(r *running, s Settlement, err error) {
	w.mu.Lock()
	if r.timer != nil {
		r.timer.Stop()
	}
	if r.gone {
		w.zombies--
		if w.owed > 0 {
			w.owed--
			w.giveSlots(1)
		}
		w.mu.Unlock()
		return
	}
	delete(r.f.held, r.token)
	if r.stopped && s.Action != Ack {
		// Its failure is our doing: the job goes back as it was.
		s = Settlement{Token: s.Token, Action: Release}
	}
	s.Progress = r.progress
	if s.Action == Ack {
		s.Result, s.Enqueue = r.result, r.follow
	}
	if !r.lost {
		r.f.settled = append(r.f.settled, settled{s, r.job, err})
	}
	w.giveSlots(1)
	w.mu.Unlock()
	poke(r.f.poke)
	poke(w.returned)
}

// giveSlots frees slots, and tells the fetchers that have waited for one. The caller holds mu.
func (w *worker) giveSlots(n int) {
	w.free += n
	for _, f := range w.fetchers {
		if f.hungry {
			f.hungry = false
			poke(f.poke)
		}
	}
}

type runningKey struct{}

// Value is that of the handler's context.
func (r *running) Value(key any) any {
	if key == (runningKey{}) {
		return r
	}
	return r.Context.Value(key)
}

func runningFrom(ctx context.Context) (*running, error) {
	r, ok := ctx.Value(runningKey{}).(*running)
	if !ok {
		return nil, ErrNoJob
	}
	return r, nil
}

// JobFrom gives the job that ctx's handler runs: its ID, group, headers, attempts. It says false where ctx is
// not a handler's.
func JobFrom(ctx context.Context) (Job, bool) {
	r, err := runningFrom(ctx)
	if err != nil {
		return Job{}, false
	}
	return *r.given, true
}

// ReportProgress says how far the job of ctx's handler has come, for its [Status]: 0 to 100 percent, and a note
// of at most 1 KiB. It is cheap enough to be called in a loop: what is newest goes out at most ten times a second. Within a
// run it never goes back. On a job that is not tracked it does nothing. It fails with [ErrLeaseLost] once
// that is known, with [ErrNoJob], and for another percentage.
func ReportProgress(ctx context.Context, percent int, note string) error {
	r, err := runningFrom(ctx)
	switch {
	case err != nil:
		return err
	case percent < 0 || percent > 100:
		return fmt.Errorf("queue: ReportProgress: %d percent; want 0 to 100", percent)
	case !r.job.Track:
		return nil
	}
	w := r.f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.lost || r.gone {
		return ErrLeaseLost
	}
	if percent < r.percent {
		return nil
	}
	r.percent = percent
	r.progress = &Progress{Percent: percent, Note: cut(note, maxNoteLen)}
	poke(w.reports)
	return nil
}

// SetResult keeps a result for the [Status] of the job of ctx's handler, if that succeeds and the job is tracked. It
// fails with [ErrResultTooLarge] over 64 KiB and with [ErrNoJob].
func SetResult(ctx context.Context, result []byte) error {
	r, err := runningFrom(ctx)
	if err != nil {
		return err
	}
	if len(result) > maxResultLen {
		return &sizeError{what: "result of " + r.job.Kind, got: len(result), most: maxResultLen, sentinel: ErrResultTooLarge}
	}
	r.f.w.mu.Lock()
	defer r.f.w.mu.Unlock()
	r.result = bytes.Clone(result)
	return nil
}

// EnqueueOnAck enqueues jobs in the same step in which the job of ctx's handler is done: all of it happens or
// nothing. They belong to that job's group; q is a queue over the same [Broker] value. It answers the jobs' IDs; one whose
// DedupeKey is taken is dropped. It fails as Enqueue does, with [ErrNoJob], and for another group or broker.
func (q *Queue) EnqueueOnAck(ctx context.Context, jobs ...Job) (ids []string, err error) {
	r, err := runningFrom(ctx)
	if err != nil {
		return nil, err
	}
	w := r.f.w
	if q.broker != w.q.broker {
		return nil, errors.New("queue: EnqueueOnAck: the queues have different brokers")
	}
	for _, j := range jobs {
		if j.Group != r.job.Group {
			return nil, fmt.Errorf("queue: EnqueueOnAck: Job.Group is %q; that of the job that is running is %q", j.Group, r.job.Group)
		}
	}
	entries, err := q.prepare("EnqueueOnAck", jobs)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		entries[i].Queue = q.cfg.Name
		ids = append(ids, entries[i].Job.ID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.follow = append(r.follow, entries...)
	return ids, nil
}
