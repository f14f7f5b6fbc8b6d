package queue

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a Claim does to the machine: settle, take up what is due or lost, lease.

func (q *machine) claim(now tick, call Call) Claimed {
	last, known := q.answers[call.Process]
	switch {
	case known && last.number == call.Number:
		return q.unpurged(now, last.claimed)
	case known && call.Number < last.number: // given up long ago, and only now here: nobody waits for what it would lease
		var late Claimed
		for _, s := range call.Settle {
			late.Lost = append(late.Lost, s.Token)
		}
		return late
	}
	q.ran(now)
	q.forget(now)
	if call.Again {
		q.giveBackOthers(now, call)
	}
	var c Claimed
	for _, s := range call.Settle {
		l := q.leased[s.Token]
		if l == nil {
			c.Lost = append(c.Lost, s.Token)
			continue
		}
		q.settle(now, l, s, &c)
	}
	q.takeUp(now, &c) // after the settlements: a lease past its end still counts until it is taken up
	if n := min(call.Max, len(q.leased)+q.lanes, maxClaim); n > 0 && q.claimable() {
		c.Jobs = make([]Lease, 0, n)
	}
	late := 0
	for len(c.Jobs) < call.Max && late < takeUp && q.claimable() {
		if !q.lease(now, call, &c) {
			late++
		}
	}
	if c.DueIn = q.dueIn(now); late == takeUp {
		c.DueIn = 1 // look again
	}
	if now.sub(q.sweptAnswers) > time.Minute {
		q.sweptAnswers = now
		q.forgetAnswers(now)
	}
	q.answers[call.Process] = answer{call.Number, c, now}
	return c
}

// unpurged is a remembered answer without the jobs that were purged meanwhile: the process never got them, and no handler
// is to get what is left of one.
func (q *machine) unpurged(now tick, c Claimed) Claimed {
	gone := func(l Lease) bool {
		held := q.leased[l.Token]
		return held != nil && held.first.purged
	}
	if !slices.ContainsFunc(c.Jobs, gone) {
		return c
	}
	jobs := c.Jobs
	c.Jobs = nil
	for _, l := range jobs {
		if gone(l) {
			q.settle(now, q.leased[l.Token], Settlement{Action: Release}, nil)
			continue
		}
		c.Jobs = append(c.Jobs, l)
	}
	return c
}

// forgetAnswers drops the last answers of processes that are gone.
func (q *machine) forgetAnswers(now tick) {
	for process, old := range q.answers {
		if now.sub(old.at) > answerMemory {
			delete(q.answers, process)
		}
	}
}

// giveBackOthers gives back what a process was given by an answer that it never got.
func (q *machine) giveBackOthers(now tick, call Call) {
	held := map[Token]bool{}
	for _, t := range call.Held {
		held[t] = true
	}
	for _, s := range call.Settle {
		held[s.Token] = true
	}
	var others []*lane
	for t, l := range q.leased {
		if strings.HasPrefix(string(t), call.Process+".") && !held[t] {
			others = append(others, l)
		}
	}
	slices.SortFunc(others, func(a, b *lane) int { return int(a.claim) - int(b.claim) }) //nolint:gosec // counts
	for _, l := range others {
		q.settle(now, l, Settlement{Action: Release}, nil)
	}
}

// dueIn is how long it takes until something falls due; 0 if nothing will.
func (q *machine) dueIn(now tick) time.Duration {
	next := tick(-1)
	sooner := func(at tick) {
		if next < 0 || at < next {
			next = at
		}
	}
	if len(q.waiting) > 0 {
		sooner(q.waiting[0].at)
	}
	if len(q.later) > 0 {
		sooner(q.later[0].at)
	}
	if len(q.parked) > 0 {
		sooner(q.parked[0].at)
	}
	if next < 0 {
		return 0
	}
	return max(next.sub(now), 1)
}

// lease takes the next lane: the first ready one of the group whose turn it is, in the class whose
// turn it is. If its head is past its deadline, that dies instead, and the turn is not spent.
func (q *machine) lease(now tick, call Call, c *Claimed) bool {
	every := uint64(bulkTurn)
	if call.BulkEvery > 0 {
		every = uint64(call.BulkEvery)
	}
	class := Live
	if q.rings[Live].first == nil || (q.turns+1)%every == 0 && q.rings[Bulk].first != nil {
		class = Bulk
	}
	g := q.rings[class].first
	l := g.ready[class].first
	g.ready[class].remove(l)
	if l.first.late(now) {
		died := l.first
		q.pop(l) // the lane is at its group's tail again, or gone, before the rings are looked at
		q.die(now, died, deadlinePassed, c)
		q.seats(g)
		return false
	}
	q.turns++
	q.claims++
	b := make([]byte, 0, len(call.Process)+16)
	b = append(append(b, call.Process...), '.')
	b = append(strconv.AppendInt(b, int64(q.part), 10), '.')
	b = append(strconv.AppendUint(b, call.Number, 36), '.')
	token := Token(strconv.AppendInt(b, int64(len(c.Jobs)), 36))
	l.state, l.token, l.lease, l.claim = laneLeased, token, call.Lease, q.claims
	l.released, l.spared = false, false
	q.leased[token] = l
	l.first.begin()
	q.timeLane(&q.expiry, l, now.add(call.Lease))
	g.held++
	if s := &g.seat[class]; s.taken {
		if s.used++; s.used >= max(1, g.limits.Weight) {
			s.used = 0
			q.rings[class].remove(g)
			q.rings[class].push(g)
		}
	}
	q.seats(g)
	c.Jobs = append(c.Jobs, Lease{Token: token, Age: now.sub(l.first.since)})
	lease := &c.Jobs[len(c.Jobs)-1]
	lease.Err = l.first.read(&lease.Job)
	return true
}

func (q *machine) timeLane(h *timers[*lane], l *lane, at tick) {
	q.seq++
	l.at, l.seq = at, q.seq
	heap.Push(h, l)
}

func (q *machine) unlease(l *lane) {
	delete(q.leased, l.token)
	heap.Remove(&q.expiry, l.index)
	l.token = ""
	l.group.held--
	// Its place in the rings is looked at by whatever happens to the lane next.
}

func (q *machine) settle(now tick, l *lane, s Settlement, c *Claimed) {
	head := l.first
	if s.Progress != nil {
		head.progress(*s.Progress)
	}
	q.unlease(l)
	g := l.group
	defer q.seats(g)
	if s.Park { // before the lane itself is ready again
		defer q.park(now, g.name, s.After)
	}
	if head.cancelled && s.Action != Ack {
		q.pop(l)
		q.end(now, head, Cancelled, "")
		return
	}
	switch s.Action {
	case Ack:
		q.pop(l)
		if head.track != nil {
			head.track.status.Result = slices.Clone(s.Result)
			head.track.status.Percent = 100
		}
		q.end(now, head, Succeeded, "")
		for _, e := range s.Enqueue {
			record, err := e.Job.AppendBinary(nil)
			if err != nil {
				continue // a name too long, which Queue does not let through
			}
			c.Enqueued = append(c.Enqueued, q.space.parts(cmp.Or(e.Queue, q.name))[q.part].accept(now, &e, record))
		}
	case Release:
		q.giveBack(l)
	case Retry:
		head.attempts++
		head.fail(q.space.timeOf(now), s.Error)
		if head.track != nil {
			head.track.status.Error = cut(s.Error, maxErrorLen)
		}
		switch {
		case head.attempts >= head.maxAttempts:
			q.pop(l)
			q.die(now, head, s.Error, c)
		case head.late(now):
			q.pop(l)
			q.die(now, head, deadlinePassed+": "+s.Error, c)
		case head.relaxed:
			head.detach(q, l)
			if s.After > 0 {
				q.schedule(head, now.add(s.After))
			} else {
				q.append(head)
			}
		default:
			q.wait(now, l, s.After)
		}
	case Snooze:
		if head.late(now) {
			reason := deadlinePassed
			if s.Error != "" {
				reason += ": " + s.Error
			}
			q.pop(l)
			q.die(now, head, reason, c)
			return
		}
		q.wait(now, l, s.After)
	case Kill:
		head.fail(q.space.timeOf(now), s.Error)
		q.pop(l)
		q.die(now, head, s.Error, c)
	}
}

// detach takes the head out of its lane to come back later; it stays its group's.
func (s *stored) detach(q *machine, l *lane) {
	l.first = s.next
	s.next, s.lane = nil, nil
	q.jobs--
	q.settleLane(l)
}

// pop takes the head out of a lane for good. The caller looks at the group's seats afterwards.
func (q *machine) pop(l *lane) {
	q.leaveLane(l.first)
	q.settleLane(l)
}

// leaveLane takes the head out of its lane, and of its group's count.
func (q *machine) leaveLane(head *stored) {
	l := head.lane
	l.first = head.next
	l.group.jobs--
	q.jobs--
	if head.cancelled {
		q.gone--
	}
	head.next, head.lane, head.group = nil, nil, nil
}

// settleLane finds the state of a lane that has lost its head and is in no list or heap: ready at the tail if
// it has another job, else gone. Cancelled jobs leave when they become its head.
func (q *machine) settleLane(l *lane) {
	for l.first != nil && l.first.cancelled {
		q.leaveLane(l.first)
	}
	l.released = false
	if l.first != nil {
		q.ready(l, nil)
		return
	}
	l.last = nil
	q.lanes--
	if l.key != "" {
		delete(l.group.lanes[l.class], l.key)
	}
}

// giveBack makes a lane the next of its group. Several come back in the order in which they were
// claimed, whether in one call or in many.
func (q *machine) giveBack(l *lane) {
	l.released = true
	next := l.group.ready[l.class].first
	for next != nil && next.released && next.claim < l.claim {
		next = next.next
	}
	q.ready(l, next)
	q.seats(l.group)
}

func (q *machine) wait(now tick, l *lane, after time.Duration) {
	if after <= 0 {
		q.ready(l, nil)
		return
	}
	l.state = laneWaiting
	q.timeLane(&q.waiting, l, now.add(after))
}

// takeUp makes what is due ready, oldest first, and what its worker has lost.
func (q *machine) takeUp(now tick, c *Claimed) {
due:
	for range takeUp {
		lane, a := q.waiting.soonest(now)
		job, b := q.later.soonest(now)
		parked, p := q.parked.soonest(now)
		switch {
		case a && (!b || lane.before(&job.timed)) && (!p || lane.before(&parked.timed)):
			heap.Pop(&q.waiting)
			q.ready(lane, nil)
		case b && (!p || job.before(&parked.timed)):
			heap.Pop(&q.later)
			q.append(job)
		case p:
			q.unpark(parked)
		default:
			break due
		}
	}
	for range takeUp {
		l, ended := q.expiry.soonest(now)
		if !ended {
			break
		}
		if l.at > q.awayFrom && l.at <= q.awayTo && !l.spared {
			l.spared, l.at = true, now.add(l.lease)
			heap.Fix(&q.expiry, l.index)
			continue
		}
		q.crashed(now, l, c)
	}
}

func (t *timed) before(u *timed) bool { return t.at < u.at || t.at == u.at && t.seq < u.seq }

// crashed takes a lane over whose worker let the lease end.
func (q *machine) crashed(now tick, l *lane, c *Claimed) {
	q.unlease(l)
	defer q.seats(l.group)
	head := l.first
	if head.cancelled {
		q.pop(l)
		q.end(now, head, Cancelled, "")
		return
	}
	head.crashes++
	times := fmt.Sprintf("crashed its worker %d times", head.crashes)
	head.fail(q.space.timeOf(now), "the lease ended without a word of its worker")
	if head.crashes >= head.maxCrashes {
		q.pop(l)
		q.die(now, head, times, c)
		return
	}
	q.ready(l, nil)
}

func (q *machine) extend(now tick, beat Heartbeat) (e Extended) {
	if len(beat.Tokens) == 0 {
		return e
	}
	q.ran(now)
	for _, t := range beat.Tokens {
		l := q.leased[t]
		if l == nil {
			e.Lost = append(e.Lost, t)
			continue
		}
		l.at, l.lease, l.spared = now.add(beat.Lease), beat.Lease, false
		heap.Fix(&q.expiry, l.index)
		if p, ok := beat.Progress[t]; ok {
			l.first.progress(p)
		}
		if l.first.cancelled {
			e.Cancelled = append(e.Cancelled, t)
		}
	}
	return e
}
