package webhook

import (
	"encoding/json"
	"strings"
	"time"
)

// Subject names the resource that a body of the given topic is about: a type and an ID, such as
// "order/820982911946154508", with the ID's digits as they stand in the body. Topics that act on one
// resource share its name: a refund's subject is its order. A topic about something of which a shop
// has one, or a body without an ID, gives the type alone ("customer_account_settings").
//
// It knows every topic of API version 2026-04; for others it takes the payload's own id and the
// topic's first word. It reads only as far into the body as the ID stands.
func Subject(topic string, body []byte) string {
	for _, p := range pathsOf(topic) {
		if id := p.id(body); id != "" {
			return p.kind + "/" + id
		}
	}
	return singular(resource(topic))
}

// UpdatedAt is when the resource of a body last changed by the body's own word: its updated_at, which
// stands at the top or beside the ID that [Subject] takes. It says false where there is none.
func UpdatedAt(topic string, body []byte) (time.Time, bool) {
	if at, ok := timeAt(body); ok {
		return at, true
	}
	for _, p := range pathsOf(topic) {
		if n := len(p.path) - 1; n > 0 {
			if at, ok := timeAt(body, p.path[:n]...); ok {
				return at, true
			}
		}
	}
	return time.Time{}, false
}

func timeAt(body []byte, parents ...string) (time.Time, bool) {
	object, ok := lookup(body, parents...)
	if !ok {
		return time.Time{}, false
	}
	for _, key := range []string{"updated_at", "updatedAt"} {
		raw, ok := lookup(object, key)
		if !ok {
			continue
		}
		var s string
		if json.Unmarshal(raw, &s) != nil {
			continue
		}
		// Shopify writes the first form; the others stand in its samples and in captured deliveries.
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 -0700"} {
			if at, err := time.Parse(layout, s); err == nil {
				return at, true
			}
		}
	}
	return time.Time{}, false
}

// idPath is one place where a topic's body may name its resource. Two last keys joined by "+" make
// one ID of two values.
type idPath struct {
	kind string
	path []string
}

func (p idPath) id(body []byte) string {
	n := len(p.path) - 1
	object, ok := lookup(body, p.path[:n]...)
	if !ok {
		return ""
	}
	var parts []string
	for key := range strings.SplitSeq(p.path[n], "+") {
		raw, ok := lookup(object, key)
		if !ok {
			return ""
		}
		id := idText(raw)
		if id == "" {
			return ""
		}
		parts = append(parts, id)
	}
	return strings.Join(parts, "/")
}

// idText is the text of an ID: a number's digits, or a string without the gid around it.
func idText(raw []byte) string {
	switch c := raw[0]; {
	case c == '-' || '0' <= c && c <= '9':
		return string(raw)
	case c == '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return plainID(s)
		}
	}
	return ""
}

// plainID turns "gid://shopify/Order/1?x=y" into "1" and leaves other IDs alone.
func plainID(id string) string {
	rest, ok := strings.CutPrefix(id, "gid://")
	if !ok {
		return id
	}
	rest, _, _ = strings.Cut(rest, "?")
	return rest[strings.LastIndexByte(rest, '/')+1:]
}

// resource is a topic's first word: "orders" of "orders/create", "customer" of "customer.tags_added".
func resource(topic string) string {
	if i := strings.IndexAny(topic, "/."); i >= 0 {
		return topic[:i]
	}
	return topic
}

func singular(word string) string {
	switch {
	case singletons[word]:
		return word
	case strings.HasSuffix(word, "ies"):
		return strings.TrimSuffix(word, "ies") + "y"
	default:
		return strings.TrimSuffix(word, "s")
	}
}

// A shop has one of each of these, whatever IDs their bodies carry.
var singletons = map[string]bool{
	"app":                       true, // the app's installation: its bodies are about a shop or a record of the change
	"customer_account_settings": true,
	"delivery_promise_settings": true,
	"markets_backup_region":     true, // its ID is the region chosen, not the setting
}

func pathsOf(topic string) []idPath {
	word := resource(topic)
	if singletons[word] {
		return nil
	}
	if p, ok := idPaths[word]; ok {
		return p
	}
	kind := singular(word)
	return []idPath{{kind, []string{"id"}}, {kind, []string{"admin_graphql_api_id"}}}
}

// idPaths lists, by a topic's first word, where its bodies name their resource, for every word whose
// rule is not "the type in the singular, the ID in id or admin_graphql_api_id". Read off the samples
// of API version 2026-04.
var idPaths = func() map[string][]idPath {
	at := func(kind string, paths ...string) []idPath {
		var list []idPath
		for _, p := range paths {
			list = append(list, idPath{kind, strings.Split(p, ".")})
		}
		return list
	}
	or := func(lists ...[]idPath) []idPath {
		var all []idPath
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	m := map[string][]idPath{
		"orders":        at("order", "id", "order_id", "admin_graphql_api_order_id", "order_edit.order_id"),
		"draft_orders":  at("draft_order", "id"),
		"checkouts":     at("checkout", "id", "token"),
		"shop":          at("shop", "id", "shop_id"),
		"customers":     at("customer", "id", "customer.id", "customerId", "admin_graphql_api_customer_kept_id"),
		"customer":      at("customer", "customerId", "customer_id"),
		"locales":       at("locale", "locale"),
		"product_feeds": or(at("product", "product.id"), at("product_feed", "productFeed.id", "id")),

		"customers_email_marketing_consent": at("customer", "customer_id"),
		"customers_marketing_consent":       at("customer", "id"),
		"customer_payment_methods":          at("customer_payment_method", "admin_graphql_api_id", "token"),

		"collection_listings":        at("collection", "collection_listing.collection_id"),
		"collection_publications":    or(at("collection", "collection_id"), at("collection_publication", "id")),
		"product_listings":           at("product", "product_listing.product_id"),
		"scheduled_product_listings": at("product", "scheduled_product_listing.product_id"),
		"product_publications":       or(at("product", "product_id"), at("product_publication", "id")),

		"app_subscriptions":      at("app_subscription", "app_subscription.admin_graphql_api_id"),
		"app_purchases_one_time": at("app_purchase_one_time", "app_purchase_one_time.admin_graphql_api_id"),
		"company_contact_roles":  at("company_contact", "company_contact.admin_graphql_api_id"),

		"inventory_levels":    at("inventory_level", "inventory_item_id+location_id"),
		"inventory_shipments": at("inventory_shipment", "id", "shipment_id"),

		"fulfillment_holds": at("fulfillment_order", "fulfillment_order.id"),
		"fulfillment_orders": at("fulfillment_order", "fulfillment_order.id", "original_fulfillment_order.id",
			"fulfillment_order_merges.fulfillment_order.id"),
	}
	// What happens to an order: its order comes first, so that it stays in line with orders/*.
	for word, kind := range map[string]string{
		"refunds": "refund", "fulfillments": "fulfillment", "fulfillment_events": "fulfillment_event",
		"order_transactions": "order_transaction", "tender_transactions": "tender_transaction", "disputes": "dispute",
	} {
		m[word] = or(at("order", "order_id"), at(kind, "id"))
	}
	for _, word := range []string{"subscription_billing_attempts", "subscription_billing_cycles", "subscription_billing_cycle_edits"} {
		m[word] = at("subscription_contract", "subscription_contract_id")
	}
	return m
}()
