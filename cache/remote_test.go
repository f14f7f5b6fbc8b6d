package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
)

// faulty is a Remote that fails when told to.
type faulty struct {
	cache.Remote

	mu     sync.Mutex
	err    error
	gets   int
	before func(op string) // runs before each call
}

func (f *faulty) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *faulty) call(op string) error {
	if f.before != nil {
		f.before(op)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if op == "get" {
		f.gets++
	}
	return f.err
}

func (f *faulty) Get(ctx context.Context, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	if err := f.call("get"); err != nil {
		return nil, err
	}
	return f.Remote.Get(ctx, name, keys, claim)
}

func (f *faulty) Fill(ctx context.Context, name string, fills []cache.Fill) ([]bool, error) {
	if err := f.call("fill"); err != nil {
		return nil, err
	}
	return f.Remote.Fill(ctx, name, fills)
}

func (f *faulty) Invalidate(ctx context.Context, name string, what []cache.Invalidation) error {
	if err := f.call("invalidate"); err != nil {
		return err
	}
	return f.Remote.Invalidate(ctx, name, what)
}

func TestInvalidateOnReplicaAIsSeenByReplicaBWithinBoundAndByAItselfAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		a := newCache(t, s, cache.Config[string, string]{Remote: store})
		b := newCache(t, s, cache.Config[string, string]{Remote: store.Peer()})
		s.set("k", "old")
		requireGet(t, a, "k", "old")
		requireGet(t, b, "k", "old")
		require.Equal(t, 1, s.count())
		s.set("k", "new")
		require.NoError(t, a.Invalidate(t.Context(), "k"))
		requireGet(t, a, "k", "new")
		requireGet(t, b, "k", "new")
		require.Equal(t, 2, s.count())
	})
}

func TestMemoryIsNotTrustedWithoutALease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		lease := &cache.Lease{}
		remote := &leased{Remote: new(cache.Memory), lease: lease}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, MaxLag: 10 * time.Second})
		s.set("k", "v")
		gets := func(n int) {
			t.Helper()
			before := remote.gets
			requireGet(t, c, "k", "v")
			require.Equal(t, n, remote.gets-before)
		}
		gets(1)
		time.Sleep(10*time.Second - 1)
		gets(0)
		time.Sleep(time.Nanosecond)
		gets(1) // it was read too long ago, and the lease has never held
		lease.Renew(time.Now())
		time.Sleep(10*time.Second - 1)
		gets(0)
		lease.Renew(time.Now())
		time.Sleep(10*time.Second - 1)
		gets(0)
		lease.End()
		gets(1)
		gets(0)
		lease.Renew(time.Now())
		time.Sleep(10 * time.Second)
		gets(1)
		require.Equal(t, 1, s.count())
	})
}

// leased is a Remote with another's lease.
type leased struct {
	cache.Remote

	lease *cache.Lease
	gets  int
}

func (l *leased) Get(ctx context.Context, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	l.gets++
	answers, err := l.Remote.Get(ctx, name, keys, claim)
	for i := range answers {
		answers[i].Lease = l.lease
	}
	return answers, err
}

func TestReadsStillLoadAndCoalesceWithTheRemoteAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, remote := &source{takes: time.Second}, &faulty{Remote: new(cache.Memory)}
		var failures []string
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, MaxLag: 5 * time.Second, Hooks: cache.Hooks{RemoteFailed: func(op string, err error) {
			failures = append(failures, op)
			require.ErrorIs(t, err, errAway)
		}}})
		s.set("k", "v")
		remote.fail(errAway)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if v, err := c.Get(t.Context(), "k"); v != "v" || err != nil {
					t.Error(v, err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, s.count())
		time.Sleep(4*time.Second - 1)
		requireGet(t, c, "k", "v")
		require.Equal(t, 1, s.count())
		time.Sleep(time.Nanosecond)
		s.set("k", "new") // nobody can tell, so the bound is MaxLag
		requireGet(t, c, "k", "new")
		require.Equal(t, 2, s.count())
		require.Equal(t, []string{"get", "get"}, failures)
		remote.fail(nil)
		time.Sleep(5 * time.Second)
		requireGet(t, c, "k", "new")
		requireGet(t, c, "k", "new")
		require.Equal(t, 3, s.count())
	})
}

func TestRemoteDownDuringInvalidateIsReportedAndMemoryIsStillCleared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, remote := &source{}, &faulty{Remote: new(cache.Memory)}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		s.set("k", "old")
		requireGet(t, c, "k", "old")
		s.set("k", "new")
		remote.fail(errAway)
		err := c.Invalidate(t.Context(), "k")
		require.ErrorIs(t, err, errAway)
		require.ErrorContains(t, err, "others may not have")
		requireGet(t, c, "k", "new")
		require.ErrorIs(t, c.InvalidateScope(t.Context(), ""), errAway)
	})
}

func TestUndecodableL2EntryIsAMissNotAnErrorAndSchemaVersionChangeIsAMiss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := new(cache.Memory)
		type v1 struct{ N int }
		type v2 struct{ N string }
		a, err := cache.New(func(context.Context, string) (*v1, error) { return &v1{1}, nil }, cache.Config[string, *v1]{Name: "test", Remote: store})
		require.NoError(t, err)
		_, err = a.Get(t.Context(), "k")
		require.NoError(t, err)
		b, err := cache.New(func(context.Context, string) (*v2, error) { return &v2{"2"}, nil }, cache.Config[string, *v2]{Name: "test", Remote: store.Peer()})
		require.NoError(t, err)
		got, err := b.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, &v2{"2"}, got)
		require.Equal(t, uint64(1), b.Stats().CodecErrors)
		loads := 0
		d, err := cache.New(func(context.Context, string) (*v2, error) { loads++; return &v2{"3"}, nil }, cache.Config[string, *v2]{Name: "test", Remote: store.Peer(), Schema: 7})
		require.NoError(t, err)
		for range 2 {
			got, err = d.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, &v2{"3"}, got)
		}
		require.Equal(t, 1, loads)
		require.Zero(t, d.Stats().CodecErrors)
	})
}

func TestAValueThatDoesNotEncodeIsKeptInThisProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, loads := new(cache.Memory), 0
		type odd struct{ F func() }
		c, err := cache.New(func(context.Context, string) (*odd, error) { loads++; return &odd{}, nil }, cache.Config[string, *odd]{Name: "test", Remote: store})
		require.NoError(t, err)
		for range 2 {
			_, err = c.Get(t.Context(), "k")
			require.NoError(t, err)
		}
		require.Equal(t, 1, loads)
		require.Equal(t, uint64(1), c.Stats().CodecErrors)
	})
}

func TestCodecsOfBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := new(cache.Memory)
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		for range 2 {
			c, err := cache.New(func(context.Context, string) ([]byte, error) { return every, nil }, cache.Config[string, []byte]{Name: "bytes", Remote: store.Peer(), NoLocal: true})
			require.NoError(t, err)
			r, err := cache.New(func(context.Context, string) (json.RawMessage, error) { return []byte(`{"a": 1}`), nil }, cache.Config[string, json.RawMessage]{Name: "raw", Remote: store.Peer(), NoLocal: true})
			require.NoError(t, err)
			for range 2 {
				b, err := c.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, every, b)
				raw, err := r.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, `{"a": 1}`, string(raw))
			}
			require.Equal(t, uint64(0), c.Stats().Hits)
		}
	})
}

func TestOneLoadPerKeyAcrossReplicasOnColdHotKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{takes: time.Second}, new(cache.Memory)
		s.set("k", "v")
		var wg sync.WaitGroup
		for range 10 {
			c := newCache(t, s, cache.Config[string, string]{Remote: store.Peer(), Fleet: 5 * time.Second})
			for range 10 {
				wg.Go(func() {
					if v, err := c.Get(t.Context(), "k"); v != "v" || err != nil {
						t.Error(v, err)
					}
				})
			}
		}
		wg.Wait()
		require.Equal(t, 1, s.count())
	})
}

func TestOthersTakeTheStaleValueWhileOneProcessLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		cfg := cache.Config[string, string]{Remote: store, Fleet: 5 * time.Second, TTL: time.Minute, StaleWhileRevalidate: time.Minute}
		a := newCache(t, s, cfg)
		cfg.Remote = store.Peer()
		b := newCache(t, s, cfg)
		s.set("k", "1")
		requireGet(t, a, "k", "1")
		requireGet(t, b, "k", "1")
		time.Sleep(time.Minute)
		s.set("k", "2")
		s.hold()
		get(t.Context(), a, "k").is(t, "1")
		for range 10 {
			get(t.Context(), b, "k").is(t, "1")
			time.Sleep(50 * time.Millisecond)
		}
		require.Equal(t, 2, s.count())
		s.free()
		synctest.Wait()
		requireGet(t, a, "k", "2")
		time.Sleep(time.Second)
		requireGet(t, b, "k", "1")
		synctest.Wait()
		requireGet(t, b, "k", "2")
		require.Equal(t, 2, s.count())
	})
}

func TestExpiredLeaseHolderCrashLetsAnotherReplicaLoadWithinLeaseTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		s.set("k", "v")
		answers, err := store.Get(t.Context(), "test", []cache.Key{{ID: "k"}}, 5*time.Second) // of a process that dies now
		require.NoError(t, err)
		require.NotZero(t, answers[0].Claim)
		c := newCache(t, s, cache.Config[string, string]{Remote: store.Peer(), Fleet: 5 * time.Second})
		begun := time.Now()
		requireGet(t, c, "k", "v")
		require.GreaterOrEqual(t, time.Since(begun), 5*time.Second)
		require.Less(t, time.Since(begun), 5500*time.Millisecond)
	})
}

func TestALoadThatFailsLetsAnotherReplicaLoadAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		cfg := cache.Config[string, string]{Remote: store, Fleet: 5 * time.Second}
		a := newCache(t, s, cfg)
		cfg.Remote = store.Peer()
		b := newCache(t, s, cfg)
		s.fail(errAway)
		_, err := a.Get(t.Context(), "k")
		require.ErrorIs(t, err, errAway)
		s.fail(nil)
		s.set("k", "v")
		begun := time.Now()
		requireGet(t, b, "k", "v")
		require.Zero(t, time.Since(begun))
	})
}

func TestFleetWaitsOnlyForWhatOthersLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		s.set("a", "1")
		s.set("b", "2")
		_, err := store.Get(t.Context(), "test", []cache.Key{{ID: "a"}}, 5*time.Second)
		require.NoError(t, err)
		c := newCache(t, s, cache.Config[string, string]{Remote: store.Peer(), Fleet: 5 * time.Second})
		done := make(chan struct{})
		go func() {
			defer close(done)
			got, err := c.GetMany(t.Context(), []string{"a", "b"})
			if err != nil || len(got) != 2 {
				t.Error(got, err)
			}
		}()
		synctest.Wait()
		get(t.Context(), c, "b").is(t, "2")
		<-done
	})
}

func TestOwnInvalidationMessageDoesNotEvictANewerLocalValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		remote := &late{Remote: new(cache.Memory)}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote, Tags: func(string, string) []string { return []string{"t"} }})
		s.set("k", "old")
		requireGet(t, c, "k", "old")
		s.set("k", "new")
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		require.NoError(t, c.InvalidateTags(t.Context(), "", "t"))
		requireGet(t, c, "k", "new")
		for _, n := range remote.told {
			remote.tell(n) // once more, by the channel
		}
		requireGet(t, c, "k", "new")
		require.Equal(t, 2, s.count())
		require.Equal(t, uint64(1), c.Stats().Hits)

		s.hold()
		require.NoError(t, c.Invalidate(t.Context(), "k"))
		slow := get(t.Context(), c, "k")
		remote.tell(remote.told[len(remote.told)-1])
		s.free()
		slow.is(t, "new")
		requireGet(t, c, "k", "new")
		require.Equal(t, 3, s.count())
		require.Equal(t, uint64(2), c.Stats().Hits, "nor does it void a load that began after it")
	})
}

// late remembers what it has told.
type late struct {
	cache.Remote

	tell func(cache.Notice)
	told []cache.Notice
}

func (l *late) Watch(name string, lag time.Duration, told func(cache.Notice)) error {
	l.tell = told
	return l.Remote.Watch(name, lag, func(n cache.Notice) {
		l.told = append(l.told, n)
		told(n)
	})
}

func TestAnAnswerThatWasOnItsWayDuringAnInvalidationIsAskedForAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		slow := &slowAnswers{Remote: store.Peer()}
		a := newCache(t, s, cache.Config[string, string]{Remote: store})
		b := newCache(t, s, cache.Config[string, string]{Remote: slow, Fleet: time.Second})
		s.set("k", "old")
		requireGet(t, a, "k", "old")
		slow.gate = make(chan struct{})
		asked := get(t.Context(), b, "k")
		s.set("k", "new")
		require.NoError(t, a.Invalidate(t.Context(), "k"))
		close(slow.gate)
		asked.is(t, "new")
		requireGet(t, b, "k", "new")
		require.Equal(t, 2, s.count())
	})
}

// slowAnswers holds answers back.
type slowAnswers struct {
	cache.Remote

	gate chan struct{}
}

func (s *slowAnswers) Get(ctx context.Context, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	answers, err := s.Remote.Get(ctx, name, keys, claim)
	if s.gate != nil {
		<-s.gate
	}
	return answers, err
}

func TestRedisFlushOrFailoverDuringFillDoesNotAdmitStaleFill(t *testing.T) {
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
		store.Flush() // and with it what was known of the invalidation
		s.free()
		slow.is(t, "old")
		requireGet(t, b, "k", "new")
		requireGet(t, a, "k", "new")
	})
}

func TestInvalidateOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, remote := &source{}, &faulty{Remote: new(cache.Memory)}
		c := newCache(t, s, cache.Config[string, string]{Remote: remote})
		var ran []string
		next := func(ctx context.Context, in string) error {
			v, err := c.Get(ctx, in)
			ran = append(ran, v)
			return err
		}
		on := cache.InvalidateOn(c, func(in string) string { return in }, next)
		s.set("k", "old")
		requireGet(t, c, "k", "old")
		s.set("k", "new")
		require.NoError(t, on(t.Context(), "k"))
		require.Equal(t, []string{"new"}, ran, "invalidated first")
		remote.fail(errAway)
		require.ErrorIs(t, on(t.Context(), "k"), errAway)
		require.Len(t, ran, 1, "the queue tries again")
		remote.fail(nil)
		require.NoError(t, cache.InvalidateOn(c, func(in string) string { return in }, nil)(t.Context(), "k"))

		errBad := errors.New("not a product")
		by := cache.InvalidateBy(c, func(in string) (cache.Stale[string], error) {
			switch in {
			case "bad":
				return cache.Stale[string]{}, errBad
			case "other":
				return cache.Stale[string]{}, cache.ErrIgnore
			}
			return cache.Stale[string]{Keys: []string{in}}, nil
		}, next)
		require.ErrorIs(t, by(t.Context(), "bad"), errBad)
		before := c.Stats().Invalidations
		require.ErrorIs(t, by(t.Context(), "other"), cache.ErrNotFound) // it ran
		require.Equal(t, before, c.Stats().Invalidations)
		require.NoError(t, by(t.Context(), "k"))
		require.Equal(t, before+1, c.Stats().Invalidations)
	})
}

func TestGetRemoteIsAsNewAsAnInvalidationByAnotherProcessOfWhichNobodyHasToldYet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, store := &source{}, new(cache.Memory)
		untold := &deafRemote{Remote: store.Peer()}
		a := newCache(t, s, cache.Config[string, string]{Remote: store, StaleIfError: time.Hour})
		b := newCache(t, s, cache.Config[string, string]{Remote: untold, StaleIfError: time.Hour})
		s.set("k", "old")
		requireGet(t, b, "k", "old")
		first := s.hold()
		require.NoError(t, a.Invalidate(t.Context(), "k"))
		slow := get(t.Context(), a, "k")
		s.set("k", "new")
		require.NoError(t, a.Invalidate(t.Context(), "k"))
		requireGet(t, b, "k", "old")
		s.hold()
		s.free()
		v, err := b.GetRemote(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "new", v)
		requireGet(t, b, "k", "new")
		close(first)
		slow.is(t, "old")
		s.fail(errAway)
		require.NoError(t, a.Invalidate(t.Context(), "k"))
		_, err = b.GetRemote(t.Context(), "k")
		require.ErrorIs(t, err, errAway, "what is in memory may not be served in its place")
	})
}

// deafRemote tells nobody.
type deafRemote struct{ cache.Remote }

func (deafRemote) Watch(string, time.Duration, func(cache.Notice)) error { return nil }
