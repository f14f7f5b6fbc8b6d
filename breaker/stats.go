package breaker

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// counters count since New.
type counters struct {
	calls, failures, rejected, limited, timeouts, retries, refused, trips, abandoned atomic.Int64
}

// Stats is what Breaker.Stats says.
type Stats struct {
	Name      string
	State     State // Open until a call comes after NextTrial
	Forced    bool  // by ForceOpen or ForceClosed
	Since     time.Time
	NextTrial time.Time // of an Open one that was not forced; otherwise zero
	Cause     error     // that opened it; nil for a Closed one

	// What has ended in Config.Window, of a Closed one that was not forced.
	WindowCalls, WindowFailures, WindowSlow int

	// Since New.
	Calls, Failures int64 // attempts that were made
	Rejected        int64 // attempts that the breaker did not let through
	Limited         int64 // attempts that found no place in a limit
	Timeouts        int64
	Retries         int64 // attempts after the first of their call, rejected ones included
	RetriesRefused  int64 // retries that the budget had none left for
	Trips           int64

	Abandoned int // calls that have not returned after their timeout, or their caller left, now
}

// Stats returns what the breaker is about. The values are each true, if not all of one instant.
func (b *Breaker) Stats() Stats {
	c := b.core
	p := c.now.Load()
	s := Stats{
		Name: c.name, State: p.state, Forced: p.forced, Since: p.since,
		Calls: c.counts.calls.Load(), Failures: c.counts.failures.Load(), Rejected: c.counts.rejected.Load(), Limited: c.counts.limited.Load(),
		Timeouts: c.counts.timeouts.Load(), Retries: c.counts.retries.Load(), RetriesRefused: c.counts.refused.Load(), Trips: c.counts.trips.Load(),
		Abandoned: int(max(c.counts.abandoned.Load(), 0)),
	}
	switch p.state {
	case Closed:
		_ = p.failures.State() // moves the window to now
		n := p.failures.Counts()
		s.WindowCalls, s.WindowFailures = int(n.TotalSuccesses+n.TotalFailures), int(n.TotalFailures)
		if p.slow != nil {
			_ = p.slow.State()
			s.WindowSlow = int(p.slow.Counts().TotalFailures)
		}
	case Open:
		s.NextTrial, s.Cause = p.err.NextTrial, p.err.Cause
	default:
		s.Cause = p.err.Cause
	}
	return s
}

// State is Stats().State.
func (b *Breaker) State() State { return b.core.now.Load().state }

// patience is when to come back to a full concurrency limit: nobody knows when a place is free.
func (c *core) patience() time.Duration {
	d := max(c.cfg.MaxWait, 100*time.Millisecond)
	return d/2 + rand.N(d)
}
