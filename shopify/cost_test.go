package shopify_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/shopify"
)

// sizes are how often an element of a page of so many counts.
var sizes = map[int]int{
	1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3, 8: 4, 9: 4, 10: 4, 15: 5, 20: 5, 25: 6, 30: 6, 50: 7, 75: 8, 100: 9, 150: 10, 200: 10, 250: 11,
}

// queries of our own, with what they cost by the rules, s being what a page of n counts.
var queries = []struct {
	what, query string
	cost        func(s int) int
}{
	{"nodes", `{ products(first: N) { nodes { id title } } }`, func(s int) int { return 2 + s }},
	{"edges, with cursors and page info", `{ products(first: N) { edges { cursor node { id } } pageInfo { hasNextPage endCursor } } }`, func(s int) int { return 2 + s }},
	{"nodes and edges add up", `{ products(last: N) { nodes { id } edges { node { id } } } }`, func(s int) int { return 2 + 2*s }},
	{"a connection in a connection", `{ products(first: N) { nodes { id variants(first: 10) { nodes { id } } } } }`, func(s int) int { return 2 + s*(1+2+4) }},
	{"money is free", `{ orders(first: N) { nodes { totalPriceSet { shopMoney { amount currencyCode } } } } }`, func(s int) int { return 2 + s }},
	{"an object has a price", `{ orders(first: N) { nodes { id customer { id } shippingAddress { city } } } }`, func(s int) int { return 2 + s*(1+1+1) }},
	{"a field with a price of its own", `{ customers(first: N) { nodes { id defaultAddress { city } } } }`, func(s int) int { return 2 + s }},
	{"below an object", `query Lines($id: ID!) { order(id: $id) { lineItems(last: N) { nodes { id } } } }`, func(s int) int { return 1 + 2 + s }},
	{"a default", `query Page($n: Int = N) { products(first: $n) { nodes { id } } }`, func(s int) int { return 2 + s }},
	{"aliases add up, the same key does not", `{ a: products(first: N) { nodes { id } } b: products(first: N) { nodes { id } } a: products(first: N) { nodes { title } } }`, func(s int) int { return 2 * (2 + s) }},
	{"fragments are free", `query { products(first: N) { ...page } } fragment page on ProductConnection { nodes { ...product } } fragment product on Product { id featuredMedia { id } }`, func(s int) int { return 2 + s*(1+1) }},
	{"what is skipped is not there", `{ products(first: N) @skip(if: true) { nodes { id } } shop { id } orders(first: N) @include(if: true) { nodes { id } } }`, func(s int) int { return 1 + 2 + s }},
	{"an interface is its dearest object", `query($ids: [ID!]!) { nodes(ids: $ids) { id ... on Product { variants(first: N) { nodes { id } } } ... on Order { id customer { id } } } }`, func(s int) int { return 1 + max(2+s, 1) }},
	{"a mutation's payload is free", `mutation($p: ProductUpdateInput!) { productUpdate(product: $p) { product { id variants(first: N) { nodes { id } } } userErrors { field message } } }`, func(s int) int { return 10 + 2 + s }},
	{"counts", `{ productsCount { count } products(first: N) { nodes { id } } }`, func(s int) int { return 10 + 2 + s }},
	{"a list counts once", `{ products(first: N) { nodes { options { name optionValues { name } } } } }`, func(s int) int { return 2 + s*(1+1+1) }},
}

func TestCostOfQueries(t *testing.T) {
	t.Parallel()
	costs, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	n := 0
	for _, q := range queries {
		for size, s := range sizes {
			r := shopify.Request{Query: strings.ReplaceAll(q.query, "N", fmt.Sprint(size))}
			cost, err := costs.Of(r)
			require.NoError(t, err, r.Query)
			require.Equal(t, q.cost(s), cost, "%s: %s", q.what, r.Query)
			n++
			for _, version := range []string{"2025-01", "2025-10", "2026-10", "unstable", "2030-01"} {
				e, err := shopify.Explain(version, r)
				require.NoError(t, err)
				require.Equal(t, cost, e.Requested, "%s: %s", version, r.Query)
				require.Empty(t, e.Unknown)
			}
			cost, err = costs.Of(r)
			require.NoError(t, err)
			require.Equal(t, q.cost(s), cost, "remembered")
		}
	}
	require.GreaterOrEqual(t, n, 300)
}

func TestCostOfVariables(t *testing.T) {
	t.Parallel()
	costs, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	page := `query($n: Int, $with: Boolean = false, $id: ID) { products(first: $n) { nodes { id } } order(id: $id) @include(if: $with) { id } }`
	media := `mutation($p: ProductCreateInput!, $m: [CreateMediaInput!]) { productCreate(product: $p, media: $m) { product { id } } }`
	for range 2 { // computed, and remembered
		for _, c := range []struct {
			query string
			vars  map[string]any
			want  int
		}{
			{page, nil, 2},
			{page, map[string]any{"n": 10}, 6},
			{page, map[string]any{"n": float64(250)}, 13},
			{page, map[string]any{"n": json.Number("50")}, 9},
			{page, map[string]any{"n": int64(1) << 60}, 2 + 42},
			{page, map[string]any{"n": -5}, 2},
			{page, map[string]any{"n": nil, "id": "x"}, 2},
			{page, map[string]any{"n": 10, "with": true}, 7},
			{page, map[string]any{"n": 10, "with": false, "id": "y"}, 6},
			{media, nil, 10},
			{media, map[string]any{"m": []any{1, 2}}, 14}, // 13.8
			{media, map[string]any{"m": []map[string]string{{}, {}, {}}}, 16},
			{media, map[string]any{"p": map[string]any{"metafields": make([]any, 5)}}, 12},
		} {
			got, err := costs.Of(shopify.Request{Query: c.query, Variables: c.vars})
			require.NoError(t, err)
			require.Equal(t, c.want, got, "%v", c.vars)
		}
	}
}

func TestQueryOverTheLimitIsRefusedWithItsDearestPath(t *testing.T) {
	t.Parallel()
	costs, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	q := `{ shop { id } all: products(first: 250) { nodes { id variants(first: 250) { nodes { id metafields(first: 250) { nodes { id } } } } } } }`
	for range 2 {
		_, err = costs.Of(shopify.Request{Query: q})
		require.ErrorIs(t, err, shopify.ErrTooExpensive)
		c, ok := errors.AsType[*shopify.CostError](err)
		require.True(t, ok)
		require.Equal(t, shopify.CostError{Most: 1000, Requested: 1 + 2 + 11*(1+2+11*(1+2+11)), Path: "all.nodes.variants.nodes.metafields", Cost: 11 * 11 * 13}, *c)
		require.True(t, c.Permanent())
		require.ErrorContains(t, err, "all.nodes.variants.nodes.metafields is 1573 of it")
	}
}

func TestCostsLearnFromAnswers(t *testing.T) {
	t.Parallel()
	costs, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	r := shopify.Request{Query: `query($n: Int, $q: String) { products(first: $n, query: $q) { nodes { id } } }`, Variables: map[string]any{"n": 10, "q": "a"}}
	require.NoError(t, costs.Learn(r, 99.0))
	for q, want := range map[string]int{"a": 99, "b": 99} { // what does not bear on the cost makes no difference
		r.Variables = map[string]any{"n": 10, "q": q}
		got, err := costs.Of(r)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	r.Variables["n"] = 11
	got, err := costs.Of(r)
	require.NoError(t, err)
	require.Equal(t, 6, got, "of another size nothing is known")
	require.NoError(t, costs.Learn(r, 2000))
	_, err = costs.Of(r)
	require.ErrorIs(t, err, shopify.ErrTooExpensive)
	require.Error(t, costs.Learn(r, -1))
	require.ErrorIs(t, costs.Learn(shopify.Request{Query: "{"}, 1), shopify.ErrQuery)
}

func TestCostsRememberABoundedNumber(t *testing.T) {
	t.Parallel()
	costs, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	kept := shopify.Request{Query: `query kept($n: Int) { products(first: $n) { nodes { id } } }`, Variables: map[string]any{"n": 10}}
	require.NoError(t, costs.Learn(kept, 50))
	first := shopify.Request{Query: `query first { products(first: 10) { nodes { id } } }`}
	require.NoError(t, costs.Learn(first, 50))
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 1000 {
				_, err := costs.Of(shopify.Request{Query: fmt.Sprintf("query q%d_%d { shop { id } }", g, i)})
				assert.NoError(t, err)
				if got, err := costs.Of(kept); assert.NoError(t, err) {
					assert.Equal(t, 50, got, "what is used stays")
				}
			}
		})
	}
	all.Wait()
	got, err := costs.Of(first)
	require.NoError(t, err)
	require.Equal(t, 6, got, "and what is not goes")
}

func TestBadQueries(t *testing.T) {
	t.Parallel()
	costs, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	for query, want := range map[string]string{
		"":              "no operation",
		"{ shop { id }": "",
		"query a { shop { id } } query b { shop { id } }": "it has 2 operations",
		"{ ...a }": `no fragment "a"`,
		"{ ...a } fragment a on QueryRoot { ...a }": "round in a circle",
		doubling(30):            "too many fragments",
		"subscription { shop }": "subscriptions are not",
		strings.Repeat("{ shop ", 200) + strings.Repeat("}", 200): "levels deep",
	} {
		_, err := costs.Of(shopify.Request{Query: query})
		require.ErrorIs(t, err, shopify.ErrQuery, query)
		require.ErrorContains(t, err, want)
	}
	two := "query a { shop { id } } query b { shop { id } products(first: 10) { nodes { id } } }"
	for name, want := range map[string]int{"a": 1, "b": 7} {
		got, err := costs.Of(shopify.Request{Query: two, OperationName: name})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err = costs.Of(shopify.Request{Query: two, OperationName: "c"})
	require.ErrorContains(t, err, `no operation "c"`)
}

// doubling is a query whose fragments double with each of n levels.
func doubling(n int) string {
	var b strings.Builder
	b.WriteString("{ ...f0 }")
	for i := range n {
		fmt.Fprintf(&b, " fragment f%d on QueryRoot { ...f%d ...f%d }", i, i+1, i+1)
	}
	fmt.Fprintf(&b, " fragment f%d on QueryRoot { shop { id } }", n)
	return b.String()
}

// What the schema does not have is guessed, and named.
func TestUnknownFieldsAreGuessedAndNamed(t *testing.T) {
	t.Parallel()
	e, err := shopify.Explain("2026-04", shopify.Request{Query: `{ shop { id hoverboard { speed } } products(first: 10) { nodes { id } wheels } ... on Skate { id } }`})
	require.NoError(t, err)
	require.Equal(t, 2+6, e.Requested)
	require.Contains(t, e.Unknown, "Shop.hoverboard")
	require.Contains(t, e.Unknown, "ProductConnection.wheels")
	require.Contains(t, e.Unknown, "... on Skate")
}

func FuzzExplain(f *testing.F) {
	for _, q := range queries {
		f.Add(q.query, `{"n": 10}`)
	}
	f.Add(`query($n: Int = $n) { products(first: $n) { nodes { id } } }`, `{"n": [1]}`)
	f.Add(`{ a: __typename __type(name: "x") { fields { name } } ...f } fragment f on QueryRoot { ...f }`, `{}`)
	f.Fuzz(func(t *testing.T, query, vars string) {
		var v map[string]any
		_ = json.Unmarshal([]byte(vars), &v)
		r := shopify.Request{Query: query, Variables: v}
		e, err := shopify.Explain("2026-04", r)
		if err != nil {
			require.ErrorIs(t, err, shopify.ErrQuery)
			return
		}
		require.GreaterOrEqual(t, e.Requested, 1)
		_ = e.String()
		costs, err := shopify.NewCosts("2026-04")
		require.NoError(t, err)
		cost, err := costs.Of(r)
		require.Equal(t, e.Requested, cost)
		require.Equal(t, cost > shopify.MaxCost, errors.Is(err, shopify.ErrTooExpensive))
	})
}
