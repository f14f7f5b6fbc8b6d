package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	gocache "github.com/go-redis/cache/v9"
	"github.com/jellydator/ttlcache/v3"
	"github.com/maypok86/otter/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"
	"github.com/viccon/sturdyc"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/rediscache"
)

const (
	cacheTTL     = time.Hour // longer than any part takes
	cacheEntries = 10_000    // that a first tier holds, as ours does by default
	cacheFleet   = 5 * time.Second
	cacheTag     = "collection/472834919"

	sturdyShards  = 10 // as in its documentation
	sturdyPercent = 10
)

// loader is what a contender calls for what it does not have.
type loader[K comparable] = func(ctx context.Context, key K) ([]byte, error)

// process is the cache of a contender in one process.
type process[K comparable] struct {
	get  func(ctx context.Context, key K) ([]byte, error)
	drop func(ctx context.Context, key K) error // as a webhook would

	hits func() uint64 // answers of the tier that is measured, where it counts them
	size func() int    // entries in memory, where that is asked
}

// opener makes a process.
type opener[K comparable] func(load loader[K]) (process[K], error)

// caching is a contender.
type caching struct {
	name string
	open opener[string]
}

// openOurs makes caches with what cfg says; the rest is at its defaults.
func openOurs[K comparable](cfg cache.Config[K, []byte]) opener[K] {
	return func(load loader[K]) (process[K], error) {
		cfg := cfg
		cfg.TTL = cacheTTL
		c, err := cache.New(load, cfg)
		if err != nil {
			return process[K]{}, err
		}
		return process[K]{
			get:  c.Get,
			drop: func(ctx context.Context, key K) error { return c.Invalidate(ctx, key) },
			size: func() int { return c.Stats().Entries },
			hits: func() uint64 {
				if cfg.NoLocal {
					return c.Stats().RemoteHits
				}
				return c.Stats().Hits
			},
		}, nil
	}
}

// store is the second tier of a process, with a client of its own.
func (b *cacheBench) store() *rediscache.Store {
	s := rediscache.New(b.client(), rediscache.Config{Timeout: b.timeout})
	b.ends = append(b.ends, s.Close)
	return s
}

// over makes a process of ours with a second tier.
func (b *cacheBench) over(cfg cache.Config[string, []byte]) opener[string] {
	return func(load loader[string]) (process[string], error) {
		cfg := cfg
		cfg.Remote = b.store()
		return openOurs(cfg)(load)
	}
}

func newOtter[K comparable](entries int) *otter.Cache[K, []byte] {
	return otter.Must(&otter.Options[K, []byte]{MaximumSize: entries, ExpiryCalculator: otter.ExpiryWriting[K, []byte](cacheTTL)})
}

func otterProcess[K comparable](c *otter.Cache[K, []byte], get loader[K]) process[K] {
	return process[K]{get: get, size: c.EstimatedSize, drop: func(_ context.Context, key K) error {
		c.Invalidate(key)
		return nil
	}}
}

// openRawOtter looks, loads and sets: nothing else than its map is in a hit.
func openRawOtter[K comparable](entries int) opener[K] {
	return func(load loader[K]) (process[K], error) {
		c := newOtter[K](entries)
		return otterProcess(c, func(ctx context.Context, key K) ([]byte, error) {
			if v, ok := c.GetIfPresent(key); ok {
				return v, nil
			}
			v, err := load(ctx, key)
			if err == nil {
				c.Set(key, v)
			}
			return v, err
		}), nil
	}
}

// openOtter has otter load.
func openOtter(load loader[string]) (process[string], error) {
	c, loader := newOtter[string](cacheEntries), otter.LoaderFunc[string, []byte](load)
	return otterProcess(c, func(ctx context.Context, key string) ([]byte, error) { return c.Get(ctx, key, loader) }), nil
}

func sturdyProcess(c *sturdyc.Client[[]byte], get loader[string]) process[string] {
	return process[string]{get: get, drop: func(_ context.Context, key string) error {
		c.Delete(key)
		return nil
	}}
}

func newSturdyc() *sturdyc.Client[[]byte] {
	return sturdyc.New[[]byte](cacheEntries, sturdyShards, cacheTTL, sturdyPercent, sturdyc.WithNoContinuousEvictions())
}

func openSturdyc(load loader[string]) (process[string], error) {
	c := newSturdyc()
	return sturdyProcess(c, func(ctx context.Context, key string) ([]byte, error) {
		return c.GetOrFetch(ctx, key, func(ctx context.Context) ([]byte, error) { return load(ctx, key) })
	}), nil
}

// openSturdycGet looks first, which makes no closure.
func openSturdycGet(load loader[string]) (process[string], error) {
	c := newSturdyc()
	return sturdyProcess(c, func(ctx context.Context, key string) ([]byte, error) {
		if v, ok := c.Get(key); ok {
			return v, nil
		}
		return c.GetOrFetch(ctx, key, func(ctx context.Context) ([]byte, error) { return load(ctx, key) })
	}), nil
}

// openTTLCache has ttlcache load, once for all who wait.
func openTTLCache(load loader[string]) (process[string], error) {
	loader := ttlcache.LoaderFunc[string, []byte](func(c *ttlcache.Cache[string, []byte], key string) *ttlcache.Item[string, []byte] {
		v, err := load(context.Background(), key) // it knows no contexts
		if err != nil {
			return nil
		}
		return c.Set(key, v, ttlcache.DefaultTTL)
	})
	c := ttlcache.New(
		ttlcache.WithTTL[string, []byte](cacheTTL), ttlcache.WithCapacity[string, []byte](cacheEntries), ttlcache.WithDisableTouchOnHit[string, []byte](),
		ttlcache.WithLoader[string, []byte](ttlcache.NewSuppressedLoader[string, []byte](loader, nil)),
	)
	return process[string]{
		get: func(_ context.Context, key string) ([]byte, error) {
			item := c.Get(key)
			if item == nil {
				return nil, errors.New("ttlcache has no item")
			}
			return item.Value(), nil
		},
		drop: func(_ context.Context, key string) error {
			c.Delete(key)
			return nil
		},
	}, nil
}

// goCache is a process of go-redis/cache, with its TinyLFU as first tier or without one.
func (b *cacheBench) goCache(local gocache.LocalCache) (c *gocache.Cache, open func(load loader[string]) process[string]) {
	c = gocache.New(&gocache.Options{Redis: b.client(), LocalCache: local})
	return c, func(load loader[string]) process[string] {
		return process[string]{
			get: func(ctx context.Context, key string) (v []byte, err error) {
				err = c.Once(&gocache.Item{Ctx: ctx, Key: key, Value: &v, TTL: cacheTTL, Do: func(item *gocache.Item) (any, error) { return load(item.Context(), key) }})
				return v, err
			},
			drop: c.Delete,
		}
	}
}

func (b *cacheBench) openGoCache(load loader[string]) (process[string], error) {
	_, open := b.goCache(gocache.NewTinyLFU(cacheEntries, cacheTTL))
	return open(load), nil
}

// openGoCacheGet looks by Get, which is cheaper than Once. local says whether there is a first tier.
func (b *cacheBench) openGoCacheGet(local gocache.LocalCache) opener[string] {
	return func(load loader[string]) (process[string], error) {
		c, open := b.goCache(local)
		p := open(load)
		once := p.get
		p.get = func(ctx context.Context, key string) (v []byte, err error) {
			if err = c.Get(ctx, key, &v); errors.Is(err, gocache.ErrCacheMiss) {
				return once(ctx, key)
			}
			return v, err
		}
		return p, nil
	}
}

// openAside makes processes of rueidisaside, which keeps in its first tier what the server says it may.
func (b *cacheBench) openAside(load loader[string]) (process[string], error) {
	return b.aside(load, false)
}

// openAsideBare has the client cache nothing, so that each look is a round trip.
func (b *cacheBench) openAsideBare(load loader[string]) (process[string], error) {
	return b.aside(load, true)
}

func (b *cacheBench) aside(load loader[string], bare bool) (process[string], error) {
	c, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: rueidis.ClientOption{InitAddress: []string{b.addr}, DisableCache: bare}})
	if err != nil {
		return process[string]{}, err
	}
	b.ends = append(b.ends, c.Close)
	return process[string]{
		get: func(ctx context.Context, key string) ([]byte, error) {
			v, err := c.Get(ctx, cacheTTL, key, func(ctx context.Context, key string) (string, error) {
				v, err := load(ctx, key)
				return string(v), err
			})
			return []byte(v), err
		},
		drop: c.Del,
	}, nil
}

// openByHand is what everybody writes: GET, on a miss the load and SET EX; DEL on a webhook. Its hit is a bare GET.
func (b *cacheBench) openByHand(load loader[string]) (process[string], error) {
	client := b.client()
	return process[string]{
		get: func(ctx context.Context, key string) ([]byte, error) {
			v, err := client.Get(ctx, key).Bytes()
			if !errors.Is(err, redis.Nil) {
				return v, err
			}
			if v, err = load(ctx, key); err != nil {
				return nil, err
			}
			return v, client.Set(ctx, key, v, cacheTTL).Err()
		},
		drop: func(ctx context.Context, key string) error { return client.Del(ctx, key).Err() },
	}, nil
}

// silent is a second tier that has nothing and keeps nothing: what a first tier keeps for one is all that there is to weigh.
type silent struct{}

var _ cache.Remote = silent{}

func (silent) Watch(string, time.Duration, func(cache.Notice)) error { return nil }

func (silent) Get(_ context.Context, _ string, keys []cache.Key, _ time.Duration) ([]cache.Answer, error) {
	answers := make([]cache.Answer, len(keys))
	for i := range answers {
		answers[i].Mark = cache.Mark{Epoch: 1, Seq: 1}
	}
	return answers, nil
}

func (silent) Fill(_ context.Context, _ string, fills []cache.Fill) ([]bool, error) {
	kept := make([]bool, len(fills))
	for i := range kept {
		kept[i] = true // it says so
	}
	return kept, nil
}

func (silent) Invalidate(context.Context, string, []cache.Invalidation) error { return nil }
func (silent) Purge(context.Context, string, string) error                    { return nil }

// shopKey is the key of what a shop has.
type shopKey struct{ shop, id string }

// CacheKey implements [cache.Keyer].
func (k shopKey) CacheKey() cache.Key { return cache.Key{Scope: k.shop, ID: k.id} }

// bare is its name in the server for those who have but one. It is as long as ours.
func (k shopKey) bare() string { return "{breakwater:cache:7}:e:products:" + k.shop + ":" + k.id }

func shopOf(i int) string    { return fmt.Sprintf("shop-%04d.myshopify.com", i) }
func productOf(i int) string { return fmt.Sprintf("product/%d", firstProduct+i) }

const firstProduct = 788_032_119_674_000_000
