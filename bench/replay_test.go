package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each kind of outcome is told from the others.
func TestRecordingsAreReplayed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "recordings.jsonl.gz")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(strings.Join([]string{
		`{"version":"2026-04","query":"{ shop { name } }","variables":{},"requested":1,"actual":1,"data":{"shop":{"name":"A"}},"errors":null}`,
		`{"version":"2026-04","query":"query($id: ID!) { product(id: $id) { title } }","variables":{"id":"gid://shopify/Product/5"},"requested":1,"actual":1,"data":{"product":{"title":"P"}},"errors":null}`,
		`{"version":"2026-04","query":"{ order(id: \"gid://shopify/Order/0\") { id } }","variables":{},"requested":1,"actual":1,"data":{"order":{"id":"x"}},"errors":null}`,
		`{"version":"2026-04","query":"{ shop { features { storefront } } }","variables":{},"requested":2,"actual":2,"data":{"shop":{"features":{"storefront":true}}},"errors":null}`,
		`{"version":"2025-01","query":"{ shop { hoverboard } }","variables":{},"requested":1,"actual":1,"data":{"shop":{"hoverboard":1}},"errors":null}`,
		`{"version":"2026-04","query":"query($id: ID!) { product(id: $id) { title } }","variables":{},"requested":1,"actual":1,"data":{"product":{"title":"P"}},"errors":null}`,
		`{"version":"2026-04","query":"{ shop { name } }","variables":{},"requested":1,"actual":1,"data":{"shop":{"name":7}},"errors":null}`,
		`{"version":"2026-04","query":"{ shop { hoverboard } }","variables":{},"requested":1,"actual":1,"data":{"shop":{"hoverboard":1}},"errors":null}`,
	}, "\n")))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	require.NoError(t, os.WriteFile(file, b.Bytes(), 0o600))
	var out bytes.Buffer
	require.NoError(t, benchReplay(t.Context(), []string{file}, &out))
	var rows [][]string
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) == 12 && strings.HasPrefix(f[0], "202") {
			rows = append(rows, f[:8])
		}
	}
	require.Equal(t, [][]string{
		{"2025-01", "1", "0", "0", "0", "1", "0", "0"},
		{"2026-04", "7", "2", "1", "1", "0", "1", "2"},
	}, rows, out.String())
	require.Contains(t, out.String(), ".shop.name is string and not float64")
	require.Error(t, benchReplay(t.Context(), nil, &out))
}
