package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Operator is what an engine offers to people who look after queues. [Memory] has it; [Queue] makes it
// convenient. An unknown queue is an empty one. What a step answers or changes is bounded. (Memory looks through all that it holds to
// find it.)
type Operator interface {
	// Queues lists the names of the queues that hold anything, sorted.
	Queues(ctx context.Context) ([]string, error)
	// Stats counts.
	Stats(ctx context.Context, queue string) (Stats, error)
	// Jobs lists jobs in lanes and scheduled ones, by ID, one page.
	Jobs(ctx context.Context, queue string, filter JobFilter) ([]JobInfo, error)
	// Dead lists dead letters by when they died, then by ID, one page.
	Dead(ctx context.Context, queue string, filter DeadFilter) ([]DeadLetter, error)
	// Replay puts dead letters at the tail of their lanes, in the order of ids, with no attempts and crashes, a new
	// deadline and their history; the dedupe key is not asked. It answers how many there were. At most 128 ids.
	Replay(ctx context.Context, queue string, ids []string) (int, error)
	// Drop removes dead letters, and their dedupe keys where they still name them. It answers how many there
	// were. At most 128 ids.
	Drop(ctx context.Context, queue string, ids []string) (int, error)
	// Status tells how a tracked job is. It fails with [ErrUnknownJob].
	Status(ctx context.Context, queue, id string) (Status, error)
	// Cancel ends a tracked job and answers its state after that: Cancelled; Processing if a worker has
	// it, which is told at its next heartbeat; the final state of one that has ended. It fails with [ErrUnknownJob].
	Cancel(ctx context.Context, queue, id string) (State, error)
	// Purge erases a bounded number of jobs; see [PurgeFilter]. Done is said by an empty Cursor in the answer.
	Purge(ctx context.Context, queue string, filter PurgeFilter) (Purged, error)
	// Pause stops claims of the queue, Resume allows them again. Enqueues go on.
	Pause(ctx context.Context, queue string) error
	Resume(ctx context.Context, queue string) error
	// Park keeps a group from being claimed for d; 0 ends that. The last call wins.
	Park(ctx context.Context, queue, group string, d time.Duration) error
	// Limit sets a group's limits, for as long as the queue exists; the zero Limits removes them.
	Limit(ctx context.Context, queue, group string, limits Limits) error
}

// Stats counts what a queue holds.
type Stats struct {
	Jobs      int // in lanes, those that workers have among them
	Held      int // by workers
	Waiting   int // lanes that wait for their head to be due again
	Scheduled int // outside their lanes until they are due
	Dead      int // dead letters
	Parked    int // groups
	Paused    bool
	Now       time.Time // the engine's clock
}

// JobFilter picks jobs. The zero value picks all.
type JobFilter struct {
	Group, Key, Kind string // "" means any
	After            string // the ID of the last job of the page before
	Limit            int    // 0 means 100
}

func (f JobFilter) picks(j Job) bool {
	return (f.Group == "" || f.Group == j.Group) && (f.Key == "" || f.Key == j.Key) && (f.Kind == "" || f.Kind == j.Kind) && j.ID > f.After
}

// JobInfo is a job and where it stands.
type JobInfo struct {
	Job   Job
	State State
	Due   time.Time // of one that is scheduled or is a head that waits, by the engine's clock; else zero
}

// DeadFilter picks dead letters. The zero value picks all.
type DeadFilter struct {
	IDs         []string  // of these jobs only
	Group, Kind string    // "" means any
	Error       string    // a part of the error's text
	From, Until time.Time // died at From or later, before Until; zero means any time
	After       string    // with AfterTime: the ID and At of the last letter of the page before
	AfterTime   time.Time
	Limit       int // 0 means 100
}

// Limits are what an operator sets for a group.
type Limits struct {
	Cap    int // jobs of the group that may be held at once; 0 means no bound
	Weight int // lanes that the group may claim in one turn; 0 means 1
}

// PurgeFilter picks what is erased: lanes, scheduled jobs, dead letters, status and dedupe keys of jobs that were
// accepted before the first call. At least one of Group, Key and Kind must be set; all that are must match.
// A job that a worker has is cancelled, tracked or not, and nothing is kept of it afterwards.
type PurgeFilter struct {
	Group, Key, Kind string
	Cursor           string // of the answer before; "" begins
}

// Purged is the answer to a Purge.
type Purged struct {
	Jobs   int    // erased by this call
	Cursor string // for the next call; "" means done
}

const (
	pageLimit = 100 // of a listing that names none
	stepIDs   = 128 // of one Replay or Drop
)

func (q *Queue) operator(what string) (Operator, error) {
	if q.op == nil {
		return nil, fmt.Errorf("queue: %s: the %s broker: %w", what, q.broker.Info().Engine, errors.ErrUnsupported)
	}
	return q.op, nil
}

// Stats counts what the queue holds. It and all other methods for operators fail with [errors.ErrUnsupported]
// if the broker is no [Operator].
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	op, err := q.operator("Stats")
	if err != nil {
		return Stats{}, err
	}
	return op.Stats(ctx, q.cfg.Name)
}

// Jobs lists jobs that are in lanes or scheduled, by ID, at most filter.Limit.
func (q *Queue) Jobs(ctx context.Context, filter JobFilter) ([]JobInfo, error) {
	op, err := q.operator("Jobs")
	if err != nil {
		return nil, err
	}
	if filter.Limit < 0 {
		return nil, fmt.Errorf("queue: Jobs: JobFilter.Limit is %d; want 0 for the default, or more", filter.Limit)
	}
	jobs, err := op.Jobs(ctx, q.cfg.Name, filter)
	for i := range jobs {
		q.decodeIfPossible(&jobs[i].Job)
	}
	return jobs, err
}

// Dead lists dead letters, oldest first, at most filter.Limit. A payload that the queue's codecs can't
// read is given as it is stored.
func (q *Queue) Dead(ctx context.Context, filter DeadFilter) ([]DeadLetter, error) {
	op, err := q.operator("Dead")
	if err != nil {
		return nil, err
	}
	if filter.Limit < 0 {
		return nil, fmt.Errorf("queue: Dead: DeadFilter.Limit is %d; want 0 for the default, or more", filter.Limit)
	}
	dead, err := op.Dead(ctx, q.cfg.Name, filter)
	for i := range dead {
		q.decodeIfPossible(&dead[i].Job)
	}
	return dead, err
}

// Replay makes dead letters into jobs again, oldest first, at the tail of their lanes, and answers how
// many. The zero filter replays all that are dead when it is called; filter.Limit bounds nothing but the pages.
func (q *Queue) Replay(ctx context.Context, filter DeadFilter) (int, error) {
	return q.eachDead(ctx, "Replay", filter, func(ctx context.Context, op Operator, ids []string) (int, error) {
		return op.Replay(ctx, q.cfg.Name, ids)
	})
}

// Drop forgets dead letters for good and answers how many, as Replay does.
func (q *Queue) Drop(ctx context.Context, filter DeadFilter) (int, error) {
	return q.eachDead(ctx, "Drop", filter, func(ctx context.Context, op Operator, ids []string) (int, error) {
		return op.Drop(ctx, q.cfg.Name, ids)
	})
}

// eachDead hands the dead letters of a filter to do, a page at a time.
func (q *Queue) eachDead(ctx context.Context, what string, filter DeadFilter, do func(ctx context.Context, op Operator, ids []string) (int, error)) (int, error) {
	op, err := q.operator(what)
	if err != nil {
		return 0, err
	}
	stats, err := op.Stats(ctx, q.cfg.Name)
	if err != nil {
		return 0, err
	}
	// Not what dies meanwhile: a replayed job that fails at once would come up again and again.
	if now := stats.Now.Add(time.Millisecond); filter.Until.IsZero() || filter.Until.After(now) {
		filter.Until = now
	}
	filter.Limit = stepIDs
	done := 0
	seen := map[string]bool{}
	for {
		dead, err := op.Dead(ctx, q.cfg.Name, filter)
		if err != nil || len(dead) == 0 {
			return done, err
		}
		ids := make([]string, 0, len(dead))
		for _, d := range dead {
			if !seen[d.Job.ID] {
				ids = append(ids, d.Job.ID)
			}
			seen[d.Job.ID] = true
		}
		n, err := do(ctx, op, ids)
		done += n
		if err != nil {
			return done, err
		}
		last := dead[len(dead)-1]
		filter.After, filter.AfterTime = last.Job.ID, last.At
	}
}

// Status tells how a tracked job is. It fails with [ErrUnknownJob] if there is none of that ID, if it is
// not tracked, or if its status has ended.
func (q *Queue) Status(ctx context.Context, id string) (Status, error) {
	op, err := q.operator("Status")
	if err != nil {
		return Status{}, err
	}
	return op.Status(ctx, q.cfg.Name, id)
}

// Cancel ends a tracked job. One that a worker has ends when its handler returns, whose context is
// cancelled with [ErrCancelled] at the next heartbeat; if the handler succeeds all the same, that counts. It answers
// the job's state after the call and fails with [ErrUnknownJob].
func (q *Queue) Cancel(ctx context.Context, id string) (State, error) {
	op, err := q.operator("Cancel")
	if err != nil {
		return "", err
	}
	return op.Cancel(ctx, q.cfg.Name, id)
}

// Purge erases what [PurgeFilter] says, and answers how many jobs that were; what the shop asks for by
// shop/redact, or after app/uninstalled. Ended early by ctx or an error, it can be called again.
func (q *Queue) Purge(ctx context.Context, filter PurgeFilter) (int, error) {
	op, err := q.operator("Purge")
	if err != nil {
		return 0, err
	}
	if filter.Group == "" && filter.Key == "" && filter.Kind == "" {
		return 0, errors.New("queue: Purge: PurgeFilter names neither Group, Key nor Kind")
	}
	done := 0
	for {
		p, err := op.Purge(ctx, q.cfg.Name, filter)
		done += p.Jobs
		if err != nil || p.Cursor == "" {
			return done, err
		}
		filter.Cursor = p.Cursor
	}
}

// Pause stops all workers of the queue from claiming, in every process, until Resume. Enqueues go on, and what
// workers have they finish.
func (q *Queue) Pause(ctx context.Context) error {
	op, err := q.operator("Pause")
	if err != nil {
		return err
	}
	return op.Pause(ctx, q.cfg.Name)
}

// Resume ends a Pause.
func (q *Queue) Resume(ctx context.Context) error {
	op, err := q.operator("Resume")
	if err != nil {
		return err
	}
	return op.Resume(ctx, q.cfg.Name)
}

// Park keeps a group from being claimed for d; 0 ends that. The last call wins, those of handlers
// included whose error's ParkGroup method says true.
func (q *Queue) Park(ctx context.Context, group string, d time.Duration) error {
	op, err := q.operator("Park")
	if err != nil {
		return err
	}
	if d < 0 {
		return fmt.Errorf("queue: Park: the time is %v; want 0 to unpark, or more", d)
	}
	return op.Park(ctx, q.cfg.Name, group, d)
}

// Limit sets how many jobs of a group may be held at once over all processes, and how many lanes it may claim in
// a turn. It lasts until it is set again.
func (q *Queue) Limit(ctx context.Context, group string, limits Limits) error {
	op, err := q.operator("Limit")
	if err != nil {
		return err
	}
	if limits.Cap < 0 || limits.Weight < 0 {
		return fmt.Errorf("queue: Limit: Limits is %+v; want 0 for the default, or more", limits)
	}
	return op.Limit(ctx, q.cfg.Name, group, limits)
}
