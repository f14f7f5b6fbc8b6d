package queue_test

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/breakwater-go/breakwater/queue"
)

// deafBroker is a memory broker whose connection fails in chosen ways.
type deafBroker struct {
	*queue.Memory
	deaf       atomic.Bool  // heartbeats fail
	away       atomic.Bool  // everything fails
	mute       atomic.Bool  // Wait never returns
	hangs      atomic.Int64 // so many heartbeats hang
	calls      atomic.Int64
	beats      atomic.Int64
	leases     atomic.Int64 // given out
	claimsFail atomic.Int64 // from this Claim on they do; 0 means none

	useless bool // Wait returns at once, with waitErr
	waitErr error
}

var errAway = errors.New("broker is away")

func (b *deafBroker) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	n := b.calls.Add(1)
	if from := b.claimsFail.Load(); b.away.Load() || from > 0 && n >= from {
		return queue.Claimed{}, errAway
	}
	c, err := b.Memory.Claim(ctx, name, call)
	b.leases.Add(int64(len(c.Jobs)))
	return c, err
}

func (b *deafBroker) Enqueue(ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
	if b.away.Load() {
		return nil, errAway
	}
	return b.Memory.Enqueue(ctx, name, batch)
}

func (b *deafBroker) Extend(ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
	b.beats.Add(1)
	if b.hangs.Add(-1) >= 0 {
		<-ctx.Done()
		return queue.Extended{}, ctx.Err()
	}
	if b.deaf.Load() || b.away.Load() {
		return queue.Extended{}, errAway
	}
	return b.Memory.Extend(ctx, name, beat)
}

func (b *deafBroker) Wait(ctx context.Context, name string, partition int) error {
	if b.useless {
		return b.waitErr
	}
	if b.mute.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.Memory.Wait(ctx, name, partition)
}
