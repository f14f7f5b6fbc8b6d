// Package cachetest checks that a second tier does what [cache.Remote] says. Each check is a subtest named for what it proves; the suite's own test has broken tiers, each of which it must catch.
//
//	func TestMemory(t *testing.T) {
//		cachetest.Run(t, cachetest.Config{
//			New: func(*testing.T) func() cache.Remote {
//				store := new(cache.Memory)
//				return func() cache.Remote { return store.Peer() }
//			},
//			Bubble: synctest.Test,
//		})
//	}
package cachetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

// Config says how to get a tier.
type Config struct {
	// New makes a storage, or takes one that others use too, and returns how a process gets its Remote over it. It is called for each check.
	New func(t *testing.T) (process func() cache.Remote)
	// Bubble runs a check with virtual time; synctest.Test for a tier in the process. nil means real time.
	Bubble func(t *testing.T, f func(*testing.T))
	// Short is a time that ends within the test; 0 means 300 ms. A tier that is slow needs more.
	Short time.Duration
}

// Run checks a tier.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if cfg.Bubble == nil {
		cfg.Bubble = func(t *testing.T, f func(*testing.T)) { t.Helper(); f(t) }
	}
	cfg.Short = cmp.Or(cfg.Short, 300*time.Millisecond)
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if !c.alone {
				t.Parallel()
			}
			cfg.Bubble(t, func(t *testing.T) { //nolint:thelper // not one
				if err := c.run(t.Context(), newRig(cfg.New(t), cfg.Short)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

const (
	long  = time.Hour // no test takes so long
	crowd = 16
	// bound is how soon another process is told, of a tier that works.
	bound = 5 * time.Second
	lag   = time.Minute
)

// rig is two processes over one storage, with names that nobody else uses.
type rig struct {
	a, b  *process
	short time.Duration
	name  string
	scope string
}

// process is a Remote, and what it has told.
type process struct {
	cache.Remote

	mu   sync.Mutex
	told []cache.Notice
}

var rigs atomic.Uint64

func newRig(fresh func() cache.Remote, short time.Duration) *rig {
	n := fmt.Sprintf("%d-%d", time.Now().UnixNano(), rigs.Add(1))
	return &rig{a: &process{Remote: fresh()}, b: &process{Remote: fresh()}, short: short, name: "cache" + n, scope: "shop" + n}
}

// watch has both processes told.
func (r *rig) watch() error {
	for _, p := range []*process{r.a, r.b} {
		err := p.Watch(r.name, lag, func(n cache.Notice) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.told = append(p.told, n)
		})
		if err != nil {
			return failed("Watch: %w", err)
		}
	}
	return nil
}

// has says whether p was told of inv.
func (p *process) has(inv cache.Invalidation) (cache.Notice, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.told {
		if n.Invalidation == inv {
			return n, true
		}
	}
	return cache.Notice{}, false
}

func (r *rig) key(id string) cache.Key { return cache.Key{Scope: r.scope, ID: id} }

// ask asks p for one key.
func (r *rig) ask(ctx context.Context, p *process, id string, claim time.Duration) (cache.Answer, error) {
	answers, err := p.Get(ctx, r.name, []cache.Key{r.key(id)}, claim)
	if err != nil {
		return cache.Answer{}, failed("Get: %w", err)
	}
	if len(answers) != 1 {
		return cache.Answer{}, failed("Get of one key gives %d answers", len(answers))
	}
	return answers[0], nil
}

// found expects p to have a value for a key.
func (r *rig) found(ctx context.Context, p *process, id, want string) error {
	a, err := r.ask(ctx, p, id, 0)
	if err == nil && (!a.Found || a.NotFound || string(a.Value) != want) {
		err = failed("of %q is found %v, %q; want %q", id, a.Found, a.Value, want)
	}
	return err
}

func (r *rig) missing(ctx context.Context, p *process, id string) error {
	a, err := r.ask(ctx, p, id, 0)
	if err == nil && a.Found {
		err = failed("of %q is found %q; want nothing", id, a.Value)
	}
	return err
}

// fill is a fill that begins now.
func (r *rig) fill(ctx context.Context, p *process, id, value string, tags ...string) (cache.Fill, error) {
	a, err := r.ask(ctx, p, id, 0)
	return cache.Fill{Key: r.key(id), Mark: a.Mark, Stamp: a.Stamp, Value: []byte(value), Tags: tags, Fresh: long, Keep: long}, err
}

// land fills, and expects it to be kept or not.
func (r *rig) land(ctx context.Context, p *process, f cache.Fill, want bool) error {
	kept, err := p.Fill(ctx, r.name, []cache.Fill{f})
	if err != nil {
		return failed("Fill: %w", err)
	}
	if len(kept) != 1 || kept[0] != want {
		return failed("a fill of %q with %q is kept: %v; want %v", f.Key.ID, f.Value, kept, want)
	}
	return nil
}

// put fills a key.
func (r *rig) put(ctx context.Context, p *process, id, value string, tags ...string) error {
	f, err := r.fill(ctx, p, id, value, tags...)
	if err != nil {
		return err
	}
	return r.land(ctx, p, f, true)
}

// kinds are an invalidation of each kind that concerns the key "k" with the tag "tag".
func (r *rig) kinds() []cache.Invalidation {
	return []cache.Invalidation{
		{Kind: cache.OfKey, Scope: r.scope, ID: "k"},
		{Kind: cache.OfTag, Scope: r.scope, ID: "tag"},
		{Kind: cache.OfScope, Scope: r.scope},
		{Kind: cache.OfAll},
	}
}

func (r *rig) invalidate(ctx context.Context, p *process, what ...cache.Invalidation) error {
	if err := p.Invalidate(ctx, r.name, what); err != nil {
		return failed("Invalidate: %w", err)
	}
	return nil
}

// until waits for something that comes within bound.
func until(what string, ok func() bool) error {
	for begun := time.Now(); !ok(); {
		if time.Since(begun) > bound {
			return failed("%s: not within %v", what, bound)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func failed(format string, args ...any) error { return fmt.Errorf(format, args...) }

// all is the first error of several steps.
func all(steps ...error) error { return errors.Join(steps...) }
