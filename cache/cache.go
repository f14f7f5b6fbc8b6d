package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"
)

const (
	// Never as Config.NegativeTTL does not remember what does not exist.
	Never time.Duration = -1

	defaultEntries = 10_000
	// longest is a setting's most, so that sums of them don't overflow.
	longest = 365 * 24 * time.Hour
)

// Config tunes a Cache. The zero value is valid for keys that are strings or integers, or have a CacheKey method.
type Config[K comparable, V any] struct {
	// Name is the cache's in its Remote, in errors and logs. A Remote needs one, and keeps caches of different names apart.
	Name string
	// Key is the Key of a key: who owns it (the shop), and what it is. nil takes K's CacheKey method, or a string or integer as the ID. Keys that differ must have Keys that differ, and
	// each must equal itself: a NaN does not.
	Key func(key K) Key
	// Tags are the names by which an entry can be invalidated besides its key, within its scope, 1,000 at most over rediscache: a variant's product, a product's collections. For what does not exist it is called with the zero V.
	Tags func(key K, value V) []string
	// UpdatedAt is when a value was last changed, by the word of its source (Shopify's updated_at). With it an invalidation that carries a time keeps older values out, and an older load does not replace a newer
	// one. A zero time is the oldest.
	UpdatedAt func(value V) time.Time

	// TTL is how long a value is fresh, from when its load began; 0 means 5 min.
	TTL time.Duration
	// LocalTTL is how long it is taken from this process's memory without a look at the Remote; 0 means TTL. It never outlives what is left in the Remote.
	LocalTTL time.Duration
	// Jitter is the share of TTL and NegativeTTL by which they are cut at random, so that what was loaded together does not end together; 0 means 0.1, less than 1; negative cuts nothing.
	Jitter float64
	// NegativeTTL is how long it is remembered that something does not exist (ErrNotFound); 0 means 10 s, or TTL if that is less. Never does not.
	NegativeTTL time.Duration
	// StaleWhileRevalidate is for how long after TTL a value is still served while it is loaded again in the background; 0 means that it is not.
	StaleWhileRevalidate time.Duration
	// StaleIfError is for how long after TTL a value is served if its load fails; 0 means that it is not. After a failure the next load comes a second later at the earliest, where the value is in memory.
	StaleIfError time.Duration

	// LoadTimeout is how long a load may take, or all those of a GetMany together; 0 means 30 s. Its context ends then, and those who wait get ErrLoadTimeout, though it does not return; what it brings later is dropped.
	LoadTimeout time.Duration
	// LoadMany loads several keys at once, for GetMany; keys that are not in its result do not exist. nil loads one by one, 16 at once. It must return what the cache's loader does.
	LoadMany func(ctx context.Context, keys []K) (map[K]V, error)
	// MaxBatch is how many keys LoadMany gets at most; 0 means 250, which is the most IDs that Shopify takes in a list.
	MaxBatch int

	// MaxEntries bounds what is kept in memory; 0 means 10,000, if MaxBytes is 0 as well.
	MaxEntries int
	// MaxBytes bounds it by size instead: of each value as SizeOf says, about 310 bytes for its place, 290 more with a Remote, and 510 for each tag. Both at once is an error.
	MaxBytes int64
	// SizeOf is how many bytes a value takes in memory; nil takes the length of its encoding.
	SizeOf func(key K, value V) int
	// NoLocal keeps nothing in memory: each Get asks the Remote.
	NoLocal bool

	// Remote is the second tier, which processes share; nil for none. It keeps the Cache alive, which it tells of invalidations.
	Remote Remote
	// MaxLag bounds for how long after an invalidation by another process an old value may still be served from memory, whatever breaks; 0 means 5 s. In the normal course it is a message's way.
	MaxLag time.Duration
	// Fleet, if not 0, has a key loaded by one process at a time: for so long others wait for one that may have died, or serve what is stale. It should be longer than most loads take.
	Fleet time.Duration

	// Encode and Decode are for the Remote; nil means JSON, and []byte, json.RawMessage and string as they are. An entry that does not decode is a miss.
	Encode func(value V) ([]byte, error)
	Decode func(b []byte) (V, error)
	// Schema is the version of what Encode makes: entries of another are misses. Change it when V changes its meaning.
	Schema uint32

	// Clone copies a value for a caller who may change it; nil returns the same one to all, who must not.
	Clone func(value V) V

	// Hooks are told of loads and failures.
	Hooks Hooks
	// Logger gets failures of the Remote and of codecs; nil discards.
	Logger *slog.Logger
}

// Cache keeps what a loader brings. Make one for each kind of thing, and share it: it is safe for concurrent use. It starts nothing; loads run in goroutines of their own until they return or Config.LoadTimeout is over.
type Cache[K comparable, V any] struct {
	cfg    Config[K, V]
	load   func(ctx context.Context, key K) (V, error)
	keyOf  func(K) Key
	local  *otter.Cache[K, *entry[V]] // nil with NoLocal
	lag    int64                      // MaxLag; without a Remote, for ever
	keep   time.Duration              // how long after TTL an entry may be of use
	counts counts
	index  index[K, V]

	mu      sync.Mutex // held for all that changes what follows, and local
	flights map[Key]*flight[K, V]
	told    told
	floors  *otter.Cache[Key, Version] // nil without UpdatedAt: what is older is not kept
}

// New makes a Cache of what load returns. load gets a context with the values of the first caller who waits for it, that ends after Config.LoadTimeout and not with the caller; it returns ErrNotFound for what does not
// exist. It must not Get the same key of the same cache.
func New[K comparable, V any](load func(ctx context.Context, key K) (V, error), cfg Config[K, V]) (*Cache[K, V], error) {
	if load == nil {
		return nil, errors.New("cache: New: load is nil")
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	c := &Cache[K, V]{cfg: cfg, load: load, keyOf: cfg.Key, lag: math.MaxInt64, keep: max(cfg.StaleWhileRevalidate, cfg.StaleIfError), flights: map[Key]*flight[K, V]{}}
	c.counts.hits, c.index.tags = stats.NewCounter(), map[Key]map[K]*entry[V]{}
	if !cfg.NoLocal {
		options := &otter.Options[K, *entry[V]]{MaximumSize: cfg.MaxEntries, OnAtomicDeletion: func(e otter.DeletionEvent[K, *entry[V]]) { c.index.remove(e.Key, e.Value) }}
		if cfg.MaxBytes > 0 {
			options.MaximumWeight, options.Weigher = uint64(cfg.MaxBytes), func(_ K, e *entry[V]) uint32 { return e.weight }
		}
		c.local = otter.Must(options)
	}
	if cfg.UpdatedAt != nil {
		c.floors = otter.Must(&otter.Options[Key, Version]{MaximumSize: floors})
	}
	if cfg.Remote != nil {
		c.lag, c.index.names = int64(cfg.MaxLag), map[Key]held[K, V]{}
		if err := cfg.Remote.Watch(cfg.Name, cfg.MaxLag, c.notice); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// floors is how many keys' versions are remembered in the process.
const floors = 10_000

// complete puts the defaults in, and says what is wrong.
func (cfg *Config[K, V]) complete() (err error) {
	if cfg.Key == nil {
		if cfg.Key, err = keyFunc[K](); err != nil {
			return err
		}
	}
	switch {
	case cfg.Remote != nil && cfg.Name == "":
		return errors.New("cache: New: Config.Name is empty; a Remote keeps the entries of several caches, and needs it")
	case cfg.MaxEntries != 0 && cfg.MaxBytes != 0:
		return fmt.Errorf("cache: New: Config.MaxEntries is %d and Config.MaxBytes is %d; set one of them", cfg.MaxEntries, cfg.MaxBytes)
	case cfg.MaxEntries < 0:
		return fmt.Errorf("cache: New: Config.MaxEntries is %d; want 1 or more, 0 for the default", cfg.MaxEntries)
	case cfg.MaxBytes < 0:
		return fmt.Errorf("cache: New: Config.MaxBytes is %d; want 1 or more, 0 for a bound by entries", cfg.MaxBytes)
	case cfg.MaxBatch < 0:
		return fmt.Errorf("cache: New: Config.MaxBatch is %d; want 1 or more, 0 for the default", cfg.MaxBatch)
	case !(cfg.Jitter < 1): // so that NaN is refused too
		return fmt.Errorf("cache: New: Config.Jitter is %v; want less than 1, a share of TTL", cfg.Jitter)
	case (cfg.Encode == nil) != (cfg.Decode == nil):
		return errors.New("cache: New: Config.Encode or Config.Decode is nil; set both, or none")
	case cfg.NoLocal && cfg.Remote == nil:
		return errors.New("cache: New: Config.NoLocal is set and Config.Remote is not: nothing would be kept")
	case cfg.Fleet != 0 && cfg.Remote == nil:
		return fmt.Errorf("cache: New: Config.Fleet is %v and Config.Remote is not set: there is nothing to share a lease over", cfg.Fleet)
	}
	for _, d := range [...]struct {
		name     string
		v        *time.Duration
		zero     time.Duration
		negative bool // it may be Never
	}{
		{"TTL", &cfg.TTL, 5 * time.Minute, false},
		{"LocalTTL", &cfg.LocalTTL, cmp.Or(cfg.TTL, 5*time.Minute), false},
		{"NegativeTTL", &cfg.NegativeTTL, min(10*time.Second, cmp.Or(cfg.TTL, 10*time.Second)), true},
		{"StaleWhileRevalidate", &cfg.StaleWhileRevalidate, 0, false},
		{"StaleIfError", &cfg.StaleIfError, 0, false},
		{"LoadTimeout", &cfg.LoadTimeout, 30 * time.Second, false},
		{"MaxLag", &cfg.MaxLag, 5 * time.Second, false},
		{"Fleet", &cfg.Fleet, 0, false},
	} {
		if *d.v == 0 {
			*d.v = d.zero
		}
		if never := d.negative && *d.v == Never; *d.v < 0 && !never || *d.v > longest {
			return fmt.Errorf("cache: New: Config.%s is %v; want 0 to %v", d.name, *d.v, longest)
		}
	}
	switch {
	case cfg.MaxLag < 10*time.Millisecond:
		return fmt.Errorf("cache: New: Config.MaxLag is %v; want at least 10ms", cfg.MaxLag)
	case cfg.Fleet >= cfg.LoadTimeout:
		return fmt.Errorf("cache: New: Config.Fleet is %v; want less than LoadTimeout, %v, or who waits for a process that died has no time left to load", cfg.Fleet, cfg.LoadTimeout)
	case cfg.Remote == nil && cfg.LocalTTL < cfg.TTL:
		return fmt.Errorf("cache: New: Config.LocalTTL is %v, less than TTL, %v, and there is no Remote to ask then; set TTL", cfg.LocalTTL, cfg.TTL)
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxEntries = cmp.Or(cfg.MaxEntries, defaultEntries)
	}
	if cfg.Jitter == 0 {
		cfg.Jitter = 0.1
	}
	cfg.MaxBatch = cmp.Or(cfg.MaxBatch, 250)
	if cfg.Encode == nil {
		cfg.Encode, cfg.Decode = encode[V], decode[V]
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func encode[V any](v V) ([]byte, error) {
	switch v := any(v).(type) {
	case []byte:
		return v, nil
	case json.RawMessage:
		return v, nil
	case string:
		return []byte(v), nil
	default:
		return json.Marshal(v)
	}
}

func decode[V any](b []byte) (v V, err error) {
	switch p := any(&v).(type) {
	case *[]byte:
		*p = b
	case *json.RawMessage:
		*p = b
	case *string:
		*p = string(b)
	default:
		err = json.Unmarshal(b, &v)
	}
	return v, err
}

// Get returns the value of key: from memory, from the Remote, or by one load for all who wait. Without Config.Clone all callers get the same value, and must not change it.
//
// Its error is the load's, which several callers may get; ErrNotFound, if that was remembered; ErrLoadTimeout, a *PanicError or ErrLoadExited; or that of ctx, if the caller can't wait any longer. The load goes on then, for others
// and for the cache. Each names the cache and the key.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	if e := c.peek(key); e != nil && e.fresh(sinceBegan(), c.lag) {
		c.counts.hit()
		return c.out(e)
	}
	return c.slow(ctx, key, false)
}

// peek is what stands in memory.
func (c *Cache[K, V]) peek(key K) *entry[V] {
	if c.local == nil {
		return nil
	}
	e, _ := c.local.GetIfPresent(key)
	return e
}

// out is what a caller gets of an entry.
func (c *Cache[K, V]) out(e *entry[V]) (V, error) {
	if e.err != nil || c.cfg.Clone == nil {
		return e.value, e.err
	}
	return c.cfg.Clone(e.value), nil
}

// GetRemote is Get without this process's memory: it asks the Remote, or loads. It is for a handler behind a queue: the invalidation that came before its job may have been made by another process, whose message is still on its way, and what the
// handler writes elsewhere would stay old.
func (c *Cache[K, V]) GetRemote(ctx context.Context, key K) (V, error) { return c.slow(ctx, key, true) }

func (c *Cache[K, V]) slow(ctx context.Context, key K, anew bool) (V, error) {
	e, f, mine := c.join(ctx, key, anew)
	if mine {
		go c.run(ctx, []*flight[K, V]{f}) // until the load returns
	}
	if e != nil {
		return c.out(e)
	}
	v, err := c.wait(ctx, f)
	if err != nil && f.anew && !anew {
		if e := c.fallback(key); e != nil {
			return c.out(e)
		}
	}
	return v, err
}

// GetMany returns the values of keys, what is missing in one question to the Remote and in as few calls of Config.LoadMany as it takes. Keys that do not exist are not in the result. If some fail, the error joins theirs, and
// the others are there.
func (c *Cache[K, V]) GetMany(ctx context.Context, keys []K) (map[K]V, error) {
	out := make(map[K]V, len(keys))
	var errs []error
	add := func(key K, v V, err error) {
		switch {
		case err == nil:
			out[key] = v
		case !errors.Is(err, ErrNotFound):
			errs = append(errs, err)
		}
	}
	waits := map[K]*flight[K, V]{}
	var own []*flight[K, V]
	for _, key := range keys {
		if _, twice := out[key]; twice || waits[key] != nil {
			continue
		}
		if e := c.peek(key); e != nil && e.fresh(sinceBegan(), c.lag) {
			c.counts.hit()
			v, err := c.out(e)
			add(key, v, err)
			continue
		}
		e, f, mine := c.join(ctx, key, false)
		if mine {
			own = append(own, f)
		}
		if e != nil {
			v, err := c.out(e)
			add(key, v, err)
			continue
		}
		waits[key] = f
	}
	if len(own) > 0 {
		go c.run(ctx, own) // until its loads return
	}
	for key, f := range waits {
		v, err := c.wait(ctx, f)
		add(key, v, err)
	}
	return out, errors.Join(errs...)
}
