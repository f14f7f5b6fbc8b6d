package redisqueue

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// operate runs an operator's step. It has an ID, so that one which is sent again, by go-redis too, takes effect once and gets the same answer.
func (b *Broker) operate(ctx context.Context, p int, name, what string, args ...any) (*reply, error) {
	v, err := b.run(ctx, operateScript, p, name, append([]any{rand.Text(), what}, args...)...)
	return &reply{v: v}, err
}

// Replay implements [queue.Operator].
func (b *Broker) Replay(ctx context.Context, name string, ids []string) (int, error) {
	return b.each(ctx, name, "replay", ids)
}

// Drop implements [queue.Operator].
func (b *Broker) Drop(ctx context.Context, name string, ids []string) (int, error) {
	return b.each(ctx, name, "drop", ids)
}

func (b *Broker) each(ctx context.Context, name, what string, ids []string) (int, error) {
	if len(ids) > stepIDs {
		return 0, fmt.Errorf("redisqueue: %d ids in one step; at most %d", len(ids), stepIDs)
	}
	n := 0
	for p := range b.parts {
		r, err := b.operate(ctx, p, name, what, anys(ids)...)
		if err != nil {
			return n, err
		}
		n += r.int()
		if err := r.err(name); err != nil {
			return n, err
		}
	}
	return n, nil
}

func anys(names []string) []any {
	list := make([]any, len(names))
	for i, name := range names {
		list[i] = name
	}
	return list
}

// Cancel implements [queue.Operator].
func (b *Broker) Cancel(ctx context.Context, name, id string) (queue.State, error) {
	for p := range b.parts {
		r, err := b.operate(ctx, p, name, "cancel", id)
		if err != nil {
			return "", err
		}
		if state := r.text(); state != "" || *r.flag() {
			return queue.State(state), r.err(name)
		}
	}
	return "", fmt.Errorf("%w: %s", queue.ErrUnknownJob, id)
}

// Pause implements [queue.Operator].
func (b *Broker) Pause(ctx context.Context, name string) error {
	return b.everywhere(ctx, name, "pause")
}

// Resume implements [queue.Operator].
func (b *Broker) Resume(ctx context.Context, name string) error {
	return b.everywhere(ctx, name, "resume")
}

func (b *Broker) everywhere(ctx context.Context, name, what string) error {
	for p := range b.parts {
		if _, err := b.operate(ctx, p, name, what); err != nil {
			return err
		}
	}
	return nil
}

// Park implements [queue.Operator].
func (b *Broker) Park(ctx context.Context, name, group string, d time.Duration) error {
	_, err := b.operate(ctx, b.partitionOf(group), name, "park", group, micros(d))
	return err
}

// Limit implements [queue.Operator].
func (b *Broker) Limit(ctx context.Context, name, group string, limits queue.Limits) error {
	_, err := b.operate(ctx, b.partitionOf(group), name, "limit", group, limits.Cap, limits.Weight)
	return err
}
