package sqlqueue

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	live, bulk = int(queue.Live), int(queue.Bulk)

	// takeUp bounds what one Claim takes up: due things, ended leases, jobs past their deadline.
	takeUp = 128
	// ringPage is how much of a ring is read at once.
	ringPage = 64
	// forgetful bounds the dedupe keys, and the statuses, that one step forgets beyond those that it makes.
	forgetful = 256
)

// step is one transaction: what has been read of the file, and what it changes. It is the machine of docs/queue.md, over rows.
type step struct {
	b   *Broker
	ctx context.Context //nolint:containedctx // it lives as long as the transaction, and never ends
	tx  *sql.Tx
	now int64 // µs, by the engine's clock

	seq, ahead int64
	number     int64 // of the step
	bound      [statements]*sql.Stmt
	queues     map[string]*queueRow
	made       int64 // dedupe keys and statuses
	changed    bool  // something that is worth a write to the disk

	woken   map[string]bool // queues that have something to claim which they had not
	batches map[batchKey][]queue.Receipt
	after   []func() // what holds once the transaction is committed
}

func newStep(ctx context.Context, b *Broker, tx *sql.Tx) *step {
	return &step{b: b, ctx: ctx, tx: tx, queues: map[string]*queueRow{}, woken: map[string]bool{}, batches: map[batchKey][]queue.Receipt{}}
}

// queueRow is one queue, and what the step knows of it.
type queueRow struct {
	id                        int64
	name                      string
	paused                    bool
	turns                     int64
	lastRun, awayFrom, awayTo int64
	dirty                     bool
	firstLease                int64 // when the first lease ended or will end, as the step found it; 0 if there was none

	groups map[string]*groupRow
	rings  [2]ring
	taken  bool // its intake has been looked at
	ran    bool // this step has
}

// groupRow is a tenant.
type groupRow struct {
	name          string
	jobs, held    int64
	ready         [2]int64 // lanes
	seat, used    [2]int64
	parked, armed int64
	limits        queue.Limits
	stored, dirty bool
	saved         *groupRow // as the file has it
}

// ring is the front of a class's ring, as far as it has been read.
type ring struct {
	read  bool
	names []string
	whole bool // names is all of it
}

// begin takes the lock, and reads the clock.
func (s *step) begin() error {
	var last int64
	if err := s.row(stepBegin).Scan(&s.seq, &s.number, &s.ahead, &last); err != nil {
		return err
	}
	s.now, s.ahead = s.b.clock.read(s.ahead, last)
	return nil
}

// known is what a process knows of its queues and groups for as long as no other process takes a step.
type known struct {
	step   int64
	queues map[string]*queueRow
	groups int
}

// maxKnown bounds the groups that are kept from step to step.
const maxKnown = 20_000

// recall takes up what the last step knew, if that was this process's.
func (s *step) recall() {
	s.b.knowing.Lock()
	defer s.b.knowing.Unlock()
	switch k := s.b.known; {
	case k.step == s.number:
		if k.queues != nil {
			s.queues = k.queues
		}
	case k.step > 0: // others write to the file as well
		s.b.company.meet()
	}
	s.b.known = known{step: s.number} // until the step has held
}

// keep keeps it for the next step.
func (s *step) keep(number int64) {
	k := known{step: number, queues: s.queues}
	for _, q := range s.queues {
		q.ran, q.taken, q.firstLease = false, false, 0
		for name, g := range q.groups {
			if !g.stored {
				delete(q.groups, name)
			}
		}
		k.groups += len(q.groups)
	}
	if k.groups > maxKnown {
		k.queues = nil
	}
	s.b.knowing.Lock()
	defer s.b.knowing.Unlock()
	s.b.known = k
}

// passed notes a step that has changed nothing of what is known.
func (s *step) passed() {
	s.b.knowing.Lock()
	defer s.b.knowing.Unlock()
	if s.b.known.step == s.number {
		s.b.known.step++
	}
}

// end writes what has changed, and forgets what is over.
func (s *step) end() error {
	for _, q := range s.queues {
		if err := s.flush(q); err != nil {
			return err
		}
		if q.dirty {
			q.dirty = false
			if _, err := s.exec(queueSave, q.paused, q.turns, q.lastRun, q.awayFrom, q.awayTo, q.id); err != nil {
				return err
			}
		}
	}
	for _, forget := range [...]statement{dedupeForget, statusForget} {
		if _, err := s.exec(forget, s.now, forgetful+s.made); err != nil {
			return err
		}
	}
	return s.stamp()
}

// stamp ends a step.
func (s *step) stamp() error {
	_, err := s.exec(stepEnd, s.seq, s.number+1, s.ahead, s.now)
	return err
}

// next numbers what has an order.
func (s *step) next() int64 {
	s.seq++
	return s.seq
}

func (s *step) stmt(id statement) *sql.Stmt {
	if s.bound[id] == nil {
		s.bound[id] = s.tx.StmtContext(s.ctx, s.b.stmts[id])
	}
	return s.bound[id]
}

func (s *step) exec(id statement, args ...any) (int64, error) {
	r, err := s.stmt(id).ExecContext(s.ctx, args...) //nolint:sqlclosecheck // it is closed with the transaction
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	if n > 0 && id != queueSave && id != stepEnd { // those alone are not worth a write to the disk
		s.changed = true
	}
	return n, err
}

func (s *step) row(id statement, args ...any) *sql.Row {
	return s.stmt(id).QueryRowContext(s.ctx, args...) //nolint:sqlclosecheck // as above
}

// each reads all rows of an answer before it calls do, which may then make statements of its own.
func each[T any](s *step, id statement, scan func(scanner) (T, error), args ...any) ([]T, error) {
	rows, err := s.stmt(id).QueryContext(s.ctx, args...) //nolint:sqlclosecheck // as above
	if err != nil {
		return nil, err
	}
	return collect(rows, scan)
}

func scanName(row scanner) (name string, err error) {
	err = row.Scan(&name)
	return name, err
}

type scanner interface{ Scan(into ...any) error }

func collect[T any](rows *sql.Rows, scan func(scanner) (T, error)) (all []T, err error) {
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// queue finds a queue, which is there from now on.
func (s *step) queue(name string) (*queueRow, error) {
	if q := s.queues[name]; q != nil {
		return q, nil
	}
	q := &queueRow{name: name, groups: map[string]*groupRow{}}
	read := func() error {
		return s.row(queueByName, name).Scan(&q.id, &q.paused, &q.turns, &q.lastRun, &q.awayFrom, &q.awayTo)
	}
	err := read()
	if errors.Is(err, sql.ErrNoRows) {
		if _, err = s.exec(queueMake, name); err == nil {
			err = read()
		}
	}
	if err != nil {
		return nil, err
	}
	s.queues[name] = q
	return q, nil
}

func (s *step) group(q *queueRow, name string) (*groupRow, error) {
	if g := q.groups[name]; g != nil {
		return g, nil
	}
	g := &groupRow{name: name}
	err := s.row(groupLoad, q.id, name).Scan(&g.jobs, &g.held, &g.ready[live], &g.ready[bulk], &g.seat[live], &g.seat[bulk],
		&g.used[live], &g.used[bulk], &g.parked, &g.armed, &g.limits.Cap, &g.limits.Weight)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if g.stored = err == nil; g.stored {
		was := *g
		g.saved = &was
	}
	q.groups[name] = g
	return g, nil
}

// flush writes the groups that have changed; one that nothing is left of goes.
func (s *step) flush(q *queueRow) error {
	for _, g := range q.groups {
		if !g.dirty {
			continue
		}
		g.dirty = false
		if g.jobs == 0 && g.parked == 0 && g.limits == (queue.Limits{}) {
			if g.stored {
				if _, err := s.exec(groupDelete, q.id, g.name); err != nil {
					return err
				}
			}
			g.stored, g.saved = false, nil
			continue
		}
		if err := s.saveGroup(q, g); err != nil {
			return err
		}
	}
	return nil
}

func (s *step) saveGroup(q *queueRow, g *groupRow) (err error) {
	before := g.saved
	g.saved = nil
	now := *g
	if g.stored && before != nil && before.only(now) {
		_, err = s.exec(groupTurn, g.jobs, g.held, g.ready[live], g.seat[live], g.used[live], q.id, g.name)
	} else {
		_, err = s.exec(groupSave, q.id, g.name, g.jobs, g.held, g.ready[live], g.ready[bulk], g.seat[live], g.seat[bulk],
			g.used[live], g.used[bulk], g.parked, g.armed, g.limits.Cap, g.limits.Weight)
	}
	g.stored, g.saved = true, &now
	return err
}

// only says whether nothing but what a turn of live work changes has changed.
func (g groupRow) only(now groupRow) bool {
	return g.ready[bulk] == now.ready[bulk] && g.seat[bulk] == now.seat[bulk] && g.used[bulk] == now.used[bulk] &&
		g.parked == now.parked && g.armed == now.armed && g.limits == now.limits
}

// sit derives a group's place in a ring: one that has a ready lane of the class, is not parked and is below its
// cap enters at the tail; one that has not leaves.
func (s *step) sit(q *queueRow, g *groupRow, class int) {
	may := g.ready[class] > 0 && g.parked == 0 && (g.limits.Cap == 0 || g.held < int64(g.limits.Cap))
	g.dirty = true
	switch {
	case may == (g.seat[class] > 0):
	case may:
		s.toTail(q, g, class)
		s.woken[q.name] = true
	default:
		g.seat[class], g.used[class] = 0, 0
		q.rings[class].remove(g.name)
	}
}

func (s *step) sitBoth(q *queueRow, g *groupRow) {
	s.sit(q, g, live)
	s.sit(q, g, bulk)
}

func (s *step) toTail(q *queueRow, g *groupRow, class int) {
	g.seat[class], g.used[class] = s.next(), 0
	r := &q.rings[class]
	r.remove(g.name)
	if r.whole {
		r.names = append(r.names, g.name)
	}
}

func (r *ring) remove(name string) {
	if i := slices.Index(r.names, name); i >= 0 {
		r.names = slices.Delete(r.names, i, i+1)
	}
}

// first is the group at the head of a class's ring.
func (s *step) first(q *queueRow, class int) (name string, ok bool, err error) {
	r := &q.rings[class]
	if !r.read || len(r.names) == 0 && !r.whole {
		if err := s.flush(q); err != nil {
			return "", false, err
		}
		r.names, err = each(s, []statement{ringLive, ringBulk}[class], scanName, q.id, ringPage)
		if err != nil {
			return "", false, err
		}
		r.read, r.whole = true, len(r.names) < ringPage
	}
	if len(r.names) == 0 {
		return "", false, nil
	}
	return r.names[0], true, nil
}

// ran notes that something runs. If nothing did for so long that leases may have ended for want of anybody
// who could extend them, they get another chance when they are taken up.
func (s *step) ran(q *queueRow) error {
	if q.ran {
		return nil
	}
	q.ran = true
	var at, lease int64
	err := s.row(firstLease, q.id).Scan(&at, &lease)
	q.firstLease = at
	if errors.Is(err, sql.ErrNoRows) {
		q.lastRun, q.dirty = s.now, true // not worth a write of its own: there is no lease that could end
		return nil
	}
	if err != nil {
		return err
	}
	if at <= s.now && s.now-q.lastRun > lease*2/3 {
		if at > q.awayTo {
			q.awayFrom = q.lastRun
		}
		q.awayTo = s.now
	}
	q.lastRun, q.dirty, s.changed = s.now, true, true
	return nil
}

// micros is a span in microseconds, rounded up: a span must not become none.
func micros(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	us := d.Microseconds()
	if d > time.Duration(us)*time.Microsecond {
		us++
	}
	return us
}

func timeOf(us int64) time.Time { return time.UnixMicro(us).UTC() }

// farthest is a year whose microseconds fit into 62 bits.
const farthest = 70_000

// microsOf is 0 for the zero time, and for one before 1970.
func microsOf(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Year() > farthest:
		return 1 << 61
	default:
		return max(0, t.UnixMicro())
	}
}
