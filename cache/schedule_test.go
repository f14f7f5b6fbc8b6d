package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
)

// schedule decides in which order things happen that happen at once: whoever comes to a gate waits until he is let through, one at a time, and all that follows from it has happened before the next is.
type schedule struct {
	mu    sync.Mutex
	rng   *rand.Rand
	gates []waiting
	trace []string
}

type waiting struct {
	name string
	ch   chan struct{}
}

func (s *schedule) gate(name string) {
	ch := make(chan struct{})
	s.mu.Lock()
	s.gates = append(s.gates, waiting{name, ch})
	s.mu.Unlock()
	<-ch
}

// step lets one through; false if nobody waits.
func (s *schedule) step() bool {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.gates) == 0 {
		return false
	}
	slices.SortStableFunc(s.gates, func(a, b waiting) int { return strings.Compare(a.name, b.name) }) // not in the order in which they came to run
	i := s.rng.IntN(len(s.gates))
	s.trace = append(s.trace, s.gates[i].name)
	close(s.gates[i].ch)
	s.gates = slices.Delete(s.gates, i, i+1)
	return true
}

// gated is a process's Remote that has gates before and behind each call, and before each notice from others.
type gated struct {
	*cache.Memory

	w    *world
	s    *schedule
	name string
	p    int
	own  bool // it tells itself at once
}

// notice is one on its way, of a change of the source to value.
type notice struct {
	cache.Notice

	value int
}

func (g *gated) Watch(name string, lag time.Duration, told func(cache.Notice)) error {
	var line sync.Mutex
	var queue []notice
	return g.Memory.Watch(name, lag, func(n cache.Notice) {
		if g.own {
			told(n)
			return
		}
		g.w.mu.Lock()
		value := g.w.source
		g.w.mu.Unlock()
		line.Lock()
		queue = append(queue, notice{n, value})
		line.Unlock()
		go func() { // ends when it is let through
			g.s.gate(g.name + " is told")
			line.Lock()
			next := queue[0] // in their order
			queue = queue[1:]
			line.Unlock()
			told(next.Notice)
			g.w.mu.Lock()
			g.w.floor[g.p] = max(g.w.floor[g.p], next.value)
			g.w.mu.Unlock()
		}()
	})
}

func (g *gated) Get(ctx context.Context, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	g.s.gate(g.name + " asks")
	answers, err := g.Memory.Get(ctx, name, keys, claim)
	g.s.gate(g.name + " is answered")
	return answers, err
}

func (g *gated) Fill(ctx context.Context, name string, fills []cache.Fill) ([]bool, error) {
	g.s.gate(g.name + " fills")
	kept, err := g.Memory.Fill(ctx, name, fills)
	g.s.gate(g.name + " has filled")
	return kept, err
}

func (g *gated) Invalidate(ctx context.Context, name string, what []cache.Invalidation) error {
	g.s.gate(g.name + " invalidates")
	g.own = true
	err := g.Memory.Invalidate(ctx, name, what)
	g.own = false
	g.s.gate(g.name + " has invalidated")
	return err
}

// P10: "Stale data has a bound, and an invalidation wins. A fill that began before an invalidation can't put the old value back." Here in every order that the schedule finds, in one process and across two: a Get that begins after an invalidation has returned never
// gets an older value, in the process that invalidated; and in the other one, once that has been told.
func TestP10EveryOrderOfFillsAndInvalidations(t *testing.T) {
	t.Parallel()
	const seeds = 3000
	refused := uint64(0)
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) { refused += runSchedule(t, seed) })
		if t.Failed() {
			return
		}
	}
	require.Greater(t, refused, uint64(seeds/4), "the race was there to be won")
}

// world is what a schedule's processes do.
type world struct {
	s      *schedule
	mu     sync.Mutex
	source int // the value
	floor  [2]int
	failed string
}

func runSchedule(t *testing.T, seed uint64) (refused uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &world{s: &schedule{rng: rng}}
	store := new(cache.Memory)
	shape := rng.IntN(4)
	var caches [2]*cache.Cache[int, int]
	for p := range caches {
		name := string(rune('A' + p))
		cfg := cache.Config[int, int]{Name: "test", Tags: func(int, int) []string { return []string{"t"} }, NoLocal: shape == 1, TTL: time.Hour}
		if shape != 0 || p == 0 {
			cfg.Remote = &gated{Memory: store.Peer(), w: w, s: w.s, name: name, p: p}
		}
		if shape == 2 {
			cfg.Fleet, cfg.LoadTimeout = time.Hour, 2*time.Hour
		}
		if shape == 0 { // one tier: both are the same process
			cfg.Remote, cfg.NoLocal = nil, false
		}
		c, err := cache.New(func(context.Context, int) (int, error) {
			w.s.gate(name + " loads")
			w.mu.Lock()
			v := w.source
			w.mu.Unlock()
			w.s.gate(fmt.Sprint(name, " has loaded ", v))
			return v, nil
		}, cfg)
		require.NoError(t, err)
		caches[p] = c
	}
	if shape == 0 {
		caches[1] = caches[0]
	}
	var wg sync.WaitGroup
	for p, c := range caches {
		for i := range 3 {
			times := 1 + rng.IntN(2)
			wg.Go(func() {
				for range times {
					w.s.gate(fmt.Sprintf("%d.%d gets", p, i))
					w.mu.Lock()
					floor := w.floor[p]
					w.mu.Unlock()
					v, err := c.Get(t.Context(), 1)
					w.mu.Lock()
					if (err != nil || v < floor) && w.failed == "" {
						w.failed = fmt.Sprintf("seed %d, shape %d: process %d gets %d, %v after %d was invalid", seed, shape, p, v, err, floor)
					}
					w.mu.Unlock()
				}
			})
		}
	}
	by, tags := [2]int{rng.IntN(2), rng.IntN(2)}, [2]bool{rng.IntN(2) == 0, rng.IntN(2) == 0}
	times := 1 + rng.IntN(2)
	wg.Go(func() {
		for i := range times {
			w.s.gate("the source changes")
			w.mu.Lock()
			w.source++
			now := w.source
			w.mu.Unlock()
			p := by[i]
			var err error
			if tags[i] {
				err = caches[p].InvalidateTags(t.Context(), "", "t")
			} else {
				err = caches[p].Invalidate(t.Context(), 1)
			}
			w.mu.Lock()
			if err != nil {
				w.failed = err.Error()
			}
			w.floor[p] = now
			if shape == 0 {
				w.floor = [2]int{now, now} // it is one process
			}
			w.mu.Unlock()
		}
	})
	for w.s.step() || claims(shape, &wg) {
		synctest.Wait()
	}
	wg.Wait()
	require.Empty(t, w.failed, w.s.trace)
	for p, c := range caches { // everybody has been told of everything
		done := make(chan struct{})
		go func() {
			defer close(done)
			v, err := c.Get(t.Context(), 1)
			w.mu.Lock()
			defer w.mu.Unlock()
			if err != nil || v != w.source {
				w.failed = fmt.Sprintf("seed %d, shape %d: in the end process %d has %d, %v of %d", seed, shape, p, v, err, w.source)
			}
		}()
		for w.s.step() || !closed(done) {
			time.Sleep(time.Millisecond) // claims are waited for
		}
		require.Empty(t, w.failed, w.s.trace)
	}
	return caches[0].Stats().Refused + caches[1].Stats().Refused
}

func closed(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// claims lets time pass for those who wait for another process's load, until all have ended.
func claims(shape int, wg *sync.WaitGroup) bool {
	if shape != 2 {
		return false
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return false
	case <-time.After(10 * time.Millisecond):
		return true
	}
}
