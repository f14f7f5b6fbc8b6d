package rediscache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/rediscache"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// soon is a wait for what needs no more than a message's way, on a machine that is busy.
const soon = 10 * time.Second

// node is a process: its cache, and the store beneath.
type node struct {
	*cache.Cache[string, string]

	store *rediscache.Store
}

// source is what is loaded.
type source struct {
	value atomic.Pointer[string]
	loads atomic.Int64
	gate  atomic.Pointer[chan struct{}] // if not nil, each load reads and then waits for it
}

func (s *source) set(v string) { s.value.Store(&v) }

func (s *source) hold() (free func()) {
	gate := make(chan struct{})
	s.gate.Store(&gate)
	return func() { s.gate.Store(nil); close(gate) }
}

func (s *source) load(ctx context.Context, _ string) (string, error) {
	s.loads.Add(1)
	v := *s.value.Load()
	if gate := s.gate.Load(); gate != nil {
		select {
		case <-*gate:
		case <-ctx.Done():
		}
	}
	return v, nil
}

func newNode(t *testing.T, s *source, client redis.UniversalClient, cfg cache.Config[string, string]) *node {
	t.Helper()
	store := rediscache.New(client, rediscache.Config{Timeout: time.Second})
	t.Cleanup(store.Close)
	cfg.Name, cfg.Remote, cfg.Jitter = "test", store, -1
	c, err := cache.New(s.load, cfg)
	require.NoError(t, err)
	return &node{c, store}
}

func (n *node) get(t *testing.T, key string) string {
	t.Helper()
	v, err := n.Get(t.Context(), key)
	require.NoError(t, err)
	return v
}

// listens waits until the process is told of invalidations.
func (n *node) listens(t *testing.T) {
	t.Helper()
	n.get(t, "warm")
	require.Eventually(t, n.store.Listens, soon, time.Millisecond)
}

// inMemory says whether a Get of k is answered from memory.
func (n *node) inMemory(t *testing.T) bool {
	t.Helper()
	before := n.Stats().Hits
	n.get(t, "k")
	return n.Stats().Hits > before
}

// P10: "Stale data has a bound, and an invalidation wins. A fill that began before an invalidation can't put the old value back."
func TestP10FillThatBeganBeforeAnInvalidationByAnotherProcess(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	s.set("old")
	a, b := newNode(t, s, client, cache.Config[string, string]{}), newNode(t, s, client, cache.Config[string, string]{})
	c := newNode(t, s, client, cache.Config[string, string]{})
	for i := range 20 {
		key := fmt.Sprint("k", i)
		s.set("old")
		free := s.hold()
		before := s.loads.Load()
		var wg sync.WaitGroup
		wg.Go(func() { a.get(t, key) })
		require.Eventually(t, func() bool { return s.loads.Load() > before }, soon, time.Millisecond)
		s.set("new")
		require.NoError(t, b.Invalidate(t.Context(), key))
		free()
		wg.Wait()
		require.Equal(t, "new", c.get(t, key), "from the Remote")
		require.Equal(t, "new", b.get(t, key))
		require.Eventually(t, func() bool { return a.get(t, key) == "new" }, soon, time.Millisecond)
	}
}

func TestPubsubDisconnectMakesL1UntrustedUntilResubscribed(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	p := newProxy(t, addr)
	s := &source{}
	s.set("v")
	a := newNode(t, s, p.Client, cache.Config[string, string]{MaxLag: time.Second})
	b := newNode(t, s, redistest.Dial(t, addr), cache.Config[string, string]{})
	a.listens(t)
	b.listens(t)
	a.get(t, "k")
	time.Sleep(1500 * time.Millisecond) // longer than MaxLag: only the lease holds it now
	require.True(t, a.inMemory(t))

	p.harm(cuts)
	require.Eventually(t, func() bool { return !a.store.Listens() }, soon, time.Millisecond)
	require.False(t, a.inMemory(t), "nobody would tell")
	require.Equal(t, int64(2), s.loads.Load(), "Redis is there")
	s.set("new")
	require.NoError(t, b.Invalidate(t.Context(), "k"))
	require.Eventually(t, func() bool { return a.get(t, "k") == "new" }, soon, time.Millisecond)

	p.harm(swallows) // it connects, and is not told that it has subscribed
	time.Sleep(1500 * time.Millisecond)
	require.False(t, a.store.Listens())
	require.False(t, a.inMemory(t))
	p.harm(cuts)
	p.harm(passes)
	require.Eventually(t, a.store.Listens, 2*soon, time.Millisecond)
	require.Eventually(t, func() bool { return a.inMemory(t) }, soon, time.Millisecond)
	require.Equal(t, int64(3), s.loads.Load(), "what it missed was in the log: the rest of memory is still good")
}

func TestWhatAProcessMissedAndTheLogHasLostIsNotServed(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	p, direct := newProxy(t, addr), redistest.Dial(t, addr)
	s := &source{}
	s.set("old")
	a, b := newNode(t, s, p.Client, cache.Config[string, string]{MaxLag: time.Second}), newNode(t, s, direct, cache.Config[string, string]{})
	a.listens(t)
	b.listens(t)
	a.get(t, "k")
	p.harm(cuts)
	require.Eventually(t, func() bool { return !a.store.Listens() }, soon, time.Millisecond)
	s.set("new")
	require.NoError(t, b.Invalidate(t.Context(), "k"))
	require.NoError(t, direct.Del(t.Context(), a.store.KeyOf("", "log")).Err()) // evicted
	p.harm(passes)
	require.Eventually(t, a.store.Listens, 2*soon, time.Millisecond)
	time.Sleep(time.Second) // MaxLag, since a read it
	require.Equal(t, "new", a.get(t, "k"))
}

func TestAMessageThatGetsLostIsNoticedWithinMaxLag(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	p := newProxy(t, addr)
	s := &source{}
	s.set("old")
	const lag = 2 * time.Second
	a := newNode(t, s, p.Client, cache.Config[string, string]{MaxLag: lag})
	b := newNode(t, s, redistest.Dial(t, addr), cache.Config[string, string]{})
	a.listens(t)
	b.listens(t)
	a.get(t, "k")
	time.Sleep(lag)
	require.True(t, a.inMemory(t))
	p.harm(swallows)
	s.set("new")
	require.NoError(t, b.Invalidate(t.Context(), "k"))
	told := time.Now()
	for time.Since(told) < 2*lag {
		begun := time.Now()
		if v := a.get(t, "k"); v == "old" {
			require.Less(t, begun.Sub(told), lag)
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.Equal(t, "new", a.get(t, "k"))
}

func TestRedisFlushOrFailoverDuringFillDoesNotAdmitStaleFill(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"flush", "failover"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t, "--save", "")
			client := redistest.Dial(t, srv.Addr)
			s := &source{}
			s.set("old")
			a, b := newNode(t, s, client, cache.Config[string, string]{}), newNode(t, s, client, cache.Config[string, string]{})
			for range 5 {
				s.set("old")
				require.NoError(t, a.Invalidate(t.Context(), "k"))
				free := s.hold()
				before := s.loads.Load()
				var wg sync.WaitGroup
				wg.Go(func() { a.get(t, "k") })
				require.Eventually(t, func() bool { return s.loads.Load() > before }, soon, time.Millisecond)
				require.NoError(t, client.Save(t.Context()).Err()) // as a replica has it
				s.set("new")
				require.NoError(t, b.Invalidate(t.Context(), "k"))
				if how == "flush" {
					require.NoError(t, client.FlushAll(t.Context()).Err())
				} else {
					require.NoError(t, srv.Kill())
					require.NoError(t, srv.Start())
				}
				require.Eventually(t, func() bool { // and it begins anew
					_, err := b.store.Get(t.Context(), "test", []cache.Key{{ID: "k"}}, 0)
					return err == nil
				}, soon, time.Millisecond)
				free()
				wg.Wait()
				require.Equal(t, "new", b.get(t, "k"))
				require.Eventually(t, func() bool { return a.get(t, "k") == "new" }, soon, time.Millisecond)
			}
		})
	}
}

// A server that comes back with what it had on disk has lost the invalidations since then, as one that takes over may have.
func TestAServerThatHasLostInvalidationsIsNotBelieved(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "--save", "")
	client := redistest.Dial(t, srv.Addr)
	s := &source{}
	a, b := newNode(t, s, client, cache.Config[string, string]{NoLocal: true}), newNode(t, s, client, cache.Config[string, string]{NoLocal: true})
	for range 3 {
		s.set("old")
		require.NoError(t, a.Invalidate(t.Context(), "k"))
		require.Equal(t, "old", a.get(t, "k"))
		require.Equal(t, "old", b.get(t, "k"))
		require.NoError(t, client.Save(t.Context()).Err())
		s.set("new")
		require.NoError(t, b.Invalidate(t.Context(), "k"))
		require.NoError(t, srv.Kill())
		require.NoError(t, srv.Start())
		var wg sync.WaitGroup
		for _, n := range []*node{a, b} {
			wg.Go(func() {
				for range 200 {
					if v, err := n.Get(t.Context(), "k"); err != nil || v != "new" {
						t.Error(v, err)
						return
					}
				}
			})
		}
		wg.Wait()
		require.NotZero(t, client.Exists(t.Context(), a.store.KeyOf("", "meta")).Val())
	}
}

// Any policy of eviction may take any key at any time.
func TestWhateverIsEvictedNothingStaleComesBack(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	cfg := cache.Config[string, string]{NoLocal: true, Tags: func(_, _ string) []string { return []string{"tag"} }}
	a, b := newNode(t, s, client, cfg), newNode(t, s, client, cfg)
	invalidations := map[string]func() error{
		"key":   func() error { return b.Invalidate(t.Context(), "k") },
		"tag":   func() error { return b.InvalidateTags(t.Context(), "", "tag") },
		"scope": func() error { return b.InvalidateScope(t.Context(), "") },
		"all":   func() error { return b.InvalidateAll(t.Context()) },
	}
	for _, evicted := range []string{"meta", "log", "floors", "e:test::k", "t:test::tag", "s:test::", "a:test::"} {
		for kind, invalidate := range invalidations {
			key := a.store.KeyOf("", evicted)
			s.set("old")
			require.NoError(t, invalidate())
			require.Equal(t, "old", a.get(t, "k"))
			require.NoError(t, client.Del(t.Context(), key).Err())
			require.Equal(t, "old", a.get(t, "k"))
			s.set("new")
			require.NoError(t, invalidate())
			require.NoError(t, client.Del(t.Context(), key).Err())
			require.Equal(t, "new", a.get(t, "k"), "%s, without %s", kind, evicted)

			s.set("old")
			require.NoError(t, invalidate())
			free := s.hold()
			before := s.loads.Load()
			var wg sync.WaitGroup
			wg.Go(func() { a.get(t, "k") })
			require.Eventually(t, func() bool { return s.loads.Load() > before }, soon, time.Millisecond)
			s.set("new")
			require.NoError(t, invalidate())
			require.NoError(t, client.Del(t.Context(), key).Err())
			free()
			wg.Wait()
			require.Equal(t, "new", b.get(t, "k"), "%s during a fill, without %s", kind, evicted)
		}
	}
}

func TestRedisDownAddsAtMostTheTimeoutAndReadsStillLoadAndCoalesce(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := &source{}
	s.set("v")
	store := rediscache.New(redistest.Dial(t, srv.Addr), rediscache.Config{Timeout: 200 * time.Millisecond})
	t.Cleanup(store.Close)
	c, err := cache.New(s.load, cache.Config[string, string]{Name: "test", Remote: store, MaxLag: time.Second, Fleet: time.Second})
	require.NoError(t, err)
	n := &node{c, store}
	n.listens(t)
	require.NoError(t, srv.Pause())
	// Some time in, it is left alone: each read costs no more than its load.
	slowest, fast := time.Duration(0), 0
	for i := range 200 {
		begun := time.Now()
		n.get(t, fmt.Sprint("k", i))
		took := time.Since(begun)
		slowest = max(slowest, took)
		if took < 50*time.Millisecond {
			fast++
		}
	}
	require.Less(t, slowest, 2*time.Second, "of which 200 ms to read, and as much to fill, are allowed")
	require.Greater(t, fast, 150)
	free := s.hold()
	before := s.loads.Load()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { n.get(t, "hot") })
	}
	require.Eventually(t, func() bool { return s.loads.Load() > before && n.Stats().Shared >= 199 }, soon, time.Millisecond)
	free()
	wg.Wait()
	require.Equal(t, before+1, s.loads.Load())

	require.NoError(t, srv.Resume())
	before = s.loads.Load()
	for range 50 { // when it returns, nobody storms the source
		for range 20 {
			wg.Go(func() { n.get(t, "back") })
		}
		time.Sleep(20 * time.Millisecond)
	}
	wg.Wait()
	require.LessOrEqual(t, s.loads.Load()-before, int64(4))
	require.Eventually(t, store.Listens, 2*soon, time.Millisecond)
}

func TestRedisDownDuringInvalidateIsReportedAndNothingOldIsReadUntilItIsDone(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	client := redistest.Dial(t, srv.Addr)
	s := &source{}
	s.set("old")
	store := rediscache.New(client, rediscache.Config{InvalidateTimeout: 300 * time.Millisecond, Timeout: 200 * time.Millisecond})
	t.Cleanup(store.Close)
	c, err := cache.New(s.load, cache.Config[string, string]{Name: "test", Remote: store})
	require.NoError(t, err)
	a, b := &node{c, store}, newNode(t, s, client, cache.Config[string, string]{})
	require.Equal(t, "old", a.get(t, "k"))
	require.Equal(t, "old", b.get(t, "k"))
	require.NoError(t, srv.Pause())
	s.set("new")
	begun := time.Now()
	err = a.Invalidate(t.Context(), "k")
	require.ErrorContains(t, err, "others may not have")
	require.ErrorContains(t, err, "over Config.InvalidateTimeout")
	require.Less(t, time.Since(begun), 2*time.Second)
	require.Equal(t, "new", a.get(t, "k"))
	require.NoError(t, srv.Resume())
	require.Equal(t, "new", a.get(t, "k"), "though Redis has the old one")
	require.Eventually(t, func() bool { return b.get(t, "k") == "new" }, soon, time.Millisecond, "it is done in the end")
	for range 100 {
		require.Equal(t, "new", a.get(t, "k"))
	}
}

func TestOneLoadPerKeyAcrossReplicasOnColdHotKey(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	s.set("v")
	var nodes []*node
	for range 5 {
		nodes = append(nodes, newNode(t, s, client, cache.Config[string, string]{Fleet: 30 * time.Second, LoadTimeout: time.Minute}))
	}
	for round := range 20 {
		before := s.loads.Load()
		free := s.hold()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { nodes[i%5].get(t, fmt.Sprint("hot", round)) })
		}
		require.Eventually(t, func() bool { return s.loads.Load() > before }, soon, time.Millisecond)
		free()
		wg.Wait()
		require.Equal(t, before+1, s.loads.Load())
	}
}

func TestScriptsAreSentAgainAfterAFlushOfThem(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	a := newNode(t, s, client, cache.Config[string, string]{NoLocal: true, Fleet: 20 * time.Second})
	for i := range 10 {
		s.set(fmt.Sprint(i))
		require.NoError(t, client.ScriptFlush(t.Context()).Err())
		require.NoError(t, a.Invalidate(t.Context(), "a", "b", "c"))
		require.NoError(t, client.ScriptFlush(t.Context()).Err())
		got, err := a.GetMany(t.Context(), []string{"a", "b", "c"})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), got["c"])
		before := s.loads.Load()
		got, err = a.GetMany(t.Context(), []string{"a", "b", "c"})
		require.NoError(t, err)
		require.Len(t, got, 3)
		require.Equal(t, before, s.loads.Load())
	}
}

func TestAFullRedisKeepsNothingNewAndInvalidates(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t, "--maxmemory-policy", "noeviction").Addr)
	s := &source{}
	s.set("old")
	a := newNode(t, s, client, cache.Config[string, string]{NoLocal: true})
	require.Equal(t, "old", a.get(t, "k"))
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	s.set("new")
	require.NoError(t, a.Invalidate(t.Context(), "k"))
	require.Equal(t, "new", a.get(t, "k"))
	require.Positive(t, a.Stats().RemoteErrors, "it could not be kept")
	require.Equal(t, "new", a.get(t, "k"))
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "0").Err())
	a.get(t, "k")
	before := s.loads.Load()
	a.get(t, "k")
	require.Equal(t, before, s.loads.Load())
}

// A fill that is older than all that is remembered is refused: nobody can say what came since.
func TestFillLongerThanTombstoneIsRefused(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	a := rediscache.New(client, rediscache.Config{Timeout: time.Minute})
	t.Cleanup(a.Close)
	key := []cache.Key{{ID: "k"}}
	fill := func(of cache.Answer) bool {
		kept, err := a.Fill(t.Context(), "test", []cache.Fill{{Key: key[0], Mark: of.Mark, Stamp: of.Stamp, Value: []byte("v"), Fresh: time.Hour, Keep: time.Hour}})
		require.NoError(t, err)
		return kept[0]
	}
	first, err := a.Get(t.Context(), "test", key, 0)
	require.NoError(t, err)
	var second []cache.Answer
	for i := 0; i <= rediscache.Remembered; i += 100 {
		var all []cache.Invalidation
		for n := range 100 {
			all = append(all, cache.Invalidation{Kind: cache.OfKey, ID: fmt.Sprint("other", i+n), Version: 1 << 63})
		}
		require.NoError(t, a.Invalidate(t.Context(), "test", all))
		if i == 200 {
			second, err = a.Get(t.Context(), "test", key, 0)
			require.NoError(t, err)
		}
	}
	require.EqualValues(t, rediscache.Remembered, client.ZCard(t.Context(), a.KeyOf("", "log")).Val())
	require.EqualValues(t, rediscache.Remembered, client.HLen(t.Context(), a.KeyOf("", "floors")).Val())
	require.False(t, fill(first[0]))
	require.True(t, fill(second[0]))
}

func TestEveryKeyHasAnEndButTheRecordsOfPartitions(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	s.set("v")
	cfg := cache.Config[string, string]{Fleet: 20 * time.Second, Tags: func(_, v string) []string { return []string{v} }}
	a := newNode(t, s, client, cfg)
	a.get(t, "k")
	require.NoError(t, a.Invalidate(t.Context(), "other"))
	require.NoError(t, a.InvalidateTags(t.Context(), "", "other"))
	free := s.hold()
	var wg sync.WaitGroup
	wg.Go(func() { a.get(t, "loading") })
	require.Eventually(t, func() bool { return client.Exists(t.Context(), a.store.KeyOf("", "c:test::loading")).Val() == 1 }, soon, time.Millisecond)
	keys := client.Keys(t.Context(), "*").Val()
	free()
	wg.Wait()
	records := 0
	for _, key := range keys {
		if client.PTTL(t.Context(), key).Val() < 0 && client.Exists(t.Context(), key).Val() == 1 {
			require.Regexp(t, `^\{breakwater:cache:\d+\}:meta$`, key)
			records++
		}
	}
	require.Equal(t, 16, records)
	require.Greater(t, len(keys), 16+5)
}

func TestPurgeLeavesNothingOfAScope(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	s.set("v")
	key := func(k string) cache.Key { return cache.Key{Scope: k[:1], ID: k[1:]} }
	a := newNode(t, s, client, cache.Config[string, string]{Key: key})
	for i := range 100 {
		a.get(t, fmt.Sprint("a*", i))
		a.get(t, fmt.Sprint("b*", i))
	}
	require.NoError(t, a.Purge(t.Context(), "a"))
	require.Empty(t, client.Keys(t.Context(), `*e:test:a:*`).Val())
	require.Len(t, client.Keys(t.Context(), `*e:test:b:*`).Val(), 100)
	require.Equal(t, 100, a.Stats().Entries)
}

func TestClosedStore(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	s.set("v")
	a := newNode(t, s, client, cache.Config[string, string]{})
	a.listens(t)
	a.store.Close()
	a.store.Close()
	require.Equal(t, "v", a.get(t, "k"))
	_, err := a.store.Get(t.Context(), "test", []cache.Key{{ID: "k"}}, 0)
	require.ErrorIs(t, err, rediscache.ErrClosed)
	closed := rediscache.New(client, rediscache.Config{})
	closed.Close()
	closed.Close()
}

func TestWhatIsWrongIsSaidByNew(t *testing.T) {
	t.Parallel()
	for want, store := range map[string]*rediscache.Store{
		"rediscache: New: client is nil": rediscache.New(nil, rediscache.Config{}),
		"client is a nil *redis.Client":  rediscache.New((*redis.Client)(nil), rediscache.Config{}),
		"reads from replicas":            rediscache.New(redis.NewClusterClient(&redis.ClusterOptions{ReadOnly: true}), rediscache.Config{}),
		"client is a *redis.Ring":        rediscache.New(redis.NewRing(&redis.RingOptions{}), rediscache.Config{}),
		"Config.Timeout is -1s":          rediscache.New(redis.NewClient(&redis.Options{}), rediscache.Config{Timeout: -time.Second}),
		"InvalidateTimeout is 1h0m0":     rediscache.New(redis.NewClient(&redis.Options{}), rediscache.Config{InvalidateTimeout: time.Hour}),
	} {
		_, err := cache.New((&source{}).load, cache.Config[string, string]{Name: "test", Remote: store})
		require.ErrorContains(t, err, want)
		_, err = store.Get(t.Context(), "test", nil, 0)
		require.Error(t, err)
		_, err = store.Fill(t.Context(), "test", nil)
		require.Error(t, err)
		require.Error(t, store.Invalidate(t.Context(), "test", nil))
		store.Close()
	}
}

// TestSlotsMoveWhileKeysAreInvalidated has the keys of a running load go from node to node.

// A server that is full lets nobody claim. What it has is served all the same, and only what it lacks is loaded.
func TestAFullRedisServesWhatItHasWithFleetToo(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	s.set("v")
	n := newNode(t, s, client, cache.Config[string, string]{NoLocal: true, Fleet: 5 * time.Second})
	keys := []string{"a", "b", "c"}
	_, err := n.GetMany(t.Context(), keys)
	require.NoError(t, err)
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	got, err := n.GetMany(t.Context(), append(keys, "new"))
	require.NoError(t, err)
	require.Len(t, got, 4)
	require.Equal(t, int64(4), s.loads.Load())
}

func TestAClaimThatComesAfterItsTimeIsGivenUp(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := &source{}
	s.set("v")
	store := rediscache.New(client, rediscache.Config{}) // whose reads take 100 ms at most
	t.Cleanup(store.Close)
	c, err := cache.New(s.load, cache.Config[string, string]{Name: "test", Remote: store, Fleet: 20 * time.Second})
	require.NoError(t, err)
	(&node{c, store}).listens(t)
	require.NoError(t, client.Do(t.Context(), "client", "pause", 1000, "write").Err())
	_, err = c.Get(t.Context(), "k") // loads, without having heard of its claim
	require.NoError(t, err)
	require.Equal(t, int64(2), s.loads.Load())
	require.NoError(t, client.Set(t.Context(), "written", 1, 0).Err()) // the pause is over
	require.Eventually(t, func() bool { return client.Exists(t.Context(), store.KeyOf("", "c:test::k")).Val() == 0 }, soon, time.Millisecond)
}

// refusing is a hook of a client that lets no pipeline through, and says so only by its error.
type refusing struct{ redis.Hook }

func (refusing) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (refusing) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (refusing) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(context.Context, []redis.Cmder) error { return errRefusing }
}

var errRefusing = errors.New("the client's hook says no")

func TestTheClientsHooksAreHeard(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	store := rediscache.New(client, rediscache.Config{Timeout: time.Second})
	t.Cleanup(store.Close)
	keys := []cache.Key{{ID: "1"}, {ID: "2"}}
	now, err := store.Get(t.Context(), "test", keys, 0)
	require.NoError(t, err)
	client.AddHook(refusing{})
	_, err = store.Get(t.Context(), "test", keys, 0)
	require.ErrorIs(t, err, errRefusing)
	fills := make([]cache.Fill, len(keys))
	for i, key := range keys {
		fills[i] = cache.Fill{Key: key, Mark: now[i].Mark, Stamp: now[i].Stamp, Value: []byte("v"), Fresh: time.Minute, Keep: time.Minute}
	}
	_, err = store.Fill(t.Context(), "test", fills)
	require.ErrorIs(t, err, errRefusing)
}
