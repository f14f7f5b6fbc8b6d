package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/queue"
)

// workers is how many worker processes the Breakwater side has at any time.
const workers = 4

// errDead is what a dead worker gets for an answer.
var errDead = errors.New("this worker is dead")

// fleet keeps the worker processes of the Breakwater side. Each dies in the midst of a job after a while, and
// another takes its place, for as long as the storm lasts.
type fleet struct {
	home    home
	systems *client
	set     settings
	started atomic.Int64 // workers so far
}

// run keeps the workers until ctx ends.
func (f *fleet) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, workers)
	var all sync.WaitGroup
	for i := range uint64(workers) {
		all.Go(func() {
			defer cancel() // if one place can't be kept, the integration ends
			errs[i] = f.keep(ctx, rand.New(rand.NewPCG(f.set.Seed, i+1)))
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// keep runs one worker after the other, each until it dies.
func (f *fleet) keep(ctx context.Context, rng *rand.Rand) error {
	var runs sync.WaitGroup
	defer runs.Wait()
	// 20 s to a minute of the storm's time. A job takes 6 s at most, when the systems are slow, so that it meets few
	// deaths: fewer than the five that would make it a dead letter.
	life := func() time.Duration {
		return time.Duration((20 + 40*rng.Float64()) * float64(time.Second) / f.set.Scale)
	}
	for ctx.Err() == nil {
		w := newWorker(int(f.started.Add(1)), f.home.broker, life)
		alive, bury := context.WithCancel(ctx)
		ended := make(chan error, 1)
		runs.Go(func() { ended <- f.work(alive, w) })
		select {
		case err := <-ended:
			bury()
			return err
		case <-w.died:
			bury() // so that its goroutines end; it can't tell the broker anything
			if err := f.systems.do(context.WithoutCancel(ctx), "deaths", w.last, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// work is what a worker process does all its life.
func (f *fleet) work(ctx context.Context, w *worker) error {
	jobs, err := queue.New(w, f.home.cfg)
	if err != nil {
		return err
	}
	g, err := newGuard(f.set, mortal{f.home.store, w}, f.home.quota)
	if err != nil {
		return err
	}
	g.step = w.step
	mux := queue.NewMux()
	for topic := range steps {
		mux.Handle(topic, g.handle(w.number))
	}
	return jobs.Run(ctx, mux, workerConfig(f.set.options))
}

// lease is how long a job stays a worker's without a sign of life. The last sign of a worker that dies is at most a
// third of it old, and its handlers still finish the call that they are in: what is left must be more than the
// longest call takes, with much to spare for a busy machine, or the job would run twice at once.
func lease(scale float64) time.Duration {
	longest := time.Duration(0)
	for _, plan := range forecast {
		longest = max(longest, plan.calm, plan.slow)
	}
	return 2*time.Second + 4*time.Duration(float64(longest)/scale)
}

// takeover is how long a job of a dead worker waits for the next at most: its lease, and then until somebody
// looks, which a worker without work does twice in that time.
func takeover(scale float64) time.Duration { return lease(scale) * 3 / 2 }

// worker stands for one worker process, and is its connection to the broker. Once it is dead that is cut, and
// nothing of what the worker does reaches the broker any more: it settles nothing, gives nothing back, and
// its leases end by themselves.
type worker struct {
	number int
	broker queue.Broker
	life   func() time.Duration
	died   chan struct{} // closed when it is dead
	last   call          // what it was about to do when it died; read it once died is closed

	mu   sync.RWMutex
	due  time.Time // when it is to die
	dead bool
}

// chance is how long a worker that is due waits for a job that is between two steps. If there is none, its death is put
// off: workers that all waited for one job would die of it one after the other.
const chance = 500 * time.Millisecond

var _ queue.Broker = (*worker)(nil)

func newWorker(number int, broker queue.Broker, life func() time.Duration) *worker {
	return &worker{number: number, broker: broker, life: life, due: time.Now().Add(life()), died: make(chan struct{})}
}

// step asks whether a handler may take its next step. The first that asks when the worker is due, and whose
// job is between two steps, finds that the worker has just died; after that all do.
func (w *worker) step(next call, between bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch late := time.Since(w.due); {
	case w.dead:
		return errDead
	case late > chance:
		w.due = time.Now().Add(w.life())
	case late > 0 && between:
		w.dead, w.last = true, next
		close(w.died)
		return errDead
	}
	return nil
}

// alive holds off the worker's death until it is released, so that a call of the broker is either over by then or
// never made.
func (w *worker) alive() (release func(), err error) {
	w.mu.RLock()
	if w.dead {
		w.mu.RUnlock()
		return nil, errDead
	}
	return w.mu.RUnlock, nil
}

func (w *worker) Info() queue.BrokerInfo { return w.broker.Info() }

func (w *worker) Enqueue(ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
	release, err := w.alive()
	if err != nil {
		return nil, err
	}
	defer release()
	return w.broker.Enqueue(ctx, name, batch)
}

func (w *worker) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	release, err := w.alive()
	if err != nil {
		return queue.Claimed{}, err
	}
	defer release()
	return w.broker.Claim(ctx, name, call)
}

func (w *worker) Extend(ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
	release, err := w.alive()
	if err != nil {
		return queue.Extended{}, err
	}
	defer release()
	return w.broker.Extend(ctx, name, beat)
}

// Wait ends with the worker. It changes nothing at the broker, so it need not hold off the death.
func (w *worker) Wait(ctx context.Context, name string, partition int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-w.died:
			cancel(errDead)
		case <-ctx.Done():
		}
	}()
	err := w.broker.Wait(ctx, name, partition)
	select {
	case <-w.died:
		return errDead
	default:
		return err
	}
}

// mortal is a worker's connection to the store: it dies with the worker, so that what the dead one had claimed stays claimed until its lease ends, and what it has
// done by then is not recorded.
type mortal struct {
	store idempotency.Store
	w     *worker
}

func (m mortal) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	release, err := m.w.alive()
	if err != nil {
		return idempotency.Claim{}, err
	}
	defer release()
	return m.store.Claim(ctx, r)
}

func (m mortal) Extend(ctx context.Context, leases []idempotency.Lease, lease time.Duration) (idempotency.Extended, error) {
	release, err := m.w.alive()
	if err != nil {
		return idempotency.Extended{}, err
	}
	defer release()
	return m.store.Extend(ctx, leases, lease)
}

func (m mortal) Complete(ctx context.Context, l idempotency.Lease, result []byte, retention time.Duration) error {
	release, err := m.w.alive()
	if err != nil {
		return err
	}
	defer release()
	return m.store.Complete(ctx, l, result, retention)
}

func (m mortal) Release(ctx context.Context, l idempotency.Lease, retention time.Duration) error {
	release, err := m.w.alive()
	if err != nil {
		return err
	}
	defer release()
	return m.store.Release(ctx, l, retention)
}
