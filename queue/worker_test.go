package queue_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/queue"
)

func newQueueWith(t *testing.T, b queue.Broker, cfg queue.Config) *queue.Queue {
	t.Helper()
	cfg.AllowVolatile = true
	q, err := queue.New(b, cfg)
	require.NoError(t, err)
	return q
}

func deadOf(t *testing.T, q *queue.Queue) []queue.DeadLetter {
	t.Helper()
	dead, err := q.Dead(t.Context(), queue.DeadFilter{Limit: 1000})
	require.NoError(t, err)
	return dead
}

type drained struct {
	after time.Duration
	group bool
}

func (d drained) Error() string             { return "quota is drained" }
func (d drained) RetryAfter() time.Duration { return d.after }
func (d drained) ParkGroup() bool           { return d.group }

// An error whose ParkGroup says true holds its whole group, and nobody else.
func TestParkGroupHoldsTheWholeGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		start := time.Now()
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			assert.Zero(t, job.Attempts)
			if time.Since(start) < time.Minute && job.Group == "drained" {
				return fmt.Errorf("shopify: %w", drained{time.Minute, true})
			}
			j.add("%s%s %v", job.Group, job.Key, time.Since(start))
			return nil
		}), queue.WorkerConfig{Concurrency: 1})
		for _, k := range []string{"1", "2", "3"} {
			enqueue(t, q, queue.Job{Kind: "k", Group: "drained", Key: k}, queue.Job{Kind: "k", Group: "other", Key: k})
		}
		time.Sleep(time.Second)
		assert.Equal(t, []string{"other1 0s", "other2 0s", "other3 0s"}, j.all(), "one job of the drained group was tried, not three")
		stats, err := q.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 1, stats.Parked)
		time.Sleep(time.Hour)
		stop()
		assert.Len(t, j.all(), 6)
	})
}

func TestBackoffs(t *testing.T) {
	t.Parallel()
	backoff := queue.Exponential(2*time.Second, 6*time.Hour)
	mean := func(n int) time.Duration {
		sum := time.Duration(0)
		for range 2000 {
			d := backoff(n)
			bound := min(6*time.Hour, time.Second<<min(n, 20))
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, bound+1)
			sum += d
		}
		return sum / 2000
	}
	total := time.Duration(0)
	for n := 1; n < 30; n++ {
		m := mean(n)
		bound := min(6*time.Hour, time.Second<<min(n, 20))
		assert.InEpsilon(t, float64(bound)/2, float64(m), 0.1, "after failure %d: full jitter", n)
		total += m
	}
	assert.InDelta(t, 48, total.Hours(), 3, "30 attempts take about 48 h")

	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		start := time.Now()
		fails := func(_ context.Context, job queue.Job) error {
			j.add("%s %v", job.Kind, time.Since(start))
			return errors.New("boom")
		}
		mux := muxOf("slow", fails)
		mux.Handle("quick", fails)
		stop := work(t, q, mux, queue.WorkerConfig{
			Backoff:  func(n int) time.Duration { return time.Duration(n) * time.Hour },
			Backoffs: map[string]queue.Backoff{"quick": func(int) time.Duration { return time.Minute }},
		})
		enqueue(t, q, queue.Job{Kind: "slow", MaxAttempts: 3}, queue.Job{Kind: "quick", MaxAttempts: 3})
		time.Sleep(24 * time.Hour)
		stop()
		assert.ElementsMatch(t, []string{"slow 0s", "slow 1h0m0s", "slow 3h0m0s", "quick 0s", "quick 1m0s", "quick 2m0s"}, j.all())
	})
}

func TestHandlerTimeoutIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		mux := muxOf("listens", func(ctx context.Context, _ queue.Job) error {
			_, limited := ctx.Deadline()
			assert.True(t, limited)
			<-ctx.Done()
			assert.Equal(t, queue.ErrTimeout, context.Cause(ctx))
			return ctx.Err()
		})
		mux.Handle("patient", func(context.Context, queue.Job) error { time.Sleep(time.Hour); return nil })
		stop := work(t, q, mux, queue.WorkerConfig{Timeout: time.Minute, Timeouts: map[string]time.Duration{"patient": 2 * time.Hour}})
		enqueue(t, q, queue.Job{Kind: "listens", MaxAttempts: 1}, queue.Job{Kind: "patient", MaxAttempts: 1})
		time.Sleep(3 * time.Hour)
		stop()
		dead := deadOf(t, q)
		require.Len(t, dead, 1)
		assert.Equal(t, "queue: handler timed out: context deadline exceeded", dead[0].Error)
		require.Len(t, dead[0].Job.History, 1)
	})
}

// TRAPS: handler_that_ignores_cancellation_frees_its_slot_and_every_later_write_of_it_is_fenced
func TestHandlerThatIgnoresCancellationFreesItsSlotAndEveryLaterWriteOfItIsFenced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var zombies atomic.Int64
		b := new(queue.Memory)
		q := newQueueWith(t, b, queue.Config{Hooks: queue.Hooks{Zombie: func(context.Context, queue.Job) { zombies.Add(1) }}})
		release := make(chan struct{})
		var j journal
		late := make(chan error, 1)
		mux := muxOf("deaf", func(ctx context.Context, job queue.Job) error {
			if job.Attempts == 0 {
				<-release
				late <- queue.ReportProgress(ctx, 99, "late")
				require.ErrorIs(t, queue.SetResult(ctx, []byte("late")), queue.ErrLeaseLost)
				_, err := q.EnqueueOnAck(ctx, queue.Job{Kind: "next"})
				require.ErrorIs(t, err, queue.ErrLeaseLost)
				return nil // an Ack that must not count
			}
			j.add("second run")
			return queue.Permanent(errors.New("boom"))
		})
		mux.Handle("next", func(context.Context, queue.Job) error { j.add("next"); return nil })
		stop := work(t, q, mux, queue.WorkerConfig{Concurrency: 1, Timeouts: map[string]time.Duration{"deaf": time.Minute}})
		id := enqueue(t, q, queue.Job{Kind: "deaf", Key: "a", Track: true})[0].ID
		time.Sleep(30 * time.Second)
		enqueue(t, q, queue.Job{Kind: "next", Key: "b"})
		synctest.Wait()
		assert.Empty(t, j.all(), "the only slot is taken")
		time.Sleep(35 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"next"}, j.all(), "the slot is free again")
		assert.Equal(t, int64(1), zombies.Load())
		assert.Equal(t, 1, q.Zombies())
		require.NoError(t, q.Health(t.Context()))
		time.Sleep(time.Hour)
		close(release)
		require.ErrorIs(t, <-late, queue.ErrLeaseLost)
		synctest.Wait()
		assert.Zero(t, q.Zombies())
		stop()
		assert.Equal(t, []string{"next", "second run"}, j.all(), "what the first run enqueued late does not count")
		st, err := q.Status(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, queue.Dead, st.State)
		assert.Equal(t, "boom", st.Error)
		assert.Empty(t, st.Result)
	})
}

// Zombies do not multiply without end: as many as there are slots lose theirs; more keep them, and Health says so.
func TestZombiesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		release := make(chan struct{})
		var running, peak atomic.Int64
		stop := work(t, q, muxOf("deaf", func(context.Context, queue.Job) error {
			peak.Store(max(peak.Load(), running.Add(1)))
			defer running.Add(-1)
			<-release
			return nil
		}), queue.WorkerConfig{Concurrency: 3, Timeout: time.Minute, Backoff: func(int) time.Duration { return time.Minute }})
		for i := range 10 {
			enqueue(t, q, queue.Job{Kind: "deaf", Key: strconv.Itoa(i), MaxAttempts: 1000})
		}
		time.Sleep(24 * time.Hour)
		assert.Equal(t, int64(6), peak.Load())
		err := q.Health(t.Context())
		require.ErrorContains(t, err, "a worker is stuck: 6 handlers ignore the end of their context")
		close(release)
		time.Sleep(time.Hour)
		require.NoError(t, q.Health(t.Context()))
		stop()
		stats, err := q.Stats(t.Context())
		require.NoError(t, err)
		assert.Zero(t, stats.Jobs+stats.Dead, "in the end each ran")
	})
}

func TestCancelledJobsHandlerIsToldAndAnAckStillCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		finish := make(chan struct{})
		told := make(chan error, 2)
		stop := work(t, q, muxOf("k", func(ctx context.Context, job queue.Job) error {
			<-ctx.Done()
			told <- context.Cause(ctx)
			if job.Key == "acks" {
				<-finish
				return nil
			}
			return ctx.Err()
		}), queue.WorkerConfig{})
		r := enqueue(t, q, queue.Job{Kind: "k", Key: "acks", Track: true}, queue.Job{Kind: "k", Key: "stops", Track: true}, queue.Job{Kind: "k", Key: "stops", Track: true},
			queue.Job{Kind: "k", Key: "later", Track: true, Delay: time.Hour}, queue.Job{Kind: "k", Key: "not tracked"})
		synctest.Wait()
		for i, want := range []queue.State{queue.Processing, queue.Processing, queue.Cancelled, queue.Cancelled} {
			state, err := q.Cancel(t.Context(), r[i].ID)
			require.NoError(t, err)
			assert.Equal(t, want, state, i)
		}
		_, err := q.Cancel(t.Context(), r[4].ID)
		require.ErrorIs(t, err, queue.ErrUnknownJob)
		start := time.Now()
		require.ErrorIs(t, <-told, queue.ErrCancelled)
		require.ErrorIs(t, <-told, queue.ErrCancelled)
		assert.LessOrEqual(t, time.Since(start), 10*time.Second, "the next heartbeat")
		close(finish)
		synctest.Wait()
		for i, want := range []queue.State{queue.Succeeded, queue.Cancelled, queue.Cancelled, queue.Cancelled} {
			st, err := q.Status(t.Context(), r[i].ID)
			require.NoError(t, err)
			assert.Equal(t, want, st.State, i)
			again, err := q.Cancel(t.Context(), r[i].ID)
			require.NoError(t, err)
			assert.Equal(t, want, again, "what has ended stays as it is")
		}
		stop()
	})
}

// TRAPS: cancel_and_pause_hold_even_if_their_hint_message_is_lost. They are the engine's state: no hint carries them.
func TestCancelAndPauseHoldEvenIfTheirHintMessageIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		b.mute.Store(true)
		q := newQueue(t, b)
		var j journal
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error { j.add("%s", job.Key); return nil }), queue.WorkerConfig{})
		require.NoError(t, q.Pause(t.Context()))
		r := enqueue(t, q, queue.Job{Kind: "k", Key: "cancelled", Track: true}, queue.Job{Kind: "k", Key: "paused"})
		_, err := q.Cancel(t.Context(), r[0].ID)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		assert.Empty(t, j.all())
		require.NoError(t, q.Resume(t.Context()))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		stop()
		assert.Equal(t, []string{"paused"}, j.all())
	})
}

func TestProgressAndResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		step := make(chan struct{})
		stop := work(t, q, muxOf("k", func(ctx context.Context, job queue.Job) error {
			if !job.Track {
				return errors.Join(queue.ReportProgress(ctx, 1, ""), queue.SetResult(ctx, []byte("nobody asks")))
			}
			for i := range 10_000 {
				if err := queue.ReportProgress(ctx, i/100, "row "+strconv.Itoa(i)); err != nil {
					return err
				}
			}
			require.NoError(t, queue.ReportProgress(ctx, 3, "back"))
			<-step
			require.ErrorContains(t, queue.ReportProgress(ctx, 101, ""), "101 percent; want 0 to 100")
			err := queue.SetResult(ctx, make([]byte, 64<<10+1))
			require.ErrorIs(t, err, queue.ErrResultTooLarge)
			require.NoError(t, queue.ReportProgress(ctx, 99, strings.Repeat("é", 2000)))
			return queue.SetResult(ctx, []byte(`{"rows":10000}`))
		}), queue.WorkerConfig{})
		id := enqueue(t, q, queue.Job{Kind: "k", Track: true, Key: "a"})[0].ID
		time.Sleep(time.Second)
		st, err := q.Status(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, queue.Processing, st.State)
		assert.Equal(t, 99, st.Percent)
		assert.Equal(t, "row 9999", st.Note)
		assert.LessOrEqual(t, b.beats.Load(), int64(11), "10,000 reports are not 10,000 calls")
		close(step)
		synctest.Wait()
		st, err = q.Status(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, queue.Succeeded, st.State)
		assert.Equal(t, 100, st.Percent)
		assert.JSONEq(t, `{"rows":10000}`, string(st.Result))
		assert.Equal(t, strings.Repeat("é", 512), st.Note, "at most 1 KiB, whole characters")
		enqueue(t, q, queue.Job{Kind: "k"})
		synctest.Wait()
		stop()
		assert.Empty(t, deadOf(t, q))
		assert.Zero(t, b.Leased("default"))
	})
	require.ErrorIs(t, queue.ReportProgress(t.Context(), 1, ""), queue.ErrNoJob)
	require.ErrorIs(t, queue.SetResult(t.Context(), nil), queue.ErrNoJob)
	_, ok := queue.JobFrom(t.Context())
	assert.False(t, ok)
}

func TestEnqueueOnAck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		var enqueued journal
		q := newQueueWith(t, b, queue.Config{Hooks: queue.Hooks{Enqueued: func(_ context.Context, job queue.Job, _ queue.Receipt) { enqueued.add("%s", job.Kind) }}})
		mails := newQueueWith(t, b, queue.Config{Name: "mails"})
		elsewhere := newQueue(t, new(queue.Memory))
		var j journal
		mux := muxOf("order", func(ctx context.Context, job queue.Job) error {
			_, err := q.EnqueueOnAck(ctx, queue.Job{Kind: "ship", Group: "shop", Key: job.Key, Payload: []byte("parcel")})
			require.NoError(t, err)
			ids, err := mails.EnqueueOnAck(ctx, queue.Job{Kind: "mail", Group: "shop"})
			require.NoError(t, err)
			assert.Len(t, ids[0], 26)
			_, err = q.EnqueueOnAck(ctx, queue.Job{Kind: "ship", Group: "other shop"})
			require.ErrorContains(t, err, `Job.Group is "other shop"`)
			_, err = elsewhere.EnqueueOnAck(ctx, queue.Job{Kind: "ship", Group: "shop"})
			require.ErrorContains(t, err, "different brokers")
			_, err = q.EnqueueOnAck(ctx, queue.Job{Group: "shop"})
			require.ErrorContains(t, err, "Kind is empty")
			from, ok := queue.JobFrom(ctx)
			assert.True(t, ok)
			assert.Equal(t, job.ID, from.ID)
			if job.Attempts < 2 {
				return errors.New("not yet") // and so none of that
			}
			return nil
		})
		mux.Handle("ship", func(_ context.Context, job queue.Job) error { j.add("ship %s", job.Payload); return nil })
		stop := work(t, q, mux, queue.WorkerConfig{})
		stopMails := work(t, mails, muxOf("mail", func(context.Context, queue.Job) error { j.add("mail"); return nil }), queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "order", Group: "shop", Key: "1"})
		time.Sleep(time.Hour)
		stop()
		stopMails()
		assert.ElementsMatch(t, []string{"ship parcel", "mail"}, j.all(), "once, when the job was done")
		assert.Equal(t, []string{"order", "ship", "mail"}, enqueued.all())
		_, err := q.EnqueueOnAck(t.Context(), queue.Job{Kind: "ship"})
		require.ErrorIs(t, err, queue.ErrNoJob)
	})
}

func TestHooksTellWhatHappens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		q := newQueueWith(t, new(queue.Memory), queue.Config{MaxDead: 1, Hooks: queue.Hooks{
			Enqueued: func(_ context.Context, job queue.Job, r queue.Receipt) {
				j.add("enqueued %s %v", job.Kind, r.Duplicate)
			},
			Started: func(_ context.Context, job queue.Job) {
				j.add("started %s %d", job.Kind, job.Attempts)
				panic("a hook's own trouble")
			},
			Ended: func(_ context.Context, job queue.Job, err error, took time.Duration) {
				j.add("ended %s %v %v", job.Kind, err, took)
			},
			Retried: func(_ context.Context, job queue.Job, err error, after time.Duration) {
				j.add("retried %s %v %v", job.Kind, err, after)
			},
			Died: func(_ context.Context, d queue.DeadLetter) {
				j.add("died %s %s %d", d.Job.Kind, d.Error, len(d.Job.Payload))
			},
			Trimmed: func(_ context.Context, d queue.DeadLetter) { j.add("trimmed %s %s", d.Job.Kind, d.Job.Payload) },
		}})
		mux := muxOf("fails", func(context.Context, queue.Job) error { time.Sleep(time.Second); return errors.New("boom") })
		mux.Handle("late", func(context.Context, queue.Job) error { return nil })
		job := queue.Job{Kind: "fails", MaxAttempts: 2, DedupeKey: "d", Payload: []byte("body")}
		enqueue(t, q, job, job) // before there is a worker, which may start it before Enqueue returns and its hook is told
		stop := work(t, q, mux, queue.WorkerConfig{Backoff: func(int) time.Duration { return time.Minute }})
		time.Sleep(time.Hour)
		assert.Equal(t, []string{
			"enqueued fails false", "enqueued fails true", "started fails 0", "ended fails boom 1s", "retried fails boom 1m0s",
			"started fails 1", "ended fails boom 1s", "died fails boom 0",
		}, j.all())
		_, err := q.Bury(t.Context(), queue.Job{Kind: "late", DedupeKey: "x"}, errors.New("too large"))
		require.NoError(t, err)
		enqueue(t, q, queue.Job{Kind: "late", Deadline: time.Nanosecond, Delay: time.Minute})
		require.NoError(t, q.Pause(t.Context()))
		time.Sleep(time.Hour)
		require.NoError(t, q.Resume(t.Context()))
		time.Sleep(time.Hour)
		stop()
		assert.Equal(t, []string{"enqueued late false", "died late too large 0", "enqueued late false", "died late deadline 0", "trimmed fails body", "trimmed late "}, j.all()[8:])
		assert.Equal(t, int64(2), q.Trimmed())
		dead := deadOf(t, q)
		require.Len(t, dead, 1)
		assert.Equal(t, "deadline", dead[0].Error)
	})
}

// TRAPS: finished_jobs_leave_nothing_behind_unless_asked, status_hashes_expire,
// dead_letters_are_bounded_only_by_what_the_user_set
func TestFinishedJobsLeaveNothingBehindUnlessAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			if job.Key == "dies" {
				return queue.Permanent(errors.New("boom"))
			}
			return nil
		}), queue.WorkerConfig{})
		for i := range 12_000 {
			enqueue(t, q, queue.Job{Kind: "k", Track: i%2 == 0, StatusFor: time.Hour}, queue.Job{Kind: "k", Key: "dies"})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		stats, err := q.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 12_000, stats.Dead, "no bound was set")
		assert.Zero(t, stats.Jobs)
		n, err := q.Drop(t.Context(), queue.DeadFilter{})
		require.NoError(t, err)
		assert.Equal(t, 12_000, n)
		time.Sleep(2 * time.Hour) // the idle worker's looks let the statuses end
		stop()
		assert.Zero(t, b.Size("default"))
	})
}

func TestReplayByFilterReplaysEachOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var runs sync.Map
		fixed := atomic.Bool{}
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			n, _ := runs.LoadOrStore(job.ID, new(atomic.Int64))
			n.(*atomic.Int64).Add(1) //nolint:forcetypeassert // stored above
			if fixed.Load() && job.Group == "mended" {
				return nil
			}
			return queue.Permanent(fmt.Errorf("%s is broken", job.Group))
		}), queue.WorkerConfig{})
		for range 500 {
			enqueue(t, q, queue.Job{Kind: "k", Group: "mended"}, queue.Job{Kind: "k", Group: "hopeless"})
		}
		time.Sleep(time.Second)
		fixed.Store(true)
		n, err := q.Replay(t.Context(), queue.DeadFilter{Error: "mended is"})
		require.NoError(t, err)
		assert.Equal(t, 500, n)
		time.Sleep(time.Second)
		assert.Len(t, deadOf(t, q), 500)
		// These die again at once; the call must end all the same, and run each once.
		n, err = q.Replay(t.Context(), queue.DeadFilter{})
		require.NoError(t, err)
		assert.Equal(t, 500, n)
		time.Sleep(time.Second)
		stop()
		dead := deadOf(t, q)
		assert.Len(t, dead, 500)
		assert.Len(t, dead[0].Job.History, 2)
		runs.Range(func(_, n any) bool {
			return assert.Equal(t, int64(2), n.(*atomic.Int64).Load()) //nolint:forcetypeassert // stored above
		})
	})
}

func TestRatesSnoozeInsteadOfHoldingASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		var limited, free atomic.Int64
		var last atomic.Int64
		start := time.Now()
		mux := muxOf("limited", func(_ context.Context, job queue.Job) error {
			assert.Zero(t, job.Attempts)
			limited.Add(1)
			last.Store(int64(time.Since(start)))
			return nil
		})
		mux.Handle("free", func(context.Context, queue.Job) error { free.Add(1); return nil })
		stop := work(t, q, mux, queue.WorkerConfig{Concurrency: 4, Rates: map[string]*rate.Limiter{"limited": rate.NewLimiter(10, 5)}})
		for i := range 600 {
			enqueue(t, q, queue.Job{Kind: "limited", Key: "l" + strconv.Itoa(i)})
		}
		enqueue(t, q, queue.Job{Kind: "free"})
		synctest.Wait()
		assert.Equal(t, int64(1), free.Load(), "no slot waits")
		assert.Equal(t, int64(5), limited.Load(), "the burst")
		time.Sleep(30 * time.Second)
		assert.InDelta(t, 305, limited.Load(), 20)
		time.Sleep(60 * time.Second)
		assert.Equal(t, int64(600), limited.Load())
		assert.Less(t, time.Duration(last.Load()), 75*time.Second, "the rate is used")
		assert.Less(t, b.leases.Load(), int64(601*3), "few are claimed in vain")
		stop()
	})
}

func TestMiddlewareWrapsAllHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		wrap := func(name string) func(queue.Handler) queue.Handler {
			return func(next queue.Handler) queue.Handler {
				return func(ctx context.Context, job queue.Job) error {
					j.add("%s before %s", name, job.Kind)
					defer j.add("%s after", name)
					return next(ctx, job)
				}
			}
		}
		mux := muxOf("a", func(context.Context, queue.Job) error { j.add("a"); return nil })
		mux.Use(wrap("outer"), wrap("inner"))
		mux.Handle("b", func(context.Context, queue.Job) error { j.add("b"); return nil })
		stop := work(t, q, mux, queue.WorkerConfig{Concurrency: 1})
		enqueue(t, q, queue.Job{Kind: "a"}, queue.Job{Kind: "b"})
		synctest.Wait()
		stop()
		assert.Equal(t, []string{"outer before a", "inner before a", "a", "inner after", "outer after", "outer before b", "inner before b", "b", "inner after", "outer after"}, j.all())
	})
}

// TRAPS: second_signal_stops_at_once
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		second := make(chan struct{})
		release := make(chan struct{})
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error { <-release; return nil }), queue.WorkerConfig{Drain: time.Hour, GiveBack: second})
		enqueue(t, q, queue.Job{Kind: "k", Key: "a"})
		synctest.Wait()
		start := time.Now()
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		time.Sleep(time.Minute)
		close(second)
		<-stopped
		assert.Equal(t, time.Minute+time.Second, time.Since(start), "a second for those that listen to their context")
		c := claim(t, b, 1, 1)
		require.Len(t, c.Jobs, 1, "given back")
		assert.Zero(t, c.Jobs[0].Job.Attempts+c.Jobs[0].Job.Crashes)
		close(release)
	})
}

// TRAPS: clock_of_a_worker_an_hour_off_changes_nothing. No time of a worker's clock reaches an engine: what it is
// told are durations. The one absolute time, NotBefore, is the user's.
func TestClockOfAWorkerAnHourOffChangesNothing(t *testing.T) {
	t.Parallel()
	var times func(t reflect.Type, path string) []string
	times = func(typ reflect.Type, path string) (found []string) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			return times(typ.Elem(), path)
		case reflect.Struct:
			if typ == reflect.TypeFor[time.Time]() {
				return []string{path}
			}
			for field := range typ.Fields() {
				found = append(found, times(field.Type, path+"."+field.Name)...)
			}
		default:
		}
		return found
	}
	assert.Empty(t, times(reflect.TypeFor[queue.Heartbeat](), ""))
	set := []string{".Jobs.Job.NotBefore", ".Jobs.Job.Since", ".Jobs.Job.History.At"}
	assert.Equal(t, set, times(reflect.TypeFor[queue.Batch](), ""))
	for i := range set {
		set[i] = strings.Replace(set[i], ".Jobs", ".Settle.Enqueue", 1)
	}
	assert.Equal(t, set, times(reflect.TypeFor[queue.Call](), ""))
	// And of those, Since and History are not a client's to say.
	b := &recorder{Memory: new(queue.Memory)}
	enqueue(t, newQueue(t, b), queue.Job{Kind: "k", Since: time.Now(), History: []queue.Attempt{{}}, Attempts: 3, Crashes: 3})
	job := b.batches[0].Jobs[0].Job
	assert.True(t, job.Since.IsZero())
	assert.Empty(t, job.History)
	assert.Zero(t, job.Attempts+job.Crashes)
}

type recorder struct {
	*queue.Memory
	batches []queue.Batch
}

func (r *recorder) Enqueue(ctx context.Context, name string, b queue.Batch) ([]queue.Receipt, error) {
	r.batches = append(r.batches, b)
	return r.Memory.Enqueue(ctx, name, b)
}

// halfDead is a broker of which one partition does not answer.
type halfDead struct {
	*queue.Memory
	dead int
	on   atomic.Bool
}

func (h *halfDead) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	if h.on.Load() && call.Partition == h.dead {
		<-ctx.Done()
		return queue.Claimed{}, ctx.Err()
	}
	return h.Memory.Claim(ctx, name, call)
}

func (h *halfDead) Extend(ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
	if h.on.Load() && beat.Partition == h.dead {
		<-ctx.Done()
		return queue.Extended{}, ctx.Err()
	}
	return h.Memory.Extend(ctx, name, beat)
}

func (h *halfDead) Enqueue(ctx context.Context, name string, b queue.Batch) ([]queue.Receipt, error) {
	if !h.on.Load() {
		return h.Memory.Enqueue(ctx, name, b)
	}
	var receipts []queue.Receipt
	var problem error
	for _, e := range b.Jobs {
		if e.Job.Group == "unlucky" {
			receipts, problem = append(receipts, queue.Receipt{}), errAway
			continue
		}
		r, err := h.Memory.Enqueue(ctx, name, queue.Batch{ID: b.ID + e.Job.ID, Jobs: []queue.Entry{e}})
		if err != nil {
			return nil, err
		}
		receipts = append(receipts, r...)
	}
	return receipts, problem
}

// A partition that does not answer costs the others neither slots nor leases; and bulk_enqueue_across_cluster_slots_reports_each_job
// (TRAPS).
func TestOneDeadPartitionHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &halfDead{Memory: &queue.Memory{Partitions: 4}, dead: 2}
		q := newQueue(t, b)
		var ran atomic.Int64
		long := make(chan struct{})
		mux := muxOf("k", func(context.Context, queue.Job) error { ran.Add(1); time.Sleep(time.Second); return nil })
		mux.Handle("long", func(context.Context, queue.Job) error { <-long; return nil })
		stop := work(t, q, mux, queue.WorkerConfig{Concurrency: 8})
		enqueue(t, q, queue.Job{Kind: "long", Group: "0"}, queue.Job{Kind: "long", Group: "1"}, queue.Job{Kind: "long", Group: "2"}, queue.Job{Kind: "long", Group: "3"})
		time.Sleep(time.Second)
		b.on.Store(true)
		for i := range 400 {
			enqueue(t, q, queue.Job{Kind: "k", Group: strconv.Itoa(i), Key: "k"})
		}
		time.Sleep(10 * time.Minute)
		stats, err := q.Stats(t.Context())
		require.NoError(t, err)
		assert.Greater(t, ran.Load(), int64(250), "three of four partitions were worked off")
		assert.Equal(t, 404-int(ran.Load()), stats.Jobs)
		err = q.Health(shortly(t))
		require.ErrorContains(t, err, "partition 2 of the memory broker does not answer")
		assert.NotContains(t, err.Error(), "partition 1")

		r, err := q.Enqueue(t.Context(), queue.Job{Kind: "k", Group: "lucky"}, queue.Job{Kind: "k", Group: "unlucky"})
		require.ErrorIs(t, err, errAway)
		require.Len(t, r, 2)
		assert.NotEmpty(t, r[0].ID)
		assert.Empty(t, r[1].ID)

		b.on.Store(false)
		time.Sleep(2 * time.Minute)
		close(long)
		time.Sleep(time.Minute)
		stop()
		assert.Equal(t, int64(401), ran.Load())
		stats, err = q.Stats(t.Context())
		require.NoError(t, err)
		assert.Zero(t, stats.Jobs)
		assert.Empty(t, deadOf(t, q))
	})
}

func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestHealthSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := &deafBroker{Memory: new(queue.Memory)}
	q := newQueue(t, b)
	require.NoError(t, q.Health(t.Context()))
	b.away.Store(true)
	err := q.Health(t.Context())
	require.ErrorIs(t, err, errAway)
	require.ErrorContains(t, err, "partition 0 of the memory broker does not answer")
}

// Goroutines and timers do not grow with shops.
func TestGoroutinesDoNotGrowWithShops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var ran atomic.Int64
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			ran.Add(1)
			if job.Attempts == 0 {
				return errors.New("each waits for a second try")
			}
			return nil
		}), queue.WorkerConfig{Backoff: func(int) time.Duration { return time.Hour }})
		synctest.Wait()
		before := stackLines(t)
		const shops = 10_000
		for i := range shops {
			enqueue(t, q, queue.Job{Kind: "k", Group: strconv.Itoa(i), Key: "a"}, queue.Job{Kind: "k", Group: strconv.Itoa(i), Key: "b", Delay: 30 * time.Minute})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, int64(shops), ran.Load())
		assert.LessOrEqual(t, stackLines(t), before+64+2, "goroutines of package queue: those of the slots")
		time.Sleep(3 * time.Hour)
		stop()
		assert.Equal(t, int64(4*shops), ran.Load())
	})
}

// stackLines counts the goroutines that are in this test's worker.
func stackLines(t *testing.T) int {
	t.Helper()
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	mine := ""
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "TestGoroutinesDoNotGrowWithShops") && strings.Contains(g, "synctest bubble ") {
			_, mine, _ = strings.Cut(g, "synctest bubble ")
			mine, _, _ = strings.Cut(mine, "]")
			break
		}
	}
	require.NotEmpty(t, mine)
	n := 0
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "synctest bubble "+mine+"]") && strings.Contains(g, "breakwater/queue.(*") {
			n++
		}
	}
	return n
}
