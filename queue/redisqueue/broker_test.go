package redisqueue_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver"
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
