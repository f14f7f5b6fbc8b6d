package rediscache_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/rediscache"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// An unsharded channel's messages go to every node of a Cluster, and cost as much on each.
func TestChannelsOfAClusterAreSharded(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	s := &source{}
	s.set("v")
	newNode(t, s, client, cache.Config[string, string]{}).get(t, "k")
	require.Eventually(t, func() bool {
		sharded := 0
		for _, node := range c.Nodes {
			require.Empty(t, node.PubSubChannels(t.Context(), "*").Val())
			sharded += len(node.PubSubShardChannels(t.Context(), "*").Val())
		}
		return sharded > 0
	}, soon, time.Millisecond)
}

func TestSlotsMoveWhileKeysAreInvalidated(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	s := &source{}
	s.set("0")
	a, b := newNode(t, s, client, cache.Config[string, string]{MaxLag: 500 * time.Millisecond}), newNode(t, s, client, cache.Config[string, string]{MaxLag: 500 * time.Millisecond})
	slot, err := client.ClusterKeySlot(t.Context(), a.store.KeyOf("", "meta")).Result()
	require.NoError(t, err)
	var stop atomic.Bool
	var rounds atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; !stop.Load(); i++ {
			want := fmt.Sprint(i)
			s.set(want)
			for {
				err := a.Invalidate(t.Context(), "k")
				if err == nil {
					break
				}
			}
			for range 5 {
				if v, err := a.Get(t.Context(), "k"); err != nil || v != want {
					t.Errorf("%q, %v; want %s", v, err, want)
				}
			}
			begun := time.Now()
			for {
				v, err := b.Get(t.Context(), "k")
				if err == nil && v == want {
					break
				}
				if time.Since(begun) > 3*time.Second {
					t.Errorf("the other process has %q, %v; want %s", v, err, want)
					break
				}
			}
			rounds.Add(1)
		}
	})
	for round := range 4 {
		before := rounds.Load()
		require.Eventually(t, func() bool { return rounds.Load() > before+20 }, 30*time.Second, time.Millisecond)
		c.Move(t, int(slot), (c.Owner(t, int(slot))+1+round%2)%3)
	}
	before := rounds.Load()
	require.Eventually(t, func() bool { return rounds.Load() > before+20 }, 30*time.Second, time.Millisecond)
	stop.Store(true)
	wg.Wait()
}

// keep has a store keep n values of a scope.
func keep(t *testing.T, s *rediscache.Store, scope string, n int) {
	t.Helper()
	keys, fills := make([]cache.Key, n), make([]cache.Fill, n)
	for i := range keys {
		keys[i] = cache.Key{Scope: scope, ID: strconv.Itoa(i)}
	}
	now, err := s.Get(t.Context(), "test", keys, 0)
	require.NoError(t, err)
	for i, key := range keys {
		fills[i] = cache.Fill{Key: key, Mark: now[i].Mark, Stamp: now[i].Stamp, Value: []byte("a customer's name"), Fresh: time.Minute, Keep: time.Minute}
	}
	kept, err := s.Fill(t.Context(), "test", fills)
	require.NoError(t, err)
	require.NotContains(t, kept, false)
}

// A client that has not heard yet of a slot that moved would look through the server that had it.
func TestPurgeFindsWhatHasMoved(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	s := rediscache.New(client, rediscache.Config{Timeout: 20 * time.Second, InvalidateTimeout: 20 * time.Second})
	t.Cleanup(s.Close)
	for round := range 3 {
		scope := fmt.Sprint("shop", round)
		keep(t, s, scope, 50)
		slot := int(client.ClusterKeySlot(t.Context(), s.KeyOf(scope, "meta")).Val())
		c.Move(t, slot, (c.Owner(t, slot)+1)%3)
		require.NoError(t, s.Purge(t.Context(), "test", scope))
		for _, node := range c.Nodes {
			require.Empty(t, node.Keys(t.Context(), s.KeyOf(scope, "e:test:"+scope+":*")).Val())
		}
	}
}

// A Purge that fails because its slot is on its way is to be done again. Until then it must not have forgotten what was invalidated before.
func TestPurgeThatFailsAdmitsNoFillFromBefore(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	cfg := rediscache.Config{Timeout: 20 * time.Second}
	a, b := rediscache.New(client, cfg), rediscache.New(client, cfg)
	t.Cleanup(a.Close)
	t.Cleanup(b.Close)
	x := cache.Key{Scope: "shop", ID: "x"}
	began, err := b.Get(t.Context(), "test", []cache.Key{x}, 0) // a load of x begins, and reads what is old
	require.NoError(t, err)
	require.NoError(t, a.Invalidate(t.Context(), "test", []cache.Invalidation{{Kind: cache.OfKey, Scope: x.Scope, ID: x.ID, Version: 5}}))
	require.NoError(t, a.Invalidate(t.Context(), "other", []cache.Invalidation{{Kind: cache.OfKey, Scope: x.Scope, ID: x.ID}})) // so that the log does not end
	keep(t, a, "shop", 1)

	slot := int(client.ClusterKeySlot(t.Context(), a.KeyOf("shop", "meta")).Val())
	from := c.Owner(t, slot)
	back := c.Begin(t, slot, (from+1)%3)
	purged := a.Purge(t.Context(), "test", "shop")
	back()
	t.Log("purge:", purged)
	kept, err := b.Fill(t.Context(), "test", []cache.Fill{{Key: x, Mark: began[0].Mark, Stamp: began[0].Stamp, Value: []byte("old"), Fresh: time.Minute, Keep: time.Minute}})
	require.NoError(t, err)
	require.Equal(t, []bool{false}, kept, "it began before the invalidation of x")
	require.NoError(t, a.Purge(t.Context(), "test", "shop"))
}

// What a server that is full would have said counts as kept: it has refused nothing.
func TestOneServerOfAClusterIsFull(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	s := rediscache.New(client, rediscache.Config{Timeout: 5 * time.Second})
	t.Cleanup(s.Close)
	of := map[int]string{} // a scope of each server
	for i := 0; len(of) < len(c.Nodes); i++ {
		scope := fmt.Sprint("shop", i)
		of[c.Owner(t, int(client.ClusterKeySlot(t.Context(), s.KeyOf(scope, "meta")).Val()))] = scope
	}
	var loads atomic.Int64
	load := func(_ context.Context, key cache.Key) (string, error) { loads.Add(1); return key.ID, nil }
	products, err := cache.New(load, cache.Config[cache.Key, string]{
		Name: "test", Remote: s, MaxLag: time.Minute, Key: func(key cache.Key) cache.Key { return key },
		LoadMany: func(_ context.Context, keys []cache.Key) (map[cache.Key]string, error) { // which fill Redis together
			out := map[cache.Key]string{}
			for _, key := range keys {
				loads.Add(1)
				out[key] = key.ID
			}
			return out, nil
		},
	})
	require.NoError(t, err)
	for _, scope := range of { // what scripts and records need is there
		_, err = products.Get(t.Context(), cache.Key{Scope: scope, ID: "warm"})
		require.NoError(t, err)
	}
	require.NoError(t, c.Nodes[0].ConfigSet(t.Context(), "maxmemory", "1").Err())
	keys := []cache.Key{{Scope: of[0], ID: "1"}, {Scope: of[1], ID: "2"}, {Scope: of[2], ID: "3"}}
	loads.Store(0)
	for range 2 {
		got, err := products.GetMany(t.Context(), keys)
		require.NoError(t, err)
		require.Len(t, got, 3)
	}
	require.Equal(t, int64(3), loads.Load(), "memory has them all")
	require.Zero(t, products.Stats().Refused)
}
