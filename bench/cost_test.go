package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A cost that is wrong is counted as wrong, its fields are named, and once it is learned it is right.
func TestCostsAreComparedWithRecordings(t *testing.T) {
	t.Parallel()
	write := func(lines string) string {
		file := filepath.Join(t.TempDir(), "recordings.jsonl.gz")
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write([]byte(lines))
		require.NoError(t, err)
		require.NoError(t, z.Close())
		require.NoError(t, os.WriteFile(file, b.Bytes(), 0o600))
		return file
	}
	var out bytes.Buffer
	require.NoError(t, benchCost(t.Context(), []string{write(`{"version":"2026-04","query":"{ shop { id } }","variables":{},"requested":1}
{"version":"2026-04","query":"query P($n: Int) { products(first: $n) { nodes { id } } }","variables":{"n":10},"requested":6}
{"version":"2026-04","query":"{ orders(first: 10) { nodes { name } } }","variables":null,"requested":77}
{"version":"2026-04","query":"{ shop { hoverboard } }","variables":null,"requested":5}
`)}, &out))
	lines := strings.Split(out.String(), "\n")
	row := strings.Fields(lines[1])
	require.Len(t, row, 8)
	assert.Equal(t, []string{"2026-04", "4", "2", "50.00", "1"}, row[:5])
	assert.Equal(t, []string{"4", "4"}, row[6:], "all, once learned")
	assert.Contains(t, out.String(), "hoverboard")
	assert.Contains(t, out.String(), "orders")

	require.ErrorContains(t, benchCost(t.Context(), nil, &out), "usage")
	require.ErrorContains(t, benchCost(t.Context(), []string{write("{}\n{")}, &out), "line 2")
	require.ErrorContains(t, benchCost(t.Context(), []string{write("")}, &out), "no recordings")
}
