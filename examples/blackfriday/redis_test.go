package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

// What a worker has noted is there after Redis was killed, and a worker that notes while it is away waits.
func TestNotesOutliveRedis(t *testing.T) {
	t.Parallel()
	o, done := placed(t)
	b, _ := openRedis(o)
	ctx := t.Context()
	require.NoError(t, b.make(ctx))
	require.NoError(t, b.did(ctx, []note{{job: "1", system: "erp"}, {job: "2", system: "erp"}}))
	require.NoError(t, o.server.Kill())
	noted := make(chan error, 1)
	go func() { noted <- b.did(ctx, []note{{job: "1", system: "carrier"}}) }()
	select {
	case err := <-noted:
		t.Fatal("noted without Redis:", err)
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, o.server.Start())
	require.NoError(t, <-noted)

	systems, err := b.steps(ctx, "1")
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"erp", "carrier"}, systems)
	var after mark
	keys, effects, err := b.read(ctx, &after)
	require.NoError(t, err)
	assert.Empty(t, effects)
	assert.Equal(t, []string{keyOf("1", "erp"), keyOf("2", "erp"), keyOf("1", "carrier")}, keys)
	require.NoError(t, b.did(ctx, []note{{job: "3", system: "erp"}}))
	keys, _, err = b.read(ctx, &after)
	require.NoError(t, err)
	assert.Equal(t, []string{keyOf("3", "erp")}, keys, "only what is new")

	require.NoError(t, o.server.Kill())
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = b.steps(brief, "1")
	require.Error(t, err, "the wait ends with its context")
	require.NoError(t, b.close())
	done(false)
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

	b, broker := openRedis(o)
	defer b.close() //nolint:errcheck // a test's
	jobs, err := queue.New(broker, queue.Config{})
	require.NoError(t, err)
	_, err = jobs.Enqueue(ctx, queue.Job{Kind: "k"})
	require.NoError(t, err)
	require.NoError(t, b.did(ctx, []note{{job: "1", system: "erp"}}))
	require.NoError(t, b.client.Set(ctx, "another's", "", 0).Err())
	found, err = inspect(ctx, o)
	require.NoError(t, err)
	assert.Equal(t, []string{"1 jobs are left in the queue"}, found)

	require.NoError(t, b.client.Set(ctx, "{"+o.Space+":0}:default:odd", "", 0).Err())
	found, err = inspect(ctx, o)
	require.NoError(t, err)
	assert.Len(t, found, 2)

	require.NoError(t, sweep(o))
	left, err := b.client.Keys(ctx, "*").Result()
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
		b, _ := openRedis(o)
		require.NoError(t, b.did(t.Context(), []note{{job: "1", system: "erp"}}))
		leave(wrong)
		systems, err := b.steps(t.Context(), "1")
		require.NoError(t, err)
		assert.Equal(t, wrong, len(systems) == 1)
		require.NoError(t, b.close())
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

func TestPatiently(t *testing.T) {
	t.Parallel()
	tries := 0
	require.NoError(t, patiently(t.Context(), func() error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}))
	assert.Equal(t, 3, tries)
}
