package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// orderQuery is what an integration asks the shop for each new order before it works on it. It costs 40 points at most, and some 16 in the end: of the shop that has a spike more than its bucket restores.
const orderQuery = `query Order($id: ID!) {
	order(id: $id) {
		id name totalPriceSet { shopMoney { amount currencyCode } }
		customer { id email }
		lineItems(first: 50) { nodes { id title quantity variant { id sku inventoryItem { id } } product { id } } }
		shippingLines(first: 5) { nodes { title code } }
	}
}`

const adminVersion = "2026-04"

// newAdmin makes the Admin API of the shops, which run on the storm's clock. It has every order that will be asked for.
func newAdmin(scale float64, truth []event) (*shopifytest.Server, error) {
	plan := shopifytest.Standard
	plan.PointsPerSecond *= scale
	latency := time.Duration(150 * float64(time.Millisecond) / scale)
	fake, err := shopifytest.New(shopifytest.Config{Plan: plan, Latency: func() time.Duration { return latency }})
	if err != nil {
		return nil, err
	}
	for _, e := range truth {
		if e.Topic == "orders/create" {
			if err := fake.Shop(e.Shop).Ensure(orderID(e.Subject)); err != nil {
				return nil, err
			}
		}
	}
	return fake, nil
}

// orderID is an order's global ID.
func orderID(subject string) string {
	return "gid://shopify/Order/" + strings.TrimPrefix(subject, "order/")
}

// asked is what the Admin APIs of the shops have seen.
func (s *systems) asked(truth []event) (sum shopifytest.Stats) {
	if s.admin == nil {
		return sum
	}
	seen := map[string]bool{}
	for _, e := range truth {
		if seen[e.Shop] {
			continue
		}
		seen[e.Shop] = true
		st := s.admin.Shop(e.Shop).Stats()
		sum.Requests += st.Requests
		sum.Throttled += st.Throttled
		sum.Points += st.Points
	}
	return sum
}

// serveAdmin answers for the shops. What is under way there is no quiet.
func (s *systems) serveAdmin(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.under++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.under--
		s.last = time.Now()
	}()
	s.admin.ServeHTTP(w, r)
}

// newShops makes the Breakwater side's client of the shops. All workers share their quota: those of one process by home's buckets, and those of several by Redis, if the queue is there.
func newShops(set settings, buckets shopify.Buckets) (*shopify.Client, error) {
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{
		Buckets: buckets,
		MaxWait: time.Duration(10 * float64(time.Second) / set.Scale),
		Lease:   2 * time.Second, // a worker that is killed has calls under way
	})
	if err != nil {
		return nil, err
	}
	return shopify.New(shopify.StaticToken("token"), shopify.ClientConfig{Config: shopify.Config{Version: adminVersion, Limiter: limiter}, Endpoint: set.URL})
}

// read asks a shop for an order. Without quota the queue parks the shop's jobs until there is some.
func (g *guard) read(ctx context.Context, in task) error {
	shop, err := g.shops.Shop(in.Shop)
	if err != nil {
		return err
	}
	got, err := shopify.Query[struct {
		Order *struct{ ID, Name string }
	}](ctx, shop, orderQuery, map[string]any{"id": orderID(in.Subject)})
	if err == nil && got.Order == nil {
		err = fmt.Errorf("%s has no %s", in.Shop, in.Subject)
	}
	return err
}

// classicTries is how often the classic side asks a shop, sleeping a second after each answer that was throttled.
const classicTries = 3

// ask asks a shop for an order as it is usually done: it sleeps when it was throttled, and asks again.
func (c *client) ask(ctx context.Context, scale float64, shop, subject string) error {
	body, err := json.Marshal(map[string]any{"query": orderQuery, "variables": map[string]string{"id": orderID(subject)}})
	if err != nil {
		return err
	}
	for range classicTries {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/admin/api/"+adminVersion+"/graphql.json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Host = shop
		req.Header.Set("X-Shopify-Access-Token", "token")
		resp, err := c.http.Do(req)
		if err != nil {
			return err
		}
		var a struct {
			Errors []struct {
				Message    string
				Extensions struct{ Code string }
			}
		}
		err = json.NewDecoder(resp.Body).Decode(&a)
		if cerr := resp.Body.Close(); err == nil {
			err = cerr
		}
		switch {
		case err != nil:
			return err
		case len(a.Errors) == 0:
			return nil
		case a.Errors[0].Extensions.Code != "THROTTLED":
			return errors.New(a.Errors[0].Message)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(float64(time.Second) / scale)):
		}
	}
	return errors.New("the shop says Throttled")
}
