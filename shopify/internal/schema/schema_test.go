package schema_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/shopify/internal/schema"
)

func TestOpenTakesTheNearestVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"2025-10": "2025-10", "2026-01": "2026-01", "2026-04": "2026-04", "2026-07": "2026-07", "2026-10": "2026-10", "unstable": "unstable",
		"2020-01": "2025-10", "2025-01": "2025-10", "": "2025-10", "2026-02": "2026-01", "2027-01": "2026-10", "2999-99": "2026-10",
	} {
		v, err := schema.Open(version)
		require.NoError(t, err)
		require.Equal(t, want, v.Name, version)
		again, err := schema.Open(version)
		require.NoError(t, err)
		require.Same(t, v, again)
	}
}

func TestWhatATypeIs(t *testing.T) {
	t.Parallel()
	v, err := schema.Open("2026-04")
	require.NoError(t, err)
	node, ok := v.Type("Node")
	require.True(t, ok)
	require.Equal(t, schema.Interface, v.Of(node).Kind)
	product, ok := v.Type("Product")
	require.True(t, ok)
	require.Equal(t, schema.Object, v.Of(product).Kind)
	require.True(t, v.Is(product, node))
	require.True(t, v.Is(product, product))
	require.False(t, v.Is(node, product))
	require.Greater(t, len(v.Possible(node)), 100)
	for _, p := range v.Possible(node) {
		require.Equal(t, schema.Object, v.Of(p).Kind)
	}
	variants, ok := v.Field(product, "variants")
	require.True(t, ok)
	require.Equal(t, "ProductVariantConnection", v.Of(variants).Name)
	require.True(t, v.Of(variants).Connection)
	id, ok := v.Field(product, "id")
	require.True(t, ok)
	require.Equal(t, schema.Leaf, v.Of(id).Kind)
	_, ok = v.Field(product, "hoverboard")
	require.False(t, ok)
	_, ok = v.Type("Hoverboard")
	require.False(t, ok)
}
