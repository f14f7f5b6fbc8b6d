package sdl_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2"

	"github.com/breakwater-go/breakwater/shopify/internal/sdl"
)

func TestEveryVersionLoads(t *testing.T) {
	t.Parallel()
	for _, v := range sdl.Versions() {
		s, err := sdl.Load(v)
		require.NoError(t, err)
		_, errs := gqlparser.LoadQueryWithRules(s, `query($n: Int!) { products(first: $n, query: "vendor:x") { nodes { id ... on Node { id } variants(first: 1) { edges { node { price } } } } } }`, nil)
		require.Empty(t, errs, v)
		_, errs = gqlparser.LoadQueryWithRules(s, `{ products(first: 1) { nodes { notThere } } }`, nil)
		require.NotEmpty(t, errs, v)
		require.NotNil(t, s.Mutation.Fields.ForName("productCreate"), v)
		idempotent := s.Directives["idempotent"]
		require.Equal(t, v >= "2026-01", idempotent != nil, v)
	}
	_, err := sdl.Load("2020-01")
	require.ErrorContains(t, err, "2026-04")
}
