package rediscache_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/cachetest"
	"github.com/breakwater-go/breakwater/cache/rediscache"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// TestManagedRedis is of services that have no CONFIG, DEBUG and CLIENT, with a user who may do no more than docs/cache.md says.
func TestManagedRedis(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "cache.md"))
	require.NoError(t, err)
	rule := regexp.MustCompile(`(?m)^ACL SETUSER breakwater (.*)$`).FindSubmatch(text)
	require.NotNil(t, rule, "docs/cache.md prints the ACL of a user called breakwater")
	for name, change := range map[string]*strings.Replacer{"all": strings.NewReplacer(), "without INFO": strings.NewReplacer(" +info", "")} {
		s := redistest.Start(t, "--rename-command", "CONFIG", "", "--rename-command", "DEBUG", "", "--rename-command", "CLIENT", "")
		admin := redistest.Dial(t, s.Addr)
		args := []any{"ACL", "SETUSER", "breakwater"}
		for word := range strings.FieldsSeq(change.Replace(string(rule[1]))) {
			args = append(args, strings.Replace(word, "PASSWORD", "secret", 1))
		}
		require.NoError(t, admin.Do(t.Context(), args...).Err())
		client := redis.NewClient(&redis.Options{Addr: s.Addr, Username: "breakwater", Password: "secret"})
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cachetest.Run(t, cachetest.Config{New: func(t *testing.T) func() cache.Remote {
				t.Helper()
				return processes(t, client, rediscache.Config{Timeout: 10 * time.Second})
			}})
		})
	}
}

// TestOnlyCommandsOfRedis62 holds what is sent, by the scripts and without, against what the server says of its commands.
func TestOnlyCommandsOfRedis62(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	names := []any{"COMMAND", "DOCS", "eval", "evalsha", "mget", "get", "setnx", "pttl", "del", "scan", "info", "subscribe", "ping"}
	files, err := filepath.Glob("*.lua")
	require.NoError(t, err)
	calls := 0
	for _, file := range files {
		script, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, call := range regexp.MustCompile(`call\('(\w+)'`).FindAllSubmatch(script, -1) {
			if name := strings.ToLower(string(call[1])); name != "spublish" { // which is tried, where it is not there PUBLISH is used
				names = append(names, name)
			}
			calls++
		}
	}
	require.Greater(t, calls, 15)
	docs, err := client.Do(t.Context(), names...).Result()
	require.NoError(t, err)
	since := 0
	for name, doc := range docs.(map[any]any) { //nolint:forcetypeassert // it fails the test
		version := doc.(map[any]any)["since"].(string) //nolint:forcetypeassert // as above
		require.Regexp(t, `^([1-5]\.|6\.[0-2]\.)`, version, name)
		since++
	}
	require.Greater(t, since, 15)
}
