package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	defaultConcurrency = 64
	defaultLease       = 30 * time.Second
	defaultDrain       = 25 * time.Second

	maxClaim     = 32                     // jobs of one Claim at most
	maxSettle    = 32                     // settlements of one Claim at most
	backstop     = 5 * time.Second        // looks for what no hint announced
	callTimeout  = 10 * time.Second       // of one call of the broker; it is repeated safely
	settleTime   = 5 * time.Second        // to settle what is left when the drain is over
	hintPause    = 50 * time.Millisecond  // between looks for hints that come early, at most
	reportPause  = 100 * time.Millisecond // between reports of progress
	zombieGrace  = 5 * time.Second        // for a handler to return once its context has ended
	unknownFor   = 24 * time.Hour         // how long a kind without a handler waits for one by default
	minLease     = 100 * time.Millisecond // a heartbeat comes every third
	maxSlots     = 1 << 20
	noLimit      = 100 * 365 * 24 * time.Hour // a timeout beyond is none
	unknownMet   = time.Hour                  // and how long at least since this worker first met it
	unknownWait  = 30 * time.Second           // between looks at such a job
	minSnooze    = 100 * time.Millisecond     // an error that says "now" must not spin
	maxRateSleep = time.Minute                // of a job whose kind is over its rate
)

// WorkerConfig tunes one Run. The zero value is valid.
type WorkerConfig struct {
	Concurrency int           // handlers at once; 0 means 64
	Lease       time.Duration // how long a job stays this worker's without a sign of life; 0 means 30 s. A heartbeat comes every third
	Drain       time.Duration // what running handlers may take after ctx ends; 0 means 25 s

	// Backoff says how long a job waits after its n-th failure, n from 1; nil means Exponential(2 s, 6 h): about
	// 48 h over 30 attempts. Backoffs does so for single kinds.
	Backoff  Backoff
	Backoffs map[string]Backoff

	// Timeout is how long a handler may run before its context ends with [ErrTimeout], which is a failed
	// attempt; 0 means no limit: the heartbeat keeps a job for as long as its handler runs. Timeouts does so for single kinds. A
	// handler that has not returned 5 s after that, or after its lease was lost or its job cancelled, becomes a zombie: it
	// loses its slot (while there are at most Concurrency of them), and whatever it says later changes nothing.
	Timeout  time.Duration
	Timeouts map[string]time.Duration

	// Rates bounds how many jobs of a kind this process starts. A job over it is snoozed until there is room,
	// and holds no slot. The limiter may be shared with other queues.
	Rates map[string]*rate.Limiter

	// Periodic jobs are enqueued by this worker; each tick once among all processes.
	Periodic []Periodic

	// UnknownFor is how long a job waits whose kind, or codec, no worker knows, before it is a dead letter; 0 means 24 h. A worker
	// gives it an hour at least from when it first met the kind. Keep it below the jobs' deadline.
	UnknownFor time.Duration

	// GiveBack is closed to end a drain at once: what still runs is given back without waiting. nil never does so.
	GiveBack <-chan struct{}
}

// Run claims jobs and runs their handlers until ctx ends. Then it claims no more, waits for the
// handlers that run for at most Drain, cancels the contexts of the rest, gives back what they had
// without counting a failure, and returns nil, some seconds after Drain at the latest. While the broker is away it tries again with growing
// pauses. It fails for an empty mux and for a field of cfg that is negative or does not fit.
func (q *Queue) Run(ctx context.Context, mux *Mux, cfg WorkerConfig) error {
	if mux == nil || len(mux.handlers) == 0 {
		return errors.New("queue: Run: the mux has no handler")
	}
	if err := cfg.check(); err != nil {
		return fmt.Errorf("queue: Run: %w", err)
	}
	handlers, err := mux.wrapped()
	if err != nil {
		return err
	}
	cfg.UnknownFor = cmp.Or(cfg.UnknownFor, unknownFor)
	cfg.Backoffs, cfg.Timeouts, cfg.Rates, cfg.Periodic = maps.Clone(cfg.Backoffs), maps.Clone(cfg.Timeouts), maps.Clone(cfg.Rates), slices.Clone(cfg.Periodic)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, defaultConcurrency)
	cfg.Lease = cmp.Or(cfg.Lease, defaultLease)
	cfg.Drain = cmp.Or(cfg.Drain, defaultDrain)
	if cfg.Backoff == nil {
		cfg.Backoff = defaultBackoff
	}
	newWorker(q, handlers, cfg).run(ctx)
	return nil
}

func (cfg *WorkerConfig) check() error {
	switch {
	case cfg.Concurrency < 0 || cfg.Concurrency > maxSlots:
		return fmt.Errorf("WorkerConfig.Concurrency is %d; want 0 for the default, or 1 to %d", cfg.Concurrency, maxSlots)
	case cfg.Lease < 0 || cfg.Lease > 0 && cfg.Lease < minLease:
		return fmt.Errorf("WorkerConfig.Lease is %v; want 0 for the default, or %v and more", cfg.Lease, minLease)
	case cfg.UnknownFor < 0:
		return fmt.Errorf("WorkerConfig.UnknownFor is %v; want 0 for the default, or more", cfg.UnknownFor)
	case cfg.Drain < 0:
		return fmt.Errorf("WorkerConfig.Drain is %v; want 0 for the default, or more", cfg.Drain)
	case cfg.Timeout < 0:
		return fmt.Errorf("WorkerConfig.Timeout is %v; want 0 for no limit, or more", cfg.Timeout)
	}
	for kind, d := range cfg.Timeouts {
		if d < 0 {
			return fmt.Errorf("WorkerConfig.Timeouts of %s is %v; want 0 for no limit, or more", kind, d)
		}
	}
	for kind, l := range cfg.Rates {
		if l == nil || l.Burst() < 1 && l.Limit() != rate.Inf {
			return fmt.Errorf("WorkerConfig.Rates of %s has a burst below 1: no job would ever start", kind)
		}
	}
	names := map[string]bool{}
	for _, p := range cfg.Periodic {
		if err := p.check(); err != nil {
			return fmt.Errorf("WorkerConfig.Periodic %q: %w", p.Name, err)
		}
		if names[p.Name] {
			return fmt.Errorf("WorkerConfig.Periodic has two of the name %q", p.Name)
		}
		names[p.Name] = true
	}
	return nil
}

// worker is one Run: a fetcher for each partition, a heartbeat, and the handlers' goroutines.
type worker struct {
	q        *Queue
	handlers map[string]Handler // by kind
	cfg      WorkerConfig
	process  string

	fetchers []*fetcher
	trims    chan struct{}  // a job has died
	returned chan struct{}  // a handler has
	idle     chan *running  // to a goroutine that has run a handler and waits for another
	ended    chan struct{}  // closed when Run ends
	stopped  chan time.Time // when ctx ended

	mu      sync.Mutex
	free    int        // slots
	hungry  []*fetcher // those that wait for a slot and do nothing else, the first one longest
	loops   int        // goroutines that run handlers or wait for one
	zombies int
	owed    int                  // slots that zombies keep, because there are too many of them
	unknown map[string]time.Time // what this worker can't run, by when it first met it
	pacers  map[string]*pacer    // by kind
}

func newWorker(q *Queue, handlers map[string]Handler, cfg WorkerConfig) *worker {
	w := &worker{
		q: q, handlers: handlers, cfg: cfg, process: newID(), free: cfg.Concurrency, trims: make(chan struct{}, 1), returned: make(chan struct{}, 1), idle: make(chan *running), ended: make(chan struct{}), stopped: make(chan time.Time, 1),
		unknown: map[string]time.Time{}, pacers: map[string]*pacer{},
	}
	for kind, l := range cfg.Rates {
		w.pacers[kind] = &pacer{limiter: l}
	}
	for p := range max(1, q.broker.Info().Partitions) {
		w.fetchers = append(w.fetchers, &fetcher{w: w, partition: p, poke: make(chan struct{}, 1), reports: make(chan struct{}, 1), held: map[Token]*running{}})
	}
	return w
}

func (w *worker) run(ctx context.Context) {
	w.q.mu.Lock()
	w.q.workers[w] = struct{}{}
	w.q.mu.Unlock()
	defer func() {
		w.q.mu.Lock()
		delete(w.q.workers, w)
		w.q.mu.Unlock()
	}()

	// The broker is called after ctx's end too, to settle and to give back.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { w.stopped <- time.Now() })()
	patient, cut := context.WithCancel(base) // ends with GiveBack, if ctx has ended before
	defer cut()
	var background, fetchers sync.WaitGroup
	background.Go(func() {
		select {
		case <-ctx.Done():
		case <-patient.Done():
			return
		}
		select {
		case <-w.cfg.GiveBack:
			cut()
		case <-patient.Done():
		}
	})
	background.Go(func() { w.trim(base) })
	for _, p := range w.cfg.Periodic {
		background.Go(func() { w.tick(ctx, p) })
	}
	for _, f := range w.fetchers {
		background.Go(func() { f.heartbeat(base) })
		fetchers.Go(func() { f.fetch(ctx, patient, base) })
	}
	fetchers.Wait()
	w.drain(patient, base)

	cancel()
	close(w.ended)
	background.Wait()
	for w.looping() {
		<-w.returned
	}
}

// trim bounds the dead letters, at the start and when a job has died.
func (w *worker) trim(ctx context.Context) {
	for w.q.cfg.MaxDead > 0 {
		if err := w.q.trim(ctx); err != nil && ctx.Err() == nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: dead letters could not be trimmed", slog.Any(logError, err))
		}
		select {
		case <-w.trims:
		case <-ctx.Done():
			return
		}
	}
}

// stuck counts the zombies of a worker that has no slot left for anything else.
func (w *worker) stuck() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owed < w.cfg.Concurrency {
		return 0
	}
	return w.zombies
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

// poke tells somebody that there is something to do.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// heartbeat extends all leases of a partition every third of their length, cancels the handlers of those lost or
// cancelled, and carries progress in between.
func (f *fetcher) heartbeat(ctx context.Context) {
	lease := f.w.cfg.Lease
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.beat(ctx, false)
			continue
		default: // a report must not come before what is due
		}
		select {
		case <-tick.C:
			f.beat(ctx, false)
		case <-f.reports:
			f.beat(ctx, true)
			wait(ctx, min(reportPause, lease/6))
		case <-ctx.Done():
			return
		}
	}
}

// beat sends one heartbeat, of all leases or of those with progress to report.
func (f *fetcher) beat(ctx context.Context, reports bool) {
	w := f.w
	beat := Heartbeat{Partition: f.partition, Lease: w.cfg.Lease}
	w.mu.Lock()
	for t, r := range f.held {
		if r.progress != nil {
			if beat.Progress == nil {
				beat.Progress = map[Token]Progress{}
			}
			beat.Progress[t] = *r.progress
			r.progress = nil
		} else if reports {
			continue
		}
		beat.Tokens = append(beat.Tokens, t)
	}
	if !reports { // what is done, but not settled yet, must not be taken over either
		for _, list := range [][]settled{f.settled, f.underWay} {
			for i := range list {
				beat.Tokens = append(beat.Tokens, list[i].Token)
			}
		}
	}
	w.mu.Unlock()
	if len(beat.Tokens) > 0 {
		f.extend(ctx, beat)
	}
}

func (f *fetcher) extend(ctx context.Context, beat Heartbeat) {
	w := f.w
	call, cancel := context.WithTimeout(ctx, max(w.cfg.Lease/3, 1)) // the next heartbeat is due then
	answer, err := w.q.broker.Extend(call, w.q.cfg.Name, beat)
	cancel()
	if err != nil && ctx.Err() == nil {
		w.q.log.LogAttrs(ctx, slog.LevelError, "queue: heartbeat failed", slog.Int("leases", len(beat.Tokens)), slog.Any(logError, err))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		for t, p := range beat.Progress { // for the next one to carry
			if r := f.held[t]; r != nil && r.progress == nil {
				r.progress = &p
			}
		}
	}
	// One that is not held any more was settled meanwhile, by us.
	for _, t := range answer.Lost {
		if r := f.held[t]; r != nil && !r.lost {
			r.lost = true
			w.q.log.LogAttrs(ctx, slog.LevelWarn, "queue: lease lost; the handler's context is cancelled", r.attrs()...)
			r.stop(ErrLeaseLost)
		}
	}
	for _, t := range answer.Cancelled {
		if r := f.held[t]; r != nil && !r.cancelled {
			r.cancelled = true
			r.stop(ErrCancelled)
		}
	}
}

// drain waits for the handlers, settles what they did and gives back what they did not finish. A
// handler that ignores its cancelled context is left behind: its lease is given back too. The broker may
// be away, so whatever is left to settle is tried again every second: it has no heartbeat any more.
func (w *worker) drain(patient, base context.Context) {
	end := (<-w.stopped).Add(w.cfg.Drain)
	again := time.NewTicker(time.Second)
	defer again.Stop()
	deadline := time.NewTimer(time.Until(end))
	defer deadline.Stop()
	for expired := false; w.busy() && !expired; {
		w.settleAll(patient, end)
		select {
		case <-w.returned:
		case <-again.C:
		case <-deadline.C:
			expired = true
		case <-w.cfg.GiveBack:
			expired = true
		}
	}
	if w.busy() {
		w.stopAll()
		grace := time.NewTimer(time.Second)
		defer grace.Stop()
		for expired := false; w.busy() && !expired; {
			select {
			case <-w.returned:
			case <-grace.C:
				expired = true
			}
		}
		w.leaveBehind()
	}
	w.settleAll(base, time.Now().Add(settleTime))
}

// looping says whether goroutines are left that are no zombies.
func (w *worker) looping() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.loops > w.zombies
}

// busy says whether handlers run that have something to settle.
func (w *worker) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.fetchers {
		if len(f.held) > 0 {
			return true
		}
	}
	return false
}

// stopAll cancels the context of every handler.
func (w *worker) stopAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.fetchers {
		for _, r := range f.held {
			r.stopped = true
			r.cancel(ErrStopped)
		}
	}
}

// leaveBehind gives back the leases of handlers that do not return; what they say later changes nothing.
func (w *worker) leaveBehind() {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := 0
	for _, f := range w.fetchers {
		for _, r := range f.held {
			left++
			w.zombie(r, 0)
		}
	}
	if left > 0 {
		w.q.log.LogAttrs(context.Background(), slog.LevelError, "queue: stopped although handlers still run", slog.Int("handlers", left))
	}
}

// settleAll sends what is left to settle, trying until end. What can't be sent is kept.
func (w *worker) settleAll(base context.Context, end time.Time) {
	ctx, cancel := context.WithDeadline(base, end)
	defer cancel()
	var all sync.WaitGroup
	for _, f := range w.fetchers {
		all.Go(func() { f.settleAll(ctx) })
	}
	all.Wait()
}
