package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestQuota compares the ways by the fake's clock. With BENCH_QUOTA the plot and the results are written to that directory.
func TestQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		b := &quotaBench{out: &out, length: time.Minute, speed: 1, svg: os.Getenv("BENCH_QUOTA")}
		if b.svg == "" {
			b.svg, b.length = t.TempDir(), 20*time.Second
		}
		require.NoError(t, b.run(t.Context()))
		t.Log("\n" + out.String())
		of := map[string]*quotaRun{}
		for _, r := range b.results {
			of[r.Way] = r
		}
		if os.Getenv("BENCH_QUOTA") != "" {
			out.Reset()
			b.json = true
			require.NoError(t, b.print())
			require.NoError(t, os.WriteFile(filepath.Join(b.svg, "quota.jsonl"), out.Bytes(), 0o600)) //nolint:gosec // where it is told
		}
		ours := of["Breakwater, one process"]
		require.Zero(t, ours.Throttled)
		require.GreaterOrEqual(t, ours.Used, 0.9) // of so short a time; P9's own tests measure it exactly
		require.Less(t, ours.Interactive, 2.0)
		require.Greater(t, of["retry at once"].Throttled, 1000)
		require.Greater(t, of["sleep, then retry"].Throttled, 100)
		require.Less(t, of["fixed rate"].Used, 0.9)
		svg, err := os.ReadFile(filepath.Join(b.svg, "quota.svg")) //nolint:gosec // as above
		require.NoError(t, err)
		require.Contains(t, string(svg), "Breakwater, one process")
	})
}
