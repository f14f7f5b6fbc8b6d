package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/redislimit"
)

// The targets, in ns but for the ratio.
const (
	newCostLimit    = 10_000
	knownCostLimit  = 300
	reserveLimit    = 500
	sharedLimit     = 1.1 // of redis_rate's round trip
	overheadLimit   = 30_000
	tableLimit      = 400 << 10
	residentLimit   = 2 << 20
	shopifyCostOf40 = 28 // points of fortyLines
)

// fortyLines is a query of 40 lines, as an order's page has one.
const fortyLines = `query OrderPage($id: ID!, $lines: Int = 20) {
  order(id: $id) {
    id
    name
    email
    note
    tags
    createdAt
    updatedAt
    displayFinancialStatus
    displayFulfillmentStatus
    totalPriceSet {
      shopMoney {
        amount
        currencyCode
      }
    }
    customer {
      id
      displayName
      numberOfOrders
    }
    lineItems(first: $lines) {
      nodes {
        id
        title
        quantity
        variant {
          id
          sku
          inventoryItem {
            id
          }
        }
      }
      pageInfo {
        hasNextPage
      }
    }
    metafields(first: 50) { nodes { key value } }
  }
}`

// benchShopify measures what the client costs a call.
func benchShopify(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("shopify", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object per case and line")
	rounds := flags.Int("rounds", 20, "`rounds` over which medians are taken")
	length := flags.Duration("time", 200*time.Millisecond, "`length` of a round")
	addr := flags.String("redis", "", "`address` of a Redis; by default a private one is started")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *length <= 0 {
		return errors.New("bench: -rounds and -time must be positive")
	}
	return withRedis("", *addr, func(addr string) error {
		b := &shopifyBench{rep: &report{out: out, json: *asJSON}, rounds: *rounds, length: *length, addr: addr}
		return b.run(ctx)
	})
}

type shopifyBench struct {
	rep    *report
	rounds int
	length time.Duration
	addr   string
}

func (b *shopifyBench) run(ctx context.Context) error {
	b.rep.head()
	for _, part := range []func(context.Context) error{b.table, b.cost, b.limiter, b.shared, b.client} {
		if err := part(ctx); err != nil {
			return fmt.Errorf("bench: shopify: %w", err)
		}
	}
	return b.rep.finish()
}

// each measures several things in turns, and returns the median of ns a call of each.
func (b *shopifyBench) each(ctx context.Context, calls ...func() error) ([]float64, error) {
	all := make([][]float64, len(calls))
	for range b.rounds {
		for i, call := range calls {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n, begun := 0, time.Now()
			for time.Since(begun) < b.length {
				for range 16 {
					if err := call(); err != nil {
						return nil, err
					}
				}
				n += 16
			}
			all[i] = append(all[i], float64(time.Since(begun).Nanoseconds())/float64(n))
		}
	}
	out := make([]float64, len(calls))
	for i := range all {
		out[i] = median(all[i])
	}
	return out, nil
}

// table is what the cost table takes.
func (b *shopifyBench) table(context.Context) error {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	costs, err := shopify.NewCosts("unstable") // which nothing here has opened yet
	if err != nil {
		return err
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.rep.add("cost table resident", "bytes", float64(after.HeapAlloc)-float64(before.HeapAlloc), residentLimit, want{"<=", 1}, nil)
	runtime.KeepAlive(costs)
	return nil
}

func (b *shopifyBench) cost(ctx context.Context) error {
	costs, err := shopify.NewCosts("2026-04")
	if err != nil {
		return err
	}
	vars := map[string]any{"id": "gid://shopify/Order/1", "lines": 20}
	n := 0
	t, err := b.each(ctx, func() error {
		n++
		got, err := costs.Of(shopify.Request{Query: fmt.Sprintf("#%d\n%s", n, fortyLines), Variables: vars})
		return b.costs(got, err)
	}, func() error {
		got, err := costs.Of(shopify.Request{Query: fortyLines, Variables: vars})
		return b.costs(got, err)
	})
	if err != nil {
		return err
	}
	b.rep.add("cost of a new query of 40 lines", "ns", t[0], newCostLimit, want{"<=", 1}, nil)
	b.rep.add("cost of one that is remembered", "ns", t[1], knownCostLimit, want{"<=", 1}, nil)
	return nil
}

func (b *shopifyBench) costs(got int, err error) error {
	if err == nil && got != shopifyCostOf40 {
		err = fmt.Errorf("a cost of %d; want %d", got, shopifyCostOf40)
	}
	return err
}

// reserveAndSettle makes a call's way through a limiter.
func reserveAndSettle(ctx context.Context, l *shopify.Limiter) func() error {
	return func() error {
		r, err := l.Reserve(ctx, quotaShop, 10)
		if err != nil {
			return err
		}
		return r.Settle(ctx, shopify.Answer{Actual: 5, Left: 1990, Size: 2000, Rate: 1e9})
	}
}

func (b *shopifyBench) limiter(ctx context.Context) error {
	l, err := shopify.NewLimiter(shopify.LimiterConfig{})
	if err != nil {
		return err
	}
	t, err := b.each(ctx, reserveAndSettle(ctx, l))
	if err != nil {
		return err
	}
	b.rep.add("limiter in process, a call and its answer", "ns", t[0], reserveLimit, want{"<=", 1}, nil)
	return nil
}

// shared compares round trips: one of ours before a call, one of ours and one after it, and one of redis_rate's.
func (b *shopifyBench) shared(ctx context.Context) error {
	rdb := redis.NewClient(&redis.Options{Addr: b.addr})
	defer rdb.Close() //nolint:errcheck // it ends with this process
	store := redislimit.New(rdb, redislimit.Config{Prefix: "bench"})
	id := uint64(0)
	call := func() shopify.Call { id++; return shopify.Call{ID: id, Cost: 10, Keep: 0.1, Lease: time.Minute} }
	settle := func(c shopify.Call, g shopify.Grant) error {
		return store.Settle(ctx, quotaShop, c, g, shopify.Answer{Actual: 5, Left: 1e12, Size: 1e12, Rate: 1e9})
	}
	c := call()
	turn, err := store.Take(ctx, quotaShop, c)
	if err == nil {
		err = settle(c, turn.Grant)
	}
	if err != nil {
		return err
	}
	peer := redis_rate.NewLimiter(rdb)
	var grants []func() error
	t, err := b.each(ctx, func() error {
		c := call()
		turn, err := store.Take(ctx, quotaShop, c)
		if err == nil && !turn.Granted {
			err = errors.New("a call was not let go")
		}
		grants = append(grants, func() error { return settle(c, turn.Grant) })
		return err
	}, func() error { // of the calls before
		if len(grants) == 0 {
			_, err := store.Take(ctx, quotaShop, call())
			return err
		}
		last := grants[len(grants)-1]
		grants = grants[:len(grants)-1]
		return last()
	}, func() error {
		r, err := peer.AllowN(ctx, "bench", redis_rate.Limit{Rate: 1e6, Burst: 1e6, Period: time.Second}, 10)
		if err == nil && r.Allowed != 10 {
			err = errors.New("redis_rate did not let a call go")
		}
		return err
	})
	if err != nil {
		return err
	}
	b.rep.add("limiter over Redis, before a call, vs redis_rate", "ns", t[0], t[2], want{"<=", sharedLimit}, nil)
	b.rep.add("limiter over Redis, after a call, vs redis_rate", "ns", t[1], t[2], want{}, nil)
	return nil
}

// client compares a call through the client with one by a bare http.Client, to a server that answers at once.
func (b *shopifyBench) client(ctx context.Context) error {
	answer := []byte(`{"data":{"shop":{"id":"gid://shopify/Shop/1","name":"Example"}},"extensions":{"cost":{"requestedQueryCost":1,"actualQueryCost":1,"throttleStatus":{"maximumAvailable":1000000000,"currentlyAvailable":1000000000,"restoreRate":1000000000}}}}`)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	defer srv.Close()
	base := &http.Transport{MaxIdleConnsPerHost: 4}
	client, err := shopify.New(shopify.StaticToken("token"), shopify.ClientConfig{Config: shopify.Config{Base: base}, Endpoint: srv.URL})
	if err != nil {
		return err
	}
	shop, err := client.Shop(quotaShop)
	if err != nil {
		return err
	}
	const query = `{ shop { id name } }`
	type result struct{ Shop struct{ ID, Name string } }
	bare := &http.Client{Transport: base}
	t, err := b.each(ctx, func() error {
		got, err := shopify.Query[result](ctx, shop, query, nil)
		if err == nil && got.Shop.Name != "Example" {
			err = errors.New("another answer")
		}
		return err
	}, func() error {
		return bareCall(ctx, bare, srv.URL, query)
	})
	if err != nil {
		return err
	}
	b.rep.add("client, over a bare http.Client with encoding/json", "ns", t[0]-t[1], overheadLimit, want{"<=", 1}, nil)
	b.rep.add("client, a call vs a bare http.Client's", "ns", t[0], t[1], want{}, nil)
	return nil
}

// bareCall is the same call by hand.
func bareCall(ctx context.Context, c *http.Client, url, query string) error {
	body, err := json.Marshal(map[string]any{"query": query})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/admin/api/2026-04/graphql.json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Shopify-Access-Token", "token")
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var out struct {
		Data struct {
			Shop struct{ ID, Name string }
		}
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return err
	}
	if !strings.HasPrefix(out.Data.Shop.ID, "gid://") {
		return errors.New("another answer")
	}
	return nil
}
