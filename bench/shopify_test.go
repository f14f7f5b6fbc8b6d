package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// Every case runs, and says what it should: no figure is looked at.
func TestShopifyBench(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := &shopifyBench{rep: &report{out: &out}, rounds: 1, length: time.Millisecond, addr: redistest.Start(t).Addr}
	require.NoError(t, b.run(t.Context()), out.String())
	require.NotContains(t, out.String(), "invalid")
	require.Len(t, strings.Split(strings.TrimSpace(out.String()), "\n"), 3+8)
}
