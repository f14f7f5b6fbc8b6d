package shopify

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/webhook"
)

// CacheKey names a thing of a shop in a cache.
type CacheKey struct {
	Shop    string // e.g. "example.myshopify.com"
	Subject string // as webhooks name it: "product/788032119674292922"; see webhook.Subject
}

// CacheKey implements [cache.Keyer].
func (k CacheKey) CacheKey() cache.Key { return cache.Key{Scope: k.Shop, ID: k.Subject} }

// GID is the thing's global ID, as the GraphQL API has it: of "variant/1" it is "gid://shopify/ProductVariant/1".
func (k CacheKey) GID() string {
	kind, id, _ := strings.Cut(k.Subject, "/")
	if kind == "variant" {
		kind = "product_variant"
	}
	var b strings.Builder
	for word := range strings.SplitSeq(kind, "_") {
		b.WriteString(strings.ToUpper(word[:min(1, len(word))]) + word[min(1, len(word)):])
	}
	return gidPrefix + b.String() + "/" + id
}

// Subject is what webhooks call the thing that a GID names: of "gid://shopify/ProductVariant/1" it is "variant/1". What is no GID stays as it is.
func Subject(gid string) string {
	rest, ok := strings.CutPrefix(gid, gidPrefix)
	if !ok {
		return gid
	}
	rest, _, _ = strings.Cut(rest, "?")
	kind, id, _ := strings.Cut(rest, "/")
	if kind == "ProductVariant" {
		kind = "Variant" // the one that webhooks call otherwise
	}
	var b strings.Builder
	for i, r := range kind {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String() + "/" + id
}

const gidPrefix = "gid://shopify/"

// CacheKind is a kind of things of a shop, with what is known of caching it.
type CacheKind string

const (
	// CacheProducts are products, by "product/1": for 10 minutes, invalidated by products/*, product_listings/* and product_publications/*.
	CacheProducts CacheKind = "products"
	// CacheVariants are variants, by "variant/1": as their products, for which their values tell their product. Not for what is in stock.
	CacheVariants CacheKind = "variants"
	// CacheCollections are collections, by "collection/1": for 10 minutes, invalidated by collections/* and their listings and publications, and by the webhooks of products that their values tell.
	CacheCollections CacheKind = "collections"
	// CacheMetafields are metafields, by whatever names them: for 5 minutes. Shopify has no webhook for them; a change of one of a product, variant, collection or customer is told by its owner's, which their values tell. Of others only the TTL is a bound.
	CacheMetafields CacheKind = "metafields"
	// CacheShop is the shop and its settings, by "shop": for 30 minutes, invalidated by shop/update.
	CacheShop CacheKind = "shop"
	// CacheInventoryLevels are refused.
	CacheInventoryLevels CacheKind = "inventory_levels"
	// CacheOrders are refused.
	CacheOrders CacheKind = "orders"
)

// ErrNotForCaching is wrapped by the error for what must not be cached; its text says why, and what to do.
var ErrNotForCaching = errors.New("shopify: not for caching")

// cachePreset is what is known of a kind.
type cachePreset struct {
	ttl     time.Duration
	topics  []string
	subject string   // what its keys are, if a webhook names them
	tags    []string // what else concerns it, if its values tell of it
	owned   bool     // nothing but its owner's webhooks tells of it
}

var productTopics = []string{
	"products/create", "products/update", "products/delete", "product_listings/add", "product_listings/update", "product_listings/remove",
	"product_publications/create", "product_publications/update", // delete names no product
}

var cachePresets = map[CacheKind]cachePreset{
	CacheProducts: {10 * time.Minute, productTopics, "product", []string{"collection"}, false},
	CacheVariants: {10 * time.Minute, slices.Concat(productTopics, []string{"variants/in_stock", "variants/out_of_stock"}), "variant", []string{"product"}, true},
	CacheCollections: {10 * time.Minute, slices.Concat([]string{
		"collections/create", "collections/update", "collections/delete", "collection_listings/add", "collection_listings/update", "collection_listings/remove",
		"collection_publications/create", "collection_publications/update", // as above
	}, productTopics), "collection", []string{"product"}, false},
	CacheMetafields: {5 * time.Minute, slices.Concat(productTopics, []string{
		"collections/create", "collections/update", "collections/delete", "customers/create", "customers/update", "customers/delete", "shop/update",
	}), "", []string{"product", "variant", "collection", "customer", "shop"}, true},
	CacheShop: {30 * time.Minute, []string{"shop/update"}, "shop", nil, false},
}

// preset finds a kind's, or says why there is none.
func (k CacheKind) preset() (cachePreset, error) {
	p, ok := cachePresets[k]
	switch {
	case ok:
		return p, nil
	case k == CacheInventoryLevels:
		return p, fmt.Errorf("%w: inventory levels change with every sale, and a stale one sells what is not there: read them when you need them, or keep them by inventory_levels/update with idempotency.Latest", ErrNotForCaching)
	case k == CacheOrders:
		return p, fmt.Errorf("%w: an order's status decides whether goods and money move, and each is read a few times in its life: read it when you act on it", ErrNotForCaching)
	}
	return p, fmt.Errorf("shopify: %q is not a CacheKind", string(k))
}

// Topics are the webhooks that a cache of the kind has to get. It is empty for what must not be cached.
func (k CacheKind) Topics() []string {
	return slices.Clone(cachePresets[k].topics)
}

// CacheConfig is a Config for a cache of a kind: its name, TTL, a StaleIfError of an hour (by which answers may be older than the TTL while Shopify or the quota fails), and tags. related says what else a value shows, as subjects: a variant's and a metafield's owner, without which nothing would invalidate them; a collection's
// products. It may be nil for other kinds. Set a Remote, UpdatedAt and what else suits you. Inventory levels and orders are refused with ErrNotForCaching.
// A LoadMany gets keys of several shops if GetMany does.
//
//	cfg, err := shopify.CacheConfig(shopify.CacheVariants, func(v Variant) []string { return []string{shopify.Subject(v.Product.ID)} })
//	cfg.Remote = rediscache.New(rdb, rediscache.Config{})
//	variants, err := cache.New(loadVariant, cfg)
func CacheConfig[V any](kind CacheKind, related func(value V) []string) (cache.Config[CacheKey, V], error) {
	p, err := kind.preset()
	if err != nil {
		return cache.Config[CacheKey, V]{}, err
	}
	if p.owned && related == nil {
		return cache.Config[CacheKey, V]{}, fmt.Errorf("shopify: CacheConfig: a cache of %s needs to know by its values whose they are: related is nil", kind)
	}
	return cache.Config[CacheKey, V]{
		Name: string(kind), TTL: p.ttl, StaleIfError: time.Hour, Tags: func(_ CacheKey, value V) []string {
			if related == nil {
				return nil
			}
			return related(value)
		},
	}, nil
}

// Stale is what a webhook makes untrue in a cache of the kind, for cache.InvalidateBy around a sink: it invalidates at the door, before the backlog. Its error is cache.ErrIgnore for what does not concern the kind.
//
//	sink := cache.InvalidateBy(products, shopify.CacheProducts.Stale, enqueue.To(jobs, mux))
func (k CacheKind) Stale(d webhook.Delivery) (cache.Stale[CacheKey], error) {
	at, _ := d.UpdatedAt()
	return k.stale(d.Shop, d.Subject(), at)
}

// StaleEvent is [CacheKind.Stale] for handlers of events, in a worker.
//
//	enqueue.Handle(mux, "products/update", cache.InvalidateBy(products, shopify.StaleEvent[Product](shopify.CacheProducts), syncProduct))
func StaleEvent[T any](k CacheKind) func(e webhook.Event[T]) (cache.Stale[CacheKey], error) {
	return func(e webhook.Event[T]) (cache.Stale[CacheKey], error) {
		return k.stale(e.Shop, e.Subject, e.UpdatedAt)
	}
}

func (k CacheKind) stale(shop, subject string, at time.Time) (out cache.Stale[CacheKey], err error) {
	p, err := k.preset()
	if err != nil {
		return out, err
	}
	kind, _, _ := strings.Cut(subject, "/")
	if kind == "shop" {
		subject = "shop" // of which there is one
	}
	if kind != "" && kind == p.subject {
		out.Keys, out.UpdatedAt = []CacheKey{{shop, subject}}, at
	}
	if slices.Contains(p.tags, kind) {
		out.Scope, out.Tags = shop, []string{subject}
	}
	if out.Keys == nil && out.Tags == nil {
		return out, cache.ErrIgnore
	}
	return out, nil
}
