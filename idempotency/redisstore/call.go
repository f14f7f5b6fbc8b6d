package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/internal/coalesce"
	"github.com/breakwater-go/breakwater/internal/redislua"
)

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
	_, err := redislua.Within(ctx, "redisstore", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, redislua.Retry(ctx, n.client, redislua.Lossy, func() error { return s.keeper.Look(ctx, n.client) })
	})
	n.fit.Store(err == nil)
	return err
}

// call is one step, and its answer.
type call struct {
	ctx  context.Context //nolint:containedctx // it says until when somebody waits
	key  string
	args []any
	v    any
	err  error
}

// run does one step. It is sent again, for up to 5 s, when the server could not begin it or its answer was lost.
func (s *Store) run(ctx context.Context, name idempotency.Name, step string, args ...any) (any, error) {
	c := &call{ctx: ctx, key: s.key(name), args: append([]any{step}, args...)}
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
			if c.err != nil && redislua.Lossy(c.err) && c.ctx.Err() == nil { // who has left has given it back by now
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
