package queue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

func newQueue(t *testing.T, b queue.Broker) *queue.Queue {
	t.Helper()
	q, err := queue.New(b, queue.Config{AllowVolatile: true})
	require.NoError(t, err)
	return q
}

// work runs a worker until stop is called, which waits for it.
func work(t *testing.T, q *queue.Queue, mux *queue.Mux, cfg queue.WorkerConfig) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx, mux, cfg) }()
	return sync.OnceFunc(func() {
		cancel()
		assert.NoError(t, <-done)
	})
}

func muxOf(kind string, h queue.Handler) *queue.Mux {
	mux := queue.NewMux()
	mux.Handle(kind, h)
	return mux
}

func enqueue(t *testing.T, q *queue.Queue, jobs ...queue.Job) []queue.Receipt {
	t.Helper()
	r, err := q.Enqueue(t.Context(), jobs...)
	require.NoError(t, err)
	return r
}

// journal notes what handlers did, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// P4: "In order per key. Jobs of one group, class and ordering key run one at a time, in the order they
// entered their lane, retries included (strict, the default). Different keys run in parallel."
func TestP4InOrderPerKeyRetriesIncluded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const keys, perKey = 20, 10
		q := newQueue(t, new(queue.Memory))
		var mu sync.Mutex
		running := map[string]int{}
		parallel, peak := 0, 0
		ran := map[string][]string{}
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			mu.Lock()
			running[job.Key]++
			parallel++
			peak = max(peak, parallel)
			assert.Equal(t, 1, running[job.Key], "one at a time")
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			running[job.Key]--
			parallel--
			// Every third job fails twice; its successors must wait for it.
			if n, _ := strconv.Atoi(string(job.Payload)); n%3 == 0 && job.Attempts < 2 {
				return errors.New("not yet")
			}
			ran[job.Key] = append(ran[job.Key], string(job.Payload))
			return nil
		}), queue.WorkerConfig{Backoff: func(int) time.Duration { return 7 * time.Second }})
		for i := range perKey {
			for k := range keys {
				enqueue(t, q, queue.Job{Kind: "k", Group: "shop", Key: strconv.Itoa(k), Payload: []byte(strconv.Itoa(i))})
			}
		}
		time.Sleep(10 * time.Minute)
		stop()
		var want []string
		for i := range perKey {
			want = append(want, strconv.Itoa(i))
		}
		require.Len(t, ran, keys)
		for k, got := range ran {
			assert.Equal(t, want, got, "key %s", k)
		}
		assert.Greater(t, peak, 10, "different keys run in parallel")
	})
}

// P6: "Fair. One shop's spike does not delay the others."
// (TRAPS: group_with_100k_jobs_delays_another_groups_first_job_by_at_most_one_round)
func TestP6GroupWith100kJobsDelaysAnotherGroupsFirstJobByAtMostOneRound(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := new(queue.Memory)
	q := newQueue(t, b)
	spike := make([]queue.Job, 100_000)
	for i := range spike {
		spike[i] = queue.Job{Kind: "k", Group: "noisy", Key: strconv.Itoa(i)}
	}
	enqueue(t, q, spike...)
	const quiet = 20
	for i := range quiet {
		enqueue(t, q, queue.Job{Kind: "k", Group: "quiet" + strconv.Itoa(i), Key: "a"}, queue.Job{Kind: "k", Group: "quiet" + strconv.Itoa(i), Key: "b"})
	}
	// Rounds of one job each: every group with a ready lane has its turn in each.
	for round := range 2 {
		claimed, err := b.Claim(ctx, "default", queue.Call{Process: "p", Number: uint64(round), Max: quiet + 1, Lease: time.Minute})
		require.NoError(t, err)
		groups := map[string]int{}
		for _, lease := range claimed.Jobs {
			groups[lease.Job.Group]++
		}
		assert.Len(t, groups, quiet+1, "round %d", round)
	}
}

// P6: "Fair. A shop's backfill does not delay its own live orders." Nor is it starved by them.
func TestP6BackfillDoesNotDelayLiveOrders(t *testing.T) {
	t.Parallel()
	b := new(queue.Memory)
	q := newQueue(t, b)
	var backfill, live []queue.Job
	for i := range 1000 {
		backfill = append(backfill, queue.Job{Kind: "k", Group: "shop", Class: queue.Bulk, Key: strconv.Itoa(i)})
	}
	for i := range 350 {
		live = append(live, queue.Job{Kind: "k", Group: "shop", Key: strconv.Itoa(i)})
	}
	enqueue(t, q, backfill...)
	enqueue(t, q, live...)
	for round := range 60 {
		count := map[queue.Class]int{}
		for _, l := range claim(t, b, uint64(round), 8).Jobs {
			count[l.Job.Class]++
		}
		want := map[queue.Class]int{queue.Live: 7, queue.Bulk: 1}
		if round >= 50 { // all live work is taken
			want = map[queue.Class]int{queue.Bulk: 8}
		}
		assert.Equal(t, want, count, "round %d", round)
	}
	_, err := q.Enqueue(t.Context(), queue.Job{Kind: "k", Class: 7})
	require.ErrorContains(t, err, "Job.Class is Class(7)")
	assert.Equal(t, "live bulk", fmt.Sprint(queue.Live, queue.Bulk))
}

// An idle worker runs what is due when it is due, without a hint.
func TestScheduledJobsRunWhenDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		var j journal
		start := time.Now()
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			j.add("%s %v", job.Payload, time.Since(start))
			return nil
		}), queue.WorkerConfig{})
		at := func(name string, delay time.Duration, notBefore time.Time) queue.Job {
			return queue.Job{Kind: "k", Group: "g", Key: "a", Payload: []byte(name), Delay: delay, NotBefore: notBefore}
		}
		enqueue(t, q, at("hour", time.Hour, time.Time{}), at("minute", 0, start.Add(time.Minute)), at("now", 0, start.Add(-time.Hour)),
			at("later of both", 2*time.Hour, start.Add(time.Minute)), at("minute, too", time.Minute, time.Time{}))
		time.Sleep(3 * time.Hour)
		stop()
		assert.Equal(t, []string{"now 0s", "minute 1m0s", "minute, too 1m0s", "hour 1h0m0s", "later of both 2h0m0s"}, j.all())
		assert.Zero(t, b.Size("default"))
	})
}

// TRAPS: delayed_job_due_while_everything_was_down_runs_once_on_return_in_due_order
func TestDelayedJobDueWhileEverythingWasDownRunsOnceOnReturnInDueOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		var want []string
		for i := range 300 { // more than one Claim takes up
			want = append(want, strconv.Itoa(i))
		}
		for i, name := range slices.Backward(want) {
			enqueue(t, q, queue.Job{Kind: "k", Key: "a", Payload: []byte(name), Delay: time.Duration(i+1) * time.Second})
		}
		time.Sleep(time.Hour)
		var j journal
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error { j.add("%s", job.Payload); return nil }), queue.WorkerConfig{})
		synctest.Wait()
		stop()
		assert.Equal(t, want, j.all())
	})
}

func TestVolatileBrokerMustBeAskedForByName(t *testing.T) {
	t.Parallel()
	_, err := queue.New(new(queue.Memory), queue.Config{})
	require.ErrorIs(t, err, queue.ErrVolatile)
	require.ErrorContains(t, err, "AllowVolatile")
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]queue.Config{
		"MaxPayloadBytes is -1": {AllowVolatile: true, MaxPayloadBytes: -1},
		"MaxAttempts is -1":     {AllowVolatile: true, MaxAttempts: -1},
	} {
		_, err := queue.New(new(queue.Memory), cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := queue.New(nil, queue.Config{})
	require.ErrorContains(t, err, "broker is nil")
	q := newQueue(t, new(queue.Memory))
	require.ErrorContains(t, q.Run(t.Context(), queue.NewMux(), queue.WorkerConfig{}), "no handler")
	for want, cfg := range map[string]queue.WorkerConfig{"Concurrency is -1": {Concurrency: -1}, "Lease is -1s": {Lease: -time.Second}, "Drain is -1s": {Drain: -time.Second}} {
		require.ErrorContains(t, q.Run(t.Context(), muxOf("k", func(context.Context, queue.Job) error { return nil }), cfg), want)
	}
	for want, job := range map[string]queue.Job{"Kind is empty": {}, "MaxAttempts is -1": {Kind: "k", MaxAttempts: -1}, "DedupeFor is -1s": {Kind: "k", DedupeFor: -time.Second}, "Delay is -1s": {Kind: "k", Delay: -time.Second},
		"MaxCrashes is -1": {Kind: "k", MaxCrashes: -1}, "Deadline is -1s": {Kind: "k", Deadline: -time.Second}, "Order is Order(9)": {Kind: "k", Order: 9}} {
		_, err := q.Enqueue(t.Context(), job)
		require.ErrorContains(t, err, want)
	}
}

func TestPayloadOverTheLimitIsATypedErrorAtEnqueue(t *testing.T) {
	t.Parallel()
	q, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true, MaxPayloadBytes: 3})
	require.NoError(t, err)
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k", Payload: []byte("1234")})
	require.ErrorIs(t, err, queue.ErrPayloadTooLarge)
	require.EqualError(t, err, "queue: payload of k has 4 bytes; Config.MaxPayloadBytes is 3")
	var permanent interface{ Permanent() bool }
	require.ErrorAs(t, err, &permanent)
	assert.True(t, permanent.Permanent())
}

func TestDedupeHitReturnsTheFirstJobsID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		job := queue.Job{Kind: "k", Group: "g", DedupeKey: "d", DedupeFor: time.Hour}
		first := enqueue(t, q, job)[0]
		assert.Equal(t, []queue.Receipt{{ID: first.ID, Duplicate: true}, {ID: first.ID, Duplicate: true}}, enqueue(t, q, job, job))
		other := job
		other.Group = "h"
		assert.False(t, enqueue(t, q, other)[0].Duplicate, "keys are a group's own")
		time.Sleep(time.Hour)
		assert.False(t, enqueue(t, q, job)[0].Duplicate, "the key has ended")
	})
}

// A batch sent again after a lost reply takes effect once, for two minutes.
func TestBatchSentAgainTakesEffectOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		batch := queue.Batch{ID: "b1", Jobs: []queue.Entry{{Job: queue.Job{ID: "j1", Kind: "k", MaxAttempts: 1, MaxCrashes: 1, Deadline: time.Hour}}}}
		first, err := b.Enqueue(t.Context(), "default", batch)
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		again, err := b.Enqueue(t.Context(), "default", batch)
		require.NoError(t, err)
		assert.Equal(t, first, again)
		assert.Len(t, claim(t, b, 1, 10).Jobs, 1)
	})
}

func claim(t *testing.T, b queue.Broker, number uint64, most int, settle ...queue.Settlement) queue.Claimed {
	t.Helper()
	c, err := b.Claim(t.Context(), "default", queue.Call{Process: "p", Number: number, Max: most, Lease: 30 * time.Second, Settle: settle})
	require.NoError(t, err)
	return c
}

// pass lets time pass with another process looking for work, as one does, without taking any. It leaves the
// last look to the caller.
func pass(t *testing.T, b queue.Broker, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		_, err := b.Claim(t.Context(), "default", queue.Call{Process: "other", Number: uint64(time.Now().UnixNano()), Lease: 30 * time.Second})
		require.NoError(t, err)
		time.Sleep(min(5*time.Second, time.Until(end)))
	}
}

func TestClaimSentAgainGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	b := new(queue.Memory)
	enqueue(t, newQueue(t, b), queue.Job{Kind: "k"}, queue.Job{Kind: "k"})
	first := claim(t, b, 1, 1)
	assert.Equal(t, first, claim(t, b, 1, 1))
	assert.NotEqual(t, first.Jobs[0].Token, claim(t, b, 2, 1).Jobs[0].Token)
}

func TestLateSettlementIsLostAndChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		enqueue(t, newQueue(t, b), queue.Job{Kind: "k", Key: "a"})
		first := claim(t, b, 1, 1).Jobs[0]
		pass(t, b, 30*time.Second)
		second := claim(t, b, 2, 1).Jobs
		require.Len(t, second, 1, "taken over")
		late := claim(t, b, 3, 1, queue.Settlement{Token: first.Token, Action: queue.Ack})
		assert.Equal(t, []queue.Token{first.Token}, late.Lost)
		answer, err := b.Extend(t.Context(), "default", queue.Heartbeat{Tokens: []queue.Token{first.Token, second[0].Token}, Lease: time.Minute})
		require.NoError(t, err)
		assert.Equal(t, []queue.Token{first.Token}, answer.Lost, "heartbeat_of_a_lost_lease_cannot_revive_it")
		done := claim(t, b, 4, 1, queue.Settlement{Token: second[0].Token, Action: queue.Ack})
		assert.Empty(t, done.Lost)
		again := claim(t, b, 5, 1, queue.Settlement{Token: second[0].Token, Action: queue.Ack})
		assert.Equal(t, []queue.Token{second[0].Token}, again.Lost)
	})
}

// A lease past its end that nobody has taken up is still held.
func TestLeasePastItsEndCountsUntilTakenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		enqueue(t, newQueue(t, b), queue.Job{Kind: "k", Key: "a"})
		lease := claim(t, b, 1, 1).Jobs[0]
		time.Sleep(time.Hour)
		assert.Empty(t, claim(t, b, 2, 1, queue.Settlement{Token: lease.Token, Action: queue.Ack}).Lost)
	})
}

// TRAPS: shutdown_gives_leases_back_in_order_without_spending_attempts. In one call or in many.
func TestReleaseKeepsOrderAndAttempts(t *testing.T) {
	t.Parallel()
	for _, inOneCall := range []bool{true, false} {
		b := new(queue.Memory)
		q := newQueue(t, b)
		for i := range 8 {
			enqueue(t, q, queue.Job{Kind: "k", Group: "g", Key: strconv.Itoa(i)})
		}
		leases := claim(t, b, 1, 5).Jobs
		var settle []queue.Settlement
		number := uint64(1)
		for _, i := range []int{1, 4, 2, 0, 3} {
			settle = append(settle, queue.Settlement{Token: leases[i].Token, Action: queue.Release})
			if !inOneCall {
				number++
				claim(t, b, number, 0, settle...)
				settle = nil
			}
		}
		var keys []string
		for _, l := range claim(t, b, number+1, 8, settle...).Jobs {
			keys = append(keys, l.Job.Key)
			assert.Zero(t, l.Job.Attempts)
		}
		assert.Equal(t, []string{"0", "1", "2", "3", "4", "5", "6", "7"}, keys)
	}
}

// However many heartbeats went before: a lease whose worker died is taken up within the backstop.
func TestDeadWorkersLeaseIsTakenUpPromptlyBesideManyLongHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		for i := range 500 {
			enqueue(t, q, queue.Job{Kind: "long", Key: strconv.Itoa(i)})
		}
		end := make(chan struct{})
		mux := muxOf("long", func(context.Context, queue.Job) error { <-end; return nil })
		ran := make(chan time.Time, 1)
		mux.Handle("short", func(context.Context, queue.Job) error { ran <- time.Now(); return nil })
		stop := work(t, q, mux, queue.WorkerConfig{Concurrency: 600})
		time.Sleep(time.Hour)
		// Another process claims a job, in the moment in which it is there, and dies.
		b.Steal(q, queue.Job{Kind: "short"})
		start := time.Now()
		assert.LessOrEqual(t, (<-ran).Sub(start), 35*time.Second, "the lease and the backstop")
		close(end)
		synctest.Wait()
		stop()
		assert.Zero(t, b.Size("default"), "no timer of an ended lease is left")
	})
}

func TestPanicAndGoexitInAHandlerAreFailedAttemptsAndTheWorkerLives(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err       func() error
		attempts  []int // seen by the handler, run by run
		dead      string
		lastAfter time.Duration
	}{
		"an error is a failed attempt until MaxAttempts": {func() error { return errors.New("boom") }, []int{0, 1, 2}, "boom", 20 * time.Second},
		"a permanent error kills":                        {func() error { return fmt.Errorf("bad: %w", queue.Permanent(errors.New("boom"))) }, []int{0}, "bad: boom", 0},
		"a panic is a failed attempt":                    {func() error { panic("boom") }, []int{0, 1, 2}, "queue: handler panicked: boom", 20 * time.Second},
		"Goexit is a failed attempt":                     {func() error { runtime.Goexit(); return nil }, []int{0, 1, 2}, "queue: handler ended its goroutine", 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(t, new(queue.Memory))
				var seen []int
				start, last := time.Now(), time.Duration(0)
				stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
					seen, last = append(seen, job.Attempts), time.Since(start)
					return tt.err()
				}), queue.WorkerConfig{Backoff: func(int) time.Duration { return 10 * time.Second }})
				enqueue(t, q, queue.Job{Kind: "k", MaxAttempts: 3})
				time.Sleep(time.Minute)
				stop()
				assert.Equal(t, tt.attempts, seen)
				assert.Equal(t, tt.lastAfter, last)
				dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 10})
				require.NoError(t, err)
				require.Len(t, dead, 1)
				assert.Equal(t, tt.dead, dead[0].Error)
			})
		})
	}
}

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text } // panics on a nil *nilError

// TRAPS: panic_and_goexit_in_a_handler_are_failed_attempts_and_the_worker_lives, in the error's methods too.
func TestErrorWhoseMethodsPanicIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error {
			var e *nilError
			return e // the mistake that users make
		}), queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "k", MaxAttempts: 2})
		time.Sleep(time.Minute)
		stop()
		dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 1})
		require.NoError(t, err)
		require.Len(t, dead, 1)
		assert.Contains(t, dead[0].Error, "queue: handler panicked: runtime error")
	})
}

type busy struct{ after time.Duration }

func (b busy) Error() string             { return "busy" }
func (b busy) RetryAfter() time.Duration { return b.after }

// TRAPS: snooze_and_park_spend_no_attempt_and_keep_order (the worker's half of snooze)
func TestSnoozeSpendsNoAttemptAndKeepsOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		start := time.Now()
		snoozes := 0
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			assert.Zero(t, job.Attempts)
			if string(job.Payload) == "1" && snoozes < 50 {
				snoozes++
				return fmt.Errorf("carrier: %w", busy{10 * time.Second})
			}
			j.add("%s %v", job.Payload, time.Since(start))
			return nil
		}), queue.WorkerConfig{})
		for i := range 3 {
			enqueue(t, q, queue.Job{Kind: "k", Key: "a", Payload: []byte(strconv.Itoa(i)), MaxAttempts: 2})
		}
		time.Sleep(time.Hour)
		stop()
		assert.Equal(t, []string{"0 0s", "1 8m20s", "2 8m20s"}, j.all())
	})
}

// TRAPS: long_handler_with_heartbeat_runs_once_however_long
func TestLongHandlerWithHeartbeatRunsOnceHoweverLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		var j journal
		mux := muxOf("k", func(context.Context, queue.Job) error {
			j.add("start")
			time.Sleep(5 * time.Hour)
			j.add("end")
			return nil
		})
		stopA, stopB := work(t, q, mux, queue.WorkerConfig{}), work(t, q, mux, queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "k", Key: "a"})
		time.Sleep(6 * time.Hour)
		stopA()
		stopB()
		assert.Equal(t, []string{"start", "end"}, j.all())
	})
}

// A handler whose lease another worker took is told so, and what it says afterwards changes nothing.
func TestLostLeaseCancelsTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		causes := make(chan error, 1)
		stop := work(t, q, muxOf("k", func(ctx context.Context, _ queue.Job) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil
		}), queue.WorkerConfig{Concurrency: 1})
		enqueue(t, q, queue.Job{Kind: "k", Key: "a"})
		synctest.Wait()
		b.deaf.Store(true) // the heartbeats get lost for a while
		pass(t, b, 31*time.Second)
		thief, err := b.Claim(t.Context(), "default", queue.Call{Process: "thief", Number: 1, Max: 1, Lease: time.Hour})
		require.NoError(t, err)
		require.Len(t, thief.Jobs, 1)
		b.deaf.Store(false)
		require.ErrorIs(t, <-causes, queue.ErrLeaseLost)
		synctest.Wait()
		stop()
		last, err := b.Claim(t.Context(), "default", queue.Call{Process: "thief", Number: 2, Settle: []queue.Settlement{{Token: thief.Jobs[0].Token, Action: queue.Ack}}})
		require.NoError(t, err)
		assert.Empty(t, last.Lost, "the thief's lease stood")
	})
}

// TRAPS: broker_away_means_backoff_with_jitter_not_a_busy_loop
func TestBrokerAwayMeansBackoffWithJitterNotABusyLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		var j journal
		b.away.Store(true)
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error { j.add("%s", job.Key); return nil }), queue.WorkerConfig{})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		calls := b.calls.Load()
		assert.Less(t, calls, int64(2000))
		assert.Greater(t, calls, int64(60))
		b.away.Store(false)
		enqueue(t, q, queue.Job{Kind: "k", Key: "a"})
		time.Sleep(backstopAndJitter)
		stop()
		assert.Equal(t, []string{"a"}, j.all())
	})
}

const backstopAndJitter = 11 * time.Second

// TRAPS: wake_up_message_lost_is_made_up_by_the_slow_poll_within_its_period
func TestWakeUpMessageLostIsMadeUpByTheSlowPollWithinItsPeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		b.mute.Store(true)
		q := newQueue(t, b)
		done := make(chan time.Time, 1)
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error { done <- time.Now(); return nil }), queue.WorkerConfig{})
		time.Sleep(12 * time.Second)
		start := time.Now()
		enqueue(t, q, queue.Job{Kind: "k"})
		assert.LessOrEqual(t, (<-done).Sub(start), 5*time.Second)
		stop()
	})
}

// A broker whose Wait fails, or returns early again and again, does not make the worker spin.
func TestUselessHintsDoNotMakeTheWorkerSpin(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"failing": errAway, "early": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &deafBroker{Memory: new(queue.Memory), useless: true, waitErr: err}
				q := newQueue(t, b)
				done := make(chan time.Time, 1)
				stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error { done <- time.Now(); return nil }), queue.WorkerConfig{})
				time.Sleep(time.Minute)
				assert.Less(t, b.calls.Load(), int64(60*25))
				start := time.Now()
				enqueue(t, q, queue.Job{Kind: "k"})
				assert.LessOrEqual(t, (<-done).Sub(start), 5*time.Second)
				stop()
			})
		})
	}
}

// A heartbeat that hangs is given up when the next is due.
func TestHangingHeartbeatDoesNotEndTheHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		b.hangs.Store(1)
		q := newQueue(t, b)
		var j journal
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error {
			j.add("run")
			time.Sleep(10 * time.Minute)
			return nil
		}), queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "k", Key: "a"})
		time.Sleep(20 * time.Minute)
		stop()
		assert.Equal(t, []string{"run"}, j.all())
	})
}

// What is done when the worker is told to stop is settled and not kept for the end of the drain, though the broker is away at that
// very moment and another handler still runs.
func TestSettlementIsNotWithheldDuringTheDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		done := make(chan struct{})
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			if job.Key == "short" {
				<-done
				return nil
			}
			time.Sleep(24 * time.Second)
			return nil
		}), queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "k", Key: "short"}, queue.Job{Kind: "k", Key: "long"})
		synctest.Wait()
		b.away.Store(true)
		close(done)
		synctest.Wait()
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		time.Sleep(time.Second)
		b.away.Store(false)
		time.Sleep(6 * time.Second) // a pause of the back-off, 5 s at most, may have just begun
		assert.Equal(t, 1, b.Leased("default"), "only the long one, which runs for 24 s, is still held")
		<-stopped
	})
}

// With the broker away, Run ends some seconds after Drain all the same.
func TestRunEndsThoughTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error { time.Sleep(3 * time.Second); return nil }), queue.WorkerConfig{Drain: 5 * time.Second})
		for i := range 50 {
			enqueue(t, q, queue.Job{Kind: "k", Key: strconv.Itoa(i)})
		}
		synctest.Wait()
		b.away.Store(true)
		start := time.Now()
		stop()
		assert.LessOrEqual(t, time.Since(start), 12*time.Second)
	})
}

func TestIdleWorkerDoesNotPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		stop := work(t, newQueue(t, b), muxOf("k", func(context.Context, queue.Job) error { return nil }), queue.WorkerConfig{})
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.LessOrEqual(t, b.calls.Load(), int64(time.Hour/(4375*time.Millisecond))+1, "the backstop, up to an eighth early, and nothing else")
		stop()
	})
}

// TRAPS: shutdown_gives_leases_back_in_order_without_spending_attempts (the worker's half)
func TestShutdownGivesLeasesBackInOrderWithoutSpendingAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		release := make(chan struct{})
		stop := work(t, q, muxOf("k", func(ctx context.Context, job queue.Job) error {
			switch job.Key {
			case "quick":
				time.Sleep(10 * time.Second) // within the drain time
				return nil
			case "listens":
				<-ctx.Done()
				assert.Equal(t, queue.ErrStopped, context.Cause(ctx))
				return ctx.Err()
			default:
				<-release // ignores its context
				return nil
			}
		}), queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "k", Group: "g", Key: "quick"}, queue.Job{Kind: "k", Group: "g", Key: "listens"}, queue.Job{Kind: "k", Group: "g", Key: "deaf"})
		synctest.Wait()
		start := time.Now()
		stop()
		assert.Equal(t, 26*time.Second, time.Since(start), "drain, and a second for those that listen")
		var keys []string
		for _, l := range claim(t, b, 1, 10).Jobs {
			keys = append(keys, l.Job.Key)
			assert.Zero(t, l.Job.Attempts)
		}
		assert.Equal(t, []string{"listens", "deaf"}, keys, "as they were claimed")
		close(release)
	})
}

func TestKindWithoutHandlerWaitsADayForOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		stop := work(t, q, muxOf("known", func(context.Context, queue.Job) error { return nil }), queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "new"})
		time.Sleep(23 * time.Hour)
		dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 1})
		require.NoError(t, err)
		assert.Empty(t, dead)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		dead, err = q.Dead(t.Context(), queue.DeadFilter{Limit: 1})
		require.NoError(t, err)
		require.Len(t, dead, 1)
		assert.Equal(t, queue.ErrNoHandler.Error(), dead[0].Error)
		stop()

		// A job that is old because everything was down gets an hour from a worker that has just met its kind.
		enqueue(t, q, queue.Job{Kind: "new"})
		time.Sleep(30 * time.Hour)
		stop = work(t, q, muxOf("known", func(context.Context, queue.Job) error { return nil }), queue.WorkerConfig{})
		time.Sleep(50 * time.Minute)
		dead, err = q.Dead(t.Context(), queue.DeadFilter{Limit: 10})
		require.NoError(t, err)
		assert.Len(t, dead, 1)
		time.Sleep(20 * time.Minute)
		dead, err = q.Dead(t.Context(), queue.DeadFilter{Limit: 10})
		require.NoError(t, err)
		assert.Len(t, dead, 2)
		stop()
	})
}

// A relaxed job that fails gives up its place; a snoozed one keeps it.
func TestRelaxedJobThatFailsGivesUpItsPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		start := time.Now()
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			j.add("%s %v", job.Payload, time.Since(start))
			switch {
			case string(job.Payload) == "fails" && job.Attempts == 0:
				return errors.New("boom")
			case string(job.Payload) == "snoozes" && time.Since(start) < time.Minute:
				return busy{time.Hour}
			}
			return nil
		}), queue.WorkerConfig{Backoff: func(int) time.Duration { return time.Minute }})
		for _, name := range []string{"fails", "next", "snoozes", "last"} {
			enqueue(t, q, queue.Job{Kind: "k", Key: "a", Order: queue.Relaxed, Payload: []byte(name)})
		}
		time.Sleep(3 * time.Hour)
		stop()
		assert.Equal(t, []string{"fails 0s", "next 0s", "snoozes 0s", "snoozes 1h0m0s", "last 1h0m0s", "fails 1h0m0s"}, j.all())
	})
}

// A relaxed job that is due again at once goes behind its successors, and its lane is leased once.
func TestRelaxedJobThatIsDueAtOnce(t *testing.T) {
	t.Parallel()
	b := new(queue.Memory)
	q := newQueue(t, b)
	relaxed := func(name string) queue.Job {
		return queue.Job{Kind: "k", Key: "a", Order: queue.Relaxed, Payload: []byte(name)}
	}
	enqueue(t, q, relaxed("first"))
	alone := claim(t, b, 1, 10).Jobs
	require.Len(t, alone, 1)
	again := claim(t, b, 2, 10, queue.Settlement{Token: alone[0].Token, Action: queue.Retry}).Jobs
	require.Len(t, again, 1, "one lane, one lease")
	assert.Equal(t, 1, again[0].Job.Attempts)

	enqueue(t, q, relaxed("second"))
	next := claim(t, b, 3, 10, queue.Settlement{Token: again[0].Token, Action: queue.Retry}).Jobs
	require.Len(t, next, 1)
	assert.Equal(t, "second", string(next[0].Job.Payload))
	last := claim(t, b, 4, 10, queue.Settlement{Token: next[0].Token, Action: queue.Ack}).Jobs
	require.Len(t, last, 1)
	assert.Equal(t, "first", string(last[0].Job.Payload))
	claim(t, b, 5, 10, queue.Settlement{Token: last[0].Token, Action: queue.Ack})
	assert.Zero(t, b.Size("default"))
}

// TRAPS: worker_that_is_killed_by_the_job_itself_n_times_sends_it_to_dead_letters (poison: crash count
// apart from failure count)
func TestWorkerThatIsKilledByTheJobItselfNTimesSendsItToDeadLetters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		enqueue(t, q, queue.Job{Kind: "k", Key: "a", MaxCrashes: 3}, queue.Job{Kind: "k", Key: "a", Payload: []byte("next")})
		for i := range 3 {
			jobs := claim(t, b, uint64(i), 1).Jobs // by a worker that dies of it
			require.Len(t, jobs, 1)
			assert.Equal(t, i, jobs[0].Job.Crashes)
			assert.Zero(t, jobs[0].Job.Attempts)
			pass(t, b, 30*time.Second)
		}
		next := claim(t, b, 9, 1).Jobs
		require.Len(t, next, 1)
		assert.Equal(t, "next", string(next[0].Job.Payload))
		dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 10})
		require.NoError(t, err)
		require.Len(t, dead, 1)
		assert.Equal(t, "crashed its worker 3 times", dead[0].Error)
	})
}

// A job past its deadline is not begun, tried or put off again; its lane goes on, and no turn is spent.
func TestDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		var late []queue.Job
		for i := range 200 { // more than one Claim moves
			late = append(late, queue.Job{Kind: "k", Group: "g", Key: strconv.Itoa(i), Deadline: time.Hour})
		}
		enqueue(t, q, late...)
		enqueue(t, q, queue.Job{Kind: "k", Group: "g", Key: "0", Payload: []byte("next")})
		enqueue(t, q, queue.Job{Kind: "k", Group: "g", Key: "due", Delay: 90 * time.Minute, Deadline: time.Hour})
		time.Sleep(2 * time.Hour)
		first := claim(t, b, 1, 8)
		assert.Empty(t, first.Jobs)
		assert.Equal(t, time.Duration(1), first.DueIn, "look again")
		var keys []string
		for _, l := range claim(t, b, 2, 8).Jobs {
			keys = append(keys, l.Job.Key)
		}
		assert.ElementsMatch(t, []string{"0", "due"}, keys, "a delayed job's deadline counts from when it was due")
		dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 1000})
		require.NoError(t, err)
		require.Len(t, dead, 200)
		assert.Equal(t, "deadline", dead[0].Error)
	})
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		runs := map[string]int{}
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			runs[job.Key]++
			time.Sleep(10 * time.Minute)
			if job.Key == "fails" {
				return errors.New("boom")
			}
			return busy{time.Minute}
		}), queue.WorkerConfig{Concurrency: 1, Backoff: func(int) time.Duration { return time.Minute }})
		enqueue(t, q, queue.Job{Kind: "k", Key: "fails", Deadline: time.Hour}, queue.Job{Kind: "k", Key: "snoozes", Deadline: time.Hour})
		time.Sleep(24 * time.Hour)
		stop()
		dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 10})
		require.NoError(t, err)
		require.Len(t, dead, 2)
		var errs []string
		for _, d := range dead {
			errs = append(errs, d.Error)
		}
		assert.Subset(t, []string{"deadline", "deadline: boom"}, errs)
	})
}

// TRAPS: poison_head_of_a_strict_lane_blocks_only_its_lane; its_successors_run_after_it_is_dead
func TestPoisonHeadOfAStrictLaneBlocksOnlyItsLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		start := time.Now()
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			if string(job.Payload) == "poison" {
				return errors.New("boom")
			}
			j.add("%s %v", job.Payload, time.Since(start))
			return nil
		}), queue.WorkerConfig{Backoff: func(int) time.Duration { return time.Minute }})
		enqueue(t, q, queue.Job{Kind: "k", Key: "a", Payload: []byte("poison"), MaxAttempts: 3},
			queue.Job{Kind: "k", Key: "a", Payload: []byte("successor")}, queue.Job{Kind: "k", Key: "b", Payload: []byte("neighbour")})
		time.Sleep(time.Hour)
		stop()
		assert.Equal(t, []string{"neighbour 0s", "successor 2m0s"}, j.all())
	})
}

func TestHandleDecodesJSON(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		mux := queue.NewMux()
		got := make(chan int, 1)
		queue.Handle(mux, "k", func(_ context.Context, in struct{ N int }) error { got <- in.N; return nil })
		stop := work(t, q, mux, queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "k", Payload: []byte(`{"N":7}`)}, queue.Job{Kind: "k", Payload: []byte(`{`)})
		assert.Equal(t, 7, <-got)
		synctest.Wait()
		stop()
		dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 10})
		require.NoError(t, err)
		require.Len(t, dead, 1)
		assert.True(t, strings.HasPrefix(dead[0].Error, "queue: payload of k does not decode: "), dead[0].Error)
	})
}

func TestMuxPanicsForProgrammerMistakes(t *testing.T) {
	t.Parallel()
	mux := muxOf("k", func(context.Context, queue.Job) error { return nil })
	assert.True(t, mux.Has("k"))
	assert.False(t, mux.Has("x"))
	assert.Equal(t, []string{"k"}, mux.Kinds())
	assert.Panics(t, func() { mux.Handle("k", func(context.Context, queue.Job) error { return nil }) })
	assert.Panics(t, func() { mux.Handle("", func(context.Context, queue.Job) error { return nil }) })
	assert.Panics(t, func() { mux.Handle("x", nil) })
}

// An empty queue holds nothing but keys that end by themselves.
func TestEmptyQueueHoldsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		for i := range 1000 {
			enqueue(t, q, queue.Job{Kind: "k", Group: strconv.Itoa(i % 7), Key: strconv.Itoa(i), DedupeKey: strconv.Itoa(i)})
		}
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error { return nil }), queue.WorkerConfig{})
		synctest.Wait()
		stop()
		time.Sleep(49 * time.Hour)
		for range 10 { // old keys go 128 at a time
			enqueue(t, q, queue.Job{Kind: "k"})
		}
		claimAll := claim(t, b, 1, 100)
		var settle []queue.Settlement
		for _, l := range claimAll.Jobs {
			settle = append(settle, queue.Settlement{Token: l.Token, Action: queue.Ack})
		}
		claim(t, b, 2, 1, settle...)
		assert.Zero(t, b.Size("default"))
	})
}
