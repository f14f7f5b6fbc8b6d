package queue

import (
	"container/heap"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// takeUp bounds what one Claim takes up: due things, ended leases, jobs past their deadline.
	takeUp = 128
	// batchMemory is how long an answer to an Enqueue is remembered for a repetition, batchesKept how many
	// are: this engine's callers live in its process, so that a repetition comes at once.
	batchMemory = 2 * time.Minute
	batchesKept = 1 << 12
	// bulkTurn is which turn goes to bulk work although live work is ready.
	bulkTurn = 8
	// answerMemory is how long a process's last answer is kept at least.
	answerMemory = 10 * time.Minute
	// deadlinePassed is the error of a job that died of its deadline.
	deadlinePassed = "deadline"
)

// tick is the engine's time, in nanoseconds since its begin.
type tick int64

func (t tick) add(d time.Duration) tick { return t + tick(max(0, min(d, 1<<61))) }
func (t tick) sub(u tick) time.Duration { return time.Duration(t - u) }

// machine is one partition of one queue: QUEUE-MODEL, a step at a time under Memory's lock. Its caller
// says what time it is.
type machine struct {
	space *Memory // to enqueue in its other queues
	name  string
	part  int

	lanes  int // of all groups
	jobs   int // in lanes
	groups map[string]*group
	rings  [classes]ring
	turns  uint64
	seq    uint64 // orders jobs by when they were accepted, and timers by when they were set
	leased map[Token]*lane
	claims uint64 // orders leases by when they were taken
	paused bool
	limits map[string]Limits
	gone   int // jobs in lanes that are cancelled and still there

	later   timers[*stored] // scheduled jobs, outside their lanes until they are due
	waiting timers[*lane]   // by when their head is due
	parked  timers[*group]  // by when they go on
	expiry  timers[*lane]   // by when their lease ends

	lastRun          tick // when something last ran here
	awayFrom, awayTo tick // leases that ended between these live on once more: nothing ran that could extend them

	dead    graveyard
	keys    map[string]map[string]*dedupe // by group
	keyEnds timers[*dedupe]
	tracked map[string]*tracking
	ends    timers[*tracking] // of jobs that have ended, by when they are forgotten

	batches map[string]remembered
	sent    deque[sentBatch]
	answers map[string]answer // the last one of each process

	sweptAnswers tick // when those of processes that are gone were last looked for

	waiters bool          // somebody waits on woken
	woken   chan struct{} // closed and made anew when a lane becomes ready
}

// lane is the jobs of a group, class and key, in order. Its head stays until it is settled. It is ready (in
// its group's list), leased (in expiry) or waiting (in waiting); an empty one is gone.
type lane struct {
	timed       // while leased, the lease's end; while waiting, when the head is due
	group       *group
	class       Class
	state       laneState
	released    bool // given back, and not leased since
	spared      bool // its lease has ended once for want of anybody who could extend it
	key         string
	first, last *stored
	prev, next  *lane // while ready, in its group's list

	token Token // begins with the process
	lease time.Duration
	claim uint64 // when it was leased, among all leases
}

type laneState uint8

const (
	laneReady laneState = iota + 1
	laneLeased
	laneWaiting
)

// stored is a job. Its record is as it was accepted; what changes stands beside it.
type stored struct {
	timed   // while it is scheduled
	record  []byte
	group   *group // nil while it is dead
	lane    *lane  // nil while it is scheduled or dead
	next    *stored
	history *[]Attempt
	track   *tracking // nil once it has ended

	since    tick   // it was accepted or due, whichever is later
	accepted uint64 // orders jobs by when they were accepted

	attempts, maxAttempts int32
	crashes, maxCrashes   int32
	class                 Class
	relaxed               bool
	cancelled             bool // leaves when it is its lane's head and nobody has it
	purged                bool // and nothing is kept of it
}

// group is a tenant that has lanes, or is parked.
type group struct {
	timed  // while it is parked
	name   string
	parked bool
	jobs   int // in lanes and scheduled: the group is there as long as it has any
	held   int // leased lanes
	limits Limits
	lanes  [classes]map[string]*lane // those with a key
	ready  [classes]laneList
	seat   [classes]seat
}

// seat is a group's place in a ring.
type seat struct {
	taken      bool
	used       int // lanes claimed in this turn
	prev, next *group
}

// dedupe is a dedupe key that is taken, until its time.
type dedupe struct {
	timed
	group, key   string
	job          string
	jobKey, kind string // the job's
	accepted     uint64
}

type sentBatch struct {
	id string
	at tick
}

// remembered is what a batch's answer was beyond the IDs that it came with: the duplicates, by place.
type remembered map[int]string

type answer struct {
	number  uint64
	claimed Claimed
	at      tick
}

func newMachine(space *Memory, name string, part int) *machine {
	m := &machine{
		space: space, name: name, part: part,
		groups: map[string]*group{}, leased: map[Token]*lane{}, limits: map[string]Limits{}, keys: map[string]map[string]*dedupe{},
		tracked: map[string]*tracking{}, batches: map[string]remembered{}, answers: map[string]answer{}, woken: make(chan struct{}),
	}
	m.rings[Bulk].class = Bulk
	return m
}

// ran notes that something runs. If nothing did for so long that leases may have ended for want of anybody
// who could extend them, they get another chance when they are taken up.
func (q *machine) ran(now tick) {
	if lease, ended := q.expiry.soonest(now); ended && now.sub(q.lastRun) > lease.lease*2/3 {
		if lease.at > q.awayTo { // none is left of an earlier absence
			q.awayFrom = q.lastRun
		}
		q.awayTo = now
	}
	q.lastRun = now
}

// enqueue accepts a batch, whose jobs' records are given: they become the machine's own.
func (q *machine) enqueue(now tick, batch Batch, records [][]byte) []Receipt {
	q.ran(now)
	for q.sent.len() > 0 && (now.sub(q.sent.front().at) > batchMemory || q.sent.len() > batchesKept) {
		delete(q.batches, q.sent.popFront().id)
	}
	duplicates, seen := q.batches[batch.ID]
	receipts := make([]Receipt, len(batch.Jobs))
	for i := range batch.Jobs {
		e := &batch.Jobs[i]
		if seen {
			receipts[i] = Receipt{ID: e.Job.ID}
			if first, ok := duplicates[i]; ok {
				receipts[i] = Receipt{ID: first, Duplicate: true}
			}
			continue
		}
		if receipts[i] = q.accept(now, e, records[i]); receipts[i].Duplicate { //nolint:gosec // a record for each job
			if duplicates == nil {
				duplicates = remembered{}
			}
			duplicates[i] = receipts[i].ID
		}
	}
	if !seen {
		q.batches[batch.ID] = duplicates
		q.sent.pushBack(sentBatch{batch.ID, now})
	}
	return receipts
}

func (q *machine) accept(now tick, e *Entry, record []byte) Receipt {
	q.forget(now)
	job := &e.Job
	q.seq++
	accepted := q.seq
	if job.DedupeKey != "" {
		if first, taken := q.keys[job.Group][job.DedupeKey]; taken && now < first.at {
			return Receipt{ID: first.job, Duplicate: true}
		}
		q.takeKey(now, job, accepted)
	}
	s := &stored{
		record: record, accepted: accepted, class: job.Class, relaxed: job.Order == Relaxed,
		attempts: count(job.Attempts), maxAttempts: count(job.MaxAttempts), crashes: count(job.Crashes), maxCrashes: count(job.MaxCrashes),
	}
	if len(job.History) > 0 {
		h := slices.Clone(job.History)
		s.history = &h
	}
	due := max(now.add(job.Delay), q.space.tickOf(job.NotBefore))
	s.since = due
	if e.Dead != "" {
		s.since = now
	}
	setSince(record, q.space.timeOf(s.since))
	if job.Track {
		q.track(s, job)
	}
	if e.Dead != "" {
		q.bury(now, s, e.Dead)
		return Receipt{ID: job.ID}
	}
	q.join(s, job.Group)
	if due > now {
		q.schedule(s, due)
	} else {
		q.append(s)
	}
	return Receipt{ID: job.ID}
}

// count is n as a record can hold it.
func count(n int) int32 { return int32(max(0, min(n, math.MaxInt32))) }

// join makes a job one of its group's, which is there from now on.
func (q *machine) join(s *stored, name string) {
	g := q.groups[name]
	if g == nil {
		g = q.newGroup(name)
	}
	g.jobs++
	s.group = g
}

func (q *machine) newGroup(name string) *group {
	g := &group{name: strings.Clone(name), limits: q.limits[name]}
	q.groups[g.name] = g
	return g
}

// schedule keeps a job outside its lane until it is due.
func (q *machine) schedule(s *stored, due tick) {
	s.at = due
	q.seq++
	s.seq = q.seq
	heap.Push(&q.later, s)
	if q.later[0] == s { // a worker that sleeps must know when to look
		q.call()
	}
}

// append puts a job at the tail of its lane.
func (q *machine) append(s *stored) {
	lanes := s.group.lanes[s.class]
	key := nameOf(s.record, nameKey)
	l := lanes[string(key)] // there is none with the key ""
	if l == nil {
		l = &lane{group: s.group, class: s.class, key: string(key)}
		q.lanes++
		if l.key != "" {
			if lanes == nil {
				lanes = map[string]*lane{}
				s.group.lanes[s.class] = lanes
			}
			lanes[l.key] = l
		}
	}
	s.lane = l
	q.jobs++
	if l.last != nil {
		l.last.next = s
		l.last = s
		return
	}
	l.first, l.last = s, s
	q.ready(l, nil)
}

// ready puts a lane into its group's list, before next or at the end.
func (q *machine) ready(l, next *lane) {
	l.state = laneReady
	l.group.ready[l.class].insert(l, next)
	q.seatOf(l.group, l.class)
}

// seatOf derives a group's place in a ring: one that has a ready lane of the class, is not parked and is
// below its cap enters at the tail; one that has not leaves.
func (q *machine) seatOf(g *group, c Class) {
	r := &q.rings[c]
	switch may := g.ready[c].first != nil && !g.parked && (g.limits.Cap == 0 || g.held < g.limits.Cap); {
	case may == g.seat[c].taken:
		return
	case may:
		r.push(g)
		q.wake()
	default:
		g.seat[c].used = 0
		r.remove(g)
	}
}

// seats does so for both rings, and forgets a group that nothing is left of.
func (q *machine) seats(g *group) {
	q.seatOf(g, Live)
	q.seatOf(g, Bulk)
	if g.jobs == 0 && !g.parked {
		delete(q.groups, g.name)
	}
}

// wake tells those who wait that there may be something to claim.
func (q *machine) wake() {
	if q.claimable() {
		q.call()
	}
}

func (q *machine) call() {
	if q.waiters {
		q.waiters = false
		close(q.woken)
		q.woken = make(chan struct{})
	}
}

func (q *machine) claimable() bool {
	return !q.paused && (q.rings[Live].first != nil || q.rings[Bulk].first != nil)
}

// job is the job as a worker gets it. Its payload is the record's own bytes, which never change.
func (s *stored) job() (j Job) {
	_ = s.read(&j) // written by accept
	return j
}

func (s *stored) read(j *Job) error {
	if err := j.read(s.record); err != nil {
		*j = Job{}
		return err
	}
	j.Attempts, j.Crashes = int(s.attempts), int(s.crashes)
	if s.history != nil {
		j.History = *s.history
	}
	return nil
}

func (s *stored) fail(now time.Time, text string) {
	var h []Attempt
	if s.history != nil {
		h = *s.history
	}
	h = remember(h, now, text)
	s.history = &h
}

// late says whether a job is past its deadline.
func (s *stored) late(now tick) bool { return now.sub(s.since) > deadlineOf(s.record) }
