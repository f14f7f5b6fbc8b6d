package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"
)

const (
	defaultConcurrency = 64
	defaultLease       = 30 * time.Second
	defaultDrain       = 25 * time.Second

	maxClaim    = 32                     // jobs of one Claim at most
	maxSettle   = 32                     // settlements of one Claim at most
	backstop    = 5 * time.Second        // looks for what no hint announced
	callTimeout = 10 * time.Second       // of one call of the broker; it is repeated safely
	settleTime  = 5 * time.Second        // to settle what is left when the drain is over
	hintPause   = 50 * time.Millisecond  // between looks for hints that come early, at most
	unknownFor  = 24 * time.Hour         // how long a kind without a handler waits for one
	unknownMet  = time.Hour              // and how long at least since this worker first met it
	unknownWait = 30 * time.Second       // between looks at such a job
	minSnooze   = 100 * time.Millisecond // an error that says "now" must not spin
	maxErrorLen = 2 << 10                // bytes kept of a failure's text
)

// WorkerConfig tunes one Run. The zero value is valid.
type WorkerConfig struct {
	Concurrency int           // handlers at once; 0 means 64
	Lease       time.Duration // how long a job stays this worker's without a sign of life; 0 means 30 s. A heartbeat comes every third
	Drain       time.Duration // what running handlers may take after ctx ends; 0 means 25 s

	// Backoff says how long a job waits after its n-th failure, n from 1. nil means full jitter up to
	// 2 s, doubling to 6 h: about 48 h over 30 attempts.
	Backoff func(n int) time.Duration
}

// Run claims jobs and runs their handlers until ctx ends. Then it claims no more, waits for the
// handlers that run for at most Drain, cancels the contexts of the rest, gives back what they had
// without counting a failure, and returns nil, some seconds after Drain at the latest. While the broker is away it tries again with growing
// pauses. It fails for an empty mux and for a negative field of cfg.
func (q *Queue) Run(ctx context.Context, mux *Mux, cfg WorkerConfig) error {
	switch {
	case mux == nil || len(mux.handlers) == 0:
		return errors.New("queue: Run: the mux has no handler")
	case cfg.Concurrency < 0:
		return fmt.Errorf("queue: Run: WorkerConfig.Concurrency is %d; want 0 for the default, or more", cfg.Concurrency)
	case cfg.Lease < 0:
		return fmt.Errorf("queue: Run: WorkerConfig.Lease is %v; want 0 for the default, or more", cfg.Lease)
	case cfg.Drain < 0:
		return fmt.Errorf("queue: Run: WorkerConfig.Drain is %v; want 0 for the default, or more", cfg.Drain)
	}
	cfg.Concurrency = cmp.Or(cfg.Concurrency, defaultConcurrency)
	cfg.Lease = cmp.Or(cfg.Lease, defaultLease)
	cfg.Drain = cmp.Or(cfg.Drain, defaultDrain)
	if cfg.Backoff == nil {
		cfg.Backoff = fullJitter
	}
	w := &worker{q: q, mux: mux, cfg: cfg, process: newID(), free: cfg.Concurrency, held: map[Token]*running{}, poke: make(chan struct{}, 1),
		stopped: make(chan time.Time, 1), unknown: map[string]time.Time{}}
	w.run(ctx)
	return nil
}

// fullJitter is the default Backoff: a random share of a doubling bound, so that what failed together
// does not come back together.
func fullJitter(n int) time.Duration {
	bound := 6 * time.Hour
	if n < 15 {
		bound = min(bound, time.Second<<n)
	}
	return rand.N(bound)
}

// worker is one Run: a fetch loop, a heartbeat, and the handlers' goroutines.
type worker struct {
	q       *Queue
	mux     *Mux
	cfg     WorkerConfig
	process string
	number  uint64 // of the last Call

	poke    chan struct{}  // there is something for the fetch loop to do
	stopped chan time.Time // when ctx ended

	mu      sync.Mutex
	free    int // slots
	held    map[Token]*running
	settled []Settlement
	unknown map[string]time.Time // kinds without a handler, by when this worker first met them
}

// running is a job that a handler has.
type running struct {
	cancel  context.CancelCauseFunc
	lost    bool // another worker has it: there is nothing to settle
	stopped bool // its context was cancelled because the worker stops
}

func (w *worker) run(ctx context.Context) {
	// The broker is called after ctx's end too, to settle and to give back.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { w.stopped <- time.Now() })()
	var beat sync.WaitGroup
	beat.Go(func() { w.heartbeat(base) })

	w.fetch(ctx, base)
	w.drain(base)

	cancel()
	beat.Wait()
}

// fetch settles and claims until ctx ends.
func (w *worker) fetch(ctx, base context.Context) {
	hint := make(chan bool, 1) // says whether it came early
	waiting, early := false, 0
	for ctx.Err() == nil {
		settle, slots := w.take(maxClaim)
		if len(settle) == 0 && slots == 0 {
			select {
			case <-w.poke:
			case <-ctx.Done():
			}
			continue
		}
		claimed, ok := w.claim(ctx, base, settle, slots)
		if !ok {
			break // what is not settled goes with the drain
		}
		for _, lease := range claimed.Jobs {
			w.start(base, lease)
		}
		if len(claimed.Jobs) > 0 || slots == 0 {
			early = 0
			continue
		}

		// Nothing to claim: wait for a hint, for something to fall due, for a settlement or, as hints may
		// be lost, for the backstop.
		if !waiting {
			waiting = true
			go func(early int) { hint <- w.hint(ctx, early) }(early)
		}
		next := backstop
		if claimed.DueIn > 0 {
			next = min(next, claimed.DueIn)
		}
		look := time.NewTimer(next)
		select {
		case tooSoon := <-hint:
			waiting = false
			early++
			if !tooSoon {
				early = 0
			}
		case <-w.poke:
		case <-look.C:
		case <-ctx.Done():
		}
		look.Stop()
	}
	if waiting {
		<-hint
	}
}

// hint waits for the broker's hint that there may be a job. A broker that fails or hints at nothing,
// early times in a row, is asked again after a growing pause, so that it can't make the loop spin.
func (w *worker) hint(ctx context.Context, early int) (tooSoon bool) {
	start := time.Now()
	err := w.q.broker.Wait(ctx, w.q.cfg.Name) // why it fails shows at the next Claim
	pause := time.Duration(0)
	switch {
	case err != nil:
		pause = rand.N(min(backstop, 100*time.Millisecond<<min(early, 10)))
	case time.Since(start) < hintPause && early > 0:
		pause = min(hintPause, time.Millisecond<<min(early, 10))
	}
	wait(ctx, pause)
	return err != nil || time.Since(start) < 2*hintPause
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// take takes settlements to send, and slots to fill.
func (w *worker) take(maxSlots int) ([]Settlement, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.settled), maxSettle)
	settle := w.settled[:n:n]
	w.settled = w.settled[n:]
	slots := min(w.free, maxSlots)
	w.free -= slots
	return settle, slots
}

// claim makes one Call, the same one again while the broker fails, and gives back the slots that it
// did not fill. It says false if it failed and ctx ended; then the settlements are kept. A call under
// way is not cut off by ctx, which would leave what it claims to nobody until the leases end.
func (w *worker) claim(ctx, base context.Context, settle []Settlement, slots int) (Claimed, bool) {
	w.number++
	call := Call{Process: w.process, Number: w.number, Settle: settle, Max: slots, Lease: w.cfg.Lease}
	for failures := 0; ; failures++ {
		claimed, err := w.callBroker(base, call)
		if err == nil {
			w.mu.Lock()
			w.free += slots - len(claimed.Jobs)
			w.mu.Unlock()
			for _, t := range claimed.Lost {
				w.q.log.LogAttrs(ctx, slog.LevelWarn, "queue: settled too late: another worker has the job", slog.String("token", string(t)))
			}
			return claimed, true
		}
		if ctx.Err() == nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: broker failed; trying again", slog.Int("failures", failures+1), slog.Any("error", err))
		}
		wait(ctx, rand.N(min(backstop, 100*time.Millisecond<<min(failures, 10))))
		if ctx.Err() != nil {
			w.mu.Lock()
			w.free += slots
			w.settled = append(settle, w.settled...)
			w.mu.Unlock()
			return Claimed{}, false
		}
	}
}

func (w *worker) callBroker(base context.Context, call Call) (Claimed, error) {
	ctx, cancel := context.WithTimeout(base, callTimeout)
	defer cancel()
	return w.q.broker.Claim(ctx, w.q.cfg.Name, call)
}

// start runs one job's handler on a goroutine of its own. Its slot is taken already.
func (w *worker) start(base context.Context, lease Lease) {
	ctx, cancel := context.WithCancelCause(base)
	r := &running{cancel: cancel}
	w.mu.Lock()
	w.held[lease.Token] = r
	w.mu.Unlock()
	go func() {
		err := errGone // stands if the handler ends its goroutine
		defer func() {
			w.finish(w.outcome(ctx, lease, err), r)
			cancel(nil)
		}()
		err = w.call(ctx, lease.Job)
	}()
}

// call runs a handler; a panic is an error.
func (w *worker) call(ctx context.Context, job Job) (err error) {
	h := w.mux.handlers[job.Kind]
	if h == nil {
		return ErrNoHandler
	}
	defer func() {
		if v := recover(); v != nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: handler panicked", slog.String("kind", job.Kind), slog.String("job", job.ID),
				slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
			err = &panicError{v}
		}
	}()
	return h(ctx, job)
}

// outcome turns a handler's error into a settlement. The error's methods and Backoff are the user's code
// as well: if they panic, that is one more failed attempt.
func (w *worker) outcome(ctx context.Context, lease Lease, err error) (s Settlement) {
	defer func() {
		if v := recover(); v != nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: a handler's error or Backoff panicked", slog.String("kind", lease.Job.Kind),
				slog.String("job", lease.Job.ID), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
			s = Settlement{Token: lease.Token, Action: Retry, Error: (&panicError{v}).Error(), After: fullJitter(lease.Job.Attempts + 1)}
		}
	}()
	s.Token = lease.Token
	if err == nil {
		s.Action = Ack
		return s
	}
	s.Error = err.Error()
	s.Error = s.Error[:min(len(s.Error), maxErrorLen)]
	if p, ok := errors.AsType[permanent](err); ok && p.Permanent() {
		s.Action = Kill
	} else if errors.Is(err, ErrNoHandler) {
		// A rolling deploy may bring a worker that knows the kind.
		s.Action, s.After = Snooze, unknownWait
		if lease.Age >= unknownFor && w.met(lease.Job.Kind) >= unknownMet {
			s.Action = Kill
		}
	} else if d, ok := errors.AsType[delayer](err); ok {
		s.Action, s.After = Snooze, max(d.RetryAfter(), minSnooze)
	} else {
		s.Action, s.After = Retry, w.cfg.Backoff(lease.Job.Attempts+1)
	}
	w.q.log.LogAttrs(ctx, slog.LevelWarn, "queue: job failed", slog.String("kind", lease.Job.Kind), slog.String("job", lease.Job.ID),
		slog.String("group", lease.Job.Group), slog.String("key", lease.Job.Key), slog.Int("attempt", lease.Job.Attempts+1),
		slog.Bool("dead", s.Action == Kill || s.Action == Retry && lease.Job.Attempts+1 >= lease.Job.MaxAttempts),
		slog.Duration("again_in", s.After), slog.Any("error", err))
	return s
}

// met says how long ago this worker first met a kind without a handler. A job that is old because
// everything was down must not die at the first look of a worker that is about to be replaced.
func (w *worker) met(kind string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, known := w.unknown[kind]
	if !known {
		first = time.Now()
		w.unknown[kind] = first
	}
	return time.Since(first)
}

// finish hands a settlement to the fetch loop and frees the slot.
func (w *worker) finish(s Settlement, r *running) {
	w.mu.Lock()
	delete(w.held, s.Token)
	if r.stopped && s.Action != Ack {
		// Its failure is our doing: the job goes back as it was.
		s = Settlement{Token: s.Token, Action: Release}
	}
	if !r.lost {
		w.settled = append(w.settled, s)
	}
	w.free++
	w.mu.Unlock()
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

// heartbeat extends all leases every third of their length, and cancels the handlers of those lost.
func (w *worker) heartbeat(ctx context.Context) {
	tick := time.NewTicker(w.cfg.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		tokens := make([]Token, 0, len(w.held))
		for t := range w.held {
			tokens = append(tokens, t)
		}
		w.mu.Unlock()
		if len(tokens) == 0 {
			continue
		}
		lost, err := w.extend(ctx, tokens)
		if err != nil && ctx.Err() == nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: heartbeat failed", slog.Int("leases", len(tokens)), slog.Any("error", err))
		}
		w.mu.Lock()
		for _, t := range lost {
			// One that is not held any more was settled meanwhile, by us.
			if r := w.held[t]; r != nil {
				r.lost = true
				r.cancel(ErrLeaseLost)
				w.q.log.LogAttrs(ctx, slog.LevelWarn, "queue: lease lost; the handler's context is cancelled", slog.String("token", string(t)))
			}
		}
		w.mu.Unlock()
	}
}

func (w *worker) extend(ctx context.Context, tokens []Token) ([]Token, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Lease/3) // the next heartbeat is due then
	defer cancel()
	return w.q.broker.Extend(ctx, w.q.cfg.Name, tokens, w.cfg.Lease)
}

// drain waits for the handlers, settles what they did and gives back what they did not finish. A
// handler that ignores its cancelled context is left behind: its lease is given back too. The broker may
// be away, so whatever is left to settle is tried again every second: it has no heartbeat any more.
func (w *worker) drain(base context.Context) {
	end := (<-w.stopped).Add(w.cfg.Drain)
	again := time.NewTicker(time.Second)
	defer again.Stop()
	deadline := time.NewTimer(time.Until(end))
	defer deadline.Stop()
	for expired := false; w.busy() && !expired; {
		w.settleAll(base, end)
		select {
		case <-w.poke:
		case <-again.C:
		case <-deadline.C:
			expired = true
		}
	}
	if w.busy() {
		w.stopAll()
		grace := time.NewTimer(time.Second)
		defer grace.Stop()
		for expired := false; w.busy() && !expired; {
			select {
			case <-w.poke:
			case <-grace.C:
				expired = true
			}
		}
		w.abandon()
	}
	w.settleAll(base, time.Now().Add(settleTime))
}

// busy says whether handlers run that have something to settle.
func (w *worker) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held) > 0
}

// stopAll cancels the context of every handler.
func (w *worker) stopAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.held {
		r.stopped = true
		r.cancel(ErrStopped)
	}
}

// abandon gives back the leases of handlers that do not return; what they say later changes nothing.
func (w *worker) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t, r := range w.held {
		r.lost = true
		w.settled = append(w.settled, Settlement{Token: t, Action: Release})
	}
	if len(w.held) == 0 {
		return
	}
	w.q.log.LogAttrs(context.Background(), slog.LevelError, "queue: stopped although handlers still run", slog.Int("handlers", len(w.held)))
}

// settleAll sends what is left to settle, trying until end. What can't be sent is kept.
func (w *worker) settleAll(base context.Context, end time.Time) {
	ctx, cancel := context.WithDeadline(base, end)
	defer cancel()
	for {
		settle, _ := w.take(0)
		if len(settle) == 0 {
			return
		}
		if _, ok := w.claim(ctx, ctx, settle, 0); !ok {
			return // the leases end by themselves
		}
	}
}
