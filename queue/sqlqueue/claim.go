package sqlqueue

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/internal/text"
	"github.com/breakwater-go/breakwater/queue"
)

const (
	// bulkTurn is which turn goes to bulk work although live work is ready.
	bulkTurn = 8
	// released is added to the place of a lane that was given back: it stands in front, by when it was claimed.
	released = -1 << 62
)

// claim settles, takes up what is due or lost, and leases.
func (s *step) claim(q *queueRow, call queue.Call) (c queue.Claimed, err error) {
	if err := s.ran(q); err != nil {
		return c, err
	}
	if call.Again {
		if err := s.giveBackOthers(q, call); err != nil {
			return c, err
		}
	}
	for _, st := range call.Settle {
		j, err := s.held(q, st.Token)
		if err != nil {
			return c, err
		}
		if j == nil {
			c.Lost = append(c.Lost, st.Token)
			continue
		}
		if err := s.settle(q, j, st, &c); err != nil {
			return c, err
		}
	}
	next, err := s.takeUp(q, &c) // after the settlements: a lease past its end still counts until it is taken up
	if err != nil {
		return c, err
	}
	late := 0
	for len(c.Jobs) < call.Max && late < takeUp && !q.paused {
		took, died, err := s.lease(q, call, &c)
		if err != nil {
			return c, err
		}
		if died {
			late++
		} else if !took {
			break
		}
	}
	c.DueIn, err = s.dueIn(q, next)
	if late == takeUp {
		c.DueIn = 1 // look again
	}
	return c, err
}

// held is the job of a token, nil if its lane is not that token's any more.
func (s *step) held(q *queueRow, t queue.Token) (*jobRow, error) {
	n, err := strconv.ParseInt(string(t[strings.LastIndexByte(string(t), '.')+1:]), 36, 64)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // no token of this engine: lost
	}
	j, err := s.find(jobByN, n)
	if err != nil || j == nil || j.state != leased || j.token != string(t) || j.queue != q.id {
		return nil, err
	}
	return j, nil
}

// giveBackOthers gives back what a process was given by an answer that it never got.
func (s *step) giveBackOthers(q *queueRow, call queue.Call) error {
	held := map[string]bool{}
	for _, t := range call.Held {
		held[string(t)] = true
	}
	for _, st := range call.Settle {
		held[string(st.Token)] = true
	}
	others, err := each(s, leasedAll, scanJob, q.id)
	if err != nil {
		return err
	}
	for _, j := range others {
		if strings.HasPrefix(j.token, call.Process+".") && !held[j.token] {
			if err := s.settle(q, j, queue.Settlement{Action: queue.Release}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// dues is when something next falls due, 0 if nothing will: a lane that waits, a scheduled job, a parked group.
type dues [3]int64

// first is the soonest of them.
func (d dues) first() (at int64) {
	for _, t := range d {
		if t > 0 && (at == 0 || t < at) {
			at = t
		}
	}
	return at
}

func (s *step) dues(q *queueRow) (d dues, err error) {
	if err := s.flush(q); err != nil {
		return d, err
	}
	err = s.row(nextDue, q.id).Scan(&d[0], &d[1], &d[2])
	return d, err
}

// dueIn is how long it takes until something falls due; 0 if nothing will. next is what takeUp has found.
func (s *step) dueIn(q *queueRow, next dues) (_ time.Duration, err error) {
	first := next.first()
	if first > 0 && first <= s.now { // it has been taken up
		if next, err = s.dues(q); err != nil {
			return 0, err
		}
		first = next.first()
	}
	if first == 0 {
		return 0, nil
	}
	return max(time.Duration(min(first-s.now, 1<<52))*time.Microsecond, 1), nil
}

// lease takes the next lane: the first ready one of the group whose turn it is, in the class whose turn
// it is. If its head is past its deadline, that dies instead, and the turn is not spent.
func (s *step) lease(q *queueRow, call queue.Call, c *queue.Claimed) (took, died bool, err error) {
	every := int64(cmp.Or(call.BulkEvery, bulkTurn))
	class := live
	name, some, err := s.first(q, live)
	if err != nil {
		return false, false, err
	}
	if !some || (q.turns+1)%every == 0 {
		if other, waits, err := s.first(q, bulk); err != nil {
			return false, false, err
		} else if waits {
			name, some, class = other, true, bulk
		}
	}
	if !some {
		return false, false, nil
	}
	g, err := s.group(q, name)
	if err != nil {
		return false, false, err
	}
	j, record := &jobRow{}, []byte(nil)
	if err := s.row(readyFirst, q.id, name, class).Scan(&j.n, &j.id, &j.tracked, &j.attempts, &j.crashes, &j.since, &j.late, &j.history, &record); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("sqlqueue: the file is damaged: group %q counts %d ready lanes and has none", name, g.ready[class])
		}
		return false, false, err
	}
	g.ready[class]--
	if j.late < s.now {
		if j, err = s.find(jobByN, j.n); err != nil {
			return false, false, err
		}
		if err := s.die(q, g, j, deadlinePassed, c); err != nil {
			return false, false, err
		}
		s.sitBoth(q, g)
		return false, true, nil
	}
	q.turns++
	q.dirty = true
	j.token = call.Process + "." + strconv.FormatUint(call.Number, 36) + "." + strconv.Itoa(len(c.Jobs)) + "." + strconv.FormatInt(j.n, 36)
	if _, err := s.exec(jobLease, s.now+micros(call.Lease), s.next(), j.token, micros(call.Lease), s.next(), j.n); err != nil {
		return false, false, err
	}
	if j.tracked {
		if _, err := s.exec(statusRun, q.id, j.id); err != nil {
			return false, false, err
		}
	}
	g.held++
	if g.used[class]++; g.used[class] >= int64(max(1, g.limits.Weight)) {
		s.toTail(q, g, class)
	}
	s.sitBoth(q, g)
	l := queue.Lease{Token: queue.Token(j.token), Age: time.Duration(s.now-j.since) * time.Microsecond}
	l.Job, l.Err = j.job(record)
	c.Jobs = append(c.Jobs, l)
	return true, false, nil
}

// settle ends a lease. c may be nil for a release.
func (s *step) settle(q *queueRow, j *jobRow, st queue.Settlement, c *queue.Claimed) error {
	if st.Progress != nil && j.tracked {
		if err := s.progress(q, j, *st.Progress); err != nil {
			return err
		}
	}
	g, err := s.group(q, j.group)
	if err != nil {
		return err
	}
	g.held--
	j.token = ""
	if err := s.act(q, g, j, st, c); err != nil {
		return err
	}
	s.sitBoth(q, g)
	if st.Park {
		s.park(q, g, st.After)
	}
	return nil
}

func (s *step) act(q *queueRow, g *groupRow, j *jobRow, st queue.Settlement, c *queue.Claimed) error {
	if j.done { // its effect is in the file, whatever became of its worker
		st = queue.Settlement{Action: queue.Ack, Result: st.Result}
	}
	if j.cancelled && st.Action != queue.Ack {
		if err := s.ended(j, queue.Cancelled, "", nil); err != nil {
			return err
		}
		return s.pop(q, g, j)
	}
	switch st.Action {
	case queue.Ack:
		result := st.Result
		if result == nil && !j.done {
			result = []byte{}
		}
		if err := s.ended(j, queue.Succeeded, "", result); err != nil {
			return err
		}
		if err := s.pop(q, g, j); err != nil {
			return err
		}
		return s.follow(q, st.Enqueue, c)
	case queue.Release:
		return s.ready(g, j, released+j.claim)
	case queue.Retry:
		return s.retry(q, g, j, st, c)
	case queue.Snooze:
		if j.late < s.now {
			reason := deadlinePassed
			if st.Error != "" {
				reason += ": " + st.Error
			}
			return s.die(q, g, j, reason, c)
		}
		return s.wait(g, j, st.After)
	case queue.Kill:
		if err := s.fail(j, st.Error); err != nil {
			return err
		}
		return s.die(q, g, j, st.Error, c)
	default:
		return fmt.Errorf("sqlqueue: there is no action %d", st.Action)
	}
}

// follow enqueues what an Ack brings.
func (s *step) follow(q *queueRow, entries []queue.Entry, c *queue.Claimed) error {
	for i := range entries {
		to, err := s.queue(cmp.Or(entries[i].Queue, q.name))
		if err != nil {
			return err
		}
		if err := s.takeIn(to); err != nil {
			return err
		}
		e, err := encode(&entries[i])
		if err != nil {
			continue // a name too long, which Queue does not let through
		}
		r, err := s.accept(to, &e)
		if err != nil {
			return err
		}
		c.Enqueued = append(c.Enqueued, r)
	}
	return nil
}

func (s *step) retry(q *queueRow, g *groupRow, j *jobRow, st queue.Settlement, c *queue.Claimed) error {
	j.attempts++
	if err := s.fail(j, st.Error); err != nil {
		return err
	}
	if j.tracked {
		if _, err := s.exec(statusFail, text.Cut(st.Error, maxErrorLen), q.id, j.id); err != nil {
			return err
		}
	}
	switch {
	case j.attempts >= j.maxAttempts:
		return s.die(q, g, j, st.Error, c)
	case j.late < s.now:
		return s.die(q, g, j, deadlinePassed+": "+st.Error, c)
	case !j.relaxed:
		return s.wait(g, j, st.After)
	}
	before := j.ord
	j.state, j.lane, j.at, j.armed = scheduled, "", s.now+micros(st.After), s.next()
	if st.After > 0 {
		if err := s.save(j); err != nil {
			return err
		}
		return s.successor(q, g, j, before, 0)
	}
	if err := s.save(j); err != nil { // out of its lane first, or it would find itself there
		return err
	}
	if err := s.successor(q, g, j, before, 0); err != nil {
		return err
	}
	return s.enter(q, g, j)
}

// enter puts a job that is outside its lane at the tail of it.
func (s *step) enter(q *queueRow, g *groupRow, j *jobRow) error {
	if err := s.tail(q, j); err != nil {
		return err
	}
	if _, err := s.exec(jobEnter, j.lane, j.state, j.place, j.ord, j.n); err != nil {
		return err
	}
	if j.state == ready {
		g.ready[j.class]++
		s.sit(q, g, j.class)
	}
	return nil
}

// wait puts a lane off until its head is due again.
func (s *step) wait(g *groupRow, j *jobRow, after time.Duration) error {
	if after <= 0 {
		return s.ready(g, j, s.next())
	}
	j.state, j.place, j.at, j.armed = waiting, 0, s.now+micros(after), s.next()
	return s.save(j)
}

// ready puts a lane into its group's list. The caller sees to the group's seats.
func (s *step) ready(g *groupRow, j *jobRow, place int64) error {
	j.state, j.place = ready, place
	g.ready[j.class]++
	return s.save(j)
}

// pop takes the head out of a lane for good.
func (s *step) pop(q *queueRow, g *groupRow, j *jobRow) error {
	if err := s.delete(j.n); err != nil {
		return err
	}
	g.jobs--
	return s.successor(q, g, j, j.ord, 0)
}

// successor makes ready what comes after ord in the lane of j, at the tail of its group or at a place. Cancelled jobs leave
// when they become the head.
func (s *step) successor(q *queueRow, g *groupRow, j *jobRow, ord, place int64) error {
	g.dirty = true
	if j.key == "" {
		return nil
	}
	for {
		var n int64
		var cancelled bool
		err := s.row(laneNext, q.id, j.group, j.class, j.key, ord).Scan(&n, &cancelled)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if cancelled {
			if err := s.delete(n); err != nil {
				return err
			}
			g.jobs--
			continue
		}
		if place == 0 {
			place = s.next()
		}
		if _, err := s.exec(jobReady, place, n); err != nil {
			return err
		}
		g.ready[j.class]++
		s.sit(q, g, j.class)
		return nil
	}
}

// die makes the head of a lane a dead letter, and reports it.
func (s *step) die(q *queueRow, g *groupRow, j *jobRow, reason string, c *queue.Claimed) error {
	j.state, j.lane, j.place, j.at, j.armed, j.token, j.error = dead, "", 0, s.now/1000*1000, s.next(), "", text.Cut(reason, maxErrorLen)
	if err := s.ended(j, queue.Dead, j.error, nil); err != nil {
		return err
	}
	if err := s.save(j); err != nil {
		return err
	}
	d, err := s.letter(j)
	if err != nil {
		return err
	}
	c.Died = append(c.Died, d)
	g.jobs--
	return s.successor(q, g, j, j.ord, 0)
}

// ended closes the status of a tracked job.
func (s *step) ended(j *jobRow, state queue.State, reason string, result []byte) error {
	if !j.tracked {
		return nil
	}
	_, err := s.exec(statusEnd, string(state), j.attempts, j.crashes, j.since, s.now, reason, result, j.queue, j.id)
	return err
}

func (s *step) progress(q *queueRow, j *jobRow, p queue.Progress) error {
	percent := min(p.Percent, 100)
	_, err := s.exec(statusProgress, percent, text.Cut(p.Note, maxNoteLen), q.id, j.id, percent)
	return err
}

// due is one thing that is due.
type due struct {
	at, armed int64
	do        func() error
}

// takeUp makes what is due ready, oldest first, and then what its worker has lost. It answers what was due next.
func (s *step) takeUp(q *queueRow, c *queue.Claimed) (next dues, err error) {
	if next, err = s.dues(q); err != nil {
		return next, err
	}
	if at := next.first(); at > 0 && at <= s.now {
		all, err := s.dueNow(q, next)
		if err != nil {
			return next, err
		}
		for _, d := range all[:min(len(all), takeUp)] {
			if err := d.do(); err != nil {
				return next, err
			}
		}
	}
	if q.firstLease == 0 || q.firstLease > s.now {
		return next, nil
	}
	ended, err := each(s, endedLeases, scanJob, q.id, s.now, takeUp)
	if err != nil {
		return next, err
	}
	for _, j := range ended {
		if j.at > q.awayFrom && j.at <= q.awayTo && !j.spared {
			if _, err := s.exec(jobExtend, s.now+j.lease, j.lease, true, j.n); err != nil {
				return next, err
			}
			continue
		}
		if err := s.crashed(q, j, c); err != nil {
			return next, err
		}
	}
	return next, nil
}

func (s *step) dueNow(q *queueRow, at dues) ([]due, error) {
	is := func(t int64) bool { return t > 0 && t <= s.now }
	var all []due
	for i, id := range [...]statement{dueWaiting, dueScheduled} {
		if !is(at[i]) {
			continue
		}
		jobs, err := each(s, id, scanJob, q.id, s.now, takeUp)
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			all = append(all, due{j.at, j.armed, func() error {
				g, err := s.group(q, j.group)
				if err != nil {
					return err
				}
				if j.state == scheduled {
					return s.enter(q, g, j)
				}
				if _, err := s.exec(jobReady, s.next(), j.n); err != nil {
					return err
				}
				g.ready[j.class]++
				s.sit(q, g, j.class)
				return nil
			}})
		}
	}
	if is(at[2]) {
		parks, err := each(s, parksDue, func(row scanner) (g groupRow, err error) {
			err = row.Scan(&g.name, &g.parked, &g.armed)
			return g, err
		}, q.id, s.now, takeUp)
		if err != nil {
			return nil, err
		}
		for _, p := range parks {
			all = append(all, due{p.parked, p.armed, func() error {
				g, err := s.group(q, p.name)
				if err != nil {
					return err
				}
				s.park(q, g, 0)
				return nil
			}})
		}
	}
	slices.SortFunc(all, func(a, b due) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.armed, b.armed)) })
	return all, nil
}

// crashed takes a lane over whose worker let the lease end.
func (s *step) crashed(q *queueRow, j *jobRow, c *queue.Claimed) error {
	g, err := s.group(q, j.group)
	if err != nil {
		return err
	}
	g.held--
	j.token = ""
	switch {
	case j.done:
		err = s.act(q, g, j, queue.Settlement{Action: queue.Ack}, c)
	case j.cancelled:
		if err = s.ended(j, queue.Cancelled, "", nil); err == nil {
			err = s.pop(q, g, j)
		}
	default:
		j.crashes++
		if err = s.fail(j, "the lease ended without a word of its worker"); err != nil {
			break
		}
		if j.crashes >= j.maxCrashes {
			err = s.die(q, g, j, fmt.Sprintf("crashed its worker %d times", j.crashes), c)
			break
		}
		err = s.ready(g, j, s.next())
	}
	if err != nil {
		return err
	}
	s.sitBoth(q, g)
	return nil
}

func (s *step) extend(q *queueRow, beat queue.Heartbeat) (e queue.Extended, err error) {
	if err := s.ran(q); err != nil {
		return e, err
	}
	for _, t := range beat.Tokens {
		j, err := s.held(q, t)
		if err != nil {
			return e, err
		}
		if j == nil {
			e.Lost = append(e.Lost, t)
			continue
		}
		if _, err := s.exec(jobExtend, s.now+micros(beat.Lease), micros(beat.Lease), false, j.n); err != nil {
			return e, err
		}
		if p, ok := beat.Progress[t]; ok && j.tracked {
			if err := s.progress(q, j, p); err != nil {
				return e, err
			}
		}
		if j.cancelled {
			e.Cancelled = append(e.Cancelled, t)
		}
	}
	return e, nil
}
