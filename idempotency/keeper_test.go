package idempotency_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
)

var (
	errBoom = errors.New("boom")
	order   = idempotency.Key{Scope: "a.myshopify.com", ID: "order/1"}
)

// fragile is a store that can be made to fail.
type fragile struct {
	idempotency.Memory

	mu                                sync.Mutex
	claim, extend, complete, release  error
	extends, completes, claims, frees int
}

func (f *fragile) fail(set func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set()
}

func (f *fragile) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	f.mu.Lock()
	err := f.claim
	f.claims++
	f.mu.Unlock()
	if err != nil {
		return idempotency.Claim{}, err
	}
	return f.Memory.Claim(ctx, r)
}

func (f *fragile) Extend(ctx context.Context, l []idempotency.Lease, d time.Duration) (idempotency.Extended, error) {
	f.mu.Lock()
	err := f.extend
	f.extends++
	f.mu.Unlock()
	if err != nil {
		return idempotency.Extended{}, err
	}
	return f.Memory.Extend(ctx, l, d)
}

func (f *fragile) Complete(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
	f.mu.Lock()
	err := f.complete
	f.completes++
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Memory.Complete(ctx, l, result, d)
}

func (f *fragile) Release(ctx context.Context, l idempotency.Lease, d time.Duration) error {
	f.mu.Lock()
	err := f.release
	f.frees++
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Memory.Release(ctx, l, d)
}

func newKeeper(t *testing.T, s idempotency.Store, cfg idempotency.Config) *idempotency.Keeper {
	t.Helper()
	k, err := idempotency.New(s, cfg)
	require.NoError(t, err)
	return k
}

// retryAfter is what an error says to those who may come back.
func retryAfter(err error) time.Duration {
	if d, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		return d.RetryAfter()
	}
	return 0
}

func permanent(err error) bool {
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return ok && p.Permanent()
}

// TestP3JobTakesEffectOnce is P3, a job takes effect once: two workers never both hold a key; a worker that lost its lease can't complete or overwrite; a finished key replays its result.
func TestP3JobTakesEffectOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store idempotency.Memory
		var effects atomic.Int64
		var inProgress atomic.Int64
		results := make(chan string, 1000)
		var wg sync.WaitGroup
		for range 8 { // processes
			k := newKeeper(t, &store, idempotency.Config{})
			for range 16 {
				wg.Go(func() {
					result, err := k.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) {
						time.Sleep(10 * time.Minute)
						return fmt.Append(nil, "label ", effects.Add(1)), nil
					})
					if errors.Is(err, idempotency.ErrInProgress) {
						inProgress.Add(1)
						return
					}
					assert.NoError(t, err)
					results <- string(result.Value)
				})
			}
		}
		wg.Wait()
		require.EqualValues(t, 1, effects.Load(), "two workers never both hold a key")
		require.EqualValues(t, 127, inProgress.Load())
		k := newKeeper(t, &store, idempotency.Config{})
		result, err := k.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) { return nil, errBoom })
		require.NoError(t, err)
		require.Equal(t, idempotency.Result{Value: []byte("label 1"), Replayed: true}, result, "a finished key replays its result")
		require.Equal(t, "label 1", <-results)

		// A worker that lost its lease can't complete or overwrite.
		lame := &fragile{extend: errBoom}
		k = newKeeper(t, lame, idempotency.Config{})
		paused, done := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := k.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
				<-paused // it does not look at ctx
				assert.ErrorIs(t, context.Cause(ctx), idempotency.ErrLeaseLost)
				return []byte("late"), nil
			})
			done <- err
		}()
		time.Sleep(time.Minute)
		other := newKeeper(t, &lame.Memory, idempotency.Config{})
		_, err = other.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) { return []byte("other"), nil })
		require.NoError(t, err)
		close(paused)
		require.ErrorIs(t, <-done, idempotency.ErrLeaseLost)
		result, err = other.Do(t.Context(), "ship", order, nil)
		require.NoError(t, err)
		require.Equal(t, "other", string(result.Value))
	})
}

// TestP5NewestWins is P5, the newest wins: an older version of a resource that arrives late never overwrites a newer one.
func TestP5NewestWins(t *testing.T) {
	t.Parallel()
	type event struct {
		updated, triggered int // seconds; 0 for none
		fails              bool
	}
	at := func(s int) time.Time {
		if s == 0 {
			return time.Time{}
		}
		return time.Unix(int64(s), 0)
	}
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
	var state event
	runs := 0
	sync := idempotency.Latest(k, "sync", func(event) idempotency.Key { return order },
		func(e event) idempotency.Version { return idempotency.Updated(at(e.updated), at(e.triggered)) },
		func(_ context.Context, e event) error {
			runs++
			state = e
			if e.fails {
				return errBoom
			}
			return nil
		})
	for i, step := range []struct {
		event
		runs bool
	}{
		{event{updated: 10, triggered: 11}, true},
		{event{updated: 10, triggered: 11}, false}, // a redelivery
		{event{updated: 9, triggered: 99}, false},  // sent later, changed before
		{event{updated: 10, triggered: 10}, false}, // of the same second, sent before
		{event{updated: 10, triggered: 12}, true},  // of the same second, sent later
		{event{updated: 20, triggered: 21, fails: true}, true},
		{event{updated: 15, triggered: 16}, false}, // what failed may have begun
		{event{updated: 20, triggered: 21}, true},  // equal, and the earlier run failed
		{event{updated: 20, triggered: 21}, false},
		{event{triggered: 30}, true}, // a deletion
		{event{updated: 25, triggered: 26}, false},
	} {
		before := runs
		require.Equal(t, step.fails && step.runs, sync(t.Context(), step.event) != nil, i)
		require.Equal(t, step.runs, runs > before, i)
		if step.runs {
			require.Equal(t, step.event, state)
		}
	}
	err := sync(t.Context(), event{})
	require.ErrorIs(t, err, idempotency.ErrKey, "without a version it would be the oldest, and dropped")
	require.True(t, permanent(err))
}

func TestSecondCallSeesInProgressAndIsToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
		_, err := k.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
			_, err := newKeeper(t, new(idempotency.Memory), idempotency.Config{}).Do(ctx, "ship", order, func(context.Context) ([]byte, error) { return nil, nil })
			require.NoError(t, err, "another keeper's key is another key")
			_, err = k.Do(t.Context(), "ship", order, nil)
			require.ErrorIs(t, err, idempotency.ErrInProgress)
			require.False(t, permanent(err))
			require.Equal(t, 5*time.Second, retryAfter(err))
			return nil, nil
		})
		require.NoError(t, err)
		require.Equal(t, int64(1), k.Stats().InProgress)
	})
}

func TestWaiterGetsTheResultWithinItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store idempotency.Memory
		here, there := newKeeper(t, &store, idempotency.Config{Wait: time.Minute}), newKeeper(t, &store, idempotency.Config{Wait: time.Minute})
		work := func(context.Context) ([]byte, error) {
			time.Sleep(20 * time.Second)
			return []byte("done"), nil
		}
		never := func(context.Context) ([]byte, error) { panic("it ran twice") }
		begin := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = here.Do(t.Context(), "ship", order, work) })
		synctest.Wait()
		for k, within := range map[*idempotency.Keeper]time.Duration{here: 0, there: 500 * time.Millisecond} {
			wg.Go(func() {
				result, err := k.Do(t.Context(), "ship", order, never)
				assert.NoError(t, err)
				assert.Equal(t, "done", string(result.Value))
				assert.True(t, result.Replayed)
				assert.LessOrEqual(t, time.Since(begin), 20*time.Second+within, "in its own process it is told, from others it hears soon")
			})
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := here.Do(ctx, "ship", order, never)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		})
		wg.Go(func() {
			_, err := newKeeper(t, &store, idempotency.Config{Wait: 2 * time.Second}).Do(t.Context(), "ship", order, never)
			assert.ErrorIs(t, err, idempotency.ErrInProgress)
			assert.Equal(t, 2*time.Second, time.Since(begin))
		})
		wg.Wait()
	})
}

func TestWaiterWhoseLeaderFailedRetriesTheClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, new(idempotency.Memory), idempotency.Config{Wait: time.Hour})
		var runs, fails atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := k.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) {
					time.Sleep(time.Second)
					if runs.Add(1) < 3 {
						return nil, errBoom
					}
					return nil, nil
				})
				if err != nil {
					fails.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 3, runs.Load())
		require.EqualValues(t, 2, fails.Load(), "each failure goes to the one who ran")
	})
}

func TestHandlerErrorReleasesSoRedeliveryRunsAgainAndPermanentErrorIsRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
		fail := errBoom
		runs := 0
		handle := idempotency.Once(k, "ship", func(k idempotency.Key) idempotency.Key { return k }, func(context.Context, idempotency.Key) error {
			runs++
			return fail
		})
		require.Equal(t, errBoom, handle(t.Context(), order), "the error as it is")
		require.Equal(t, errBoom, handle(t.Context(), order))
		fail = forGoodError{fmt.Errorf("no such address: %s", strings.Repeat("é", 1000))}
		require.Equal(t, fail, handle(t.Context(), order))
		require.Equal(t, 3, runs)
		err := handle(t.Context(), order)
		require.ErrorIs(t, err, idempotency.ErrRecorded)
		require.ErrorContains(t, err, "no such address")
		require.True(t, permanent(err))
		require.Less(t, len(err.Error()), 1200)
		require.Equal(t, 3, runs, "it is known, and not tried again")

		rec, err := k.Inspect(t.Context(), "ship", order)
		require.NoError(t, err)
		require.Contains(t, rec.Outcome().Failure, "no such address")
		require.NoError(t, k.Forget(t.Context(), rec))
		fail = nil
		require.NoError(t, handle(t.Context(), order), "somebody has mended the address")
		require.Equal(t, 4, runs)
	})
}

type forGoodError struct{ error }

func (forGoodError) Permanent() bool { return true }

func TestPanicAndGoexitFreeTheKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
		require.PanicsWithValue(t, "oh", func() { _, _ = k.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) { panic("oh") }) })
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = k.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) { runtime.Goexit(); return nil, nil })
		}()
		<-done
		result, err := k.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
			require.False(t, idempotency.TakenOver(ctx))
			return []byte("ran"), nil
		})
		require.NoError(t, err)
		require.Equal(t, "ran", string(result.Value))
	})
}

func TestCrashFreesTheKeyAfterTheLeaseAndTheNextIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store idempotency.Memory
		var log bytes.Buffer
		k := newKeeper(t, &store, idempotency.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		crashed(t, &store, k)
		_, err := k.Do(t.Context(), "ship", order, nil)
		require.ErrorIs(t, err, idempotency.ErrInProgress)
		time.Sleep(30 * time.Second)
		_, err = k.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
			require.True(t, idempotency.TakenOver(ctx), "the one before may have done it: not fresh")
			return nil, nil
		})
		require.NoError(t, err)
		require.Equal(t, int64(1), k.Stats().TakenOver)
		require.Contains(t, log.String(), "it may have taken effect")
	})
}

// crashed leaves a claim as a process does that dies.
func crashed(t *testing.T, store idempotency.Store, k *idempotency.Keeper) {
	t.Helper()
	r, err := idempotency.NewRequest("ship", order)
	require.NoError(t, err)
	r.For, r.Retention = 30*time.Second, 48*time.Hour
	c, err := store.Claim(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, idempotency.Claimed, c.State)
	_ = k
}

func TestCrashAfterEffectBeforeCompleteSurfacesAsUnknownNotAsFresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store idempotency.Memory
		k := newKeeper(t, &store, idempotency.Config{AskFirst: true})
		crashed(t, &store, k)
		time.Sleep(time.Hour)
		for range 2 {
			_, err := k.Do(t.Context(), "ship", order, nil)
			require.ErrorIs(t, err, idempotency.ErrUnknownOutcome)
			require.True(t, permanent(err), "somebody has to look: the job is for the dead letters")
		}
		rec, err := k.Inspect(t.Context(), "ship", order)
		require.NoError(t, err)
		require.Equal(t, idempotency.Unknown, rec.State)
		require.NoError(t, k.Resolve(t.Context(), rec, []byte("it was done")))
		require.ErrorIs(t, k.Resolve(t.Context(), rec, nil), idempotency.ErrChanged)
		result, err := k.Do(t.Context(), "ship", order, nil)
		require.NoError(t, err)
		require.Equal(t, "it was done", string(result.Value))
		_, err = k.Inspect(t.Context(), "other", order)
		require.ErrorIs(t, err, idempotency.ErrNoRecord)
		_, err = k.Inspect(t.Context(), "", order)
		require.ErrorIs(t, err, idempotency.ErrKey)
	})
}

// lossy is a store whose claims are taken, and whose answers to them are lost.
type lossy struct{ *idempotency.Memory }

func (s lossy) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	if _, err := s.Memory.Claim(ctx, r); err != nil {
		return idempotency.Claim{}, err
	}
	return idempotency.Claim{}, errBoom
}

func TestClaimWhoseAnswerWasLostNeedsNobodyToLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store idempotency.Memory
		_, err := newKeeper(t, lossy{&store}, idempotency.Config{AskFirst: true}).Do(t.Context(), "ship", order, nil)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		time.Sleep(time.Hour)
		_, err = newKeeper(t, &store, idempotency.Config{AskFirst: true}).Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) { return nil, nil })
		require.NoError(t, err, "nothing has run")
	})
}

func TestLeaseIsRenewedWhileHandlerRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fragile{}
		k := newKeeper(t, store, idempotency.Config{})
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				_, err := k.Do(t.Context(), "ship", idempotency.Key{ID: fmt.Sprint(i)}, func(ctx context.Context) ([]byte, error) {
					time.Sleep(time.Hour)
					return nil, context.Cause(ctx)
				})
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		require.InDelta(t, 2*360, store.extends, 4, "two calls, for 300 leases, every third of 30 s")
		before := store.extends
		time.Sleep(time.Hour)
		require.Equal(t, before, store.extends, "the timer stops when nothing runs")
	})
}

func TestContextIsCancelledWhenRenewalFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fragile{}
		k := newKeeper(t, store, idempotency.Config{})
		begin := time.Now()
		_, err := k.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
			time.Sleep(time.Minute)
			store.fail(func() { store.extend = errBoom })
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), idempotency.ErrLeaseLost)
			require.LessOrEqual(t, time.Since(begin), time.Minute+30*time.Second, "not later than the lease ends in the store")
			require.GreaterOrEqual(t, time.Since(begin), time.Minute+15*time.Second, "and not at the first failure")
			return nil, ctx.Err()
		})
		require.ErrorIs(t, err, idempotency.ErrLeaseLost)
		require.ErrorIs(t, err, context.Canceled, "and why the work ended")
	})
}

// sluggish is a store whose claims take a while to be answered.
type sluggish struct {
	fragile

	claims time.Duration
}

func (s *sluggish) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	c, err := s.Memory.Claim(ctx, r)
	time.Sleep(s.claims)
	return c, err
}

func TestClaimThatTookMostOfItsLeaseEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &sluggish{fragile: fragile{extend: errBoom}}
		k := newKeeper(t, store, idempotency.Config{})
		_, err := k.Do(t.Context(), "other", order, func(ctx context.Context) ([]byte, error) { // the timer is armed
			store.claims = 28 * time.Second
			begin := time.Now()
			_, err := k.Do(ctx, "ship", order, func(ctx context.Context) ([]byte, error) {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			})
			require.ErrorIs(t, err, idempotency.ErrLeaseLost)
			require.Equal(t, 30*time.Second, time.Since(begin))
			return nil, nil
		})
		require.ErrorIs(t, err, idempotency.ErrLeaseLost)
	})
}

func TestContextEndsWhenTheStoreSaysThatTheLeaseIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store idempotency.Memory
		k := newKeeper(t, &store, idempotency.Config{})
		begin := time.Now()
		_, err := k.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
			n, err := k.Purge(t.Context(), order.Scope)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			<-ctx.Done()
			require.LessOrEqual(t, time.Since(begin), 15*time.Second, "the next heartbeat")
			return nil, context.Cause(ctx)
		})
		require.ErrorIs(t, err, idempotency.ErrLeaseLost)
	})
}

// slow is a store whose completions take effect a while before they are answered.
type slow struct{ idempotency.Memory }

func (s *slow) Complete(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
	err := s.Memory.Complete(ctx, l, result, d)
	time.Sleep(20 * time.Second)
	return err
}

func TestCompletionThatIsUnderWayIsNoLostLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		k := newKeeper(t, new(slow), idempotency.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var work context.Context
		_, err := k.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
			work = ctx                  //nolint:fatcontext // to look at it afterwards
			time.Sleep(5 * time.Second) // heartbeats come while the completion is under way
			return nil, nil
		})
		require.NoError(t, err)
		require.Empty(t, log.String())
		require.NotErrorIs(t, context.Cause(work), idempotency.ErrLeaseLost)
	})
}

func TestCallerWhoLeavesEndsTheWorkAndFreesTheKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fragile{}
		k := newKeeper(t, store, idempotency.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		_, err := k.Do(ctx, "ship", order, func(ctx context.Context) ([]byte, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		})
		require.Equal(t, context.Canceled, err)
		_, err = k.Do(ctx, "ship", order, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 2, store.frees, "also of a claim whose answer nobody waited for")
		_, err = k.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) { return nil, nil })
		require.NoError(t, err)

		done, cancel := context.WithCancel(t.Context())
		_, err = k.Do(done, "other", order, func(context.Context) ([]byte, error) { cancel(); return nil, nil })
		require.NoError(t, err, "what is done is recorded, whoever has left")
		result, err := k.Do(t.Context(), "other", order, nil)
		require.NoError(t, err)
		require.True(t, result.Replayed)
	})
}

func TestStoreFailureAfterEffectIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fragile{complete: errBoom}
		k := newKeeper(t, store, idempotency.Config{})
		go func() {
			time.Sleep(10 * time.Second)
			store.fail(func() { store.complete = nil })
		}()
		result, err := k.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) { return []byte("r"), nil })
		require.NoError(t, err)
		require.Equal(t, "r", string(result.Value))
		require.Greater(t, store.completes, 5)
	})
}

func TestStoreFailureAfterEffectDoesNotReportPlainFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fragile{complete: errBoom}
		k := newKeeper(t, store, idempotency.Config{})
		begin := time.Now()
		result, err := k.Do(t.Context(), "ship", order, func(context.Context) ([]byte, error) { return []byte("r"), nil })
		require.ErrorIs(t, err, idempotency.ErrUnknownOutcome)
		require.ErrorIs(t, err, errBoom)
		require.False(t, permanent(err))
		require.Equal(t, "r", string(result.Value), "the caller knows what was done")
		require.LessOrEqual(t, time.Since(begin), 30*time.Second)
		require.GreaterOrEqual(t, time.Since(begin), 25*time.Second)
		require.Positive(t, retryAfter(err))
		require.Less(t, retryAfter(err), 32*time.Second)
		require.Equal(t, int64(1), k.Stats().Unknown)
	})
}

func TestStoreDownAtClaimFailsClosedAndOpenByOption(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fragile{claim: errBoom}
		k := newKeeper(t, store, idempotency.Config{})
		_, err := k.Do(t.Context(), "ship", order, nil)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, 5*time.Second, retryAfter(err), "a queue waits, and spends no attempt")
		open := newKeeper(t, store, idempotency.Config{FailOpen: true})
		result, err := open.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
			_, err := idempotency.ChildKey(ctx, "x")
			require.NoError(t, err)
			_, err = open.Do(ctx, "ship", order, nil)
			require.ErrorIs(t, err, idempotency.ErrNested)
			return []byte("unguarded"), nil
		})
		require.NoError(t, err)
		require.Equal(t, "unguarded", string(result.Value))
		require.Equal(t, int64(1), open.Stats().Unavailable)
		require.Zero(t, open.Stats().Claimed)

		store.fail(func() { store.claim = fmt.Errorf("x: %w", idempotency.ErrNewerFormat) })
		_, err = open.Do(t.Context(), "ship", order, nil)
		require.ErrorIs(t, err, idempotency.ErrNewerFormat, "a record that can't be read is no fresh run, not with FailOpen either")
	})
}

func TestKeyAndFingerprintAreFrozenBeforeTheHandlerRuns(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
	type message struct {
		id   string
		body []byte
	}
	handle := idempotency.Once(k, "pay", func(m *message) idempotency.Key { return idempotency.Key{ID: m.id, Payload: m.body} }, func(_ context.Context, m *message) error {
		m.id = "other"
		copy(m.body, "changed")
		return nil
	})
	require.NoError(t, handle(t.Context(), &message{"1", []byte("10 EUR.")}))
	require.NoError(t, handle(t.Context(), &message{"1", []byte("10 EUR.")}))
	err := handle(t.Context(), &message{"1", []byte("changed")})
	require.ErrorIs(t, err, idempotency.ErrMismatch)
	require.True(t, permanent(err))
	require.Equal(t, int64(1), k.Stats().Claimed)
}

func TestHashCollisionResistantDefault(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
	prints := map[string]bool{}
	for i := range 200_000 {
		r, err := idempotency.NewRequest("op", idempotency.Key{ID: "k", Payload: fmt.Append(nil, i)})
		require.NoError(t, err)
		prints[r.Fingerprint] = true
	}
	require.Len(t, prints, 200_000)
	nothing := idempotency.Key{ID: "k", Payload: []byte{}}
	_, err := k.Do(t.Context(), "op", nothing, func(context.Context) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
	_, err = k.Do(t.Context(), "op", idempotency.Key{ID: "k", Payload: []byte{0}}, nil)
	require.ErrorIs(t, err, idempotency.ErrMismatch, "an empty payload is one")
}

func TestKeysAreBounded(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
	long := strings.Repeat("x", 256)
	for want, try := range map[string]struct {
		op  string
		key idempotency.Key
	}{
		"operation is empty":             {"", idempotency.Key{ID: "1"}},
		"Key.ID is empty":                {"op", idempotency.Key{}},
		"operation has 256 bytes":        {long, idempotency.Key{ID: "1"}},
		"Key.ID has 256 bytes":           {"op", idempotency.Key{ID: long}},
		"Key.Scope has 256 bytes":        {"op", idempotency.Key{ID: "1", Scope: long}},
		"Key.ID is not UTF-8":            {"op", idempotency.Key{ID: "\xff"}},
		"Key.Scope is not UTF-8":         {"op", idempotency.Key{ID: "1", Scope: "a\x00b"}},
		"operation is not UTF-8":         {"\xc3", idempotency.Key{ID: "1"}},
		"the version of \"op\" of \"1\"": {"op", idempotency.Key{ID: "1"}},
	} {
		var err error
		if !strings.HasPrefix(want, "the version") {
			_, err = k.Do(t.Context(), try.op, try.key, nil)
		} else {
			_, err = idempotency.NewRequest(try.op, try.key, idempotency.Version(long))
		}
		require.ErrorIs(t, err, idempotency.ErrKey)
		require.ErrorContains(t, err, want)
		require.True(t, permanent(err))
	}
	r, err := k.Do(t.Context(), long[:255], idempotency.Key{Scope: long[:255], ID: long[:253] + "é"}, func(context.Context) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
	require.False(t, r.Replayed)
}

func TestNestedIdempotentCallsWithTheSameKeyDoNotDeadlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, new(idempotency.Memory), idempotency.Config{Wait: time.Hour})
		begin := time.Now()
		_, err := k.Do(t.Context(), "ship", order, func(ctx context.Context) ([]byte, error) {
			_, err := k.Do(ctx, "label", order, func(ctx context.Context) ([]byte, error) { // another operation
				_, err := k.Do(ctx, "ship", order, func(context.Context) ([]byte, error) { panic("it ran") })
				require.ErrorIs(t, err, idempotency.ErrNested)
				require.True(t, permanent(err))
				return nil, nil
			})
			return nil, err
		})
		require.NoError(t, err)
		require.Zero(t, time.Since(begin))
	})
}

func TestBatchConsumerOneKeyPerItemPartialFailure(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
	runs := map[string]int{}
	broken := "b"
	item := idempotency.Once(k, "line", func(id string) idempotency.Key { return idempotency.Key{ID: id} }, func(_ context.Context, id string) error {
		runs[id]++
		if id == broken {
			return errBoom
		}
		return nil
	})
	batch := func() (errs []error) {
		for _, id := range []string{"a", "b", "c"} {
			errs = append(errs, item(t.Context(), id))
		}
		return errs
	}
	require.Equal(t, []error{nil, errBoom, nil}, batch())
	broken = ""
	require.Equal(t, []error{nil, nil, nil}, batch())
	require.Equal(t, map[string]int{"a": 1, "b": 2, "c": 1}, runs)
}

func TestRetentionGEBrokerRedeliveryHorizonIsValidated(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	for want, cfg := range map[string]idempotency.Config{
		"Config.Retention is 3h59m59s; want at least 4h0m0s": {Retention: 4*time.Hour - time.Second},
		"Config.Retention is -1ns":                           {Retention: -1},
		"Config.Lease is 99ms; want at least 100ms":          {Lease: 99 * time.Millisecond},
		"Config.Wait is -1ns":                                {Wait: -1},
		"Config.MaxResultBytes is -1":                        {MaxResultBytes: -1},
	} {
		_, err := idempotency.New(new(idempotency.Memory), cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := idempotency.New(nil, idempotency.Config{})
	require.ErrorContains(t, err, "store is nil")
	newKeeper(t, new(idempotency.Memory), idempotency.Config{Retention: 24 * time.Hour, Logger: logger})
	require.Empty(t, log.String())
	newKeeper(t, new(idempotency.Memory), idempotency.Config{Retention: 4 * time.Hour, Logger: logger})
	require.Contains(t, log.String(), "a short retention")
}

func TestRetentionOverRunsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, new(idempotency.Memory), idempotency.Config{Retention: 5 * time.Hour})
		runs := 0
		work := func(context.Context) ([]byte, error) { runs++; return nil, nil }
		for _, want := range []int{1, 1, 2} {
			_, err := k.Do(t.Context(), "ship", order, work)
			require.NoError(t, err)
			require.Equal(t, want, runs)
			time.Sleep(time.Duration(want) * 3 * time.Hour)
		}
	})
}

func TestOnceValueReplaysByteForByte(t *testing.T) {
	t.Parallel()
	type label struct {
		Number string
		Cost   json.Number
	}
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{MaxResultBytes: 1000})
	id := func(id string) idempotency.Key { return idempotency.Key{ID: id} }
	want := label{"a<b", "12345678901234567890.10"}
	buy := idempotency.OnceValue(k, "buy", id, func(context.Context, string) (label, error) { return want, nil })
	raw := idempotency.OnceValue(k, "raw", id, func(context.Context, string) ([]byte, error) { return []byte("\x00\xff{"), nil })
	text := idempotency.OnceValue(k, "text", id, func(context.Context, string) (json.RawMessage, error) { return json.RawMessage(` {"a" : 1}`), nil })
	for range 2 {
		got, err := buy(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, want, got)
		b, err := raw(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, []byte("\x00\xff{"), b)
		m, err := text(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, ` {"a" : 1}`, string(m))
	}
	_, err := buy(t.Context(), "")
	require.ErrorIs(t, err, idempotency.ErrKey)
	failing := idempotency.OnceValue(k, "fails", id, func(context.Context, string) (label, error) { return want, errBoom })
	got, err := failing(t.Context(), "1")
	require.Equal(t, errBoom, err)
	require.Zero(t, got)

	for name, build := range map[string]func(context.Context, string) (any, error){
		"too large":          func(context.Context, string) (any, error) { return strings.Repeat("x", 1000), nil },
		"does not encode":    func(context.Context, string) (any, error) { return func() {}, nil },
		"of Once, which has": nil,
	} {
		handle := idempotency.OnceValue(k, name, id, build)
		if build == nil {
			require.NoError(t, idempotency.Once(k, name, id, func(context.Context, string) error { return nil })(t.Context(), "1"))
		} else {
			v, err := handle(t.Context(), "1")
			require.NoError(t, err, "the first gets it")
			require.NotNil(t, v)
		}
		_, err := handle(t.Context(), "1")
		require.ErrorIs(t, err, idempotency.ErrNoResult, name)
		require.True(t, permanent(err))
	}
	other := idempotency.OnceValue(k, "buy", id, func(context.Context, string) (int, error) { return 0, nil })
	_, err = other(t.Context(), "1")
	require.ErrorContains(t, err, "a result of another shape")
}

func TestUndecodableRecordIsAnErrorNotAFreshRun(t *testing.T) {
	t.Parallel()
	var store idempotency.Memory
	k := newKeeper(t, &store, idempotency.Config{})
	r, err := idempotency.NewRequest("ship", order)
	require.NoError(t, err)
	r.For = time.Hour
	_, err = store.Claim(t.Context(), r)
	require.NoError(t, err)
	require.NoError(t, store.Complete(t.Context(), r.Lease, []byte{99, 1}, time.Hour))
	_, err = k.Do(t.Context(), "ship", order, nil)
	require.ErrorIs(t, err, idempotency.ErrNewerFormat)
}

func TestChildKeyIsStable(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
	var got []string
	run := func(op string, key idempotency.Key) {
		_, err := k.Do(t.Context(), op, key, func(ctx context.Context) ([]byte, error) {
			for _, name := range []string{"refund", "label"} {
				child, err := idempotency.ChildKey(ctx, name)
				require.NoError(t, err)
				require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, child)
				got = append(got, child)
			}
			return nil, errBoom // it runs again
		})
		require.Equal(t, errBoom, err)
	}
	run("ship", order)
	run("ship", order)
	require.Equal(t, got[:2], got[2:], "the same in every run")
	run("pay", order)
	run("ship", idempotency.Key{Scope: "b", ID: order.ID})
	run("ship", idempotency.Key{Scope: order.Scope, ID: "order/2"})
	versions := idempotency.Latest(k, "ship", func(uint64) idempotency.Key { return order }, idempotency.Number, func(ctx context.Context, _ uint64) error {
		child, err := idempotency.ChildKey(ctx, "refund")
		got = append(got, child)
		return err
	})
	require.NoError(t, versions(t.Context(), 1))
	require.NoError(t, versions(t.Context(), 2))
	seen := map[string]bool{}
	for _, child := range got[2:] {
		require.False(t, seen[child], "another operation, shop, key, version and name is another key")
		seen[child] = true
	}
	_, err := idempotency.ChildKey(t.Context(), "x")
	require.ErrorIs(t, err, idempotency.ErrNoOperation)
	require.False(t, idempotency.TakenOver(t.Context()))
}

func TestMemoryStoreIsBoundedWithoutEvictingInProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, &idempotency.Memory{MaxRecords: 10}, idempotency.Config{})
		done := func(i int) (idempotency.Result, error) {
			return k.Do(t.Context(), "ship", idempotency.Key{ID: fmt.Sprint(i)}, func(context.Context) ([]byte, error) { return nil, nil })
		}
		var hold func(op string, i int) error
		hold = func(op string, i int) error {
			_, err := k.Do(t.Context(), op, idempotency.Key{ID: fmt.Sprint(i)}, func(context.Context) ([]byte, error) {
				if i > 1 {
					return nil, hold(op, i-1)
				}
				for n := range 100 {
					if _, err := done(n); err != nil {
						return nil, err
					}
				}
				time.Sleep(time.Hour)
				return nil, nil
			})
			return err
		}
		require.NoError(t, hold("first", 9), "nine in progress, and room for one")
		result, err := done(99)
		require.NoError(t, err)
		require.True(t, result.Replayed, "the last to be done is still known")
		require.ErrorIs(t, hold("second", 11), idempotency.ErrFull)
	})
}

func TestOperatorsAreRefusedByAStoreWithoutThem(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, struct{ idempotency.Store }{new(idempotency.Memory)}, idempotency.Config{})
	_, err := k.Inspect(t.Context(), "ship", order)
	require.ErrorIs(t, err, idempotency.ErrNoOperator)
	_, err = k.Purge(t.Context(), "")
	require.ErrorIs(t, err, idempotency.ErrNoOperator)
	require.ErrorIs(t, k.Forget(t.Context(), idempotency.Record{}), idempotency.ErrNoOperator)
	require.ErrorIs(t, k.Resolve(t.Context(), idempotency.Record{}, nil), idempotency.ErrNoOperator)
}

// TestContextEndsWhenAnotherOfThisProcessHasTheKey has the next call claim before anybody has asked for more time, and so learned that the lease is lost.
func TestContextEndsWhenAnotherOfThisProcessHasTheKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, err := idempotency.New(new(idempotency.Memory), idempotency.Config{})
		require.NoError(t, err)
		key := idempotency.Key{Scope: "s", ID: "k"}
		first := make(chan error, 1)
		go func() {
			_, err := k.Do(t.Context(), "op", key, func(ctx context.Context) ([]byte, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			first <- err
		}()
		synctest.Wait()
		_, err = k.Purge(t.Context(), "s")
		require.NoError(t, err)
		_, err = k.Do(t.Context(), "op", key, func(context.Context) ([]byte, error) {
			require.ErrorIs(t, <-first, idempotency.ErrLeaseLost)
			return nil, nil
		})
		require.NoError(t, err)
	})
}
