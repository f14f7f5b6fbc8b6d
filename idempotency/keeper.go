package idempotency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/breakwater-go/breakwater/internal/text"
)

// Shopify sends a webhook again for 4 hours (8 times; shopify.dev/docs/apps/build/webhooks/troubleshooting-webhooks): a shorter memory would take a redelivery for new. A day is
// what Shopify and Stripe remember keys for themselves, and what a queue's retries take over a night.
const (
	leastRetention = 4 * time.Hour
	goodRetention  = 24 * time.Hour
)

const (
	// comeBack is how soon a call may ask again for a key that another holds: its work may end long before its lease does.
	comeBack = 5 * time.Second
	// leaveWithin bounds what is still done for a caller who has left: give its claim back.
	leaveWithin = time.Second
	// maxFailureBytes bounds the text of an error that is recorded.
	maxFailureBytes = 1024
)

// Config tunes a Keeper. The zero value is valid.
type Config struct {
	// Retention is how long it is known that something was done; 0 means 48 h. Under 4 h, Shopify's time of redelivery, is refused;
	// under 24 h is warned of. After it the same key runs again.
	Retention time.Duration
	// Lease is how long a key stays held after a crash; 0 means 30 s. It is extended, every third of it, while the work runs. At least 100 ms.
	Lease time.Duration
	// Wait is how long a call whose key another holds waits for its end; then it gets the other's result, or runs if that has failed. 0 does not wait: the
	// call fails with ErrInProgress. The caller's context ends the wait.
	Wait time.Duration
	// AskFirst keeps a key whose holder ended without a word from running again: ErrUnknownOutcome, until somebody has looked and called Resolve.
	// Without it the key runs again when the lease is over, and TakenOver tells the work so.
	AskFirst bool
	// FailOpen runs the work also when the store is away, unguarded: twice is better than not at all. Without it such a call fails with ErrUnavailable. Never for money.
	FailOpen bool
	// MaxResultBytes bounds what is kept of a result; 0 means 1 MiB. A larger one is done without it: ErrNoResult for those who come later.
	MaxResultBytes int
	// Logger gets what is lost, taken over, unknown and run without a guard, with names and never payloads or results; nil discards.
	Logger *slog.Logger
}

// Keeper runs what must happen once. It is safe for concurrent use. It has one timer, while work runs, and no goroutine of its own.
type Keeper struct {
	store    Store
	operator Operator // nil if the store is none
	cfg      Config
	log      *slog.Logger
	holds    holds
	counts   counts
}

// New makes a Keeper over a store: a Memory, or one of redisstore or sqlstore.
func New(store Store, cfg Config) (*Keeper, error) {
	if store == nil {
		return nil, errors.New("idempotency: store is nil")
	}
	if checked, ok := store.(interface{ Check() error }); ok { // an adapter's New returns one value, and says here what is wrong with it
		if err := checked.Check(); err != nil {
			return nil, err
		}
	}
	for _, d := range [...]struct {
		name      string
		v         *time.Duration
		zero, min time.Duration
		why       string
	}{
		{"Retention", &cfg.Retention, 48 * time.Hour, leastRetention, ": Shopify sends again for so long"},
		{"Lease", &cfg.Lease, 30 * time.Second, 100 * time.Millisecond, ""},
		{"Wait", &cfg.Wait, 0, 0, ""},
	} {
		if *d.v == 0 {
			*d.v = d.zero
		}
		if *d.v < d.min {
			return nil, fmt.Errorf("idempotency: Config.%s is %v; want at least %v%s", d.name, *d.v, d.min, d.why)
		}
	}
	if cfg.MaxResultBytes == 0 {
		cfg.MaxResultBytes = 1 << 20
	}
	if cfg.MaxResultBytes < 0 {
		return nil, fmt.Errorf("idempotency: Config.MaxResultBytes is %d; want 0 or more", cfg.MaxResultBytes)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Retention < goodRetention {
		cfg.Logger.Warn("idempotency: a short retention: what a queue or a person sends again after it runs again", "retention", cfg.Retention, "want", goodRetention)
	}
	k := &Keeper{store: store, cfg: cfg, log: cfg.Logger}
	k.operator, _ = store.(Operator)
	k.holds.init(k)
	return k, nil
}

// Result is what a call got.
type Result struct {
	Value    []byte // what the work has returned; nobody may change it
	Replayed bool   // the work was done before, and not now
}

// Do runs work once for an operation on a key, and returns what it returned, then or now, byte for byte.
//
// work gets a context that ends when its lease is lost, and that knows the key (ChildKey). If it fails, the key is free again, and the next call runs; unless the error's Permanent
// method says true: that is recorded, and later calls get its text (ErrRecorded). A panic frees the key as well.
//
// Errors: those of work as they are; ErrInProgress, ErrMismatch, ErrUnavailable, ErrKey, ErrNested, ErrRecorded and ErrNoResult, with which nothing was run; ErrUnknownOutcome, see there;
// ErrLeaseLost, after the work.
func (k *Keeper) Do(ctx context.Context, op string, key Key, work func(ctx context.Context) ([]byte, error)) (Result, error) {
	r, err := NewRequest(op, key)
	if err != nil {
		return Result{}, err
	}
	return k.do(ctx, r, func(ctx context.Context) (outcome, error) {
		v, err := work(ctx)
		return outcome{kind: value, bytes: v}, err
	})
}

func (k *Keeper) do(ctx context.Context, r Request, work func(context.Context) (outcome, error)) (Result, error) {
	name := r.Name
	if within(ctx, k, name) {
		return Result{}, permanent{about(name, ErrNested)}
	}
	r.For, r.Retention, r.AskFirst = k.cfg.Lease, k.cfg.Retention, k.cfg.AskFirst
	asked := time.Now()
	c, err := k.store.Claim(ctx, r)
	if err == nil && c.State == InProgress && k.cfg.Wait > 0 {
		asked, c, err = k.await(ctx, r, c)
	}
	if err != nil {
		return k.unclaimed(ctx, r, err, work)
	}
	switch c.State {
	case Claimed:
		if c.TakenOver {
			k.counts.takenOver.Add(1)
			k.log.Warn("idempotency: taken over from a holder that ended without a word: it may have taken effect", "name", name)
		}
		return k.run(ctx, r, asked, c, work)
	case Done:
		k.counts.replayed.Add(1)
		return replay(name, c.Result)
	case Superseded:
		k.counts.superseded.Add(1)
		return Result{Replayed: true}, nil
	case InProgress:
		k.counts.inProgress.Add(1)
		return Result{}, later{about(name, ErrInProgress), max(time.Millisecond, min(c.Rest, comeBack))}
	case Mismatch:
		k.counts.mismatch.Add(1)
		return Result{}, permanent{about(name, ErrMismatch)}
	case Unknown:
		return Result{}, permanent{about(name, fmt.Errorf("%w: its last holder ended without a word; look what it did, then Resolve", ErrUnknownOutcome))}
	case Released:
	}
	return Result{}, about(name, fmt.Errorf("idempotency: the store answers %v to a Claim", c.State))
}

// unclaimed is what becomes of a call whose Claim failed.
func (k *Keeper) unclaimed(ctx context.Context, r Request, err error, work func(context.Context) (outcome, error)) (Result, error) {
	if ctx.Err() != nil { // the claim may have been taken all the same
		k.release(ctx, r.Lease, leaveWithin)
		return Result{}, context.Cause(ctx)
	}
	if errors.Is(err, ErrNewerFormat) || errors.Is(err, ErrKey) || errors.Is(err, ErrNested) {
		return Result{}, err
	}
	if k.cfg.AskFirst { // it may have been taken, and its answer lost: then nothing has run, and nobody need look
		k.release(ctx, r.Lease, leaveWithin)
	}
	k.counts.unavailable.Add(1)
	if !k.cfg.FailOpen {
		return Result{}, later{about(r.Name, fmt.Errorf("%w: %w", ErrUnavailable, err)), comeBack}
	}
	k.log.Warn("idempotency: the store is not available; run without a guard (FailOpen)", "name", r.Name, "error", err)
	h := newHold(ctx, r, false)
	defer h.cancel(nil)
	out, err := work(h)
	return Result{Value: out.bytes}, err
}

// await asks again until the one who holds the key has ended, or the wait has.
func (k *Keeper) await(ctx context.Context, r Request, c Claim) (asked time.Time, _ Claim, err error) {
	end := time.Now().Add(k.cfg.Wait)
	for n := 0; c.State == InProgress; n++ {
		left := time.Until(end)
		if left <= 0 {
			return asked, c, nil
		}
		// Those in other processes can't tell us: asked soon at first, then twice a second.
		pause := time.NewTimer(min(left, max(time.Millisecond, min(c.Rest, rand.N(min(500*time.Millisecond, 20*time.Millisecond<<min(n, 5)))))))
		select {
		case <-k.holds.ended(r.Name):
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return asked, c, context.Cause(ctx)
		}
		pause.Stop()
		asked = time.Now()
		if c, err = k.store.Claim(ctx, r); err != nil {
			return asked, c, err
		}
	}
	return asked, c, nil
}

// run does the work under its lease, and records what came of it.
func (k *Keeper) run(ctx context.Context, r Request, asked time.Time, c Claim, work func(context.Context) (outcome, error)) (Result, error) {
	k.counts.claimed.Add(1)
	h := newHold(ctx, r, c.TakenOver)
	h.until = asked.Add(r.For)
	k.holds.add(h, asked)
	returned := false
	defer func() {
		if !returned { // a panic, or the end of the goroutine
			k.holds.settle(h)
			k.release(ctx, r.Lease, k.cfg.Lease)
		}
		k.holds.remove(h) // not before: those who wait for it ask at once
		h.cancel(nil)
	}()
	out, err := work(h)
	returned = true
	k.holds.settle(h)
	if err == nil {
		return k.complete(ctx, h, out)
	}
	if p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err); ok && p.Permanent() {
		if _, e := k.complete(ctx, h, outcome{kind: failure, bytes: []byte(text.Cut(err.Error(), maxFailureBytes))}); e != nil {
			return Result{}, fmt.Errorf("%w (%w)", err, e)
		}
		return Result{}, err
	}
	if errors.Is(context.Cause(h), ErrLeaseLost) {
		return Result{}, fmt.Errorf("%w: %w", about(r.Name, ErrLeaseLost), err)
	}
	k.release(ctx, r.Lease, k.cfg.Lease)
	return Result{}, err
}

// complete records an outcome.
func (k *Keeper) complete(ctx context.Context, h *hold, out outcome) (Result, error) {
	if len(out.bytes) > k.cfg.MaxResultBytes {
		k.log.Error("idempotency: the result is too large to be kept", "name", h.lease.Name, "bytes", len(out.bytes), "most", k.cfg.MaxResultBytes)
		out = outcome{kind: notKept, fresh: out.bytes}
	}
	err := context.Cause(h)
	record := out.record()
	if err == nil { // the caller is there, as mostly, and the lease
		err = k.store.Complete(h, h.lease, record, k.cfg.Retention)
	}
	if err != nil {
		err = k.insist(ctx, h, record)
	}
	switch {
	case err == nil:
		return Result{Value: out.value()}, nil
	case errors.Is(err, ErrLeaseLost):
		k.counts.lost.Add(1)
		k.log.Error("idempotency: the lease was lost before the outcome could be recorded; another may have run", "name", h.lease.Name)
		return Result{Value: out.value()}, about(h.lease.Name, ErrLeaseLost)
	default:
		k.counts.unknown.Add(1)
		k.log.Error("idempotency: done, and not recorded: the key runs again when the lease is over", "name", h.lease.Name, "error", err)
		after := max(0, time.Until(k.holds.end(h, time.Now().Add(k.cfg.Lease)))) + time.Second
		return Result{Value: out.value()}, later{about(h.lease.Name, fmt.Errorf("%w: done, and not recorded: %w", ErrUnknownOutcome, err)), after}
	}
}

// insist tries to record an outcome for as long as the lease lasts, whether or not anybody waits for it.
func (k *Keeper) insist(ctx context.Context, h *hold, record []byte) error {
	end := time.Now().Add(k.cfg.Lease) // whatever is extended meanwhile
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), end)
	defer cancel()
	for n := 0; ; n++ {
		err := k.store.Complete(ctx, h.lease, record, k.cfg.Retention)
		pause := rand.N(min(time.Second, 50*time.Millisecond<<min(n, 5)))
		if err == nil || errors.Is(err, ErrLeaseLost) || time.Until(k.holds.end(h, end)) <= pause {
			return err
		}
		time.Sleep(pause)
	}
}

func (k *Keeper) release(ctx context.Context, l Lease, within time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	if err := k.store.Release(ctx, l, k.cfg.Retention); err != nil {
		k.log.Warn("idempotency: a key could not be given back; it is free when its lease ends", "name", l.Name, "error", err)
	}
}
