package shopify_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

const shopName = "example.myshopify.com"

// status is an answer's extensions.
type status struct {
	Errors []struct {
		Extensions struct{ Code string }
	}
	Extensions struct {
		Cost *struct {
			RequestedQueryCost float64
			ActualQueryCost    *float64
			ThrottleStatus     struct{ MaximumAvailable, CurrentlyAvailable, RestoreRate float64 }
		}
	}
}

// answer is what an answer says of the quota.
func (s *status) answer() shopify.Answer {
	c := s.Extensions.Cost
	if c == nil {
		return shopify.Answer{Actual: -1}
	}
	a := shopify.Answer{Actual: -1, Left: c.ThrottleStatus.CurrentlyAvailable, Size: c.ThrottleStatus.MaximumAvailable, Rate: c.ThrottleStatus.RestoreRate}
	switch {
	case c.ActualQueryCost != nil:
		a.Actual = *c.ActualQueryCost
	case len(s.Errors) > 0 && s.Errors[0].Extensions.Code == "THROTTLED":
		a.Actual = 0
	}
	return a
}

// ask sends a query to the fake.
func ask(ctx context.Context, fake http.RoundTripper, query string) (*status, error) {
	body, err := json.Marshal(map[string]string{"query": query})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+shopName+"/admin/api/2026-04/graphql.json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Shopify-Access-Token", "token")
	resp, err := fake.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var s status
	return &s, json.NewDecoder(resp.Body).Decode(&s)
}

// drain has many goroutines of several processes call a shop for a minute, all they can.
type drain struct {
	limiters []*shopify.Limiter
	fake     *shopifytest.Server
	way      func() time.Duration // how long a request is on its way, and an answer on its way back
	queries  []string
	lost     float64 // the share of answers that get lost

	mu        sync.Mutex
	throttled int
	waits     [2][]time.Duration // background, interactive
}

func (d *drain) worker(ctx context.Context, l *shopify.Limiter, interactive bool, rng *rand.Rand, costs *shopify.Costs) error {
	for ctx.Err() == nil {
		query := d.queries[rng.IntN(len(d.queries))]
		if interactive {
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(15*time.Second)))
		}
		cost, err := costs.Of(shopify.Request{Query: query})
		if err != nil {
			return err
		}
		cctx, kind := ctx, 0
		if interactive {
			cctx, kind = shopify.WithInteractive(ctx), 1
		}
		begun := time.Now()
		r, err := l.Reserve(cctx, shopName, float64(cost))
		if err != nil {
			full, ok := errors.AsType[*shopify.QuotaError](err)
			if !ok && ctx.Err() == nil {
				return err
			}
			if ok { // not within this minute
				time.Sleep(full.After)
			}
			continue
		}
		d.mu.Lock()
		d.waits[kind] = append(d.waits[kind], time.Since(begun))
		d.mu.Unlock()
		time.Sleep(d.way())
		s, err := ask(ctx, d.fake, query)
		if err != nil {
			_ = r.Lost(ctx)
			continue
		}
		if len(s.Errors) > 0 && s.Errors[0].Extensions.Code == "THROTTLED" {
			d.mu.Lock()
			d.throttled++
			d.mu.Unlock()
		}
		time.Sleep(d.way())
		if rng.Float64() < d.lost {
			_ = r.Lost(ctx)
			continue
		}
		if err := r.Settle(ctx, s.answer()); err != nil {
			return err
		}
	}
	return nil
}

// run drains for a minute, and says how many points were used, or are still in the bucket, of those that were restored in its last 50 seconds: the first ten use up what was there.
func (d *drain) run(t *testing.T, workers, interactive int, beside func(ctx context.Context)) (used float64) {
	t.Helper()
	costs, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	shop := d.fake.Shop(shopName)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	if beside != nil {
		wg.Go(func() { beside(ctx) })
	}
	for i, l := range d.limiters {
		for j := range workers {
			rng := rand.New(rand.NewPCG(uint64(i), uint64(j)))
			wg.Go(func() {
				if err := d.worker(ctx, l, j < interactive, rng, costs); err != nil {
					t.Error(err)
				}
			})
		}
	}
	time.Sleep(10 * time.Second)
	before, left := shop.Stats().Points, shop.Left("token")
	time.Sleep(50*time.Second - time.Millisecond)
	used = shop.Stats().Points - before + shop.Left("token") - left // what is still there was not wasted, if that is little
	require.Less(t, shop.Left("token"), 0.3*d.fake.Shop(shopName).Plan().Points)
	wg.Wait()
	return used
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)*99/100]
}

var drainQueries = []string{
	`{ products(first: 100) { nodes { id variants(first: 50) { nodes { id price } } } } }`,
	`{ shop { id name primaryDomain { id } } }`,
	`{ products(first: 50) { nodes { id title } } orders(first: 20) { nodes { id lineItems(first: 10) { nodes { id } } } } }`,
	`{ productsCount { count } customersCount { count } ordersCount { count } }`,
}

func newDrain(t *testing.T, processes int, shared func() shopify.Buckets) *drain {
	t.Helper()
	fake, err := shopifytest.New(shopifytest.Config{})
	require.NoError(t, err)
	for i := range 60 {
		_, err := fake.Shop(shopName).Exec(`mutation($t: String!) { productCreate(product: {title: $t}) { product { id } userErrors { message } } }`, map[string]any{"t": fmt.Sprint("P", i)})
		require.NoError(t, err)
	}
	d := &drain{fake: fake, queries: drainQueries, way: func() time.Duration { return 20*time.Millisecond + rand.N(60*time.Millisecond) }}
	for range processes {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: shared(), MaxWait: -1})
		require.NoError(t, err)
		d.limiters = append(d.limiters, l)
	}
	return d
}

// P9: "The quota is never overrun. The client knows what a query costs before it sends it, shares the shop's bucket with every other process, and keeps it busy without a throttled
// answer."
func TestP9TheQuotaIsNeverOverrunAndKeptBusy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lost   float64
		beside func(t *testing.T, fake *shopifytest.Server) func(context.Context)
		rate   float64 // what there is for us, a second
		// throttled is how many answers may be throttled: where a bucket shrinks, nobody can know before the first answer that says so.
		throttled int
		share     float64 // of it that has to be used; 0 means 0.98
	}{
		"alone":          {rate: 100},
		"answers lost":   {rate: 100, lost: 0.02},
		"a larger plan":  {rate: (20*100 + 30*1000 + 18000) / 50.0, beside: planAt(30*time.Second, shopifytest.Plus)},
		"a smaller plan": {rate: 0.4*100 + 0.6*50, throttled: 8, share: 0.88, beside: planAt(30*time.Second, shopifytest.Plan{Points: 1000, PointsPerSecond: 50, Calls: 1, CallsPerSecond: 1})},
		"a stranger":     {rate: 100 * 2 / 3.0, beside: stranger},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				buckets := shopify.NewLocal()
				d := newDrain(t, 8, func() shopify.Buckets { return buckets })
				d.lost = c.lost
				var beside func(context.Context)
				if c.beside != nil {
					beside = c.beside(t, d.fake)
				}
				used := d.run(t, 16, 4, beside)
				background, interactive := p99(d.waits[0]), p99(d.waits[1])
				t.Logf("%s: used %.0f of %.0f (%.1f %%), %d throttled, p99 background %v, interactive %v (%d, %d calls)", name, used, 50*c.rate, used/(0.5*c.rate), d.throttled, background, interactive, len(d.waits[0]), len(d.waits[1]))
				require.LessOrEqual(t, d.throttled, c.throttled)
				require.GreaterOrEqual(t, used, cmp.Or(c.share, 0.98)*50*c.rate)
				require.LessOrEqual(t, interactive, background/5)
			})
		})
	}
}

func planAt(at time.Duration, p shopifytest.Plan) func(*testing.T, *shopifytest.Server) func(context.Context) {
	return func(_ *testing.T, fake *shopifytest.Server) func(context.Context) {
		return func(context.Context) {
			time.Sleep(at)
			fake.Shop(shopName).SetPlan(p)
		}
	}
}

// stranger takes a third of the bucket's rate, in calls of 10 points.
func stranger(_ *testing.T, fake *shopifytest.Server) func(context.Context) {
	return func(ctx context.Context) {
		for ctx.Err() == nil {
			time.Sleep(300 * time.Millisecond)
			fake.Shop(shopName).Use("token", 10)
		}
	}
}

// answered makes a bucket of 1000 points known: so many are left in it.
func answered(t *testing.T, l *shopify.Limiter, left, rate float64) {
	t.Helper()
	r, err := l.Reserve(t.Context(), shopName, 1)
	require.NoError(t, err)
	require.NoError(t, r.Settle(t.Context(), shopify.Answer{Actual: 1, Left: left, Size: 1000, Rate: rate}))
}

func TestCallsOfOneKindGoInTheOrderInWhichTheyCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{MaxWait: -1})
		require.NoError(t, err)
		answered(t, l, 150, 10) // enough for a small call, while a large one waits
		var mu sync.Mutex
		var order [2][]int
		var wg sync.WaitGroup
		for i := range 40 {
			kind := i % 2
			wg.Go(func() {
				ctx := t.Context()
				if kind == 1 {
					ctx = shopify.WithInteractive(ctx)
				}
				r, err := l.Reserve(ctx, shopName, float64(1+i%7*20)) // a small one does not overtake
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order[kind] = append(order[kind], i)
				mu.Unlock()
				if err := r.Settle(ctx, shopify.Answer{Actual: -1}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		for _, o := range order {
			require.Len(t, o, 20)
			require.True(t, slices.IsSorted(o), "%v", o)
		}
		require.Less(t, slices.Index(order[1], 39), 20)
	})
}

func TestAShareIsKeptFreeForInteractiveCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{MaxWait: -1})
		require.NoError(t, err)
		answered(t, l, 1000, 10)
		ctx, cancel := context.WithCancel(t.Context())
		for range 10 {
			go func() {
				for ctx.Err() == nil {
					if r, err := l.Reserve(ctx, shopName, 25); err == nil {
						_ = r.Settle(ctx, shopify.Answer{Actual: -1})
					}
				}
			}()
		}
		for range 10 {
			time.Sleep(30 * time.Second)
			begun := time.Now()
			r, err := l.Reserve(shopify.WithInteractive(t.Context()), shopName, 80)
			require.NoError(t, err)
			require.Zero(t, time.Since(begun))
			require.NoError(t, r.Settle(t.Context(), shopify.Answer{Actual: -1}))
		}
		cancel()
	})
}

func TestInteractiveCallsDoNotStarveTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{MaxWait: -1})
		require.NoError(t, err)
		answered(t, l, 100, 50)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var mu sync.Mutex
		points := map[bool]float64{}
		var wg sync.WaitGroup
		for i := range 20 {
			interactive := i < 10
			cost := map[bool]float64{true: 10, false: 200}[interactive] // what is saved up for a large call is not taken by small ones
			wg.Go(func() {
				cctx := ctx
				if interactive {
					cctx = shopify.WithInteractive(ctx)
				}
				for ctx.Err() == nil {
					r, err := l.Reserve(cctx, shopName, cost)
					if err != nil {
						return
					}
					mu.Lock()
					points[interactive] += cost
					mu.Unlock()
					if r.Settle(ctx, shopify.Answer{Actual: -1}) != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		share := points[false] / (points[false] + points[true])
		require.InDelta(t, 0.2, share, 0.05, "%v", points)
	})
}

func TestACallThatLeavesTheLineHurtsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{MaxWait: -1})
		require.NoError(t, err)
		answered(t, l, 0, 10)
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := l.Reserve(ctx, shopName, 900)
			left <- err
		}()
		synctest.Wait()
		begun := time.Now()
		got := make(chan error, 1)
		go func() {
			r, err := l.Reserve(t.Context(), shopName, 100)
			if err == nil {
				err = r.Cancel(t.Context())
			}
			got <- err
		}()
		time.Sleep(time.Second)
		cancel()
		require.ErrorIs(t, <-left, context.Canceled)
		require.NoError(t, <-got)
		require.InDelta(t, 22, time.Since(begun).Seconds(), 1, "100 points, 100 to keep free and a margin of 20, at 10 a second")
		// More than the bucket holds never goes.
		_, err = l.Reserve(t.Context(), shopName, 1001)
		require.ErrorIs(t, err, shopify.ErrTooExpensive)
		_, err = l.Reserve(t.Context(), shopName, -1)
		require.Error(t, err)
		_, err = shopify.NewLimiter(shopify.LimiterConfig{KeepFree: 1})
		require.ErrorContains(t, err, "KeepFree")
	})
}

func TestABucketThatNobodyKnowsIsAskedOneCallAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{})
		require.NoError(t, err)
		first, err := l.Reserve(t.Context(), shopName, 10)
		require.NoError(t, err)
		got := make(chan error, 1)
		go func() {
			_, err := l.Reserve(t.Context(), shopName, 10)
			got <- err
		}()
		synctest.Wait()
		require.Empty(t, got)
		require.NoError(t, first.Settle(t.Context(), shopify.Answer{Actual: -1})) // says nothing: the next one asks
		require.NoError(t, <-got)
		other, err := l.Reserve(t.Context(), "other", 10)
		require.NoError(t, err)
		require.NoError(t, other.Lost(t.Context()))
		_, err = l.Reserve(t.Context(), "other", 10)
		require.NoError(t, err, "one that was lost is not waited for")
	})
}
