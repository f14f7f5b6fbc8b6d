package redislimit_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/shopify"
)

func TestALostHintCostsNoPlace(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redistest.Dial(t, redistest.Start(t).Addr)
	s := newStore(t, rdb)
	known(t, s, 1000, 10)
	big, err := s.Take(ctx, "shop", call(1, 800))
	require.NoError(t, err)
	require.True(t, big.Granted)
	// 200 left; first wants 500, second 300: both wait.
	first, err := s.Take(ctx, "shop", call(2, 500))
	require.NoError(t, err)
	require.False(t, first.Granted)
	asked := time.Now()
	second, err := s.Take(ctx, "shop", call(3, 300))
	require.NoError(t, err)
	require.False(t, second.Granted)
	// A little comes back: the first is hinted, and the message gets lost.
	require.NoError(t, s.Settle(ctx, "shop", call(1, 800), big.Grant, shopify.Answer{Actual: 750, Left: 250, Size: 1000, Rate: 10}))
	time.Sleep(1200 * time.Millisecond)
	// The second asks, as it does now and then.
	_, err = s.Take(ctx, "shop", call(3, 300))
	require.NoError(t, err)
	// The first asks when it was told to.
	time.Sleep(time.Until(asked.Add(first.Again)))
	_, err = s.Take(ctx, "shop", call(2, 500))
	require.NoError(t, err)
	line := rdb.ZRange(ctx, "quota:{shop}:line0", 0, -1).Val()
	require.Len(t, line, 2)
	require.Contains(t, line[0], ":2", "the first is still the first")
}

func TestTheServersClockGoesBack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redistest.Dial(t, redistest.Start(t).Addr)
	s := newStore(t, rdb)
	known(t, s, 0, 1000) // empty, full in a second
	state, err := rdb.Get(ctx, "quota:{shop}:state").Bytes()
	require.NoError(t, err)
	add := func(i int, d float64) {
		v := math.Float64frombits(binary.LittleEndian.Uint64(state[8*i:]))
		binary.LittleEndian.PutUint64(state[8*i:], math.Float64bits(v+d))
	}
	for _, i := range []int{4, 10, 14} { // at, marginAt, epoch: as a server whose clock was 3600 s ahead has written them
		add(i, 3600)
	}
	require.NoError(t, rdb.Set(ctx, "quota:{shop}:state", state, time.Hour).Err())
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: s, MaxWait: 6 * time.Second})
	require.NoError(t, err)
	r, err := limiter.Reserve(ctx, "shop", 10)
	require.NoError(t, err, "the bucket is full after a second")
	_ = r.Cancel(ctx)
}

func TestACallUnderWayEndsThoughTheClockWentBack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redistest.Dial(t, redistest.Start(t).Addr)
	s := newStore(t, rdb)
	known(t, s, 1000, 1e-6)
	big := call(1, 600)
	turn, err := s.Take(ctx, "shop", big)
	require.NoError(t, err)
	require.True(t, turn.Granted)
	state, err := rdb.Get(ctx, "quota:{shop}:state").Bytes()
	require.NoError(t, err)
	for _, i := range []int{4, 10, 14} { // at, marginAt, epoch
		v := math.Float64frombits(binary.LittleEndian.Uint64(state[8*i:]))
		binary.LittleEndian.PutUint64(state[8*i:], math.Float64bits(v+3600))
	}
	require.NoError(t, rdb.Set(ctx, "quota:{shop}:state", state, time.Hour).Err())
	require.NoError(t, s.Settle(ctx, "shop", big, turn.Grant, shopify.Answer{Actual: 1, Left: 999, Size: 1000, Rate: 1e-6}))
	turn, err = s.Take(ctx, "shop", call(2, 900))
	require.NoError(t, err)
	require.True(t, turn.Granted, "999 are left, and none is under way")
}

func TestEveryKeyHasAnEnd(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redistest.Dial(t, redistest.Start(t).Addr)
	s := newStore(t, rdb)
	known(t, s, 1000, 1e-6)
	for i, cost := range []float64{800, 800, 800} { // the first is settled: its key goes, and comes again; the second is under way, the third waits
		c := call(uint64(i), cost)
		turn, err := s.Take(ctx, "shop", c)
		require.NoError(t, err)
		if i == 0 {
			require.NoError(t, s.Settle(ctx, "shop", c, turn.Grant, shopify.Answer{Left: 1000, Size: 1000, Rate: 1e-6}))
		}
	}
	keys := rdb.Keys(ctx, "*").Val()
	require.Len(t, keys, 4)
	for _, key := range keys {
		require.Positive(t, rdb.PTTL(ctx, key).Val(), key)
	}
}

func TestWhatIsUnderWayIsForgottenWithItsKey(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redistest.Dial(t, redistest.Start(t).Addr)
	s := newStore(t, rdb)
	known(t, s, 1000, 1e6)
	c := call(1, 600)
	c.Lease = 10 * time.Millisecond
	_, err := s.Take(ctx, "shop", c)
	require.NoError(t, err)
	require.NoError(t, rdb.Del(ctx, "quota:{shop}:way").Err()) // as a server that evicts keys does
	require.Eventually(t, func() bool {
		turn, err := s.Take(ctx, "shop", call(2, 900))
		require.NoError(t, err)
		return turn.Granted
	}, 5*time.Second, 10*time.Millisecond)
}

func TestWaitersDoNotPollRedis(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redistest.Dial(t, redistest.Start(t).Addr)
	s := newStore(t, rdb)
	c := call(1<<40, 500)
	turn, err := s.Take(ctx, "shop", c)
	require.NoError(t, err)
	require.NoError(t, s.Settle(ctx, "shop", c, turn.Grant, shopify.Answer{Actual: 5, Left: 600, Size: 2000, Rate: 100}))
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: s})
	require.NoError(t, err)
	wctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range 50 {
		cost := 1.0
		if i == 0 {
			cost = 1000 // those behind it wait for it
		}
		wg.Go(func() {
			if r, err := limiter.Reserve(wctx, "shop", cost); err == nil {
				_ = r.Cancel(wctx)
			}
		})
		if i == 0 || i == 49 {
			require.Eventually(t, func() bool { return rdb.ZCard(ctx, "quota:{shop}:line0").Val() == int64(i+1) }, 5*time.Second, time.Millisecond)
		}
	}
	rdb.ConfigResetStat(ctx)
	time.Sleep(time.Second)
	stats := rdb.Info(ctx, "commandstats").Val()
	cancel()
	wg.Wait()
	var calls int
	for line := range strings.Lines(stats) {
		_, _ = fmt.Sscanf(line, "cmdstat_evalsha:calls=%d", &calls)
	}
	require.Less(t, calls, 500, "script calls within a second, of 50 who wait")
}

func TestWhoLeavesDoesNotWaitForAServerThatHangs(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := newStore(t, redistest.Dial(t, srv.Addr))
	known(t, s, 1000, 100)
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: s})
	require.NoError(t, err)
	require.NoError(t, srv.Pause())
	t.Cleanup(func() { require.NoError(t, srv.Resume()) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err = limiter.Reserve(ctx, "shop", 10)
	require.Error(t, err)
	require.Less(t, time.Since(begun), 500*time.Millisecond)
}

func TestNothingIsLeftUnderWayByThoseWhoLeft(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := redistest.Dial(t, srv.Addr)
	s := newStore(t, rdb)
	known(t, s, 1000, 1e-3)
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: s})
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, srv.Pause())
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err = limiter.Reserve(ctx, "shop", 10)
		cancel()
		require.Error(t, err)
		require.NoError(t, srv.Resume())
		for range 2 { // when the second is answered, what lay in the sockets while the server hung has been read
			require.NoError(t, rdb.Ping(t.Context()).Err())
		}
	}
	require.Eventually(t, func() bool { return rdb.HLen(t.Context(), "quota:{shop}:way").Val() == 0 }, 5*time.Second, 10*time.Millisecond, "long before a Lease ends")
}
