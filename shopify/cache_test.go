package shopify_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

func TestSubjectOfAGID(t *testing.T) {
	t.Parallel()
	for gid, want := range map[string]string{
		"gid://shopify/Product/788032119674292922":        "product/788032119674292922",
		"gid://shopify/ProductVariant/642667041472713922": "variant/642667041472713922",
		"gid://shopify/Collection/1?x=y":                  "collection/1",
		"gid://shopify/MetaobjectDefinition/5":            "metaobject_definition/5",
		"gid://shopify/ProductFeed/3":                     "product_feed/3",
		"product/1":                                       "product/1",
	} {
		require.Equal(t, want, shopify.Subject(gid))
		if gid, ok := strings.CutPrefix(gid, "gid://"); ok {
			gid, _, _ = strings.Cut(gid, "?")
			require.Equal(t, "gid://"+gid, shopify.CacheKey{Subject: want}.GID())
		}
	}
}

// Every topic that a kind lists concerns it, by the body that Shopify sends.
func TestTopicsOfACacheKindInvalidate(t *testing.T) {
	t.Parallel()
	for _, kind := range []shopify.CacheKind{shopify.CacheProducts, shopify.CacheVariants, shopify.CacheCollections, shopify.CacheMetafields, shopify.CacheShop} {
		require.NotEmpty(t, kind.Topics())
		for _, topic := range kind.Topics() {
			require.Contains(t, webhooktest.Topics(), topic)
			d := webhook.Delivery{Meta: webhook.Meta{Shop: "a.myshopify.com", Topic: topic}, Body: webhooktest.Payload(topic)}
			what, err := kind.Stale(d)
			require.NoError(t, err, "%s by %s", kind, topic)
			require.NotEmpty(t, len(what.Keys)+len(what.Tags))
			for _, key := range what.Keys {
				require.Equal(t, "a.myshopify.com", key.Shop)
			}
			e, err := webhook.Decode[map[string]any](d)
			require.NoError(t, err)
			same, err := shopify.StaleEvent[map[string]any](kind)(e)
			require.NoError(t, err)
			require.Equal(t, what, same)
		}
		_, err := kind.Stale(webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create"}, Body: webhooktest.Payload("orders/create")})
		require.ErrorIs(t, err, cache.ErrIgnore)
	}
}

func TestWhatIsNotForCachingIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	_, err := shopify.CacheConfig[int](shopify.CacheInventoryLevels, nil)
	require.ErrorIs(t, err, shopify.ErrNotForCaching)
	require.ErrorContains(t, err, "a stale one sells what is not there")
	_, err = shopify.CacheConfig[int](shopify.CacheOrders, nil)
	require.ErrorIs(t, err, shopify.ErrNotForCaching)
	require.ErrorContains(t, err, "whether goods and money move")
	_, err = shopify.CacheConfig[int]("customers", nil)
	require.ErrorContains(t, err, `"customers" is not a CacheKind`)
	_, err = shopify.CacheConfig[int](shopify.CacheVariants, nil)
	require.ErrorContains(t, err, "related is nil")
	require.Empty(t, shopify.CacheOrders.Topics())
	_, err = shopify.CacheOrders.Stale(webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create"}, Body: webhooktest.Payload("orders/create")})
	require.ErrorIs(t, err, shopify.ErrNotForCaching)
}

func TestAProductsWebhookAtTheDoorInvalidatesItsVariants(t *testing.T) {
	t.Parallel()
	type variant struct {
		Price   string
		Product string
	}
	cfg, err := shopify.CacheConfig(shopify.CacheVariants, func(v variant) []string { return []string{shopify.Subject(v.Product)} })
	require.NoError(t, err)
	require.Equal(t, 10*time.Minute, cfg.TTL)
	price := "1.00"
	variants, err := cache.New(func(_ context.Context, key shopify.CacheKey) (variant, error) {
		if !strings.HasPrefix(key.Subject, "variant/") {
			return variant{}, cache.ErrNotFound
		}
		return variant{price, "gid://shopify/Product/788032119674292922"}, nil
	}, cfg)
	require.NoError(t, err)
	key := shopify.CacheKey{Shop: "a.myshopify.com", Subject: "variant/1"}
	at := func() string {
		v, err := variants.Get(t.Context(), key)
		require.NoError(t, err)
		return v.Price
	}
	require.Equal(t, "1.00", at())
	price = "2.00"
	require.Equal(t, "1.00", at())
	var queued []string
	sink := cache.InvalidateBy(variants, shopify.CacheVariants.Stale, func(_ context.Context, d webhook.Delivery) error {
		queued = append(queued, d.Topic+" "+at())
		return nil
	})
	for _, topic := range []string{"orders/create", "products/update"} {
		require.NoError(t, sink(t.Context(), webhook.Delivery{Meta: webhook.Meta{Shop: "a.myshopify.com", Topic: topic}, Body: webhooktest.Payload(topic)}))
	}
	require.Equal(t, []string{"orders/create 1.00", "products/update 2.00"}, queued)
}
