package redisqueue

import (
	"context"
	"crypto/sha1" //nolint:gosec // that is how Redis names scripts
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

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

	enqueueScript = newScript(enqueueText, lossy)
	claimScript   = newScript(claimText, retryable) // what is lost its worker sends again
	extendScript  = newScript(extendText, retryable)
	operateScript = newScript(operateText, lossy)
	statsScript   = newScript(statsText, retryable)
)

// script is one step of the machine.
type script struct {
	text, hash string
	again      func(error) bool // whether it is sent again after an error
}

func newScript(text string, again func(error) bool) *script {
	text = machineText + "\n" + text
	sum := sha1.Sum([]byte(text)) //nolint:gosec // as above
	return &script{text, hex.EncodeToString(sum[:]), again}
}

// retryFor is how long a step is tried again that the server could not begin: a slot on its way, a failover.
const retryFor = 5 * time.Second

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

// within runs do until ctx ends at most: go-redis does not look at ctx while it reads. What is left of do ends with the client's own
// timeouts.
func within[T any](ctx context.Context, do func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("redisqueue: %w", context.Cause(ctx))
	}
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
	begin := time.Now()
	for n := 0; ; n++ {
		v, err := b.send(ctx, s, p, args)
		if err == nil || !s.again(err) || ctx.Err() != nil || time.Since(begin) > retryFor {
			return v, err
		}
		if c, ok := b.client.(*redis.ClusterClient); ok {
			c.ReloadState(ctx) // what it asks for by node, it would find where it was
		}
		pause := time.NewTimer(rand.N(min(250*time.Millisecond, 20*time.Millisecond<<min(n, 4))))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, err
		}
	}
}

// send runs a script by its hash, and with its text if the server does not know it.
func (b *Broker) send(ctx context.Context, s *script, p int, args []any) (any, error) {
	keys := b.parts[p].guards
	if s == enqueueScript && b.cfg.Replicas > 0 {
		return b.sendReplicated(ctx, s, p, args)
	}
	v, err := b.client.EvalSha(ctx, s.hash, keys, args...).Result()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		v, err = b.client.Eval(ctx, s.text, keys, args...).Result()
	}
	return v, err
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
	if err = once("evalsha", s.hash); redis.HasErrorPrefix(v.Err(), "NOSCRIPT") {
		err = once("eval", s.text)
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

// retryable says whether the server refused a script before it began, and may take it soon.
func retryable(err error) bool {
	for _, prefix := range [...]string{"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "MOVED", "ASK", "NOREPLICAS", "BUSY"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// lossy says whether a script may be sent again that may have run.
func lossy(err error) bool {
	if retryable(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	_, network := errors.AsType[net.Error](err)
	return network
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
