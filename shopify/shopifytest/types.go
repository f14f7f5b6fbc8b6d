package shopifytest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// resolver computes a field.
type resolver func(x *execution, o *object, in *input) (any, error)

// kind is what the fake knows of a type.
type kind struct {
	plain    map[string]any // what a field is that has no value of its own
	computed map[string]resolver
}

// tables is all that the fake knows, made when it is first asked for.
var tables struct {
	once      sync.Once
	kinds     map[string]kind
	mutations map[string]mutation
}

func loadTables() {
	tables.kinds, tables.mutations = map[string]kind{}, map[string]mutation{}
	for _, some := range []map[string]kind{rootKinds(), productKinds(), inventoryKinds(), orderKinds(), customerKinds(), shopKinds()} {
		maps.Copy(tables.kinds, some)
	}
	for _, some := range []map[string]mutation{productMutations(), inventoryMutations(), orderMutations(), customerMutations(), otherMutations()} {
		maps.Copy(tables.mutations, some)
	}
}

// kinds are the types that the fake knows, but for connections and payloads. What is in neither map of a type is not supported.
func kinds() map[string]kind {
	tables.once.Do(loadTables)
	return tables.kinds
}

func mutations() map[string]mutation {
	tables.once.Do(loadTables)
	return tables.mutations
}

// stored are fields that an object always has a value of.
func stored(names string) map[string]any {
	m := map[string]any{}
	for name := range strings.FieldsSeq(names) {
		m[name] = nil
	}
	return m
}

// owned adds the fields that everything with an ID and metafields has.
func owned(computed map[string]resolver) map[string]resolver {
	computed["metafield"], computed["metafields"] = metafield, metafields
	return identified(computed)
}

func identified(computed map[string]resolver) map[string]resolver {
	computed["legacyResourceId"] = func(_ *execution, o *object, _ *input) (any, error) { return strconv.FormatInt(o.num, 10), nil }
	return computed
}

func defaultCursor(_ *execution, o *object, _ *input) (any, error) {
	return (&conn{}).key(o).String(), nil
}

// nothing is a connection that is always empty, because what would be in it can't be made here.
func nothing(_ *execution, _ *object, in *input) (any, error) { return &conn{in: in}, nil }

// of is a connection of a field's objects: all of a type that name the object in a field.
func of(typ, field string, by func(*object) string) resolver {
	return func(x *execution, o *object, in *input) (any, error) {
		return &conn{items: x.shop.where(typ, field, o.id), by: by, in: in}, nil
	}
}

// byID finds an object by the argument id, of a type.
func byID(typ string) resolver {
	return func(x *execution, _ *object, in *input) (any, error) {
		if typ == "InventoryLevel" {
			return x.shop.level(in.id("id")), nil
		}
		return typed(typ, in.id("id"))
	}
}

// typed is an ID of a type.
func typed(typ string, id gid) (any, error) {
	t, n, ok := id.parse()
	if !ok || t != typ {
		return nil, coded("RESOURCE_NOT_FOUND", "Invalid id: %s", id)
	}
	return newGID(t, n), nil
}

// all is the connection of a type's objects, searched and sorted.
func all(typ string) resolver {
	return func(x *execution, _ *object, in *input) (any, error) {
		items, err := x.search(typ, in)
		if err != nil {
			return nil, err
		}
		key, _ := in.str("sortKey")
		by, ok := sorts[typ][cmp.Or(key, "ID")]
		if !ok {
			return nil, unsupported("the sort key %s of %s", key, typ)
		}
		return &conn{items: items, by: by, in: in}, nil
	}
}

// count counts a type's objects.
func count(typ string) resolver {
	return func(x *execution, _ *object, in *input) (any, error) {
		items, err := x.search(typ, in)
		if err != nil {
			return nil, err
		}
		limit, ok := in.int("limit")
		if !ok {
			limit = 10_000 // the argument's default
		}
		return counted(len(items), limit), nil
	}
}

func counted(n, limit int) *object {
	precision := "EXACT"
	if limit > 0 && n > limit {
		n, precision = limit, "AT_LEAST"
	}
	return value("Count", map[string]any{"count": n, "precision": precision})
}

// timeKey makes a time sort as text.
func timeKey(field string) func(*object) string {
	return func(o *object) string { return o.time(field).UTC().Format(time.RFC3339) }
}

func textKey(field string) func(*object) string {
	return func(o *object) string { return strings.ToLower(o.str(field)) }
}

// sorts are the orders of connections, by type and sort key. nil is by ID, which is also what relevance comes to without a query.
var sorts = map[string]map[string]func(*object) string{
	"Product": {
		"ID": nil, "RELEVANCE": nil, "CREATED_AT": timeKey("createdAt"), "UPDATED_AT": timeKey("updatedAt"), "TITLE": textKey("title"), "VENDOR": textKey("vendor"),
		"PRODUCT_TYPE": textKey("productType"), "PUBLISHED_AT": timeKey("publishedAt"),
	},
	"ProductVariant": {"ID": nil, "RELEVANCE": nil, "SKU": textKey("sku"), "TITLE": textKey("title")},
	"Order":          {"ID": nil, "RELEVANCE": nil, "CREATED_AT": timeKey("createdAt"), "UPDATED_AT": timeKey("updatedAt"), "PROCESSED_AT": timeKey("processedAt"), "ORDER_NUMBER": nil},
	"Customer":       {"ID": nil, "RELEVANCE": nil, "CREATED_AT": timeKey("createdAt"), "UPDATED_AT": timeKey("updatedAt"), "NAME": func(o *object) string { return strings.ToLower(o.str("lastName") + ", " + o.str("firstName")) }},
	"Location":       {"ID": nil, "NAME": textKey("name")},
	"InventoryItem":  {"ID": nil},
}

func rootKinds() map[string]kind {
	return map[string]kind{
		"QueryRoot": {computed: map[string]resolver{
			"product": byID("Product"), "products": all("Product"), "productsCount": count("Product"), "productByIdentifier": productByIdentifier,
			"productVariant": byID("ProductVariant"), "productVariants": all("ProductVariant"), "productVariantsCount": count("ProductVariant"),
			"order": byID("Order"), "orders": all("Order"), "ordersCount": count("Order"),
			"customer": byID("Customer"), "customerByIdentifier": customerByIdentifier, "customers": all("Customer"), "customersCount": count("Customer"),
			"inventoryItem": byID("InventoryItem"), "inventoryItems": all("InventoryItem"), "inventoryLevel": byID("InventoryLevel"),
			"location": oneLocation, "locations": all("Location"), "locationsCount": count("Location"),
			"shop": func(x *execution, _ *object, _ *input) (any, error) { return x.shop.lists["Shop"][0], nil },
			"node": func(x *execution, _ *object, in *input) (any, error) { return x.node(in.id("id")) },
			"nodes": func(x *execution, _ *object, in *input) (any, error) {
				var all []any
				for _, id := range in.strs("ids") {
					o, err := x.node(gid(id))
					if err != nil {
						return nil, err
					}
					all = append(all, o)
				}
				return all, nil
			},
			"publicApiVersions": func(*execution, *object, *input) (any, error) { return apiVersions(), nil },
		}},
		"ApiVersion": {plain: stored("displayName handle supported")},
		"PageInfo":   {plain: stored("hasNextPage hasPreviousPage startCursor endCursor")},
		"Count":      {plain: stored("count precision")},
		"MoneyV2":    {plain: stored("amount currencyCode")},
		"MoneyBag":   {plain: stored("shopMoney presentmentMoney")},
		"Attribute":  {plain: stored("key value")},
		"Job":        {plain: map[string]any{"done": true}},
		"Metafield": {
			plain: map[string]any{"definition": nil, "reference": nil, "references": nil, "key": nil, "namespace": nil, "type": nil, "value": nil, "ownerType": nil, "createdAt": nil, "updatedAt": nil, "owner": nil},
			computed: identified(map[string]resolver{
				"jsonValue": func(_ *execution, o *object, _ *input) (any, error) {
					return jsonValue(o.str("type"), o.str("value")), nil
				},
				"compareDigest": func(_ *execution, o *object, _ *input) (any, error) { return digest(o), nil },
			}),
		},
	}
}

// node finds an object of whatever type the fake has.
func (x *execution) node(id gid) (any, error) {
	typ, n, ok := id.parse()
	if !ok || x.schema.Types[typ] == nil {
		return nil, coded("RESOURCE_NOT_FOUND", "Invalid id: %s", id)
	}
	if _, known := kinds()[typ]; !known {
		return nil, unsupported("objects of type %s", typ)
	}
	if scope, ok := scopeOf[typ]; ok && !x.granted("read_", scope) {
		return nil, denied("node", "read_", scope)
	}
	if typ == "InventoryLevel" {
		return x.shop.level(id), nil
	}
	return newGID(typ, n), nil
}

func metafield(x *execution, o *object, in *input) (any, error) {
	namespace, _ := in.str("namespace")
	key, _ := in.str("key")
	if m := x.shop.metafield(o.id, x.namespace(namespace), key); m != nil {
		return m, nil
	}
	return nil, nil
}

// jsonValue is a metafield's value as JSON: texts, times, references and decimal numbers as a text.
func jsonValue(typ, v string) any {
	element := strings.TrimPrefix(typ, "list.")
	textual := strings.HasSuffix(element, "_reference") || slices.Contains([]string{"single_line_text_field", "multi_line_text_field", "string", "url", "color", "date", "date_time", "id", "language", "number_decimal"}, element)
	switch {
	case textual && element == typ, !json.Valid([]byte(v)):
		return v
	case element == "number_decimal":
		var numbers []json.RawMessage
		if err := json.Unmarshal([]byte(v), &numbers); err != nil {
			return v
		}
		words := make([]string, len(numbers))
		for i, n := range numbers {
			words[i] = strings.Trim(string(n), `"`)
		}
		return words
	default:
		return json.RawMessage(v)
	}
}

// namespace is the app's own, if none is given.
func (x *execution) namespace(given string) string {
	own := "app--" + x.app.id
	if rest, ok := strings.CutPrefix(given, "$app"); ok {
		return own + strings.Replace(rest, ":", "--", 1)
	}
	return cmp.Or(given, own)
}

func metafields(x *execution, o *object, in *input) (any, error) {
	items := x.shop.where("Metafield", "owner", o.id)
	if n, ok := in.str("namespace"); ok {
		items = slices.DeleteFunc(items, func(m *object) bool { return m.str("namespace") != x.namespace(n) })
	}
	if keys := in.strs("keys"); keys != nil {
		items = slices.DeleteFunc(items, func(m *object) bool { return !slices.Contains(keys, m.str("namespace")+"."+m.str("key")) })
	}
	return &conn{items: items, in: in}, nil
}

func (s *Shop) metafield(owner gid, namespace, key string) *object {
	for _, m := range s.where("Metafield", "owner", owner) {
		if m.str("namespace") == namespace && m.str("key") == key {
			return m
		}
	}
	return nil
}

// money is an amount of the shop's currency.
func (s *Shop) money(amount string) *object {
	return value("MoneyV2", map[string]any{"amount": amount, "currencyCode": s.lists["Shop"][0].str("currencyCode")})
}

func (s *Shop) bag(amount string) *object {
	return value("MoneyBag", map[string]any{"shopMoney": s.money(amount), "presentmentMoney": s.money(amount)})
}

// cents reads an amount, exactly to a hundredth.
func cents(amount string) (int64, bool) {
	r, ok := new(big.Rat).SetString(strings.TrimSpace(amount))
	if !ok {
		return 0, false
	}
	r.Mul(r, big.NewRat(100, 1))
	if !r.IsInt() || !r.Num().IsInt64() {
		return 0, false
	}
	return r.Num().Int64(), true
}

// price writes an amount with two places, as prices are.
func price(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

// decimal writes an amount as Decimal does: at least one place.
func decimal(cents int64) string {
	return strings.TrimSuffix(price(cents), "0")
}

var markup = regexp.MustCompile(`<[^>]*>`)

// plainText takes the markup out.
func plainText(s string) string {
	return strings.TrimSpace(html.UnescapeString(markup.ReplaceAllString(s, "")))
}

var notInHandle = regexp.MustCompile(`[^a-z0-9]+`)

// handle makes a handle of a title.
func handle(title string) string {
	return strings.Trim(notInHandle.ReplaceAllString(strings.ToLower(title), "-"), "-")
}
