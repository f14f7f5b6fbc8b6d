package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Stale says what is no longer true.
type Stale[K comparable] struct {
	Keys []K
	// UpdatedAt is when what Keys name was changed, by the word of its source. With Config.UpdatedAt, loads that return something older are not kept: the source's replica may lag behind its webhooks. Zero means that
	// any may be kept.
	UpdatedAt time.Time

	Scope string   // of Tags
	Tags  []string // all entries with one of them
}

// Invalidate makes entries untrue: when it returns, no Get of this process that begins later returns what was loaded before it began, and none of another process from the Remote; from their memory, they do so at most for the time
// that a message takes, and Config.MaxLag if it gets lost. Loads that are under way keep nothing.
//
// Its error says that the Remote was not reached: this process does not serve the old values, others may. Call it again until it succeeds; a handler that returns the error to its queue does.
func (c *Cache[K, V]) Invalidate(ctx context.Context, keys ...K) error {
	return c.InvalidateStale(ctx, Stale[K]{Keys: keys})
}

// InvalidateTags is Invalidate for all entries of a scope that have one of tags.
func (c *Cache[K, V]) InvalidateTags(ctx context.Context, scope string, tags ...string) error {
	return c.InvalidateStale(ctx, Stale[K]{Scope: scope, Tags: tags})
}

// InvalidateStale is Invalidate for all that what names.
func (c *Cache[K, V]) InvalidateStale(ctx context.Context, what Stale[K]) error {
	all := make([]Invalidation, 0, len(what.Keys)+len(what.Tags))
	for _, key := range what.Keys {
		name := c.keyOf(key)
		inv := Invalidation{Kind: OfKey, Scope: name.Scope, ID: name.ID}
		if c.floors != nil {
			inv.Version = version(what.UpdatedAt)
		}
		all = append(all, inv)
	}
	if len(what.Tags) > 0 && c.cfg.Tags == nil {
		return fmt.Errorf("cache: %s: invalidate tags %q: no entry has one, Config.Tags is nil", c.cfg.Name, what.Tags)
	}
	for _, t := range what.Tags {
		all = append(all, Invalidation{Kind: OfTag, Scope: what.Scope, ID: t})
	}
	return c.invalidate(ctx, all, what.Keys, nil)
}

// InvalidateScope is Invalidate for all entries of a scope, e.g. of a shop.
func (c *Cache[K, V]) InvalidateScope(ctx context.Context, scope string) error {
	return c.invalidate(ctx, []Invalidation{{Kind: OfScope, Scope: scope}}, nil, nil)
}

// InvalidateAll is Invalidate for all entries.
func (c *Cache[K, V]) InvalidateAll(ctx context.Context) error {
	return c.invalidate(ctx, []Invalidation{{Kind: OfAll}}, nil, nil)
}

// Purge is InvalidateScope after which nothing of the scope is stored in the Remote or in this process; in others it is gone when they are told. It is for shop/redact.
func (c *Cache[K, V]) Purge(ctx context.Context, scope string) error {
	return c.invalidate(ctx, []Invalidation{{Kind: OfScope, Scope: scope}}, nil, func(ctx context.Context) error { return c.cfg.Remote.Purge(ctx, c.cfg.Name, scope) })
}

// invalidate takes what is invalid out of memory, has the Remote do the same for all, and takes out what was read from there in between. keys are those that what names; purge, if it is there, is how the Remote does it.
func (c *Cache[K, V]) invalidate(ctx context.Context, what []Invalidation, keys []K, purge func(context.Context) error) error {
	if len(what) == 0 {
		return nil
	}
	c.counts.invalidations.Add(1)
	c.dropAll(what, keys)
	if c.cfg.Remote == nil {
		return nil
	}
	if purge == nil {
		purge = func(ctx context.Context) error { return c.cfg.Remote.Invalidate(ctx, c.cfg.Name, what) }
	}
	err := purge(ctx) // it has called notice if it returns nil
	if err == nil {
		return nil
	}
	c.dropAll(what, keys)
	c.remoteFailed("invalidate", err)
	return fmt.Errorf("cache: %s: invalidate: this process has, others may not have: %w", c.cfg.Name, err)
}

func (c *Cache[K, V]) dropAll(what []Invalidation, keys []K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, inv := range what {
		c.invalid(Notice{Invalidation: inv})
	}
	for _, key := range keys { // the index has names only if there is a Remote
		c.forget(key)
	}
}

// notice is told of by the Remote.
func (c *Cache[K, V]) notice(n Notice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.notices.Add(1)
	c.invalid(n)
}

// forget takes a key out of memory, whatever its mark.
func (c *Cache[K, V]) forget(key K) {
	if c.local != nil {
		c.local.Invalidate(key)
	}
}

// invalid takes out of memory what n concerns, and voids the flights that it does. Without a Mark that is whatever began before now.
func (c *Cache[K, V]) invalid(n Notice) {
	switch n.Kind {
	case OfKey:
		name := Key{n.Scope, n.ID}
		if c.floors != nil {
			switch floor, _ := c.floors.GetIfPresent(name); {
			case n.Version == 0:
				c.floors.Invalidate(name)
			case n.Version > floor:
				c.floors.Set(name, n.Version)
			}
		}
		if h, ok := c.index.named(name); ok {
			c.evict(h, n.Mark)
		}
		if f := c.flights[name]; f != nil {
			c.void(f, n.Mark)
		}
	case OfTag:
		t := Key{n.Scope, n.ID}
		for _, h := range c.index.tagged(t) {
			c.evict(h, n.Mark)
		}
		if len(c.flights) > 0 {
			c.told.add(t, n.Mark)
		}
		for name, f := range c.flights {
			if name.Scope == n.Scope && !f.read && n.Mark != (Mark{}) && !f.told.Covers(n.Mark) {
				f.told = n.Mark // which its answer has to cover
			}
		}
	case OfScope, OfAll:
		if c.local != nil {
			var all []held[K, V]
			for key, e := range c.local.All() {
				if n.Kind == OfAll || e.name.Scope == n.Scope {
					all = append(all, held[K, V]{key, e})
				}
			}
			for _, h := range all {
				c.evict(h, n.Mark)
			}
		}
		for name, f := range c.flights {
			if n.Kind == OfAll || name.Scope == n.Scope {
				c.void(f, n.Mark)
			}
		}
	default:
	}
}

// evict takes an entry out that does not know of an invalidation.
func (c *Cache[K, V]) evict(h held[K, V], mark Mark) {
	if !h.e.mark.Covers(mark) {
		c.forget(h.key)
	}
}

// void ends what a flight may do: nobody joins it any more, and it keeps nothing.
func (c *Cache[K, V]) void(f *flight[K, V], mark Mark) {
	switch {
	case mark == Mark{} || f.read && !f.mark.Covers(mark):
		f.void = true
		delete(c.flights, f.name)
	case !f.read && !f.told.Covers(mark): // its answer will say whether it has come before
		f.told = mark
	}
}

// told is what tags were invalidated while flights are under way: which tags a value has is known when it is there.
type told struct {
	order uint64
	floor uint64 // flights that began before it may have missed something
	tags  map[Key]toldOf
	any   map[string]toldOf // by scope: of any tag
}

// toldOf is when a tag was last invalidated by this process, whatever the Remote says to it, and by the order of the Remote.
type toldOf struct {
	own    uint64
	marked uint64
	mark   Mark
}

func (of toldOf) and(order uint64, mark Mark) toldOf {
	switch {
	case mark == Mark{}:
		of.own = order
	case of.marked == 0 || !of.mark.Covers(mark): // it may be told late, after a later one
		of.marked, of.mark = order, mark
	}
	return of
}

// since says whether a flight that began at order, and read at mark if that is not zero, is concerned.
func (of toldOf) since(order uint64, mark Mark) bool {
	return of.own > order || of.marked > order && !mark.Covers(of.mark)
}

func (t *told) add(name Key, mark Mark) {
	if t.tags == nil || len(t.tags) >= maxTold {
		if t.tags != nil {
			t.floor = t.order + 1 // what was told so far concerns all that began before
		}
		t.tags, t.any = map[Key]toldOf{}, map[string]toldOf{}
	}
	t.order++
	t.tags[name] = t.tags[name].and(t.order, mark)
	t.any[name.Scope] = t.any[name.Scope].and(t.order, mark)
}

// maxTold is how many tags are remembered.
const maxTold = 10_000

func (t *told) forget() { t.tags, t.any, t.floor = nil, nil, 0 }

// concerns says whether something with these tags, whose flight began at order, was invalidated since.
func (t *told) concerns(order uint64, mark Mark, scope string, tags []string) bool {
	if len(tags) > 0 && order < t.floor {
		return true
	}
	return slices.ContainsFunc(tags, func(text string) bool { return t.tags[Key{scope, text}].since(order, mark) })
}

// InvalidateOn makes a handler that invalidates the key that keyOf finds in its input, and then runs next; nil for none. A failed invalidation is its error, and next is not run, so that a queue tries again. It works before the
// backlog, around a webhook's sink, and in a worker.
//
//	enqueue.Handle(mux, "products/update", cache.InvalidateOn(products, productKey, syncProduct))
func InvalidateOn[K comparable, V, T any](c *Cache[K, V], keyOf func(in T) K, next func(ctx context.Context, in T) error) func(ctx context.Context, in T) error {
	return InvalidateBy(c, func(in T) (Stale[K], error) { return Stale[K]{Keys: []K{keyOf(in)}}, nil }, next)
}

// InvalidateBy is InvalidateOn for inputs that say more: several keys, tags, when it was changed. An error of whatOf is the handler's; ErrIgnore is none, and next runs at once.
func InvalidateBy[K comparable, V, T any](c *Cache[K, V], whatOf func(in T) (Stale[K], error), next func(ctx context.Context, in T) error) func(ctx context.Context, in T) error {
	return func(ctx context.Context, in T) error {
		what, err := whatOf(in)
		if err == nil {
			err = c.InvalidateStale(ctx, what)
		}
		if err != nil && !errors.Is(err, ErrIgnore) {
			return err
		}
		if next == nil {
			return nil
		}
		return next(ctx, in)
	}
}
