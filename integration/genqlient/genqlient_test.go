package genqlient_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Khan/genqlient/generate"
	"github.com/Khan/genqlient/graphql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/integration/genqlient"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

const (
	shop  = "example.myshopify.com"
	token = "shpat_token"

	endpoint = "https://" + shop + "/admin/api/2026-04/graphql.json"
)

// doer gives each request the shop's token. It is all that genqlient needs beside the Transport.
type doer struct {
	client *http.Client
	token  string
}

func (d doer) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("X-Shopify-Access-Token", d.token)
	return d.client.Do(r) //nolint:gosec // the address is a constant above
}

func newClient(over http.RoundTripper) graphql.Client {
	return graphql.NewClient(endpoint, doer{&http.Client{Transport: over}, token})
}

func newTransport(t *testing.T, cfg shopify.Config) *shopify.Transport {
	t.Helper()
	transport, err := shopify.NewTransport(cfg)
	require.NoError(t, err)
	return transport
}

func newFake(t *testing.T, cfg shopifytest.Config) *shopifytest.Server {
	t.Helper()
	cfg.Token = token
	fake, err := shopifytest.New(cfg)
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	return fake
}

// create makes products, numbered from 1, and returns their titles.
func create(t *testing.T, client graphql.Client, products int) []string {
	t.Helper()
	var titles []string
	for i := range products {
		title := fmt.Sprintf("Product %d", i+1)
		made, err := genqlient.ProductCreate(t.Context(), client, genqlient.ProductCreateInput{Title: &title, Tags: []string{"new"}})
		require.NoError(t, err)
		require.Empty(t, made.ProductCreate.UserErrors)
		require.Equal(t, title, made.ProductCreate.Product.Title)
		titles = append(titles, title)
	}
	return titles
}

func TestPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{})
		var operations []string
		client := newClient(newTransport(t, shopify.Config{Base: fake, OnAnswer: func(a shopify.Answered) { operations = append(operations, a.Operation) }}))
		titles := create(t, client, 25)
		operations = nil

		var got []string
		for after := (*string)(nil); ; {
			page, err := genqlient.Products(t.Context(), client, 10, 5, after)
			require.NoError(t, err)
			for _, p := range page.Products.Nodes {
				got = append(got, p.Title)
				require.Len(t, p.Variants.Nodes, 1)
				require.Equal(t, "0.00", p.Variants.Nodes[0].Price)
			}
			if !page.Products.PageInfo.HasNextPage {
				break
			}
			after = page.Products.PageInfo.EndCursor
		}
		require.Equal(t, titles, got)
		require.Equal(t, []string{"Products", "Products", "Products"}, operations, "hooks see genqlient's names")
	})
}

func TestUserErrors(t *testing.T) {
	t.Parallel()
	client := newClient(newTransport(t, shopify.Config{Base: newFake(t, shopifytest.Config{})}))
	title := ""
	made, err := genqlient.ProductCreate(t.Context(), client, genqlient.ProductCreateInput{Title: &title})
	require.NoError(t, err)
	require.Nil(t, made.ProductCreate.Product)
	require.Len(t, made.ProductCreate.UserErrors, 1)
	require.Equal(t, []string{"title"}, made.ProductCreate.UserErrors[0].Field)
	require.Equal(t, "Title can't be blank", made.ProductCreate.UserErrors[0].Message)
}

func TestSearch(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	for i, email := range []string{"ann@example.com", "bob@example.com", "ann@example.com"} {
		_, err := fake.Shop(shop).Exec(`mutation($order: OrderCreateOrderInput!) { orderCreate(order: $order) { userErrors { field message } } }`, map[string]any{"order": map[string]any{
			"email":     email,
			"lineItems": []any{map[string]any{"title": "Shirt", "quantity": i + 1, "priceSet": map[string]any{"shopMoney": map[string]any{"amount": "9.50", "currencyCode": "USD"}}}},
		}})
		require.NoError(t, err)
	}
	client := newClient(newTransport(t, shopify.Config{Base: fake}))
	got, err := genqlient.Orders(t.Context(), client, "email:ann@example.com", 10)
	require.NoError(t, err)
	var amounts []string
	for _, o := range got.Orders.Nodes {
		require.Equal(t, "ann@example.com", *o.Email)
		require.False(t, o.CreatedAt.IsZero())
		amounts = append(amounts, o.TotalPriceSet.ShopMoney.Amount)
	}
	require.ElementsMatch(t, []string{"9.5", "28.5"}, amounts)
}

// Queries that together ask for twice what the bucket holds get their answers, and Shopify throttles none.
func TestConcurrentQueries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, titles := slowShop(t)
		var mu sync.Mutex
		var asked []float64
		var waited time.Duration
		client := newClient(newTransport(t, shopify.Config{Base: fake, OnAnswer: func(a shopify.Answered) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, a.Requested)
			waited = max(waited, a.Waited)
		}}))
		var wg sync.WaitGroup
		for i := range queries {
			wg.Go(func() {
				got, err := genqlient.Metafields(t.Context(), client, fewest+i, 5, 4)
				if !assert.NoError(t, err) {
					return
				}
				var answered []string
				for _, p := range got.Products.Nodes {
					answered = append(answered, p.Title)
				}
				assert.Equal(t, titles[:fewest+i], answered)
			})
		}
		wg.Wait()
		require.Zero(t, fake.Shop(shop).Stats().Throttled)
		sum := 0.0
		for _, points := range asked {
			require.GreaterOrEqual(t, points, 90.0)
			sum += points
		}
		require.Len(t, asked, queries)
		require.Greater(t, sum, 2*shopifytest.Standard.Points)
		require.NotZero(t, waited)
	})
}

// The same queries without the Transport: what TestConcurrentQueries sees is its work.
func TestConcurrentQueriesWithoutTransport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, _ := slowShop(t)
		client := newClient(fake)
		var wg sync.WaitGroup
		for i := range queries {
			wg.Go(func() { _, _ = genqlient.Metafields(t.Context(), client, fewest+i, 5, 4) })
		}
		wg.Wait()
		require.NotZero(t, fake.Shop(shop).Stats().Throttled)
	})
}

const (
	queries = 40
	fewest  = 20 // products that a query asks for
)

// slowShop is a shop with as many products as the queries ask for, a full bucket, and answers that take so long that all queries are under way at once.
func slowShop(t *testing.T) (fake *shopifytest.Server, titles []string) {
	t.Helper()
	fake = newFake(t, shopifytest.Config{Latency: func() time.Duration { return time.Second }})
	titles = create(t, newClient(newTransport(t, shopify.Config{Base: fake})), fewest+queries)
	time.Sleep(20 * time.Second)
	return fake, titles
}

func TestTooExpensive(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	client := newClient(newTransport(t, shopify.Config{Base: fake}))
	_, err := genqlient.Metafields(t.Context(), client, 250, 250, 250)
	require.ErrorIs(t, err, shopify.ErrTooExpensive)
	require.Zero(t, fake.Shop(shop).Stats().Requests, "it was not sent")
}

// A query that can't have its quota by the deadline fails at once, and says when it could.
func TestDeadline(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ ofContext, ofClient time.Duration }{
		"of the context":     {ofContext: time.Second},
		"of the http.Client": {ofClient: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := newFake(t, shopifytest.Config{})
				client := graphql.NewClient(endpoint, doer{&http.Client{Transport: newTransport(t, shopify.Config{Base: fake}), Timeout: tt.ofClient}, token})
				require.True(t, fake.Shop(shop).Use(token, 1900))
				create(t, client, 1) // its answer says what is left
				before := fake.Shop(shop).Stats().Requests

				ctx := t.Context()
				if tt.ofContext > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.ofContext)
					defer cancel()
				}
				begun := time.Now()
				_, err := genqlient.Metafields(ctx, client, 100, 10, 10)
				require.Zero(t, time.Since(begun))
				require.ErrorIs(t, err, shopify.ErrQuota)
				var quota *shopify.QuotaError
				require.ErrorAs(t, err, &quota)
				require.Equal(t, shop, quota.Bucket)
				require.Greater(t, quota.After, time.Second)
				require.Equal(t, before, fake.Shop(shop).Stats().Requests, "it was not sent")

				time.Sleep(quota.After)
				got, err := genqlient.Metafields(t.Context(), client, 100, 10, 10)
				require.NoError(t, err)
				require.Len(t, got.Products.Nodes, 1)
			})
		})
	}
}

// generated.go is what the pinned genqlient makes of the operations.
func TestGenerated(t *testing.T) {
	t.Parallel()
	cfg, err := generate.ReadAndValidateConfig("genqlient.yaml")
	require.NoError(t, err)
	made, err := generate.Generate(cfg)
	require.NoError(t, err)
	want, err := os.ReadFile("generated.go")
	require.NoError(t, err)
	require.Len(t, made, 1)
	for _, got := range made {
		require.Equal(t, string(want), string(got), "run go generate")
	}
}
