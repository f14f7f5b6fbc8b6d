package rediscache_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/rediscache"
)

// Whatever stands in Redis, or comes over a channel, is read without harm.
func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add("12345678" + "7 3 run")
	f.Add("12345678" + "7\n\x05e:a:b\x00")
	f.Add("\x01\x00\x00\x01" + "0000000000000000" + "12345678123456781234567812345678" + "\x00\x01tvalue")
	f.Add("e:name:scope:id:with:colons")
	s := rediscache.New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", DialTimeout: time.Millisecond, MaxRetries: -1}), rediscache.Config{})
	if err := s.Watch("name", time.Minute, func(cache.Notice) {}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rediscache.Parse(text)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.Hear(ctx, text)
	})
}

// What is written is read as it was.
func FuzzRoundTrip(f *testing.F) {
	f.Add("name", "scope", "id", "tag", []byte("value"), true, uint64(1)<<63)
	f.Add("a:b", "%3A", "}\x00", "", []byte{}, false, uint64(0))
	f.Fuzz(func(t *testing.T, name, scope, id, tag string, value []byte, notFound bool, version uint64) {
		got, tags, missing, ok := rediscache.RoundTrip(&cache.Fill{Value: value, Tags: []string{tag, id}, NotFound: notFound, Version: cache.Version(version), Keep: time.Hour, Fresh: time.Minute})
		if !ok || string(got) != string(value) || !slices.Equal(tags, []string{tag, id}) || missing != notFound {
			t.Errorf("an entry comes back as %q, %q, %v, %v", got, tags, missing, ok)
		}
		for _, kind := range []cache.Kind{cache.OfKey, cache.OfTag} {
			want := cache.Invalidation{Kind: kind, Scope: scope, ID: id}
			if n, inv, ok := rediscache.Untarget(name, want); !ok || n != name || inv != want {
				t.Errorf("%+v of %q comes back as %+v of %q", want, name, inv, n)
			}
		}
		if a, b, n := rediscache.Told(id, tag); a != id || b != tag || n != 2 {
			t.Errorf("a message comes back as %q, %q, %d", a, b, n)
		}
	})
}
