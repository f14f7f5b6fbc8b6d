package shopify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// newClient makes a client of a fake that needs no network.
func newClient(t *testing.T, fake http.RoundTripper, change func(*shopify.Config)) *shopify.Shop {
	t.Helper()
	cfg := shopify.Config{Base: fake}
	if change != nil {
		change(&cfg)
	}
	c, err := shopify.New(shopify.StaticToken("token"), shopify.ClientConfig{Config: cfg})
	require.NoError(t, err)
	s, err := c.Shop(shopName)
	require.NoError(t, err)
	return s
}

func newFake(t *testing.T, cfg shopifytest.Config) *shopifytest.Server {
	t.Helper()
	fake, err := shopifytest.New(cfg)
	require.NoError(t, err)
	return fake
}

func fill(t *testing.T, fake *shopifytest.Server, products int) {
	t.Helper()
	for i := range products {
		_, err := fake.Shop(shopName).Exec(`mutation($t: String!) { productCreate(product: {title: $t}) { product { id } userErrors { message } } }`, map[string]any{"t": fmt.Sprintf("Product %d", i+1)})
		require.NoError(t, err)
	}
}

type productNode struct{ ID, Title string }

func TestQueryAndMutate(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	s := newClient(t, fake, nil)
	made, err := shopify.Mutate[struct {
		ProductCreate struct{ Product productNode }
	}](t.Context(), s, `mutation($title: String!) { productCreate(product: {title: $title}) { product { id title } userErrors { field message } } }`, map[string]any{"title": "Shirt"})
	require.NoError(t, err)
	require.Equal(t, "Shirt", made.ProductCreate.Product.Title)
	got, err := shopify.Query[struct{ Product productNode }](t.Context(), s, `query($id: ID!) { product(id: $id) { id title } }`, map[string]any{"id": made.ProductCreate.Product.ID})
	require.NoError(t, err)
	require.Equal(t, made.ProductCreate.Product, got.Product)

	_, err = shopify.Mutate[any](t.Context(), s, `mutation { productCreate(product: {title: ""}) { product { id } userErrors { field message } } }`, nil)
	require.ErrorIs(t, err, shopify.ErrUserErrors)
	var user *shopify.UserErrorsError
	require.ErrorAs(t, err, &user)
	require.Equal(t, []shopify.UserError{{Mutation: "productCreate", Field: []string{"title"}, Message: "Title can't be blank"}}, user.Errors)
	require.ErrorContains(t, err, "productCreate.title: Title can't be blank")
	_, err = shopify.Query[struct{ Shop int }](t.Context(), s, `{ shop { id } }`, nil)
	require.ErrorContains(t, err, "does not fit")
}

func TestErrorsSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Scopes: []string{"read_products"}})
	fill(t, fake, 1)
	s := newClient(t, fake, nil)
	// Data that is there comes with the errors of what is not.
	part, err := shopify.Query[struct {
		Products struct{ Nodes []productNode }
		Orders   *struct{}
	}](t.Context(), s, `{ products(first: 1) { nodes { id title } } customer(id: "gid://shopify/Customer/1") { id } }`, nil)
	require.ErrorIs(t, err, shopify.ErrAccessDenied)
	require.Equal(t, "Product 1", part.Products.Nodes[0].Title)
	var re *shopify.ResponseError
	require.ErrorAs(t, err, &re)
	require.True(t, re.Partial)
	require.True(t, re.Permanent())
	require.Equal(t, []any{"customer"}, re.Errors[0].Path)
	require.NotEmpty(t, re.RequestID)
	require.ErrorContains(t, err, "(ACCESS_DENIED) at customer")

	_, err = shopify.Query[any](t.Context(), s, `{ nope }`, nil)
	require.ErrorAs(t, err, &re)
	require.False(t, re.Partial)
	require.Equal(t, "undefinedField", re.Errors[0].Code)
	before := fake.Shop(shopName).Stats().Requests
	_, err = shopify.Query[any](t.Context(), s, `{ products(first: 250) { nodes { variants(first: 250) { nodes { metafields(first: 250) { nodes { id } } } } } } }`, nil)
	require.ErrorIs(t, err, shopify.ErrTooExpensive)
	require.ErrorContains(t, err, "products.nodes.variants.nodes.metafields")
	require.Equal(t, before, fake.Shop(shopName).Stats().Requests, "it was not sent")

	for status, c := range map[int]struct {
		is        error
		permanent bool
	}{
		401: {shopify.ErrUnauthorized, true}, 402: {nil, true}, 403: {shopify.ErrAccessDenied, true}, 404: {shopify.ErrNotFound, true}, 422: {nil, true}, 423: {nil, true}, 430: {nil, true}, 501: {nil, true},
		429: {shopify.ErrThrottled, false}, 500: {nil, false}, 503: {nil, false}, 408: {nil, false},
	} {
		down := roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: http.Header{"X-Request-Id": {"req-1"}}, Body: io.NopCloser(strings.NewReader(`{"errors":"no"}`)), Request: r}, nil
		})
		s := newClient(t, down, func(c *shopify.Config) { c.Breakers = noRetries(t); c.MaxThrottled = 1 })
		_, err := s.REST(t.Context(), http.MethodGet, "shop.json", nil, nil)
		var se *shopify.StatusError
		require.ErrorAs(t, err, &se, status)
		require.Equal(t, status, se.Status)
		require.Equal(t, c.permanent, se.Permanent(), status)
		require.ErrorContains(t, err, "req-1")
		if c.is != nil {
			require.ErrorIs(t, err, c.is)
		}
		var later interface{ RetryAfter() time.Duration }
		require.Equal(t, status == 429, errors.As(err, &later), "only what says when to come again puts a job off without counting it")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func noRetries(t *testing.T) *breaker.Group {
	t.Helper()
	g, err := breaker.NewGroup("shopify", 10, breaker.Config{Timeout: breaker.NoTimeout, Retry: breaker.Retry{MaxAttempts: 1}})
	require.NoError(t, err)
	return g
}

// TestWhatIsSentAgain goes through the table of what may be: how often each kind of request is sent when each kind of thing goes wrong once.
func TestWhatIsSentAgain(t *testing.T) {
	t.Parallel()
	const (
		query    = `{ shop { id } }`
		mutation = `mutation { customerCreate(input: {firstName: "A"}) { customer { id } userErrors { message } } }`
		keyed    = `mutation($idempotencyKey: String!) { inventorySetQuantities(input: {name: "available", reason: "correction", quantities: [{inventoryItemId: "gid://shopify/InventoryItem/3", locationId: "LOCATION", quantity: 5, changeFromQuantity: 0}]}) @idempotent(key: $idempotencyKey) { inventoryAdjustmentGroup { id } userErrors { code message } } }`
	)
	for _, c := range []struct {
		name                   string
		fault                  shopifytest.Fault
		query, mutation, keyed int
	}{
		{"nothing", shopifytest.NoFault, 1, 1, 1},
		{"429", shopifytest.TooManyRequests, 2, 1, 2}, // the edge's has no cost: it may have come from anywhere on the way
		{"500", shopifytest.ServerError, 2, 1, 2},
		{"502", shopifytest.BadGateway, 2, 1, 2},
		{"503", shopifytest.Unavailable, 2, 1, 2},
		{"INTERNAL_SERVER_ERROR", shopifytest.InternalError, 2, 1, 2},
		{"a broken connection", shopifytest.CutBefore, 2, 1, 2},
		{"a lost answer", shopifytest.CutAfter, 2, 1, 2},
		{"no extensions", shopifytest.NoExtensions, 1, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for text, want := range map[string]int{query: c.query, mutation: c.mutation, keyed: c.keyed} {
					sent := 0
					fake := newFake(t, shopifytest.Config{Fault: func(*http.Request) shopifytest.Fault {
						if sent++; sent == 1 {
							return c.fault
						}
						return shopifytest.NoFault
					}})
					require.NoError(t, fake.Shop(shopName).Ensure("gid://shopify/InventoryItem/3"))
					b, err := fake.Shop(shopName).Exec(`{ locations(first: 1) { nodes { id } } }`, nil)
					require.NoError(t, err)
					var l struct {
						Locations struct{ Nodes []struct{ ID string } }
					}
					require.NoError(t, json.Unmarshal(b, &l))
					s := newClient(t, fake, nil)
					ctx := shopify.WithIdempotencyKey(t.Context(), "job 1")
					_, err = shopify.Mutate[any](ctx, s, strings.ReplaceAll(text, "LOCATION", l.Locations.Nodes[0].ID), nil)
					require.Equal(t, want, sent, text)
					require.Equal(t, want == 1 && c.fault != shopifytest.NoFault && c.fault != shopifytest.NoExtensions, err != nil, "%v", err)
				}
			})
		})
	}
}

func TestAThrottledCallIsWaitedOutAndSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{})
		var answers []shopify.Answered
		s := newClient(t, fake, func(c *shopify.Config) { c.OnAnswer = func(a shopify.Answered) { answers = append(answers, a) } })
		ask := func() error {
			_, err := shopify.Mutate[any](shopify.WithInteractive(t.Context()), s, `mutation { customerCreate(input: {firstName: "A"}) { customer { id } userErrors { message } } }`, nil)
			return err
		}
		require.NoError(t, ask())
		require.True(t, fake.Shop(shopName).Use("token", 1985)) // a stranger takes nearly all
		begun := time.Now()
		require.NoError(t, ask())
		require.Len(t, answers, 3)
		require.True(t, answers[1].Throttled)
		require.InDelta(t, 0.6, time.Since(begun).Seconds(), 0.6, "as long as it takes to fill up, and the margin that a stranger makes")
		require.Equal(t, 1, fake.Shop(shopName).Stats().Throttled)

		// One who never leaves anything: the error says when to come again.
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for ctx.Err() == nil {
				fake.Shop(shopName).SetPlan(shopifytest.Plan{Points: 5, PointsPerSecond: 1, Calls: 1, CallsPerSecond: 1})
				time.Sleep(time.Millisecond)
			}
		}()
		time.Sleep(time.Second)
		err := ask()
		cancel()
		require.Error(t, err)
		time.Sleep(time.Second)
	})
}

func TestQuotaThatIsNotThereInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{})
		s := newClient(t, fake, nil)
		ask := func(ctx context.Context) error {
			_, err := shopify.Query[any](ctx, s, `{ products(first: 250) { nodes { variants(first: 100) { nodes { id metafield(namespace: "a", key: "b") { id } } } } } }`, nil) // 233 points, two to use
			return err
		}
		shop := fake.Shop(shopName)
		shop.SetPlan(shopifytest.Plan{Points: 2000, PointsPerSecond: 1, Calls: 1, CallsPerSecond: 1})
		require.NoError(t, ask(t.Context()))
		require.True(t, shop.Use("token", 1900)) // a stranger
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := ask(ctx) // is throttled, and learns from that
		require.ErrorIs(t, err, shopify.ErrQuota)
		require.Zero(t, time.Since(begun), "it fails at once")
		var full *shopify.QuotaError
		require.ErrorAs(t, err, &full)
		require.True(t, full.ParkGroup())
		require.Greater(t, full.RetryAfter(), time.Second)
		time.Sleep(full.RetryAfter())
		require.NoError(t, ask(t.Context()), "and it was right about when")
	})
}

func TestEachAdaptsItsPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{})
		fill(t, fake, 620)
		var sizes []int
		var mu sync.Mutex
		s := newClient(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			var in struct{ Variables struct{ First int } }
			if err := json.Unmarshal(b, &in); err != nil {
				return nil, err
			}
			mu.Lock()
			sizes = append(sizes, in.Variables.First)
			mu.Unlock()
			r.Body = io.NopCloser(bytes.NewReader(b))
			return fake.RoundTrip(r)
		}), nil)
		walk := func(query string, vars map[string]any) (ids []string) {
			sizes = nil
			for p, err := range shopify.Each[productNode](t.Context(), s, query, vars, "products") {
				require.NoError(t, err)
				ids = append(ids, p.ID)
			}
			return ids
		}
		const cheap = `query($first: Int!, $after: String) { products(first: $first, after: $after) { nodes { id title } pageInfo { hasNextPage endCursor } } }`
		ids := walk(cheap, nil)
		require.Len(t, ids, 620)
		require.Equal(t, []int{250, 250, 250}, sizes)
		require.Len(t, walk(cheap, map[string]any{"first": 300}), 620)
		require.Len(t, walk(strings.Replace(cheap, "nodes { id title }", "edges { node { id title } }", 1), map[string]any{"first": 200}), 620)
		require.Equal(t, 200, sizes[0])
		// A page of 250 would cost more than any query may.
		const dear = `query($first: Int!, $after: String) { products(first: $first, after: $after) { nodes { id variants(first: 250) { nodes { id metafields(first: 50) { nodes { id } } } } } pageInfo { hasNextPage endCursor } } }`
		require.Len(t, walk(dear, nil), 620)
		require.Less(t, sizes[0], 250)
		// With little left, the pages are smaller.
		time.Sleep(time.Minute)
		fake.Shop(shopName).Use("token", 1950)
		_, err := shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
		require.NoError(t, err)
		for _, err := range shopify.Each[productNode](t.Context(), s, dear, nil, "products") {
			require.NoError(t, err)
			break
		}
		first := sizes[len(sizes)-1]
		require.Less(t, first, sizes[0])

		for query, want := range map[string]string{
			`query($first: Int!) { products(first: $first) { nodes { id } } }`:                                                          "pageInfo",
			`query($first: Int!) { products(first: $first) { nodes { id } pageInfo { hasNextPage endCursor } } }`:                       "$after",
			`query($first: Int!, $after: String) { p: products(first: $first, after: $after) { nodes { id } pageInfo { endCursor } } }`: "no products",
			`query($first: Int!, $after: String) { nope }`:                                                                              "undefinedField",
		} {
			var last error
			for _, err := range shopify.Each[productNode](t.Context(), s, query, nil, "products") {
				last = err
			}
			require.ErrorContains(t, last, want, query)
		}
	})
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	var keys []string
	s := newClient(t, roundTripper(func(r *http.Request) (*http.Response, error) {
		var in struct {
			Variables struct{ IdempotencyKey string }
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			return nil, err
		}
		keys = append(keys, in.Variables.IdempotencyKey)
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"data":{}}`)), Request: r}, nil
	}), nil)
	const m = `mutation($n: Int!, $idempotencyKey: String!) { refundCreate(input: {orderId: "gid://shopify/Order/1"}) @idempotent(key: $idempotencyKey) { userErrors { message } } }`
	for _, job := range []string{"job 1", "job 2"} {
		ctx := shopify.WithIdempotencyKey(t.Context(), job)
		for _, n := range []int{1, 1, 2} {
			_, err := shopify.Mutate[any](ctx, s, m, map[string]any{"n": n})
			require.NoError(t, err)
		}
	}
	require.Len(t, keys, 6)
	require.Equal(t, keys[0], keys[1], "the same work has the same key")
	require.NotEqual(t, keys[0], keys[2], "other input is other work")
	require.NotEqual(t, keys[0], keys[3], "another job is other work")
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, keys[0])
	_, err := shopify.Mutate[any](t.Context(), s, m, nil)
	require.ErrorContains(t, err, "WithIdempotencyKey")
	_, err = shopify.Mutate[any](t.Context(), s, m, map[string]any{"idempotencyKey": "mine"})
	require.NoError(t, err)
	require.Equal(t, "mine", keys[6])
}

func TestNotices(t *testing.T) {
	t.Parallel()
	var notices []shopify.Notice
	fake := newFake(t, shopifytest.Config{})
	s := newClient(t, fake, func(c *shopify.Config) {
		c.Version, c.OnNotice = "2024-01", func(n shopify.Notice) { notices = append(notices, n) }
	})
	_, err := shopify.Query[any](t.Context(), s, `query Old { customers(first: 1) { nodes { email } } }`, nil)
	require.NoError(t, err)
	require.Len(t, notices, 1)
	require.Equal(t, "2024-01", notices[0].Version)
	require.Equal(t, "2025-10", notices[0].Served)
	require.Equal(t, "Old", notices[0].Operation)
	require.Contains(t, notices[0].Deprecated, "https://")
	_, err = shopify.NewTransport(shopify.Config{Version: "2026-05"})
	require.ErrorContains(t, err, "2026-05")
}

func TestREST(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{})
		fill(t, fake, 7)
		s := newClient(t, fake, nil)
		var titles []string
		for next := "products.json?limit=3"; next != ""; {
			var page struct{ Products []struct{ Title string } }
			h, err := s.REST(t.Context(), http.MethodGet, next, nil, &page)
			require.NoError(t, err)
			for _, p := range page.Products {
				titles = append(titles, p.Title)
			}
			next = shopify.Next(h)
		}
		require.Len(t, titles, 7)
		// Two hundred calls at once: none is throttled, and they take as long as two a second make.
		begun := time.Now()
		var wg sync.WaitGroup
		limiter, err := shopify.NewLimiter(shopify.LimiterConfig{MaxWait: -1})
		require.NoError(t, err)
		s = newClient(t, fake, func(c *shopify.Config) { c.Limiter = limiter })
		for range 200 {
			wg.Go(func() {
				if _, err := s.REST(t.Context(), http.MethodGet, "shop.json", nil, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Zero(t, fake.Shop(shopName).Stats().Throttled)
		require.InDelta(t, 80, time.Since(begun).Seconds(), 5)
	})
}

// TestTransportServesAnyClient sends requests as a plain http.Client does.
func TestTransportServesAnyClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{Latency: func() time.Duration { return time.Second }}) // so that many are under way
		fill(t, fake, 30)
		transport, err := shopify.NewTransport(shopify.Config{Base: fake})
		require.NoError(t, err)
		client := &http.Client{Transport: transport}
		send := func() (string, error) {
			body := `{"query":"query Many($n: Int!) { products(first: $n) { nodes { id variants(first: 50) { nodes { id } } } } }","variables":{"n":200}}`
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+shopName+"/admin/api/2026-04/graphql.json", strings.NewReader(body))
			if err != nil {
				return "", err
			}
			r.Header.Set("X-Shopify-Access-Token", "token")
			resp, err := client.Do(r)
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			return string(b), err
		}
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() {
				b, err := send()
				if err != nil || !strings.Contains(b, "gid://shopify/Product/") {
					t.Error(err, b)
				}
			})
		}
		wg.Wait()
		require.Zero(t, fake.Shop(shopName).Stats().Throttled)
		// A path without a version is the Admin API too.
		transport, err = shopify.NewTransport(shopify.Config{Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"X-Shopify-Shop-Api-Call-Limit": {"40/40"}}, Body: http.NoBody, Request: r}, nil
		})})
		require.NoError(t, err)
		unversioned := &http.Client{Transport: transport}
		begun := time.Now()
		for range 3 {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+shopName+"/admin/products.json", nil)
			require.NoError(t, err)
			resp, err := unversioned.Do(r)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
		}
		require.Greater(t, time.Since(begun), time.Second, "it waits for quota")
		// What is not Shopify's passes through.
		transport, err = shopify.NewTransport(shopify.Config{Base: fake})
		require.NoError(t, err)
		other := &http.Client{Transport: transport}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com/other", nil)
		require.NoError(t, err)
		resp, err := other.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
	})
}

func TestAShopThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent := map[string]int{}
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			sent[r.Host]++
			if r.Host == shopName {
				return nil, errors.New("connection refused")
			}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"data":{"shop":{}}}`)), Request: r}, nil
		})
		client, err := shopify.New(shopify.StaticToken("token"), shopify.ClientConfig{Config: shopify.Config{Base: base}})
		require.NoError(t, err)
		down, err := client.Shop(shopName)
		require.NoError(t, err)
		up, err := client.Shop("up.myshopify.com")
		require.NoError(t, err)
		for range 100 {
			_, err = shopify.Query[any](t.Context(), down, `{ shop { id } }`, nil)
			require.Error(t, err)
		}
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.Less(t, sent[shopName], 30)
		_, err = shopify.Query[any](t.Context(), up, `{ shop { id } }`, nil)
		require.NoError(t, err)
	})
}

func TestTokens(t *testing.T) {
	t.Parallel()
	var got []string
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		got = append(got, r.Host+" "+r.Header.Get("X-Shopify-Access-Token"))
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"data":{"shop":{}}}`)), Request: r}, nil
	})
	client, err := shopify.New(shopify.StaticTokens{"a.myshopify.com": "ta"}, shopify.ClientConfig{Config: shopify.Config{Base: base}, Endpoint: "http://localhost:4000/"})
	require.NoError(t, err)
	a, err := client.Shop("a.myshopify.com")
	require.NoError(t, err)
	_, err = shopify.Query[any](t.Context(), a, `{ shop { id } }`, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"a.myshopify.com ta"}, got)
	b, err := client.Shop("b.myshopify.com")
	require.NoError(t, err)
	_, err = shopify.Query[any](t.Context(), b, `{ shop { id } }`, nil)
	require.ErrorIs(t, err, shopify.ErrUnauthorized)
	require.Len(t, got, 1)
	_, err = shopify.New(nil, shopify.ClientConfig{})
	require.ErrorContains(t, err, "StaticToken")
}

func FuzzCheckDomain(f *testing.F) {
	for _, s := range []string{"example.myshopify.com", "a-b-1.myshopify.com", "evil.tld/myshopify.com", "x.myshopify.com.evil.com", "-a.myshopify.com", ".myshopify.com", "A.myshopify.com", "a.b.myshopify.com", "a@b.myshopify.com", "a.myshopify.com:80", "a.myshopify.com/", "a.myshopify.com\n", "ä.myshopify.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := shopify.CheckDomain(s)
		if err != nil {
			require.ErrorIs(t, err, shopify.ErrShop)
			return
		}
		require.Regexp(t, `\A[a-z0-9][a-z0-9-]*\.myshopify\.com\z`, s)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s+"/admin", nil)
		require.NoError(t, err)
		require.Equal(t, s, r.URL.Host)
	})
}
