package redislimit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/redislimit"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

const fleetShop = "example.myshopify.com"

// fleetQueries are what the processes ask for. Their costs are many times what they take in the end, and about that.
var fleetQueries = []string{
	`{ products(first: 100) { nodes { id variants(first: 50) { nodes { id price } } } } }`,
	`{ shop { id name primaryDomain { id } } }`,
	`{ products(first: 50) { nodes { id title } } orders(first: 20) { nodes { id lineItems(first: 10) { nodes { id } } } } }`,
	`{ productsCount { count } customersCount { count } ordersCount { count } }`,
}

// warmUp is how long it takes until a new fleet knows its bucket, and has used up what was in it; what happens to it happens then.
const warmUp = 5 * time.Second

// member is what a process of the fleet reports.
type member struct {
	Throttled               int
	Background, Interactive []time.Duration // waits
}

func TestMain(m *testing.M) {
	if url := os.Getenv("REDISLIMIT_FLEET_URL"); url != "" {
		logging.Disable() // a Redis that is away is part of it
		if err := fleetMember(url, os.Getenv("REDISLIMIT_FLEET_REDIS")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// fleetMember is one process: 16 goroutines, four of them interactive, call until its input ends.
func fleetMember(url, addr string) error {
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: redislimit.New(rdb, redislimit.Config{}), MaxWait: -1, Lease: 3 * time.Second})
	if err != nil {
		return err
	}
	costs, err := shopify.NewCosts("2026-04")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	var (
		mu  sync.Mutex
		out member
		wg  sync.WaitGroup
	)
	started, client := time.Now(), &http.Client{}
	for i := range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if i < 4 {
					select {
					case <-time.After(time.Duration(rand.ExpFloat64() * float64(1500*time.Millisecond))):
					case <-ctx.Done():
					}
				}
				waited, throttled, err := fleetCall(ctx, client, limiter, costs, url, i < 4)
				if err != nil {
					continue // the end, or a Redis that is away
				}
				mu.Lock()
				out.Throttled += throttled
				switch {
				case time.Since(started) < warmUp:
				case i < 4:
					out.Interactive = append(out.Interactive, waited)
				default:
					out.Background = append(out.Background, waited)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(out)
}

func fleetCall(ctx context.Context, client *http.Client, limiter *shopify.Limiter, costs *shopify.Costs, url string, interactive bool) (waited time.Duration, throttled int, err error) {
	query := fleetQueries[rand.IntN(len(fleetQueries))]
	cost, err := costs.Of(shopify.Request{Query: query})
	if err != nil {
		return 0, 0, err
	}
	if interactive {
		ctx = shopify.WithInteractive(ctx)
	}
	begun := time.Now()
	r, err := limiter.Reserve(ctx, fleetShop, float64(cost))
	if err != nil {
		return 0, 0, err
	}
	waited = time.Since(begun)
	body, err := json.Marshal(map[string]string{"query": query})
	if err != nil {
		return 0, 0, err
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, url, bytes.NewReader(body)) //nolint:gosec // this test's
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("X-Shopify-Access-Token", "token")
	resp, err := client.Do(req) //nolint:gosec // this test's
	if err != nil {
		return 0, 0, errors.Join(err, r.Lost(ctx))
	}
	defer resp.Body.Close()
	var s struct {
		Errors     []any
		Extensions struct {
			Cost struct {
				ActualQueryCost *float64
				ThrottleStatus  struct{ MaximumAvailable, CurrentlyAvailable, RestoreRate float64 }
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return 0, 0, errors.Join(err, r.Lost(ctx))
	}
	status := s.Extensions.Cost.ThrottleStatus
	a := shopify.Answer{Left: status.CurrentlyAvailable, Size: status.MaximumAvailable, Rate: status.RestoreRate}
	if c := s.Extensions.Cost.ActualQueryCost; c != nil {
		a.Actual = *c
	} else {
		throttled++
	}
	_ = r.Settle(ctx, a) // with Redis away it ends by itself
	return waited, throttled, nil
}

// fleet is the processes, and the shop that they call. Its clock is ten times faster than Shopify's: 1000 points are restored in a second, and six seconds are a minute.
type fleet struct {
	fake    *shopifytest.Server
	redis   *redisserver.Server
	members []*exec.Cmd
	inputs  []io.Closer
	started time.Time
}

// P9: "The quota is never overrun. The client knows what a query costs before it sends it, shares the shop's bucket with every other process, and keeps it busy without a throttled
// answer."
//
//nolint:paralleltest // it measures: one fleet at a time
func TestP9EightProcessesShareABucket(t *testing.T) {
	fast := shopifytest.Plan{Points: 2000, PointsPerSecond: 1000, Calls: 1, CallsPerSecond: 1}
	for _, c := range []struct {
		name   string
		rate   float64 // for us, at the end
		beside func(t *testing.T, f *fleet)
	}{
		{"alone", 1000, nil},
		{"a process is killed", 1000, func(t *testing.T, f *fleet) {
			t.Helper()
			time.Sleep(time.Second)
			require.NoError(t, f.members[3].Process.Kill())
		}},
		{"Redis is killed and has forgotten all", 1000, func(t *testing.T, f *fleet) {
			t.Helper()
			time.Sleep(time.Second)
			require.NoError(t, f.redis.Kill()) // it kept nothing on disk
			require.NoError(t, f.redis.Start())
		}},
		{"a larger plan", 1300, func(_ *testing.T, f *fleet) {
			time.Sleep(time.Second)
			f.fake.Shop(fleetShop).SetPlan(shopifytest.Plan{Points: 4000, PointsPerSecond: 1300, Calls: 1, CallsPerSecond: 1})
		}},
		{"a stranger takes a third", 1000 * 2 / 3.0, func(t *testing.T, f *fleet) {
			t.Helper()
			go func() {
				for t.Context().Err() == nil {
					time.Sleep(30 * time.Millisecond)
					f.fake.Shop(fleetShop).Use("token", 10)
				}
			}()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFleet(t, fast)
			shop := f.fake.Shop(fleetShop)
			if c.beside != nil {
				c.beside(t, f)
			}
			time.Sleep(time.Until(f.started.Add(warmUp)))
			before, leftBefore, begun := shop.Stats().Points, shop.Left("token"), time.Now()
			time.Sleep(6 * time.Second)
			used, left := shop.Stats().Points-before, shop.Left("token")
			// What was restored and is not lost, in a bucket that does not fill up either.
			share := (used + left - leftBefore) / (c.rate * time.Since(begun).Seconds())
			all := f.end(t)
			background, interactive := p99(all.Background), p99(all.Interactive)
			t.Logf("used %.1f %%, %d throttled, p99 of waits: background %v (%d calls), interactive %v (%d calls)", 100*share, all.Throttled, background, len(all.Background), interactive, len(all.Interactive))
			require.Zero(t, all.Throttled)
			require.Zero(t, shop.Stats().Throttled)
			require.GreaterOrEqual(t, share, 0.98)
			require.Less(t, left, 800.0)
			require.LessOrEqual(t, interactive, background/5)
		})
	}
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)*99/100]
}

func startFleet(t *testing.T, plan shopifytest.Plan) *fleet {
	t.Helper()
	fake, err := shopifytest.New(shopifytest.Config{Plan: plan, Latency: func() time.Duration { return 2*time.Millisecond + rand.N(10*time.Millisecond) }})
	require.NoError(t, err)
	for i := range 60 {
		_, err := fake.Shop(fleetShop).Exec(`mutation($t: String!) { productCreate(product: {title: $t}) { product { id } userErrors { message } } }`, map[string]any{"t": fmt.Sprint("P", i)})
		require.NoError(t, err)
	}
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	f := &fleet{fake: fake, redis: redistest.Start(t), started: time.Now()}
	for range 8 {
		cmd := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test
		cmd.Env = append(os.Environ(), "REDISLIMIT_FLEET_URL="+api.URL+"/admin/api/2026-04/graphql.json", "REDISLIMIT_FLEET_REDIS="+f.redis.Addr)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		cmd.Stdout = &bytes.Buffer{}
		require.NoError(t, cmd.Start())
		f.members, f.inputs = append(f.members, cmd), append(f.inputs, in)
		t.Cleanup(func() {
			_ = in.Close()
			_ = cmd.Wait()
		})
	}
	return f
}

// end ends the processes, and adds up what they report; one that was killed reports nothing.
func (f *fleet) end(t *testing.T) member {
	t.Helper()
	for _, in := range f.inputs {
		require.NoError(t, in.Close())
	}
	var all member
	for _, cmd := range f.members {
		_ = cmd.Wait()
		out, ok := cmd.Stdout.(*bytes.Buffer)
		require.True(t, ok)
		if out.Len() == 0 {
			continue
		}
		var m member
		require.NoError(t, json.Unmarshal(out.Bytes(), &m))
		all.Throttled += m.Throttled
		all.Background, all.Interactive = append(all.Background, m.Background...), append(all.Interactive, m.Interactive...)
	}
	require.NotEmpty(t, all.Background)
	return all
}
