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
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/internal/coalesce"
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
	// scanCount is how many keys one step of a purge looks at.
	scanCount = 1000
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
	asked := time.Now()
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
			s.memo.done(r.Name, r.Version, a.text(2), c.Result, asked.Add(time.Duration(a.int(1))*time.Millisecond))
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
		calls[i] = &call{key: s.key(l.Name), args: []any{"extend", l.Token[:], ms(lease)}}
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

// Inspect implements [idempotency.Operator].
func (s *Store) Inspect(ctx context.Context, name idempotency.Name) (idempotency.Record, error) {
	v, err := s.run(ctx, name, "inspect")
	if err != nil {
		return idempotency.Record{}, err
	}
	if list, ok := v.([]any); ok && len(list) == 0 {
		return idempotency.Record{}, fmt.Errorf("redisstore: %v: %w", name, idempotency.ErrNoRecord)
	}
	a := answer{v: v}
	rec := idempotency.Record{
		Name: name, Kept: time.Duration(a.int(3)) * time.Millisecond, Fingerprint: a.text(4), Version: idempotency.Version(a.text(5)), Result: a.bytes(6),
	}
	copy(rec.Token[:], a.text(1))
	switch rest := a.int(2); a.int(0) {
	case recordProgress:
		rec.State, rec.Rest = idempotency.InProgress, time.Duration(rest)*time.Millisecond
		if rest <= 0 {
			rec.State, rec.Rest = idempotency.Unknown, 0
		}
	case recordDone:
		rec.State = idempotency.Done
	case recordReleased:
		rec.State = idempotency.Released
	default:
		a.bad = true
	}
	return rec, a.err(name)
}

// States of a record, as store.lua has them; 0 is said of a lease that has ended.
const (
	recordEnded    = 0
	recordProgress = 1
	recordDone     = 2
	recordReleased = 3
)

// Resolve implements [idempotency.Operator].
func (s *Store) Resolve(ctx context.Context, seen idempotency.Record, as idempotency.Resolution) error {
	state, forget := -1, ""
	switch seen.State {
	case idempotency.InProgress:
		state = recordProgress
	case idempotency.Unknown:
		state = recordEnded
	case idempotency.Done:
		state = recordDone
	case idempotency.Released:
		state = recordReleased
	case idempotency.Claimed, idempotency.Superseded, idempotency.Mismatch:
	}
	if as.Forget {
		forget = "1"
	}
	v, err := s.run(ctx, seen.Name, "resolve", seen.Token[:], strconv.Itoa(state), forget, ms(as.Retention), as.Result)
	if err != nil {
		return err
	}
	switch v {
	case "settled":
		if s.memo != nil {
			s.memo.forget(seen.Name)
		}
		return nil
	case "progress":
		return fmt.Errorf("redisstore: %v: %w", seen.Name, idempotency.ErrInProgress)
	default:
		return fmt.Errorf("redisstore: %v: %w", seen.Name, idempotency.ErrChanged)
	}
}

// Purge implements [idempotency.Operator]. It looks through the names of all keys of the server (SCAN), a thousand at a time: on a large one it takes seconds, and holds nobody up.
func (s *Store) Purge(ctx context.Context, scope string) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.memo != nil {
		s.memo.purge(scope)
	}
	return redislua.Within(ctx, "redisstore: purge", func(ctx context.Context) (int, error) {
		c, ok := s.client.(*redis.ClusterClient)
		if !ok {
			return s.purge(ctx, s.client, scope)
		}
		var mu sync.Mutex
		n := 0
		err := c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			of, err := s.purge(ctx, node, scope)
			mu.Lock()
			defer mu.Unlock()
			n += of
			return err
		})
		return n, err
	})
}

func (s *Store) purge(ctx context.Context, node redis.UniversalClient, scope string) (n int, err error) {
	prefix := s.prefix + escape.Replace(scope) + ":"
	match := glob.Replace(prefix) + "*"
	for cursor := uint64(0); ; {
		keys, next, err := node.Scan(ctx, cursor, match, scanCount).Result()
		if err != nil {
			return n, wrap(fmt.Sprintf("purge of %q", scope), err)
		}
		if len(keys) > 0 {
			dels, err := s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error { // each where it lives: a slot may be on its way
				for _, k := range keys {
					pipe.Del(ctx, k)
				}
				return nil
			})
			if err != nil {
				return n, wrap(fmt.Sprintf("purge of %q", scope), err)
			}
			for _, d := range dels {
				if d, ok := d.(*redis.IntCmd); ok {
					n += int(d.Val())
				}
			}
		}
		if cursor = next; cursor == 0 {
			return n, nil
		}
	}
}

// glob makes a text one that SCAN finds as it stands.
var glob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// node is a server, and the line of those who want something of it: one that is away holds up nobody's else.
type node struct {
	client  *redis.Client
	line    coalesce.Line[*call]
	looking chan struct{} // held by whoever looks at it for the first time
	fit     atomic.Bool
}

// node finds the server that has a key.
func (s *Store) node(ctx context.Context, key string) (*node, error) {
	if s.err != nil {
		return nil, s.err
	}
	client, _ := s.client.(*redis.Client)
	if c, ok := s.client.(*redis.ClusterClient); ok {
		var err error
		if client, err = redislua.Within(ctx, "redisstore", func(ctx context.Context) (*redis.Client, error) { return c.MasterForKey(ctx, key) }); err != nil {
			return nil, err
		}
	}
	addr := client.Options().Addr
	if n, ok := s.nodes.Load(addr); ok {
		return n.(*node), nil //nolint:forcetypeassert // nothing else is in there
	}
	n := &node{client: client, looking: make(chan struct{}, 1)}
	n.line.MaxCount, n.line.MaxBytes, n.line.AtOnce, n.line.Send = pipeline, pipelineBytes, pipelinesAtOnce, s.send
	first, _ := s.nodes.LoadOrStore(addr, n)
	return first.(*node), nil //nolint:forcetypeassert // as above
}

// ready looks at a server before its first use, until all is well.
func (s *Store) ready(ctx context.Context, n *node) error {
	if n.fit.Load() {
		return nil
	}
	select {
	case n.looking <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-n.looking }()
	if n.fit.Load() {
		return nil
	}
	_, err := redislua.Within(ctx, "redisstore", func(ctx context.Context) (struct{}, error) { return struct{}{}, s.keeper.Look(ctx, n.client) })
	n.fit.Store(err == nil)
	return err
}

// call is one step, and its answer.
type call struct {
	key  string
	args []any
	v    any
	err  error
}

// run does one step. It is sent again, for up to 5 s, when the server could not begin it or its answer was lost.
func (s *Store) run(ctx context.Context, name idempotency.Name, step string, args ...any) (any, error) {
	c := &call{key: s.key(name), args: append([]any{step}, args...)}
	return c.wait(ctx, name, s.join(ctx, c))
}

// join puts a step into its server's line. What keeps it from that is the call's error.
func (s *Store) join(ctx context.Context, c *call) <-chan error {
	n, err := s.node(ctx, c.key)
	if err == nil {
		err = s.ready(ctx, n)
	}
	if err != nil {
		c.err = err
		done := make(chan error, 1)
		done <- err
		return done
	}
	size := len(c.key)
	for _, a := range c.args {
		if b, ok := a.([]byte); ok {
			size += len(b)
		}
	}
	return n.line.Join(ctx, c, 1, size)
}

func (c *call) wait(ctx context.Context, name idempotency.Name, done <-chan error) (any, error) {
	select {
	case <-done: //nolint:errcheck // each call has its own error
		if c.err != nil {
			return nil, wrap(name.String(), c.err)
		}
		return c.v, nil
	case <-ctx.Done():
		return nil, wrap(name.String(), context.Cause(ctx))
	}
}

// send sends steps down one pipeline, and those again that were lost.
func (s *Store) send(ctx context.Context, calls []*call) error {
	left := calls
	return redislua.Retry(ctx, s.client, redislua.Lossy, func() error {
		s.pipe(ctx, left, false)
		var flushed []*call
		for _, c := range left {
			if redislua.Unknown(c.err) {
				flushed = append(flushed, c)
			}
		}
		if len(flushed) > 0 {
			s.pipe(ctx, flushed, true)
		}
		var again []*call
		var first error
		for _, c := range left {
			if c.err != nil && redislua.Lossy(c.err) {
				again, first = append(again, c), cmp.Or(first, c.err)
			}
		}
		left = again
		return first
	})
}

func (s *Store) pipe(ctx context.Context, calls []*call, whole bool) {
	pipe := s.client.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	for i, c := range calls {
		if whole {
			cmds[i] = pipe.Eval(ctx, script.Text, []string{c.key}, c.args...)
		} else {
			cmds[i] = pipe.EvalSha(ctx, script.Hash, []string{c.key}, c.args...)
		}
	}
	_, _ = pipe.Exec(ctx) // each has its own error
	for i, c := range calls {
		c.v, c.err = cmds[i].Result()
	}
}

// ms is a span in whole milliseconds, at least one: rounded up, for what was promised must hold.
func ms(d time.Duration) int64 {
	return max(1, int64(math.Ceil(float64(d)/float64(time.Millisecond))))
}

func wrap(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case redis.HasErrorPrefix(err, "NEWERFORMAT"): // store.lua
		return fmt.Errorf("redisstore: %s: written by a later version of this module: update this process: %w", what, errors.Join(idempotency.ErrNewerFormat, err))
	case redis.HasErrorPrefix(err, "NOPERM"):
		return fmt.Errorf("redisstore: %s: the Redis user may not do what is needed (docs/idempotency.md prints its ACL): %w", what, err)
	case redis.HasErrorPrefix(err, "OOM"):
		return fmt.Errorf("redisstore: %s: Redis is at its maxmemory and takes no new claims until there is room: %w", what, err)
	default:
		return fmt.Errorf("redisstore: %s: %w", what, err)
	}
}

// answer reads what a script answers.
type answer struct {
	v   any
	bad bool
}

func (a *answer) at(i int) any {
	list, ok := a.v.([]any)
	if !ok || i >= len(list) {
		a.bad = true
		return nil
	}
	return list[i]
}

func (a *answer) text(i int) string {
	s, ok := a.at(i).(string)
	a.bad = a.bad || !ok
	return s
}

func (a *answer) int(i int) int64 {
	n, ok := a.at(i).(int64)
	a.bad = a.bad || !ok
	return n
}

// bytes are nil if there are none.
func (a *answer) bytes(i int) []byte {
	if s := a.text(i); s != "" {
		return []byte(s)
	}
	return nil
}

func (a *answer) err(name idempotency.Name) error {
	if a.bad {
		return fmt.Errorf("redisstore: %v: an answer of another shape than this version's: %.100q", name, fmt.Sprint(a.v))
	}
	return nil
}
