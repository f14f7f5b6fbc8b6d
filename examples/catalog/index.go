package main

import (
	"context"
	"encoding/json"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/shopify"
)

// index stands for a search engine that is told of each product. It belongs to no process: whichever runs the job tells it.
type index struct {
	rdb   *redis.Client
	space string
}

func (x index) name() string { return x.space + ":index" }

func (x index) put(ctx context.Context, key shopify.CacheKey, p product) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return x.rdb.HSet(ctx, x.name(), idOf(key), text).Err()
}

func (x index) remove(ctx context.Context, key shopify.CacheKey) error {
	return x.rdb.HDel(ctx, x.name(), idOf(key)).Err()
}

// versions is what the index has, by the products' IDs.
func (x index) versions(ctx context.Context) (map[string]int, error) {
	all, err := x.rdb.HGetAll(ctx, x.name()).Result()
	if err != nil {
		return nil, err
	}
	out := make(map[string]int, len(all))
	for id, text := range all {
		var p product
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return nil, err
		}
		if out[id], err = p.version(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
