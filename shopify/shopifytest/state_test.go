package shopifytest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// TestEveryFieldThatIsSupportedAnswers asks for all fields of the tables, of objects that have just been made: none may be null where the schema says that it is not, and none
// may be missing in the schema.
func TestEveryFieldThatIsSupportedAnswers(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Plan: shopifytest.Plan{Points: 1e9, PointsPerSecond: 1, Calls: 1, CallsPerSecond: 1}})
	shop := fake.Shop("example.myshopify.com")
	ids := map[string]string{"Product": "1", "ProductVariant": "2", "InventoryItem": "3", "Customer": "4", "Location": "5"}
	for typ, n := range ids {
		require.NoError(t, shop.Ensure("gid://shopify/"+typ+"/"+n))
	}
	_, err := shop.Exec(`mutation { orderCreate(order: {lineItems: [{title: "Thing", quantity: 2, priceSet: {shopMoney: {amount: "9.5", currencyCode: USD}}}], email: "a@example.com"}) { userErrors { field message } } }`, nil)
	require.NoError(t, err)
	_, err = shop.Exec(`mutation { metafieldsSet(metafields: [{ownerId: "gid://shopify/Product/1", namespace: "n", key: "k", type: "json", value: "{}"}]) { userErrors { field message } } }`, nil)
	require.NoError(t, err)
	supported := shopifytest.Supported()
	schema := introspected(t, fake)
	roots := map[string]string{
		"Shop": `shop { %s }`, "Product": `product(id: "gid://shopify/Product/1") { %s }`, "ProductVariant": `productVariant(id: "gid://shopify/ProductVariant/2") { %s }`,
		"InventoryItem": `inventoryItem(id: "gid://shopify/InventoryItem/3") { %s }`, "Customer": `customer(id: "gid://shopify/Customer/4") { %s }`, "Location": `location(id: "gid://shopify/Location/5") { %s }`,
		"Order": `orders(first: 1) { nodes { %s } }`, "LineItem": `orders(first: 1) { nodes { lineItems(first: 1) { nodes { %s } } } }`,
		"Metafield":      `product(id: "gid://shopify/Product/1") { metafields(first: 1) { nodes { %s } } }`,
		"InventoryLevel": `inventoryItem(id: "gid://shopify/InventoryItem/3") { inventoryLevels(first: 1) { nodes { %s } } }`,
		"ProductOption":  `product(id: "gid://shopify/Product/1") { options { %s } }`, "ProductOptionValue": `product(id: "gid://shopify/Product/1") { options { optionValues { %s } } }`,
	}
	args := map[string]string{
		"metafield": `(namespace: "n", key: "k")`, "inCollection": `(id: "gid://shopify/Collection/1")`, "quantities": `(names: ["available", "on_hand"])`, "options": "", "addresses": "",
	}
	for _, typ := range slices.Sorted(maps.Keys(roots)) {
		asked := 0
		for _, f := range append([]string{"id"}, supported[typ]...) {
			def, ok := schema[typ][f]
			if f == "id" && !ok {
				continue
			}
			require.True(t, ok, "%s.%s is in no schema", typ, f)
			arg := args[f]
			for _, a := range def.args {
				if _, known := args[f]; !known && (a == "first" || a == "locationId!" || a == "inventoryItemId!") {
					arg = map[string]string{"first": "(first: 2)", "locationId!": `(locationId: "gid://shopify/Location/5")`, "inventoryItemId!": `(inventoryItemId: "gid://shopify/InventoryItem/3")`}[a]
				}
			}
			selection := f + arg
			if def.object {
				selection += " { __typename }"
			}
			good(t, fake, "{ "+fmt.Sprintf(roots[typ], selection)+" }", nil)
			asked++
		}
		require.NotZero(t, asked)
	}
}

type fieldDef struct {
	args   []string
	object bool
}

// introspected asks the fake for its schema, as tools do.
func introspected(t *testing.T, fake *shopifytest.Server) map[string]map[string]fieldDef {
	t.Helper()
	a := good(t, fake, `{ __schema { queryType { name } mutationType { name } types { name kind fields(includeDeprecated: true) { name args { name type { kind } defaultValue } type { kind ofType { kind ofType { kind ofType { kind } } } } } } directives { name locations args { name } } } }`, nil)
	require.Equal(t, "QueryRoot", a.at(t, "__schema", "queryType", "name"))
	var s struct {
		Schema struct {
			Types []struct {
				Name   string
				Fields []struct {
					Name string
					Args []struct {
						Name         string
						Type         struct{ Kind string }
						DefaultValue *string
					}
					Type json.RawMessage
				}
			}
		} `json:"__schema"`
	}
	b, err := json.Marshal(a.Data)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &s))
	out := map[string]map[string]fieldDef{}
	for _, typ := range s.Schema.Types {
		out[typ.Name] = map[string]fieldDef{}
		for _, f := range typ.Fields {
			d := fieldDef{object: strings.Contains(string(f.Type), `"OBJECT"`) || strings.Contains(string(f.Type), `"INTERFACE"`) || strings.Contains(string(f.Type), `"UNION"`)}
			for _, arg := range f.Args {
				name := arg.Name
				if arg.Type.Kind == "NON_NULL" && arg.DefaultValue == nil {
					name += "!"
				}
				d.args = append(d.args, name)
			}
			out[typ.Name][f.Name] = d
		}
	}
	require.Greater(t, len(out), 2000)
	require.NotEmpty(t, out["Product"]["variants"].args)
	return out
}

func TestPagesGoForwardsAndBackwards(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	ids := products(t, fake.Shop("example.myshopify.com"), 7)
	var seen []any
	var after any
	pages := 0
	for more := true; more; pages++ {
		a := good(t, fake, `query($after: String) { products(first: 3, after: $after) { edges { cursor node { id } } nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`, map[string]any{"after": after})
		edges, ok := a.at(t, "products", "edges").([]any)
		require.True(t, ok)
		for i := range edges {
			seen = append(seen, a.at(t, "products", "edges", i, "node", "id"))
			require.Equal(t, a.at(t, "products", "edges", i, "node", "id"), a.at(t, "products", "nodes", i, "id"))
		}
		require.Equal(t, a.at(t, "products", "edges", len(edges)-1, "cursor"), a.at(t, "products", "pageInfo", "endCursor"))
		require.Equal(t, pages > 0, a.at(t, "products", "pageInfo", "hasPreviousPage"))
		after = a.at(t, "products", "pageInfo", "endCursor")
		more, _ = a.at(t, "products", "pageInfo", "hasNextPage").(bool)
	}
	require.Equal(t, 3, pages)
	require.Len(t, seen, 7)
	for i, id := range ids {
		require.Equal(t, id, seen[i])
	}
	back := good(t, fake, `query($before: String) { products(last: 2, before: $before) { nodes { id } pageInfo { hasNextPage hasPreviousPage } } }`, map[string]any{"before": after})
	require.Equal(t, ids[4], back.at(t, "products", "nodes", 0, "id"))
	require.Equal(t, ids[5], back.at(t, "products", "nodes", 1, "id"))
	require.Equal(t, true, back.at(t, "products", "pageInfo", "hasNextPage"))
	reverse := good(t, fake, `{ products(first: 1, reverse: true, sortKey: TITLE) { nodes { title } } }`, nil)
	require.Equal(t, "Product 7", reverse.at(t, "products", "nodes", 0, "title"))
	// A cursor outlives the element that it was of.
	_, err := fake.Shop("example.myshopify.com").Exec(`mutation($id: ID!) { productDelete(input: {id: $id}) { userErrors { message } } }`, map[string]any{"id": ids[2]})
	require.NoError(t, err)
	first := good(t, fake, `{ products(first: 2) { pageInfo { endCursor } } }`, nil).at(t, "products", "pageInfo", "endCursor")
	next := good(t, fake, `query($after: String) { products(first: 1, after: $after) { nodes { id } } }`, map[string]any{"after": first})
	require.Equal(t, ids[3], next.at(t, "products", "nodes", 0, "id"))
}

func TestSearch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{})
		shop := fake.Shop("example.myshopify.com")
		var ids, times []string
		for i, p := range []string{`{title: "Red shirt", vendor: "Acme Inc", tags: ["a", "b"], status: ACTIVE}`, `{title: "Blue shirt", vendor: "Other", tags: ["b"], status: DRAFT}`, `{title: "Red hat", productType: "Hats", status: ARCHIVED}`} {
			b, err := shop.Exec(`mutation { productCreate(product: `+p+`) { product { id updatedAt } userErrors { message } } }`, nil)
			require.NoError(t, err, i)
			var made struct {
				ProductCreate struct {
					Product struct{ ID, UpdatedAt string }
				}
			}
			require.NoError(t, json.Unmarshal(b, &made))
			ids, times = append(ids, made.ProductCreate.Product.ID[strings.LastIndex(made.ProductCreate.Product.ID, "/")+1:]), append(times, made.ProductCreate.Product.UpdatedAt)
			time.Sleep(time.Hour)
		}
		for query, want := range map[string]string{
			"":                                 "012",
			"shirt":                            "01",
			"RED":                              "02",
			"title:'Red shirt'":                "0",
			`vendor:"acme inc"`:                "0",
			"vendor:Acme*":                     "0",
			"tag:b":                            "01",
			"tag:b AND -tag:a":                 "1",
			"tag:b NOT tag:a":                  "1",
			"status:draft OR status:archived":  "12",
			"status:active,draft OR tag:a":     "01",
			"(tag:a OR product_type:hats) red": "02",
			"id:" + ids[1]:                     "1",
			"id:>=" + ids[1]:                   "12",
			"id:<" + ids[1]:                    "0",
			"updated_at:>'" + times[0] + "'":   "12",
			"updated_at:>=" + times[1]:         "12",
			"updated_at:<=" + times[1]:         "01",
			"created_at:<2000-01-01":           "",
			"created_at:2000-01-01":            "012",
			"tag:(a":                           "",
		} {
			a := good(t, fake, `query($q: String) { products(first: 10, query: $q) { nodes { id } } productsCount(query: $q) { count precision } }`, map[string]any{"q": query})
			var got strings.Builder
			nodes, ok := a.at(t, "products", "nodes").([]any)
			require.True(t, ok)
			for i := range nodes {
				id, _ := a.at(t, "products", "nodes", i, "id").(string)
				fmt.Fprint(&got, slices.Index(ids, id[strings.LastIndex(id, "/")+1:]))
			}
			require.Equal(t, want, got.String(), query)
			require.EqualValues(t, len(want), a.at(t, "productsCount", "count"), query)
		}
	})
}

func TestAliasesFragmentsAndConditions(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	id := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	a := good(t, fake, `query($id: ID!, $no: Boolean!) {
		one: product(id: $id) { ...P title @skip(if: true) name: title }
		node(id: $id) { __typename id ... on Product { handle } ... on Order { name } ... on Article { title } }
		nodes(ids: [$id, "gid://shopify/Product/999"]) { id }
		gone: product(id: "gid://shopify/Product/999") { id }
		no: shop @include(if: $no) { id }
	}
	fragment P on Product { id variants(first: 1) { nodes { id } } variants(first: 1) { nodes { price } } ... on Node { nodeID: id } }`, map[string]any{"id": id, "no": false})
	require.Equal(t, "Product 1", a.at(t, "one", "name"))
	require.NotContains(t, a.at(t, "one"), "title")
	require.Equal(t, id, a.at(t, "one", "nodeID"))
	require.Equal(t, "0.00", a.at(t, "one", "variants", "nodes", 0, "price"))
	require.NotNil(t, a.at(t, "one", "variants", "nodes", 0, "id"))
	require.Equal(t, map[string]any{"__typename": "Product", "id": id, "handle": "product-1"}, a.at(t, "node"))
	require.Equal(t, []any{map[string]any{"id": id}, nil}, a.at(t, "nodes"))
	require.Nil(t, a.at(t, "gone"))
	require.NotContains(t, a.Data, "no")
	require.Less(t, strings.Index(a.Raw, `"one"`), strings.Index(a.Raw, `"node"`), "keys come in the query's order")
}

func TestProductsAndVariants(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{Plan: shopifytest.Plus})
	a := good(t, fake, `mutation { productCreate(product: {title: "Shirt", descriptionHtml: "<p>Fine &amp; soft</p>", tags: "b, a", productOptions: [{name: "Size", values: [{name: "S"}, {name: "M"}]}], metafields: [{namespace: "n", key: "k", type: "number_integer", value: "5"}]}) {
		product { id handle description tags options { name values optionValues { name hasVariants } } variants(first: 5) { nodes { id title selectedOptions { name value } } } metafield(namespace: "n", key: "k") { jsonValue ownerType } }
		userErrors { field message } } }`, nil)
	p := "productCreate"
	require.Equal(t, []any{}, a.at(t, p, "userErrors"))
	require.Equal(t, "Fine & soft", a.at(t, p, "product", "description"))
	require.Equal(t, []any{"a", "b"}, a.at(t, p, "product", "tags"))
	require.Equal(t, []any{"S"}, a.at(t, p, "product", "options", 0, "values"))
	require.Equal(t, false, a.at(t, p, "product", "options", 0, "optionValues", 1, "hasVariants"))
	require.Equal(t, "S", a.at(t, p, "product", "variants", "nodes", 0, "title"))
	require.EqualValues(t, 5, a.at(t, p, "product", "metafield", "jsonValue"))
	id := a.at(t, p, "product", "id")

	a = good(t, fake, `mutation($id: ID!) { productVariantsBulkCreate(productId: $id, variants: [
		{price: "12.5", barcode: "x", inventoryItem: {sku: "M-1", tracked: true}, optionValues: [{optionName: "Size", name: "M"}]}, {price: 30, optionValues: [{optionName: "Size", name: "L"}]}]) {
		productVariants { id price sku inventoryItem { id tracked sku } } product { totalInventory tracksInventory priceRangeV2 { minVariantPrice { amount } maxVariantPrice { amount currencyCode } } variantsCount { count } } userErrors { field code message } } }`, map[string]any{"id": id})
	p = "productVariantsBulkCreate"
	require.Equal(t, []any{}, a.at(t, p, "userErrors"), a.Raw)
	require.Equal(t, "12.50", a.at(t, p, "productVariants", 0, "price"))
	require.Equal(t, "M-1", a.at(t, p, "productVariants", 0, "sku"))
	require.Equal(t, "30.0", a.at(t, p, "product", "priceRangeV2", "maxVariantPrice", "amount"))
	require.EqualValues(t, 3, a.at(t, p, "product", "variantsCount", "count"))
	item, variant := a.at(t, p, "productVariants", 0, "inventoryItem", "id"), a.at(t, p, "productVariants", 0, "id")

	a = good(t, fake, `mutation($id: ID!, $v: ID!) { productVariantsBulkUpdate(productId: $id, variants: [{id: $v, price: "-1"}]) { userErrors { field code } } }`, map[string]any{"id": id, "v": variant})
	require.Equal(t, []any{"variants", "0", "price"}, a.at(t, "productVariantsBulkUpdate", "userErrors", 0, "field"))
	a = good(t, fake, `mutation($id: ID!) { productVariantsBulkCreate(productId: $id, variants: [{optionValues: [{optionName: "Size", name: "M"}]}]) { productVariants { id } userErrors { code } } }`, map[string]any{"id": id})
	require.Equal(t, "VARIANT_ALREADY_EXISTS", a.at(t, "productVariantsBulkCreate", "userErrors", 0, "code"))
	require.Nil(t, a.at(t, "productVariantsBulkCreate", "productVariants"))

	// Inventory.
	location := good(t, fake, `{ locations(first: 1) { nodes { id } } }`, nil).at(t, "locations", "nodes", 0, "id")
	set := `mutation($i: ID!, $l: ID!, $n: Int!, $have: Int, $key: String!) { inventorySetQuantities(input: {name: "available", reason: "correction", quantities: [{inventoryItemId: $i, locationId: $l, quantity: $n, changeFromQuantity: $have}]}) @idempotent(key: $key) {
		inventoryAdjustmentGroup { id reason changes { name delta item { id } } } userErrors { field code } } }`
	vars := map[string]any{"i": item, "l": location, "n": 7, "have": 0, "key": "k1"}
	a = good(t, fake, set, vars)
	require.Equal(t, []any{}, a.at(t, "inventorySetQuantities", "userErrors"), a.Raw)
	require.EqualValues(t, 7, a.at(t, "inventorySetQuantities", "inventoryAdjustmentGroup", "changes", 0, "delta"))
	again := good(t, fake, set, vars)
	require.Equal(t, a.Data, again.Data, "the same key with the same input takes effect once")
	a = good(t, fake, set, map[string]any{"i": item, "l": location, "n": 8, "have": 7, "key": "k1"})
	require.Equal(t, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH", a.at(t, "inventorySetQuantities", "userErrors", 0, "code"))
	a = good(t, fake, set, map[string]any{"i": item, "l": location, "n": 8, "have": 3, "key": "k2"})
	require.Equal(t, "CHANGE_FROM_QUANTITY_STALE", a.at(t, "inventorySetQuantities", "userErrors", 0, "code"))
	a = post(t, fake, strings.Replace(set, "@idempotent(key: $key)", "@include(if: true)", 1), vars)
	require.NotNil(t, a.code(), "an unused variable is an error too")
	a = post(t, fake, `mutation($i: ID!, $l: ID!) { inventoryAdjustQuantities(input: {name: "available", reason: "correction", changes: [{inventoryItemId: $i, locationId: $l, delta: -2, changeFromQuantity: 7}]}) { userErrors { code } } }`, map[string]any{"i": item, "l": location})
	require.Equal(t, "BAD_REQUEST", a.code())
	require.Equal(t, "The @idempotent directive is required for this mutation but was not provided.", a.Errors[0].Message)
	require.Equal(t, map[string]any{"inventoryAdjustQuantities": nil}, a.Data)
	good(t, fake, `mutation($i: ID!, $l: ID!) { inventoryAdjustQuantities(input: {name: "available", reason: "correction", changes: [{inventoryItemId: $i, locationId: $l, delta: -2}]}) { userErrors { code } } }`, map[string]any{"i": item, "l": location}, version("2026-01"))
	a = good(t, fake, `query($i: ID!, $id: ID!) { inventoryItem(id: $i) { inventoryLevels(first: 2) { nodes { id quantities(names: ["available", "on_hand"]) { name quantity } location { name } } } variant { inventoryQuantity } } product(id: $id) { totalInventory } }`, map[string]any{"i": item, "id": id})
	require.EqualValues(t, 5, a.at(t, "inventoryItem", "inventoryLevels", "nodes", 0, "quantities", 1, "quantity"))
	require.Contains(t, a.at(t, "inventoryItem", "inventoryLevels", "nodes", 0, "id"), "?inventory_item_id=")
	require.EqualValues(t, 5, a.at(t, "product", "totalInventory"))

	// Gone is gone, with all that belongs to it.
	good(t, fake, `mutation($id: ID!) { productDelete(input: {id: $id}) { deletedProductId userErrors { message } } }`, map[string]any{"id": id})
	a = good(t, fake, `query($i: ID!, $id: ID!) { inventoryItem(id: $i) { id } product(id: $id) { id } productVariantsCount { count } }`, map[string]any{"i": item, "id": id})
	require.Equal(t, map[string]any{"inventoryItem": nil, "product": nil, "productVariantsCount": map[string]any{"count": 0.0}}, a.Data)
}

func TestOrdersAndCustomers(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	shop := fake.Shop("example.myshopify.com")
	require.NoError(t, shop.Ensure("gid://shopify/ProductVariant/11"))
	_, err := shop.Exec(`mutation { productVariantsBulkUpdate(productId: "PRODUCT", variants: [{id: "gid://shopify/ProductVariant/11", price: "19.99", inventoryItem: {tracked: true, sku: "S"}}]) { userErrors { message } } }`, nil)
	require.Error(t, err)
	product := good(t, fake, `{ productVariant(id: "gid://shopify/ProductVariant/11") { product { id } } }`, nil).at(t, "productVariant", "product", "id")
	_, err = shop.Exec(`mutation($p: ID!) { productVariantsBulkUpdate(productId: $p, variants: [{id: "gid://shopify/ProductVariant/11", price: "19.99", inventoryItem: {tracked: true, sku: "S"}}]) { userErrors { message } } }`, map[string]any{"p": product})
	require.NoError(t, err)
	create := `mutation($order: OrderCreateOrderInput!, $options: OrderCreateOptionsInput) { orderCreate(order: $order, options: $options) { order {
		id name email displayFinancialStatus totalPriceSet { shopMoney { amount } } customer { id email numberOfOrders amountSpent { amount } } lineItems(first: 5) { nodes { title sku quantity originalTotalSet { shopMoney { amount currencyCode } } variant { id } } } } userErrors { field code message } } }`
	order := map[string]any{
		"lineItems":     []any{map[string]any{"variantId": "gid://shopify/ProductVariant/11", "quantity": 2}, map[string]any{"title": "Wrap", "quantity": 1, "priceSet": map[string]any{"shopMoney": map[string]any{"amount": "0.5", "currencyCode": "USD"}}}},
		"shippingLines": []any{map[string]any{"title": "Post", "priceSet": map[string]any{"shopMoney": map[string]any{"amount": 4, "currencyCode": "USD"}}}},
		"customer":      map[string]any{"toUpsert": map[string]any{"email": "ann@example.com", "firstName": "Ann"}}, "financialStatus": "PAID",
	}
	a := good(t, fake, create, map[string]any{"order": order, "options": map[string]any{"inventoryBehaviour": "DECREMENT_IGNORING_POLICY"}})
	require.Equal(t, []any{}, a.at(t, "orderCreate", "userErrors"), a.Raw)
	require.Equal(t, "44.48", a.at(t, "orderCreate", "order", "totalPriceSet", "shopMoney", "amount"))
	require.Equal(t, "39.98", a.at(t, "orderCreate", "order", "lineItems", "nodes", 0, "originalTotalSet", "shopMoney", "amount"))
	require.Equal(t, "#1001", a.at(t, "orderCreate", "order", "name"))
	require.Equal(t, "ann@example.com", a.at(t, "orderCreate", "order", "email"))
	require.Equal(t, "1", a.at(t, "orderCreate", "order", "customer", "numberOfOrders"))
	require.Equal(t, "44.48", a.at(t, "orderCreate", "order", "customer", "amountSpent", "amount"))
	id := a.at(t, "orderCreate", "order", "id")
	require.EqualValues(t, -2, good(t, fake, `{ productVariant(id: "gid://shopify/ProductVariant/11") { inventoryQuantity } }`, nil).at(t, "productVariant", "inventoryQuantity"))

	a = good(t, fake, create, map[string]any{"order": order, "options": map[string]any{"inventoryBehaviour": "DECREMENT_OBEYING_POLICY"}})
	require.Equal(t, "INVENTORY_CLAIM_FAILED", a.at(t, "orderCreate", "userErrors", 0, "code"))
	a = good(t, fake, create, map[string]any{"order": map[string]any{"lineItems": []any{map[string]any{"quantity": 0}}}})
	require.Equal(t, []any{"order", "lineItems", "0", "quantity"}, a.at(t, "orderCreate", "userErrors", 0, "field"))

	a = good(t, fake, `mutation($id: ID!) { orderCancel(orderId: $id, reason: CUSTOMER, restock: true, notifyCustomer: false) { job { id done } orderCancelUserErrors { code } } }`, map[string]any{"id": id})
	require.Equal(t, true, a.at(t, "orderCancel", "job", "done"))
	require.EqualValues(t, 0, good(t, fake, `{ productVariant(id: "gid://shopify/ProductVariant/11") { inventoryQuantity } }`, nil).at(t, "productVariant", "inventoryQuantity"))
	a = good(t, fake, `mutation($id: ID!) { tagsAdd(id: $id, tags: ["vip", "b"]) { node { ... on Order { tags } } userErrors { message } } }`, map[string]any{"id": id})
	require.Equal(t, []any{"b", "vip"}, a.at(t, "tagsAdd", "node", "tags"))

	a = good(t, fake, `mutation { customerCreate(input: {email: "ann@example.com"}) { customer { id } userErrors { field message } } }`, nil)
	require.Equal(t, []any{"email"}, a.at(t, "customerCreate", "userErrors", 0, "field"))
	a = good(t, fake, `{ customerByIdentifier(identifier: {emailAddress: "ann@example.com"}) { id displayName orders(first: 2, query: "status:any") { nodes { name } } } }`, nil)
	require.Equal(t, "Ann", a.at(t, "customerByIdentifier", "displayName"))
	a = good(t, fake, `mutation($id: ID!) { customerDelete(input: {id: $id}) { deletedCustomerId userErrors { message } } }`, map[string]any{"id": a.at(t, "customerByIdentifier", "id")})
	require.Contains(t, a.at(t, "customerDelete", "userErrors", 0, "message"), "associated orders")
}

func TestExecTakesGoNumbers(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	_, err := fake.Shop("example.myshopify.com").Exec(`mutation($o: OrderCreateOrderInput!) { orderCreate(order: $o) { userErrors { field message } } }`,
		map[string]any{"o": map[string]any{"lineItems": []any{map[string]any{"title": "T", "quantity": 1, "priceSet": map[string]any{"shopMoney": map[string]any{"amount": "1.50", "currencyCode": "USD"}}}}}})
	require.NoError(t, err)
}

func TestMetafields(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	id := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	set := `mutation($m: [MetafieldsSetInput!]!) { metafieldsSet(metafields: $m) { metafields { id value compareDigest updatedAt } userErrors { field code } } }`
	field := map[string]any{"ownerId": id, "namespace": "$app", "key": "k", "type": "single_line_text_field", "value": "1", "compareDigest": nil}
	a := good(t, fake, set, map[string]any{"m": []any{field}})
	require.Equal(t, []any{}, a.at(t, "metafieldsSet", "userErrors"), a.Raw)
	field["value"] = "2"
	a2 := good(t, fake, set, map[string]any{"m": []any{field}})
	require.Equal(t, "STALE_OBJECT", a2.at(t, "metafieldsSet", "userErrors", 0, "code"), "it was to be made, and is there")
	field["compareDigest"] = a.at(t, "metafieldsSet", "metafields", 0, "compareDigest")
	good(t, fake, set, map[string]any{"m": []any{field}})
	a = good(t, fake, `query($id: ID!) { product(id: $id) { metafield(key: "k") { value namespace } other: metafields(first: 5, namespace: "other") { nodes { id } } } }`, map[string]any{"id": id})
	require.Equal(t, "2", a.at(t, "product", "metafield", "value"))
	require.Contains(t, a.at(t, "product", "metafield", "namespace"), "app--")
	other := good(t, fake, `query($id: ID!) { product(id: $id) { metafield(key: "k") { value } } }`, map[string]any{"id": id}, token("another app"))
	require.Nil(t, other.at(t, "product", "metafield"), "each app has a namespace of its own")
	many := make([]any, 26)
	for i := range many {
		many[i] = map[string]any{"ownerId": id, "namespace": "n", "key": fmt.Sprintf("key%d", i), "type": "boolean", "value": "true"}
	}
	a = good(t, fake, set, map[string]any{"m": many})
	require.Equal(t, "LESS_THAN_OR_EQUAL_TO", a.at(t, "metafieldsSet", "userErrors", 0, "code"))
}

// TestWebhooksHaveTheShapeOfTheSamples compares the fake's bodies with the recorded ones, key by key.
func TestWebhooksHaveTheShapeOfTheSamples(t *testing.T) {
	t.Parallel()
	var got []webhook.Delivery
	fake := newFake(t, shopifytest.Config{OnWebhook: func(d webhook.Delivery) { got = append(got, d) }})
	for _, m := range []string{
		`productCreate(product: {title: "Shirt", productOptions: [{name: "Size", values: [{name: "S"}]}]}) { product { id } }`,
		`customerCreate(input: {firstName: "Ann", email: "a@example.com", addresses: [{city: "Ottawa", countryCode: CA}]}) { customer { id } }`,
		`orderCreate(order: {email: "a@example.com", customer: {toUpsert: {email: "a@example.com"}}, shippingAddress: {city: "X"}, lineItems: [{title: "T", quantity: 1, priceSet: {shopMoney: {amount: 1, currencyCode: USD}}}], financialStatus: PAID}) { order { id } }`,
		`locationAdd(input: {name: "Second", address: {countryCode: CA}}) { location { id } }`,
	} {
		good(t, fake, "mutation { "+m+" }", nil)
	}
	items := good(t, fake, `{ inventoryItems(first: 1) { nodes { id } } locations(first: 2) { nodes { id } } }`, nil)
	vars := map[string]any{"i": items.at(t, "inventoryItems", "nodes", 0, "id"), "l": items.at(t, "locations", "nodes", 1, "id")}
	good(t, fake, `mutation($i: ID!, $l: ID!) { inventoryActivate(inventoryItemId: $i, locationId: $l, available: 3) @idempotent(key: "k") { inventoryLevel { id } } inventoryItemUpdate(id: $i, input: {sku: "S"}) { inventoryItem { id } } }`, vars)
	topics := map[string]int{}
	for _, d := range got {
		topics[d.Topic]++
		require.Equal(t, "example.myshopify.com", d.Shop)
		require.NotEmpty(t, d.WebhookID)
		var have, sample map[string]any
		require.NoError(t, json.Unmarshal(d.Body, &have))
		require.NoError(t, json.Unmarshal(webhooktest.Payload(d.Topic), &sample))
		// What one order or customer has that another has not.
		for _, optional := range []string{"billing_address", "payment_terms", "refunds", "returns"} {
			delete(sample, optional)
			delete(have, optional)
		}
		sameKeys(t, d.Topic, sample, have)
		require.NotEmpty(t, d.Subject(), d.Topic)
	}
	require.Equal(t, map[string]int{"products/create": 1, "customers/create": 1, "customers/update": 1, "orders/create": 1, "orders/paid": 1, "locations/create": 1, "inventory_levels/connect": 1, "inventory_items/update": 1}, topics)
}

func sameKeys(t *testing.T, path string, want, have any) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok {
			return // null here
		}
		require.ElementsMatch(t, slices.Collect(maps.Keys(w)), slices.Collect(maps.Keys(h)), path)
		for k := range w {
			sameKeys(t, path+"."+k, w[k], h[k])
		}
	case []any:
		h, _ := have.([]any)
		if len(w) > 0 && len(h) > 0 {
			sameKeys(t, path+"[]", w[0], h[0])
		}
	case nil:
	default:
		if have != nil {
			require.IsType(t, want, have, path)
		}
	}
}

func TestWebhooksAreSentAndSigned(t *testing.T) {
	t.Parallel()
	seen := make(chan webhook.Delivery, 10)
	hooks, err := webhook.New(webhook.Secrets("hush"), func(_ context.Context, d webhook.Delivery) error {
		d.Body = slices.Clone(d.Body)
		seen <- d
		return nil
	}, webhook.Config{})
	require.NoError(t, err)
	app := httptest.NewServer(hooks)
	t.Cleanup(app.Close)
	fake := newFake(t, shopifytest.Config{WebhookURL: app.URL, WebhookSecret: "hush"})
	id := products(t, fake.Shop("example.myshopify.com"), 1)[0]
	d := <-seen
	require.Equal(t, "products/create", d.Topic)
	require.Equal(t, "product/"+id[strings.LastIndex(id, "/")+1:], d.Subject())
	require.NoError(t, fake.WaitWebhooks(t.Context()))
}

// response is a REST answer without its body.
type response struct {
	StatusCode int
	Header     http.Header
}

func TestREST(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t, shopifytest.Config{})
		products(t, fake.Shop("example.myshopify.com"), 7)
		get := func(path string) (*response, map[string]any) {
			u := path
			if !strings.HasPrefix(path, "https://") {
				u = "https://example.myshopify.com/admin/api/2026-04/" + path
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
			require.NoError(t, err)
			r.Header.Set("X-Shopify-Access-Token", "token")
			resp, err := fake.RoundTrip(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			var m map[string]any
			require.NoError(t, json.Unmarshal(b, &m), string(b))
			return &response{resp.StatusCode, resp.Header}, m
		}
		link := func(resp *response, rel string) string {
			for part := range strings.SplitSeq(resp.Header.Get("Link"), ", ") {
				if u, r, _ := strings.Cut(part, "; "); r == `rel="`+rel+`"` {
					return strings.Trim(u, "<>")
				}
			}
			return ""
		}
		var titles []any
		next, last := "products.json?limit=3&fields=id,title&status=active", ""
		for next != "" {
			resp, m := get(next)
			require.Equal(t, 200, resp.StatusCode, m)
			for _, p := range m["products"].([]any) {
				titles = append(titles, p.(map[string]any)["title"])
			}
			last, next = next, link(resp, "next")
		}
		require.Equal(t, []any{"Product 1", "Product 2", "Product 3", "Product 4", "Product 5", "Product 6", "Product 7"}, titles)
		resp, _ := get(last)
		require.Empty(t, link(resp, "next"))
		resp, m := get(link(resp, "previous"))
		require.Equal(t, "Product 4", m["products"].([]any)[0].(map[string]any)["title"])
		require.NotEmpty(t, link(resp, "next"))
		resp, m = get(link(resp, "previous"))
		require.Equal(t, "Product 1", m["products"].([]any)[0].(map[string]any)["title"])
		require.Empty(t, link(resp, "previous"))
		u, err := url.Parse(link(resp, "next"))
		require.NoError(t, err)
		require.Equal(t, "3", u.Query().Get("limit"))
		resp, _ = get("https://localhost/example.myshopify.com/admin/api/2026-04/products.json?limit=3")
		require.Regexp(t, `^https://example\.myshopify\.com/admin/api/2026-04/products\.json\?`, link(resp, "next"))

		resp, _ = get("products/1.json")
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
		_, m = get("products/count.json")
		require.EqualValues(t, 7, m["count"])
		_, m = get("shop.json")
		require.Equal(t, "example.myshopify.com", m["shop"].(map[string]any)["myshopify_domain"])
		resp, m = get("themes.json")
		require.Equal(t, http.StatusNotImplemented, resp.StatusCode)
		require.Contains(t, m["errors"], "shopifytest does not support themes.json")
		resp, m = get("products.json?limit=251")
		require.Equal(t, http.StatusBadRequest, resp.StatusCode, m)
		resp, m = get("products.json?collection_id=1")
		require.Contains(t, m["errors"], "collection_id")
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)

		time.Sleep(time.Hour)
		for i := range 40 {
			resp, _ := get("products/count.json")
			require.Equal(t, fmt.Sprintf("%d/40", i+1), resp.Header.Get("X-Shopify-Shop-Api-Call-Limit"))
		}
		resp, _ = get("products/count.json")
		require.Equal(t, http.StatusTooManyRequests, resp.StatusCode)
		require.Equal(t, "1.0", resp.Header.Get("Retry-After"))
		time.Sleep(500 * time.Millisecond)
		resp, _ = get("products/count.json")
		require.Equal(t, 200, resp.StatusCode)
	})
}

func FuzzSearch(f *testing.F) {
	for _, q := range []string{"", "a AND (b OR -c)", `title:"x y" id:>3`, "((((", "NOT NOT x", "tag:'a", "created_at:>=now"} {
		f.Add(q)
	}
	fake, err := shopifytest.New(shopifytest.Config{Plan: shopifytest.Plan{Points: 1e12, PointsPerSecond: 1e12, Calls: 1, CallsPerSecond: 1}})
	require.NoError(f, err)
	require.NoError(f, fake.Shop("example.myshopify.com").Ensure("gid://shopify/Product/1"))
	f.Fuzz(func(t *testing.T, q string) {
		a := post(t, fake, `query($q: String) { products(first: 1, query: $q) { nodes { id } } }`, map[string]any{"q": q})
		require.NotEqual(t, "INTERNAL_SERVER_ERROR", a.code(), a.Raw)
	})
}

func FuzzGraphQL(f *testing.F) {
	for _, q := range []string{
		`{ shop { id } }`, `{ products(first: 1) { edges { cursor node { ... on Product { id } } } pageInfo { endCursor } } }`, `mutation { productCreate(product: {title: "x"}) { product { id } userErrors { field } } }`,
		`{ node(id: "gid://shopify/Product/1") { id ...F } } fragment F on Product { title ...G } fragment G on Product { variants(last: 2) { nodes { price } } }`, `{ __schema { types { name } } __type(name: "Product") { fields { name } } }`,
		`mutation { metafieldsSet(metafields: [{ownerId: "gid://shopify/Product/1", key: "k", value: "v", type: "json"}]) { metafields { id jsonValue } } tagsAdd(id: "gid://shopify/Product/1", tags: ["x"]) { node { id } } }`,
	} {
		f.Add(q)
	}
	fake, err := shopifytest.New(shopifytest.Config{Plan: shopifytest.Plan{Points: 1e12, PointsPerSecond: 1e12, Calls: 1, CallsPerSecond: 1}})
	require.NoError(f, err)
	require.NoError(f, fake.Shop("example.myshopify.com").Ensure("gid://shopify/Product/1"))
	f.Fuzz(func(t *testing.T, q string) {
		a := post(t, fake, q, nil)
		require.NotEqual(t, "INTERNAL_SERVER_ERROR", a.code(), a.Raw)
		if a.Errors == nil {
			require.NotNil(t, a.Extensions.Cost, a.Raw)
			require.LessOrEqual(t, *a.Extensions.Cost.ActualQueryCost, a.Extensions.Cost.RequestedQueryCost)
		}
	})
}

func TestSearchesThatAreEasilyMisread(t *testing.T) {
	t.Parallel()
	shop := newFake(t, shopifytest.Config{}).Shop("example.myshopify.com")
	products(t, shop, 3)
	found := func(query, in string) int {
		b, err := shop.Exec(`query($q: String!) { `+in+`(first: 10, query: $q) { nodes { id } } }`, map[string]any{"q": query})
		require.NoError(t, err)
		var m map[string]struct{ Nodes []any }
		require.NoError(t, json.Unmarshal(b, &m))
		return len(m[in].Nodes)
	}
	all := found("", "products")
	require.Positive(t, all)
	require.Equal(t, all, found("-(vendor:nobody OR vendor:none)", "products"))
	require.Equal(t, 1, found("active:true", "locations"))
	require.Zero(t, found("active:false", "locations"))
	_, err := shop.Exec(`{ products(first: 1, query: "status:active) vendor:x") { nodes { id } } }`, nil)
	require.ErrorContains(t, err, ") too many")
}

func TestAPlanHasStandardsNumbersWhereItHasNone(t *testing.T) {
	t.Parallel()
	shop := newFake(t, shopifytest.Config{Plan: shopifytest.Plan{Points: 500}}).Shop("example.myshopify.com")
	require.Equal(t, shopifytest.Plan{Points: 500, PointsPerSecond: 100, Calls: 40, CallsPerSecond: 2}, shop.Plan())
}
