// Package redisstore keeps the records of package idempotency in Redis 6.2 or later, or Valkey: one key each, one script call a step, on a single server, behind Sentinel
// or in a Cluster, for any number of processes.
//
// The server's clock alone judges leases and retentions. What is recorded is as durable as the server: a failover may lose the claims and outcomes that no replica had, and
// their keys run again; what closes that is a transaction (package sqlstore) or a key passed on ([idempotency.ChildKey]).
package redisstore

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/internal/redislua"
)

// Config tunes a Store. The zero value is valid.
type Config struct {
	// Space is what all keys begin with; "" means "breakwater". Queues and caches may have the same.
	Space string

	// MemoKeys is how many keys that are done are remembered in the process, so that what is sent again soon costs no call; 0 means 10,000. Only results of up to 4 KiB are.
	MemoKeys int
	// MemoFor is for how long; 0 means a minute. For so long a Forget or Purge by another process is not noticed here.
	MemoFor time.Duration
	// NoMemo remembers nothing.
	NoMemo bool

	Logger *slog.Logger // nil discards
}

// ErrServer is wrapped by the error for a server that can't keep records: too old, or set to evict keys.
var ErrServer = errors.New("redisstore: this server can't keep records")

// Store keeps records in Redis. It is safe for concurrent use by any number of processes.
type Store struct {
	client redis.UniversalClient
	cfg    Config
	prefix string
	err    error
	keeper redislua.Keeper
	memo   *memo    // nil without
	nodes  sync.Map // *node by address
}

var (
	_ idempotency.Store    = (*Store)(nil)
	_ idempotency.Operator = (*Store)(nil)
)

//go:embed store.lua
var text string

var script = redislua.New(text)

const (
	// Calls that come together share a pipeline of at most so many.
	pipeline      = 128
	pipelineBytes = 1 << 20
	// pipelinesAtOnce is how many are under way at once.
	pipelinesAtOnce = 2
)

// New makes a Store over client: a *redis.Client, also one with failover by Sentinel, or a *redis.ClusterClient. It does no I/O; what is wrong with the server
// shows at the first use.
func New(client redis.UniversalClient, cfg Config) *Store {
	s := &Store{client: client, cfg: cfg, prefix: escape.Replace(cmp.Or(cfg.Space, "breakwater")) + ":once:"}
	s.keeper = redislua.Keeper{Package: "redisstore", Kept: "records", Unfit: ErrServer, Log: cfg.Logger}
	if cfg.Logger == nil {
		s.keeper.Log = slog.New(slog.DiscardHandler)
	}
	s.err = s.keeper.Check(client)
	switch {
	case cfg.MemoKeys < 0:
		s.err = fmt.Errorf("redisstore: New: Config.MemoKeys is %d; want 0 for the default, or more (NoMemo for none)", cfg.MemoKeys)
	case cfg.MemoFor < 0:
		s.err = fmt.Errorf("redisstore: New: Config.MemoFor is %v; want 0 for the default, or more (NoMemo for none)", cfg.MemoFor)
	}
	if !cfg.NoMemo {
		s.memo = newMemo(cmp.Or(cfg.MemoKeys, 10_000), cmp.Or(cfg.MemoFor, time.Minute))
	}
	return s
}

// Check tells idempotency.New what is wrong with how the Store was made.
func (s *Store) Check() error { return s.err }

// escape makes a part of a key one that is followed by a colon.
var escape = strings.NewReplacer("%", "%25", ":", "%3A")

// key is where a record lies. The scope stands first, so that all of one can be found.
func (s *Store) key(n idempotency.Name) string {
	return s.prefix + escape.Replace(n.Scope) + ":" + escape.Replace(n.Op) + ":" + n.ID
}

// Claim implements [idempotency.Store].
func (s *Store) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	if s.memo != nil {
		if c, ok := s.memo.claim(&r); ok {
			return c, nil
		}
	}
	return s.claim(ctx, r)
}

// claim asks the server. It is apart, for its r is on the heap.
func (s *Store) claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	asked, epoch := time.Now(), 0
	if s.memo != nil {
		epoch = s.memo.now()
	}
	ask := ""
	if r.AskFirst {
		ask = "1"
	}
	v, err := s.run(ctx, r.Name, "claim", r.Token[:], r.Fingerprint, string(r.Version), ms(r.For), ms(r.Retention), ask)
	if err != nil {
		return idempotency.Claim{}, err
	}
	a := answer{v: v}
	var c idempotency.Claim
	switch state := a.text(0); state {
	case "claimed":
		c = idempotency.Claim{State: idempotency.Claimed, TakenOver: a.int(1) == 1}
	case "progress":
		c = idempotency.Claim{State: idempotency.InProgress, Rest: time.Duration(a.int(1)) * time.Millisecond}
	case "superseded":
		c = idempotency.Claim{State: idempotency.Superseded}
	case "mismatch":
		c = idempotency.Claim{State: idempotency.Mismatch}
	case "unknown":
		c = idempotency.Claim{State: idempotency.Unknown}
	case "done":
		c = idempotency.Claim{State: idempotency.Done, Result: a.bytes(3)}
		if s.memo != nil && !a.bad {
			s.memo.done(epoch, r.Name, r.Version, a.text(2), c.Result, asked.Add(time.Duration(a.int(1))*time.Millisecond))
		}
	default:
		a.bad = true
	}
	return c, a.err(r.Name)
}

// Extend implements [idempotency.Store]. Of a Cluster's node that is away nothing is known, and the others' leases are extended.
func (s *Store) Extend(ctx context.Context, leases []idempotency.Lease, lease time.Duration) (e idempotency.Extended, err error) {
	calls := make([]*call, len(leases))
	waits := make([]<-chan error, len(leases))
	for i, l := range leases {
		calls[i] = &call{ctx: ctx, key: s.key(l.Name), args: []any{"extend", l.Token[:], ms(lease)}}
		waits[i] = s.join(ctx, calls[i])
	}
	for i, l := range leases {
		v, callErr := calls[i].wait(ctx, l.Name, waits[i])
		switch {
		case callErr != nil:
			err = cmp.Or(err, callErr)
			e.Unknown = append(e.Unknown, l)
		case v != int64(1):
			e.Lost = append(e.Lost, l)
		}
	}
	if len(e.Unknown) < len(leases) {
		err = nil
	}
	return e, err
}

// Complete implements [idempotency.Store]. It works in a Redis that is full.
func (s *Store) Complete(ctx context.Context, l idempotency.Lease, result []byte, retention time.Duration) error {
	v, err := s.run(ctx, l.Name, "complete", l.Token[:], ms(retention), result)
	if err != nil {
		return err
	}
	if v != int64(1) {
		return fmt.Errorf("redisstore: %v: %w", l.Name, idempotency.ErrLeaseLost)
	}
	return nil
}

// Release implements [idempotency.Store].
func (s *Store) Release(ctx context.Context, l idempotency.Lease, retention time.Duration) error {
	_, err := s.run(ctx, l.Name, "release", l.Token[:], ms(retention))
	return err
}
