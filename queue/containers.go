package queue

import (
	"slices"
	"time"
)

// laneHeap is a heap of lanes by their at. Each lane knows its place, so that an entry can be moved and
// taken out: no stale ones are left behind.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *laneHeap) Push(x any) {
	l := x.(*lane) //nolint:forcetypeassert // container/heap's shape
	l.index = len(*h)
	*h = append(*h, l)
}

func (h *laneHeap) Pop() any { return pop((*[]*lane)(h)) }

// jobHeap is a heap of scheduled jobs by when they are due, and among equals by when they were accepted.
type jobHeap []*stored

func (h jobHeap) Len() int      { return len(h) }
func (h jobHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *jobHeap) Push(x any)   { *h = append(*h, x.(*stored)) } //nolint:forcetypeassert // container/heap's shape
func (h *jobHeap) Pop() any     { return pop((*[]*stored)(h)) }

func (h jobHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}

// keyEnd is when a dedupe key ends.
type keyEnd struct {
	at time.Time
	id dedupeID
}

// keyHeap is a heap of keys by their ends.
type keyHeap []keyEnd

func (h keyHeap) Len() int           { return len(h) }
func (h keyHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h keyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *keyHeap) Push(x any)        { *h = append(*h, x.(keyEnd)) } //nolint:forcetypeassert // container/heap's shape
func (h *keyHeap) Pop() any          { return pop((*[]keyEnd)(h)) }

// pop takes out the last item, and leaves nothing of it in the slice.
func pop[T any](list *[]T) T {
	var zero T
	last := len(*list) - 1
	v := (*list)[last]
	(*list)[last] = zero
	*list = (*list)[:last]
	return v
}

// deque is a double-ended queue over a slice.
type deque[T any] struct {
	items []T
	head  int
}

func (d *deque[T]) len() int     { return len(d.items) - d.head }
func (d *deque[T]) front() T     { return d.items[d.head] }
func (d *deque[T]) pushBack(v T) { d.items = append(d.items, v) }

func (d *deque[T]) at(i int) T        { return d.items[d.head+i] }
func (d *deque[T]) insert(i int, v T) { d.items = slices.Insert(d.items, d.head+i, v) }

func (d *deque[T]) popFront() T {
	var zero T
	v := d.items[d.head]
	d.items[d.head] = zero
	d.head++
	switch {
	case d.head == len(d.items):
		d.items, d.head = d.items[:0], 0
	case d.head > 64 && d.head*2 > len(d.items):
		n := copy(d.items, d.items[d.head:])
		clear(d.items[n:])
		d.items, d.head = d.items[:n], 0
	}
	return v
}
