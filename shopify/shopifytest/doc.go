// Package shopifytest is a fake of Shopify's Admin API that is true to the real one where it hurts: it checks queries against the real schema of each version, charges what
// Shopify charges from a bucket for each app and shop, answers with the same shapes and the same errors, and sends the webhooks that a change causes.
//
// It has state: products, variants, inventory, locations, orders, customers, metafields and the shop can be created, changed and queried. What it does not support is an
// error that says so, with the code FAKE_UNSUPPORTED, before anything has changed; it never invents an answer.
//
//	fake, err := shopifytest.New(shopifytest.Config{})
//	server := httptest.NewServer(fake) // or use fake as an http.RoundTripper, which works in a synctest bubble
//
// A shop is made the first time that somebody asks for it. It is named by the request's Host, if that ends in .myshopify.com, or by the first part of its path
// (/example.myshopify.com/admin/api/2026-04/graphql.json); otherwise it is Config.Shop.
package shopifytest
