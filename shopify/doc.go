// Package shopify is a client of Shopify's Admin API that never overruns a shop's quota, and keeps it busy.
//
// Shopify gives each app and shop a bucket of points, and refuses a query that finds too few in it. Here what a query costs is computed before it is sent ([Costs], [Explain]), a [Limiter] waits until the bucket
// holds as much, and each answer corrects its model of the bucket. Processes share one by package redislimit. [Transport] gives all that to any client, as an http.RoundTripper, with retries and a breaker for each shop;
// [Client] is our own, with typed results and errors, pages that suit the quota, and keys for @idempotent.
//
//	client, err := shopify.New(shopify.StaticToken(token), shopify.ClientConfig{Config: shopify.Config{Version: "2026-04"}})
//	shop, err := client.Shop("example.myshopify.com")
//	got, err := shopify.Query[struct{ Shop struct{ Name string } }](ctx, shop, `{ shop { name } }`, nil)
//
// Who can't have points in time gets an error at once that says when there will be some, by which a queue parks the shop ([ErrQuota]).
//
// What it does not do: it never sends a mutation again that may have had its effect, unless that has a key; it does not know what a query will really cost, only what Shopify wants to be there for it; and it knows nothing of processes
// of the same app that do not share its buckets, but what answers tell. OAuth, bulk operations and subscriptions are not here yet. Package shopifytest is a fake of the API.
package shopify
