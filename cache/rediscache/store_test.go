package rediscache_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/cachetest"
	"github.com/breakwater-go/breakwater/cache/rediscache"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// processes makes Stores over one client, as processes have them.
func processes(t *testing.T, client redis.UniversalClient, cfg rediscache.Config) func() cache.Remote {
	t.Helper()
	return func() cache.Remote {
		s := rediscache.New(client, cfg)
		t.Cleanup(s.Close)
		return s
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	cachetest.Run(t, cachetest.Config{New: func(t *testing.T) func() cache.Remote {
		t.Helper()
		return processes(t, client, rediscache.Config{Timeout: 10 * time.Second})
	}})
}

func TestCluster(t *testing.T) {
	t.Parallel()
	_, client := redistest.StartCluster(t)
	cachetest.Run(t, cachetest.Config{Short: 500 * time.Millisecond, New: func(t *testing.T) func() cache.Remote {
		t.Helper()
		return processes(t, client, rediscache.Config{Timeout: 10 * time.Second})
	}})
}
