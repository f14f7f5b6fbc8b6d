package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/rediscache"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/redislimit"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

const (
	adminVersion = "2026-04"
	secret       = "hush"

	ourApp, usualApp = "breakwater", "recipe" // the names, and tokens, of two apps: each has a quota of its own
)

// server is one process of the storefront:
//
//	GET  /products/{id}           a product, or 404
//	GET  /products?ids=1,2,3      those of them that exist
//	GET  /recipe/products…        the same, by the usual recipe
//	POST /webhooks                Shopify's
//	GET  /healthz                 200
//	GET  /stats                   what the caches have counted
type server struct {
	set      settings
	products *cache.Cache[shopify.CacheKey, product]
	recipe   *recipe
	index    index
	jobs     *queue.Queue
	work     *queue.Mux
	hooks    *webhook.Handler
	log      *slog.Logger
	close    func()
}

func newServer(set settings) (*server, error) {
	s := &server{set: set, work: queue.NewMux(), log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	rdb := dial(set.options)
	second := rediscache.New(rdb, rediscache.Config{Space: set.Space, Logger: s.log})
	s.close = func() { second.Close(); _ = rdb.Close() } // there is nobody to tell
	s.index = index{rdb, set.Space}
	if err := errors.Join(s.cache(rdb, second), s.queue(rdb), s.receive()); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// cache makes the two ways to cache products.
func (s *server) cache(rdb *redis.Client, second cache.Remote) error {
	quota := redislimit.New(rdb, redislimit.Config{Prefix: s.set.Space})
	ours, err := newCatalog(s.set.URL, ourApp, quota)
	if err != nil {
		return err
	}
	usual, err := newCatalog(s.set.URL, usualApp, quota)
	if err != nil {
		return err
	}
	s.recipe = &recipe{catalog: usual, rdb: rdb, space: s.set.Space, ttl: s.set.TTL}

	cfg, err := shopify.CacheConfig[product](shopify.CacheProducts, nil)
	if err != nil {
		return err
	}
	cfg.Remote = second
	cfg.UpdatedAt = func(p product) time.Time { return p.UpdatedAt }
	cfg.LoadMany = ours.loadMany
	cfg.Fleet = 2 * time.Second // longer than most loads take
	cfg.TTL, cfg.MaxLag = s.set.TTL, s.set.MaxLag
	cfg.Logger = s.log
	s.products, err = cache.New(ours.load, cfg)
	return err
}

// queue makes the queue, and what works it off.
func (s *server) queue(rdb *redis.Client) (err error) {
	s.jobs, err = queue.New(redisqueue.New(rdb, redisqueue.Config{Space: s.set.Space, Logger: s.log}), queue.Config{Logger: s.log})
	if err != nil {
		return err
	}
	for _, topic := range topics {
		enqueue.Handle(s.work, topic, s.syncProduct)
	}
	return nil
}

// topics are those that the shop sends. shopify.CacheProducts.Topics has all that a cache of products should get.
var topics = []string{"products/create", "products/update", "products/delete"}

// receive makes the handler of webhooks. What they make untrue is out of the caches before they are acknowledged, however long the queue is.
func (s *server) receive() (err error) {
	sink := cache.InvalidateBy(s.products, shopify.CacheProducts.Stale, enqueue.To(s.jobs, s.work))
	s.hooks, err = webhook.New(webhook.Secrets(secret), func(ctx context.Context, d webhook.Delivery) error {
		if err := s.recipe.drop(ctx, d); err != nil {
			return err
		}
		return sink(ctx, d)
	}, webhook.Config{Logger: s.log})
	return err
}

// syncProduct brings the search index up to date with a product, whatever the event was. It may run in the other process than the one that got the webhook, which hears of the invalidation in a moment: so it asks past that process's memory,
// for what it writes to the index stays there.
func (s *server) syncProduct(ctx context.Context, e webhook.Event[struct{}]) error {
	key := shopify.CacheKey{Shop: e.Shop, Subject: e.Subject}
	p, err := s.products.GetRemote(ctx, key)
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return s.index.remove(ctx, key)
	case err != nil:
		return err
	}
	return s.index.put(ctx, key, p)
}

// run works off what is queued, until ctx ends.
func (s *server) run(ctx context.Context) error {
	return s.jobs.Run(ctx, s.work, queue.WorkerConfig{Concurrency: 16, Drain: 5 * time.Second})
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks", s.hooks)
	s.pages(mux, "/products", s.products)
	s.pages(mux, "/recipe/products", s.recipe)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, stats{s.products.Stats(), s.recipe.hits.Load(), s.recipe.loads.Load()})
	})
	return mux
}

// stats are what a server has counted.
type stats struct {
	Cache                   cache.Stats
	RecipeHits, RecipeLoads int64 // products
}

// source is where pages have products from: a *cache.Cache is one.
type source interface {
	Get(ctx context.Context, key shopify.CacheKey) (product, error)
	GetMany(ctx context.Context, keys []shopify.CacheKey) (map[shopify.CacheKey]product, error)
}

// pages serves products of a source. Somebody waits for them, so that their loads go before those of jobs when the quota is short.
func (s *server) pages(mux *http.ServeMux, path string, from source) {
	mux.HandleFunc("GET "+path+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := ids(r.PathValue("id"))
		if !ok || len(id) > 1 {
			http.Error(w, "not a product's ID", http.StatusBadRequest)
			return
		}
		p, err := from.Get(shopify.WithInteractive(r.Context()), id[0])
		switch {
		case errors.Is(err, cache.ErrNotFound):
			http.Error(w, "no such product", http.StatusNotFound)
		case err != nil:
			s.unavailable(w, err)
		default:
			writeJSON(w, http.StatusOK, p)
		}
	})
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		keys, ok := ids(r.URL.Query().Get("ids"))
		if !ok || len(keys) > maxPage {
			http.Error(w, "want ?ids=1,2,3 with at most 100 IDs of products", http.StatusBadRequest)
			return
		}
		found, err := from.GetMany(shopify.WithInteractive(r.Context()), keys)
		if err != nil { // those that were found are there, and a page may rather show them; this one is all or nothing
			s.unavailable(w, err)
			return
		}
		page := make([]product, 0, len(keys))
		for _, k := range keys {
			if p, ok := found[k]; ok {
				page = append(page, p)
			}
		}
		writeJSON(w, http.StatusOK, page)
	})
}

const maxPage = 100

// ids reads IDs with commas between.
func ids(text string) (keys []shopify.CacheKey, ok bool) {
	for id := range strings.SplitSeq(text, ",") {
		if _, err := strconv.ParseUint(id, 10, 63); err != nil {
			return nil, false
		}
		keys = append(keys, keyOf(id))
	}
	return keys, true
}

func (s *server) unavailable(w http.ResponseWriter, err error) {
	s.log.Error("a page failed", "error", err)
	http.Error(w, "not now", http.StatusServiceUnavailable)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
}
