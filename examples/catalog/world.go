package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/shopify"
)

// world is all that there is: the shop with its merchant and its courier, the servers, and the crowd.
type world struct {
	o        options
	history  *history
	admin    *admin
	merchant *merchant
	courier  *courier
	servers  []*child
	crowd    *crowd

	one, page float64 // points of quota for a product, and for a page of many
	webhooks  tally
}

func newWorld(o options) (w *world, err error) {
	w = &world{o: o, history: newHistory()}
	w.courier = newCourier(w.history, o.Seed)
	if w.admin, err = newAdmin(w.courier.take); err != nil {
		return nil, err
	}
	w.merchant = newMerchant(w.admin.fake.Shop(shopDomain), w.history, o)
	if err := w.open(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// open fills the shop and starts the servers.
func (w *world) open() error {
	if err := w.merchant.stock(); err != nil {
		return err
	}
	if err := w.price(); err != nil {
		return err
	}
	for range servers {
		c, err := start("child-server", settings{options: w.o, URL: w.admin.url})
		if err != nil {
			return err
		}
		w.servers = append(w.servers, c)
	}
	w.courier.open(w.servers)
	w.crowd = newCrowd(w.merchant, w.servers, w.o.Seed)
	return nil
}

func (w *world) close() error {
	var errs []error
	for _, s := range w.servers {
		errs = append(errs, s.stop())
	}
	w.admin.close()
	return errors.Join(errs...)
}

// price asks what a page without a cache would cost.
func (w *world) price() error {
	var cost float64
	client, err := shopify.New(shopify.StaticToken("price"), shopify.ClientConfig{Config: shopify.Config{
		Version: adminVersion, Base: w.admin.fake, OnAnswer: func(a shopify.Answered) { cost = a.Actual },
	}})
	if err != nil {
		return err
	}
	shop, err := client.Shop(shopDomain)
	if err != nil {
		return err
	}
	keys := make([]shopify.CacheKey, pageSize)
	for i := range keys {
		keys[i] = keyOf(w.merchant.id(i))
	}
	ctx, from := context.Background(), catalog{shop}
	if _, err := from.load(ctx, keys[0]); err != nil {
		return err
	}
	w.one = cost
	_, err = from.loadMany(ctx, keys)
	w.page = cost
	return err
}

// play lets all of them act for a while, and what they have begun come to its end.
func (w *world) play(ctx context.Context, out io.Writer) error {
	acting, stop := context.WithTimeout(ctx, w.o.Duration)
	defer stop()
	var all sync.WaitGroup
	var trouble error
	all.Go(func() {
		if trouble = w.merchant.run(acting, w.o.Every); trouble != nil {
			stop()
		}
	})
	all.Go(func() { w.crowd.run(acting) })
	all.Go(func() { w.progress(acting, out) })
	all.Wait()
	var err error
	w.webhooks, err = w.courier.wait()
	return errors.Join(ctx.Err(), trouble, err, w.settle(ctx))
}

func (w *world) progress(ctx context.Context, out io.Writer) {
	begin := time.Now()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			fmt.Fprintf(out, "%3.0f s: %d pages read in each way, %d calls of the recipe, %d of Breakwater\n", time.Since(begin).Seconds(), w.crowd.pages.Load()+w.crowd.singles.Load(), w.admin.spentBy(usualApp).Calls, w.admin.spentBy(ourApp).Calls)
		}
	}
}

// settle waits until nothing is queued any more, for half a minute at most.
func (w *world) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := waiting(ctx, w.o)
		if err != nil || n == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d jobs are still in the queue", n)
		}
	}
}

// result looks at what has come of it.
func (w *world) result(ctx context.Context) (r result, err error) {
	singles, pages := int(w.crowd.singles.Load()), int(w.crowd.pages.Load())
	r.Reads, r.Pages, r.Webhooks = singles+pages, pages, w.webhooks
	b := bounds{Other: w.o.MaxLag, Commit: w.o.TTL + transit}
	for way, app := range [...]string{recipeWay: usualApp, breakwaterWay: ourApp} {
		seen, spent := w.crowd.seen[way], w.admin.spentBy(app)
		r.Ways[way] = outcome{
			verdict: w.history.judge(seen.answers, b), Failed: seen.failed, Failure: seen.failure,
			Calls: spent.Calls, Without: singles + pages, Points: spent.Points, PointsWithout: float64(singles)*w.one + float64(pages)*w.page, Throttled: spent.Throttled,
		}
	}
	for _, s := range w.servers {
		got, err := statsOf(ctx, s)
		if err != nil {
			return r, err
		}
		r.count(got)
	}
	err = w.checkIndex(ctx, &r)
	return r, err
}

// transit is what may be added to a TTL on the way to Redis and back: rediscache's Timeout, twice.
const transit = 200 * time.Millisecond

// count adds what a server has counted.
func (r *result) count(s stats) {
	usual, ours := &r.Ways[recipeWay], &r.Ways[breakwaterWay]
	usual.Redis += uint64(s.RecipeHits)  //nolint:gosec // not negative
	usual.Loads += uint64(s.RecipeLoads) //nolint:gosec // not negative
	ours.Memory, ours.Redis, ours.Shared, ours.Loads = ours.Memory+s.Cache.Hits, ours.Redis+s.Cache.RemoteHits, ours.Shared+s.Cache.Shared, ours.Loads+s.Cache.Loads
	r.Invalidations, r.Refused = r.Invalidations+s.Cache.Invalidations, r.Refused+s.Cache.Refused
}

func statsOf(ctx context.Context, c *child) (s stats, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/stats", nil)
	if err != nil {
		return s, err
	}
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&s)
	return s, err
}

// checkIndex holds the search index against the webhooks that were acknowledged.
func (w *world) checkIndex(ctx context.Context, r *result) error {
	client := dial(w.o)
	defer client.Close() //nolint:errcheck // it was only read
	have, err := index{client, w.o.Space}.versions(ctx)
	if err != nil {
		return err
	}
	r.Indexed = len(have)
	w.history.mu.Lock()
	defer w.history.mu.Unlock()
	for id, l := range w.history.lives {
		version, ok := have[id]
		known := l.known()
		switch {
		case known == 0: // nobody was told of it
		case l.end > 0 && known == l.end: // it has to be gone
			if ok {
				r.Unindexed++
			}
		case !ok && l.end > 0: // it is gone already
		case version < known:
			r.Unindexed++
		}
	}
	return nil
}
