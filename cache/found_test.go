package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
)

// What a fault hunt found.

// A key that another process loads is waited for, though another key of it is missing.
func TestGetManyWaitsForWhatAnotherProcessLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := new(cache.Memory)
		var a, b source
		a.set("x", "v")
		b.set("x", "v")
		b.set("y", "v")
		a.takes = 2 * time.Second
		ca := newCache(t, &a, cache.Config[string, string]{Remote: m, Fleet: 10 * time.Second})
		var loaded []string
		var mu sync.Mutex
		cb, err := cache.New(func(ctx context.Context, k string) (string, error) {
			mu.Lock()
			loaded = append(loaded, k)
			mu.Unlock()
			return b.load(ctx, k)
		},
			cache.Config[string, string]{Name: "test", Jitter: -1, Remote: m.Peer(), Fleet: 10 * time.Second})
		require.NoError(t, err)
		l := get(t.Context(), ca, "x") // has the claim
		_, err = cb.GetMany(t.Context(), []string{"x", "y"})
		require.NoError(t, err)
		<-l.done
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, []string{"y"}, loaded, "x was being loaded by another process")
	})
}

func TestGetRemoteIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s source
		s.set("k", "v")
		m := &slowRemote{Memory: new(cache.Memory), d: 10 * time.Millisecond}
		c := newCache(t, &s, cache.Config[string, string]{Remote: m})
		requireGet(t, c, "k", "v")
		require.Equal(t, 1, s.count())
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { _, err := c.GetRemote(t.Context(), "k"); assert.NoError(t, err) })
		}
		wg.Wait()
		assert.Equal(t, 1, s.count(), "the Remote had it: %+v", c.Stats())
	})
}

func TestGetRemoteLeavesLoadsThatAreUnderWayAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s source
		s.set("k", "v")
		s.takes = 100 * time.Millisecond
		c := newCache(t, &s, cache.Config[string, string]{})
		var wg sync.WaitGroup
		for range 50 { // a handler each 20 ms
			wg.Go(func() { _, err := c.GetRemote(t.Context(), "k"); assert.NoError(t, err) })
			wg.Go(func() { _, err := c.Get(t.Context(), "k"); assert.NoError(t, err) })
			time.Sleep(20 * time.Millisecond)
		}
		wg.Wait()
		t.Logf("%+v", c.Stats())
	})
}

func TestAnInvalidationWhileAFleetWaitsIsOneLoadMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := new(cache.Memory)
		var s source
		s.set("k", "v")
		s.takes = time.Second
		var cs []*cache.Cache[string, string]
		for i := range 20 {
			r := m
			if i > 0 {
				r = m.Peer()
			}
			cs = append(cs, newCache(t, &s, cache.Config[string, string]{Remote: r, Fleet: 10 * time.Second}))
		}
		var ls []*later
		for _, c := range cs {
			ls = append(ls, get(t.Context(), c, "k"))
		}
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, cs[0].Invalidate(t.Context(), "k"))
		for _, l := range ls {
			<-l.done
		}
		assert.LessOrEqual(t, s.count(), 3)
	})
}

func TestAGetThatJoinsAGetRemoteMayHaveWhatIsStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s source
		s.set("k", "v")
		c := newCache(t, &s, cache.Config[string, string]{TTL: time.Minute, StaleIfError: time.Hour})
		requireGet(t, c, "k", "v")
		time.Sleep(2 * time.Minute)
		s.fail(errAway)
		s.hold()
		go func() { _, _ = c.GetRemote(t.Context(), "k") }()
		synctest.Wait()
		l := get(t.Context(), c, "k")
		s.free()
		l.is(t, "v")
	})
}

func TestAnEntryThatHasEndedKeepsNoOlderOneOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s source
		s.set("k", "2030")
		c := newCache(t, &s, cache.Config[string, string]{TTL: time.Minute, UpdatedAt: func(v string) time.Time { x, _ := time.Parse("2006", v); return x }})
		requireGet(t, c, "k", "2030")
		s.set("k", "2020") // restored from a backup
		time.Sleep(24 * time.Hour)
		for range 10 {
			requireGet(t, c, "k", "2020")
		}
		assert.Equal(t, 2, s.count())
	})
}

func TestOneBadValueDoesNotFailTheOthersOfItsBatch(t *testing.T) {
	t.Parallel()
	c, err := cache.New(func(_ context.Context, k int) (int, error) { return k, nil }, cache.Config[int, int]{
		Tags: func(k, _ int) []string {
			if k == 7 {
				panic("7")
			}
			return nil
		},
		LoadMany: func(_ context.Context, keys []int) (map[int]int, error) {
			out := map[int]int{}
			for _, k := range keys {
				out[k] = k
			}
			return out, nil
		}})
	require.NoError(t, err)
	got, err := c.GetMany(t.Context(), []int{1, 2, 3, 7})
	require.Error(t, err)
	assert.Len(t, got, 3)
}

func TestWhatABatchBroughtBesideItsErrorIsTaken(t *testing.T) {
	t.Parallel()
	c, err := cache.New(func(_ context.Context, k int) (int, error) { return k, nil }, cache.Config[int, int]{
		LoadMany: func(context.Context, []int) (map[int]int, error) { return map[int]int{1: 1, 2: 2}, errAway }})
	require.NoError(t, err)
	got, err := c.GetMany(t.Context(), []int{1, 2, 3})
	require.Error(t, err)
	assert.Len(t, got, 2)
}

func TestNoBatchIsLoadedAfterTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n, dead atomic.Int64
		c, err := cache.New(func(_ context.Context, k int) (int, error) { return k, nil }, cache.Config[int, int]{LoadTimeout: time.Second, MaxBatch: 10,
			LoadMany: func(ctx context.Context, keys []int) (map[int]int, error) {
				n.Add(1)
				if ctx.Err() != nil {
					dead.Add(1)
				}
				time.Sleep(300 * time.Millisecond) // each takes less than LoadTimeout
				out := map[int]int{}
				for _, k := range keys {
					out[k] = k
				}
				return out, nil
			}})
		require.NoError(t, err)
		keys := make([]int, 100)
		for i := range keys {
			keys[i] = i
		}
		got, err := c.GetMany(t.Context(), keys)
		time.Sleep(time.Minute)
		t.Logf("calls %d, with a dead context %d, got %d, err nil: %v, stats %+v", n.Load(), dead.Load(), len(got), err == nil, c.Stats())
		assert.Zero(t, dead.Load())
	})
}

func TestALoadFillsNothingAfterAnInvalidationThatFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &failingRemote{Memory: new(cache.Memory)}
		peer := m.Peer()
		var s source
		s.set("k", "old")
		c := newCache(t, &s, cache.Config[string, string]{Remote: m})
		other := newCache(t, &s, cache.Config[string, string]{Remote: peer})
		s.hold()
		l := get(t.Context(), c, "k")
		s.set("k", "new")
		m.down.Store(true)
		require.Error(t, c.Invalidate(t.Context(), "k"))
		s.free()
		<-l.done
		synctest.Wait()
		requireGet(t, other, "k", "new") // the fill came after the (failed) Invalidate
	})
}

func TestALoadThatComesTooLateIsKeptNowhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := new(cache.Memory)
		c, err := cache.New(func(context.Context, string) (string, error) { time.Sleep(3 * time.Second); return "late", nil },
			cache.Config[string, string]{Name: "test", Remote: m, LoadTimeout: time.Second})
		require.NoError(t, err)
		_, err = c.Get(t.Context(), "k")
		require.ErrorIs(t, err, cache.ErrLoadTimeout)
		time.Sleep(5 * time.Second)
		a, err := m.Get(t.Context(), "test", []cache.Key{{ID: "k"}}, 0)
		require.NoError(t, err)
		assert.False(t, a[0].Found, "what it brings later is dropped")
		assert.EqualValues(t, 0, c.Stats().Refused)
	})
}

func TestStaleErrorsAreThoseThatWereServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := cache.New(func(ctx context.Context, k string) (string, error) {
			if k == "slow" {
				<-ctx.Done()
				return "", ctx.Err()
			}
			return "v", nil
		}, cache.Config[string, string]{Jitter: -1, StaleIfError: time.Hour, LoadTimeout: time.Second})
		require.NoError(t, err)
		_, err = c.GetMany(t.Context(), []string{"a", "b", "c", "slow"})
		require.ErrorIs(t, err, cache.ErrLoadTimeout)
		synctest.Wait()
		assert.EqualValues(t, 0, c.Stats().StaleErrors)
	})
}

func TestGetRemoteWaitsForTheClaimOfItsOwnProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s source
		s.set("k", "v")
		s.takes = 5 * time.Second
		c := newCache(t, &s, cache.Config[string, string]{Remote: new(cache.Memory), Fleet: 20 * time.Second})
		get(t.Context(), c, "k")
		begin := time.Now()
		_, err := c.GetRemote(t.Context(), "k")
		t.Log(time.Since(begin), err, s.count())
		assert.Equal(t, 1, s.count())
	})
}

type slowRemote struct {
	*cache.Memory
	d time.Duration
}

func (r *slowRemote) Get(ctx context.Context, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	time.Sleep(r.d)
	return r.Memory.Get(ctx, name, keys, claim)
}

type failingRemote struct {
	*cache.Memory
	down atomic.Bool
}

func (r *failingRemote) Invalidate(ctx context.Context, name string, what []cache.Invalidation) error {
	if r.down.Load() {
		return errors.New("down")
	}
	return r.Memory.Invalidate(ctx, name, what)
}

func TestStaleIfErrorServesNothingThatNobodyVouchesFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, lease := &source{}, &cache.Lease{}
		store := &faulty{Remote: new(cache.Memory)}
		c := newCache(t, s, cache.Config[string, string]{Remote: &leased{Remote: store, lease: lease}, TTL: time.Minute, StaleIfError: time.Hour, MaxLag: 10 * time.Second})
		s.set("k", "v")
		requireGet(t, c, "k", "v")
		time.Sleep(2 * time.Minute)
		s.fail(errAway)
		store.fail(errAway)
		lease.Renew(time.Now())
		requireGet(t, c, "k", "v")
		time.Sleep(2 * time.Second)
		lease.End()
		_, err := c.Get(t.Context(), "k")
		require.ErrorIs(t, err, errAway, "it may have been invalidated")
	})
}

func TestWhoJoinsARenewalThatAnotherProcessMakesWaitsForThat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		slow := &slowAnswers{Remote: store.Peer()}
		cfg := cache.Config[string, string]{Remote: store, Fleet: 5 * time.Second, TTL: time.Minute, StaleWhileRevalidate: time.Minute, LoadTimeout: time.Hour, MaxLag: 10 * time.Minute}
		a := newCache(t, s, cfg)
		cfg.Remote = slow
		b := newCache(t, s, cfg)
		s.set("k", "1")
		requireGet(t, a, "k", "1")
		requireGet(t, b, "k", "1")
		time.Sleep(time.Minute)
		s.set("k", "2")
		s.hold()
		get(t.Context(), a, "k").is(t, "1") // and has the claim
		slow.gate = make(chan struct{})
		get(t.Context(), b, "k").is(t, "1") // is about to hear of that
		time.Sleep(2 * time.Minute)         // now it is too old to be served
		waits := get(t.Context(), b, "k")
		s.free()
		close(slow.gate)
		<-waits.done
		waits.is(t, "2")
	})
}

func TestALoadIsConcernedByMoreTagsThanAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Tags: func(_, v string) []string { return []string{"tag " + v} }})
		s.set("k", "old")
		first := s.hold()
		slow := get(t.Context(), c, "k")
		s.set("k", "new")
		require.NoError(t, c.InvalidateTags(t.Context(), "", "tag old"))
		for i := range 10_001 {
			require.NoError(t, c.InvalidateTags(t.Context(), "", fmt.Sprint("other ", i)))
		}
		close(first)
		slow.is(t, "old")
		s.hold()
		s.free()
		get(t.Context(), c, "k").is(t, "new")
	})
}

func TestALoadThatExitsFailsNoKeyThatAnotherProcessLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := new(cache.Memory)
		others := &source{takes: time.Second}
		others.set("busy", "v")
		b := newCache(t, others, cache.Config[string, string]{Remote: store.Peer(), Fleet: 5 * time.Second})
		a, err := cache.New(func(context.Context, string) (string, error) { runtime.Goexit(); return "", nil }, cache.Config[string, string]{Name: "test", Remote: store, Fleet: 5 * time.Second})
		require.NoError(t, err)
		busy := get(t.Context(), b, "busy")
		synctest.Wait()
		got, err := a.GetMany(t.Context(), []string{"busy", "exits"})
		require.ErrorIs(t, err, cache.ErrLoadExited)
		require.Equal(t, map[string]string{"busy": "v"}, got)
		busy.is(t, "v")
	})
}

func TestALoadThatFailedHasGivenItsClaimUp(t *testing.T) {
	t.Parallel()
	for how, load := range map[string]func() error{"fails": func() error { return errAway }, "panics": func() error { panic("no") }} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, err := cache.New(func(context.Context, string) (string, error) { return "", load() }, cache.Config[string, string]{Name: "test", Remote: slowFill{new(cache.Memory)}, Fleet: 5 * time.Second})
				require.NoError(t, err)
				for range 3 {
					begun := time.Now()
					_, err = c.Get(t.Context(), "k")
					require.Error(t, err)
					require.Equal(t, time.Millisecond, time.Since(begun), "of the fill that gives it up, and none of waiting for itself")
				}
			})
		})
	}
}

// slowFill takes a while to fill.
type slowFill struct{ *cache.Memory }

func (s slowFill) Fill(ctx context.Context, name string, fills []cache.Fill) ([]bool, error) {
	time.Sleep(time.Millisecond)
	return s.Memory.Fill(ctx, name, fills)
}
