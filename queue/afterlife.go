package queue

import (
	"bytes"
	"container/heap"
	"container/list"
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
