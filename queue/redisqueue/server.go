package redisqueue

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// ErrServer is wrapped by the error for a server that can't keep a queue: too old, or set to evict keys.
var ErrServer = errors.New("redisqueue: this server can't keep a queue")

// ErrPartitions is wrapped by the error for a space that was made with another number of partitions: groups would be looked for where
// they are not.
var ErrPartitions = errors.New("redisqueue: Config.Partitions does not fit the space")

// found sees to it, before the first Enqueue or Claim in a partition, that the space's number of partitions is noted. Whoever only looks
// notes nothing. The first partition decides; each has a copy, so that one which is away does not keep anybody from the others.
func (b *Broker) found(ctx context.Context, p int) error {
	if b.parts[p].noted.Load() {
		return nil
	}
	if err := b.ready(ctx, p); err != nil || b.parts[p].noted.Load() {
		return err
	}
	for _, at := range []int{0, p} {
		if err := b.client.SetNX(ctx, b.partitionsKey(at), len(b.parts), 0).Err(); err != nil {
			return fmt.Errorf("redisqueue: note how many partitions space %q has: %w", b.cfg.Space, err)
		}
		if _, err := b.agrees(ctx, at); err != nil {
			return err
		}
	}
	b.parts[p].noted.Store(true)
	return nil
}

// ready looks at a partition before its first use, until all is well.
func (b *Broker) ready(ctx context.Context, p int) error {
	part := b.parts[p]
	if part.ready.Load() {
		return nil
	}
	select {
	case part.looking <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-part.looking }()
	if part.ready.Load() {
		return nil
	}
	node, err := b.node(ctx, p)
	if err != nil {
		return fmt.Errorf("redisqueue: find the server of partition %d: %w", p, err)
	}
	if err := b.look(ctx, node); err != nil {
		return err
	}
	noted, err := b.agrees(ctx, p)
	if err == nil && !noted {
		_, err = b.agrees(ctx, 0)
	}
	if err != nil {
		return err
	}
	part.noted.Store(noted)
	part.ready.Store(true)
	return nil
}

func (b *Broker) partitionsKey(p int) string { return b.parts[p].prefix + "partitions" }

// agrees compares Config.Partitions with what a partition has noted, if it has.
func (b *Broker) agrees(ctx context.Context, p int) (noted bool, err error) {
	n, err := b.client.Get(ctx, b.partitionsKey(p)).Int()
	switch {
	case errors.Is(err, redis.Nil):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("redisqueue: ask how many partitions space %q has: %w", b.cfg.Space, err)
	case n != len(b.parts):
		return false, fmt.Errorf("%w: space %q has %d and not %d; docs/redis.md says how to change that", ErrPartitions, b.cfg.Space, n, len(b.parts))
	}
	return true, nil
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

// look asks a server, once, whether it can keep a queue.
func (b *Broker) look(ctx context.Context, node *redis.Client) error {
	addr := node.Options().Addr
	if _, fit := b.fit.Load(addr); fit {
		return nil
	}
	if err := b.keeper.Look(ctx, node); err != nil {
		return err
	}
	b.fit.Store(addr, true)
	return nil
}
