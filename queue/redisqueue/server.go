package redisqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrServer is wrapped by the error for a server that can't keep a queue: too old, or set to evict keys.
var ErrServer = errors.New("redisqueue: this server can't keep a queue")

// founded is found, until ctx ends at most.
func (b *Broker) founded(ctx context.Context) error {
	if b.agreed.Load() {
		return nil
	}
	return within(ctx, b.found)
}

// found sees to it, before the first Enqueue or Claim, that the space notes its number of partitions. Whoever only looks notes nothing.
func (b *Broker) found(ctx context.Context) error {
	if b.agreed.Load() {
		return nil
	}
	if err := b.ready(ctx); err != nil || b.agreed.Load() {
		return err
	}
	if err := b.client.SetNX(ctx, b.partitionsKey(), len(b.parts), 0).Err(); err != nil {
		return fmt.Errorf("redisqueue: note how many partitions space %q has: %w", b.cfg.Space, err)
	}
	return b.agree(ctx)
}

// ready looks at the servers before the first use, until they are fit.
func (b *Broker) ready(ctx context.Context) error {
	if b.checked.Load() {
		return nil
	}
	if b.err != nil {
		return b.err
	}
	select {
	case b.checking <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("redisqueue: look at the server: %w", context.Cause(ctx))
	}
	defer func() { <-b.checking }()
	if b.checked.Load() {
		return nil
	}
	seen := map[string]bool{}
	for p := range b.parts {
		node, err := b.node(ctx, p)
		if err != nil {
			return fmt.Errorf("redisqueue: find the server of partition %d: %w", p, err)
		}
		addr := node.Options().Addr
		if seen[addr] {
			continue
		}
		seen[addr] = true
		if err := b.look(ctx, node, addr); err != nil {
			return err
		}
	}
	if err := b.agree(ctx); err != nil {
		return err
	}
	b.checked.Store(true)
	return nil
}

// ErrPartitions is wrapped by the error for a space that was made with another number of partitions: groups would be looked for where
// they are not.
var ErrPartitions = errors.New("redisqueue: Config.Partitions does not fit the space")

func (b *Broker) partitionsKey() string { return b.parts[0].prefix + "partitions" }

// agree compares Config.Partitions with what the space was made with, if it was.
func (b *Broker) agree(ctx context.Context) error {
	n, err := b.client.Get(ctx, b.partitionsKey()).Int()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("redisqueue: ask how many partitions space %q has: %w", b.cfg.Space, err)
	}
	if n != len(b.parts) {
		return fmt.Errorf("%w: space %q has %d and not %d; docs/redis.md says how to change that", ErrPartitions, b.cfg.Space, n, len(b.parts))
	}
	b.agreed.Store(true)
	return nil
}

// node is the server that has a partition.
func (b *Broker) node(ctx context.Context, p int) (*redis.Client, error) {
	switch c := b.client.(type) {
	case *redis.Client:
		return c, nil
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, b.parts[p].guards[0])
	default:
		return nil, errors.ErrUnsupported // New has refused it
	}
}

// look asks a server what it is by INFO, which managed services allow where they have no CONFIG.
func (b *Broker) look(ctx context.Context, node *redis.Client, addr string) error {
	text, err := node.Info(ctx).Result()
	if redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "ERR unknown command") {
		b.log.Warn("redisqueue: the server does not say what it is (INFO): whether it evicts keys, and whether it keeps them on its disk, is unknown", "addr", addr)
		return nil
	}
	if err != nil {
		return fmt.Errorf("redisqueue: ask the server at %s what it is: %w", addr, err)
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return b.judge(info, addr)
}

func (b *Broker) judge(info map[string]string, addr string) error {
	if v := info["redis_version"]; v != "" && !atLeast(v, 6, 2) {
		return fmt.Errorf("%w: %s runs Redis %s; want 6.2 or later, or Valkey", ErrServer, addr, v)
	}
	switch policy := info["maxmemory_policy"]; policy {
	case "noeviction":
	case "":
		b.log.Warn("redisqueue: the server does not say whether it evicts keys; jobs are lost if it does: maxmemory-policy must be noeviction", "addr", addr)
	default:
		return fmt.Errorf("%w: %s evicts keys when its memory is full (maxmemory-policy %s), jobs among them; set it to noeviction", ErrServer, addr, policy)
	}
	switch info["aof_enabled"] {
	case "1":
	case "0":
		b.log.Warn("redisqueue: the server has no append-only file: a crash of it loses what was accepted since its last snapshot; set appendonly yes", "addr", addr)
	default:
		b.log.Warn("redisqueue: the server does not say whether it has an append-only file; without one a crash of it loses jobs", "addr", addr)
	}
	return nil
}

func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return true // no number that we know how to read
	}
	a, errA := strconv.Atoi(parts[0])
	b, errB := strconv.Atoi(parts[1])
	return errA != nil || errB != nil || a > major || a == major && b >= minor
}
