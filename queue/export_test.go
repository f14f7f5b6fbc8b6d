package queue

import (
	"context"
	"time"
)

// Steal enqueues a job and leases it to a process that then dies, before any worker sees it.
func (m *Memory) Steal(q *Queue, job Job) {
	now, unlock, _ := m.lock(context.Background())
	defer unlock()
	entries, err := q.prepare("Steal", []Job{job})
	if err != nil {
		panic(err)
	}
	mq := m.parts(q.cfg.Name)[0]
	record, err := entries[0].Job.MarshalBinary()
	if err != nil {
		panic(err)
	}
	mq.enqueue(now, Batch{ID: newID(), Jobs: entries}, [][]byte{record})
	mq.claim(now, Call{Process: newID(), Number: 1, Max: 1, Lease: 30 * time.Second})
}

// Leased counts the jobs that are held.
func (m *Memory) Leased(queue string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, q := range m.parts(queue) {
		n += len(q.leased)
	}
	return n
}

// Queued counts the queues that there are.
func (m *Memory) Queued() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queues)
}

// Size counts all that a queue holds but remembered batches and answers, which end by themselves.
func (m *Memory) Size(queue string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, q := range m.parts(queue) {
		n += q.lanes + q.jobs + q.gone + len(q.groups) + len(q.leased) + len(q.later) + len(q.waiting) + len(q.parked) + len(q.expiry) +
			len(q.keys) + len(q.keyEnds) + len(q.tracked) + len(q.ends) + q.dead.order.Len() + len(q.dead.byID)
		for c := range classes {
			if q.rings[c].first != nil || q.rings[c].last != nil {
				n++
			}
		}
	}
	return n
}
