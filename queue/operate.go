package queue

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"
	"time"
)

// What operators do to the machine, and how they look at it.

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
		next, released := l.next, l.released
		l.group.ready[l.class].remove(l)
		q.leaveLane(s)
		q.settleLane(l)
		if l.first != nil {
			l.group.ready[l.class].remove(l)
			l.group.ready[l.class].insert(l, next)
			l.released = released
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
		if len(jobs) <= purgeStep && s.accepted <= upTo && !s.purged && picked.picks(s.job()) {
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
	for process, a := range q.answers { // what they hold of purged jobs
		a.claimed.Jobs = slices.Clone(a.claimed.Jobs)
		for i := range a.claimed.Jobs {
			if l := q.leased[a.claimed.Jobs[i].Token]; l == nil || l.first.purged {
				a.claimed.Jobs[i].Job.Payload, a.claimed.Jobs[i].Job.Headers = nil, nil
			}
		}
		a.claimed.Died = slices.Clone(a.claimed.Died)
		for i := range a.claimed.Died {
			if d := &a.claimed.Died[i]; picked.picks(d.Job) {
				d.Job.Headers, d.Job.History, d.Error = nil, nil, "purged"
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
