package redisqueue_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/brokertest"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

var spaces atomic.Int64

// timed is a broker whose clock can be put forward.
type timed struct {
	*redisqueue.Broker
	t      testing.TB
	client redis.UniversalClient
	space  string
}

func newTimed(t testing.TB, client redis.UniversalClient, partitions int) timed {
	t.Helper()
	space := "test" + strconv.FormatInt(spaces.Add(1), 10)
	b := redisqueue.New(client, redisqueue.Config{Space: space, Partitions: partitions})
	t.Cleanup(func() { // whatever was done, the keys are as they should be
		problems, err := b.Check(context.WithoutCancel(t.Context())) // which has ended by then
		require.NoError(t, err)
		require.Empty(t, problems)
	})
	return timed{b, t, client, space}
}

func sleep(e brokertest.Engine, d time.Duration) {
	b := e.(timed) //nolint:forcetypeassert // newTimed's
	require.NoError(b.t, redisqueue.Forward(b.t.Context(), b.client, b.space, b.Info().Partitions, d))
}

func TestRedis(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	brokertest.Run(t, brokertest.Config{
		New:       func(t testing.TB) brokertest.Engine { t.Helper(); return newTimed(t, client, 1) },
		Sleep:     sleep,
		Sequences: 20, Steps: 100,
	})
}

func TestRedisPartitions(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	brokertest.Run(t, brokertest.Config{
		New:       func(t testing.TB) brokertest.Engine { t.Helper(); return newTimed(t, client, 3) },
		Sleep:     sleep,
		Sequences: 10, Steps: 80,
	})
}

// TestQueueOfALaterVersionIsLeftAlone has keys of a format that this version does not know.
func TestQueueOfALaterVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	q, err := queue.New(redisqueue.New(client, redisqueue.Config{}), queue.Config{})
	require.NoError(t, err)
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.NoError(t, err)
	const meta = "{breakwater:0}:default:m"
	text, err := client.Get(t.Context(), meta).Bytes()
	require.NoError(t, err)
	text[0]++
	require.NoError(t, client.Set(t.Context(), meta, text, 0).Err())
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.ErrorIs(t, err, queue.ErrNewerFormat)
	require.ErrorContains(t, err, "update this process")
	_, err = q.Stats(t.Context())
	require.ErrorIs(t, err, queue.ErrNewerFormat)
}

// TestLargeJobsComeInSeveralAnswers has more payload than one answer should hold up a server for.
func TestLargeJobsComeInSeveralAnswers(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	const jobs = 20
	for range jobs {
		_, err := q.Enqueue(t.Context(), queue.Job{Kind: "k", Payload: make([]byte, 1<<20)})
		require.NoError(t, err)
	}
	got := 0
	for n := uint64(1); got < jobs; n++ {
		c, err := b.Claim(t.Context(), "default", queue.Call{Process: "p", Number: n, Max: 32, Lease: time.Minute})
		require.NoError(t, err)
		require.NotEmpty(t, c.Jobs)
		require.LessOrEqual(t, len(c.Jobs), 5)
		got += len(c.Jobs)
	}
}

// TestHintIsPassedOn has two processes wait, of which the first, woken, has no slot to claim for.
func TestHintIsPassedOn(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	busy, idle := redisqueue.New(redistest.Dial(t, addr), redisqueue.Config{}), redisqueue.New(redistest.Dial(t, addr), redisqueue.Config{})
	q, err := queue.New(busy, queue.Config{})
	require.NoError(t, err)
	wait := func(b *redisqueue.Broker) chan error {
		woken := make(chan error, 1)
		go func() { woken <- b.Wait(t.Context(), "default", 0) }()
		return woken
	}
	blocked := func(n int) {
		require.Eventually(t, func() bool {
			return strings.Contains(redistest.Dial(t, addr).Info(t.Context(), "clients").Val(), fmt.Sprintf("blocked_clients:%d\r", n))
		}, 5*time.Second, time.Millisecond)
	}
	first := wait(busy)
	blocked(1)
	second := wait(idle)
	blocked(2)
	began := time.Now()
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.NoError(t, err)
	require.NoError(t, <-first)
	require.NoError(t, <-second)
	require.Less(t, time.Since(began), 3*time.Second, "not at the end of its wait")
}

// TestDeletedKeysHurtOnlyThemselves has somebody delete keys of a lane, a lease and a scheduled job: the other jobs go on, and Check says
// what is wrong.
func TestDeletedKeysHurtOnlyThemselves(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	ctx := t.Context()
	const k = "{breakwater:0}:default:"
	_, err = q.Enqueue(ctx, queue.Job{Kind: "k", Group: "g", Key: "leased"}, queue.Job{Kind: "k", Group: "g", Key: "token"})
	require.NoError(t, err)
	c, err := b.Claim(ctx, "default", queue.Call{Process: "dead", Number: 1, Max: 2, Lease: time.Second})
	require.NoError(t, err)
	require.Len(t, c.Jobs, 2)
	_, err = q.Enqueue(ctx, queue.Job{Kind: "k", Group: "g", Key: "ready"}, queue.Job{Kind: "k", Group: "alone", Key: "ready"}, queue.Job{Kind: "k", Group: "g", Key: "later", Delay: time.Second},
		queue.Job{Kind: "k", Group: "g", Key: "good"}, queue.Job{Kind: "k", Group: "other", Key: "good"})
	require.NoError(t, err)
	require.NoError(t, client.Del(ctx, k+"l:1lgleased", k+"l:1lgready", k+"l:5lalone"+"ready", k+"sched").Err())
	require.NoError(t, client.HDel(ctx, k+"tok", "1lgtoken").Err())
	problems, err := b.Check(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, problems)

	require.NoError(t, redisqueue.Forward(ctx, client, "breakwater", 1, time.Minute))
	done := map[string]int{}
	for n := uint64(1); len(done) < 3; n++ {
		require.Less(t, n, uint64(10))
		c, err := b.Claim(ctx, "default", queue.Call{Process: "p", Number: n, Max: 8, Lease: time.Minute})
		require.NoError(t, err)
		for _, l := range c.Jobs {
			done[l.Job.Group+"/"+l.Job.Key]++
		}
		require.NoError(t, redisqueue.Forward(ctx, client, "breakwater", 1, time.Second))
	}
	require.Equal(t, map[string]int{"g/good": 1, "other/good": 1, "g/token": 1}, done)

	// Nor can what a worker still holds of a deleted job keep its other settlements from taking effect.
	for n, action := range []queue.Action{queue.Ack, queue.Retry, queue.Snooze, queue.Kill, queue.Release} {
		_, err = q.Enqueue(ctx, queue.Job{Kind: "k", Group: "h", Key: "gone", Track: true}, queue.Job{Kind: "k", Group: "h", Key: "here", Track: true})
		require.NoError(t, err)
		call := queue.Call{Process: "s", Number: uint64(2 * n), Max: 8, Lease: time.Minute}
		c, err := b.Claim(ctx, "default", call)
		require.NoError(t, err)
		require.Len(t, c.Jobs, 2)
		require.NoError(t, client.Del(ctx, k+"l:1lhgone").Err())
		call = queue.Call{Process: "s", Number: call.Number + 1, Lease: time.Minute}
		for _, l := range c.Jobs {
			call.Settle = append(call.Settle, queue.Settlement{Token: l.Token, Action: action, Error: "no"})
		}
		call.Settle[1].Action = queue.Ack
		_, err = b.Claim(ctx, "default", call)
		require.NoError(t, err)
		s, err := q.Jobs(ctx, queue.JobFilter{Group: "h"})
		require.NoError(t, err)
		require.Empty(t, s, action)
	}
}
