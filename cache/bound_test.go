//go:build !race

package cache_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
)

// nowhere is a Remote that keeps nothing.
type nowhere struct{ cache.Remote }

func (nowhere) Watch(string, time.Duration, func(cache.Notice)) error { return nil }

func (nowhere) Get(_ context.Context, _ string, keys []cache.Key, _ time.Duration) ([]cache.Answer, error) {
	return make([]cache.Answer, len(keys)), nil
}

func (nowhere) Fill(_ context.Context, _ string, fills []cache.Fill) ([]bool, error) {
	kept := make([]bool, len(fills))
	for i := range kept {
		kept[i] = true
	}
	return kept, nil
}

// TestMemoryStaysInsideItsBoundAtTenMillionRandomKeys goes by what the process has in use when all garbage is gone. The race detector would make it last for minutes: make test runs it without.
func TestMemoryStaysInsideItsBoundAtTenMillionRandomKeys(t *testing.T) { //nolint:paralleltest // it measures the process's memory
	const bound, batch = 64 << 20, 1000
	for _, c := range []struct { //nolint:paralleltest // as above
		name string
		keys int
		cfg  cache.Config[uint64, string]
	}{
		{"one tier", 10_000_000, cache.Config[uint64, string]{}},
		{"two tiers", 10_000_000, cache.Config[uint64, string]{Name: "test", Remote: nowhere{}}},
		{"a tag of its own each", 1_000_000, cache.Config[uint64, string]{Tags: func(k uint64, _ string) []string { return []string{strconv.FormatUint(k, 10)} }}},
		{"tags in common", 1_000_000, cache.Config[uint64, string]{Tags: func(k uint64, _ string) []string { return []string{"all", string(rune('a' + k%26))} }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			value := strings.Repeat("x", 100)
			c.cfg.MaxBytes, c.cfg.MaxBatch, c.cfg.SizeOf = bound, batch, func(_ uint64, v string) int { return len(v) }
			c.cfg.LoadMany = func(_ context.Context, keys []uint64) (map[uint64]string, error) {
				out := make(map[uint64]string, len(keys))
				for _, k := range keys {
					out[k] = strings.Clone(value)
				}
				return out, nil
			}
			before := inUse()
			products, err := cache.New(func(context.Context, uint64) (string, error) { return value, nil }, c.cfg)
			require.NoError(t, err)
			rng := rand.New(rand.NewPCG(1, 1))
			ask := make([]uint64, batch)
			for range c.keys / batch {
				for i := range ask {
					ask[i] = rng.Uint64()
				}
				got, err := products.GetMany(t.Context(), ask)
				require.NoError(t, err)
				require.Len(t, got, batch)
			}
			used := inUse() - before
			t.Logf("%d bytes in use, %d entries, %d bytes each", used, products.Stats().Entries, used/int64(products.Stats().Entries))
			require.Less(t, used, int64(bound))
			require.Greater(t, used, int64(bound/4), "and it is made use of")
			runtime.KeepAlive(products)
		})
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // less than that
}
