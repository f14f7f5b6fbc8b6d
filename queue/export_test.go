package queue

// Size counts all that a queue holds but its ended leases' timers, remembered batches and answers,
// which end by themselves.
func (m *Memory) Size(queue string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queue(queue)
	return len(q.lanes) + len(q.groups) + q.ring.len() + len(q.leased) + len(q.waiting) + len(q.keys) + len(q.keyEnds)
}
