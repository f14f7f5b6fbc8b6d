package sqlqueue

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// What operators do to the machine.

const (
	// purgeStep bounds what one Purge erases, purgeLook what it looks at.
	purgeStep = 1024
	purgeLook = 8192
)

// park keeps a group out of the rings for a time; 0 ends that.
func (s *step) park(q *queueRow, g *groupRow, d time.Duration) {
	g.parked = 0
	if d > 0 {
		g.parked, g.armed = s.now+micros(d), s.next()
	}
	s.sitBoth(q, g)
}

func (s *step) limit(q *queueRow, group string, l queue.Limits) error {
	g, err := s.group(q, group)
	if err != nil {
		return err
	}
	g.limits = l
	s.sitBoth(q, g)
	return nil
}

// replay puts a dead letter at the tail of its lane.
func (s *step) replay(q *queueRow, id string) (bool, error) {
	j, err := s.find(deadByID, q.id, id)
	if err != nil || j == nil {
		return false, err
	}
	j.attempts, j.crashes, j.late, j.since, j.error, j.at = 0, 0, s.now+j.late-j.since, s.now, "", 0
	j.state, j.cancelled = scheduled, false // outside its lane, for a moment
	if err := s.save(j); err != nil {
		return false, err
	}
	if j.tracked {
		keep := 24 * time.Hour
		record, err := s.record(j.n)
		if err != nil {
			return false, err
		}
		if job, err := j.job(record); err == nil {
			keep = job.StatusFor
		}
		if _, err := s.exec(statusBegin, q.id, j.id, j.n, j.group, j.key, j.kind, micros(keep), j.since); err != nil {
			return false, err
		}
	}
	g, err := s.group(q, j.group)
	if err != nil {
		return false, err
	}
	g.jobs++
	g.dirty = true
	return true, s.enter(q, g, j)
}

func (s *step) drop(q *queueRow, id string) (bool, error) {
	j, err := s.find(deadByID, q.id, id)
	if err != nil || j == nil {
		return false, err
	}
	if err := s.freeKey(j); err != nil {
		return false, err
	}
	return true, s.delete(j.n)
}

// freeKey frees a job's dedupe key, if that still names it.
func (s *step) freeKey(j *jobRow) error {
	if j.dedupe == "" {
		return nil
	}
	_, err := s.exec(dedupeFree, j.queue, j.group, j.dedupe, j.id)
	return err
}

func (s *step) cancel(q *queueRow, id string) (queue.State, error) {
	st, err := scanStatus(s.row(statusByID, q.id, id))
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && st.over(s.now):
		return "", fmt.Errorf("%w: %s", queue.ErrUnknownJob, id)
	case err != nil:
		return "", err
	case st.State != "":
		return st.State, nil
	}
	j, err := s.find(jobByID, q.id, id)
	if err != nil {
		return "", err
	}
	if j == nil {
		return "", fmt.Errorf("sqlqueue: the file is damaged: job %s has a status and is not there", id)
	}
	if j.state == leased {
		_, err := s.exec(jobMark, true, j.purged, j.n)
		return queue.Processing, err
	}
	if err := s.ended(j, queue.Cancelled, "", nil); err != nil {
		return "", err
	}
	return queue.Cancelled, s.remove(q, j)
}

// remove takes a job out that nobody has: at once if it is scheduled or a head, else it is marked and leaves
// when it becomes one.
func (s *step) remove(q *queueRow, j *jobRow) error {
	if j.state == behind {
		_, err := s.exec(jobMark, true, j.purged, j.n)
		return err
	}
	g, err := s.group(q, j.group)
	if err != nil {
		return err
	}
	if err := s.delete(j.n); err != nil {
		return err
	}
	g.jobs--
	g.dirty = true
	switch j.state {
	case ready: // its lane keeps its place
		g.ready[j.class]--
		err = s.successor(q, g, j, j.ord, j.place)
	case waiting: // what is behind it need not wait
		err = s.successor(q, g, j, j.ord, 0)
	}
	s.sitBoth(q, g)
	return err
}

// purge erases what a filter picks of the jobs that were accepted after one and up to another. It answers how far it came, and whether that was all.
func (s *step) purge(q *queueRow, filter queue.PurgeFilter, after, upTo int64) (erased int, at int64, done bool, err error) {
	jobs, err := each(s, purgePage, scanJob, after, upTo, purgeLook)
	if err != nil {
		return 0, 0, false, err
	}
	picked := 0
	for _, j := range jobs {
		after = j.n
		if j.queue != q.id || j.purged || !picks(filter, j) {
			continue
		}
		if !j.cancelled { // else it was as good as gone
			erased++
		}
		if err := s.erase(q, j); err != nil {
			return erased, after, false, err
		}
		if picked++; picked == purgeStep {
			return erased, after, false, nil
		}
	}
	if len(jobs) == purgeLook {
		return erased, after, false, nil
	}
	// What is left of jobs that have ended.
	for _, id := range [...]statement{statusPurge, dedupePurge} {
		if _, err := s.exec(id, q.id, upTo, filter.Group, filter.Group, filter.Key, filter.Key, filter.Kind, filter.Kind); err != nil {
			return erased, after, false, err
		}
	}
	return erased, upTo, true, nil
}

func picks(f queue.PurgeFilter, j *jobRow) bool {
	return (f.Group == "" || f.Group == j.group) && (f.Key == "" || f.Key == j.key) && (f.Kind == "" || f.Kind == j.kind)
}

// erase forgets a job wherever it is.
func (s *step) erase(q *queueRow, page *jobRow) error {
	j, err := s.find(jobByN, page.n) // as it is now: one before it may have made it a head
	if err != nil || j == nil {
		return err
	}
	j.purged = true
	if err := s.freeKey(j); err != nil {
		return err
	}
	if j.tracked {
		if _, err := s.exec(statusDelete, q.id, j.id); err != nil {
			return err
		}
	}
	switch {
	case j.state == dead:
		return s.delete(j.n)
	case j.state == leased:
		_, err := s.exec(jobMark, true, true, j.n)
		return err
	case j.cancelled: // it leaves with the head before it
		_, err := s.exec(jobMark, true, true, j.n)
		return err
	default:
		return s.remove(q, j)
	}
}
