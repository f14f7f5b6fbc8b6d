package idempotency

import (
	"cmp"
	"context"
	"sync"
	"time"
)

// Memory is a Store within the process: for tests, demos, and what may be forgotten when the process ends. The zero value is ready; it must
// not be copied after first use.
type Memory struct {
	// MaxRecords bounds how much is remembered; 0 means 100,000. When there are more, what was finished first is forgotten first, and would run
	// again. What is in progress never is: a Claim then fails with ErrFull.
	MaxRecords int

	mu   sync.Mutex
	recs map[Name]*memoryRecord
	// Oldest first: what ends sooner stands before what ends later, as far as all have the same retention.
	oldest, newest *memoryRecord
}

var (
	_ Store    = (*Memory)(nil)
	_ Operator = (*Memory)(nil)
)

// memoryRecord is a record and its place in the list.
type memoryRecord struct {
	name           Name
	state          State // InProgress, Done or Released
	token          Token
	lease          time.Time // InProgress: its end
	end            time.Time // of all that is known
	takenOver      bool
	fingerprint    string
	version        Version
	result         []byte
	before, behind *memoryRecord
}

// lock locks, and reads the clock. Not before: what waited for the lock would take an earlier time for now.
func (m *Memory) lock() time.Time {
	m.mu.Lock()
	return time.Now()
}

// Claim implements Store.
func (m *Memory) Claim(ctx context.Context, r Request) (Claim, error) {
	if err := ctx.Err(); err != nil {
		return Claim{}, context.Cause(ctx)
	}
	now := m.lock()
	defer m.mu.Unlock()
	m.sweep(now)
	rec := m.find(r.Name, now)
	if rec == nil {
		if err := m.room(); err != nil {
			return Claim{}, err
		}
		rec = &memoryRecord{name: r.Name}
		if m.recs == nil {
			m.recs = map[Name]*memoryRecord{}
		}
		m.recs[r.Name] = rec
		m.append(rec)
		rec.claim(&r, now)
		return Claim{State: Claimed}, nil
	}
	if rec.state == Done && rec.version == r.Version && (r.Fingerprint == "" || r.Fingerprint == rec.fingerprint) { // as Judge says, and most often
		return Claim{State: Done, Result: rec.result}, nil
	}
	seen := rec.seen(now)
	c := seen.Judge(&r)
	if c.State == Claimed {
		rec.claim(&r, now)
		rec.takenOver = c.TakenOver
	}
	return c, nil
}

func (rec *memoryRecord) claim(r *Request, now time.Time) {
	rec.state, rec.token, rec.fingerprint, rec.version, rec.result = InProgress, r.Token, r.Fingerprint, r.Version, nil
	rec.lease = now.Add(r.For)
	rec.end = rec.lease.Add(r.Retention)
}

// Extend implements Store.
func (m *Memory) Extend(ctx context.Context, leases []Lease, lease time.Duration) (e Extended, err error) {
	if err := ctx.Err(); err != nil {
		return e, context.Cause(ctx)
	}
	now := m.lock()
	defer m.mu.Unlock()
	for _, l := range leases {
		rec := m.held(l, now)
		if rec == nil {
			e.Lost = append(e.Lost, l)
			continue
		}
		kept := rec.end.Sub(rec.lease)
		rec.lease = now.Add(lease)
		rec.end = rec.lease.Add(kept)
	}
	return e, nil
}

// Complete implements Store.
func (m *Memory) Complete(ctx context.Context, l Lease, result []byte, retention time.Duration) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	now := m.lock()
	defer m.mu.Unlock()
	rec := m.held(l, now)
	if rec == nil {
		if rec := m.find(l.Name, now); rec != nil && rec.state == Done && rec.token == l.Token {
			return nil
		}
		return ErrLeaseLost
	}
	rec.state, rec.end = Done, now.Add(retention)
	if len(result) > 0 {
		rec.result = append([]byte(nil), result...)
	}
	m.unlink(rec)
	m.append(rec)
	return nil
}

// Release implements Store.
func (m *Memory) Release(ctx context.Context, l Lease, retention time.Duration) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	now := m.lock()
	defer m.mu.Unlock()
	rec := m.held(l, now)
	switch {
	case rec == nil:
	case rec.version == "":
		m.forget(rec)
	default:
		rec.state, rec.end = Released, now.Add(retention)
		m.unlink(rec)
		m.append(rec)
	}
	return nil
}

// Inspect implements Operator.
func (m *Memory) Inspect(_ context.Context, name Name) (Record, error) {
	now := m.lock()
	defer m.mu.Unlock()
	rec := m.find(name, now)
	if rec == nil {
		return Record{}, about(name, ErrNoRecord)
	}
	return rec.seen(now), nil
}

// Resolve implements Operator.
func (m *Memory) Resolve(_ context.Context, seen Record, as Resolution) error {
	now := m.lock()
	defer m.mu.Unlock()
	rec := m.find(seen.Name, now)
	var is *Record
	if rec != nil {
		r := rec.seen(now)
		is = &r
	}
	change, err := is.JudgeResolve(&seen, &as)
	switch {
	case !change:
		return err
	case as.Forget:
		m.forget(rec)
	default:
		rec.token = rec.token.Resolved()
		rec.state, rec.result, rec.end = Done, append([]byte(nil), as.Result...), now.Add(as.Retention)
		m.unlink(rec)
		m.append(rec)
	}
	return nil
}

// Purge implements Operator.
func (m *Memory) Purge(_ context.Context, scope string) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, rec := range m.recs {
		if name.Scope == scope {
			m.forget(rec)
			n++
		}
	}
	return n, nil
}

// seen is the record as others see it.
func (rec *memoryRecord) seen(now time.Time) Record {
	out := Record{
		Name: rec.name, State: rec.state, Token: rec.token, Kept: rec.end.Sub(now),
		TakenOver: rec.takenOver, Fingerprint: rec.fingerprint, Version: rec.version, Result: rec.result,
	}
	if out.State == InProgress {
		if out.Rest = rec.lease.Sub(now); out.Rest <= 0 {
			out.Rest, out.State = 0, Unknown
		}
	}
	return out
}

// find is a name's record, if it is not over.
func (m *Memory) find(name Name, now time.Time) *memoryRecord {
	rec := m.recs[name]
	if rec == nil || now.Before(rec.end) {
		return rec
	}
	m.forget(rec)
	return nil
}

// held is a lease's record, if it still is.
func (m *Memory) held(l Lease, now time.Time) *memoryRecord {
	rec := m.find(l.Name, now)
	if rec == nil || rec.state != InProgress || rec.token != l.Token || !now.Before(rec.lease) {
		return nil
	}
	return rec
}

// sweep forgets some of what is over.
func (m *Memory) sweep(now time.Time) {
	for range 2 {
		rec := m.oldest
		switch {
		case rec == nil:
			return
		case !now.Before(rec.end):
			m.forget(rec)
		case rec.state == InProgress: // it is not old yet
			m.unlink(rec)
			m.append(rec)
		default:
			return
		}
	}
}

// room makes room for one more.
func (m *Memory) room() error {
	most := cmp.Or(m.MaxRecords, 100_000)
	for rec := m.oldest; rec != nil && len(m.recs) >= most; {
		next := rec.behind
		if rec.state != InProgress { // nor what has ended without a word: somebody may have to look
			m.forget(rec)
		}
		rec = next
	}
	if len(m.recs) >= most {
		return ErrFull
	}
	return nil
}

func (m *Memory) forget(rec *memoryRecord) {
	m.unlink(rec)
	delete(m.recs, rec.name)
}

func (m *Memory) append(rec *memoryRecord) {
	rec.before, rec.behind = m.newest, nil
	if m.newest == nil {
		m.oldest = rec
	} else {
		m.newest.behind = rec
	}
	m.newest = rec
}

func (m *Memory) unlink(rec *memoryRecord) {
	if rec.before == nil {
		m.oldest = rec.behind
	} else {
		rec.before.behind = rec.behind
	}
	if rec.behind == nil {
		m.newest = rec.before
	} else {
		rec.behind.before = rec.before
	}
}
