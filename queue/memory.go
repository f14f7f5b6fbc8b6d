package queue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Memory is a Broker that keeps its queues in the process: nothing survives it. It is for tests,
// demos and work that may be lost, and the reference that other engines are compared with. The zero value
// is ready; it must not be copied after first use. It remembers the answers to the last 4,096 batches, not
// to more: those who repeat one are in the same process.
type Memory struct {
	// Partitions splits each queue into so many, as an engine over several servers does; 0 means 1.
	// It must not change after first use.
	Partitions int

	mu     sync.Mutex
	begin  time.Time
	queues map[string][]*machine // by partition
}

var (
	_ Broker   = (*Memory)(nil)
	_ Operator = (*Memory)(nil)
)

// Info says "memory", not durable.
func (m *Memory) Info() BrokerInfo {
	return BrokerInfo{Engine: "memory", Partitions: max(1, m.Partitions)}
}

// Enqueue implements [Broker].
func (m *Memory) Enqueue(ctx context.Context, queue string, batch Batch) ([]Receipt, error) {
	records := make([][]byte, len(batch.Jobs)) // before the lock is taken
	for i := range batch.Jobs {
		var err error
		if records[i], err = batch.Jobs[i].Job.AppendBinary(nil); err != nil {
			return nil, err
		}
	}
	now, unlock, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	parts := m.parts(queue)
	if len(parts) == 1 {
		return parts[0].enqueue(now, batch, records), nil
	}
	receipts := make([]Receipt, len(batch.Jobs))
	for p, part := range parts {
		mine := Batch{ID: batch.ID}
		var places []int
		var theirs [][]byte
		for i, e := range batch.Jobs {
			if m.partitionOf(e.Job.Group) == p {
				mine.Jobs, theirs, places = append(mine.Jobs, e), append(theirs, records[i]), append(places, i)
			}
		}
		if len(places) == 0 {
			continue
		}
		for i, r := range part.enqueue(now, mine, theirs) {
			receipts[places[i]] = r
		}
	}
	return receipts, nil
}

// Claim implements [Broker].
func (m *Memory) Claim(ctx context.Context, queue string, call Call) (Claimed, error) {
	now, unlock, err := m.lock(ctx)
	if err != nil {
		return Claimed{}, err
	}
	defer unlock()
	q, err := m.part(queue, call.Partition)
	if err != nil {
		return Claimed{}, err
	}
	return q.claim(now, call), nil
}

// Extend implements [Broker].
func (m *Memory) Extend(ctx context.Context, queue string, beat Heartbeat) (Extended, error) {
	now, unlock, err := m.lock(ctx)
	if err != nil {
		return Extended{}, err
	}
	defer unlock()
	q, err := m.part(queue, beat.Partition)
	if err != nil {
		return Extended{}, err
	}
	return q.extend(now, beat), nil
}

// Wait implements [Broker].
func (m *Memory) Wait(ctx context.Context, queue string, partition int) error {
	_, unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	q, err := m.part(queue, partition)
	if err != nil || q.claimable() {
		unlock()
		return err
	}
	q.waiters = true
	woken := q.woken
	unlock()
	select {
	case <-woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Queues implements [Operator].
func (m *Memory) Queues(ctx context.Context) ([]string, error) {
	_, unlock, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var names []string
	for name, parts := range m.queues {
		if slices.ContainsFunc(parts, func(q *machine) bool { return !q.empty() }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Stats implements [Operator].
func (m *Memory) Stats(ctx context.Context, queue string) (Stats, error) {
	now, unlock, err := m.lock(ctx)
	if err != nil {
		return Stats{}, err
	}
	defer unlock()
	all := Stats{Now: m.timeOf(now)}
	for _, q := range m.queues[queue] {
		s := q.stats(now)
		all.Jobs += s.Jobs
		all.Held += s.Held
		all.Waiting += s.Waiting
		all.Scheduled += s.Scheduled
		all.Dead += s.Dead
		all.Parked += s.Parked
		all.Paused = s.Paused
	}
	return all, nil
}

// Jobs implements [Operator].
func (m *Memory) Jobs(ctx context.Context, queue string, filter JobFilter) ([]JobInfo, error) {
	_, unlock, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []JobInfo
	for _, q := range m.queues[queue] {
		found = append(found, q.list(filter)...)
	}
	slices.SortFunc(found, func(a, b JobInfo) int { return strings.Compare(a.Job.ID, b.Job.ID) })
	found = found[:min(len(found), cmp.Or(filter.Limit, pageLimit))]
	for i := range found {
		found[i].Job.Payload = bytes.Clone(found[i].Job.Payload)
	}
	return found, nil
}

// Dead implements [Operator].
func (m *Memory) Dead(ctx context.Context, queue string, filter DeadFilter) ([]DeadLetter, error) {
	_, unlock, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	n := cmp.Or(filter.Limit, pageLimit)
	var found []DeadLetter
	for _, q := range m.queues[queue] {
		found = append(found, q.letters(filter, n)...)
	}
	slices.SortFunc(found, func(a, b DeadLetter) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Job.ID, b.Job.ID))
	})
	return found[:min(len(found), n)], nil
}

// Replay implements [Operator].
func (m *Memory) Replay(ctx context.Context, queue string, ids []string) (int, error) {
	return m.each(ctx, queue, ids, func(q *machine, now tick, id string) bool { return q.replay(now, id) })
}

// Drop implements [Operator].
func (m *Memory) Drop(ctx context.Context, queue string, ids []string) (int, error) {
	return m.each(ctx, queue, ids, func(q *machine, _ tick, id string) bool { return q.drop(id) })
}

func (m *Memory) each(ctx context.Context, queue string, ids []string, do func(q *machine, now tick, id string) bool) (int, error) {
	if len(ids) > stepIDs {
		return 0, fmt.Errorf("queue: memory: %d ids in one step; at most %d", len(ids), stepIDs)
	}
	now, unlock, err := m.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	n := 0
	for _, id := range ids {
		if slices.ContainsFunc(m.queues[queue], func(q *machine) bool { return do(q, now, id) }) {
			n++
		}
	}
	return n, nil
}

// Status implements [Operator].
func (m *Memory) Status(ctx context.Context, queue, id string) (Status, error) {
	now, unlock, err := m.lock(ctx)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	for _, q := range m.queues[queue] {
		if s, err := q.status(now, id); !errors.Is(err, ErrUnknownJob) {
			return s, err
		}
	}
	return Status{}, fmt.Errorf("%w: %s", ErrUnknownJob, id)
}

// Cancel implements [Operator].
func (m *Memory) Cancel(ctx context.Context, queue, id string) (State, error) {
	now, unlock, err := m.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	for _, q := range m.queues[queue] {
		if s, err := q.cancel(now, id); !errors.Is(err, ErrUnknownJob) {
			return s, err
		}
	}
	return "", fmt.Errorf("%w: %s", ErrUnknownJob, id)
}

// Purge implements [Operator]. Its cursor is how many jobs each partition had accepted at the first call.
func (m *Memory) Purge(ctx context.Context, queue string, filter PurgeFilter) (Purged, error) {
	_, unlock, err := m.lock(ctx)
	if err != nil {
		return Purged{}, err
	}
	defer unlock()
	parts := m.queues[queue]
	if len(parts) == 0 {
		return Purged{}, nil
	}
	if filter.Cursor == "" {
		var at []string
		for _, q := range parts {
			at = append(at, strconv.FormatUint(q.seq, 10))
		}
		filter.Cursor = strings.Join(at, ",")
	}
	at := strings.Split(filter.Cursor, ",")
	if len(at) != len(parts) {
		return Purged{}, fmt.Errorf("queue: memory: %q is not a cursor of this Purge", filter.Cursor)
	}
	p := Purged{}
	for i, q := range parts {
		upTo, err := strconv.ParseUint(at[i], 10, 64)
		if err != nil {
			return p, fmt.Errorf("queue: memory: %q is not a cursor of Purge: %w", filter.Cursor, err)
		}
		n, done := q.purge(filter, upTo)
		if p.Jobs += n; !done {
			p.Cursor = filter.Cursor
			return p, nil
		}
	}
	return p, nil
}

// Pause implements [Operator].
func (m *Memory) Pause(ctx context.Context, queue string) error {
	return m.change(ctx, queue, func(q *machine, _ tick) { q.paused = true })
}

// Resume implements [Operator].
func (m *Memory) Resume(ctx context.Context, queue string) error {
	return m.change(ctx, queue, func(q *machine, _ tick) {
		q.paused = false
		q.wake()
	})
}

// Park implements [Operator].
func (m *Memory) Park(ctx context.Context, queue, group string, d time.Duration) error {
	return m.change(ctx, queue, func(q *machine, now tick) {
		if q.part == m.partitionOf(group) {
			q.park(now, group, d)
		}
	})
}

// Limit implements [Operator].
func (m *Memory) Limit(ctx context.Context, queue, group string, limits Limits) error {
	return m.change(ctx, queue, func(q *machine, _ tick) {
		if q.part == m.partitionOf(group) {
			q.limit(group, limits)
		}
	})
}

func (m *Memory) change(ctx context.Context, queue string, do func(q *machine, now tick)) error {
	now, unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, q := range m.parts(queue) {
		do(q, now)
	}
	return nil
}

// lock begins a step, unless ctx has ended.
func (m *Memory) lock(ctx context.Context) (now tick, unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	m.mu.Lock()
	if m.begin.IsZero() {
		m.begin = time.Now()
	}
	return tick(time.Since(m.begin)) + 1, m.mu.Unlock, nil // not 0, which would be no time
}

// timeOf and tickOf go between the engine's time and the calendar's, as it was when the engine began: a clock
// that is set changes nothing.
func (m *Memory) timeOf(t tick) time.Time { return m.begin.Round(0).Add(time.Duration(t - 1)).UTC() }
func (m *Memory) tickOf(t time.Time) tick {
	return tick(min(t.Sub(m.begin.Round(0)), 1<<61)) + 1 // a year that no Duration reaches is never
}

func (m *Memory) partitionOf(group string) int {
	if m.Partitions <= 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(group))                // never fails: hash.Hash
	return int(h.Sum32() % uint32(m.Partitions)) //nolint:gosec // a small positive number
}

func (m *Memory) parts(queue string) []*machine {
	parts := m.queues[queue]
	if parts == nil {
		for p := range max(1, m.Partitions) {
			parts = append(parts, newMachine(m, queue, p))
		}
		if m.queues == nil {
			m.queues = map[string][]*machine{}
		}
		m.queues[strings.Clone(queue)] = parts
	}
	return parts
}

func (m *Memory) part(queue string, partition int) (*machine, error) {
	parts := m.parts(queue)
	if partition < 0 || partition >= len(parts) {
		return nil, fmt.Errorf("queue: memory: there is no partition %d of %d", partition, len(parts))
	}
	return parts[partition], nil
}
