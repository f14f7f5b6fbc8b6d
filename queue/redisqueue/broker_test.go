package redisqueue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/brokertest"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// start starts a private server. Where there is none to start the test is skipped, but for CI, where that fails.
func start(t testing.TB, args ...string) *redisserver.Server {
	t.Helper()
	s, err := redisserver.Start(t.TempDir(), args...)
	if errors.Is(err, redisserver.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Kill()) })
	return s
}

func dial(t testing.TB, addr string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

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
	client := dial(t, start(t).Addr)
	brokertest.Run(t, brokertest.Config{
		New:       func(t testing.TB) brokertest.Engine { t.Helper(); return newTimed(t, client, 1) },
		Sleep:     sleep,
		Sequences: 20, Steps: 100,
	})
}

func TestRedisPartitions(t *testing.T) {
	t.Parallel()
	client := dial(t, start(t).Addr)
	brokertest.Run(t, brokertest.Config{
		New:       func(t testing.TB) brokertest.Engine { t.Helper(); return newTimed(t, client, 3) },
		Sleep:     sleep,
		Sequences: 10, Steps: 80,
	})
}

// TestQueueOfALaterVersionIsLeftAlone has keys of a format that this version does not know.
func TestQueueOfALaterVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	client := dial(t, start(t).Addr)
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
	client := dial(t, start(t).Addr)
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
	addr := start(t).Addr
	busy, idle := redisqueue.New(dial(t, addr), redisqueue.Config{}), redisqueue.New(dial(t, addr), redisqueue.Config{})
	q, err := queue.New(busy, queue.Config{})
	require.NoError(t, err)
	wait := func(b *redisqueue.Broker) chan error {
		woken := make(chan error, 1)
		go func() { woken <- b.Wait(t.Context(), "default", 0) }()
		return woken
	}
	blocked := func(n int) {
		require.Eventually(t, func() bool {
			return strings.Contains(dial(t, addr).Info(t.Context(), "clients").Val(), fmt.Sprintf("blocked_clients:%d\r", n))
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
