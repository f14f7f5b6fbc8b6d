package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/shopify"
)

// shopDomain is the one shop of this storefront.
const shopDomain = "example.myshopify.com"

// product is what the storefront shows: as the Admin API answers, as it is cached, and as a page has it.
type product struct {
	ID        string    `json:"id"`
	Title     string    `json:"title"`
	UpdatedAt time.Time `json:"updatedAt"`
	Price     struct {
		From struct {
			Amount string `json:"amount"`
		} `json:"from"`
	} `json:"price"`
}

const (
	productFields = `fragment Fields on Product { id title updatedAt price: priceRangeV2 { from: minVariantPrice { amount } } }`
	productQuery  = `query Product($id: ID!) { product(id: $id) { ...Fields } } ` + productFields
	productsQuery = `query Products($ids: [ID!]!) { nodes(ids: $ids) { ...Fields } } ` + productFields
)

// titled is a product's title. It has the number of the edition, as prices have the number of their changes: both together say how often the product was changed, and so which of two answers is the older one.
// updatedAt has whole seconds, which is not enough for that.
func titled(name string, edition int) string { return fmt.Sprintf("%s, edition %d", name, edition) }

// priced is the price after so many changes.
func priced(changes int) string { return fmt.Sprintf("%d.%02d", changes/100, changes%100) }

// versionOf is the version of a product with a title and a price: 1 of a new one.
func versionOf(title, price string) (int, error) {
	_, text, _ := strings.Cut(title, ", edition ")
	edition, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("the title %q has no edition", title)
	}
	amount, err := strconv.ParseFloat(price, 64)
	if err != nil {
		return 0, fmt.Errorf("the price %q is no number", price)
	}
	return edition + int(math.Round(100*amount)), nil
}

func (p product) version() (int, error) { return versionOf(p.Title, p.Price.From.Amount) }

// keyOf names the product with an ID such as 7100000000001 in caches, as webhooks name it too.
func keyOf(id string) shopify.CacheKey {
	return shopify.CacheKey{Shop: shopDomain, Subject: "product/" + id}
}

func idOf(k shopify.CacheKey) string { return strings.TrimPrefix(k.Subject, "product/") }

// catalog asks the shop for products. Both ways to cache them load what they miss with one.
type catalog struct{ shop *shopify.Shop }

// newCatalog makes one that an app of the given name uses: it has its own share of the shop's quota, which all processes of that app keep to together.
func newCatalog(endpoint, app string, quota shopify.Buckets) (catalog, error) {
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: quota})
	if err != nil {
		return catalog{}, err
	}
	client, err := shopify.New(shopify.StaticToken(app), shopify.ClientConfig{
		Config: shopify.Config{Version: adminVersion, App: app, Limiter: limiter}, Endpoint: endpoint,
	})
	if err != nil {
		return catalog{}, err
	}
	shop, err := client.Shop(shopDomain)
	return catalog{shop}, err
}

// load is the loader of a cache.
func (c catalog) load(ctx context.Context, key shopify.CacheKey) (product, error) {
	got, err := shopify.Query[struct{ Product *product }](ctx, c.shop, productQuery, map[string]any{"id": key.GID()})
	switch {
	case err != nil:
		return product{}, err
	case got.Product == nil:
		return product{}, cache.ErrNotFound
	}
	return *got.Product, nil
}

// loadMany loads what a page of many products misses, in one call.
func (c catalog) loadMany(ctx context.Context, keys []shopify.CacheKey) (map[shopify.CacheKey]product, error) {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.GID()
	}
	got, err := shopify.Query[struct{ Nodes []*product }](ctx, c.shop, productsQuery, map[string]any{"ids": ids})
	if err != nil {
		return nil, err
	}
	out := make(map[shopify.CacheKey]product, len(keys))
	for _, p := range got.Nodes {
		if p != nil { // null is one that does not exist
			out[shopify.CacheKey{Shop: shopDomain, Subject: shopify.Subject(p.ID)}] = *p
		}
	}
	return out, nil
}
