package queue

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Memory is a Broker that keeps its queues in the process: nothing survives it. It is for tests,
// demos and work that may be lost. The zero value is ready; it must not be copied after first use.
type Memory struct {
	mu     sync.Mutex
	queues map[string]*memQueue
}

var (
	_ Broker   = (*Memory)(nil)
	_ Operator = (*Memory)(nil)
)

// Info says "memory", not durable.
func (m *Memory) Info() BrokerInfo { return BrokerInfo{Engine: "memory"} }

// Enqueue implements [Broker].
func (m *Memory) Enqueue(ctx context.Context, queue string, batch Batch) ([]Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.queue(queue).enqueue(time.Now(), batch), nil
}

// Claim implements [Broker].
func (m *Memory) Claim(ctx context.Context, queue string, call Call) (Claimed, error) {
	if err := ctx.Err(); err != nil {
		return Claimed{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.queue(queue).claim(time.Now(), call), nil
}

// Extend implements [Broker].
func (m *Memory) Extend(ctx context.Context, queue string, tokens []Token, lease time.Duration) ([]Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.queue(queue).extend(time.Now(), tokens, lease), nil
}

// Wait implements [Broker].
func (m *Memory) Wait(ctx context.Context, queue string) error {
	m.mu.Lock()
	q := m.queue(queue)
	if q.ring[Live].len()+q.ring[Bulk].len() > 0 {
		m.mu.Unlock()
		return nil
	}
	q.waiters = true
	woken := q.woken
	m.mu.Unlock()
	select {
	case <-woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Dead implements [Operator].
func (m *Memory) Dead(_ context.Context, queue string, limit int) ([]DeadLetter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dead := m.queue(queue).dead
	return slices.Clone(dead[:min(limit, len(dead))]), nil
}

func (m *Memory) queue(name string) *memQueue {
	q := m.queues[name]
	if q == nil {
		q = &memQueue{
			lanes: map[laneID]*lane{}, groups: map[string]*group{}, leased: map[Token]*lane{}, keys: map[dedupeID]dedupe{},
			batches: map[string][]Receipt{}, answers: map[string]answer{}, woken: make(chan struct{}),
		}
		if m.queues == nil {
			m.queues = map[string]*memQueue{}
		}
		m.queues[name] = q
	}
	return q
}
