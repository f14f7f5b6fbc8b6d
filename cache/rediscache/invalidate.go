package rediscache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/internal/redislua"
)

const (
	// remembered is how many invalidations a partition remembers, for how long after the last one: a load that began before them all is not kept.
	remembered    = 10_000
	rememberedFor = 24 * time.Hour
	// atOnce is how many targets one script takes: more would hold the server up.
	atOnce = 500
	// maxPending is how many invalidations that may not have been done a line remembers; with more, all entries of their caches are invalid.
	maxPending = 10_000
)

func putEpoch(b []byte, epoch uint64) { binary.BigEndian.PutUint64(b, epoch) }

// Invalidate implements [cache.Remote]. It is tried again for Config.InvalidateTimeout, whatever the breaker thinks of the server.
func (s *Store) Invalidate(ctx context.Context, name string, what []cache.Invalidation) error {
	if s.err != nil {
		return s.err
	}
	of := map[*part][]told{}
	n := namesOf(name)
	for _, inv := range what {
		t := told{target: n.target(inv.Kind, inv.Scope, inv.ID)}
		if inv.Version > 0 {
			t.version = hexVersion(inv.Version)
		}
		if inv.Kind != cache.OfAll {
			p := s.partOf(inv.Scope)
			of[p] = append(of[p], t)
			continue
		}
		for _, l := range s.lines {
			for _, p := range l.parts {
				of[p] = append(of[p], t)
			}
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.InvalidateTimeout, errInvalidateTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for p, all := range of {
		wg.Go(func() {
			for some := range slices.Chunk(all, atOnce) {
				if err := p.invalidate(ctx, some); err != nil {
					p.l.remember(p, some)
					mu.Lock()
					if !slices.ContainsFunc(errs, func(other error) bool { return other.Error() == err.Error() }) { // all partitions of a server say the same
						errs = append(errs, err)
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

var errInvalidateTimeout = errors.New("over Config.InvalidateTimeout")

// invalidate has the server do it, and tells this process.
func (p *part) invalidate(ctx context.Context, all []told) error {
	p.l.mu.Lock()
	began := p.l.unsures
	p.l.mu.Unlock()
	var failed atomic.Pointer[error]
	v, err := redislua.Within(ctx, "no answer", func(ctx context.Context) (v any, err error) {
		err = redislua.Retry(ctx, p.l.s.client, redislua.Lossy, func() error {
			var tried error
			if v, tried = p.run(ctx, all); tried != nil {
				failed.Store(&tried)
			}
			return tried
		})
		return v, err
	})
	if last := failed.Load(); err != nil && last != nil && !errors.Is(err, *last) {
		err = fmt.Errorf("%w; before: %w", err, *last)
	}
	if err != nil {
		return wrap("invalidate", err)
	}
	epoch, seq, ok := place(v)
	if !ok {
		return errors.New("rediscache: invalidate: not an answer")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != epoch {
		p.lost(epoch, seq)
	}
	for _, t := range all {
		p.tell(t.target, t.version, seq)
	}
	if seq == p.seq+1 {
		p.seq = seq
	}
	p.l.forget(p, all, began)
	return nil
}

func (p *part) run(ctx context.Context, all []told) (any, error) {
	keys := []string{p.key("meta"), p.key("log"), p.key("floors")}
	sharded := ""
	if _, ok := p.l.s.client.(*redis.ClusterClient); ok {
		sharded = "1"
	}
	args := []any{nonce(), p.channel(), sharded, remembered, rememberedFor.Milliseconds()}
	for _, t := range all {
		keys = append(keys, p.key(t.target)) // the entry, or the marker
		if strings.HasPrefix(t.target, "e:") {
			keys = append(keys, p.key(claimKey(t.target)))
		}
		args = append(args, t.target, t.version)
	}
	return invalidateOnce.Run(ctx, p.l.s.client, keys, append(args, join(all))...)
}

// remember notes what may not have been done: nothing is read before it is.
func (l *line) remember(p *part, all []told) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range all {
		l.unsures++
		key := pend{p, t.target}
		l.pending[key] = unsure{max(l.pending[key].version, t.version), l.unsures}
	}
	if len(l.pending) <= maxPending {
		return
	}
	fewer := map[pend]unsure{}
	for key := range l.pending {
		if name, _, ok := untarget(key.target); ok {
			fewer[pend{key.p, namesOf(name).target(cache.OfAll, "", "")}] = unsure{"", l.unsures}
		}
	}
	l.pending = fewer
}

// forget forgets those that are done, if they were noted by the time that this began.
func (l *line) forget(p *part, all []told, began uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range all {
		if of, ok := l.pending[pend{p, t.target}]; ok && of.n <= began {
			delete(l.pending, pend{p, t.target})
		}
	}
}

// flush does what may not have been done.
func (l *line) flush(ctx context.Context) error {
	l.mu.Lock()
	of := map[*part][]told{}
	for key, u := range l.pending {
		of[key.p] = append(of[key.p], told{key.target, u.version})
	}
	l.mu.Unlock()
	for p, all := range of {
		for some := range slices.Chunk(all, atOnce) {
			if err := p.invalidate(ctx, some); err != nil {
				return err
			}
		}
	}
	return nil
}

// Purge implements [cache.Remote]. It looks through the names of all keys of the server, of all masters in a Cluster (SCAN), a thousand at a time: on a large one it takes seconds, and holds nobody up. Only ctx bounds it.
// An entry whose slot moves between two servers at that very moment may be passed over: nothing finds it any more, and it ends with its TTL; Purge again when the move is over.
func (s *Store) Purge(ctx context.Context, name, scope string) error {
	if err := s.Invalidate(ctx, name, []cache.Invalidation{{Kind: cache.OfScope, Scope: scope}}); err != nil {
		return err
	}
	p, n := s.partOf(scope), namesOf(name)
	_, err := redislua.Within(ctx, "no answer", func(ctx context.Context) (int, error) {
		entries := n.target(cache.OfKey, scope, "")
		_, err := purgeScript.Run(ctx, s.client, []string{p.key("meta"), p.key("log"), p.key("floors")}, entries, n.target(cache.OfTag, scope, ""), n.target(cache.OfScope, scope, ""))
		if err != nil {
			return 0, err
		}
		match := redislua.Glob(p.prefix) + "[etc]" + redislua.Glob(entries[1:]) + "*" // claims and tags' markers too
		c, ok := s.client.(*redis.ClusterClient)
		if !ok {
			return redislua.Purge(ctx, s.client, s.client, match)
		}
		return 0, c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { // its slot may have moved, or be on its way
			_, err := redislua.Purge(ctx, c, node, match)
			return err
		})
	})
	return wrap("purge", err)
}
