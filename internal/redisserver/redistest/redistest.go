// Package redistest starts private redis-servers for tests.
package redistest

import (
	"os"
	"os/exec"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver"
)

// Need skips a test where there is no redis-server, but for CI, where that fails.
func Need(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") == "" {
			t.Skip(redisserver.ErrMissing)
		}
		require.NoError(t, redisserver.ErrMissing)
	}
}

// Start starts a server that lives as long as the test, which needs one.
func Start(t testing.TB, args ...string) *redisserver.Server {
	t.Helper()
	Need(t)
	s, err := redisserver.Start(t.TempDir(), args...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Kill()) })
	return s
}

// Dial makes a client for as long as the test lives.
func Dial(t testing.TB, addr string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}
