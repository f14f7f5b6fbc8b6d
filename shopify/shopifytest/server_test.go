package shopifytest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// answer is a GraphQL answer.
type answer struct {
	Status int
	Header http.Header
	Data   map[string]any
	Errors []struct {
		Message    string
		Path       []any
		Locations  []map[string]int
		Extensions map[string]any
	}
	Extensions struct {
		Cost *struct {
			RequestedQueryCost int
			ActualQueryCost    *int
			ThrottleStatus     struct{ MaximumAvailable, CurrentlyAvailable, RestoreRate int }
			Fields             []map[string]any
		}
	}
	Raw string
}

// code is the code of the first error.
func (a *answer) code() any {
	if len(a.Errors) == 0 {
		return nil
	}
	return a.Errors[0].Extensions["code"]
}

// at walks into the data by keys and indexes.
func (a *answer) at(t *testing.T, path ...any) any {
	t.Helper()
	var v any = a.Data
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, ok := v.(map[string]any)
			require.True(t, ok, "%v in %s", path, a.Raw)
			v = m[p]
		case int:
			l, ok := v.([]any)
			require.True(t, ok && p < len(l), "%v in %s", path, a.Raw)
			v = l[p]
		}
	}
	return v
}

type option func(*http.Request)

func token(s string) option {
	return func(r *http.Request) { r.Header.Set("X-Shopify-Access-Token", s) }
}

func version(v string) option {
	return func(r *http.Request) { r.URL.Path = strings.Replace(r.URL.Path, "2026-04", v, 1) }
}

// try sends a request, and returns what went wrong on the way.
func try(t *testing.T, fake http.RoundTripper, query string, vars map[string]any, options ...option) (*answer, error) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": vars})
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://example.myshopify.com/admin/api/2026-04/graphql.json", bytes.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("X-Shopify-Access-Token", "token")
	for _, o := range options {
		o(r)
	}
	resp, err := fake.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	require.NoError(t, err)
	a := &answer{Status: resp.StatusCode, Header: resp.Header, Raw: b.String()}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") && resp.StatusCode == http.StatusOK {
		require.NoError(t, json.Unmarshal(b.Bytes(), a), a.Raw)
	}
	return a, nil
}

func post(t *testing.T, fake http.RoundTripper, query string, vars map[string]any, options ...option) *answer {
	t.Helper()
	a, err := try(t, fake, query, vars, options...)
	require.NoError(t, err)
	return a
}

// good sends a request that must have no errors.
func good(t *testing.T, fake http.RoundTripper, query string, vars map[string]any, options ...option) *answer {
	t.Helper()
	a := post(t, fake, query, vars, options...)
	require.Empty(t, a.Errors, a.Raw)
	require.Equal(t, http.StatusOK, a.Status)
	return a
}

func newFake(t *testing.T, cfg shopifytest.Config) *shopifytest.Server {
	t.Helper()
	fake, err := shopifytest.New(cfg)
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	return fake
}

// products makes some, named Product 1 and so on.
func products(t *testing.T, shop *shopifytest.Shop, n int) (ids []string) {
	t.Helper()
	for i := range n {
		b, err := shop.Exec(`mutation($title: String!) { productCreate(product: {title: $title}) { product { id } userErrors { message } } }`, map[string]any{"title": fmt.Sprintf("Product %d", i+1)})
		require.NoError(t, err)
		var made struct {
			ProductCreate struct{ Product struct{ ID string } }
		}
		require.NoError(t, json.Unmarshal(b, &made))
		ids = append(ids, made.ProductCreate.Product.ID)
	}
	return ids
}

func TestACostIsTakenFromTheBucketAndTheRestGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{Latency: func() time.Duration { return time.Second }})
		products(t, fake.Shop("example.myshopify.com"), 3)
		const query = `{ products(first: 100) { nodes { id variants(first: 50) { nodes { id } } } } }`
		a := good(t, fake, query, nil)
		c := a.Extensions.Cost
		require.Equal(t, 92, c.RequestedQueryCost) // 2 + 9 × (1 + 2 + 7)
		require.Equal(t, 3, *c.ActualQueryCost)
		require.Equal(t, 2000, c.ThrottleStatus.MaximumAvailable)
		require.Equal(t, 100, c.ThrottleStatus.RestoreRate)
		// While it took a second the bucket has filled up with more than was used.
		require.Equal(t, 2000, c.ThrottleStatus.CurrentlyAvailable)

		// Fifty at once: what is asked for has to be there, whatever comes back.
		results := make([]*answer, 50)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { results[i], _ = try(t, fake, query, nil) })
		}
		wg.Wait()
		throttled := 0
		for _, a := range results {
			if a.code() != "THROTTLED" {
				continue
			}
			throttled++
			require.Nil(t, a.Extensions.Cost.ActualQueryCost)
			require.Less(t, a.Extensions.Cost.ThrottleStatus.CurrentlyAvailable, 92)
			require.Nil(t, a.Data)
		}
		require.Equal(t, 50-21, throttled, "2000 hold 92 just 21 times")
		require.Equal(t, shopifytest.Stats{Requests: 51, Throttled: 29, Points: 22 * 3, Webhooks: 3}, fake.Shop("example.myshopify.com").Stats())
	})
}

func TestABucketFillsAtItsRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{})
		shop := fake.Shop("example.myshopify.com")
		require.True(t, shop.Use("token", 2000))
		require.False(t, shop.Use("token", 1))
		a := post(t, fake, `{ shop { id } }`, nil)
		require.Equal(t, "THROTTLED", a.code())
		require.Equal(t, "Throttled", a.Errors[0].Message)
		require.Equal(t, http.StatusOK, a.Status)
		time.Sleep(10*time.Millisecond - 1)
		require.Equal(t, "THROTTLED", post(t, fake, `{ shop { id } }`, nil).code())
		time.Sleep(time.Nanosecond)
		good(t, fake, `{ shop { id } }`, nil)
		// Another app has a bucket of its own, another shop too.
		require.Equal(t, 1999, good(t, fake, `{ shop { id } }`, nil, token("other")).Extensions.Cost.ThrottleStatus.CurrentlyAvailable)
		shop.SetPlan(shopifytest.Plus)
		require.Equal(t, 20000, good(t, fake, `{ shop { id } }`, nil).Extensions.Cost.ThrottleStatus.MaximumAvailable)
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Token: "secret", Scopes: []string{"read_products", "write_customers"}})
	for name, c := range map[string]struct {
		query, code, message string
		vars                 map[string]any
	}{
		"a query that costs too much": {
			query: `{ products(first: 250) { nodes { variants(first: 250) { nodes { metafields(first: 250) { nodes { id } } } } } } }`, code: "MAX_COST_EXCEEDED",
			message: "Query cost is 1729, which exceeds the single query max cost limit (1000)",
		},
		"an unknown field":             {query: `{ shop { nope } }`, code: "undefinedField", message: "Field 'nope' doesn't exist on type 'Shop'"},
		"an unknown argument":          {query: `{ products(frist: 1) { nodes { id } } }`, code: "argumentNotAccepted", message: "Field 'products' doesn't accept argument 'frist'"},
		"a missing argument":           {query: `{ product { id } }`, code: "missingRequiredArguments", message: "Field 'product' is missing required arguments: id"},
		"no selection":                 {query: `{ shop }`, code: "selectionMismatch", message: "Field must have selections (field 'shop' returns Shop but has no selections. Did you mean 'shop { ... }'?)"},
		"a selection on a scalar":      {query: `{ shop { name { x } } }`, code: "selectionMismatch", message: "Selections can't be made on scalars"},
		"an unknown directive":         {query: `{ shop { id @nope } }`, code: "undefinedDirective", message: "Directive @nope is not defined"},
		"a query that can't be read":   {query: `{ shop { `, code: "parseError"},
		"a missing variable":           {query: `query($id: ID!) { product(id: $id) { id } }`, code: "INVALID_VARIABLE", message: "Variable $id of type ID! was provided invalid value"},
		"a page without a size":        {query: `{ products { nodes { id } } }`, code: "BAD_REQUEST", message: "you must provide one of first or last"},
		"a page that is too large":     {query: `{ products(first: 251) { nodes { id } } }`, code: "BAD_REQUEST"},
		"a scope that is missing":      {query: `{ orders(first: 1) { nodes { id } } }`, code: "ACCESS_DENIED", message: "Access denied for orders field. Required access: `read_orders` access scope."},
		"a scope to write":             {query: `mutation { productCreate(product: {title: "x"}) { product { id } } }`, code: "ACCESS_DENIED", message: "Access denied for productCreate field. Required access: `write_products` access scope."},
		"an ID of another type":        {query: `{ product(id: "gid://shopify/Order/1") { id } }`, code: "RESOURCE_NOT_FOUND", message: "Invalid id: gid://shopify/Order/1"},
		"a cursor that is none":        {query: `{ products(first: 1, after: "x") { nodes { id } } }`, code: "BAD_REQUEST", message: "Invalid cursor for current pagination sort."},
		"too much input":               {query: `mutation($t: [String!]!) { tagsAdd(id: "gid://shopify/Customer/1", tags: $t) { userErrors { message } } }`, vars: map[string]any{"t": make([]string, 251)}, code: "MAX_INPUT_SIZE_EXCEEDED", message: "The input array size of 251 is greater than the maximum allowed of 250."},
		"a field that the fake lacks":  {query: `{ shop { id features { storefront } } }`, code: "FAKE_UNSUPPORTED", message: "shopifytest does not support Shop.features"},
		"a mutation that it lacks":     {query: `mutation { urlRedirectDelete(id: "x") { deletedUrlRedirectId } }`, code: "FAKE_UNSUPPORTED", message: "shopifytest does not support the mutation urlRedirectDelete"},
		"an input that it lacks":       {query: `mutation { customerCreate(input: {firstName: "A", taxExemptions: []}) { customer { id } } }`, code: "FAKE_UNSUPPORTED", message: "shopifytest does not support the input input.taxExemptions of customerCreate"},
		"a search field that it lacks": {query: `{ products(first: 1, query: "bundles:true") { nodes { id } } }`, code: "FAKE_UNSUPPORTED", message: "shopifytest does not support the search field bundles of Product"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := post(t, fake, c.query, c.vars, token("secret"))
			require.Equal(t, http.StatusOK, a.Status)
			require.Equal(t, c.code, a.code(), a.Raw)
			require.Contains(t, a.Errors[0].Message, c.message)
			if c.code != "INVALID_VARIABLE" && c.code != "MAX_COST_EXCEEDED" && c.code != "parseError" && c.code != "undefinedDirective" {
				require.NotEmpty(t, a.Errors[0].Locations, a.Raw)
			}
		})
	}
	t.Run("a token that is not the app's", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, http.StatusUnauthorized, post(t, fake, `{ shop { id } }`, nil, token("guess")).Status)
	})
	t.Run("what has failed has changed nothing", func(t *testing.T) {
		t.Parallel()
		a := post(t, fake, `mutation { customerCreate(input: {firstName: "A"}) { customer { id subscriptionContracts(first: 1) { nodes { id } } events(first: 1) { nodes { id } } } } }`, nil, token("secret"))
		require.Equal(t, "FAKE_UNSUPPORTED", a.code(), a.Raw)
		a = post(t, fake, `{ customersCount { count } }`, nil, token("secret"))
		require.EqualValues(t, 0, a.at(t, "customersCount", "count"))
	})
}

func TestMistakesHaveTheirPath(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	a := post(t, fake, "query Wrong { s: shop { nope } node(id: \"gid://shopify/Product/1\") { ... on Product { nope } ...F } } fragment F on Product { nope }", nil)
	var paths [][]any
	for _, e := range a.Errors {
		paths = append(paths, e.Path)
	}
	require.ElementsMatch(t, [][]any{{"query Wrong", "s", "nope"}, {"query Wrong", "node", "... on Product", "nope"}, {"fragment F", "nope"}}, paths)
}

func TestVersions(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	for asked, served := range map[string]string{"2026-04": "2026-04", "2024-01": "2025-10", "2025-10": "2025-10", "unstable": "unstable", "2030-01": "2026-10"} {
		a := good(t, fake, `{ shop { id } }`, nil, version(asked))
		require.Equal(t, served, a.Header.Get("X-Shopify-API-Version"), asked)
	}
	require.Equal(t, http.StatusNotFound, post(t, fake, `{ shop { id } }`, nil, version("latest")).Status)
	require.Empty(t, good(t, fake, `{ shop { id } }`, nil).Header.Get("X-Shopify-API-Deprecated-Reason"))
	require.NotEmpty(t, good(t, fake, `{ customers(first: 1) { nodes { email } } }`, nil).Header.Get("X-Shopify-API-Deprecated-Reason"))
	require.Equal(t, "undefinedDirective", post(t, fake, `mutation { inventorySetQuantities(input: {name: "available", reason: "correction", ignoreCompareQuantity: true, quantities: []}) @idempotent(key: "k") { userErrors { code } } }`, nil, version("2025-10")).code())
}

func TestFaults(t *testing.T) {
	t.Parallel()
	var fault shopifytest.Fault
	fake := newFake(t, shopifytest.Config{Fault: func(*http.Request) shopifytest.Fault { return fault }})
	shop := fake.Shop("example.myshopify.com")
	create := func() (*answer, error) {
		return try(t, fake, `mutation { customerCreate(input: {firstName: "A"}) { customer { id } } }`, nil)
	}
	count := func() int {
		fault = shopifytest.NoFault
		n, ok := good(t, fake, `{ customersCount { count } }`, nil).at(t, "customersCount", "count").(float64)
		require.True(t, ok)
		return int(n)
	}
	for f, status := range map[shopifytest.Fault]int{shopifytest.TooManyRequests: 429, shopifytest.ServerError: 500, shopifytest.BadGateway: 502, shopifytest.Unavailable: 503} {
		fault = f
		a, err := create()
		require.NoError(t, err)
		require.Equal(t, status, a.Status)
		require.Equal(t, map[bool]string{true: "2.0"}[status == 429], a.Header.Get("Retry-After"))
		require.Equal(t, status > 500, strings.Contains(a.Raw, "<html>"))
	}
	fault = shopifytest.InternalError
	a, err := create()
	require.NoError(t, err)
	require.Equal(t, "INTERNAL_SERVER_ERROR", a.code())
	require.NotContains(t, a.Raw, "cost")
	fault = shopifytest.CutBefore
	_, err = create()
	require.Error(t, err)
	require.Zero(t, count())
	fault = shopifytest.CutAfter
	_, err = create()
	require.Error(t, err)
	require.Equal(t, 1, count())
	fault = shopifytest.NoExtensions
	a, err = create()
	require.NoError(t, err)
	require.NotContains(t, a.Raw, "extensions")
	require.Equal(t, 2, count())
	require.Positive(t, shop.Stats().Points)

	random := shopifytest.RandomFaults(1, map[shopifytest.Fault]float64{shopifytest.ServerError: 0.5})
	seen := map[shopifytest.Fault]int{}
	for range 1000 {
		seen[random(nil)]++
	}
	require.InDelta(t, 500, seen[shopifytest.ServerError], 60)
	require.Len(t, seen, 2)
}

func TestShopsAreNamedByHostOrPath(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Shop: "default.myshopify.com"})
	name := func(host, path string) any {
		return good(t, fake, `{ shop { myshopifyDomain } }`, nil, func(r *http.Request) {
			r.Host, r.URL.Path = host, path+r.URL.Path
		}).at(t, "shop", "myshopifyDomain")
	}
	require.Equal(t, "default.myshopify.com", name("localhost:4000", ""))
	require.Equal(t, "a.myshopify.com", name("a.myshopify.com", ""))
	require.Equal(t, "b.myshopify.com", name("localhost:4000", "/b.myshopify.com"))
	_, err := shopifytest.New(shopifytest.Config{Shop: "example.com"})
	require.ErrorContains(t, err, "example.com")
	require.Panics(t, func() { fake.Shop("evil.com/x.myshopify.com") })
}

func TestCostsAreExplainedOnDemand(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	a := good(t, fake, `{ shop { primaryDomain { id } } }`, nil, func(r *http.Request) { r.Header.Set("Shopify-GraphQL-Cost-Debug", "1") })
	require.Len(t, a.Extensions.Cost.Fields, 3)
	require.Equal(t, []any{"shop"}, a.Extensions.Cost.Fields[0]["path"])
	require.EqualValues(t, 2, a.Extensions.Cost.Fields[0]["requestedTotalCost"])
}
