package main

import (
	"bytes"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// The servers of a run are this program again.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && roles[os.Args[1]] != nil {
		main()
		return
	}
	os.Exit(m.Run())
}

// What a user runs, shorter, with another seed each time: no answer is older than it may be, and most of them cost the shop nothing.
func TestCatalog(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	o := defaults()
	o.Seed, o.Duration, o.Products, o.Every, o.TTL = 0, 5*time.Second, 60, 60*time.Millisecond, 3*time.Second
	var out bytes.Buffer
	r, err := run(t.Context(), o, &out)
	require.NoError(t, err, "%s", &out)
	r.print(&out)
	require.NoError(t, r.check(), "%s", &out)

	ours := r.Ways[breakwaterWay]
	assert.Positive(t, ours.Answers)
	assert.Less(t, ours.Calls, ours.Without, "%s", &out)
	assert.Less(t, ours.Points, ours.PointsWithout, "%s", &out)
	assert.Positive(t, ours.Memory)
	assert.Positive(t, ours.Redis)
	assert.Positive(t, r.Webhooks.Acknowledged)
	assert.GreaterOrEqual(t, r.Invalidations, uint64(r.Webhooks.Acknowledged)) //nolint:gosec // not negative
	assert.Positive(t, r.Indexed)
	assert.Zero(t, r.Unindexed)
	t.Logf("%s", &out)
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	for want, change := range map[string]func(o *options){
		"-products is 3":     func(o *options) { o.Products = 3 },
		"-duration -1s":      func(o *options) { o.Duration = -time.Second },
		"connection refused": func(o *options) { o.Redis = l.Addr().String() },
	} {
		o := defaults()
		change(&o)
		_, err := run(t.Context(), o, new(bytes.Buffer))
		assert.ErrorContains(t, err, want)
	}
}

// On a server that is there a run has a space of its own, and leaves what is others'. One that would evict jobs is refused.
func TestPlaceOnAServerThatIsThere(t *testing.T) {
	t.Parallel()
	theirs := redistest.Start(t)
	client := redistest.Dial(t, theirs.Addr)
	ctx := t.Context()
	require.NoError(t, client.Set(ctx, "another's", "", 0).Err())

	o := options{Redis: theirs.Addr}
	done, err := place(ctx, &o)
	require.NoError(t, err)
	for _, key := range []string{o.Space + ":index", "{" + o.Space + ":cache:0}:meta", "{" + o.Space + ":0}:default"} {
		require.NoError(t, client.Set(ctx, key, "", 0).Err())
	}
	done()
	left, err := client.Keys(ctx, "*").Result()
	require.NoError(t, err)
	assert.Equal(t, []string{"another's"}, left)

	require.NoError(t, client.ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err())
	_, err = place(ctx, &options{Redis: theirs.Addr})
	require.ErrorContains(t, err, "evicts keys")
}
