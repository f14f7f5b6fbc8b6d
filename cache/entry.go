package cache

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// entry is what memory keeps of a key. Its times are sinceBegan.
type entry[V any] struct {
	value V
	err   error // an ErrNotFound

	until int64        // it is fresh till then
	swr   int64        // it may be served while it is loaded again, till then
	sie   int64        // it may be served if that fails, till then
	grace int64        // it may be served without a lease, till then
	retry atomic.Int64 // it is not loaded again before

	lease   *Lease
	mark    Mark
	version Version
	name    Key
	tags    []string
	weight  uint32
}

// trusted says whether no invalidation can have been missed.
func (e *entry[V]) trusted(now, lag int64) bool {
	return now < e.grace || e.lease != nil && e.lease.holds(now, lag)
}

func (e *entry[V]) fresh(now, lag int64) bool { return now < e.until && e.trusted(now, lag) }

// What an entry takes besides its value, about: itself and its node in otter; being found by its name, with a Remote; each tag besides its text, if no other entry has it.
const (
	place  = 310
	named  = 290
	tagged = 510
)

// after is a time that may be for ever.
func after(now int64, d time.Duration) int64 {
	if int64(d) > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + int64(d)
}

// ttl is how long what was loaded now is fresh, less the jitter.
func (c *Cache[K, V]) ttl(notFound bool) time.Duration {
	ttl := c.cfg.TTL
	if notFound {
		ttl = c.cfg.NegativeTTL
	}
	if cut := time.Duration(c.cfg.Jitter * float64(ttl)); cut > 0 {
		ttl -= rand.N(cut)
	}
	return ttl
}

// entry makes one of a value that was true at a time, when its load or its question to the Remote began, stays fresh for a while after that, and is kept for rest.
func (c *Cache[K, V]) entry(f *flight[K, V], v V, err error, at int64, fresh, rest time.Duration) *entry[V] {
	e := &entry[V]{value: v, err: err, until: after(at, fresh), lease: f.lease, mark: f.mark, name: f.name, grace: math.MaxInt64}
	if limit := after(at, c.cfg.LocalTTL); limit < e.until {
		e.until = limit // what comes then is the Remote's to say
	} else if err == nil {
		end := after(at, rest)
		e.swr, e.sie = min(end, after(e.until, c.cfg.StaleWhileRevalidate)), min(end, after(e.until, c.cfg.StaleIfError))
	}
	if c.cfg.Remote != nil {
		e.grace = after(at, c.cfg.MaxLag)
	}
	if c.cfg.Tags != nil {
		e.tags = c.cfg.Tags(f.key, v)
	}
	if c.cfg.UpdatedAt != nil && err == nil {
		e.version = version(c.cfg.UpdatedAt(v))
	}
	return e
}

// weigh is how much of MaxBytes e takes. encoded is the length of its encoding, if that is known.
func (c *Cache[K, V]) weigh(key K, e *entry[V], encoded int) {
	if c.cfg.MaxBytes == 0 {
		return
	}
	size := 0
	switch {
	case e.err != nil:
	case c.cfg.SizeOf != nil:
		size = c.cfg.SizeOf(key, e.value)
	case encoded > 0:
		size = encoded
	default:
		b, err := c.cfg.Encode(e.value)
		if err != nil {
			c.cfg.Logger.Warn("cache: the value does not encode, and is taken for small: set Config.SizeOf", "cache", c.cfg.Name, "key", e.name, "error", err)
		}
		size = len(b)
	}
	for _, t := range e.tags {
		size += len(t) + tagged
	}
	if c.index.names != nil {
		size += named
	}
	e.weight = uint32(min(place+len(e.name.Scope)+len(e.name.ID)+max(size, 0), math.MaxUint32))
}

// index finds the entries in memory that an invalidation concerns. Its lock is taken under otter's, and never the other way round.
type index[K comparable, V any] struct {
	mu    sync.Mutex
	names map[Key]held[K, V] // nil without a Remote: only that knows entries by name
	tags  map[Key]map[K]*entry[V]
}

type held[K comparable, V any] struct {
	key K
	e   *entry[V]
}

func (x *index[K, V]) add(key K, e *entry[V]) {
	if x.names == nil && len(e.tags) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names != nil {
		x.names[e.name] = held[K, V]{key, e}
	}
	for _, t := range e.tags {
		t := Key{e.name.Scope, t}
		if x.tags[t] == nil {
			x.tags[t] = make(map[K]*entry[V], 1)
		}
		x.tags[t][key] = e
	}
}

// remove takes e out, where nothing has taken its place.
func (x *index[K, V]) remove(key K, e *entry[V]) {
	if x.names == nil && len(e.tags) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names[e.name].e == e {
		delete(x.names, e.name)
	}
	for _, t := range e.tags {
		t := Key{e.name.Scope, t}
		if of := x.tags[t]; of[key] == e {
			if delete(of, key); len(of) == 0 {
				delete(x.tags, t)
			}
		}
	}
}

func (x *index[K, V]) named(name Key) (held[K, V], bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h, ok := x.names[name]
	return h, ok
}

func (x *index[K, V]) tagged(t Key) []held[K, V] {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]held[K, V], 0, len(x.tags[t]))
	for k, e := range x.tags[t] {
		out = append(out, held[K, V]{k, e})
	}
	return out
}
