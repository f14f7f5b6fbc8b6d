package cache

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Memory is a Remote in the memory of one process: for tests, and what other Remotes are held against. Its Peers are what other processes would have. The zero value is empty; it must not be copied after first use.
type Memory struct {
	once    sync.Once
	store   *memoryStore
	watches map[string]func(Notice) // under store.mu
}

var _ Remote = (*Memory)(nil)

type memoryStore struct {
	mu      sync.Mutex
	peers   []*Memory
	epoch   uint64
	seq     uint64
	lease   *Lease
	last    map[target]invalidated
	entries map[target]*memoryEntry // of kind OfKey
	claims  map[target]memoryClaim
	sweep   int // how many entries there may be before those that have ended are looked for
}

// target is what an Invalidation is of, under a name.
type target struct {
	kind            Kind
	name, scope, id string
}

type invalidated struct {
	seq     uint64
	version Version
}

type memoryEntry struct {
	Fill

	seq uint64
	end time.Time // of Keep
}

type memoryClaim struct {
	id  uint64
	end time.Time
}

func targetOf(name string, inv Invalidation) target {
	switch inv.Kind {
	case OfAll:
		return target{kind: OfAll, name: name}
	case OfScope:
		return target{kind: OfScope, name: name, scope: inv.Scope}
	default:
		return target{inv.Kind, name, inv.Scope, inv.ID}
	}
}

// maxTargets is how many invalidations a Memory remembers. With more it forgets everything.
const maxTargets = 100_000

func (m *Memory) lock() *memoryStore {
	m.once.Do(func() {
		if m.store == nil {
			m.store = &memoryStore{}
			m.store.reset()
		}
		m.store.mu.Lock()
		defer m.store.mu.Unlock()
		m.watches = map[string]func(Notice){}
		m.store.peers = append(m.store.peers, m)
	})
	m.store.mu.Lock()
	return m.store
}

func (s *memoryStore) reset() {
	if s.lease != nil {
		s.lease.End()
	}
	s.epoch, s.seq, s.lease, s.sweep = rand.Uint64(), 1, &Lease{}, 1000
	s.lease.at.Store(math.MaxInt64) // who is told at once misses nothing
	s.last, s.entries, s.claims = map[target]invalidated{}, map[target]*memoryEntry{}, map[target]memoryClaim{}
}

// Peer is a Remote of another process: it has the same entries.
func (m *Memory) Peer() *Memory {
	s := m.lock()
	defer s.mu.Unlock()
	return &Memory{store: s}
}

// Flush forgets everything, as a Redis that is flushed does.
func (m *Memory) Flush() {
	s := m.lock()
	defer s.mu.Unlock()
	s.reset()
}

// Watch implements [Remote].
func (m *Memory) Watch(name string, _ time.Duration, told func(Notice)) error {
	s := m.lock()
	defer s.mu.Unlock()
	if m.watches[name] != nil {
		return fmt.Errorf("cache: New: Config.Name %q is another cache's of this Remote", name)
	}
	m.watches[name] = told
	return nil
}

// Get implements [Remote].
func (m *Memory) Get(ctx context.Context, name string, keys []Key, claim time.Duration) ([]Answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := m.lock()
	defer s.mu.Unlock()
	now := time.Now()
	out := make([]Answer, len(keys))
	for i, key := range keys {
		t := target{OfKey, name, key.Scope, key.ID}
		a := Answer{Mark: Mark{s.epoch, s.seq}, Lease: s.lease, Stamp: uint64(now.UnixNano())}
		if e := s.entries[t]; e != nil && !s.void(t, e.Tags, e.seq) && now.Before(e.end) {
			rest := e.end.Sub(now)
			a.Found, a.Value, a.NotFound, a.Fresh, a.Rest = true, e.Value, e.NotFound, rest-(e.Keep-e.Fresh), rest
		}
		if claim > 0 && a.Fresh <= 0 {
			if rest := s.claims[t].end.Sub(now); rest > 0 {
				a.Busy = rest
			} else {
				a.Claim = rand.Uint64() | 1
				s.claims[t] = memoryClaim{a.Claim, now.Add(claim)}
			}
		}
		out[i] = a
	}
	return out, nil
}

// void says whether something of a key and its tags was invalidated after seq.
func (s *memoryStore) void(key target, tags []string, seq uint64) bool {
	if s.last[key].seq > seq || s.last[target{kind: OfScope, name: key.name, scope: key.scope}].seq > seq || s.last[target{kind: OfAll, name: key.name}].seq > seq {
		return true
	}
	return slices.ContainsFunc(tags, func(tag string) bool { return s.last[target{OfTag, key.name, key.scope, tag}].seq > seq })
}

// Fill implements [Remote].
func (m *Memory) Fill(ctx context.Context, name string, fills []Fill) ([]bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := m.lock()
	defer s.mu.Unlock()
	kept := make([]bool, len(fills))
	now := time.Now()
	for i, f := range fills {
		t := target{OfKey, name, f.Key.Scope, f.Key.ID}
		if f.Claim != 0 && s.claims[t].id == f.Claim {
			delete(s.claims, t)
		}
		e, begin := s.entries[t], time.Unix(0, int64(f.Stamp)) //nolint:gosec // as Get has made it
		switch {
		case f.Drop, f.Mark.Epoch != s.epoch, s.void(t, f.Tags, f.Mark.Seq), !begin.Add(f.Fresh).After(now), f.Version < s.last[t].version:
		case !f.NotFound && e != nil && f.Version < e.Version && !s.void(t, e.Tags, e.seq) && now.Before(e.end):
		default:
			kept[i] = true
			f.Value, f.Tags = slices.Clone(f.Value), slices.Clone(f.Tags)
			s.entries[t] = &memoryEntry{f, f.Mark.Seq, begin.Add(f.Keep)}
		}
	}
	if len(s.entries) > s.sweep {
		maps.DeleteFunc(s.entries, func(t target, e *memoryEntry) bool {
			return s.void(t, e.Tags, e.seq) || !now.Before(e.end)
		})
		maps.DeleteFunc(s.claims, func(_ target, c memoryClaim) bool { return time.Now().After(c.end) })
		s.sweep = 2*len(s.entries) + 1000
	}
	return kept, nil
}

// Invalidate implements [Remote].
func (m *Memory) Invalidate(ctx context.Context, name string, what []Invalidation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := m.lock()
	defer s.mu.Unlock()
	if len(s.last) > maxTargets {
		s.reset()
	}
	s.seq++
	for _, inv := range what {
		t := targetOf(name, inv)
		version := max(inv.Version, s.last[t].version)
		if inv.Version == 0 {
			version = 0
		}
		s.last[t] = invalidated{s.seq, version}
		if inv.Kind == OfKey {
			delete(s.entries, t)
			delete(s.claims, t)
		}
	}
	for _, peer := range s.peers {
		if told := peer.watches[name]; told != nil {
			for _, inv := range what {
				told(Notice{inv, Mark{s.epoch, s.seq}})
			}
		}
	}
	return nil
}

// Purge implements [Remote].
func (m *Memory) Purge(ctx context.Context, name, scope string) error {
	if err := m.Invalidate(ctx, name, []Invalidation{{Kind: OfScope, Scope: scope}}); err != nil {
		return err
	}
	s := m.lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.entries, func(t target, e *memoryEntry) bool {
		return t.name == name && t.scope == scope && s.void(t, e.Tags, e.seq)
	})
	return nil
}
