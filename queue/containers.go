package queue

// timed is embedded in what waits for a time. It knows its place in its heap, so that it can be moved and
// taken out: no stale entries are left behind.
type timed struct {
	at    tick
	seq   uint64 // among equals, what was put in first comes first
	index int
}

func (t *timed) timing() *timed { return t }

// timers is a heap for container/heap of what waits, soonest first.
type timers[T interface{ timing() *timed }] []T

func (h timers[T]) Len() int { return len(h) }

func (h timers[T]) Less(i, j int) bool {
	a, b := h[i].timing(), h[j].timing()
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (h timers[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timing().index, h[j].timing().index = i, j
}

func (h *timers[T]) Push(x any) {
	v := x.(T) //nolint:forcetypeassert // container/heap's shape
	v.timing().index = len(*h)
	*h = append(*h, v)
}

func (h *timers[T]) Pop() any {
	var zero T
	last := len(*h) - 1
	v := (*h)[last]
	(*h)[last] = zero
	*h = (*h)[:last]
	return v
}

// soonest answers the first entry if it is due by now.
func (h timers[T]) soonest(now tick) (first T, due bool) {
	if len(h) == 0 || h[0].timing().at > now {
		return first, false
	}
	return h[0], true
}

// laneList is a list of lanes that are linked by their own fields. A lane is in one at most.
type laneList struct{ first, last *lane }

// insert puts l before next, or at the end.
func (s *laneList) insert(l, next *lane) {
	prev := s.last
	if next != nil {
		prev = next.prev
		next.prev = l
	} else {
		s.last = l
	}
	if prev != nil {
		prev.next = l
	} else {
		s.first = l
	}
	l.prev, l.next = prev, next
}

func (s *laneList) remove(l *lane) {
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		s.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		s.last = l.prev
	}
	l.prev, l.next = nil, nil
}

// ring is a class's groups in the order of their turns, linked by their own fields.
type ring struct {
	class       Class
	first, last *group
}

func (r *ring) push(g *group) {
	seat := &g.seat[r.class]
	seat.taken, seat.prev, seat.next = true, r.last, nil
	if r.last != nil {
		r.last.seat[r.class].next = g
	} else {
		r.first = g
	}
	r.last = g
}

func (r *ring) remove(g *group) {
	seat := &g.seat[r.class]
	if seat.prev != nil {
		seat.prev.seat[r.class].next = seat.next
	} else {
		r.first = seat.next
	}
	if seat.next != nil {
		seat.next.seat[r.class].prev = seat.prev
	} else {
		r.last = seat.prev
	}
	seat.taken, seat.prev, seat.next = false, nil, nil
}

// deque is a queue over a slice.
type deque[T any] struct {
	items []T
	head  int
}

func (d *deque[T]) len() int     { return len(d.items) - d.head }
func (d *deque[T]) front() T     { return d.items[d.head] }
func (d *deque[T]) pushBack(v T) { d.items = append(d.items, v) }

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
