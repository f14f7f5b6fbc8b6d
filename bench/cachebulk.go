package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/cache"
)

const (
	bulkKeys  = 100
	bulkTrips = 1 // that their answer may take, and one more for tags: which an entry has is known when it is there
)

// trips counts the round trips of those whose context has it: what runs beside them is not theirs.
type trips struct{ n atomic.Int64 }

type tripsKey struct{}

// tripsHook tells trips.
type tripsHook struct{ redis.Hook }

// DialHook implements redis.Hook.
func (tripsHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (tripsHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		count(ctx, cmd)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook.
func (tripsHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		count(ctx, cmds...)
		return next(ctx, cmds)
	}
}

// count leaves out what a connection begins with: the pool opens one when what runs beside the call has the other.
func count(ctx context.Context, cmds ...redis.Cmder) {
	t, ok := ctx.Value(tripsKey{}).(*trips)
	if ok && !slices.Contains([]string{"hello", "client"}, cmds[0].Name()) {
		t.n.Add(1)
	}
}

// many asks for all keys at once.
type many func(ctx context.Context, keys []shopKey) (map[shopKey][]byte, error)

// bulkOurs is a GetMany of keys that are in Redis.
func (b *cacheBench) bulkOurs(name string, tags func(shopKey, []byte) []string) func(load loader[shopKey], hook redis.Hook) (many, error) {
	return func(load loader[shopKey], hook redis.Hook) (many, error) {
		store, client := b.store(), b.opened[len(b.opened)-1].(*redis.Client) //nolint:forcetypeassert // which store has just opened
		client.AddHook(hook)
		c, err := cache.New(load, cache.Config[shopKey, []byte]{Name: name, TTL: cacheTTL, NoLocal: true, Tags: tags, Remote: store})
		if err != nil {
			return nil, err
		}
		return c.GetMany, nil
	}
}

// bulkMGET is the limit: one MGET.
func (b *cacheBench) bulkMGET(load loader[shopKey], hook redis.Hook) (many, error) {
	client := b.client()
	client.AddHook(hook)
	return func(ctx context.Context, keys []shopKey) (map[shopKey][]byte, error) {
		names := make([]string, len(keys))
		for i, k := range keys {
			names[i] = k.bare()
		}
		values, err := client.MGet(ctx, names...).Result()
		if err != nil {
			return nil, err
		}
		out := make(map[shopKey][]byte, len(keys))
		for i, k := range keys {
			text, ok := values[i].(string)
			if out[k] = []byte(text); ok {
				continue
			}
			if out[k], err = load(ctx, k); err == nil {
				err = client.Set(ctx, names[i], out[k], cacheTTL).Err()
			}
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	}, nil
}

// bulkEntrant is who asks for many at once.
type bulkEntrant struct {
	*cacheTrial

	tagged bool
	trips  trips
	calls  int64
	bad    error
}

// enterBulk has it load all of s once.
func enterBulk(ctx context.Context, name string, s *stock[shopKey], open func(load loader[shopKey], hook redis.Hook) (many, error)) (*bulkEntrant, error) {
	var loads atomic.Int64
	get, err := open(func(ctx context.Context, key shopKey) ([]byte, error) {
		loads.Add(1)
		return s.load(ctx, key)
	}, tripsHook{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := get(ctx, s.keys); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	e := &bulkEntrant{}
	counted := context.WithValue(ctx, tripsKey{}, &e.trips)
	e.cacheTrial = &cacheTrial{name: name, callers: 1, serve: func(n int) {
		for range n {
			e.calls++
			got, err := get(counted, s.keys)
			for i, key := range s.keys {
				if err == nil && !bytes.Equal(got[key], s.values[i]) {
					err = errors.New("a value is missing or wrong")
				}
			}
			if err == nil && len(got) != len(s.keys) {
				err = fmt.Errorf("%d values for %d keys", len(got), len(s.keys))
			}
			e.bad = cmp.Or(e.bad, err)
		}
	}, check: func() error {
		if n := loads.Load(); e.bad == nil && n != int64(len(s.keys)) {
			return fmt.Errorf("%d loads of %d keys", n, len(s.keys))
		}
		return e.bad
	}}
	return e, nil
}

// perCall is how many round trips a call took.
func (e *bulkEntrant) perCall() float64 { return float64(e.trips.n.Load()) / float64(e.calls) }

// bulk is what a hundred answers cost that are in Redis, asked for at once.
func (b *cacheBench) bulk(ctx context.Context) error {
	live := make([]byte, liveHeap)
	defer runtime.KeepAlive(live)
	oneShop := newStock(bulkKeys, remoteBytes, func(i int) shopKey { return shopKey{shopOf(0), productOf(i)} })
	manyShops := newStock(bulkKeys, remoteBytes, func(i int) shopKey { return shopKey{shopOf(i), productOf(i)} })
	tags := func(shopKey, []byte) []string { return []string{cacheTag} }
	var list []*bulkEntrant
	var trials []*cacheTrial
	for _, e := range []struct {
		name   string
		tagged bool
		stock  *stock[shopKey]
		open   func(load loader[shopKey], hook redis.Hook) (many, error)
	}{
		{"MGET", false, oneShop, b.bulkMGET},
		{"1 shop", false, oneShop, b.bulkOurs("shop", nil)},
		{"100 shops", false, manyShops, b.bulkOurs("shops", nil)},
		{"1 shop, a tag", true, oneShop, b.bulkOurs("tagged", tags)},
	} {
		in, err := enterBulk(ctx, e.name, e.stock, e.open)
		if err != nil {
			return err
		}
		in.tagged = e.tagged
		list, trials = append(list, in), append(trials, in.cacheTrial)
	}
	if err := alternate(ctx, b.sizes.remoteTurns, b.sizes.remoteTurn, trials); err != nil {
		return err
	}
	mget := list[0]
	for _, e := range list[1:] {
		limit := bulkTrips
		if e.tagged {
			limit++
		}
		b.rep.add("bulk of 100, round trips, "+e.name+" vs target", "trips", e.perCall(), float64(limit), want{"<=", 1}, e.problem())
		b.compare("bulk of 100", "us", 1000, e.cacheTrial, mget.cacheTrial, want{})
	}
	return nil
}
