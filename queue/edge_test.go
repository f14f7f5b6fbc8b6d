package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

// Values at the ends of their types mean what they say.
func TestExtremesMeanWhatTheySay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			j.add("%s %d", job.Key, job.Attempts)
			if job.Key == "tries" && job.Attempts < 2 {
				return errors.New("boom")
			}
			time.Sleep(time.Second)
			return nil
		}), queue.WorkerConfig{Timeout: math.MaxInt64, Backoff: func(int) time.Duration { return time.Minute }})
		enqueue(t, q,
			queue.Job{Kind: "k", Key: "lives", Deadline: math.MaxInt64, StatusFor: math.MaxInt64, DedupeFor: math.MaxInt64, DedupeKey: "d", Track: true},
			queue.Job{Kind: "k", Key: "tries", MaxAttempts: math.MaxInt, MaxCrashes: math.MaxInt},
			queue.Job{Kind: "k", Key: "never", NotBefore: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
			queue.Job{Kind: "k", Key: "long ago", NotBefore: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)},
			queue.Job{Kind: "k", Key: "never, too", Delay: math.MaxInt64})
		time.Sleep(100 * time.Hour)
		stop()
		assert.ElementsMatch(t, []string{"lives 0", "tries 0", "tries 1", "tries 2", "long ago 0"}, j.all())
		stats, err := q.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 2, stats.Scheduled)
		assert.Zero(t, stats.Dead)
		assert.Zero(t, q.Zombies())
	})
}

func TestSettingsThatCantBeAreRefused(t *testing.T) {
	t.Parallel()
	q := newQueue(t, new(queue.Memory))
	nothing := muxOf("k", func(context.Context, queue.Job) error { return nil })
	for want, cfg := range map[string]queue.WorkerConfig{
		"Lease is 1ns":       {Lease: 1},
		"Concurrency is 9":   {Concurrency: math.MaxInt},
		"UnknownFor is -1ns": {UnknownFor: -1},
		"Timeout is -1ns":    {Timeout: -1},
		"Timeouts of k":      {Timeouts: map[string]time.Duration{"k": -1}},
	} {
		require.ErrorContains(t, q.Run(t.Context(), nothing, cfg), want)
	}
	nothing.Use(func(queue.Handler) queue.Handler { return nil })
	require.ErrorContains(t, q.Run(t.Context(), nothing, queue.WorkerConfig{}), "made nil of the handler of k")
	for want, codecs := range map[string][]queue.Codec{"Codecs[0] is nil": {nil}, "Codecs[1] is nil or has no name": {queue.Plain(), queue.Chain()}} {
		_, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true, Codecs: codecs})
		require.ErrorContains(t, err, want)
	}
	for want, cfg := range map[string]queue.Config{"BulkEvery is -1": {BulkEvery: -1}, "MaxDead is -1": {MaxDead: -1}} {
		_, err := queue.New(new(queue.Memory), cfg)
		require.ErrorContains(t, err, want)
	}
}

// noOperator is a broker and nothing more.
type noOperator struct{ queue.Broker }

func TestBrokerThatIsNoOperator(t *testing.T) {
	t.Parallel()
	b := noOperator{new(queue.Memory)}
	_, err := queue.New(b, queue.Config{AllowVolatile: true, MaxDead: 1})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	q := newQueue(t, b)
	ctx := t.Context()
	_, jobs := q.Jobs(ctx, queue.JobFilter{})
	_, dead := q.Dead(ctx, queue.DeadFilter{})
	_, replay := q.Replay(ctx, queue.DeadFilter{})
	_, status := q.Status(ctx, "x")
	_, cancel := q.Cancel(ctx, "x")
	_, purge := q.Purge(ctx, queue.PurgeFilter{Group: "g"})
	for _, err := range []error{jobs, dead, replay, status, cancel, purge, q.Pause(ctx), q.Resume(ctx), q.Park(ctx, "g", 1), q.Limit(ctx, "g", queue.Limits{})} {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	op := newQueue(t, new(queue.Memory))
	_, err = op.Purge(ctx, queue.PurgeFilter{})
	require.ErrorContains(t, err, "names neither Group, Key nor Kind")
	require.ErrorContains(t, op.Park(ctx, "g", -1), "the time is -1ns")
	require.ErrorContains(t, op.Limit(ctx, "g", queue.Limits{Cap: -1}), "want 0 for the default")
	_, err = op.Dead(ctx, queue.DeadFilter{Limit: -1})
	require.ErrorContains(t, err, "Limit is -1")
}

// What a handler enqueues with its Ack is a copy.
func TestEnqueueOnAckKeepsNothingOfTheCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		got := make(chan string, 1)
		mux := muxOf("a", func(ctx context.Context, _ queue.Job) error {
			payload, headers := []byte("right"), map[string]string{"h": "right"}
			_, err := q.EnqueueOnAck(ctx, queue.Job{Kind: "b", Payload: payload, Headers: headers})
			copy(payload, "WRONG")
			headers["h"] = "WRONG"
			return err
		})
		mux.Handle("b", func(_ context.Context, job queue.Job) error {
			got <- string(job.Payload) + job.Headers["h"]
			return nil
		})
		stop := work(t, q, mux, queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "a"})
		assert.Equal(t, "rightright", <-got)
		stop()
	})
}

// What comes after the handler has returned does not count, and says so.
func TestWhatComesAfterTheHandlerSaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		contexts := make(chan context.Context, 1)
		stop := work(t, q, muxOf("k", func(ctx context.Context, _ queue.Job) error { contexts <- ctx; return nil }), queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "k", Track: true})
		ctx := <-contexts
		synctest.Wait()
		_, err := q.EnqueueOnAck(ctx, queue.Job{Kind: "k"})
		require.ErrorIs(t, err, queue.ErrNoJob)
		require.ErrorIs(t, queue.ReportProgress(ctx, 1, ""), queue.ErrNoJob)
		require.ErrorIs(t, queue.SetResult(ctx, nil), queue.ErrNoJob)
		stop()
	})
}

func TestBuryNeverRuns(t *testing.T) {
	t.Parallel()
	q := newQueue(t, new(queue.Memory))
	long := strings.Repeat("é", 40_000)
	for _, reason := range []error{errors.New(""), errors.New(strings.Repeat("\x80", 3000))} {
		_, err := q.Bury(t.Context(), queue.Job{Kind: "k", Key: long, DedupeKey: long + reason.Error(), Headers: map[string]string{long: ""}}, reason)
		require.NoError(t, err)
	}
	again, err := q.Bury(t.Context(), queue.Job{Kind: "k", DedupeKey: long}, errors.New("x"))
	require.NoError(t, err)
	assert.True(t, again.Duplicate, "a name that was shortened is still its own")
	_, err = q.Bury(t.Context(), queue.Job{Kind: "k"}, nil)
	require.ErrorContains(t, err, "there is no reason")
	dead := deadOf(t, q)
	require.Len(t, dead, 2)
	assert.Equal(t, "an error without a text", dead[0].Error)
	assert.NotEmpty(t, dead[1].Error)
	stats, err := q.Stats(t.Context())
	require.NoError(t, err)
	assert.Zero(t, stats.Jobs)
}

type panicCodec struct{ queue.Codec }

func (panicCodec) Decode(string, []byte) ([]byte, error) { panic("codec") }

type panicSchedule struct{ stuck bool }

func (s panicSchedule) Next(t time.Time) time.Time {
	if s.stuck {
		return t
	}
	panic("schedule")
}

// TRAPS: panic_and_goexit_in_a_handler_are_failed_attempts_and_the_worker_lives. So are those of everything else that the
// user brings along.
func TestPanicAndGoexitInTheUsersOtherCode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		q := newQueueWith(t, new(queue.Memory), queue.Config{Hooks: queue.Hooks{
			Started: func(context.Context, queue.Job) { panic("hook") },
			Ended:   func(context.Context, queue.Job, error, time.Duration) { ended.Add(1); runtime.Goexit() },
			Died:    func(context.Context, queue.DeadLetter) { runtime.Goexit() },
			Retried: func(context.Context, queue.Job, error, time.Duration) { runtime.Goexit() },
		}, Codecs: []queue.Codec{panicCodec{queue.Deflate()}}})
		var ran atomic.Int64
		mux := muxOf("k", func(context.Context, queue.Job) error { ran.Add(1); return errors.New("boom") })
		stop := work(t, q, mux, queue.WorkerConfig{Concurrency: 1, Periodic: []queue.Periodic{
			{Name: "panics", Schedule: panicSchedule{}, Job: queue.Job{Kind: "k"}}, {Name: "stuck", Schedule: panicSchedule{stuck: true}, Job: queue.Job{Kind: "k"}},
		}, Backoff: func(int) time.Duration { panic("backoff") }})
		enqueue(t, q, queue.Job{Kind: "k", Payload: []byte("x"), MaxAttempts: 2}, queue.Job{Kind: "k", MaxAttempts: 2}, queue.Job{Kind: "k", MaxAttempts: 2})
		time.Sleep(time.Hour)
		require.NoError(t, q.Health(t.Context()))
		stop()
		assert.Equal(t, int64(4), ran.Load())
		assert.Equal(t, int64(6), ended.Load())
		dead := deadOf(t, q)
		require.Len(t, dead, 3)
	})
}

// A Claim whose answer is lost while the worker stops leaves no lease behind.
func TestShutdownAfterALostReplyLeavesNoLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &loseReplies{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error { return nil }), queue.WorkerConfig{})
		synctest.Wait()
		b.losing.Store(true)
		enqueue(t, q, queue.Job{Kind: "k"}, queue.Job{Kind: "k"})
		synctest.Wait()
		require.Equal(t, 2, b.Leased("default"), "claimed, but nobody knows")
		go func() { time.Sleep(200 * time.Millisecond); b.losing.Store(false) }()
		stop()
		assert.Zero(t, b.Leased("default"))
		c := claim(t, b, 1, 5)
		require.Len(t, c.Jobs, 2)
		assert.Zero(t, c.Jobs[0].Job.Crashes)
	})
}

// loseReplies carries Claims out and loses their answers.
type loseReplies struct {
	*queue.Memory
	losing atomic.Bool
}

func (b *loseReplies) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	c, err := b.Memory.Claim(ctx, name, call)
	if b.losing.Load() && len(c.Jobs) > 0 {
		return queue.Claimed{}, errAway
	}
	return c, err
}

// A second signal does not wait for a broker that is away.
func TestGiveBackEndsTheDrainThoughTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		now := make(chan struct{})
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			if job.Key == "long" {
				time.Sleep(10 * time.Minute)
			} else {
				time.Sleep(time.Second)
			}
			return nil
		}), queue.WorkerConfig{Drain: time.Hour, GiveBack: now})
		enqueue(t, q, queue.Job{Kind: "k", Key: "long"}, queue.Job{Kind: "k", Key: "short"})
		synctest.Wait()
		b.away.Store(true)
		time.Sleep(2 * time.Second)
		start := time.Now()
		go func() { time.Sleep(10 * time.Second); close(now) }()
		stop()
		assert.Less(t, time.Since(start), 20*time.Second)
		time.Sleep(10 * time.Minute) // for the handler to end
	})
}

// With one slot and a partition that is away, the other partition is worked off all the same.
func TestDeadPartitionDoesNotKeepTheOnlySlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &halfDead{Memory: &queue.Memory{Partitions: 2}}
		b.on.Store(true)
		q := newQueue(t, b.Memory)
		for i := range 40 {
			enqueue(t, q, queue.Job{Kind: "k", Group: strconv.Itoa(i)})
		}
		var ran atomic.Int64
		stop := work(t, newQueue(t, b), muxOf("k", func(context.Context, queue.Job) error { ran.Add(1); return nil }), queue.WorkerConfig{Concurrency: 1})
		time.Sleep(2 * time.Minute)
		half := ran.Load()
		assert.Greater(t, half, int64(10))
		assert.Less(t, half, int64(40))
		b.on.Store(false)
		time.Sleep(time.Minute)
		stop()
		assert.Equal(t, int64(40), ran.Load())
	})
}

// A job that is done, but can't be settled for a while, is not taken over while its process lives.
func TestWhatIsDoneIsNotTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		var j journal
		mux := muxOf("k", func(_ context.Context, job queue.Job) error { j.add("%s %d", job.Key, job.Crashes); return nil })
		q := newQueue(t, b)
		enqueue(t, q, queue.Job{Kind: "k", Key: "a"})
		b.claimsFail.Store(2) // the second Claim of the process, which settles, and all that follow
		stop := work(t, q, mux, queue.WorkerConfig{})
		time.Sleep(time.Second)
		other := work(t, newQueue(t, b.Memory), mux, queue.WorkerConfig{})
		time.Sleep(5 * time.Minute)
		b.claimsFail.Store(0)
		time.Sleep(time.Minute)
		stop()
		other()
		assert.Equal(t, []string{"a 0"}, j.all())
	})
}

// P7: an error that says "in 292 years" does not keep a job, or its group, beyond its deadline.
func TestHugeRetryAfterEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error { return drained{math.MaxInt64, true} }), queue.WorkerConfig{})
		for i := range 3 {
			enqueue(t, q, queue.Job{Kind: "k", Group: "g", Key: strconv.Itoa(i)})
		}
		time.Sleep(73 * time.Hour)
		stop()
		assert.Len(t, deadOf(t, q), 3)
		stats, err := q.Stats(t.Context())
		require.NoError(t, err)
		assert.Zero(t, stats.Parked)
	})
}

// Dead letters of one lane are replayed in the order in which they were enqueued, however quickly they died.
func TestReplayKeepsTheOrderOfALane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		fixed := atomic.Bool{}
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			if !fixed.Load() {
				return queue.Permanent(errors.New("boom"))
			}
			j.add("%s", job.Payload)
			return nil
		}), queue.WorkerConfig{})
		var want []string
		for i := range 300 {
			want = append(want, fmt.Sprint(i))
			enqueue(t, q, queue.Job{Kind: "k", Key: "a", Payload: []byte(want[i])})
		}
		time.Sleep(time.Second)
		fixed.Store(true)
		n, err := q.Replay(t.Context(), queue.DeadFilter{})
		require.NoError(t, err)
		assert.Equal(t, 300, n)
		time.Sleep(time.Second)
		stop()
		assert.Equal(t, want, j.all())
	})
}

// A purge by key, as customers/redact asks for, leaves neither status nor result nor dedupe key.
func TestPurgeByKeyLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueue(t, b)
		stop := work(t, q, muxOf("k", func(ctx context.Context, _ queue.Job) error {
			return queue.SetResult(ctx, []byte("Jane Doe, 1 Main St"))
		}), queue.WorkerConfig{})
		job := queue.Job{Kind: "k", Group: "shop", Key: "order/1", Track: true, DedupeKey: "d"}
		id := enqueue(t, q, job)[0].ID
		other := enqueue(t, q, queue.Job{Kind: "k", Group: "shop", Key: "order/2", Track: true})[0].ID
		synctest.Wait()
		stop()
		_, err := q.Purge(t.Context(), queue.PurgeFilter{Group: "shop", Key: "order/1"})
		require.NoError(t, err)
		_, err = q.Status(t.Context(), id)
		require.ErrorIs(t, err, queue.ErrUnknownJob)
		_, err = q.Status(t.Context(), other)
		require.NoError(t, err)
		assert.False(t, enqueue(t, q, job)[0].Duplicate)
	})
}

func TestUnknownKindsWaitAsLongAsSet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		stop := work(t, q, muxOf("known", func(context.Context, queue.Job) error { return nil }), queue.WorkerConfig{UnknownFor: 3 * time.Hour})
		enqueue(t, q, queue.Job{Kind: "new"}, queue.Job{Kind: "new", Deadline: time.Hour})
		time.Sleep(2 * time.Hour)
		dead := deadOf(t, q)
		require.Len(t, dead, 1)
		assert.Equal(t, "deadline", dead[0].Error)
		time.Sleep(2 * time.Hour)
		stop()
		assert.Len(t, deadOf(t, q), 2)
	})
}

// A handler that was cancelled and ignores it is a zombie whose job waits as Backoff says.
func TestZombiesJobWaitsAsBackoffSays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		release := make(chan struct{})
		second := make(chan time.Time, 1)
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			if job.Attempts == 0 {
				<-release
				return nil
			}
			second <- time.Now()
			return nil
		}), queue.WorkerConfig{Timeout: time.Minute, Backoff: func(int) time.Duration { return 5 * time.Hour }})
		start := time.Now()
		enqueue(t, q, queue.Job{Kind: "k", Key: "a"})
		assert.Equal(t, 5*time.Hour+65*time.Second, (<-second).Sub(start))
		stop()
		assert.Equal(t, 1, q.Zombies(), "it still runs, though its worker has stopped")
		close(release)
		synctest.Wait()
		assert.Zero(t, q.Zombies())
	})
}

// To ask for a queue that is not there does not make it.
func TestLookingAtAnUnknownQueueKeepsNothing(t *testing.T) {
	t.Parallel()
	b := new(queue.Memory)
	for i := range 100 {
		name := strconv.Itoa(i)
		stats, err := b.Stats(t.Context(), name)
		require.NoError(t, err)
		assert.Zero(t, stats.Jobs)
		_, err = b.Jobs(t.Context(), name, queue.JobFilter{})
		require.NoError(t, err)
		_, err = b.Purge(t.Context(), name, queue.PurgeFilter{Group: "g"})
		require.NoError(t, err)
		_, err = b.Cancel(t.Context(), name, "x")
		require.ErrorIs(t, err, queue.ErrUnknownJob)
	}
	assert.Zero(t, b.Queued())
}
