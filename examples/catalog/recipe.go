package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/webhook"
)

// recipe is what everybody writes: GET; on a miss ask the shop, and SET with a time to live; DEL when a webhook says that it has changed.
//
// What is wrong with it: an answer that was slow comes after the DEL, and its SET puts the old value back, for all processes and until its time is over. A thousand who miss a product ask the shop a thousand times. A product that does not
// exist is asked for each time. (With a map in memory before Redis, as many have it, what one process deletes another would still serve. This one has none.)
type recipe struct {
	catalog catalog
	rdb     *redis.Client
	space   string
	ttl     time.Duration

	hits, loads atomic.Int64
}

func (r *recipe) key(k shopify.CacheKey) string {
	return r.space + ":recipe:" + k.Shop + ":" + k.Subject
}

// Get implements [source].
func (r *recipe) Get(ctx context.Context, key shopify.CacheKey) (p product, err error) {
	text, err := r.rdb.Get(ctx, r.key(key)).Result()
	if err == nil && json.Unmarshal([]byte(text), &p) == nil {
		r.hits.Add(1)
		return p, nil
	}
	r.loads.Add(1)
	if p, err = r.catalog.load(ctx, key); err != nil {
		return p, err
	}
	return p, r.set(ctx, r.rdb, key, p)
}

// GetMany implements [source].
func (r *recipe) GetMany(ctx context.Context, keys []shopify.CacheKey) (map[shopify.CacheKey]product, error) {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = r.key(k)
	}
	values, err := r.rdb.MGet(ctx, names...).Result()
	if err != nil {
		return nil, err
	}
	out := make(map[shopify.CacheKey]product, len(keys))
	var missing []shopify.CacheKey
	for i, k := range keys {
		var p product
		if text, ok := values[i].(string); ok && json.Unmarshal([]byte(text), &p) == nil {
			out[k] = p
		} else {
			missing = append(missing, k)
		}
	}
	r.hits.Add(int64(len(out)))
	if len(missing) == 0 {
		return out, nil
	}
	r.loads.Add(int64(len(missing)))
	loaded, err := r.catalog.loadMany(ctx, missing)
	if err != nil {
		return nil, err
	}
	_, err = r.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		var errs []error
		for k, p := range loaded {
			out[k] = p
			errs = append(errs, r.set(ctx, pipe, k, p))
		}
		return errors.Join(errs...)
	})
	return out, err
}

func (r *recipe) set(ctx context.Context, to redis.Cmdable, key shopify.CacheKey, p product) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return to.Set(ctx, r.key(key), text, r.ttl).Err()
}

// drop is what a webhook does.
func (r *recipe) drop(ctx context.Context, d webhook.Delivery) error {
	what, err := shopify.CacheProducts.Stale(d)
	if err != nil {
		if errors.Is(err, cache.ErrIgnore) {
			return nil
		}
		return err
	}
	for _, k := range what.Keys {
		if err := r.rdb.Del(ctx, r.key(k)).Err(); err != nil {
			return err
		}
	}
	return nil
}
