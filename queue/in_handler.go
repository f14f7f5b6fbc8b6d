package queue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// What a handler can do beside returning.

type runningKey struct{}

// Value is that of the handler's context.
func (r *running) Value(key any) any {
	if key == (runningKey{}) {
		return r
	}
	return r.Context.Value(key)
}

func runningFrom(ctx context.Context) (*running, error) {
	r, ok := ctx.Value(runningKey{}).(*running)
	if !ok {
		return nil, ErrNoJob
	}
	return r, nil
}

// over says why what a handler says does not count any more. The caller holds worker.mu.
func (r *running) over() error {
	switch {
	case r.lost || r.gone:
		return ErrLeaseLost
	case r.done:
		return ErrNoJob
	}
	return nil
}

// JobFrom gives the job that ctx's handler runs: its ID, group, headers, attempts. It says false where ctx is
// not a handler's.
func JobFrom(ctx context.Context) (Job, bool) {
	r, err := runningFrom(ctx)
	if err != nil {
		return Job{}, false
	}
	return *r.given, true
}

// ReportProgress says how far the job of ctx's handler has come, for its [Status]: 0 to 100 percent, and a note
// of at most 1 KiB. It is cheap enough to be called in a loop: what is newest goes out at most ten times a second. Within a
// run it never goes back. On a job that is not tracked it does nothing. It fails with [ErrLeaseLost] once
// that is known, with [ErrNoJob], also once the handler has returned, and for another percentage.
func ReportProgress(ctx context.Context, percent int, note string) error {
	r, err := runningFrom(ctx)
	switch {
	case err != nil:
		return err
	case percent < 0 || percent > 100:
		return fmt.Errorf("queue: ReportProgress: %d percent; want 0 to 100", percent)
	case !r.job.Track:
		return nil
	}
	w := r.f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := r.over(); err != nil {
		return err
	}
	if percent < r.percent {
		return nil
	}
	r.percent = percent
	r.progress = &Progress{Percent: percent, Note: cut(note, maxNoteLen)}
	poke(r.f.reports)
	return nil
}

// SetResult keeps a result for the [Status] of the job of ctx's handler, if that succeeds and the job is tracked. It
// fails with [ErrResultTooLarge] over 64 KiB, with [ErrCompleted], and with [ErrLeaseLost] and [ErrNoJob] as ReportProgress does.
func SetResult(ctx context.Context, result []byte) error {
	r, err := runningFrom(ctx)
	if err != nil {
		return err
	}
	if len(result) > maxResultLen {
		return &sizeError{what: "result of " + r.job.Kind, got: len(result), most: maxResultLen, sentinel: ErrResultTooLarge}
	}
	r.f.w.mu.Lock()
	defer r.f.w.mu.Unlock()
	if err := cmp.Or(r.over(), r.complete); err != nil {
		return err
	}
	r.result = bytes.Clone(result)
	return nil
}

// EnqueueOnAck enqueues jobs in the same step in which the job of ctx's handler is done: all of it happens or
// nothing. They belong to that job's group; q is a queue over the same [Broker] value. It answers the jobs' IDs; one whose
// DedupeKey is taken is dropped. It fails as Enqueue does, with [ErrLeaseLost] and [ErrNoJob] as ReportProgress does, with [ErrCompleted], and for
// another group or broker.
func (q *Queue) EnqueueOnAck(ctx context.Context, jobs ...Job) (ids []string, err error) {
	r, err := runningFrom(ctx)
	if err != nil {
		return nil, err
	}
	w := r.f.w
	if q.broker != w.q.broker {
		return nil, errors.New("queue: EnqueueOnAck: the queues have different brokers")
	}
	for _, j := range jobs {
		if j.Group != r.job.Group {
			return nil, fmt.Errorf("queue: EnqueueOnAck: Job.Group is %q; that of the job that is running is %q", j.Group, r.job.Group)
		}
	}
	entries, err := q.prepare("EnqueueOnAck", jobs)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		entries[i].Queue = q.cfg.Name
		j := &entries[i].Job // it is kept for a while
		j.Payload, j.Headers = bytes.Clone(j.Payload), maps.Clone(j.Headers)
		ids = append(ids, entries[i].Job.ID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := cmp.Or(r.over(), r.complete); err != nil {
		return nil, err
	}
	r.follow = slices.Concat(r.follow, entries)
	return ids, nil
}

// Completion is what an engine needs to complete a running job itself, in a transaction of its own.
type Completion struct {
	Broker Broker
	Queue  string
	Token  Token

	// Kept answers what SetResult and EnqueueOnAck have kept so far for the job's end. The engine sees to it.
	Kept func() (result []byte, follow []Entry)
}

// CompleteIn is for engines that complete a job in a transaction, in which the job's effect is as well. It calls f for the job of ctx's
// handler. If f returns nil, the job is done, whatever the handler returns, and EnqueueOnAck, SetResult and CompleteIn fail
// with [ErrCompleted] from then on. If f fails, what was kept while it ran is forgotten. It fails with [ErrNoJob], and with [ErrLeaseLost] once that is
// known.
func CompleteIn(ctx context.Context, f func(c Completion) error) error {
	r, err := runningFrom(ctx)
	if err != nil {
		return err
	}
	w := r.f.w
	w.mu.Lock()
	err = r.over()
	if err == nil {
		err = r.complete
	}
	follow, result := r.follow, r.result
	w.mu.Unlock()
	if err != nil {
		return err
	}
	done := false
	defer func() { // also when f panics
		w.mu.Lock()
		defer w.mu.Unlock()
		if r.follow, r.result = follow, result; done {
			r.follow, r.complete = nil, ErrCompleted
		}
	}()
	if err := f(Completion{Broker: w.q.broker, Queue: w.q.cfg.Name, Token: r.token, Kept: func() ([]byte, []Entry) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return r.result, r.follow
	}}); err != nil {
		return err
	}
	w.mu.Lock()
	result = r.result
	w.mu.Unlock()
	done = true
	return nil
}
