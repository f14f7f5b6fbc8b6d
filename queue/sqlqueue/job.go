package sqlqueue

import (
	"database/sql"
	"errors"
	"time"

	"github.com/breakwater-go/breakwater/internal/text"
	"github.com/breakwater-go/breakwater/queue"
)

// The states of a row of breakwater_jobs.
const (
	behind = iota
	ready
	leased
	waiting
	scheduled
	dead
)

const (
	maxErrorLen = 2 << 10 // bytes kept of the failure that killed a job
	maxNoteLen  = 1 << 10
	// deadlinePassed is the error of a job that died of its deadline.
	deadlinePassed = "deadline"
)

// jobRow is a row of breakwater_jobs.
type jobRow struct {
	n, queue              int64
	id, kind, group       string
	class                 int
	key, lane             string
	ord                   int64
	state                 int
	place, at, armed      int64
	token                 string
	lease, claim          int64
	relaxed, tracked      bool
	spared                bool
	cancelled, purged     bool
	done                  bool
	attempts, maxAttempts int64
	crashes, maxCrashes   int64
	since, late           int64
	dedupe                string
	history               []byte
	error                 string
}

func (j *jobRow) scan(row scanner, more ...any) error {
	return row.Scan(append([]any{
		&j.n, &j.queue, &j.id, &j.kind, &j.group, &j.class, &j.key, &j.lane, &j.ord, &j.state, &j.place, &j.at, &j.armed, &j.token, &j.lease, &j.claim,
		&j.relaxed, &j.tracked, &j.spared, &j.cancelled, &j.purged, &j.done, &j.attempts, &j.maxAttempts, &j.crashes, &j.maxCrashes, &j.since, &j.late,
		&j.dedupe, &j.history, &j.error,
	}, more...)...)
}

func scanJob(row scanner) (*jobRow, error) {
	j := &jobRow{}
	err := j.scan(row)
	return j, err
}

// find reads one job; nil if there is none.
func (s *step) find(id statement, args ...any) (*jobRow, error) {
	j, err := scanJob(s.row(id, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return j, err
}

func (s *step) insert(j *jobRow, record []byte) error {
	if _, err := s.exec(jobInsert, j.n, j.queue, j.id, j.kind, j.group, j.class, j.key, j.lane, j.ord, j.state, j.place, j.at, j.armed, j.token, j.lease, j.claim,
		j.relaxed, j.tracked, j.spared, j.cancelled, j.purged, j.done, j.attempts, j.maxAttempts, j.crashes, j.maxCrashes, j.since, j.late,
		j.dedupe, j.history, j.error); err != nil {
		return err
	}
	_, err := s.exec(recordInsert, j.n, record)
	return err
}

// save writes all of a job that may change but its lease.
func (s *step) save(j *jobRow) error {
	_, err := s.exec(jobSave, j.lane, j.ord, j.state, j.place, j.at, j.armed, j.token, j.spared, j.cancelled, j.purged,
		j.attempts, j.crashes, j.since, j.late, j.history, j.error, j.n)
	return err
}

func (s *step) delete(n int64) error {
	if _, err := s.exec(jobDelete, n); err != nil {
		return err
	}
	_, err := s.exec(recordDelete, n)
	return err
}

// fail adds a failure to a job's history.
func (s *step) fail(j *jobRow, reason string) error {
	var h queue.Job
	if len(j.history) > 0 {
		if err := h.UnmarshalBinary(j.history); err != nil {
			h = queue.Job{} // what can't be read is left out: the failure matters more
		}
	}
	h.Fail(timeOf(s.now), reason)
	packed, err := queue.Job{History: h.History}.MarshalBinary()
	j.history = packed
	return err
}

// job is a job as a worker gets it.
func (j *jobRow) job(record []byte) (queue.Job, error) {
	var job, h queue.Job
	if err := job.UnmarshalBinary(record); err != nil {
		return queue.Job{}, err
	}
	if len(j.history) > 0 {
		if err := h.UnmarshalBinary(j.history); err != nil {
			return queue.Job{}, err
		}
		job.History = h.History
	}
	job.Attempts, job.Crashes = int(j.attempts), int(j.crashes)
	job.Since = timeOf(j.since).Truncate(time.Millisecond)
	return job, nil
}

// shown is a job for people: what the row says of one whose record can't be read.
func (j *jobRow) shown(record []byte) queue.Job {
	job, err := j.job(record)
	if err != nil {
		job = queue.Job{ID: j.id, Kind: j.kind, Group: j.group, Class: queue.Class(j.class), Key: j.key, DedupeKey: j.dedupe, Attempts: int(j.attempts), //nolint:gosec // 0 or 1
			MaxAttempts: int(j.maxAttempts), Crashes: int(j.crashes), MaxCrashes: int(j.maxCrashes), Since: timeOf(j.since).Truncate(time.Millisecond), Track: j.tracked}
		if j.relaxed {
			job.Order = queue.Relaxed
		}
	}
	return job
}

// stateOf is that of a job that has not ended.
func (j *jobRow) stateOf() queue.State {
	switch {
	case j.state == leased:
		return queue.Processing
	case j.attempts+j.crashes > 0:
		return queue.Retrying
	default:
		return queue.Pending
	}
}

func (s *step) record(n int64) (b []byte, err error) {
	err = s.row(recordRead, n).Scan(&b)
	return b, err
}

// letter is a dead job without its payload.
func (s *step) letter(j *jobRow) (queue.DeadLetter, error) {
	record, err := s.record(j.n)
	if err != nil {
		return queue.DeadLetter{}, err
	}
	d := queue.DeadLetter{Job: j.shown(record), Error: j.error, At: timeOf(j.at)}
	d.Job.Payload = nil
	return d, nil
}

// entry is a job on its way in, encoded before it waits for the writer: its payload and headers are the caller's, who
// may give up.
type entry struct {
	job    queue.Job // without payload and headers
	record []byte
	dead   string
}

func encode(e *queue.Entry) (entry, error) {
	record, err := e.Job.MarshalBinary()
	job := e.Job
	job.Payload, job.Headers = nil, nil
	return entry{job, record, e.Dead}, err
}

// due is when a job is due, by the engine's clock.
func (e *entry) due(now int64) int64 {
	if e.dead != "" {
		return now
	}
	return max(now+micros(e.job.Delay), microsOf(e.job.NotBefore))
}

// accept puts a job into its lane, among the scheduled or the dead, unless its dedupe key is taken.
func (s *step) accept(q *queueRow, e *entry) (queue.Receipt, error) {
	first, taken, err := s.announce(q, e)
	if err != nil || taken {
		return queue.Receipt{ID: first, Duplicate: true}, err
	}
	return queue.Receipt{ID: e.job.ID}, s.put(q, &e.job, e.record, e.due(s.now), e.dead)
}

// announce takes a job's dedupe key, and begins its status.
func (s *step) announce(q *queueRow, e *entry) (first string, taken bool, err error) {
	if e.job.DedupeKey != "" {
		if first, taken, err = s.takeKey(q, &e.job, s.seq+1); err != nil || taken {
			return first, taken, err
		}
	}
	if e.job.Track {
		s.made++
		_, err = s.exec(statusBegin, q.id, e.job.ID, s.seq+1, e.job.Group, e.job.Key, e.job.Kind, micros(e.job.StatusFor), e.due(s.now))
	}
	return "", false, err
}

// takeKey takes a job's dedupe key, or answers the ID of the job that has it.
func (s *step) takeKey(q *queueRow, job *queue.Job, n int64) (first string, taken bool, err error) {
	s.made++
	took, err := s.exec(dedupeTake, q.id, job.Group, job.DedupeKey, s.now+micros(job.DedupeFor), n, job.ID, job.Key, job.Kind, s.now)
	if err != nil || took > 0 {
		return "", false, err
	}
	err = s.row(dedupeFirst, q.id, job.Group, job.DedupeKey).Scan(&first)
	return first, true, err
}

// put stores a job whose dedupe key and status are set.
func (s *step) put(q *queueRow, job *queue.Job, record []byte, due int64, died string) error {
	j := &jobRow{n: s.next(), queue: q.id, id: job.ID, kind: job.Kind, group: job.Group, class: int(job.Class), key: job.Key, relaxed: job.Order == queue.Relaxed, tracked: job.Track,
		attempts: int64(job.Attempts), maxAttempts: int64(job.MaxAttempts), crashes: int64(job.Crashes), maxCrashes: int64(job.MaxCrashes),
		since: due, late: due + micros(job.Deadline), dedupe: job.DedupeKey}
	if len(job.History) > 0 {
		var err error
		if j.history, err = (queue.Job{History: job.History}).MarshalBinary(); err != nil {
			return err
		}
	}
	if died != "" {
		j.state, j.at, j.error = dead, s.now/1000*1000, text.Cut(died, maxErrorLen)
		if err := s.ended(j, queue.Dead, j.error, nil); err != nil {
			return err
		}
		return s.insert(j, record)
	}
	g, err := s.group(q, j.group)
	if err != nil {
		return err
	}
	g.jobs++
	g.dirty = true
	if due > s.now {
		j.state, j.at, j.armed = scheduled, due, s.next()
		s.woken[q.name] = true // a worker that sleeps must know when to look
		return s.insert(j, record)
	}
	if err := s.tail(q, j); err != nil {
		return err
	}
	if err := s.insert(j, record); err != nil {
		return err
	}
	if j.state == ready {
		g.ready[j.class]++
		s.sit(q, g, j.class)
	}
	return nil
}

// tail gives a job its place at the tail of its lane: it is ready if it is the first there.
func (s *step) tail(q *queueRow, j *jobRow) error {
	j.state, j.lane, j.ord = ready, j.key, s.next()
	j.place = j.ord
	if j.key == "" {
		return nil
	}
	var one int
	err := s.row(laneExists, q.id, j.group, j.class, j.key).Scan(&one)
	switch {
	case err == nil:
		j.state, j.place = behind, 0
	case errors.Is(err, sql.ErrNoRows):
		err = nil
	}
	return err
}
