package shopify

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ErrQuota says that a call did not get its part of the shop's quota in the time that it had; it was not sent. The error is a *QuotaError.
var ErrQuota = errors.New("shopify: quota")

// QuotaError is an ErrQuota. A queue puts the job off until there is quota again, and its whole group with it: the shop's other jobs would find the bucket as empty.
type QuotaError struct {
	Bucket string        // the bucket's name: the shop's, after Config.App/ where there is one, and before /rest where it is that of REST calls
	Cost   float64       // what the call would have taken: points, or calls of REST
	After  time.Duration // when there will probably be as much for it
	Cause  error         // of Buckets that could not be asked; nil otherwise
}

func (e *QuotaError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("shopify: the quota of %s can't be asked for: %v", e.Bucket, e.Cause)
	}
	return fmt.Sprintf("shopify: the quota of %s does not have %g within the time there is; it will in %s", e.Bucket, e.Cost, e.After.Round(10*time.Millisecond))
}

// Is says that it is an ErrQuota.
func (e *QuotaError) Is(target error) bool { return target == ErrQuota }

// Unwrap returns Cause.
func (e *QuotaError) Unwrap() error { return e.Cause }

// RetryAfter is After.
func (e *QuotaError) RetryAfter() time.Duration { return e.After }

// ParkGroup says true.
func (e *QuotaError) ParkGroup() bool { return true }

// LimiterConfig tunes a Limiter. The zero value is valid.
type LimiterConfig struct {
	// Buckets keeps the buckets; nil means NewLocal's, of this process alone. With several processes that call the same shops give each the same, as redislimit's.
	Buckets Buckets
	// KeepFree is the share of each bucket that background calls leave to interactive ones; 0 means 0.1. It is also what a stranger may take unseen without a throttled answer.
	KeepFree float64
	// MaxWait is the longest that a call waits, whatever its context's deadline; 0 means 10 s, and less than 0 that only the deadline counts. A handler that waits longer holds a slot
	// of its queue: the error parks the shop instead.
	MaxWait time.Duration
	// Lease is how long a call that was let go may take at most; 0 means a minute. After that it counts as lost.
	Lease time.Duration
}

// Limiter lets calls to shops go as their quota allows: what a call will cost is taken out of a model of the shop's bucket before it is sent, and the difference to what it has cost comes
// back with the answer, which corrects the model. Sizes and rates are learned from answers; until the first one, one call goes at a time.
//
// Calls go in the order in which they come. Interactive ones (see WithInteractive) go first, and have a share of the bucket for themselves; where both kinds wait, background calls get a
// fifth. A Limiter is safe for concurrent use.
type Limiter struct {
	buckets Buckets
	cfg     LimiterConfig
	last    atomic.Uint64 // ID given
}

// NewLimiter makes a Limiter.
//
// It fails if KeepFree is not from 0 to 0.9, or Lease is negative.
func NewLimiter(cfg LimiterConfig) (*Limiter, error) {
	switch {
	case !(cfg.KeepFree >= 0 && cfg.KeepFree <= 0.9):
		return nil, fmt.Errorf("shopify: LimiterConfig.KeepFree is %v; want a share from 0 to 0.9", cfg.KeepFree)
	case cfg.Lease < 0:
		return nil, fmt.Errorf("shopify: LimiterConfig.Lease is %v; want none or more than 0", cfg.Lease)
	}
	if cfg.KeepFree == 0 {
		cfg.KeepFree = 0.1
	}
	if cfg.MaxWait == 0 {
		cfg.MaxWait = 10 * time.Second
	}
	if cfg.Lease == 0 {
		cfg.Lease = time.Minute
	}
	if cfg.Buckets == nil {
		cfg.Buckets = NewLocal()
	}
	l := &Limiter{buckets: cfg.Buckets, cfg: cfg}
	l.last.Store(rand.Uint64()) // other Limiters over the same Buckets begin elsewhere
	return l, nil
}

type interactiveKey struct{}

// WithInteractive marks the calls of a context as interactive: somebody waits for them. Without it a call is a background one.
func WithInteractive(ctx context.Context) context.Context {
	return context.WithValue(ctx, interactiveKey{}, true)
}

// Reservation is a call's part of a bucket. Exactly one of its methods must be called, once; more calls do nothing.
type Reservation struct {
	l     *Limiter
	name  string
	call  Call
	grant Grant
	done  atomic.Bool
}

// Reserve waits until a call of the given cost may go, and takes the cost out of the bucket. name is the shop's, or whatever else has a bucket of its own.
//
// If there will not be as much before ctx's deadline or within MaxWait, it fails at once: ErrQuota, with the time when there will. Errors: ErrQuota; ctx's own; ErrTooExpensive if the
// bucket does not even hold as much.
func (l *Limiter) Reserve(ctx context.Context, name string, cost float64) (*Reservation, error) {
	if !(cost >= 0) || math.IsInf(cost, 0) {
		return nil, fmt.Errorf("shopify: Reserve: a cost of %v", cost)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	_, interactive := ctx.Value(interactiveKey{}).(bool)
	r := &Reservation{l: l, name: name, call: Call{ID: l.last.Add(1), Cost: cost, Interactive: interactive, Keep: l.cfg.KeepFree, Lease: l.cfg.Lease}}
	turn, err := l.buckets.Take(ctx, name, r.call)
	if err == nil && turn.Granted {
		r.grant = turn.Grant
		return r, nil
	}
	if err := r.wait(ctx, turn, err); err != nil {
		return nil, err
	}
	return r, nil
}

// askAgain is when Buckets that failed are asked again.
const askAgain = 100 * time.Millisecond

// beforeEnd is how long before a context's deadline a call gives up waiting, so that it can still say when there will be quota.
const beforeEnd = 5 * time.Millisecond

// wait waits for the call's turn.
func (r *Reservation) wait(ctx context.Context, turn Turn, err error) error {
	begun := time.Now()
	until := time.Time{}
	if r.l.cfg.MaxWait > 0 {
		until = begun.Add(r.l.cfg.MaxWait)
	}
	if d, ok := ctx.Deadline(); ok && (until.IsZero() || d.Before(until)) {
		until = d.Add(-beforeEnd)
	}
	hints, stop := r.l.buckets.Hints(r.call)
	defer stop()
	for first := true; ; first = false {
		now := time.Now()
		switch {
		case err != nil && ctx.Err() != nil:
			r.leave(ctx)
			return ctx.Err()
		case err != nil:
			turn = Turn{Again: askAgain, After: askAgain}
		case turn.Size > 0 && r.call.Cost > turn.Size:
			r.leave(ctx)
			return &CostError{Requested: int(r.call.Cost), Most: int(turn.Size)}
		case turn.Granted:
			return nil
		}
		if !until.IsZero() && !now.Add(turn.After).Before(until) {
			r.leave(ctx)
			after := max(turn.After, askAgain)
			if turn.Size == 0 && err == nil { // nobody knows
				after = max(after, time.Second)
			}
			return &QuotaError{Bucket: r.name, Cost: r.call.Cost, After: after, Cause: err}
		}
		pause := max(turn.Again, time.Millisecond)
		if first {
			pause = 0 // there may have been a hint before anybody listened
		}
		if !until.IsZero() {
			pause = min(pause, until.Sub(now))
		}
		timer := time.NewTimer(pause)
		select {
		case <-hints:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			r.leave(ctx)
			return ctx.Err()
		}
		timer.Stop()
		if turn, err = r.l.buckets.Take(ctx, r.name, r.call); err == nil && turn.Granted {
			r.grant = turn.Grant
		}
	}
}

// leave takes the call out of the line. It may have been let go in the same moment: then nobody sends it, and its part comes back.
func (r *Reservation) leave(ctx context.Context) {
	_ = r.l.buckets.Leave(ctx, r.name, r.call) // its place ends by itself soon
}

// Settle notes the call's answer.
//
// It fails if Buckets could not be told; the call then counts as under way until its lease ends, and as lost after that.
func (r *Reservation) Settle(ctx context.Context, a Answer) error {
	if r.done.Swap(true) {
		return nil
	}
	return r.l.buckets.Settle(ctx, r.name, r.call, r.grant, a.sane())
}

// Lost says that the answer will not come; see Answer.Lost.
func (r *Reservation) Lost(ctx context.Context) error { return r.Settle(ctx, Answer{Lost: true}) }

// Cancel says that the call was not sent: its part comes back.
func (r *Reservation) Cancel(ctx context.Context) error { return r.Settle(ctx, Answer{}) }
