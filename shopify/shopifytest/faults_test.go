package shopifytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
	"github.com/breakwater-go/breakwater/webhook"
)

func noPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if v := recover(); v != nil {
			t.Errorf("panic: %v", v)
		}
	}()
	f()
}

func TestNumbersThatNothingHolds(t *testing.T) {
	t.Parallel()
	for _, q := range []string{
		`{ products(first: 99999999999999999999) { nodes { id } } }`,
		`{ products(first: 9999999999) { nodes { id } } }`,
		`mutation { productCreate(product: {title: "a"}) { product { id variants(first: 99999999999999999999) { nodes { id } } } userErrors { message } } }`,
		`mutation { inventoryItemUpdate(id: "gid://shopify/InventoryItem/1", input: {measurement: {weight: {value: 1e999, unit: GRAMS}}}) { userErrors { message } } }`,
		`{ products(first: 1) { nodes { id @include(if: 1) } } }`,
		`{ product(id: 99999999999999999999) { id } }`,
		`query($n: Int = 99999999999999999999) { products(first: $n) { nodes { id } } }`,
	} {
		fake := newFake(t, shopifytest.Config{})
		noPanic(t, func() { post(t, fake, q, nil) })
		good(t, fake, `{ shop { id } }`, nil) // it does not hang
	}
	fake := newFake(t, shopifytest.Config{})
	for _, n := range []any{json.Number("99999999999999999999"), 1.5, "5", 2147483648, true, []any{5}, map[string]any{}} {
		noPanic(t, func() {
			a := post(t, fake, `query($n: Int!) { products(first: $n) { nodes { id } } }`, map[string]any{"n": n})
			t.Logf("first: %T(%v) → %s", n, n, a.Raw)
		})
	}
}

func TestOneVariantTwiceInAList(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	p := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	noPanic(t, func() {
		a := good(t, fake, `mutation($p: ID!) { productVariantsBulkCreate(productId: $p, variants: [{optionValues: [{optionName: "Title", name: "a"}]}, {optionValues: [{optionName: "Title", name: "b"}]}, {optionValues: [{optionName: "Title", name: "c"}]}]) { productVariants { id } userErrors { message } } }`, map[string]any{"p": p})
		id := a.at(t, "productVariantsBulkCreate", "productVariants", 0, "id")
		post(t, fake, `mutation($p: ID!, $v: [ID!]!) { productVariantsBulkDelete(productId: $p, variantsIds: $v) { userErrors { message } } }`, map[string]any{"p": p, "v": []any{id, id}})
	})
	good(t, fake, `{ shop { id } }`, nil) // it does not hang
}

func TestOneInPlaceOfAList(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	p := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	a := good(t, fake, `mutation($m: [MetafieldsSetInput!]!) { metafieldsSet(metafields: $m) { metafields { key } userErrors { message } } }`, map[string]any{"m": map[string]any{"ownerId": p, "namespace": "n", "key": "k", "type": "single_line_text_field", "value": "v"}})
	if l, _ := a.at(t, "metafieldsSet", "metafields").([]any); len(l) != 1 {
		t.Errorf("the metafield was dropped without a word: %s", a.Raw)
	}
	a = good(t, fake, `mutation($id: ID!, $tags: [String!]!) { tagsAdd(id: $id, tags: $tags) { node { ... on Product { tags } } userErrors { message } } }`, map[string]any{"id": p, "tags": "red"})
	if got := fmt.Sprint(a.at(t, "tagsAdd", "node", "tags")); got != "[red]" {
		t.Errorf("tags %s, want [red]", got)
	}
	a = good(t, fake, `query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, map[string]any{"ids": p})
	require.Equal(t, p, a.at(t, "nodes", 0, "id"))
	a = good(t, fake, `mutation($o: OrderCreateOrderInput!) { orderCreate(order: $o) { order { id } userErrors { message } } }`, map[string]any{"o": map[string]any{"lineItems": map[string]any{"title": "Thing", "quantity": 1, "priceSet": map[string]any{"shopMoney": map[string]any{"amount": "1", "currencyCode": "USD"}}}}})
	require.NotNil(t, a.at(t, "orderCreate", "order"), a.Raw)
}

func TestAnEnumInOtherLetters(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	a := post(t, fake, `mutation($s: ProductStatus!) { productCreate(product: {title: "a", status: $s}) { product { status } userErrors { message } } }`, map[string]any{"s": "active"})
	require.NotEmpty(t, a.Errors, "the API does not know the status active")
}

func TestOneLevelTwiceInAList(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	require.NoError(t, fake.Shop("example.myshopify.com").Ensure("gid://shopify/InventoryItem/3"))
	l := good(t, fake, `{ locations(first: 1) { nodes { id } } }`, nil).at(t, "locations", "nodes", 0, "id")
	a := good(t, fake, `mutation($l: ID!) { inventoryAdjustQuantities(input: {name: "available", reason: "correction", changes: [{inventoryItemId: "gid://shopify/InventoryItem/3", locationId: $l, delta: 1}, {inventoryItemId: "gid://shopify/InventoryItem/3", locationId: $l, delta: 1}]}) @idempotent(key: "a") { inventoryAdjustmentGroup { changes { delta } } userErrors { message code } } }`, map[string]any{"l": l})
	b := good(t, fake, `{ inventoryItem(id: "gid://shopify/InventoryItem/3") { inventoryLevels(first: 1) { nodes { quantities(names: ["available"]) { quantity } } } } }`, nil)
	if errs, _ := a.at(t, "inventoryAdjustQuantities", "userErrors").([]any); len(errs) == 0 {
		require.EqualValues(t, 2, b.at(t, "inventoryItem", "inventoryLevels", "nodes", 0, "quantities", 0, "quantity"))
	}
}

func TestOneMetafieldTwiceInACall(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	p := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	good(t, fake, `mutation($p: ID!) { metafieldsSet(metafields: [{ownerId: $p, namespace: "n", key: "k", type: "single_line_text_field", value: "1"}, {ownerId: $p, namespace: "n", key: "k", type: "single_line_text_field", value: "2"}]) { metafields { id } userErrors { message } } }`, map[string]any{"p": p})
	a := good(t, fake, `query($p: ID!) { product(id: $p) { metafields(first: 5) { nodes { key value } } } }`, map[string]any{"p": p})
	require.Len(t, a.at(t, "product", "metafields", "nodes"), 1, a.Raw)
}

func TestEnsureLeavesNothingOver(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	shop := fake.Shop("example.myshopify.com")
	require.NoError(t, shop.Ensure("gid://shopify/ProductVariant/5"))
	a := post(t, fake, `{ inventoryItems(first: 10) { nodes { id variant { id } } } }`, nil)
	if len(a.Errors) > 0 || len(a.at(t, "inventoryItems", "nodes").([]any)) != 1 {
		t.Errorf("an item without a variant: %s", a.Raw)
	}
	// An ID ahead of the counter.
	require.NoError(t, shop.Ensure("gid://shopify/Customer/7100000000100"))
	for i := range 200 {
		_, err := shop.Exec(`mutation($n: String!) { customerCreate(input: {firstName: $n}) { customer { id } userErrors { message } } }`, map[string]any{"n": fmt.Sprint("C", i)})
		require.NoError(t, err)
	}
	a = good(t, fake, `{ customersCount { count } customers(first: 250) { nodes { id } } }`, nil)
	seen := map[any]bool{}
	for _, n := range a.at(t, "customers", "nodes").([]any) {
		id := n.(map[string]any)["id"]
		if seen[id] {
			t.Errorf("%v twice", id)
		}
		seen[id] = true
	}
}

func TestSearchesThatCompare(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	products(t, fake.Shop("example.myshopify.com"), 3)
	for _, q := range []string{`product_id:>0`, `inventory_item_id:>0`} {
		a := post(t, fake, `query($q: String!) { productVariants(first: 10, query: $q) { nodes { id } } }`, map[string]any{"q": q})
		if len(a.Errors) == 0 && len(a.at(t, "productVariants", "nodes").([]any)) != 3 {
			t.Errorf("%s: %s", q, a.Raw)
		}
	}
	a := post(t, fake, `{ products(first: 10, query: "status:ACTIVE,DRAFT") { nodes { id } } }`, nil)
	if len(a.Errors) == 0 && len(a.at(t, "products", "nodes").([]any)) != 3 {
		t.Errorf("status:ACTIVE,DRAFT: %s", a.Raw)
	}
	a = post(t, fake, `{ products(first: 10, query: "nosuchfield:1") { nodes { id } } }`, nil)
	require.Equal(t, "FAKE_UNSUPPORTED", a.code())
}

func TestRESTHasScopes(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Scopes: []string{"read_products"}})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.myshopify.com/admin/api/2026-04/orders.json", nil)
	require.NoError(t, err)
	r.Header.Set("X-Shopify-Access-Token", "token")
	resp, err := fake.RoundTrip(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
}

func TestMutationsOfAnyObjectHaveItsScope(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Scopes: []string{"read_products", "write_customers"}})
	id := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	for name, q := range map[string]string{
		"tagsAdd":       `mutation($id: ID!) { tagsAdd(id: $id, tags: ["x"]) { userErrors { message } } }`,
		"tagsRemove":    `mutation($id: ID!) { tagsRemove(id: $id, tags: ["x"]) { userErrors { message } } }`,
		"metafieldsSet": `mutation($id: ID!) { metafieldsSet(metafields: [{ownerId: $id, namespace: "a", key: "b", type: "single_line_text_field", value: "c"}]) { userErrors { message } } }`,
	} {
		a := post(t, fake, q, map[string]any{"id": id})
		require.Equal(t, "ACCESS_DENIED", a.code(), name)
		require.Contains(t, a.Errors[0].Message, "Access denied for "+name+" field")
	}
}

func TestNodesHaveScopes(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Scopes: []string{"read_products"}})
	require.NoError(t, fake.Shop("example.myshopify.com").Ensure("gid://shopify/Customer/5"))
	a := post(t, fake, `{ node(id: "gid://shopify/Customer/5") { ... on Customer { id email } } nodes(ids: ["gid://shopify/Customer/5"]) { id } }`, nil)
	require.NotEmpty(t, a.Errors)
}

func TestOddRESTPaths(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Plan: shopifytest.Plan{Points: 1e6, PointsPerSecond: 1e6, Calls: 1e6, CallsPerSecond: 1e6}})
	products(t, fake.Shop("example.myshopify.com"), 5)
	for _, p := range []string{
		"/.json", "products/.json", "products//variants.json", "products/count/variants.json", "products/-1.json", "products/99999999999999999999.json", "products/1/variants/count.json", "shop/count.json", "a/b/c/d.json", "count.json", "inventory_levels/1.json",
		"inventory_levels.json", "inventory_levels.json?inventory_item_ids=,", "products.json?limit=", "products.json?limit=-1", "products.json?since_id=x", "products.json?ids=", "products.json?page_info=%00", "products.json?page_info=e30", "products.json?page_info=bnVsbA",
		"products.json?page_info=eyJsYXN0X2lkIjo5MjIzMzcyMDM2ODU0Nzc1ODA3fQ", "products.json?page_info=eyJsYXN0X2lkIjotOTIyMzM3MjAzNjg1NDc3NTgwOCwiYmFjayI6dHJ1ZX0", "products.json?page_info=eyJmaWx0ZXJzIjoicGFnZV9pbmZvPXgifQ", "products.json?page_info=eyJmaWx0ZXJzIjoiaWRzIn0",
		"products.json?page_info=eyJmaWx0ZXJzIjoibm9wZT0xIn0", "products.json?fields=,,", "orders.json?status=any&financial_status=any", "orders.json?status=nope", "products.json?created_at_min=", "products.json?status=nope",
	} {
		noPanic(t, func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.myshopify.com/admin/api/2026-04/"+p, nil)
			require.NoError(t, err)
			r.Header.Set("X-Shopify-Access-Token", "token")
			resp, err := fake.RoundTrip(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.True(t, json.Valid(b), "%s: %s", p, b)
		})
	}
}

func TestOnWebhookMayMakeRequests(t *testing.T) {
	t.Parallel()
	var fake *shopifytest.Server
	fake, err := shopifytest.New(shopifytest.Config{Plan: shopifytest.Plan{Points: 1e9, PointsPerSecond: 1e9, Calls: 1e9, CallsPerSecond: 1e9}, OnWebhook: func(d webhook.Delivery) {
		if d.Topic == "products/create" {
			_, _ = fake.Shop(d.Shop).Exec(`mutation($id: ID!) { tagsAdd(id: $id, tags: ["x"]) { userErrors { message } } }`, map[string]any{"id": "gid://shopify/Product/" + d.ProductID})
		}
	}})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 10 {
				_, err := try(t, fake, `mutation($t: String!) { productCreate(product: {title: $t}) { product { id tags } userErrors { message } } }`, map[string]any{"t": fmt.Sprint(i)})
				if err != nil {
					t.Error(err)
				}
				_ = fake.WaitWebhooks(t.Context())
			}
		})
	}
	wg.Wait()
}

func TestWhatFailedSendsNoWebhook(t *testing.T) {
	t.Parallel()
	var got []string
	fake := newFake(t, shopifytest.Config{OnWebhook: func(d webhook.Delivery) { got = append(got, d.Topic) }})
	post(t, fake, `mutation { a: productCreate(product: {title: "a"}) { product { id } userErrors { message } } b: productCreate(product: {title: ""}) { product { id } userErrors { message } } c: customerCreate(input: {email: "x"}) { customer { id } userErrors { message } } }`, nil)
	require.Equal(t, []string{"products/create"}, got)
	// A list that is over the limit, at a root within a fragment.
	vars := map[string]any{"t": make([]string, 300)}
	a := post(t, fake, `mutation($t: [String!]!) { ... on Mutation { tagsAdd(id: "gid://shopify/Product/1", tags: $t) { userErrors { message } } } }`, vars)
	require.Equal(t, "MAX_INPUT_SIZE_EXCEEDED", a.code())
}

func TestAMetafieldOfAnother(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	all := products(t, fake.Shop("example.myshopify.com"), 2)
	a := good(t, fake, `mutation($p: ID!) { metafieldsSet(metafields: [{ownerId: $p, namespace: "n", key: "k", type: "single_line_text_field", value: "1"}]) { metafields { id } userErrors { message } } }`, map[string]any{"p": all[0]})
	id := a.at(t, "metafieldsSet", "metafields", 0, "id")
	post(t, fake, `mutation($p: ID!, $m: ID!) { productUpdate(product: {id: $p, metafields: [{id: $m, value: "2"}]}) { userErrors { message } } }`, map[string]any{"p": all[1], "m": id})
	a = good(t, fake, `query($p: ID!) { product(id: $p) { metafields(first: 5) { nodes { key value } } } }`, map[string]any{"p": all[0]})
	require.Equal(t, "1", a.at(t, "product", "metafields", "nodes", 0, "value"))
}

func TestOddBodies(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	for _, b := range []string{``, `null`, `[]`, `"x"`, `{}`, `{"query":null}`, `{"query":""}`, `{"query":"{ shop { id } }","variables":null}`, `{"query":"{ shop { id } }","variables":[]}`, `{"query":"{ shop { id } }","variables":""}`, `{"query":"{ shop { id } }","operationName":null}`, `{"query":"{ shop { id } }","operationName":"x"}`, `{"query":"query A { shop { id } } query B { shop { id } }"}`, `{"query":"fragment A on Shop { id }"}`, `{"query":"{ ...A } fragment A on QueryRoot { ...A }"}`, `{"query":"subscription { x }"}`, `{"query":"{ shop { id } }"}{}`, `{"query":"{ __schema { types { name fields { name } } } }"}`, `{"query":"query($a: NoSuch) { shop { id } }"}`, `{"query":"query($a: Shop) { shop { id } }"}`, `{"query":"{ shop { id @idempotent(key: \"a\") } }"}`, `{"query":"mutation @idempotent(key: \"a\") { tagsAdd(id: \"x\", tags: []) { userErrors { message } } }"}`, `{"query":"{ node(id: \"gid://shopify/Node/1\") { id } }"}`, `{"query":"{ node(id: \"gid://shopify/Count/1\") { id } }"}`, `{"query":"{ node(id: \"gid://shopify/QueryRoot/1\") { id } }"}`, `{"query":"{ nodes(ids: [null]) { id } }"}`, `{"query":"{ product(id: \"\") { id } }"}`, `{"query":"{ products(first: 1, after: \"x\") { nodes { id } } }"}`, `{"query":"{ products(first: 0) { nodes { id } pageInfo { hasNextPage endCursor } } }"}`, `{"query":"{ products { nodes { id } } }"}`, `{"query":"{ products(first: null) { nodes { id } } }"}`, `{"query":"{ products(first: 251) { nodes { id } } }"}`, `{"query":"{ inventoryLevel(id: \"gid://shopify/InventoryLevel/1?inventory_item_id=2\") { id } }"}`, `{"query":"{ productByIdentifier(identifier: {}) { id } }"}`, `{"query":"{ location { id } }"}`, `{"query":"{ location(id: \"gid://shopify/Product/1\") { id } }"}`} {
		noPanic(t, func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://example.myshopify.com/admin/api/2026-04/graphql.json", strings.NewReader(b))
			require.NoError(t, err)
			r.Header.Set("X-Shopify-Access-Token", "token")
			resp, err := fake.RoundTrip(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			out, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			var v map[string]any
			require.NoError(t, json.Unmarshal(out, &v))
			if v["data"] == nil && v["errors"] == nil {
				t.Errorf("%s: neither data nor errors: %s", b, out)
			}
		})
	}
}

func TestIDsOfAnotherType(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	p := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	noPanic(t, func() {
		a := post(t, fake, `query($p: ID!) { location(id: $p) { id name } }`, map[string]any{"p": p})
		require.Nil(t, a.at(t, "location"))
	})
	for _, q := range []string{`{ productByIdentifier(identifier: {id: "gid://shopify/Location/7100000000004"}) { id title } }`, `{ customerByIdentifier(identifier: {id: "gid://shopify/Shop/7100000000003"}) { id } }`} {
		noPanic(t, func() { t.Log(post(t, fake, q, nil).Raw) })
	}
}

func TestAPriceWithAGreatExponent(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	p := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	v := good(t, fake, `query($p: ID!) { product(id: $p) { variants(first: 1) { nodes { id } } } }`, map[string]any{"p": p}).at(t, "product", "variants", "nodes", 0, "id")
	begun := time.Now()
	post(t, fake, `mutation($p: ID!, $v: ID!) { productVariantsBulkUpdate(productId: $p, variants: [{id: $v, price: "1e50000000"}]) { userErrors { message } } }`, map[string]any{"p": p, "v": v})
	require.Less(t, time.Since(begun), 10*time.Second)
}

func TestASearchThatIsTooDeep(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	noPanic(t, func() {
		a := post(t, fake, `query($q: String!) { products(first: 1, query: $q) { nodes { id } } }`, map[string]any{"q": strings.Repeat("NOT ", 2_000_000) + "a"})
		require.Equal(t, "BAD_REQUEST", a.code())
	})
}
