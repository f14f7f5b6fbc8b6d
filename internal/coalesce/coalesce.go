// Package coalesce sends together what comes together, without a timer: the first call goes at once, and those that come while it is
// under way share the next.
package coalesce

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// Line is where calls stand until they are sent. It must not be copied after first use.
type Line[T any] struct {
	MaxCount, MaxBytes int // of what is sent at once, unless one call alone is larger
	AtOnce             int // how many sends are under way at once
	// Send sends calls. Its context lasts as long as one of their callers waits. What it answers each of them gets.
	Send func(ctx context.Context, calls []T) error

	mu      sync.Mutex
	waiting []*call[T]
	sending int
}

type call[T any] struct {
	ctx          context.Context //nolint:containedctx // it says until when somebody waits
	in           T
	count, bytes int
	done         chan error
}

// Join puts a call into the line. in is Send's to write to until the answer has come, also if its caller has left.
func (l *Line[T]) Join(ctx context.Context, in T, count, bytes int) <-chan error {
	c := &call[T]{ctx, in, count, bytes, make(chan error, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, c)
	if l.sending < l.AtOnce {
		l.sending++
		go l.flush() // ends when nobody waits
	}
	return c.done
}

// Len is how many sends are under way, and how many calls wait for the next.
func (l *Line[T]) Len() (underWay, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sending, len(l.waiting)
}

func (l *Line[T]) flush() {
	for {
		taken := l.take()
		if taken == nil {
			return
		}
		l.send(taken)
	}
}

// take takes those for the next send, without those who have left.
func (l *Line[T]) take() []*call[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = slices.DeleteFunc(l.waiting, func(c *call[T]) bool { return c.ctx.Err() != nil })
	n, count, bytes := 0, 0, 0
	for _, c := range l.waiting {
		count += c.count
		bytes += c.bytes
		if n > 0 && (count > l.MaxCount || bytes > l.MaxBytes) {
			break
		}
		n++
	}
	if n == 0 {
		l.sending--
		return nil
	}
	taken := slices.Clone(l.waiting[:n])
	clear(l.waiting[:n])
	l.waiting = l.waiting[n:]
	return taken
}

func (l *Line[T]) send(taken []*call[T]) {
	ctx, cancel := anyOf(taken)
	defer cancel()
	calls := make([]T, len(taken))
	for i, c := range taken {
		calls[i] = c.in
	}
	err := l.Send(ctx, calls)
	for _, c := range taken {
		c.done <- err
	}
}

// anyOf is a context that lasts as long as one of those who wait does.
func anyOf[T any](taken []*call[T]) (context.Context, context.CancelFunc) {
	if len(taken) == 1 {
		return context.WithCancel(taken[0].ctx)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(taken[0].ctx))
	var left atomic.Int64
	left.Store(int64(len(taken)))
	stops := make([]func() bool, len(taken))
	for i, c := range taken {
		stops[i] = context.AfterFunc(c.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
