package queue

import (
	"container/heap"
	"fmt"
	"slices"
	"strconv"
	"time"
)

const (
	// takeUp bounds what one Claim takes up of each kind: due lanes, ended leases, old keys.
	takeUp = 128
	// batchMemory is how long an answer to an Enqueue is remembered for a repetition.
	batchMemory = 2 * time.Minute
	// bulkTurn is which turn goes to bulk work although live work is ready.
	bulkTurn = 8
	// answerMemory is how long a process's last answer is kept at least.
	answerMemory = 10 * time.Minute
	// deadlinePassed is the error of a job that died of its deadline.
	deadlinePassed = "deadline"
)

// memQueue is one queue: the machine, a step at a time under Memory's lock.
type memQueue struct {
	lanes   map[laneID]*lane
	groups  map[string]*group
	ring    [classes]deque[*group] // per class: the groups that have a ready lane, in the order of their turns
	turns   uint64
	seq     uint64
	later   jobHeap // scheduled jobs, outside their lanes until they are due
	leased  map[Token]*lane
	claims  uint64   // orders leases by when they were taken
	waiting laneHeap // lanes by when their head is due
	expiry  laneHeap // lanes by when their lease ends
	dead    []DeadLetter

	keys    map[dedupeID]dedupe
	keyEnds keyHeap
	batches map[string][]Receipt
	sent    deque[sentBatch]
	answers map[string]answer // the last one of each process

	waiters bool          // somebody waits on woken
	woken   chan struct{} // closed and made anew when a lane becomes ready
}

type laneID struct {
	group string
	class Class
	key   string
	job   string // set for a job without a key: a lane of its own
}

// lane is the jobs of a group and class that share a key, in order. Its head stays until it is settled. It is
// ready (in its group's list), leased (in expiry) or waiting (in waiting); an empty one is gone.
type lane struct {
	id    laneID
	group *group
	jobs  deque[*stored]

	token    Token
	claim    uint64    // when it was leased, among all leases
	released bool      // given back, and not leased since
	at       time.Time // while leased, the lease's end; while waiting, when the head is due
	index    int       // in the heap that goes by at
}

type stored struct {
	Job
	since time.Time // it was accepted or due, whichever is later
	due   time.Time // while it is scheduled
	seq   uint64    // orders jobs by when they were accepted
}

type group struct {
	name  string
	lanes int
	ready [classes]deque[*lane]
}

type dedupeID struct{ group, key string }

type dedupe struct {
	job string
	end time.Time
}

type sentBatch struct {
	id string
	at time.Time
}

type answer struct {
	number  uint64
	claimed Claimed
	at      time.Time
}

func (q *memQueue) enqueue(now time.Time, batch Batch) []Receipt {
	for q.sent.len() > 0 && now.Sub(q.sent.front().at) > batchMemory {
		delete(q.batches, q.sent.popFront().id)
	}
	if receipts, seen := q.batches[batch.ID]; seen {
		return slices.Clone(receipts)
	}
	receipts := make([]Receipt, len(batch.Jobs))
	for i, e := range batch.Jobs {
		receipts[i] = q.accept(now, e)
	}
	q.batches[batch.ID] = receipts
	q.sent.pushBack(sentBatch{batch.ID, now})
	return slices.Clone(receipts)
}

func (q *memQueue) accept(now time.Time, e Entry) Receipt {
	q.forgetKeys(now)
	if e.Job.DedupeKey != "" {
		id := dedupeID{e.Job.Group, e.Job.DedupeKey}
		if first, taken := q.keys[id]; taken && now.Before(first.end) {
			return Receipt{ID: first.job, Duplicate: true}
		}
		end := now.Add(e.Job.DedupeFor)
		q.keys[id] = dedupe{e.Job.ID, end}
		heap.Push(&q.keyEnds, keyEnd{end, id})
	}
	q.seq++
	job := &stored{Job: e.Job.clone(), since: now, seq: q.seq}
	if e.Dead != "" {
		q.bury(now, job, e.Dead)
		return Receipt{ID: job.ID}
	}
	if job.due = latest(now.Add(job.Delay), job.NotBefore); job.due.After(now) {
		job.since = job.due
		heap.Push(&q.later, job)
		return Receipt{ID: job.ID}
	}
	q.append(job)
	return Receipt{ID: job.ID}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// append puts a job at the tail of its lane.
func (q *memQueue) append(job *stored) {
	id := laneID{group: job.Group, class: job.Class, key: job.Key}
	if job.Key == "" {
		id.job = job.ID
	}
	l := q.lanes[id]
	if l == nil {
		l = &lane{id: id, group: q.groupOf(job.Group)}
		l.group.lanes++
		q.lanes[id] = l
	}
	l.jobs.pushBack(job)
	if l.jobs.len() == 1 {
		q.ready(l)
	}
}

func (q *memQueue) groupOf(name string) *group {
	g := q.groups[name]
	if g == nil {
		g = &group{name: name}
		q.groups[name] = g
	}
	return g
}

// forgetKeys drops dedupe keys that have ended.
func (q *memQueue) forgetKeys(now time.Time) {
	for range takeUp {
		if len(q.keyEnds) == 0 || q.keyEnds[0].at.After(now) {
			return
		}
		ended := heap.Pop(&q.keyEnds).(keyEnd) //nolint:forcetypeassert // container/heap's shape
		if q.keys[ended.id].end.Equal(ended.at) {
			delete(q.keys, ended.id)
		}
	}
}

// ready puts a lane at the tail of its group, and the group into the ring of the lane's class.
func (q *memQueue) ready(l *lane) {
	l.group.ready[l.id.class].pushBack(l)
	q.enter(l.group, l.id.class)
}

// enter puts a group that has just got a ready lane at the ring's tail, unless it is there already.
func (q *memQueue) enter(g *group, c Class) {
	if g.ready[c].len() == 1 {
		q.ring[c].pushBack(g)
	}
	if q.waiters {
		q.waiters = false
		close(q.woken)
		q.woken = make(chan struct{})
	}
}

func (q *memQueue) claim(now time.Time, call Call) Claimed {
	if last, ok := q.answers[call.Process]; ok && last.number == call.Number {
		return last.claimed
	}
	var c Claimed
	for _, s := range call.Settle {
		l := q.leased[s.Token]
		if l == nil {
			c.Lost = append(c.Lost, s.Token)
			continue
		}
		q.unlease(l)
		q.settle(now, l, s)
	}
	q.takeUp(now) // after the settlements: a lease past its end still counts until it is taken up
	died := 0
	for len(c.Jobs) < call.Max && died < takeUp && q.ring[Live].len()+q.ring[Bulk].len() > 0 {
		token := Token(call.Process + "." + strconv.FormatUint(call.Number, 10) + "." + strconv.Itoa(len(c.Jobs)))
		lease, ok := q.lease(now, token, call.Lease)
		if !ok {
			died++
			continue
		}
		c.Jobs = append(c.Jobs, lease)
	}
	if c.DueIn = q.dueIn(now); died == takeUp {
		c.DueIn = 1 // look again
	}
	q.remember(call, answer{call.Number, c, now})
	return c
}

// remember keeps a process's last answer. A new process is the occasion to forget those that are gone.
func (q *memQueue) remember(call Call, a answer) {
	if _, known := q.answers[call.Process]; !known {
		for process, old := range q.answers {
			if a.at.Sub(old.at) > answerMemory {
				delete(q.answers, process)
			}
		}
	}
	q.answers[call.Process] = a
}

// dueIn is how long it takes until a lane's head or a scheduled job falls due; 0 if none will.
func (q *memQueue) dueIn(now time.Time) time.Duration {
	var next time.Time
	if len(q.waiting) > 0 {
		next = q.waiting[0].at
	}
	if len(q.later) > 0 && (next.IsZero() || q.later[0].due.Before(next)) {
		next = q.later[0].due
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(now), 1)
}

// lease takes the next lane: the first ready one of the group whose turn it is, in the class whose
// turn it is. If its head is past its deadline, that dies instead, and the turn is not spent.
func (q *memQueue) lease(now time.Time, token Token, d time.Duration) (Lease, bool) {
	class := Live
	if q.ring[Live].len() == 0 || (q.turns+1)%bulkTurn == 0 && q.ring[Bulk].len() > 0 {
		class = Bulk
	}
	g := q.ring[class].front()
	l := g.ready[class].popFront()
	if head := l.jobs.front(); head.late(now) {
		if g.ready[class].len() == 0 {
			q.ring[class].popFront()
		}
		q.bury(now, head, deadlinePassed)
		q.next(l)
		return Lease{}, false
	}
	q.turns++
	q.ring[class].popFront()
	if g.ready[class].len() > 0 {
		q.ring[class].pushBack(g)
	}
	q.claims++
	l.token, l.claim, l.released, l.at = token, q.claims, false, now.Add(d)
	q.leased[token] = l
	heap.Push(&q.expiry, l)
	job := l.jobs.front()
	return Lease{Token: token, Job: job.Job, Age: now.Sub(job.since)}, true
}

// schedule keeps a relaxed job that failed out of its lane until it is due.
func (q *memQueue) schedule(now time.Time, job *stored, after time.Duration) {
	if job.due = now.Add(after); job.due.After(now) {
		heap.Push(&q.later, job)
		return
	}
	q.append(job)
}

// late says whether a job is past its deadline.
func (s *stored) late(now time.Time) bool { return now.Sub(s.since) > s.Deadline }

func (q *memQueue) unlease(l *lane) {
	delete(q.leased, l.token)
	heap.Remove(&q.expiry, l.index)
	l.token = ""
}

func (q *memQueue) settle(now time.Time, l *lane, s Settlement) {
	head := l.jobs.front()
	switch s.Action {
	case Release:
		q.giveBack(l)
		return
	case Retry:
		head.Attempts++
		switch {
		case head.Attempts >= head.MaxAttempts:
			q.bury(now, head, s.Error)
		case head.late(now):
			q.bury(now, head, deadlinePassed+": "+s.Error)
		case head.Order == Relaxed:
			q.next(l) // before the job comes back, perhaps at once, to what is then a lane as any other
			q.schedule(now, head, s.After)
			return
		default:
			q.wait(now, l, s.After)
			return
		}
	case Snooze:
		if !head.late(now) {
			q.wait(now, l, s.After)
			return
		}
		q.bury(now, head, deadlinePassed)
	case Kill:
		q.bury(now, head, s.Error)
	case Ack:
	}
	q.next(l)
}

// next takes the head out of a lane, which is ready again if it has another job, and else gone.
func (q *memQueue) next(l *lane) {
	l.jobs.popFront()
	if l.jobs.len() > 0 {
		q.ready(l)
		return
	}
	delete(q.lanes, l.id)
	if l.group.lanes--; l.group.lanes == 0 {
		delete(q.groups, l.group.name)
	}
}

// giveBack makes a lane the next of its group. Several come back in the order in which they were
// claimed, whether in one call or in many.
func (q *memQueue) giveBack(l *lane) {
	l.released = true
	place, ready := 0, &l.group.ready[l.id.class]
	for place < ready.len() {
		other := ready.at(place)
		if !other.released || other.claim > l.claim {
			break
		}
		place++
	}
	ready.insert(place, l)
	q.enter(l.group, l.id.class)
}

func (q *memQueue) wait(now time.Time, l *lane, after time.Duration) {
	if after <= 0 {
		q.ready(l)
		return
	}
	l.at = now.Add(after)
	heap.Push(&q.waiting, l)
}

func (q *memQueue) bury(now time.Time, job *stored, reason string) {
	q.dead = append(q.dead, DeadLetter{Job: job.Job, Error: reason, At: now})
}

// takeUp makes what is due ready, and what its worker has lost.
func (q *memQueue) takeUp(now time.Time) {
	for range takeUp { // lanes and scheduled jobs together, oldest first
		lanes := len(q.waiting) > 0 && !q.waiting[0].at.After(now)
		jobs := len(q.later) > 0 && !q.later[0].due.After(now)
		switch {
		case lanes && (!jobs || !q.later[0].due.Before(q.waiting[0].at)):
			q.ready(heap.Pop(&q.waiting).(*lane)) //nolint:forcetypeassert // container/heap's shape
		case jobs:
			q.append(heap.Pop(&q.later).(*stored)) //nolint:forcetypeassert // container/heap's shape
		}
	}
	for range takeUp {
		if len(q.expiry) == 0 || q.expiry[0].at.After(now) {
			break
		}
		q.crashed(now, q.expiry[0])
	}
}

// crashed takes a lane over whose worker let the lease end.
func (q *memQueue) crashed(now time.Time, l *lane) {
	q.unlease(l)
	head := l.jobs.front()
	if head.Crashes++; head.Crashes >= head.MaxCrashes {
		q.bury(now, head, fmt.Sprintf("crashed its worker %d times", head.Crashes))
		q.next(l)
		return
	}
	q.ready(l)
}

func (q *memQueue) extend(now time.Time, tokens []Token, d time.Duration) (lost []Token) {
	for _, t := range tokens {
		l := q.leased[t]
		if l == nil {
			lost = append(lost, t)
			continue
		}
		l.at = now.Add(d)
		heap.Fix(&q.expiry, l.index)
	}
	return lost
}
