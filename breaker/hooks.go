package breaker

import (
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"time"
)

// Hooks are told what happens, one event of a Breaker at a time and in the order of their happening: what a call did comes before the transition that it caused, and that before what it
// let happen. (Those of a Group are told of its breakers' events at once.) They are called in the goroutine of a call or, where events wait, in one of their own, outside any lock: they may use the
// Breaker, and what comes of that is told after they return. While one runs, further events wait in memory, without a bound: let it be quick. A panic is logged, not passed on.
type Hooks struct {
	// Changed is told of each transition.
	Changed func(Change)
	// Called is told of each attempt, rejected ones included.
	Called func(Attempt)
}

// Change is a transition.
type Change struct {
	Name     string
	From, To State
	Forced   bool // by ForceOpen or ForceClosed
	At       time.Time
	// NextTrial is when an open breaker lets the first trial through; otherwise zero.
	NextTrial time.Time
	Cause     error // the failure that opened it; nil for other transitions, and for a forced one
}

// Attempt is one attempt of a call.
type Attempt struct {
	Name     string
	Number   int // from 1; more are retries
	Trial    bool
	Rejected bool // by the breaker or a limit, or the caller left while it waited for a place; Err says which
	Class    Class
	Err      error
	Took     time.Duration // the call itself, without what it waited for a place
}

// events is what hooks are still to be told.
type events struct {
	log *slog.Logger

	mu      sync.Mutex
	list    []func()
	telling bool
}

func (e *events) add(f func()) {
	e.mu.Lock()
	e.list = append(e.list, f)
	e.mu.Unlock()
}

// fewEvents is how many a call tells before it goes on: with other calls' events coming in all the time it would never end.
const fewEvents = 16

// deliver tells what there is to tell, unless another does.
func (e *events) deliver() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.telling || len(e.list) == 0 {
		return
	}
	e.telling = true
	e.some(fewEvents)
}

// some tells so many events, and then leaves the rest to a goroutine, which ends when there is none. The caller holds e.mu.
func (e *events) some(n int) {
	over := false
	defer func() { // also if a hook ends its goroutine
		if over || len(e.list) == 0 {
			e.telling, e.list = false, nil
			return
		}
		go func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.some(math.MaxInt)
		}()
	}()
	for ; n > 0 && len(e.list) > 0; n-- {
		f := e.list[0]
		e.list = e.list[1:]
		e.tell(f)
	}
	over = len(e.list) == 0
}

func (e *events) tell(f func()) {
	e.mu.Unlock()
	defer func() {
		if v := recover(); v != nil {
			e.log.Error("breaker: a hook panicked", "panic", v, "stack", string(debug.Stack()))
		}
		e.mu.Lock()
	}()
	f()
}

// tell makes a transition and notes it, in one step, so that nothing that comes of it is told before. The caller holds c.mu, which keeps the order.
func (c *core) tell(from, to *period) {
	ch := Change{Name: c.name, From: from.state, To: to.state, Forced: to.forced, At: to.since}
	if to.state == Open {
		ch.NextTrial, ch.Cause = to.err.NextTrial, to.err.Cause
	}
	told := []func(){func() {
		attrs := []any{"name", ch.Name, "from", ch.From, "to", ch.To, "forced", ch.Forced}
		if ch.To == Open {
			c.log.Warn("breaker: opened", append(attrs, "next_trial", ch.NextTrial, "error", ch.Cause)...)
		} else {
			c.log.Info("breaker: changed", attrs...)
		}
	}}
	if hook := c.cfg.Hooks.Changed; hook != nil {
		told = append(told, func() { hook(ch) })
	}
	c.events.mu.Lock()
	defer c.events.mu.Unlock()
	c.events.list = append(c.events.list, told...)
	c.now.Store(to)
}

// called notes an attempt.
func (c *core) called(a Attempt) {
	if hook := c.cfg.Hooks.Called; hook != nil {
		a.Name = c.name
		c.events.add(func() { hook(a) })
	}
}
