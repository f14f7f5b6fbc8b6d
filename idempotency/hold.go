package idempotency

import (
	"context"
	"slices"
	"sync"
	"time"
)

// maxExtend is how many leases a Store is asked to extend at once.
const maxExtend = 256

type holdKey struct{}

// hold is a lease that work runs under, and that work's context.
type hold struct {
	context.Context //nolint:containedctx // it is one

	cancel    context.CancelCauseFunc
	lease     Lease
	version   Version
	takenOver bool
	guard     *Keeper // nil without a lease (FailOpen)

	// Guarded by holds.mu.
	until    time.Time     // the lease's end, by this process's clock: not later than by the store's
	extended time.Time     // when it was last asked for
	ended    chan struct{} // closed at the end; nil while nobody waits
	settling bool          // the work is over, and its outcome on its way: the store may answer that before it answers an Extend
	gone     bool
}

func newHold(ctx context.Context, r Request, takenOver bool) *hold {
	h := &hold{lease: r.Lease, version: r.Version, takenOver: takenOver}
	h.Context, h.cancel = context.WithCancelCause(ctx)
	return h
}

// WithOperation makes ctx that of the work of a request, for [ChildKey] and against nesting. It is for stores that run work themselves.
func WithOperation(ctx context.Context, r Request) context.Context {
	return &hold{Context: ctx, lease: r.Lease, version: r.Version}
}

func (h *hold) Value(key any) any {
	if key == (holdKey{}) {
		return h
	}
	return h.Context.Value(key)
}

// within says whether ctx belongs to work that k runs under this name: that would wait for itself.
func within(ctx context.Context, k *Keeper, name Name) bool {
	for {
		h, ok := ctx.Value(holdKey{}).(*hold)
		if !ok {
			return false
		}
		if h.lease.Name == name && (h.guard == k || h.guard == nil) {
			return true
		}
		ctx = h.Context //nolint:fatcontext // outwards
	}
}

// holds are the leases of a Keeper, which one timer extends.
type holds struct {
	k *Keeper

	mu        sync.Mutex
	of        map[Name]*hold
	timer     *time.Timer
	wake      time.Time // when the timer looks next; zero if it does not
	extending bool
}

func (s *holds) init(k *Keeper) { s.k, s.of = k, map[Name]*hold{} }

// period is how often the timer looks. A lease is extended at an age between a sixth and a half of it.
func (s *holds) period() time.Duration { return s.k.cfg.Lease / 3 }

func (s *holds) add(h *hold, asked time.Time) {
	h.guard = s.k
	s.mu.Lock()
	defer s.mu.Unlock()
	h.extended = asked
	if before := s.of[h.lease.Name]; before != nil {
		s.lose(before) // and does not know yet
	}
	s.of[h.lease.Name] = h
	if s.wake.IsZero() || h.until.Before(s.wake) { // the latter if the claim took most of its lease
		s.arm(min(s.period(), time.Until(h.until)))
	}
}

// arm has the timer look again after d.
func (s *holds) arm(d time.Duration) {
	s.wake = time.Now().Add(d)
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.beat)
	} else {
		s.timer.Reset(d)
	}
}

// settle takes note that the work is over. The lease is extended for as long as its outcome is not recorded.
func (s *holds) settle(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.settling = true
}

func (s *holds) remove(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(h)
}

func (s *holds) drop(h *hold) {
	if h.gone {
		return
	}
	h.gone = true
	if s.of[h.lease.Name] == h {
		delete(s.of, h.lease.Name)
	}
	if h.ended != nil {
		close(h.ended)
	}
}

// ended is closed when the hold of a name in this process ends; it is nil if there is none.
func (s *holds) ended(name Name) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of[name]
	if h == nil {
		return nil
	}
	if h.ended == nil {
		h.ended = make(chan struct{})
	}
	return h.ended
}

// end is when a lease ends, or most if that is sooner.
func (s *holds) end(h *hold, most time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.until.Before(most) {
		return h.until
	}
	return most
}

// beat ends the work of those whose time is over, and extends the others. It is the timer's function, and stops when nothing runs.
func (s *holds) beat() {
	s.mu.Lock()
	now := time.Now()
	next := s.period()
	var due []*hold
	for _, h := range s.of {
		left := h.until.Sub(now)
		if left <= 0 {
			s.lose(h)
			continue
		}
		next = min(next, left)
		if now.Sub(h.extended) >= s.period()/2 {
			due = append(due, h)
		}
	}
	if len(s.of) == 0 {
		s.wake = time.Time{}
		s.mu.Unlock()
		return
	}
	s.arm(next)
	mine := len(due) > 0 && !s.extending
	s.extending = s.extending || mine
	s.mu.Unlock()
	if mine {
		s.extend(due)
	}
}

func (s *holds) lose(h *hold) {
	s.drop(h)
	h.cancel(about(h.lease.Name, ErrLeaseLost))
}

// extend asks the store for more time. What it does not confirm in time ends by itself, in a later beat.
func (s *holds) extend(due []*hold) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.extending = false
	}()
	for len(due) > 0 {
		n := min(len(due), maxExtend)
		s.extendSome(due[:n])
		due = due[n:]
	}
}

func (s *holds) extendSome(due []*hold) {
	leases := make([]Lease, len(due))
	for i, h := range due {
		leases[i] = h.lease
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), s.period())
	defer cancel()
	e, err := s.k.store.Extend(ctx, leases, s.k.cfg.Lease)
	if err != nil {
		s.k.log.Warn("idempotency: leases could not be extended; what runs under them ends with them", "leases", len(leases), "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range due {
		switch {
		case slices.Contains(e.Unknown, h.lease):
			s.k.log.Warn("idempotency: a lease could not be extended; what runs under it ends with it", "name", h.lease.Name)
		case !slices.Contains(e.Lost, h.lease):
			h.extended, h.until = asked, asked.Add(s.k.cfg.Lease)
		case !h.gone && !h.settling:
			s.k.log.Warn("idempotency: lease lost while the work runs: its context is cancelled", "name", h.lease.Name)
			s.lose(h)
		}
	}
}
