package queue

import (
	"bytes"
	"cmp"
	"container/heap"
	"container/list"
	"slices"
	"strings"
	"time"
)

// What the machine keeps of jobs beside the jobs: dedupe keys, status, dead letters.

// tracking is the status of a tracked job. While the job is in the queue, its state is read off the job.
type tracking struct {
	timed  // once it has ended, when it is forgotten
	job    *stored
	keep   time.Duration
	status Status

	key      string
	accepted uint64
}

// grave is a dead letter.
type grave struct {
	job   *stored
	id    string
	group string
	error string
	at    time.Time
	place *list.Element
}

// graveyard is the dead letters, by when they died and then by ID.
type graveyard struct {
	order list.List // of *grave
	byID  map[string]*grave
}

func (y *graveyard) add(g *grave) {
	if y.byID == nil {
		y.byID = map[string]*grave{}
	}
	y.byID[g.id] = g
	before := y.order.Back()
	for before != nil && g.before(graveOf(before)) {
		before = before.Prev()
	}
	if before == nil {
		g.place = y.order.PushFront(g)
		return
	}
	g.place = y.order.InsertAfter(g, before)
}

func (y *graveyard) remove(g *grave) {
	delete(y.byID, g.id)
	y.order.Remove(g.place)
}

func (g *grave) before(o *grave) bool {
	return g.at.Before(o.at) || g.at.Equal(o.at) && g.id < o.id
}

func graveOf(e *list.Element) *grave { return e.Value.(*grave) } //nolint:forcetypeassert // nothing else is put in

// forget drops dedupe keys and status that have ended.
func (q *machine) forget(now tick) {
	for range takeUp {
		k, ended := q.keyEnds.soonest(now)
		if !ended {
			break
		}
		q.freeKey(k)
	}
	for range takeUp {
		t, ended := q.ends.soonest(now)
		if !ended {
			break
		}
		heap.Pop(&q.ends)
		delete(q.tracked, t.status.ID)
	}
}

func (q *machine) takeKey(now tick, job *Job, accepted uint64) {
	if old := q.keys[job.Group][job.DedupeKey]; old != nil {
		q.freeKey(old)
	}
	k := &dedupe{group: strings.Clone(job.Group), key: strings.Clone(job.DedupeKey), job: job.ID, jobKey: strings.Clone(job.Key), kind: strings.Clone(job.Kind), accepted: accepted}
	k.at, k.seq = now.add(job.DedupeFor), accepted
	heap.Push(&q.keyEnds, k)
	keys := q.keys[k.group]
	if keys == nil {
		keys = map[string]*dedupe{}
		q.keys[k.group] = keys
	}
	keys[k.key] = k
}

func (q *machine) freeKey(k *dedupe) {
	heap.Remove(&q.keyEnds, k.index)
	delete(q.keys[k.group], k.key)
	if len(q.keys[k.group]) == 0 {
		delete(q.keys, k.group)
	}
}

// freeKeyOf frees a job's dedupe key, if that still names it.
func (q *machine) freeKeyOf(job Job) {
	if k := q.keys[job.Group][job.DedupeKey]; k != nil && k.job == job.ID {
		q.freeKey(k)
	}
}

// track begins, or begins again, to keep a job's status.
func (q *machine) track(s *stored, job *Job) {
	if old := q.tracked[job.ID]; old != nil && old.job == nil {
		heap.Remove(&q.ends, old.index)
	}
	s.track = &tracking{job: s, keep: job.StatusFor, status: Status{ID: job.ID, Kind: job.Kind, Group: job.Group}, key: strings.Clone(job.Key), accepted: s.accepted}
	q.tracked[job.ID] = s.track
}

// begin notes that a run begins.
func (s *stored) begin() {
	if s.track != nil {
		s.track.status.Percent, s.track.status.Note = 0, ""
	}
}

// progress takes note of progress, which never goes back within a run.
func (s *stored) progress(p Progress) {
	if s.track == nil || p.Percent < s.track.status.Percent {
		return
	}
	s.track.status.Percent = min(p.Percent, 100)
	s.track.status.Note = cut(p.Note, maxNoteLen)
}

// end closes a job's status.
func (q *machine) end(now tick, s *stored, state State, reason string) {
	t := s.track
	if t == nil {
		return
	}
	s.track, t.job = nil, nil
	t.status.State, t.status.Ended, t.status.Since = state, q.space.timeOf(now), q.space.timeOf(s.since)
	t.status.Attempts, t.status.Crashes = int(s.attempts), int(s.crashes)
	if reason != "" {
		t.status.Error = reason
	}
	q.seq++
	t.at, t.seq = now.add(t.keep), q.seq
	heap.Push(&q.ends, t)
}

// die buries a job and reports it.
func (q *machine) die(now tick, s *stored, reason string, c *Claimed) {
	q.bury(now, s, reason)
	letter := q.dead.byID[s.id()].letter()
	letter.Job.Payload = nil
	c.Died = append(c.Died, letter)
}

func (s *stored) id() string { return string(nameOf(s.record, nameID)) }

// bury makes a job that is in no lane a dead letter.
func (q *machine) bury(now tick, s *stored, reason string) {
	reason = cut(reason, maxErrorLen)
	q.end(now, s, Dead, reason)
	job := s.job()
	q.dead.add(&grave{job: s, id: job.ID, group: job.Group, error: reason, at: q.space.timeOf(now).Truncate(time.Millisecond)})
}

func (g *grave) letter() DeadLetter {
	d := DeadLetter{Job: g.job.job(), Error: g.error, At: g.at}
	d.Job.Payload = bytes.Clone(d.Job.Payload)
	return d
}

// park keeps a group out of the rings for a time.
func (q *machine) park(now tick, name string, d time.Duration) {
	g := q.groups[name]
	if d <= 0 {
		if g != nil && g.parked {
			q.unpark(g)
		}
		return
	}
	if g == nil {
		g = q.newGroup(name)
	}
	if g.parked {
		heap.Remove(&q.parked, g.index)
	}
	q.seq++
	g.parked, g.at, g.seq = true, now.add(d), q.seq
	heap.Push(&q.parked, g)
	q.seats(g)
}

func (q *machine) unpark(g *group) {
	heap.Remove(&q.parked, g.index)
	g.parked = false
	q.seats(g)
}

func (q *machine) limit(name string, l Limits) {
	if l == (Limits{}) {
		delete(q.limits, name)
	} else {
		q.limits[strings.Clone(name)] = l
	}
	if g := q.groups[name]; g != nil {
		g.limits = l
		q.seats(g)
	}
}

func (q *machine) stats(now tick) Stats {
	return Stats{Jobs: q.jobs - q.gone, Held: len(q.leased), Waiting: len(q.waiting), Scheduled: len(q.later),
		Dead: q.dead.order.Len(), Parked: len(q.parked), Paused: q.paused, Now: q.space.timeOf(now)}
}

// empty says whether the queue holds nothing but what ends by itself.
func (q *machine) empty() bool {
	return q.jobs == 0 && len(q.later) == 0 && q.dead.order.Len() == 0 && !q.paused && len(q.limits) == 0 && len(q.parked) == 0
}

// lanesOf are the lanes of a group, or of all for "". Those without a key are in no map.
func (q *machine) lanesOf(name string) []*lane {
	var lanes []*lane
	add := func(g *group) {
		for c := range classes {
			for _, l := range g.lanes[c] {
				lanes = append(lanes, l)
			}
			for l := g.ready[c].first; l != nil; l = l.next {
				if l.key == "" {
					lanes = append(lanes, l)
				}
			}
		}
	}
	if g := q.groups[name]; g != nil && name != "" {
		add(g)
	} else if name == "" {
		for _, g := range q.groups {
			add(g)
		}
	}
	for _, l := range q.waiting {
		if l.key == "" && (name == "" || l.group.name == name) {
			lanes = append(lanes, l)
		}
	}
	for _, l := range q.leased {
		if l.key == "" && (name == "" || l.group.name == name) {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

func (q *machine) list(filter JobFilter) []JobInfo {
	var found []JobInfo
	add := func(s *stored, due tick) {
		job := s.job()
		if !filter.picks(job) || s.cancelled {
			return
		}
		job.Payload = bytes.Clone(job.Payload)
		info := JobInfo{Job: job, State: s.state()}
		if due > 0 {
			info.Due = q.space.timeOf(due)
		}
		found = append(found, info)
	}
	for _, l := range q.lanesOf(filter.Group) {
		for s := l.first; s != nil; s = s.next {
			if s == l.first && l.state == laneWaiting {
				add(s, l.at)
			} else {
				add(s, 0)
			}
		}
	}
	for _, s := range q.later {
		add(s, s.at)
	}
	return found
}

// state is that of a job that has not ended.
func (s *stored) state() State {
	switch {
	case s.lane != nil && s.lane.first == s && s.lane.state == laneLeased:
		return Processing
	case s.attempts+s.crashes > 0:
		return Retrying
	default:
		return Pending
	}
}

func (q *machine) status(now tick, id string) (Status, error) {
	t := q.tracked[id]
	if t == nil || t.job == nil && t.at <= now {
		return Status{}, ErrUnknownJob
	}
	st := t.status
	st.Result = slices.Clone(st.Result)
	if s := t.job; s != nil {
		st.State, st.Since = s.state(), q.space.timeOf(s.since)
		st.Attempts, st.Crashes = int(s.attempts), int(s.crashes)
	}
	return st, nil
}

func (q *machine) cancel(now tick, id string) (State, error) {
	t := q.tracked[id]
	switch {
	case t == nil || t.job == nil && t.at <= now:
		return "", ErrUnknownJob
	case t.job == nil:
		return t.status.State, nil
	}
	s := t.job
	if s.state() == Processing {
		q.mark(s)
		return Processing, nil
	}
	q.remove(s)
	q.end(now, s, Cancelled, "")
	return Cancelled, nil
}

func (q *machine) mark(s *stored) {
	if !s.cancelled {
		s.cancelled = true
		q.gone++
	}
}

// remove takes a job out that nobody has: at once if it is scheduled or a head, else it is marked and
// leaves when it becomes one.
func (q *machine) remove(s *stored) {
	l := s.lane
	switch {
	case l == nil:
		heap.Remove(&q.later, s.index)
		g := s.group
		g.jobs--
		s.group = nil
		q.seats(g)
	case l.first != s:
		q.mark(s)
	case l.state == laneWaiting: // what is behind it need not wait
		heap.Remove(&q.waiting, l.index)
		q.pop(l)
		q.seats(l.group)
	default: // a ready lane keeps its place
		next := l.next
		l.group.ready[l.class].remove(l)
		q.leaveLane(s)
		q.settleLane(l)
		if l.first != nil {
			l.group.ready[l.class].remove(l)
			l.group.ready[l.class].insert(l, next)
		}
		q.seats(l.group)
	}
}

// purgeStep bounds what one Purge erases.
const purgeStep = 1024

// purge erases what a filter picks of what was accepted up to a job, and says whether that was all.
func (q *machine) purge(filter PurgeFilter, upTo uint64) (erased int, done bool) {
	picked := JobFilter{Group: filter.Group, Key: filter.Key, Kind: filter.Kind}
	var jobs []*stored
	pick := func(s *stored) {
		if s.accepted <= upTo && !s.purged && picked.picks(s.job()) {
			jobs = append(jobs, s)
		}
	}
	for _, l := range q.lanesOf(filter.Group) {
		for s := l.first; s != nil; s = s.next {
			pick(s)
		}
	}
	for _, s := range q.later {
		pick(s)
	}
	for e := q.dead.order.Front(); e != nil; e = e.Next() {
		pick(graveOf(e).job)
	}
	slices.SortFunc(jobs, func(a, b *stored) int { return cmp.Compare(a.accepted, b.accepted) })
	for _, s := range jobs[:min(len(jobs), purgeStep)] {
		if !s.cancelled { // else it was as good as gone
			erased++
		}
		q.erase(s)
	}
	if len(jobs) > purgeStep {
		return erased, false
	}
	// What is left of jobs that have ended.
	for id, t := range q.tracked {
		if t.job == nil && t.accepted <= upTo && picked.picks(Job{ID: id, Group: t.status.Group, Key: t.key, Kind: t.status.Kind}) {
			heap.Remove(&q.ends, t.index)
			delete(q.tracked, id)
		}
	}
	for _, keys := range q.keys {
		for _, k := range keys {
			if k.accepted <= upTo && picked.picks(Job{ID: k.job, Group: k.group, Key: k.jobKey, Kind: k.kind}) {
				q.freeKey(k)
			}
		}
	}
	for process, a := range q.answers { // a call sent again gets the jobs, which are cancelled, without what was in them
		a.claimed.Jobs = slices.Clone(a.claimed.Jobs)
		for i := range a.claimed.Jobs {
			if j := &a.claimed.Jobs[i].Job; picked.picks(*j) {
				j.Payload, j.Headers = nil, nil
			}
		}
		q.answers[process] = a
	}
	return erased, true
}

// erase forgets a job wherever it is.
func (q *machine) erase(s *stored) {
	s.purged = true
	job := s.job()
	q.freeKeyOf(job)
	if t := q.tracked[job.ID]; t != nil {
		if t.job == nil {
			heap.Remove(&q.ends, t.index)
		}
		delete(q.tracked, job.ID)
		s.track = nil
	}
	switch g := q.dead.byID[job.ID]; {
	case g != nil:
		q.dead.remove(g)
	case s.cancelled: // it is as good as gone, or has left with the head before it
	case s.state() == Processing:
		q.mark(s)
	default:
		q.remove(s)
	}
}

// letters are the first dead letters that a filter picks, at most n.
func (q *machine) letters(filter DeadFilter, n int) []DeadLetter {
	var found []DeadLetter
	for e := q.dead.order.Front(); e != nil && len(found) < n; e = e.Next() {
		if g := graveOf(e); filter.picks(g) {
			found = append(found, g.letter())
		}
	}
	return found
}

func (f DeadFilter) picks(g *grave) bool {
	if f.Group != "" && f.Group != g.group || f.Error != "" && !strings.Contains(g.error, f.Error) ||
		!f.From.IsZero() && g.at.Before(f.From) || !f.Until.IsZero() && !g.at.Before(f.Until) ||
		len(f.IDs) > 0 && !slices.Contains(f.IDs, g.id) {
		return false
	}
	if !f.AfterTime.IsZero() && (g.at.Before(f.AfterTime) || g.at.Equal(f.AfterTime) && g.id <= f.After) {
		return false
	}
	return f.Kind == "" || f.Kind == g.job.job().Kind
}

// replay puts a dead letter at the tail of its lane.
func (q *machine) replay(now tick, id string) bool {
	g := q.dead.byID[id]
	if g == nil {
		return false
	}
	q.dead.remove(g)
	s := g.job
	job := s.job()
	s.attempts, s.crashes, s.since = 0, 0, now
	job.Attempts, job.Crashes, job.Since, job.History = 0, 0, q.space.timeOf(now), nil
	s.record, _ = job.AppendBinary(nil) // it was read from one
	if job.Track {
		q.track(s, &job)
	}
	q.join(s, job.Group)
	q.append(s)
	return true
}

func (q *machine) drop(id string) bool {
	g := q.dead.byID[id]
	if g == nil {
		return false
	}
	q.dead.remove(g)
	q.freeKeyOf(g.job.job())
	return true
}
