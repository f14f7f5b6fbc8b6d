package cache_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
)

var errAway = errors.New("the source is away")

// source is what is cached: values that change, and loads that take time.
type source struct {
	mu     sync.Mutex
	values map[string]string
	err    error
	takes  time.Duration
	loads  int
	gate   chan struct{} // if not nil, each load reads, and then waits for it
}

func (s *source) set(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string]string{}
	}
	if value == "" {
		delete(s.values, key)
		return
	}
	s.values[key] = value
}

func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) hold() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
	return s.gate
}

func (s *source) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate = nil
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads
}

func (s *source) load(ctx context.Context, key string) (string, error) {
	s.mu.Lock()
	s.loads++
	v, ok := s.values[key]
	gate, takes, err := s.gate, s.takes, s.err
	s.mu.Unlock()
	if takes > 0 {
		time.Sleep(takes)
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", cache.ErrNotFound
	}
	return v, nil
}

// tiers runs a test with one tier, and with two.
func tiers(t *testing.T, run func(t *testing.T, remote cache.Remote)) {
	t.Helper()
	for _, c := range []struct {
		name string
		make func() cache.Remote
	}{{"one tier", func() cache.Remote { return nil }}, {"two tiers", func() cache.Remote { return new(cache.Memory) }}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { run(t, c.make()) })
		})
	}
}

func newCache(t *testing.T, s *source, cfg cache.Config[string, string]) *cache.Cache[string, string] {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "test"
	}
	if cfg.Jitter == 0 {
		cfg.Jitter = -1
	}
	c, err := cache.New(s.load, cfg)
	require.NoError(t, err)
	return c
}

func requireGet(t *testing.T, c *cache.Cache[string, string], key, want string) {
	t.Helper()
	v, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, want, v)
}

// later is a Get that runs beside the test.
type later struct {
	v    string
	err  error
	done chan struct{}
}

func get(ctx context.Context, c *cache.Cache[string, string], key string) *later {
	l := &later{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.v, l.err = c.Get(ctx, key)
	}()
	synctest.Wait()
	return l
}

func (l *later) is(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	select {
	case <-l.done:
	default:
		require.Fail(t, "it still waits")
	}
	assert.NoError(t, l.err)
	assert.Equal(t, want, l.v)
}
