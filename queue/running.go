package queue

import (
	"cmp"
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
	begun   time.Time
	cancel  context.CancelCauseFunc
	timer   *time.Timer // until it is a zombie; nil if it has no timeout and nothing has ended its context

	// guarded by worker.mu
	lost      bool // another worker has it: there is nothing to settle
	cancelled bool // the job was cancelled
	stopped   bool // its context was cancelled because the worker stops
	gone      bool // it is a zombie: whatever it says changes nothing
	surplus   bool // its goroutine is one more than there are slots
	done      bool // the handler has returned
	progress  *Progress
	percent   int
	result    []byte
	follow    []Entry
	complete  error // ErrCompleted once an engine has completed the job in its own transaction
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
	w.mu.Unlock()
	after := w.backoff(r) // the user's code
	w.mu.Lock()
	if r.f.held[r.token] != r {
		w.mu.Unlock()
		return
	}
	w.zombie(r, after)
	w.mu.Unlock()
	poke(r.f.poke)
	ctx := context.Background()
	w.q.log.LogAttrs(ctx, slog.LevelError, "queue: handler ignores the end of its context; it has lost its slot", r.attrs()...)
	if w.q.cfg.Hooks.Zombie != nil {
		w.q.hook(ctx, "Zombie", func() { w.q.cfg.Hooks.Zombie(ctx, *r.job) })
	}
}

// zombie takes a running handler's lease and slot. after is how long the job waits for its next run. The caller holds mu.
func (w *worker) zombie(r *running, after time.Duration) {
	delete(r.f.held, r.token)
	r.gone = true
	w.q.zombies.Add(1)
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
		s.Action, s.err, s.Error, s.After, s.cancelled = Retry, errZombie, errZombie.Error(), after, r.cancelled
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
	r := &running{f: f, token: lease.Token, job: &lease.Job, age: lease.Age, begun: time.Now()}
	var ctx context.Context
	ctx, r.cancel = context.WithCancelCause(base)
	r.Context, r.handler = r.limit(ctx), h
	w.mu.Lock()
	f.held[r.token] = r
	w.mu.Unlock()
	select {
	case w.idle <- r:
	default:
		w.mu.Lock()
		w.loops++
		w.mu.Unlock()
		go w.handleAll(r)
	}
}

// handleAll runs a handler, and then others, until Run ends: a goroutine that has grown its stack is worth keeping. A slot is free a
// moment before its goroutine is, so that now and then one more is begun; it ends with its handler.
func (w *worker) handleAll(r *running) {
	defer func() { // a handler may end the goroutine
		w.mu.Lock()
		w.loops--
		w.mu.Unlock()
		poke(w.returned)
	}()
	for {
		if w.handle(r); r.surplus {
			return
		}
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
	if d <= 0 || d > noLimit {
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
	if met := w.met(what); met >= unknownMet && lease.Age >= w.cfg.UnknownFor {
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

// handle runs a handler and hands on what became of it. The defers run whatever the handler, the hooks and the
// error's methods do: each may panic or end the goroutine.
func (w *worker) handle(r *running) {
	// These stand if the handler, or what the outcome asks of its error, ends the goroutine.
	err := errGone
	s := Settlement{Token: r.token, Action: Retry, Error: errGone.Error(), After: time.Second}
	defer func() {
		w.finish(r, s, err)
		r.cancel(nil)
	}()
	defer func() { s = w.outcome(r, err) }()
	if w.q.cfg.Hooks.Ended != nil {
		defer func() {
			w.q.hook(r, "Ended", func() { w.q.cfg.Hooks.Ended(r, *r.given, err, time.Since(r.begun)) })
		}()
	}
	r.given = r.job
	err = w.call(r)
}

// call decodes the payload and runs the handler; a panic is an error.
func (w *worker) call(r *running) (err error) {
	defer func() {
		if v := recover(); v != nil {
			w.q.log.LogAttrs(r, slog.LevelError, "queue: handler panicked", append(jobAttrs(r.job), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))...)
			err = &panicError{v}
		}
	}()
	if r.job.codec != "" {
		given := *r.job
		if err := w.q.decode(&given); err != nil {
			return &decodeError{err}
		}
		r.given = &given
	}
	if w.q.cfg.Hooks.Started != nil {
		w.q.hook(r, "Started", func() { w.q.cfg.Hooks.Started(r, *r.given) })
	}
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
	s.Error = cut(cmp.Or(err.Error(), noText), maxErrorLen)
	if p, ok := errors.AsType[permanent](err); ok && p.Permanent() {
		s.Action = Kill
	} else if _, ok := errors.AsType[*decodeError](err); ok && (errors.Is(err, ErrNoCodec) || errors.Is(err, ErrNewerFormat)) {
		return w.unknownThing(&Lease{Token: r.token, Job: *r.job, Age: r.age}, "codec "+r.job.codec, err)
	} else if ok { // it can't be decoded, now or later
		s.Action = Kill
	} else if d, ok := errors.AsType[delayer](err); ok {
		s.Action, s.After = Snooze, max(d.RetryAfter(), minSnooze)
		if p, ok := d.(parker); ok { // of the error that says for how long, and of no other
			s.Park = p.ParkGroup()
		}
	} else {
		s.Action, s.After = Retry, w.backoffOf(r.job.Kind)(r.job.Attempts+1)
	}
	// No longer than the job may live: it then dies of its deadline in time, and its group is not parked for ever.
	s.After = min(s.After, max(r.job.Deadline-r.age-time.Since(r.begun), 0)+time.Second)
	attrs := append(jobAttrs(r.job), slog.Duration("again_in", s.After), slog.Any(logError, err))
	switch {
	case errors.Is(context.Cause(r), ErrCancelled): // it ends as cancelled, whatever its handler says
		w.q.log.LogAttrs(r, slog.LevelInfo, "queue: job cancelled", attrs...)
	case s.Action == Snooze: // nothing went wrong: it is told to wait, perhaps many times
		w.q.log.LogAttrs(r, slog.LevelDebug, "queue: job put off", attrs...)
	default:
		w.q.log.LogAttrs(r, slog.LevelWarn, "queue: job failed", attrs...)
	}
	return s
}

// backoff is how long a job waits after a failure that its handler did not tell of.
func (w *worker) backoff(r *running) (after time.Duration) {
	defer func() {
		if recover() != nil { // the user's code
			after = defaultBackoff(r.job.Attempts + 1)
		}
	}()
	return w.backoffOf(r.job.Kind)(r.job.Attempts + 1)
}

func (w *worker) backoffOf(kind string) Backoff {
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
	r.done = true
	if r.gone {
		w.q.zombies.Add(-1)
		w.zombies--
		if w.owed > 0 {
			w.owed--
			w.giveSlots(1)
		}
		r.surplus = w.loops-w.zombies > w.cfg.Concurrency
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
		r.f.settled = append(r.f.settled, settled{s, r.job, err, r.cancelled})
	}
	w.giveSlots(1)
	r.surplus = w.loops-w.zombies > w.cfg.Concurrency
	w.mu.Unlock()
	poke(r.f.poke)
	poke(w.returned)
}

// giveSlots frees slots, and tells the fetcher that has waited longest for one. The caller holds mu.
func (w *worker) giveSlots(n int) {
	w.free += n
	if w.free > 0 && len(w.hungry) > 0 {
		poke(w.hungry[0].poke)
	}
}
