package rediscache_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/rediscache"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

func TestAServerThatHasLostInvalidationsIsNotBelievedAfterAFlushEither(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"get adopts", "invalidate makes"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t, "--save", "")
			client := redistest.Dial(t, srv.Addr)
			s := &source{}
			s.set("old")
			a := newNode(t, s, client, cache.Config[string, string]{NoLocal: true})
			a.listens(t)
			require.NoError(t, client.FlushAll(t.Context()).Err())
			if how == "invalidate makes" {
				require.NoError(t, a.Invalidate(t.Context(), "other"))
			}
			require.Equal(t, "old", a.get(t, "k"))
			require.NoError(t, client.Save(t.Context()).Err()) // as a replica has it
			t.Logf("meta: %q", client.Get(t.Context(), a.store.KeyOf("", "meta")).Val())
			s.set("new")
			require.NoError(t, a.Invalidate(t.Context(), "k"))
			require.NoError(t, srv.Kill())
			require.NoError(t, srv.Start())
			for range 200 {
				v, err := a.Get(t.Context(), "k")
				require.NoError(t, err)
				if !assert.Equal(t, "new", v) {
					t.Logf("meta: %q", client.Get(t.Context(), a.store.KeyOf("", "meta")).Val())
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

func TestNumbersThatWentBackAreNoticed(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "--save", "")
	client := redistest.Dial(t, srv.Addr)
	s := &source{}
	s.set("old")
	a := newNode(t, s, client, cache.Config[string, string]{MaxLag: time.Second})
	b := newNode(t, s, client, cache.Config[string, string]{MaxLag: time.Second})
	a.listens(t)
	b.listens(t)
	require.NoError(t, client.FlushAll(t.Context()).Err())
	require.Equal(t, "old", a.get(t, "x")) // adopts without a run
	require.NoError(t, a.Invalidate(t.Context(), "x"))
	require.NoError(t, client.Save(t.Context()).Err())
	for i := range 20 {
		require.NoError(t, a.Invalidate(t.Context(), fmt.Sprint(i)))
	}
	require.Eventually(t, func() bool { return a.store.Told("") >= 20 && b.store.Told("") >= 20 }, soon, time.Millisecond)
	require.NoError(t, srv.Kill())
	require.NoError(t, srv.Start())
	require.Eventually(t, func() bool {
		b.get(t, "k")
		a.get(t, "k")
		return a.store.Listens() && b.store.Listens() && b.inMemory(t)
	}, soon, 10*time.Millisecond)
	s.set("new")
	require.NoError(t, a.Invalidate(t.Context(), "k"))
	end := time.Now().Add(5 * time.Second) // MaxLag is 1 s
	for time.Now().Before(end) {
		if b.get(t, "k") == "new" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	assert.Fail(t, "served 5 s after the invalidation, MaxLag is 1 s")
}

func TestAFillThatTheServerRunsLateEndsWithItsTTL(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	client := redistest.Dial(t, srv.Addr)
	s := &source{}
	s.set("old")
	const ttl = 2 * time.Second // longer than a fill is waited for
	a := newNode(t, s, client, cache.Config[string, string]{NoLocal: true, TTL: ttl})
	a.listens(t)
	free := s.hold()
	loads := s.loads.Load()
	var wg sync.WaitGroup
	begin := time.Now()
	wg.Go(func() { a.get(t, "k") })
	require.Eventually(t, func() bool { return s.loads.Load() > loads }, soon, time.Millisecond)
	require.NoError(t, srv.Pause())
	free()
	wg.Wait()
	s.set("new")
	time.Sleep(time.Until(begin.Add(ttl))) // with the fill in the server's socket
	require.NoError(t, srv.Resume())
	for range 2 { // what had come before the first is done before the second
		require.NoError(t, client.Ping(t.Context()).Err())
	}
	b := newNode(t, s, client, cache.Config[string, string]{NoLocal: true, TTL: ttl})
	v := b.get(t, "k")
	assert.Equal(t, "new", v, "the value is %v old, TTL is %v", time.Since(begin), ttl)
}

func TestAServerThatIsPromotedAgainIsNotBelieved(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	ca, cb := redistest.Dial(t, a.Addr), redistest.Dial(t, b.Addr)
	host, port, _ := net.SplitHostPort(a.Addr)
	require.NoError(t, cb.Do(t.Context(), "replicaof", host, port).Err())
	require.Eventually(t, func() bool {
		return strings.Contains(cb.Info(t.Context(), "replication").Val(), "master_link_status:up")
	}, soon, 10*time.Millisecond)
	f := newFront(t, a.Addr)
	client := redistest.Dial(t, f.l.Addr().String())
	s := &source{}
	s.set("old")
	n := newNode(t, s, client, cache.Config[string, string]{NoLocal: true})
	n.listens(t)
	n.get(t, "k")
	require.Equal(t, "old", n.get(t, "k"))
	require.NoError(t, ca.Do(t.Context(), "wait", 1, 1000).Err())
	// b takes over
	require.NoError(t, cb.Do(t.Context(), "replicaof", "no", "one").Err())
	f.move(b.Addr)
	require.Eventually(t, func() bool { // on b
		n.get(t, "k")
		return n.store.Listens() && len(cb.PubSubChannels(t.Context(), "*").Val()) > 0
	}, soon, 10*time.Millisecond)
	s.set("new")
	require.NoError(t, n.Invalidate(t.Context(), "k"))
	require.Equal(t, "new", n.get(t, "k"))
	// b is lost; a, which was made its replica and never reached it, takes over again
	host, port, _ = net.SplitHostPort(b.Addr)
	require.NoError(t, b.Kill())
	require.NoError(t, ca.Do(t.Context(), "replicaof", host, port).Err())
	require.NoError(t, ca.Do(t.Context(), "replicaof", "no", "one").Err())
	f.move(a.Addr)
	for range 100 {
		v := n.get(t, "k")
		if !assert.Equal(t, "new", v) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.NoError(t, b.Start())
}

func TestAServerThatWasDemotedIsNotBelieved(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	ca, cb := redistest.Dial(t, a.Addr), redistest.Dial(t, b.Addr)
	s := &source{}
	s.set("old")
	n, m := newNode(t, s, redistest.Dial(t, a.Addr), cache.Config[string, string]{MaxLag: time.Second}), newNode(t, s, redistest.Dial(t, b.Addr), cache.Config[string, string]{MaxLag: time.Second})
	n.listens(t)
	require.Equal(t, "old", n.get(t, "k"))
	host, port, _ := net.SplitHostPort(b.Addr)
	_ = cb
	require.NoError(t, ca.ConfigSet(t.Context(), "masterauth", "wrong").Err()) // it can't follow
	require.NoError(t, ca.Do(t.Context(), "replicaof", host, port).Err())
	s.set("new")
	require.NoError(t, m.Invalidate(t.Context(), "k"))
	require.Equal(t, "new", m.get(t, "k"))
	end := time.Now().Add(4 * time.Second)
	for time.Now().Before(end) {
		if n.get(t, "k") == "new" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.Fail(t, "still old after 4 s of a MaxLag of 1 s")
}

func TestVersionsAreForgottenWithTheLog(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	store := rediscache.New(client, rediscache.Config{Timeout: 5 * time.Second, InvalidateTimeout: 30 * time.Second})
	t.Cleanup(store.Close)
	require.NoError(t, store.Watch("test", time.Second, func(cache.Notice) {}))
	n := 0
	for range 4 {
		for range 10 {
			var what []cache.Invalidation
			for range 1000 {
				n++
				what = append(what, cache.Invalidation{Kind: cache.OfKey, ID: fmt.Sprint(n), Version: 5})
			}
			require.NoError(t, store.Invalidate(t.Context(), "test", what))
		}
		t.Log("floors", client.HLen(t.Context(), store.KeyOf("", "floors")).Val(), "log", client.ZCard(t.Context(), store.KeyOf("", "log")).Val())
		require.NoError(t, client.Del(t.Context(), store.KeyOf("", "log")).Err()) // evicted
	}
	assert.LessOrEqual(t, client.HLen(t.Context(), store.KeyOf("", "floors")).Val(), int64(rediscache.Remembered))
}

func TestPurgeLeavesNoNames(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	store := rediscache.New(client, rediscache.Config{Timeout: 5 * time.Second})
	t.Cleanup(store.Close)
	c, err := cache.New(func(context.Context, cache.Key) (string, error) { return "v", nil }, cache.Config[cache.Key, string]{Name: "test", Remote: store, Fleet: 20 * time.Second,
		Key: func(k cache.Key) cache.Key { return k }, Tags: func(cache.Key, string) []string { return []string{"customer/jane"} }, UpdatedAt: func(string) time.Time { return time.Now() }})
	require.NoError(t, err)
	_, err = c.Get(t.Context(), cache.Key{Scope: "ashop", ID: "customer/1"})
	require.NoError(t, err)
	require.NoError(t, c.InvalidateStale(t.Context(), cache.Stale[cache.Key]{Keys: []cache.Key{{Scope: "ashop", ID: "customer/1"}}, UpdatedAt: time.Now()}))
	require.NoError(t, c.InvalidateTags(t.Context(), "ashop", "customer/john"))
	_, err = c.Get(t.Context(), cache.Key{Scope: "ashop", ID: "customer/2"})
	require.NoError(t, err)
	require.NoError(t, c.Purge(t.Context(), "ashop"))
	var left []string
	for _, k := range client.Keys(t.Context(), "*").Val() {
		if strings.Contains(k, "ashop") {
			left = append(left, k)
		}
		for _, m := range client.ZRange(t.Context(), k, 0, -1).Val() {
			if strings.Contains(m, "ashop") {
				left = append(left, k+" has "+m)
			}
		}
		for m := range client.HGetAll(t.Context(), k).Val() {
			if strings.Contains(m, "ashop") {
				left = append(left, k+" has "+m)
			}
		}
	}
	assert.Empty(t, left)
}

func TestASecondCacheWithASmallerLag(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	store := rediscache.New(client, rediscache.Config{Timeout: 5 * time.Second})
	t.Cleanup(store.Close)
	load := func(_ context.Context, k string) (string, error) { return k, nil }
	c1, err := cache.New(load, cache.Config[string, string]{Name: "one", Remote: store, MaxLag: time.Hour})
	require.NoError(t, err)
	_, _ = c1.Get(t.Context(), "k")
	require.Eventually(t, store.Listens, soon, time.Millisecond)
	const lag = time.Second
	c2, err := cache.New(load, cache.Config[string, string]{Name: "two", Remote: store, MaxLag: lag})
	require.NoError(t, err)
	inMemory := func() bool { // for longer than it is trusted without a beat
		_, _ = c2.Get(t.Context(), "k")
		before := c2.Stats().RemoteHits
		for end := time.Now().Add(3 * lag / 2); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			_, _ = c2.Get(t.Context(), "k")
		}
		return c2.Stats().RemoteHits == before
	}
	for range 5 {
		if inMemory() {
			return
		}
	}
	assert.Fail(t, "memory is not trusted for long", "%+v", c2.Stats())
}

// between is a hook of a client that does something once, before a partition's first question what was invalidated since is sent.
type between struct {
	redis.Hook

	meta string // of the partition
	once sync.Once
	do   func()
}

func (*between) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*between) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (b *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if args := fmt.Sprint(cmds[0].Args()); strings.Contains(args, "ZRANGEBYSCORE") && strings.Contains(args, b.meta) {
			b.once.Do(b.do)
		}
		return next(ctx, cmds)
	}
}

// A process whose first read of a partition comes while its channel is made trusts its memory from then on, and not from the next beat.
func TestAReadWhileTheChannelIsMadeDelaysNoLease(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	store := rediscache.New(client, rediscache.Config{Timeout: 10 * time.Second})
	t.Cleanup(store.Close)
	require.NoError(t, store.Watch("test", 24*time.Hour, func(cache.Notice) {})) // with a beat every six hours
	read := func(scope string) {
		_, err := store.Get(t.Context(), "test", []cache.Key{{Scope: scope, ID: "k"}}, 0)
		assert.NoError(t, err)
	}
	other := "shop"
	for store.KeyOf(other, "meta") == store.KeyOf("", "meta") {
		other += "s"
	}
	client.AddHook(&between{meta: store.KeyOf("", "meta"), do: func() { read("") }})
	read(other) // begins to listen, for all partitions
	require.Eventually(t, func() bool { return store.Leased("", time.Hour) && store.Leased(other, time.Hour) }, soon, time.Millisecond)
}

// front stands before a server, and can stand before another.
type front struct {
	addr  atomic.Pointer[string]
	l     net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

// forward passes on what comes until one end is closed.
func forward(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
}

func newFront(t *testing.T, addr string) *front {
	t.Helper()
	f := &front{}
	f.addr.Store(&addr)
	f.l, _ = net.Listen("tcp", "127.0.0.1:0")
	go func() {
		for {
			c, err := f.l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", *f.addr.Load()) //nolint:noctx // of a test
			if err != nil {
				_ = c.Close()
				continue
			}
			f.mu.Lock()
			f.conns = append(f.conns, c, s)
			f.mu.Unlock()
			go forward(c, s)
			go forward(s, c)
		}
	}()
	t.Cleanup(func() { _ = f.l.Close(); f.move("127.0.0.1:1") })
	return f
}

func (f *front) move(addr string) {
	f.addr.Store(&addr)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.conns = nil
}
