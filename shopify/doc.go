// Package shopify is a client of Shopify's Admin API that knows what a query costs before it sends it.
//
// What is here so far is that: [Costs] computes a query's requestedQueryCost from its text, its variables and the version's schema, learns from answers where Shopify's prices
// have moved, and refuses a query over the limit of a single one, naming the path that costs most. [Explain] shows the whole tree.
//
//	costs, err := shopify.NewCosts("2026-04")
//	cost, err := costs.Of(shopify.Request{Query: query, Variables: map[string]any{"first": 50}})
//
// What it does not know is what a query will really cost: actualQueryCost depends on the data. The bucket has to hold the requested cost; the difference comes back.
package shopify
