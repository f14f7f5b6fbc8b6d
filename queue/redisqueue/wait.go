package redisqueue

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// waitFor is how long one BZPOPMIN waits: Redis and go-redis count whole seconds, and a worker looks by itself after 5 s.
const waitFor = 5 * time.Second

// passOn is how long after a hint a process may take to claim before another one gets it.
const passOn = 20 * time.Millisecond

// waiter is the one command that waits at a place for all of the process.
type waiter struct {
	done chan struct{} // closed when it has returned
	err  error         // then
	left int           // those who still want to know
}

// Wait implements [queue.Broker]. It has a connection of the client's pool for as long as it waits, one for each queue and
// partition. It returns after 5 s in any case.
func (b *Broker) Wait(ctx context.Context, name string, partition int) error {
	if err := b.part(partition); err != nil {
		return err
	}
	at := place{name, partition}
	b.mu.Lock()
	w := b.waiters[at]
	if w == nil {
		w = &waiter{done: make(chan struct{})}
		b.waiters[at] = w
		go b.wait(context.WithoutCancel(ctx), at, w) // ends after waitFor
	}
	w.left++
	b.mu.Unlock()
	select {
	case <-w.done:
		return wrap(name, w.err)
	case <-ctx.Done():
		b.mu.Lock()
		w.left--
		b.mu.Unlock()
		return ctx.Err()
	}
}

func (b *Broker) wait(ctx context.Context, at place, w *waiter) {
	key := b.parts[at.partition].prefix + escape.Replace(at.queue) + ":wake"
	err := b.ready(ctx, at.partition)
	if err == nil {
		err = b.client.BZPopMin(ctx, waitFor, key).Err()
	}
	woken := err == nil
	if errors.Is(err, redis.Nil) {
		err = nil // nothing happened for waitFor
	}
	b.mu.Lock()
	nobody, claims := w.left == 0, b.claims[at]
	w.err = err
	delete(b.waiters, at)
	close(w.done)
	b.mu.Unlock()
	if !woken {
		return
	}
	if !nobody {
		time.Sleep(passOn)
		b.mu.Lock()
		nobody = b.claims[at] == claims // whoever waited has no slot any more
		b.mu.Unlock()
	}
	if nobody { // another process may want to know
		ctx, cancel := context.WithTimeout(ctx, waitFor)
		defer cancel()
		_ = b.client.ZAddNX(ctx, key, redis.Z{Member: ""}).Err() // a hint that is lost is made up for by the next look
	}
}

// asked notes that the process has asked for jobs.
func (b *Broker) asked(at place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.claims[at]++
}
