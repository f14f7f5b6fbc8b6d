package shopify_test

import (
	"fmt"

	"github.com/breakwater-go/breakwater/shopify"
)

func ExampleCosts() {
	costs, err := shopify.NewCosts("2026-04")
	if err != nil {
		panic(err)
	}
	r := shopify.Request{
		Query:     `query Page($first: Int!) { products(first: $first) { nodes { id variants(first: 100) { nodes { id } } } } }`,
		Variables: map[string]any{"first": 50},
	}
	fmt.Println(costs.Of(r))
	r.Query = `query Page($first: Int!) { products(first: $first) { nodes { variants(first: 250) { nodes { metafields(first: 250) { nodes { id } } } } } } }`
	fmt.Println(costs.Of(r))
	// Output:
	// 86 <nil>
	// 1101 shopify: the query costs 1101 and may cost 1000; products.nodes.variants.nodes.metafields is 1001 of it: ask for fewer elements there, or in several queries
}

func ExampleExplain() {
	e, err := shopify.Explain("2026-04", shopify.Request{Query: `{
		shop { name }
		recent: orders(first: 10) { nodes { name customer { email } lineItems(first: 5) { nodes { title } } } }
	}`})
	if err != nil {
		panic(err)
	}
	fmt.Print(e)
	// Output:
	// 31
	//   shop  1
	//   recent: orders  30 = 2 + 4 × …, 10 asked for
	//     nodes  7 = 1 + …
	//       customer  1
	//       lineItems  5 = 2 + 3 × …, 5 asked for
	//         nodes  1
}
