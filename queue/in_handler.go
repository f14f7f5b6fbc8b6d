package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
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
// fails with [ErrResultTooLarge] over 64 KiB, and with [ErrLeaseLost] and [ErrNoJob] as ReportProgress does.
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
	if err := r.over(); err != nil {
		return err
	}
	r.result = bytes.Clone(result)
	return nil
}

// EnqueueOnAck enqueues jobs in the same step in which the job of ctx's handler is done: all of it happens or
// nothing. They belong to that job's group; q is a queue over the same [Broker] value. It answers the jobs' IDs; one whose
// DedupeKey is taken is dropped. It fails as Enqueue does, with [ErrLeaseLost] and [ErrNoJob] as ReportProgress does, and for
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
	if err := r.over(); err != nil {
		return nil, err
	}
	r.follow = append(r.follow, entries...)
	return ids, nil
}

// LeaseInfo is what an engine needs to complete a running job itself, in a transaction of its own.
type LeaseInfo struct {
	Broker Broker
	Queue  string
	Token  Token
}

// LeaseFrom tells an engine which lease ctx's handler runs under. It fails with [ErrNoJob], and with [ErrLeaseLost] once that is known.
func LeaseFrom(ctx context.Context) (LeaseInfo, error) {
	r, err := runningFrom(ctx)
	if err != nil {
		return LeaseInfo{}, err
	}
	w := r.f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := r.over(); err != nil {
		return LeaseInfo{}, err
	}
	return LeaseInfo{Broker: w.q.broker, Queue: w.q.cfg.Name, Token: r.token}, nil
}

// TakeOnAck gives an engine that completes the job of ctx's handler in a transaction what SetResult and EnqueueOnAck have kept for the
// job's end; the jobs are not enqueued by the worker then. It fails as LeaseFrom does.
func TakeOnAck(ctx context.Context) (result []byte, follow []Entry, err error) {
	r, err := runningFrom(ctx)
	if err != nil {
		return nil, nil, err
	}
	w := r.f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := r.over(); err != nil {
		return nil, nil, err
	}
	follow, r.follow = r.follow, nil
	return r.result, follow, nil
}
