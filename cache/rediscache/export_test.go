package rediscache

import (
	"context"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

// Remembered is how many invalidations a partition remembers.
const Remembered = remembered

// KeyOf is where something of a scope stands.
func (s *Store) KeyOf(scope, what string) string { return s.partOf(scope).key(what) }

// Listens says whether all lines that are used have their channel.
func (s *Store) Listens() bool {
	for _, l := range s.lines {
		l.mu.Lock()
		hears := l.hears
		l.mu.Unlock()
		if !hears {
			return false
		}
	}
	return true
}

// Told is the number of the latest invalidation of a scope's partition that was told.
func (s *Store) Told(scope string) uint64 {
	p := s.partOf(scope)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seq
}

// Leased says whether a scope's partition has been told of all that was invalidated until lag ago.
func (s *Store) Leased(scope string, lag time.Duration) bool {
	p := s.partOf(scope)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lease.Holds(lag)
}

// Parse reads b as everything that comes from Redis.
func Parse(b string) {
	unpack(b)
	split(b)
	parseMeta(b)
	untarget(b)
	place([]any{b, b})
}

// RoundTrip packs an entry and unpacks it, with markers of a generation for each of its tags.
func RoundTrip(f *cache.Fill) (value []byte, tags []string, notFound, ok bool) {
	prefix, rest := packed(f)
	gens := strings.Repeat("12345678", 3+len(f.Tags))
	u, ok := unpack(prefix + gens + rest)
	return u.value, u.tags, u.notFound, ok
}

// Untarget reads what an invalidation is called.
func Untarget(name string, inv cache.Invalidation) (string, cache.Invalidation, bool) {
	return untarget(namesOf(name).target(inv.Kind, inv.Scope, inv.ID))
}

// Told joins and splits a message.
func Told(target, version string) (string, string, int) {
	all, _ := split(join([]told{{target, version}, {version, target}}))
	return all[0].target, all[1].target, len(all)
}

// Hear takes a message of a partition.
func (s *Store) Hear(ctx context.Context, payload string) { s.lines[0].parts[0].hear(ctx, payload) }
