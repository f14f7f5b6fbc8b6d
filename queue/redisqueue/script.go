package redisqueue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/internal/redislua"
	"github.com/breakwater-go/breakwater/queue"
)

var (
	//go:embed lua/machine.lua
	machineText string
	//go:embed lua/enqueue.lua
	enqueueText string
	//go:embed lua/claim.lua
	claimText string
	//go:embed lua/extend.lua
	extendText string
	//go:embed lua/operate.lua
	operateText string
	//go:embed lua/stats.lua
	statsText string

	enqueueScript = newScript(enqueueText, redislua.Lossy)
	claimScript   = newScript(claimText, redislua.Retryable) // what is lost its worker sends again
	extendScript  = newScript(extendText, redislua.Retryable)
	operateScript = newScript(operateText, redislua.Lossy)
	statsScript   = newScript(statsText, redislua.Retryable)
)

// script is one step of the machine.
type script struct {
	redislua.Script

	again func(error) bool // whether it is sent again after an error
}

func newScript(text string, again func(error) bool) *script {
	return &script{redislua.New(machineText + "\n" + text), again}
}

// run runs a script in a partition, until ctx ends at most: what is under way then goes on by itself.
func (b *Broker) run(ctx context.Context, s *script, p int, name string, args ...any) (any, error) {
	if b.err != nil {
		return nil, b.err
	}
	return within(ctx, func(ctx context.Context) (any, error) {
		v, err := b.try(ctx, s, p, name, args)
		return v, wrap(name, err)
	})
}

func within[T any](ctx context.Context, do func(context.Context) (T, error)) (T, error) {
	return redislua.Within(ctx, "redisqueue", do)
}

// try sends a script, and again for as long as the script's again says so of the error. Enqueue and Claim found a space.
func (b *Broker) try(ctx context.Context, s *script, p int, name string, args []any) (any, error) {
	prepare := b.ready
	if s == enqueueScript || s == claimScript {
		prepare = b.found
	}
	if err := prepare(ctx, p); err != nil {
		return nil, err
	}
	args = append([]any{escape.Replace(name)}, args...)
	var v any
	err := redislua.Retry(ctx, b.client, s.again, func() (err error) {
		v, err = b.send(ctx, s, p, args)
		return err
	})
	return v, err
}

func (b *Broker) send(ctx context.Context, s *script, p int, args []any) (any, error) {
	keys := b.parts[p].guards
	if s == enqueueScript && b.cfg.Replicas > 0 {
		return b.sendReplicated(ctx, s, p, args)
	}
	return s.Run(ctx, b.client, keys, args...)
}

// sendReplicated also waits until enough replicas have what the script wrote. WAIT asks for what its own connection has written,
// so both go down one.
func (b *Broker) sendReplicated(ctx context.Context, s *script, p int, args []any) (any, error) {
	node, err := b.node(ctx, p)
	if err != nil {
		return nil, err
	}
	var v, wait *redis.Cmd
	once := func(name, text string) error {
		pipe := node.Pipeline()
		v = pipe.Do(ctx, append([]any{name, text, len(b.parts[p].guards), b.parts[p].guards[0], b.parts[p].guards[1]}, args...)...)
		wait = pipe.Do(ctx, "wait", b.cfg.Replicas, max(1, b.cfg.ReplicasWithin.Milliseconds()))
		_, err := pipe.Exec(ctx)
		return err
	}
	if err = once("evalsha", s.Hash); redislua.Unknown(v.Err()) {
		err = once("eval", s.Text)
	}
	switch {
	case v.Err() != nil:
		return nil, v.Err()
	case err != nil:
		return nil, err
	}
	if n, err := wait.Int(); err != nil || n < b.cfg.Replicas {
		return nil, fmt.Errorf("%w: %d of %d within %v", errors.Join(ErrNotReplicated, err), n, b.cfg.Replicas, b.cfg.ReplicasWithin)
	}
	return v.Val(), nil
}

func wrap(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case redis.HasErrorPrefix(err, "OOM"):
		return fmt.Errorf("redisqueue: queue %q: Redis is at its maxmemory and refuses new jobs until there is room; workers go on: %w", name, err)
	case redis.HasErrorPrefix(err, "NOPERM"):
		return fmt.Errorf("redisqueue: queue %q: the Redis user may not do what is needed (docs/redis.md prints its ACL): %w", name, err)
	case redis.HasErrorPrefix(err, "NEWERFORMAT"): // lua/machine.lua
		return fmt.Errorf("redisqueue: queue %q: its keys were written by a later version of this module: update this process: %w", name, errors.Join(queue.ErrNewerFormat, err))
	default:
		return fmt.Errorf("redisqueue: queue %q: %w", name, err)
	}
}

// reply reads a script's answer. The first thing that is not as it should be is kept as its error.
type reply struct {
	v   any
	bad *bool
}

func (r *reply) flag() *bool {
	if r.bad == nil {
		r.bad = new(bool)
	}
	return r.bad
}

func (r *reply) at(i int) *reply {
	list, ok := r.v.([]any)
	if !ok || i >= len(list) {
		*r.flag() = true
		return &reply{bad: r.bad}
	}
	return &reply{list[i], r.flag()}
}

func (r *reply) list() []*reply {
	list, ok := r.v.([]any)
	if !ok {
		*r.flag() = true
	}
	all := make([]*reply, len(list))
	for i := range list {
		all[i] = &reply{list[i], r.flag()}
	}
	return all
}

func (r *reply) text() string {
	s, ok := r.v.(string)
	if !ok {
		*r.flag() = true
	}
	return s
}

func (r *reply) int() int { return int(r.int64()) }

// int64 is a number, or the text of one that is too large for Lua's to come through.
func (r *reply) int64() int64 {
	switch v := r.v.(type) {
	case int64:
		return v
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n
		}
	}
	*r.flag() = true
	return 0
}

func (r *reply) err(name string) error {
	if *r.flag() {
		return fmt.Errorf("redisqueue: queue %q: an answer of another shape than this version's: %.100s", name, strings.ReplaceAll(fmt.Sprint(r.v), "\n", " "))
	}
	return nil
}
