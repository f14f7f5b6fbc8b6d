package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// flight is the load of a key that callers wait for together: a lease. Whatever invalidates the key takes it out of Cache.flights and voids it; it can put nothing into a tier then.
type flight[K comparable, V any] struct {
	key   K
	name  Key
	began int64
	anew  bool // what is in memory may be too old
	asks  int

	// Set by the Remote's answer.
	mark  Mark
	lease *Lease
	claim uint64
	stamp uint64
	stale *entry[V] // what the Remote had

	// Under Cache.mu.
	refresh bool   // nobody waits: there is something stale that is served meanwhile
	asked   bool   // it has put its question to the Remote
	read    bool   // the Remote has answered: mark is known
	told    Mark   // the latest notice that came before
	order   uint64 // what had been told of tags when it began
	void    bool
	alone   bool // another has taken its place: nobody can tell it what becomes invalid, and it keeps nothing in memory
	over    bool

	done chan struct{}
	out  *entry[V]
	err  error
}

// retryAfter is how long what is stale is served after a load failed, before another is tried.
const retryAfter = time.Second

// join finds what to do for a key that is not fresh in memory: take an entry that may be served all the same, or wait for a flight, which is the caller's to run if it is a new one.
func (c *Cache[K, V]) join(ctx context.Context, key K, anew bool) (e *entry[V], f *flight[K, V], mine bool) {
	name := c.keyOf(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := sinceBegan()
	e = c.peek(key)
	switch {
	case anew || e == nil || !e.trusted(now, c.lag):
		e = nil
	case now < e.until:
		c.counts.hit()
		return e, nil, false
	case now < e.retry.Load() && now < max(e.swr, e.sie):
		c.counts.stale.Add(1)
		return e, nil, false
	case now < e.swr:
		c.counts.stale.Add(1)
	default:
		e = nil
	}
	f = c.flights[name]
	if f != nil && (!anew || !f.asked && !f.read) && c.current(f, now) {
		f.anew = f.anew || anew
		if e == nil {
			f.refresh = false
			c.counts.shared.Add(1)
		}
		return e, f, false
	}
	if e == nil && ctx.Err() != nil {
		return nil, &flight[K, V]{name: name, done: make(chan struct{})}, false // it waits for nothing
	}
	f = &flight[K, V]{key: key, name: name, anew: anew, began: now, order: c.told.order, refresh: e != nil, done: make(chan struct{})}
	if old := c.flights[name]; old != nil {
		old.alone = true
	}
	c.flights[name] = f
	return e, f, true
}

// current says whether what a flight brings is as good as what one that began now would: no invalidation can have been missed since, and none was of a tag that its value may have.
func (c *Cache[K, V]) current(f *flight[K, V], now int64) bool {
	if told := f.read && f.lease != nil && f.lease.holds(now, c.lag); !told && now-f.began >= c.lag {
		return false
	}
	mark := f.mark
	if !f.read {
		mark = f.told // which its answer will cover
	}
	return f.order >= c.told.floor && !c.told.any[f.name.Scope].since(f.order, mark)
}

// wait waits for a flight, as long as its caller can.
func (c *Cache[K, V]) wait(ctx context.Context, f *flight[K, V]) (V, error) {
	select {
	case <-f.done:
	default:
		select {
		case <-f.done:
		case <-ctx.Done():
			var none V
			return none, &keyError{c.cfg.Name, f.name, fmt.Errorf("waiting for its load: %w", context.Cause(ctx))}
		}
	}
	if f.err != nil {
		var none V
		return none, f.err
	}
	return c.out(f.out)
}

// fallback is what may be served though a load has failed that was not to look at it.
func (c *Cache[K, V]) fallback(key K) *entry[V] {
	if e := c.peek(key); e != nil && e.trusted(sinceBegan(), c.lag) && sinceBegan() < e.sie {
		c.counts.stale.Add(1)
		return e
	}
	return nil
}

// finish ends a flight for those who wait, once.
func (c *Cache[K, V]) finish(f *flight[K, V], out *entry[V], err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(f, out, err)
}

func (c *Cache[K, V]) end(f *flight[K, V], out *entry[V], err error) {
	if f.over {
		return
	}
	f.over, f.out = true, out
	if err != nil {
		f.err = &keyError{c.cfg.Name, f.name, err}
	}
	if c.flights[f.name] == f {
		delete(c.flights, f.name)
	}
	if len(c.flights) == 0 {
		c.told.forget()
	}
	close(f.done)
}

// run brings flights to their end. ctx is that of whoever wants them: its values are the loads', its end is not.
func (c *Cache[K, V]) run(ctx context.Context, fs []*flight[K, V]) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), c.cfg.LoadTimeout, timeoutError{fmt.Errorf("%w: over %v", ErrLoadTimeout, c.cfg.LoadTimeout)})
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		for _, f := range fs {
			c.failed(f, context.Cause(ctx))
		}
	})
	defer stop()
	missing := fs
	if c.cfg.Remote != nil && !fs[0].read {
		missing = nil
		c.guard(fs, func() { missing = c.ask(ctx, fs) })
	}
	c.guard(missing, func() { c.loadAll(ctx, missing) }) // the others may be another goroutine's now
}

// ask settles what the Remote knows, and returns what has to be loaded.
func (c *Cache[K, V]) ask(ctx context.Context, fs []*flight[K, V]) (missing []*flight[K, V]) {
	begin := time.Now()
	for pause := 5 * time.Millisecond; ; pause = min(pause*3/2, 100*time.Millisecond) {
		keys := make([]Key, len(fs))
		for i, f := range fs {
			keys[i] = f.name
		}
		c.mu.Lock()
		for _, f := range fs {
			f.asked = true
		}
		c.mu.Unlock()
		read := sinceBegan()
		answers, err := c.cfg.Remote.Get(ctx, c.cfg.Name, keys, c.cfg.Fleet)
		if err != nil {
			c.remoteFailed("get", err)
			return append(missing, fs...)
		}
		var again []*flight[K, V]
		wait := time.Duration(0)
		for i, f := range fs {
			a := &answers[i]
			if !c.answered(ctx, f, a) {
				again = append(again, f)
				continue
			}
			switch {
			case c.take(ctx, f, a, read):
			case a.Busy > 0 && c.leave(f):
			case a.Busy > 0 && time.Since(begin) < c.cfg.Fleet+time.Second:
				c.unread(f)
				again, wait = append(again, f), pause/2+rand.N(pause)
			default:
				missing = append(missing, f)
			}
		}
		switch {
		case len(again) == 0:
			return missing
		case len(missing) > 0: // what others load must not keep what is ours waiting
			go c.run(ctx, again)
			return missing
		}
		fs = again
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil // the flights have ended
		}
	}
}

// unread has a flight wait for another answer: what is invalidated until then is in that.
func (c *Cache[K, V]) unread(f *flight[K, V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.read, f.told = false, Mark{}
}

// leave ends a flight that nobody waits for: another process loads the key.
func (c *Cache[K, V]) leave(f *flight[K, V]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.refresh {
		return false
	}
	if e := c.peek(f.key); e != nil {
		e.retry.Store(after(sinceBegan(), lookAgain))
	}
	c.end(f, nil, errors.New("another process loads it"))
	return true
}

// lookAgain is how soon it is looked whether another process has loaded what is stale.
const lookAgain = 100 * time.Millisecond

// maxAsks is how often a flight whose key is invalidated all the time asks for an answer that is newer than that.
const maxAsks = 5

// answered notes an answer, if it is newer than what was told of the key meanwhile.
func (c *Cache[K, V]) answered(ctx context.Context, f *flight[K, V], a *Answer) bool {
	c.mu.Lock()
	current := f.told == Mark{} || a.Mark.Covers(f.told)
	f.asks++
	f.void = f.void || !current && f.asks >= maxAsks
	void, taken := f.void, current || f.void
	if taken {
		f.read, f.mark, f.lease, f.claim, f.stamp = true, a.Mark, a.Lease, a.Claim, a.Stamp
	}
	c.mu.Unlock()
	if void {
		a.Found = false
	}
	if !taken && a.Claim != 0 {
		c.fill(ctx, []Fill{{Key: f.name, Claim: a.Claim, Drop: true}})
	}
	return taken
}

// take ends a flight with what the Remote has of its key, if it has. What is stale and may be served is renewed by another flight.
func (c *Cache[K, V]) take(ctx context.Context, f *flight[K, V], a *Answer, read int64) bool {
	if !a.Found {
		return false
	}
	var v V
	var err error
	if a.NotFound {
		err = &keyError{c.cfg.Name, f.name, ErrNotFound}
	} else if v, err = c.decode(f.name, a.Value); err != nil {
		return false
	}
	e := c.entry(f, v, err, read, a.Fresh, a.Rest)
	c.weigh(f.key, e, len(a.Value))
	if a.Fresh > 0 {
		c.counts.remoteHits.Add(1)
		c.put(f, e)
		c.finish(f, e, nil)
		return true
	}
	c.mu.Lock()
	now := sinceBegan()
	f.stale = e
	if serve := !f.refresh && !f.void && now < e.swr; !serve {
		c.mu.Unlock()
		return false
	}
	c.counts.stale.Add(1)
	c.keepIn(f, e)
	c.end(f, e, nil)
	renew := a.Busy == 0 && c.flights[f.name] == nil
	next := &flight[K, V]{key: f.key, name: f.name, began: now, order: c.told.order, refresh: true, done: make(chan struct{}), read: true, mark: f.mark, lease: f.lease, claim: f.claim, stamp: f.stamp}
	if renew {
		c.flights[f.name] = next
	}
	c.mu.Unlock()
	if renew {
		go c.run(ctx, []*flight[K, V]{next}) // until its load returns
	} else {
		c.drop(ctx, f)
	}
	return true
}

// failed ends a flight whose load brought nothing: with what is stale, if that may be served.
func (c *Cache[K, V]) failed(f *flight[K, V], err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.over {
		return
	}
	now := sinceBegan()
	e := c.peek(f.key)
	if f.anew || e == nil || now >= e.sie || !e.trusted(now, c.lag) {
		e = f.stale
		if e != nil && (now >= e.sie || !c.keepIn(f, e)) {
			e = nil
		}
	}
	if e == nil {
		c.end(f, nil, err)
		return
	}
	e.retry.Store(after(now, retryAfter))
	c.counts.staleErrors.Add(1)
	c.end(f, e, nil)
}

// put keeps an entry in memory, unless something has invalidated it since its flight began.
func (c *Cache[K, V]) put(f *flight[K, V], e *entry[V]) {
	c.mu.Lock()
	refused := !f.over && !f.alone && !c.keepIn(f, e)
	c.mu.Unlock()
	if refused {
		c.refused(f)
	}
}

// keepIn says whether nothing has invalidated e since its flight began. If so, it keeps it in memory.
func (c *Cache[K, V]) keepIn(f *flight[K, V], e *entry[V]) bool {
	if f.void || f.alone || f.over || c.told.concerns(f.order, e.mark, e.name.Scope, e.tags) || c.outdated(f.key, e) {
		return false
	}
	if c.local != nil {
		c.index.add(f.key, e)
		c.local.Set(f.key, e)
	}
	return true
}

// outdated says whether something newer than e is known.
func (c *Cache[K, V]) outdated(key K, e *entry[V]) bool {
	if c.floors == nil {
		return false
	}
	floor, _ := c.floors.GetIfPresent(e.name)
	there := c.peek(key)
	return e.version < floor || e.err == nil && there != nil && e.version < there.version && sinceBegan() < max(there.until, there.swr, there.sie)
}
