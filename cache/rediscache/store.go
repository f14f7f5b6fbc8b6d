// Package rediscache is a second tier for package cache, in Redis 6.2 or later, or Valkey: on a single server, behind Sentinel or in a Cluster, for any number of processes and caches.
//
//	store := rediscache.New(rdb, rediscache.Config{})
//	products, err := cache.New(loadProduct, cache.Config[ProductKey, Product]{Name: "products", Remote: store})
//
// A hit is one round trip: a GET of the entry together with the few short keys that say whether it still holds (a second one if it has tags). Entries carry random generations of their scope, their tags and their cache, so that an
// invalidation of all of them is one DEL, and none comes back when a marker expires or is evicted: maxmemory-policy may be any. A load begins with the number of the latest invalidation; a short log says what was invalidated since, and
// the script that would keep the load's value looks there first. What a server that was flushed, restarted or promoted may not know any more is told apart by an epoch, and nothing from before it is kept or served.
//
// Invalidations are published (sharded in a Cluster). A process that loses its channel distrusts what it has in memory until it listens again, and reads what it missed from the log. Beside the channel it compares numbers with the server a
// few times in each Config.MaxLag of its caches, so that a message that got lost is noticed.
package rediscache

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/internal/redislua"
)

// Config tunes a Store. The zero value is valid.
type Config struct {
	// Space is what all keys begin with; "" means "breakwater". Queues and records may have the same.
	Space string
	// Timeout is how long a read or a fill may take, whatever the client's own timeouts; 0 means 100 ms. A call that hangs is left behind. After a few failures in a row Redis is left alone for a second: reads then cost nothing and go to the loader.
	Timeout time.Duration
	// InvalidateTimeout is how long an invalidation may take, with what it is tried again; 0 means 2 s. The caller's deadline counts too.
	InvalidateTimeout time.Duration
	Logger            *slog.Logger // nil discards
}

// ErrServer is wrapped by the error for a server that can't be used: it is too old.
var ErrServer = errors.New("rediscache: this server can't be used")

// ErrClosed is returned by a Store that was closed.
var ErrClosed = errors.New("rediscache: closed")

// Store is a cache.Remote in Redis. It is safe for concurrent use by any number of caches and processes. From the first Get on it listens, in goroutines that Close ends.
type Store struct {
	client redis.UniversalClient
	cfg    Config
	log    *slog.Logger
	err    error
	lines  []*line // one, or in a Cluster one for each partition

	ctx   context.Context //nolint:containedctx // of the goroutines that listen
	close context.CancelFunc
	wg    sync.WaitGroup

	mu     sync.RWMutex
	told   map[string]func(cache.Notice)
	lag    time.Duration // the least of any cache
	closed bool
}

var _ cache.Remote = (*Store)(nil)

// partitions is over how many places scopes are spread, each of which has an order of invalidations, a channel and a slot of a Cluster. It is the same for all processes for ever, and so no setting.
const partitions = 16

// New makes a Store over client: a *redis.Client, also one with failover by Sentinel, or a *redis.ClusterClient that reads from masters. It does no I/O; what is wrong with it is said by cache.New.
func New(client redis.UniversalClient, cfg Config) *Store {
	cfg.Timeout, cfg.InvalidateTimeout = cmp.Or(cfg.Timeout, 100*time.Millisecond), cmp.Or(cfg.InvalidateTimeout, 2*time.Second)
	s := &Store{client: client, cfg: cfg, log: cfg.Logger, told: map[string]func(cache.Notice){}, lag: time.Hour}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.close = context.WithCancel(context.Background())
	s.err = (&redislua.Keeper{Package: "rediscache"}).Check(client)
	n := 1 // a line for all
	if _, ok := client.(*redis.ClusterClient); ok {
		n = partitions
	}
	for _, d := range [...]struct {
		name string
		v    time.Duration
	}{{"Timeout", cfg.Timeout}, {"InvalidateTimeout", cfg.InvalidateTimeout}} {
		if d.v < time.Millisecond || d.v > time.Minute {
			s.err = cmp.Or(s.err, fmt.Errorf("rediscache: New: Config.%s is %v; want 1ms to 1m, 0 for the default", d.name, d.v))
		}
	}
	if s.err != nil {
		return s
	}
	for i := range n {
		l := &line{s: s, pending: map[pend]unsure{}, faster: make(chan struct{}, 1)}
		l.breaker, s.err = breaker.New("cache", breaker.Config{
			Timeout: cfg.Timeout, ConsecutiveFailures: 5, OpenFor: time.Second, MaxOpenFor: time.Second, Classify: classify, Logger: s.log,
			MaxAbandoned: 10_000, // what hangs ends with the client's own timeouts, and nobody waits for it
		})
		for p := i; p < partitions; p += n {
			l.parts = append(l.parts, &part{l: l, prefix: "{" + escape.Replace(cmp.Or(cfg.Space, "breakwater")) + ":cache:" + strconv.Itoa(p) + "}:", lease: &cache.Lease{}})
		}
		l.own = l.parts[0].key("own:" + hex.EncodeToString([]byte(nonce())))
		s.lines = append(s.lines, l)
	}
	return s
}

// classify tells what the server says from what the network does: an answer is a success, whatever it says, but for those of a server that is coming or going.
func classify(err error) breaker.Class {
	if _, ok := errors.AsType[redis.Error](err); ok {
		for _, prefix := range [...]string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY"} {
			if redis.HasErrorPrefix(err, prefix) {
				return breaker.Failure
			}
		}
		return breaker.Success
	}
	if errors.Is(err, ErrClosed) {
		return breaker.Ignored
	}
	return breaker.Failure
}

// Close ends the goroutines that listen, and waits for them. Caches over the Store then load for themselves. It does not close the client.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.close()
	for _, l := range s.lines {
		l.deaf()
	}
	s.wg.Wait()
}

// Watch implements [cache.Remote].
func (s *Store) Watch(name string, maxLag time.Duration, told func(cache.Notice)) error {
	if s.err != nil {
		return s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[name] != nil {
		return fmt.Errorf("rediscache: the name %q is another cache's of this Store; give each its own Config.Name", name)
	}
	s.told[name], s.lag = told, min(s.lag, maxLag)
	for _, l := range s.lines {
		select {
		case l.faster <- struct{}{}:
		default:
		}
	}
	return nil
}

// part is one of the places that scopes are spread over: an order of invalidations.
type part struct {
	l      *line
	prefix string

	mu    sync.Mutex
	lease *cache.Lease // what entries in memory rest on; another one after something was missed
	epoch string       // "" until it was looked at
	seq   uint64       // up to which invalidations were told
}

// partOf finds the place of a scope.
func (s *Store) partOf(scope string) *part {
	h := fnv.New32a()
	_, _ = h.Write([]byte(scope)) // never fails
	p := int(h.Sum32() % partitions)
	l := s.lines[p%len(s.lines)]
	return l.parts[p/len(s.lines)]
}

// escape makes a part of a key one that is followed by a colon, and can stand in a hash tag.
var escape = strings.NewReplacer("%", "%25", ":", "%3A", "{", "%7B", "}", "%7D")

func (p *part) key(what string) string { return p.prefix + what }

// channel is where a partition's invalidations are told. Channels are of all databases of a server, and keys of one.
func (p *part) channel() string {
	db := 0
	if c, ok := p.l.s.client.(*redis.Client); ok {
		db = c.Options().DB
	}
	return p.key("told:" + strconv.Itoa(db))
}

// names are what the keys of a cache's entries and markers are made of.
type names string

func namesOf(cacheName string) names { return names(":" + escape.Replace(cacheName) + ":") }

// target is how an invalidation is called in keys, in the log and in messages.
func (n names) target(kind cache.Kind, scope, id string) string {
	switch kind {
	case cache.OfKey:
		return "e" + string(n) + escape.Replace(scope) + ":" + id
	case cache.OfTag:
		return "t" + string(n) + escape.Replace(scope) + ":" + id
	case cache.OfScope:
		return "s" + string(n) + escape.Replace(scope) + ":"
	default:
		return "a" + string(n) + ":"
	}
}

var unescape = strings.NewReplacer("%7D", "}", "%7B", "{", "%3A", ":", "%25", "%")

// untarget reads a target.
func untarget(text string) (name string, inv cache.Invalidation, ok bool) {
	parts := strings.SplitN(text, ":", 4)
	if len(parts) != 4 {
		return "", inv, false
	}
	switch parts[0] {
	case "e":
		inv.Kind = cache.OfKey
	case "t":
		inv.Kind = cache.OfTag
	case "s":
		inv.Kind = cache.OfScope
	case "a":
		inv.Kind = cache.OfAll
	default:
		return "", inv, false
	}
	inv.Scope, inv.ID = unescape.Replace(parts[2]), parts[3]
	return unescape.Replace(parts[1]), inv, true
}

// claimKey is where the claim of an entry stands.
func claimKey(target string) string { return "c" + strings.TrimPrefix(target, "e") }

// nonce is what epochs, generations and claims are made of.
func nonce() string {
	var b [8]byte
	_, _ = crand.Read(b[:]) // never fails
	return string(b[:])
}

// tell passes an invalidation on. p.mu is held.
func (p *part) tell(text, version string, seq uint64) {
	name, inv, ok := untarget(text)
	if !ok {
		return // of a later version
	}
	inv.Version = versionOf(version)
	s := p.l.s
	s.mu.RLock()
	told := s.told[name]
	s.mu.RUnlock()
	if told != nil {
		told(cache.Notice{Invalidation: inv, Mark: cache.Mark{Epoch: epochOf(p.epoch), Seq: seq}})
	}
}

// lost says that invalidations were missed, and can't be found: what rests on the lease is not served any more. p.mu is held.
func (p *part) lost(epoch string, seq uint64) {
	p.lease.End()
	p.lease = &cache.Lease{}
	p.epoch, p.seq = epoch, seq
}
