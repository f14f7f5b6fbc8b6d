package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
)

// P10: "Stale data has a bound, and an invalidation wins. A fill that began before an invalidation can't put the old value back."
func TestP10FillStartedBeforeInvalidateNeverBecomesVisibleAfterIt(t *testing.T) {
	t.Parallel()
	for _, what := range []struct {
		name       string
		invalidate func(ctx context.Context, c *cache.Cache[string, string]) error
	}{
		{"key", func(ctx context.Context, c *cache.Cache[string, string]) error { return c.Invalidate(ctx, "k") }},
		{"tag_invalidation_beats_inflight_fill", func(ctx context.Context, c *cache.Cache[string, string]) error {
			return c.InvalidateTags(ctx, "", "tag")
		}},
		{"scope", func(ctx context.Context, c *cache.Cache[string, string]) error { return c.InvalidateScope(ctx, "") }},
		{"all", func(ctx context.Context, c *cache.Cache[string, string]) error { return c.InvalidateAll(ctx) }},
		{"purge", func(ctx context.Context, c *cache.Cache[string, string]) error {
			if err := c.Purge(ctx, ""); err != nil {
				return err
			}
			return nil
		}},
	} {
		t.Run(what.name, func(t *testing.T) {
			t.Parallel()
			tiers(t, func(t *testing.T, remote cache.Remote) {
				t.Helper()
				s := &source{}
				c := newCache(t, s, cache.Config[string, string]{Remote: remote, Tags: func(_, v string) []string {
					if v == "" {
						return nil
					}
					return []string{"tag"} // known only when the value is
				}})
				s.set("k", "old")
				s.hold()
				slow := get(t.Context(), c, "k")
				s.set("k", "new")
				require.NoError(t, what.invalidate(t.Context(), c))
				s.free()
				slow.is(t, "old") // it asked before
				requireGet(t, c, "k", "new")
				require.Equal(t, uint64(1), c.Stats().Refused)
				requireGet(t, c, "k", "new")
				require.Equal(t, 2, s.count())
			})
		})
	}
}

func TestP10FillOfAnotherProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		a := newCache(t, s, cache.Config[string, string]{Remote: store})
		b := newCache(t, s, cache.Config[string, string]{Remote: store.Peer()})
		s.set("k", "old")
		s.hold()
		slow := get(t.Context(), a, "k")
		s.set("k", "new")
		require.NoError(t, b.Invalidate(t.Context(), "k"))
		s.free()
		slow.is(t, "old")
		requireGet(t, a, "k", "new")
		requireGet(t, b, "k", "new")
		require.Equal(t, 2, s.count())
	})
}

func TestSameProcessRefillAfterInvalidateDoesNotValidateTheOlderFill(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		s.set("k", "old")
		first := s.hold()
		slow := get(t.Context(), c, "k")
		s.set("k", "new")
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		s.hold()
		second := get(t.Context(), c, "k")
		s.free()
		second.is(t, "new") // filled under the same key, with a token of its own
		close(first)
		slow.is(t, "old")
		requireGet(t, c, "k", "new")
		require.Equal(t, 2, s.count())
	})
}

func TestGetAfterInvalidateReturnsDoesNotJoinALoadThatBeganBefore(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		s.set("k", "old")
		first := s.hold()
		slow := get(t.Context(), c, "k")
		s.set("k", "new")
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		s.hold()
		s.free()
		get(t.Context(), c, "k").is(t, "new")
		close(first)
		slow.is(t, "old")
	})
}

func TestGetDoesNotJoinALoadThatIsOlderThanMaxLagIfInvalidationsMayBeMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		remote := &faulty{Remote: new(cache.Memory)}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, MaxLag: 5 * time.Second})
		s.set("k", "old")
		remote.fail(errAway)
		first := s.hold()
		slow := get(t.Context(), c, "k")
		time.Sleep(4 * time.Second)
		joined := get(t.Context(), c, "k")
		require.Equal(t, 1, s.count())
		s.set("k", "new") // another process's: nobody tells
		time.Sleep(2 * time.Second)
		s.hold()
		s.free()
		get(t.Context(), c, "k").is(t, "new")
		close(first)
		slow.is(t, "old")
		joined.is(t, "old")
	})
}

func TestInvalidateOrdersL2BeforeL1AndAReadInBetweenCannotReseedL1(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		remote := &faulty{Remote: new(cache.Memory)}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		s.set("k", "old")
		requireGet(t, c, "k", "old")
		s.set("k", "new")
		remote.before = func(op string) {
			if op == "invalidate" { // memory is clear, and the Remote still has it
				remote.before = nil
				requireGet(t, c, "k", "old")
			}
		}
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		requireGet(t, c, "k", "new")
	})
}

func TestBackgroundRefreshResultIsDroppedIfInvalidatedMeanwhile(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, TTL: time.Minute, StaleWhileRevalidate: time.Hour})
		s.set("k", "old")
		requireGet(t, c, "k", "old")
		time.Sleep(2 * time.Minute)
		s.hold()
		get(t.Context(), c, "k").is(t, "old") // and is loaded again in the background
		require.Equal(t, 2, s.count())
		s.set("k", "new")
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		s.free()
		requireGet(t, c, "k", "new")
		synctest.Wait()
		requireGet(t, c, "k", "new")
		require.Equal(t, 3, s.count())
	})
}

func TestStaleWhileRevalidate(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, TTL: time.Minute, StaleWhileRevalidate: time.Minute})
		s.set("k", "1")
		requireGet(t, c, "k", "1")
		s.set("k", "2")
		time.Sleep(time.Minute - 1)
		requireGet(t, c, "k", "1")
		require.Zero(t, c.Stats().Stale)
		time.Sleep(time.Nanosecond)
		requireGet(t, c, "k", "1")
		synctest.Wait()
		require.Equal(t, uint64(1), c.Stats().Stale)
		requireGet(t, c, "k", "2")
		s.set("k", "3")
		time.Sleep(2 * time.Minute)
		requireGet(t, c, "k", "3") // too old to be served
		require.Equal(t, 3, s.count())
	})
}

func TestStaleInTheRemoteIsServedAndRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		cfg := cache.Config[string, string]{Remote: store, TTL: time.Minute, StaleWhileRevalidate: time.Minute}
		s.set("k", "1")
		requireGet(t, newCache(t, s, cfg), "k", "1")
		s.set("k", "2")
		time.Sleep(90 * time.Second)
		cfg.Remote = store.Peer()
		c := newCache(t, s, cfg)
		requireGet(t, c, "k", "1")
		synctest.Wait()
		requireGet(t, c, "k", "2")
		require.Equal(t, 2, s.count())
	})
}

func TestWaiterWithShortDeadlineReturnsOnTimeAndLeaderCancelDoesNotFailWaiters(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		s.set("k", "v")
		s.hold()
		ctx, cancel := context.WithCancel(t.Context())
		leader := get(ctx, c, "k")
		waiter := get(t.Context(), c, "k")
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		begun := time.Now()
		_, err := c.Get(short, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begun))
		cancel()
		<-leader.done
		require.ErrorIs(t, leader.err, context.Canceled)
		require.ErrorContains(t, leader.err, `cache: test: "k": waiting for its load`)
		s.free()
		waiter.is(t, "v")
		require.Equal(t, 1, s.count())
		_, err = c.Get(short, "k")
		require.NoError(t, err, "what is in memory needs no time")
	})
}

func TestADeadContextLoadsNothing(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Get(ctx, "k")
		require.ErrorIs(t, err, context.Canceled)
		_, err = c.GetMany(ctx, []string{"k", "l"})
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, s.count())
	})
}

func TestLoaderPanicAndGoexitWakeAllWaitersAndClearTheFlight(t *testing.T) {
	t.Parallel()
	for _, many := range []bool{false, true} {
		t.Run(fmt.Sprint("many ", many), func(t *testing.T) {
			t.Parallel()
			tiers(t, func(t *testing.T, remote cache.Remote) {
				t.Helper()
				var do func()
				cfg := cache.Config[string, string]{Name: "test", Remote: remote}
				if many {
					cfg.LoadMany = func(_ context.Context, keys []string) (map[string]string, error) {
						time.Sleep(time.Second)
						do()
						return map[string]string{keys[0]: "v", keys[1]: "v"}, nil
					}
				}
				c, err := cache.New(func(context.Context, string) (string, error) {
					time.Sleep(time.Second)
					do()
					return "v", nil
				}, cfg)
				require.NoError(t, err)
				ask := func() []error {
					var wg sync.WaitGroup
					errs := make([]error, 10)
					for i := range errs {
						wg.Go(func() {
							if _, errs[i] = c.GetMany(t.Context(), []string{"k", "l"}); i == 0 {
								_, errs[i] = c.Get(t.Context(), "k")
							}
						})
					}
					wg.Wait()
					return errs
				}
				do = func() { panic(errAway) }
				for _, err := range ask() {
					panicked, ok := errors.AsType[*cache.PanicError](err)
					require.True(t, ok, err)
					require.ErrorIs(t, err, errAway)
					require.Contains(t, string(panicked.Stack), "cache_test.go")
				}
				do = runtime.Goexit
				for _, err := range ask() {
					require.ErrorIs(t, err, cache.ErrLoadExited)
				}
				do = func() {}
				for _, err := range ask() {
					require.NoError(t, err)
				}
			})
		})
	}
}

func TestALoadThatHangsHurtsOnlyItself(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		hangs := make(chan struct{})
		first := true
		c, err := cache.New(func(_ context.Context, key string) (string, error) {
			if key == "k" && first {
				first = false
				<-hangs // whatever becomes of its context
				return "late", nil
			}
			return "v", nil
		}, cache.Config[string, string]{Name: "test", Remote: remote, LoadTimeout: 10 * time.Second})
		require.NoError(t, err)
		slow := get(t.Context(), c, "k")
		requireGet(t, c, "other", "v")
		begun := time.Now()
		<-slow.done
		require.Equal(t, 10*time.Second, time.Since(begun))
		require.ErrorIs(t, slow.err, cache.ErrLoadTimeout)
		timeout, ok := errors.AsType[interface {
			error
			Timeout() bool
		}](slow.err)
		require.True(t, ok && timeout.Timeout())
		requireGet(t, c, "k", "v")
		close(hangs)
		synctest.Wait()
		requireGet(t, c, "k", "v")
	})
}

func TestStaleIfErrorNeverExceedsMaxStaleAndNeverServesAValueInvalidated(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, TTL: time.Minute, StaleIfError: 10 * time.Minute})
		s.set("k", "v")
		requireGet(t, c, "k", "v")
		s.fail(errAway)
		time.Sleep(time.Minute)
		requireGet(t, c, "k", "v")
		requireGet(t, c, "k", "v")
		require.Equal(t, 2, s.count(), "after a failure the next load is a second later")
		time.Sleep(time.Second)
		requireGet(t, c, "k", "v")
		require.Equal(t, 3, s.count())
		require.Equal(t, uint64(2), c.Stats().StaleErrors)
		time.Sleep(10 * time.Minute)
		_, err := c.Get(t.Context(), "k")
		require.ErrorIs(t, err, errAway)

		s.fail(nil)
		requireGet(t, c, "k", "v")
		s.fail(errAway)
		time.Sleep(time.Minute)
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		_, err = c.Get(t.Context(), "k")
		require.ErrorIs(t, err, errAway)
	})
}

func TestStaleIfErrorTakesWhatTheRemoteHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		cfg := cache.Config[string, string]{Remote: store, TTL: time.Minute, StaleIfError: time.Hour}
		s.set("k", "v")
		requireGet(t, newCache(t, s, cfg), "k", "v")
		time.Sleep(time.Minute)
		s.fail(errAway)
		cfg.Remote = store.Peer()
		c := newCache(t, s, cfg)
		requireGet(t, c, "k", "v")
		s.hold()
		time.Sleep(time.Minute)
		asked := get(t.Context(), c, "k")
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		s.free()
		<-asked.done
		require.ErrorIs(t, asked.err, errAway, "what was invalidated while it failed is not stale, but gone")
	})
}

func TestNotFoundIsCachedSeparatelyAndClearedByCreate(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, TTL: time.Hour, NegativeTTL: time.Minute})
		missing := func() {
			_, err := c.Get(t.Context(), "k")
			require.ErrorIs(t, err, cache.ErrNotFound)
			require.ErrorContains(t, err, `test: "k"`)
		}
		missing()
		missing()
		require.Equal(t, 1, s.count())
		time.Sleep(time.Minute)
		missing()
		require.Equal(t, 2, s.count())
		s.set("k", "v")
		missing()
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		requireGet(t, c, "k", "v")
		time.Sleep(time.Minute)
		requireGet(t, c, "k", "v")
		require.Equal(t, 3, s.count())
	})
}

func TestNeverRemembersWhatDoesNotExist(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, NegativeTTL: cache.Never})
		for range 3 {
			_, err := c.Get(t.Context(), "k")
			require.ErrorIs(t, err, cache.ErrNotFound)
		}
		require.Equal(t, 3, s.count())
	})
}

func TestL1TTLNeverExceedsL2RemainingTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		cfg := cache.Config[string, string]{Remote: store, TTL: 10 * time.Minute}
		a := newCache(t, s, cfg)
		s.set("k", "1")
		requireGet(t, a, "k", "1")
		s.set("k", "2")
		time.Sleep(9 * time.Minute)
		cfg.Remote = store.Peer()
		b := newCache(t, s, cfg)
		requireGet(t, b, "k", "1")
		time.Sleep(time.Minute - 1)
		requireGet(t, b, "k", "1")
		time.Sleep(time.Nanosecond)
		requireGet(t, b, "k", "2")
	})
}

func TestLocalTTLLooksAtTheRemoteAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, &faulty{Remote: new(cache.Memory)}
		c := newCache(t, s, cache.Config[string, string]{Remote: store, TTL: time.Hour, LocalTTL: time.Minute, StaleWhileRevalidate: time.Hour})
		s.set("k", "v")
		for range 10 {
			requireGet(t, c, "k", "v")
			time.Sleep(time.Minute)
		}
		require.Equal(t, 1, s.count())
		require.Equal(t, uint64(9), c.Stats().RemoteHits)
	})
}

func TestTTLCountsFromWhenTheLoadBegan(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{takes: 20 * time.Second}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, TTL: time.Minute})
		s.set("k", "v")
		requireGet(t, c, "k", "v")
		time.Sleep(40 * time.Second)
		requireGet(t, c, "k", "v")
		require.Equal(t, 2, s.count())
	})
}

func TestAgesOfAnswersStayWithinTheBound(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		c, err := cache.New(func(context.Context, int) (int, error) { return int(time.Now().Unix()), nil }, cache.Config[int, int]{Name: "test", Remote: remote, TTL: time.Minute, StaleWhileRevalidate: 10 * time.Second})
		require.NoError(t, err)
		oldest, ends := time.Duration(0), map[time.Duration]bool{}
		for range 2000 {
			for key := range 20 {
				at, err := c.Get(t.Context(), key)
				require.NoError(t, err)
				age := time.Since(time.Unix(int64(at), 0))
				oldest = max(oldest, age)
				if age > 50*time.Second {
					ends[age.Truncate(time.Second)] = true
				}
			}
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, oldest, 70*time.Second)
		require.Greater(t, oldest, 50*time.Second)
		require.Less(t, c.Stats().Loads, uint64(20*2000/50))
	})
}

func TestKeysExpiringTogetherAreSpreadByJitter(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, TTL: 100 * time.Second, Jitter: 0.2})
		for i := range 1000 {
			s.set(fmt.Sprint(i), "v")
			requireGet(t, c, fmt.Sprint(i), "v")
		}
		time.Sleep(80 * time.Second)
		most := 0
		for range 20 {
			before := s.count()
			for i := range 1000 {
				requireGet(t, c, fmt.Sprint(i), "v")
			}
			most = max(most, s.count()-before)
			time.Sleep(time.Second)
		}
		require.Less(t, most, 120, "of 1000 that were loaded at once, within a second of the twenty")
		require.Greater(t, s.count(), 1900)
	})
}

func TestErrorResultsAreNotCachedByDefault(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		s.set("k", "v")
		s.fail(errAway)
		for range 2 {
			_, err := c.Get(t.Context(), "k")
			require.ErrorIs(t, err, errAway)
		}
		s.fail(nil)
		requireGet(t, c, "k", "v")
		require.Equal(t, 3, s.count())
		require.Equal(t, uint64(2), c.Stats().LoadErrors)
	})
}

func TestOneLoadForAThousandWhoMissAKey(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{takes: time.Second}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		s.set("k", "v")
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				v, err := c.Get(t.Context(), "k")
				if err != nil || v != "v" {
					t.Errorf("Get answers %q, %v", v, err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, s.count())
		require.Equal(t, uint64(999), c.Stats().Shared)
	})
}

func TestBulkGetCoalescesOverlappingKeySetsAndAMissingKeyDoesNotFailTheOthers(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{takes: time.Second}
		var mu sync.Mutex
		var asked []string
		batches := 0
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, MaxBatch: 3, LoadMany: func(ctx context.Context, keys []string) (map[string]string, error) {
			mu.Lock()
			asked = append(asked, keys...)
			batches++
			mu.Unlock()
			out := map[string]string{}
			for _, key := range keys {
				if v, err := s.load(ctx, key); err == nil {
					out[key] = v
				}
			}
			return out, nil
		}})
		for k := range strings.FieldsSeq("a b c d e") {
			s.set(k, k+k)
		}
		var wg sync.WaitGroup
		for _, keys := range []string{"a b c x", "c d e x c", "a b c d e x"} {
			wg.Go(func() {
				got, err := c.GetMany(t.Context(), strings.Fields(keys))
				if err != nil {
					t.Error(err)
				}
				for k := range strings.FieldsSeq(keys) {
					if v, ok := got[k]; ok != (k != "x") || ok && v != k+k {
						t.Errorf("%q is %q, %v", k, v, ok)
					}
				}
			})
		}
		wg.Wait()
		require.Len(t, asked, 6, asked)
		got, err := c.GetMany(t.Context(), []string{"a", "x"})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "aa"}, got)
		require.Len(t, asked, 6, "that x does not exist is remembered too")
		require.LessOrEqual(t, batches, 4)
		got, err = c.GetMany(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, got)
	})
}

func TestGetManyWithoutLoadManyAndWithKeysThatFail(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		underWay, most := 0, 0
		var mu sync.Mutex
		c, err := cache.New(func(_ context.Context, key int) (int, error) {
			mu.Lock()
			underWay++
			most = max(most, underWay)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			underWay--
			mu.Unlock()
			switch key {
			case 7:
				return 0, errAway
			case 8:
				panic("eight")
			case 9:
				return 0, cache.ErrNotFound
			}
			return key * key, nil
		}, cache.Config[int, int]{Name: "test", Remote: remote})
		require.NoError(t, err)
		keys := make([]int, 40)
		for i := range keys {
			keys[i] = i
		}
		got, err := c.GetMany(t.Context(), keys)
		require.ErrorIs(t, err, errAway)
		require.ErrorContains(t, err, `cache: test: "7"`)
		require.ErrorContains(t, err, "eight")
		require.NotErrorIs(t, err, cache.ErrNotFound)
		require.Len(t, got, 37)
		require.Equal(t, 39*39, got[39])
		require.Equal(t, 16, most)
	})
}

func TestALoadOfAnOlderVersionIsNotKept(t *testing.T) {
	t.Parallel()
	type product struct {
		Title     string
		UpdatedAt time.Time
	}
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		at := func(s int) time.Time { return time.Unix(1_700_000_000, 0).Add(time.Duration(s) * time.Second) }
		now, loads := &product{"one", at(1)}, 0
		c, err := cache.New(func(context.Context, string) (*product, error) {
			loads++
			if now == nil {
				return nil, cache.ErrNotFound
			}
			return now, nil
		}, cache.Config[string, *product]{Name: "test", Remote: remote, UpdatedAt: func(p *product) time.Time { return p.UpdatedAt }})
		require.NoError(t, err)
		title := func() string {
			p, err := c.Get(t.Context(), "k")
			if errors.Is(err, cache.ErrNotFound) {
				return "none"
			}
			require.NoError(t, err)
			return p.Title
		}
		require.Equal(t, "one", title())
		require.NoError(t, c.InvalidateStale(t.Context(), cache.Stale[string]{Keys: []string{"k"}, UpdatedAt: at(2)}))
		require.Equal(t, "one", title(), "the replica lags behind the webhook")
		now = nil
		require.Equal(t, "none", title(), "so does one that does not know of it yet")
		now = &product{"two", at(2)}
		require.Equal(t, "two", title())
		require.Equal(t, 4, loads)
		require.Equal(t, "two", title())
		require.Equal(t, 4, loads)
		require.NoError(t, c.InvalidateStale(t.Context(), cache.Stale[string]{Keys: []string{"k"}, UpdatedAt: at(1)}))
		require.Equal(t, "two", title())
		require.Equal(t, "two", title())
		require.Equal(t, 5, loads)
		now = nil
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		require.Equal(t, "none", title())
	})
}

func TestFillInsideOpenTransactionOrFromLaggingReplicaIsRefused(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		inTx := true
		c, err := cache.New(func(ctx context.Context, key string) (string, error) {
			if inTx {
				cache.NoStore(ctx)
			}
			return s.load(ctx, key)
		}, cache.Config[string, string]{Name: "test", Remote: remote})
		require.NoError(t, err)
		s.set("k", "v")
		requireGet(t, c, "k", "v")
		requireGet(t, c, "k", "v")
		require.Equal(t, 2, s.count())
		inTx = false
		requireGet(t, c, "k", "v")
		requireGet(t, c, "k", "v")
		require.Equal(t, 3, s.count())
		cache.NoStore(t.Context()) // no load's
	})
}

func TestMutatingAReturnedValueDoesNotChangeTheCachedOne(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		c, err := cache.New(func(context.Context, string) ([]byte, error) { return []byte("a"), nil }, cache.Config[string, []byte]{
			Name: "test", Remote: remote, Clone: bytes.Clone,
		})
		require.NoError(t, err)
		for range 3 {
			v, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, "a", string(v))
			v[0] = 'b'
		}
	})
}

func TestTagsOfAScopeAndNothingElse(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{}
		c := newCache(t, s, cache.Config[string, string]{
			Remote: remote,
			Key: func(k string) cache.Key {
				shop, id, _ := strings.Cut(k, "/")
				return cache.Key{Scope: shop, ID: id}
			},
			Tags: func(_, v string) []string { return strings.Fields(v) },
		})
		all := []string{"a/1", "a/2", "a/3", "b/1"}
		s.set("a/1", "x y")
		s.set("a/2", "y")
		s.set("a/3", "z")
		s.set("b/1", "x y")
		loaded := func(n int) {
			t.Helper()
			before := s.count()
			for _, k := range all {
				_, err := c.Get(t.Context(), k)
				require.NoError(t, err)
			}
			require.Equal(t, n, s.count()-before)
		}
		loaded(4)
		require.NoError(t, c.InvalidateTags(t.Context(), "a", "y"))
		loaded(2)
		require.NoError(t, c.InvalidateTags(t.Context(), "a", "x", "z"))
		loaded(2)
		require.NoError(t, c.InvalidateTags(t.Context(), "b", "z"))
		loaded(0)
		require.NoError(t, c.InvalidateScope(t.Context(), "a"))
		loaded(3)
		require.NoError(t, c.Purge(t.Context(), "b"))
		loaded(1)
		require.NoError(t, c.InvalidateAll(t.Context()))
		loaded(4)
		require.NoError(t, c.Invalidate(t.Context(), "a/1", "b/1"))
		loaded(2)
		s.set("a/1", "other")
		require.NoError(t, c.Invalidate(t.Context(), "a/1"))
		loaded(1)
		require.NoError(t, c.InvalidateTags(t.Context(), "a", "x"))
		loaded(0)
	})
}

func TestMemoryStaysInsideItsBoundByEntries(t *testing.T) {
	t.Parallel()
	s := &source{}
	c := newCache(t, s, cache.Config[string, string]{MaxEntries: 100, NegativeTTL: time.Hour})
	for i := range 10_000 {
		_, err := c.Get(t.Context(), fmt.Sprint(i))
		require.ErrorIs(t, err, cache.ErrNotFound)
	}
	require.Eventually(t, func() bool { return c.Stats().Entries <= 100 }, 5*time.Second, time.Millisecond)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	type odd struct{ A int }
	store := new(cache.Memory)
	load := (&source{}).load
	for want, cfg := range map[string]cache.Config[string, string]{
		"MaxEntries is 1 and Config.MaxBytes is 2": {MaxEntries: 1, MaxBytes: 2},
		"MaxEntries is -1":                         {MaxEntries: -1},
		"MaxBytes is -1":                           {MaxBytes: -1},
		"MaxBatch is -1":                           {MaxBatch: -1},
		"Jitter is 1":                              {Jitter: 1},
		"Jitter is NaN":                            {Jitter: math.NaN()},
		"Config.Name is empty":                     {Remote: store},
		"NoLocal is set":                           {NoLocal: true},
		"Fleet is 1s":                              {Fleet: time.Second},
		"Config.Encode or Config.Decode is nil":    {Encode: func(string) ([]byte, error) { return nil, nil }},
	} {
		_, err := cache.New(load, cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := cache.New[string, string](nil, cache.Config[string, string]{})
	require.ErrorContains(t, err, "load is nil")
	_, err = cache.New(func(context.Context, odd) (int, error) { return 0, nil }, cache.Config[odd, int]{})
	require.ErrorContains(t, err, "set Config.Key")
	_, err = cache.New(load, cache.Config[string, string]{Name: "a", Remote: store})
	require.NoError(t, err)
	_, err = cache.New(load, cache.Config[string, string]{Name: "a", Remote: store})
	require.ErrorContains(t, err, `Config.Name "a" is another cache's`)
	require.ErrorContains(t, newCache(t, &source{}, cache.Config[string, string]{}).InvalidateTags(t.Context(), "", "x"), "Config.Tags is nil")
}

func TestDurationMaxIntAndZeroTTLHaveDefinedMeaning(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]cache.Config[string, string]{
		"TTL is -1ns; want 0 to 8760h0m0s":        {TTL: -1},
		"TTL is 2562047h47m16.854775807s; want 0": {TTL: math.MaxInt64},
		"NegativeTTL is -2ns":                     {NegativeTTL: -2},
		"StaleIfError is 2562047h47m":             {StaleIfError: math.MaxInt64},
		"MaxLag is 1ns":                           {MaxLag: 1},
	} {
		_, err := cache.New((&source{}).load, cfg)
		require.ErrorContains(t, err, want)
	}
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		const year = 365 * 24 * time.Hour
		for ttl, fresh := range map[time.Duration]time.Duration{0: 5 * time.Minute, year: year} {
			s := &source{}
			s.set("k", "v")
			c := newCache(t, s, cache.Config[string, string]{Name: ttl.String(), Remote: remote, TTL: ttl, Jitter: -1, StaleIfError: ttl, StaleWhileRevalidate: ttl})
			requireGet(t, c, "k", "v")
			time.Sleep(fresh - time.Second)
			requireGet(t, c, "k", "v")
			require.Equal(t, 1, s.count())
			time.Sleep(time.Second)
			requireGet(t, c, "k", "v")
			synctest.Wait() // for what is loaded behind
			require.Equal(t, 2, s.count(), "%v after %v", ttl, fresh)
		}
	})
}

// Hooks may look at the cache and invalidate.
func TestHooksAreToldOfLoadsAndOfWhatIsNotKept(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, remote cache.Remote) {
		t.Helper()
		s := &source{takes: time.Second}
		var c *cache.Cache[string, string]
		var loaded, refused []string
		c = newCache(t, s, cache.Config[string, string]{Remote: remote, Hooks: cache.Hooks{
			Loaded: func(key cache.Key, took time.Duration, err error) {
				loaded = append(loaded, fmt.Sprint(key.ID, " in ", took, ": ", err, ", ", c.Stats().Loads))
				if key.ID == "stale" {
					require.NoError(t, c.Invalidate(t.Context(), "stale"))
				}
			},
			Refused: func(key cache.Key) {
				refused = append(refused, key.ID)
				require.NoError(t, c.Invalidate(t.Context(), key.ID))
			},
		}})
		s.set("k", "v")
		s.set("stale", "v")
		requireGet(t, c, "k", "v")
		_, err := c.Get(t.Context(), "none")
		require.ErrorIs(t, err, cache.ErrNotFound)
		s.fail(errAway)
		_, err = c.Get(t.Context(), "away")
		require.ErrorIs(t, err, errAway)
		s.fail(nil)
		requireGet(t, c, "stale", "v")
		require.Equal(t, []string{"k in 1s: <nil>, 1", "none in 1s: cache: not found, 2", "away in 1s: " + errAway.Error() + ", 3", "stale in 1s: <nil>, 4"}, loaded)
		require.Equal(t, []string{"stale"}, refused)
	})
}

// number is a key of its own type.
type number int

func TestKeys(t *testing.T) {
	t.Parallel()
	store := new(cache.Memory)
	loads := 0
	ints, err := cache.New(func(_ context.Context, k number) (number, error) { loads++; return k, nil }, cache.Config[number, number]{Name: "ints", Remote: store})
	require.NoError(t, err)
	for _, k := range []number{1, -1, 1, 12} {
		v, err := ints.Get(t.Context(), k)
		require.NoError(t, err)
		require.Equal(t, k, v)
	}
	require.Equal(t, 3, loads)
	require.Equal(t, `"a b"`, cache.Key{Scope: "a", ID: "b"}.String())
}

func TestADecoderThatPanicsFailsItsCallersOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		s.set("k", "v")
		requireGet(t, newCache(t, s, cache.Config[string, string]{Remote: store}), "k", "v")
		c := newCache(t, s, cache.Config[string, string]{
			Remote: store.Peer(), Encode: func(v string) ([]byte, error) { return []byte(v), nil },
			Decode: func([]byte) (string, error) { panic("decode") },
		})
		_, err := c.Get(t.Context(), "k")
		require.ErrorContains(t, err, "decode")
		s.set("other", "v")
		requireGet(t, c, "other", "v")
	})
}
