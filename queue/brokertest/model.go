package brokertest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// The model is QUEUE-MODEL written down as plainly as possible: slices that are searched from end to end, and
// rings that are derived anew after every step. It has no clock; the time is told to it.

// space is the queues of one engine.
type space struct {
	now    time.Duration // since the beginning
	queues map[string]*model
}

func newSpace() *space { return &space{queues: map[string]*model{}} }

func (s *space) queue(name string) *model {
	m := s.queues[name]
	if m == nil {
		m = &model{
			space: s, name: name, keys: map[[2]string]key{}, status: map[string]*status{}, parks: map[string]time.Duration{},
			limits: map[string]queue.Limits{}, used: [2]map[string]int{{}, {}}, batches: map[string][]queue.Receipt{}, answers: map[string]answered{},
		}
		s.queues[name] = m
	}
	return m
}

type model struct {
	space *space
	name  string

	accepted int // jobs, ever
	armed    int // what waits for a time, ever
	claims   int // leases, ever
	turns    int

	lanes  []*lane
	later  []*job // scheduled
	dead   []*letter
	deaths int
	keys   map[[2]string]key // by group and key
	status map[string]*status
	parks  map[string]time.Duration // groups, by when they go on
	parkNo map[string]int
	limits map[string]queue.Limits
	paused bool

	rings [2][]string       // groups, by class
	used  [2]map[string]int // lanes claimed in the present turn

	lastRun, awayFrom, awayTo time.Duration

	batches map[string][]queue.Receipt
	answers map[string]answered
}

type job struct {
	queue.Job
	number    int // of its acceptance
	since     time.Duration
	due       time.Duration // while scheduled
	armed     int
	cancelled bool
	purged    bool
	ended     queue.State // "" while it is in the queue
	errors    []string    // of its failures, ever
}

// state of a lane
const (
	ready = iota + 1
	leased
	waiting
)

type lane struct {
	group, key string
	class      queue.Class
	jobs       []*job
	state      int
	place      int // while ready, where in its group's list
	released   bool
	spared     bool // its lease has ended once for want of anybody who could extend it
	claim      int  // when it was last leased
	token      queue.Token
	process    string
	lease      time.Duration
	at         time.Duration // while leased, the lease's end; while waiting, when the head is due
	armed      int
}

type letter struct {
	job    *job
	error  string
	at     time.Duration
	number int // of the death: a job that was replayed may die again
}

type key struct {
	job *job
	end time.Duration
}

type status struct {
	job     *job
	percent int
	note    string
	result  string
	error   string
	end     time.Duration // once the job has ended, when it is forgotten
}

type answered struct {
	number  uint64
	claimed queue.Claimed
}

const bound = 128 // of what one Claim takes up

// ran notes that something runs in the partition.
func (m *model) ran() {
	now := m.space.now
	first := slices.MinFunc(append([]*lane{{at: 1 << 62}}, m.in(leased)...), byTime)
	if first.state == leased && first.at <= now && now-m.lastRun > first.lease*2/3 {
		if first.at > m.awayTo {
			m.awayFrom = m.lastRun
		}
		m.awayTo = now
	}
	m.lastRun = now
}

func byTime(a, b *lane) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.armed, b.armed)) }

// in are the lanes in a state.
func (m *model) in(state int) []*lane {
	var found []*lane
	for _, l := range m.lanes {
		if l.state == state {
			found = append(found, l)
		}
	}
	return found
}

// derive makes the rings what they have to be.
func (m *model) derive() {
	for c := range m.rings {
		var may []string
		for _, l := range m.lanes {
			if !slices.Contains(may, l.group) && m.may(l.group, queue.Class(c)) {
				may = append(may, l.group)
			}
		}
		m.rings[c] = slices.DeleteFunc(m.rings[c], func(g string) bool {
			out := !slices.Contains(may, g)
			if out {
				delete(m.used[c], g)
			}
			return out
		})
		for _, g := range may {
			if !slices.Contains(m.rings[c], g) {
				m.rings[c] = append(m.rings[c], g)
			}
		}
	}
}

// may says whether a group belongs into a ring.
func (m *model) may(group string, c queue.Class) bool {
	_, parked := m.parks[group]
	limit := m.limits[group].Cap
	return !parked && (limit == 0 || m.held(group) < limit) && len(m.readyLanes(group, c)) > 0
}

func (m *model) held(group string) int {
	n := 0
	for _, l := range m.in(leased) {
		if l.group == group {
			n++
		}
	}
	return n
}

// readyLanes are a group's ready lanes in their order.
func (m *model) readyLanes(group string, c queue.Class) []*lane {
	var found []*lane
	for _, l := range m.in(ready) {
		if l.group == group && l.class == c {
			found = append(found, l)
		}
	}
	slices.SortFunc(found, func(a, b *lane) int { return cmp.Compare(a.place, b.place) })
	return found
}

// makeReady puts a lane at the end of its group's list, or at a place in it.
func (m *model) makeReady(l *lane, place int) {
	l.state = 0
	others := m.readyLanes(l.group, l.class)
	l.state = ready
	for i, o := range slices.Insert(others, min(place, len(others)), l) {
		o.place = i
	}
}

const atTheEnd = 1 << 30

func (m *model) enqueue(batch queue.Batch) []queue.Receipt {
	m.ran()
	if r, seen := m.batches[batch.ID]; seen {
		return r
	}
	var receipts []queue.Receipt
	for _, e := range batch.Jobs {
		receipts = append(receipts, m.accept(e))
	}
	m.batches[batch.ID] = receipts
	return receipts
}

func (m *model) accept(e queue.Entry) queue.Receipt {
	now := m.space.now
	m.accepted++
	id := [2]string{e.Job.Group, e.Job.DedupeKey}
	if e.Job.DedupeKey != "" {
		if k, taken := m.keys[id]; taken && now < k.end {
			return queue.Receipt{ID: k.job.ID, Duplicate: true}
		}
	}
	j := &job{Job: e.Job, number: m.accepted, since: now}
	if e.Job.DedupeKey != "" {
		m.keys[id] = key{j, now + e.Job.DedupeFor}
	}
	if e.Job.Track {
		m.status[j.ID] = &status{job: j}
	}
	switch {
	case e.Dead != "":
		m.bury(j, e.Dead)
	case e.Job.Delay > 0:
		j.since = now + e.Job.Delay
		m.schedule(j, j.since)
	default:
		m.append(j)
	}
	m.derive()
	return queue.Receipt{ID: j.ID}
}

func (m *model) schedule(j *job, due time.Duration) {
	m.armed++
	j.due, j.armed = due, m.armed
	m.later = append(m.later, j)
}

func (m *model) append(j *job) {
	for _, l := range m.lanes {
		if j.Key != "" && l.group == j.Group && l.class == j.Class && l.key == j.Key {
			l.jobs = append(l.jobs, j)
			return
		}
	}
	l := &lane{group: j.Group, key: j.Key, class: j.Class, jobs: []*job{j}}
	m.lanes = append(m.lanes, l)
	m.makeReady(l, atTheEnd)
}

func (m *model) byToken(t queue.Token) *lane {
	for _, l := range m.in(leased) {
		if l.token == t {
			return l
		}
	}
	return nil
}

// unpurged is an answer without the jobs that were purged since: their leases end.
func (m *model) unpurged(c queue.Claimed) queue.Claimed {
	jobs := c.Jobs
	c.Jobs = nil
	for _, j := range jobs {
		if l := m.byToken(j.Token); l != nil && l.jobs[0].purged {
			m.settle(l, queue.Settlement{Action: queue.Release}, nil)
			m.derive()
			continue
		}
		c.Jobs = append(c.Jobs, j)
	}
	return c
}

// headOf is the job that a token is for.
func (m *model) headOf(t queue.Token) *job {
	if l := m.byToken(t); l != nil {
		return l.jobs[0]
	}
	return nil
}

// claim is a Claim whose leases get the tokens that the engine gave them.
func (m *model) claim(call queue.Call, token func(i int) queue.Token) queue.Claimed {
	if a, ok := m.answers[call.Process]; ok && a.number == call.Number {
		return m.unpurged(a.claimed)
	} else if ok && call.Number < a.number {
		var late queue.Claimed
		for _, s := range call.Settle {
			late.Lost = append(late.Lost, s.Token)
		}
		return late
	}
	m.ran()
	if call.Again {
		m.giveBackOthers(call)
	}
	var c queue.Claimed
	for _, s := range call.Settle {
		l := m.byToken(s.Token)
		if l == nil {
			c.Lost = append(c.Lost, s.Token)
			continue
		}
		m.settle(l, s, &c)
		m.derive()
	}
	m.takeUp(&c)
	late := 0
	for len(c.Jobs) < call.Max && late < bound && !m.paused && len(m.rings[0])+len(m.rings[1]) > 0 {
		class := queue.Live
		every := cmp.Or(call.BulkEvery, 8)
		if len(m.rings[0]) == 0 || (m.turns+1)%every == 0 && len(m.rings[1]) > 0 {
			class = queue.Bulk
		}
		group := m.rings[class][0]
		l := m.readyLanes(group, class)[0]
		head := l.jobs[0]
		if m.space.now-head.since > head.Deadline {
			m.leave(l)
			m.die(head, "deadline", &c)
			m.derive()
			late++
			continue
		}
		m.turns++
		m.claims++
		m.armed++
		l.state, l.token, l.process, l.lease = leased, token(len(c.Jobs)), call.Process, call.Lease
		l.spared = false
		l.claim, l.released, l.at, l.armed = m.claims, false, m.space.now+call.Lease, m.armed
		if s := m.status[head.ID]; s != nil && s.job == head {
			s.percent, s.note = 0, ""
		}
		if m.used[class][group]++; m.used[class][group] >= max(1, m.limits[group].Weight) {
			delete(m.used[class], group)
			m.rings[class] = append(m.rings[class][1:], group)
		}
		m.derive()
		c.Jobs = append(c.Jobs, queue.Lease{Token: l.token, Job: head.Job, Age: m.space.now - head.since})
	}
	c.DueIn = m.dueIn()
	if late == bound {
		c.DueIn = 1
	}
	m.answers[call.Process] = answered{call.Number, c}
	return c
}

func (m *model) dueIn() time.Duration {
	next := time.Duration(1 << 62)
	for _, l := range m.in(waiting) {
		next = min(next, l.at)
	}
	for _, j := range m.later {
		next = min(next, j.due)
	}
	for _, at := range m.parks {
		next = min(next, at)
	}
	if next == 1<<62 {
		return 0
	}
	return max(next-m.space.now, 1)
}

func (m *model) giveBackOthers(call queue.Call) {
	var others []*lane
	for _, l := range m.in(leased) {
		settled := slices.ContainsFunc(call.Settle, func(s queue.Settlement) bool { return s.Token == l.token })
		if l.process == call.Process && !settled && !slices.Contains(call.Held, l.token) {
			others = append(others, l)
		}
	}
	slices.SortFunc(others, func(a, b *lane) int { return a.claim - b.claim })
	for _, l := range others {
		m.settle(l, queue.Settlement{Action: queue.Release}, nil)
		m.derive()
	}
}

// giveBack makes a lane the first of its group, behind those that were given back and claimed earlier.
func (m *model) giveBack(l *lane) {
	l.released = true
	place := 0
	for _, o := range m.readyLanes(l.group, l.class) {
		if !o.released || o.claim > l.claim {
			break
		}
		place++
	}
	l.token = ""
	m.makeReady(l, place)
}

func (m *model) settle(l *lane, s queue.Settlement, c *queue.Claimed) {
	head, now := l.jobs[0], m.space.now
	st := m.status[head.ID]
	if s.Progress != nil {
		m.progress(head, *s.Progress)
	}
	l.token = ""
	if s.Action == queue.Snooze && s.Park {
		defer m.park(l.group, s.After)
	}
	if head.cancelled && s.Action != queue.Ack {
		m.leave(l)
		m.end(head, queue.Cancelled)
		return
	}
	late := now-head.since > head.Deadline
	switch s.Action {
	case queue.Ack:
		m.leave(l)
		if st != nil && st.job == head {
			st.percent, st.result = 100, string(s.Result)
		}
		m.end(head, queue.Succeeded)
		for _, e := range s.Enqueue {
			c.Enqueued = append(c.Enqueued, m.space.queue(cmp.Or(e.Queue, m.name)).accept(e))
		}
	case queue.Release:
		m.giveBack(l)
	case queue.Kill:
		head.errors = append(head.errors, s.Error)
		m.leave(l)
		m.die(head, s.Error, c)
	case queue.Snooze:
		if late {
			reason := "deadline"
			if s.Error != "" {
				reason += ": " + s.Error
			}
			m.leave(l)
			m.die(head, reason, c)
			return
		}
		m.wait(l, s.After)
	case queue.Retry:
		head.Attempts++
		head.errors = append(head.errors, s.Error)
		if st != nil && st.job == head {
			st.error = s.Error
		}
		switch {
		case head.Attempts >= head.MaxAttempts:
			m.leave(l)
			m.die(head, s.Error, c)
		case late:
			m.leave(l)
			m.die(head, "deadline: "+s.Error, c)
		case head.Order == queue.Relaxed:
			m.leave(l)
			if s.After > 0 {
				m.schedule(head, now+s.After)
			} else {
				m.append(head)
			}
		default:
			m.wait(l, s.After)
		}
	}
}

func (m *model) wait(l *lane, after time.Duration) {
	if after <= 0 {
		m.makeReady(l, atTheEnd)
		return
	}
	m.armed++
	l.state, l.at, l.armed = waiting, m.space.now+after, m.armed
}

// leave takes the head out of a lane, and what is cancelled behind it. The lane is then ready at the end of its
// group, or gone.
func (m *model) leave(l *lane) {
	l.jobs = l.jobs[1:]
	for len(l.jobs) > 0 && l.jobs[0].cancelled {
		l.jobs = l.jobs[1:]
	}
	l.released = false
	if len(l.jobs) > 0 {
		m.makeReady(l, atTheEnd)
		return
	}
	m.lanes = slices.DeleteFunc(m.lanes, func(o *lane) bool { return o == l })
}

func (m *model) progress(j *job, p queue.Progress) {
	if s := m.status[j.ID]; s != nil && s.job == j && p.Percent >= s.percent {
		s.percent, s.note = p.Percent, p.Note
	}
}

func (m *model) end(j *job, state queue.State) {
	j.ended = state
	if s := m.status[j.ID]; s != nil && s.job == j {
		s.end = m.space.now + j.StatusFor
	}
}

func (m *model) die(j *job, reason string, c *queue.Claimed) {
	m.bury(j, reason)
	c.Died = append(c.Died, queue.DeadLetter{Job: j.Job, Error: reason, At: m.deathOf(j)})
}

// deathOf tells a job's death from all others. It stands in for a time, which nobody compares.
func (m *model) deathOf(j *job) time.Time {
	i := slices.IndexFunc(m.dead, func(l *letter) bool { return l.job == j })
	return time.Unix(0, int64(m.dead[i].number))
}

func (m *model) bury(j *job, reason string) {
	if s := m.status[j.ID]; s != nil && s.job == j {
		s.error = reason
	}
	m.end(j, queue.Dead)
	m.deaths++
	m.dead = append(m.dead, &letter{j, reason, m.space.now, m.deaths})
	slices.SortStableFunc(m.dead, func(a, b *letter) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.job.ID, b.job.ID))
	})
}

// takeUp takes up what is due, oldest first, and then the leases that have ended.
func (m *model) takeUp(c *queue.Claimed) {
	now := m.space.now
	for range bound {
		type due struct {
			at    time.Duration
			armed int
			do    func()
		}
		var all []due
		for _, l := range m.in(waiting) {
			all = append(all, due{l.at, l.armed, func() { m.makeReady(l, atTheEnd) }})
		}
		for i, j := range m.later {
			all = append(all, due{j.due, j.armed, func() { m.later = slices.Delete(m.later, i, i+1); m.append(j) }})
		}
		for g, at := range m.parks {
			all = append(all, due{at, m.parkNo[g], func() { delete(m.parks, g) }})
		}
		if len(all) == 0 {
			break
		}
		first := slices.MinFunc(all, func(a, b due) int { return cmp.Or(cmp.Compare(a.at, b.at), a.armed-b.armed) })
		if first.at > now {
			break
		}
		first.do()
		m.derive()
	}
	for range bound {
		held := m.in(leased)
		if len(held) == 0 {
			break
		}
		l := slices.MinFunc(held, byTime)
		if l.at > now {
			break
		}
		if l.at > m.awayFrom && l.at <= m.awayTo && !l.spared {
			l.spared, l.at = true, now+l.lease
			continue
		}
		m.crash(l, c)
		m.derive()
	}
}

func (m *model) crash(l *lane, c *queue.Claimed) {
	head := l.jobs[0]
	l.token = ""
	if head.cancelled {
		m.leave(l)
		m.end(head, queue.Cancelled)
		return
	}
	head.Crashes++
	head.errors = append(head.errors, "")
	if head.Crashes >= head.MaxCrashes {
		m.leave(l)
		m.die(head, fmt.Sprintf("crashed its worker %d times", head.Crashes), c)
		return
	}
	m.makeReady(l, atTheEnd)
}

func (m *model) extend(beat queue.Heartbeat) (e queue.Extended) {
	if len(beat.Tokens) == 0 {
		return e
	}
	m.ran()
	for _, t := range beat.Tokens {
		l := m.byToken(t)
		if l == nil {
			e.Lost = append(e.Lost, t)
			continue
		}
		l.at, l.lease, l.spared = m.space.now+beat.Lease, beat.Lease, false
		if p, ok := beat.Progress[t]; ok {
			m.progress(l.jobs[0], p)
		}
		if l.jobs[0].cancelled {
			e.Cancelled = append(e.Cancelled, t)
		}
	}
	return e
}

func (m *model) park(group string, d time.Duration) {
	delete(m.parks, group)
	if d > 0 {
		m.armed++
		m.parks[group] = m.space.now + d
		if m.parkNo == nil {
			m.parkNo = map[string]int{}
		}
		m.parkNo[group] = m.armed
	}
	m.derive()
}

func (m *model) limit(group string, l queue.Limits) {
	m.limits[group] = l
	if l == (queue.Limits{}) {
		delete(m.limits, group)
	}
	m.derive()
}

func (m *model) replay(ids []string) int {
	n := 0
	for _, id := range ids {
		i := slices.IndexFunc(m.dead, func(d *letter) bool { return d.job.ID == id })
		if i < 0 {
			continue
		}
		j := m.dead[i].job
		m.dead = slices.Delete(m.dead, i, i+1)
		j.Attempts, j.Crashes, j.since, j.ended = 0, 0, m.space.now, ""
		if j.Track {
			m.status[id] = &status{job: j}
		}
		m.append(j)
		m.derive()
		n++
	}
	return n
}

func (m *model) drop(ids []string) int {
	n := 0
	for _, id := range ids {
		i := slices.IndexFunc(m.dead, func(d *letter) bool { return d.job.ID == id })
		if i < 0 {
			continue
		}
		m.freeKey(m.dead[i].job)
		m.dead = slices.Delete(m.dead, i, i+1)
		n++
	}
	return n
}

func (m *model) freeKey(j *job) {
	id := [2]string{j.Group, j.DedupeKey}
	if m.keys[id].job == j {
		delete(m.keys, id)
	}
}

// known is a tracked job's status, nil if there is none any more.
func (m *model) known(id string) *status {
	s := m.status[id]
	if s == nil || s.job.ended != "" && m.space.now >= s.end {
		return nil
	}
	return s
}

func (m *model) stateOf(j *job) queue.State {
	for _, l := range m.in(leased) {
		if l.jobs[0] == j {
			return queue.Processing
		}
	}
	switch {
	case j.ended != "":
		return j.ended
	case j.Attempts+j.Crashes > 0:
		return queue.Retrying
	default:
		return queue.Pending
	}
}

func (m *model) cancel(id string) (queue.State, bool) {
	s := m.known(id)
	if s == nil {
		return "", false
	}
	switch state := m.stateOf(s.job); {
	case state.Ended():
		return state, true
	case state == queue.Processing:
		s.job.cancelled = true
		return state, true
	}
	m.remove(s.job)
	m.end(s.job, queue.Cancelled)
	m.derive()
	return queue.Cancelled, true
}

// remove takes out a job that nobody has.
func (m *model) remove(j *job) {
	if i := slices.Index(m.later, j); i >= 0 {
		m.later = slices.Delete(m.later, i, i+1)
		return
	}
	for _, l := range m.lanes {
		switch i := slices.Index(l.jobs, j); {
		case i > 0:
			j.cancelled = true
			return
		case i == 0:
			place, released := slices.Index(m.readyLanes(l.group, l.class), l), l.released
			m.leave(l)
			if place >= 0 && len(l.jobs) > 0 {
				m.makeReady(l, place)
				l.released = released
			}
			return
		}
	}
}

// purge erases everything of a filter, in one go.
func (m *model) purge(f queue.PurgeFilter) int {
	picks := func(j *job) bool {
		return (f.Group == "" || f.Group == j.Group) && (f.Key == "" || f.Key == j.Key) && (f.Kind == "" || f.Kind == j.Kind)
	}
	var all []*job
	for _, l := range m.lanes {
		all = append(all, l.jobs...)
	}
	all = append(all, m.later...)
	for _, d := range m.dead {
		all = append(all, d.job)
	}
	all = slices.DeleteFunc(all, func(j *job) bool { return j.purged || !picks(j) })
	slices.SortFunc(all, func(a, b *job) int { return a.number - b.number })
	n := 0
	for _, j := range all {
		j.purged = true
		m.freeKey(j)
		delete(m.status, j.ID)
		if !j.cancelled {
			n++
		}
		if i := slices.IndexFunc(m.dead, func(d *letter) bool { return d.job == j }); i >= 0 {
			m.dead = slices.Delete(m.dead, i, i+1)
			continue
		}
		if m.stateOf(j) == queue.Processing {
			j.cancelled = true
		} else if !j.cancelled {
			m.remove(j)
		}
		m.derive()
	}
	for id, s := range m.status {
		if s.job.ended != "" && picks(s.job) {
			delete(m.status, id)
		}
	}
	for id, k := range m.keys {
		if picks(k.job) {
			delete(m.keys, id)
		}
	}
	return n
}

// jobs are those in lanes and scheduled, by ID, that are not as good as gone.
func (m *model) jobs() []*job {
	var all []*job
	for _, l := range m.lanes {
		all = append(all, l.jobs...)
	}
	all = append(all, m.later...)
	all = slices.DeleteFunc(all, func(j *job) bool { return j.cancelled })
	slices.SortFunc(all, func(a, b *job) int { return strings.Compare(a.ID, b.ID) })
	return all
}

func (m *model) stats() queue.Stats {
	s := queue.Stats{Held: len(m.in(leased)), Waiting: len(m.in(waiting)), Scheduled: len(m.later), Dead: len(m.dead), Parked: len(m.parks), Paused: m.paused}
	s.Jobs = len(m.jobs()) - s.Scheduled
	return s
}
