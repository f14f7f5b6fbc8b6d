package cache_test

import (
	"testing"
	"testing/synctest"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/cachetest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	cachetest.Run(t, cachetest.Config{
		New: func(*testing.T) func() cache.Remote {
			store := new(cache.Memory)
			return func() cache.Remote { return store.Peer() }
		},
		Bubble: synctest.Test,
	})
}
