package main

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
)

// placed is a storm's place in a Redis of its own.
func placed(t *testing.T) (o options, done func(wrong bool)) {
	t.Helper()
	redistest.Need(t)
	o.Redis = startRedis
	done, err := placeRedis(&o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = o.server.Kill() })
	return o, done
}

// claimed is a home that has a claim in its store.
func claimed(t *testing.T, o options) home {
	t.Helper()
	h, err := open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.close() })
	r, err := idempotency.NewRequest("erp", idempotency.Key{ID: "1"})
	require.NoError(t, err)
	r.For = time.Hour
	_, err = h.store.Claim(t.Context(), r)
	require.NoError(t, err)
	return h
}

// The look at what the storm has left sees what should not be there, and the sweep leaves what is others'.
func TestInspectAndSweep(t *testing.T) {
	t.Parallel()
	o, done := placed(t)
	defer done(false)
	ctx := t.Context()
	found, err := inspect(ctx, o)
	require.NoError(t, err)
	assert.Empty(t, found)

	client, h := dial(o), claimed(t, o)
	defer client.Close() //nolint:errcheck // a test's
	jobs, err := queue.New(h.broker, queue.Config{})
	require.NoError(t, err)
	_, err = jobs.Enqueue(ctx, queue.Job{Kind: "k"})
	require.NoError(t, err)
	require.NoError(t, client.Set(ctx, "another's", "", 0).Err())
	found, err = inspect(ctx, o)
	require.NoError(t, err)
	assert.Equal(t, []string{"1 jobs are left in the queue"}, found)

	require.NoError(t, client.Set(ctx, "{"+o.Space+":0}:default:odd", "", 0).Err())
	found, err = inspect(ctx, o)
	require.NoError(t, err)
	assert.Len(t, found, 2)

	require.NoError(t, sweep(o))
	left, err := client.Keys(ctx, "*").Result()
	require.NoError(t, err)
	assert.Equal(t, []string{"another's"}, left)
}

// Each storm has a space of its own, on a server that was there before as well. That one stays; the storm's keys stay only if
// something was wrong.
func TestPlaceOnAServerThatIsThere(t *testing.T) {
	t.Parallel()
	theirs, done := placed(t)
	defer done(false)
	o := options{Redis: theirs.Redis}
	for _, wrong := range []bool{true, false} {
		before := o.Space
		leave, err := placeRedis(&o)
		require.NoError(t, err)
		assert.Nil(t, o.server)
		assert.NotEqual(t, before, o.Space)
		claimed(t, o)
		leave(wrong)
		client := dial(o)
		keys, err := client.Keys(t.Context(), o.Space+"*").Result()
		require.NoError(t, err)
		assert.Len(t, keys, map[bool]int{true: 1, false: 0}[wrong])
		require.NoError(t, client.Close())
	}
	require.NoError(t, theirs.server.Kill())
	_, err := placeRedis(&o)
	require.Error(t, err, "it is not there")
}

// A server that would evict jobs is refused before the storm.
func TestPlaceRefusesEviction(t *testing.T) {
	t.Parallel()
	o, done := placed(t)
	defer done(false)
	client := redis.NewClient(&redis.Options{Addr: o.Redis})
	defer client.Close() //nolint:errcheck // a test's
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
	_, err := placeRedis(&options{Redis: o.Redis})
	require.ErrorContains(t, err, "evicts keys")
}
