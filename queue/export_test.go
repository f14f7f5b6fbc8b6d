package queue

import "time"

// Steal enqueues a job and leases it to a process that then dies, before any worker sees it.
func (m *Memory) Steal(q *Queue, job Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	job.ID, job.MaxAttempts, job.MaxCrashes, job.Deadline = newID(), 10, 10, time.Hour
	mq := m.queue(q.cfg.Name)
	mq.enqueue(time.Now(), Batch{ID: newID(), Jobs: []Entry{{Job: job}}})
	mq.claim(time.Now(), Call{Process: newID(), Number: 1, Max: 1, Lease: 30 * time.Second})
}

// Leased counts the jobs that are held.
func (m *Memory) Leased(queue string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue(queue).leased)
}

// Size counts all that a queue holds but remembered batches and answers, which end by themselves.
func (m *Memory) Size(queue string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queue(queue)
	return len(q.lanes) + len(q.groups) + q.ring[Live].len() + q.ring[Bulk].len() + len(q.later) + len(q.leased) + len(q.waiting) + len(q.expiry) + len(q.keys) + len(q.keyEnds)
}
