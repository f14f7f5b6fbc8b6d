package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/breaker"
)

// model is what a Breaker should do, as plainly as it can be said: no concurrency, all that has happened in a list.
type model struct {
	cfg    breaker.Config
	state  breaker.State
	forced bool
	id     int // of the period
	since  time.Time
	length time.Duration // of the newest open period
	trips  int           // in a row

	ended     []ended
	row       int
	trials    map[int]time.Time // until when
	successes int
}

type ended struct {
	at           time.Time
	failed, slow bool
}

func (m *model) enter(s breaker.State, forced bool) {
	m.state, m.forced, m.since = s, forced, time.Now()
	m.id++
	m.ended, m.row, m.successes, m.trials = nil, 0, 0, map[int]time.Time{}
}

// counted are the calls in the window, which moves in tenths that begin with the period.
func (m *model) counted() (n, failed, slow int) {
	step := m.cfg.Window / 10
	now := time.Since(m.since) / step
	for _, e := range m.ended {
		if now-e.at.Sub(m.since)/step < 10 {
			n++
			if e.failed {
				failed++
			}
			if e.slow {
				slow++
			}
		}
	}
	return n, failed, slow
}

// admit says whether a call is let in.
func (m *model) admit(call int) bool {
	if m.state == breaker.Open && !m.forced && time.Since(m.since) >= m.length {
		m.enter(breaker.HalfOpen, false)
	}
	switch m.state {
	case breaker.Open:
		return false
	case breaker.Closed:
		return true
	default:
	}
	busy := 0
	for _, until := range m.trials {
		if time.Now().Before(until) {
			busy++
		}
	}
	if busy >= m.cfg.Trials {
		return false
	}
	m.trials[call] = time.Now().Add(m.cfg.TrialLease)
	return true
}

// finish is told how a call ended that began in a period. It says whether the breaker opens.
func (m *model) finish(call, period int, class breaker.Class, slow bool) (opens bool) {
	if period != m.id || m.forced {
		return false
	}
	failed := class == breaker.Failure
	counts := failed || class == breaker.Success || class == breaker.Permanent
	if m.state == breaker.HalfOpen {
		if !time.Now().Before(m.trials[call]) {
			return false
		}
		delete(m.trials, call)
		if !counts {
			return false
		}
		if failed || slow {
			return true
		}
		if m.successes++; m.successes >= m.cfg.TrialSuccesses {
			m.enter(breaker.Closed, false)
		}
		return false
	}
	if !counts {
		return false
	}
	m.ended = append(m.ended, ended{time.Now(), failed, slow})
	if m.row++; !failed {
		m.row = 0
	}
	n, failures, slows := m.counted()
	return failed && n >= m.cfg.MinCalls && float64(failures)/float64(n) >= m.cfg.FailureRate ||
		slow && n >= m.cfg.MinCalls && float64(slows)/float64(n) >= m.cfg.SlowRate ||
		m.cfg.ConsecutiveFailures > 0 && m.row >= m.cfg.ConsecutiveFailures
}

// open opens the model; the time comes from the breaker, whose jitter nobody can foretell, and must be in its bounds.
func (m *model) open(t *testing.T, next time.Time) {
	t.Helper()
	if m.state == breaker.Closed && time.Since(m.since) >= max(m.cfg.Window, m.length) {
		m.trips = 0
	}
	want := min(m.cfg.OpenFor<<max(m.trips-1, 0), m.cfg.MaxOpenFor)
	m.trips = min(m.trips+1, 20)
	m.enter(breaker.Open, false)
	m.length = next.Sub(m.since)
	require.GreaterOrEqual(t, m.length, want)
	require.LessOrEqual(t, m.length, want+want/10)
}

var outcomes = []struct {
	err   error
	class breaker.Class
}{
	{nil, breaker.Success},
	{nil, breaker.Success},
	{errDown, breaker.Failure},
	{errDown, breaker.Failure},
	{&breaker.StatusError{Code: http.StatusTooManyRequests}, breaker.Throttled},
	{breaker.ErrLimited, breaker.Ignored},
	{permanent{}, breaker.Permanent},
}

func TestStateMachineAgreesWithItsModelUnderRandomInterleavings(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) { interleave(t, rand.New(rand.NewPCG(seed, 8))) })
	}
}

func interleave(t *testing.T, r *rand.Rand) {
	t.Helper()
	cfg := breaker.Config{
		Timeout: breaker.NoTimeout, Window: 10 * time.Second, MinCalls: 1 + r.IntN(6), FailureRate: []float64{0.3, 0.5, 1}[r.IntN(3)],
		ConsecutiveFailures: []int{0, 3}[r.IntN(2)], SlowCall: []time.Duration{0, 2 * time.Second}[r.IntN(2)], SlowRate: []float64{0.5, 1}[r.IntN(2)],
		OpenFor: 5 * time.Second, MaxOpenFor: []time.Duration{5 * time.Second, 12 * time.Second, 50 * time.Second}[r.IntN(3)],
		Trials: 1 + r.IntN(3), TrialSuccesses: 1 + r.IntN(4), TrialLease: 4 * time.Second,
	}
	if cfg.SlowCall == 0 {
		cfg.SlowRate = 0
	}
	var (
		b       = newBreaker(t, cfg)
		m       = &model{cfg: cfg}
		pending []flying
		calls   int
	)
	m.enter(breaker.Closed, false)
	for step := range 600 {
		var did string
		switch n := r.IntN(100); {
		case n < 40:
			calls++
			did = fmt.Sprintf("call %d begins", calls)
			if m.admit(calls) {
				pending = append(pending, flying{begin(t, b), calls, m.id, time.Now()})
			} else {
				rejected(t, b)
			}
		case n < 75 && len(pending) > 0:
			i := r.IntN(len(pending))
			p, out := pending[i], outcomes[r.IntN(len(outcomes))]
			pending = append(pending[:i], pending[i+1:]...)
			did = fmt.Sprintf("call %d ends with %v", p.call, out.err)
			require.Equal(t, out.err, p.finish(out.err))
			if m.finish(p.call, p.period, out.class, cfg.SlowCall > 0 && time.Since(p.begun) > cfg.SlowCall) {
				m.open(t, b.Stats().NextTrial)
			}
		case n < 78:
			did = "forced open"
			b.ForceOpen()
			m.enter(breaker.Open, true)
		case n < 80:
			did = "forced closed"
			b.ForceClosed()
			m.length = 0
			m.enter(breaker.Closed, true)
		case n < 84:
			did = "reset"
			b.Reset()
			m.trips, m.length = 0, 0
			m.enter(breaker.Closed, false)
		default:
			d := []time.Duration{1, time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, time.Minute}[r.IntN(6)]
			if next := b.Stats().NextTrial; !next.IsZero() && r.IntN(3) > 0 {
				d = max(time.Until(next)-time.Duration(r.IntN(2)), 1) // to the instant, or just before it
			}
			did = fmt.Sprint("time goes on by ", d)
			time.Sleep(d)
		}
		s := b.Stats()
		require.Equal(t, m.state, s.State, "step %d, %s", step, did)
		require.Equal(t, m.forced, s.Forced, "step %d, %s", step, did)
		if m.state == breaker.Closed && !m.forced {
			n, failed, slow := m.counted()
			if cfg.SlowCall == 0 {
				slow = 0
			}
			require.Equal(t, []int{n, failed, slow}, []int{s.WindowCalls, s.WindowFailures, s.WindowSlow}, "step %d, %s", step, did)
		}
	}
	for _, p := range pending {
		_ = p.finish(nil)
	}
}

// flying is a pending call with what the model must know of it.
type flying struct {
	*pending

	call, period int
	begun        time.Time
}

// All that a Breaker has, from many goroutines and in real time: what must add up does, and its transitions are those of the machine.
func TestEverythingAtOnceAddsUp(t *testing.T) {
	t.Parallel()
	var (
		edges  = map[[2]breaker.State]int{}
		at     = breaker.Closed
		told   int
		over   = make(chan struct{})
		inside atomic.Int64
		most   atomic.Int64
		calls  atomic.Int64
	)
	cfg := breaker.Config{
		Timeout: 500 * time.Microsecond, Window: 10 * time.Millisecond, MinCalls: 5, OpenFor: 200 * time.Microsecond, MaxOpenFor: time.Millisecond,
		Trials: 2, MaxConcurrent: 4, MaxWait: time.Millisecond, Limiter: rate.NewLimiter(1e6, 100), SlowCall: 400 * time.Microsecond,
		Retry: breaker.Retry{Backoff: 10 * time.Microsecond, MaxBackoff: 50 * time.Microsecond, Budget: 1},
		Hooks: breaker.Hooks{
			Changed: func(c breaker.Change) {
				if c.Forced {
					close(over)
				}
				if c.From != at {
					t.Errorf("from %v, and was %v", c.From, at)
				}
				at = c.To
				if !c.Forced {
					edges[[2]breaker.State{c.From, c.To}]++
				}
			},
			Called: func(breaker.Attempt) { told++ },
		},
	}
	b := newBreaker(t, cfg)
	var all sync.WaitGroup
	for g := range uint64(16) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(g, 9))
			for range 1000 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+r.IntN(2000))*time.Microsecond)
				kind, v := r.IntN(100), b
				if kind%2 == 0 {
					v = b.Idempotent()
				}
				_ = breaker.Guard(v, func(ctx context.Context, _ int) error {
					calls.Add(1)
					n := inside.Add(1)
					defer inside.Add(-1)
					for {
						m := most.Load()
						if n <= m || most.CompareAndSwap(m, n) {
							break
						}
					}
					switch {
					case kind < 40:
						return nil
					case kind < 60:
						return errDown
					case kind < 70:
						<-ctx.Done()
						return ctx.Err()
					case kind < 75:
						return busy{time.Microsecond}
					case kind < 80:
						cancel()
						return ctx.Err()
					}
					return nil
				})(ctx, 1)
				cancel()
				if g == 0 && kind == 99 {
					b.Reset()
				}
			}
		})
	}
	all.Wait()
	b.ForceClosed() // the last event of all
	<-over
	s := b.Stats()
	require.Equal(t, calls.Load(), s.Calls)
	require.LessOrEqual(t, most.Load(), int64(4), "MaxConcurrent")
	require.GreaterOrEqual(t, int64(told), s.Calls+s.Rejected)
	require.NotZero(t, s.Trips)
	require.Zero(t, s.Abandoned)
	for edge := range edges {
		require.Contains(t, [][2]breaker.State{
			{breaker.Closed, breaker.Open}, {breaker.Open, breaker.HalfOpen}, {breaker.HalfOpen, breaker.Open}, {breaker.HalfOpen, breaker.Closed},
			{breaker.Open, breaker.Closed}, {breaker.Closed, breaker.Closed}, // by Reset
		}, edge)
	}
	p, q, x := begin(t, b), begin(t, b), begin(t, b)
	for _, p := range []*pending{p, q, x} { // the places are all free
		p.stop()
		err := p.finish(nil)
		require.True(t, err == nil || errors.Is(err, context.Canceled) || errors.Is(err, breaker.ErrTimeout), "%v", err)
	}
}
