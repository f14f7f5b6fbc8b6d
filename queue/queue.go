package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	defaultName        = "default"
	defaultMaxPayload  = 32 << 20 // as webhook.Config.MaxBytes, so that what was received can be queued
	defaultMaxAttempts = 30       // with the default Backoff: about 48 h
	defaultMaxCrashes  = 5
	defaultDeadline    = 72 * time.Hour
	defaultDedupeFor   = 48 * time.Hour
)

// Config tunes a Queue. The zero value is valid with a durable broker.
type Config struct {
	Name            string       // of the queue within the broker; "" means "default"
	AllowVolatile   bool         // accept a broker that forgets its jobs when the process ends
	MaxPayloadBytes int64        // 0 means 32 MiB
	MaxAttempts     int          // of a job that names none; 0 means 30
	Logger          *slog.Logger // nil discards
}

// Queue takes jobs and runs them. It is safe for concurrent use.
type Queue struct {
	broker Broker
	cfg    Config
	log    *slog.Logger
}

// New makes a Queue over broker. It does no I/O. It fails with [ErrVolatile] if the broker is not
// durable and cfg does not allow that, and if a field of cfg is negative.
func New(broker Broker, cfg Config) (*Queue, error) {
	switch {
	case broker == nil:
		return nil, errors.New("queue: New: broker is nil")
	case cfg.MaxPayloadBytes < 0:
		return nil, fmt.Errorf("queue: New: Config.MaxPayloadBytes is %d; want 0 for the default, or more", cfg.MaxPayloadBytes)
	case cfg.MaxAttempts < 0:
		return nil, fmt.Errorf("queue: New: Config.MaxAttempts is %d; want 0 for the default, or more", cfg.MaxAttempts)
	}
	if info := broker.Info(); !info.Durable && !cfg.AllowVolatile {
		return nil, fmt.Errorf("%w: the %s broker loses every job when the process ends, acknowledged ones too; "+
			"set Config.AllowVolatile where that is meant (tests, demos)", ErrVolatile, info.Engine)
	}
	cfg.Name = cmp.Or(cfg.Name, defaultName)
	cfg.MaxPayloadBytes = cmp.Or(cfg.MaxPayloadBytes, defaultMaxPayload)
	cfg.MaxAttempts = cmp.Or(cfg.MaxAttempts, defaultMaxAttempts)
	q := &Queue{broker: broker, cfg: cfg, log: cfg.Logger}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	return q, nil
}

// Enqueue accepts all jobs or none, and answers one Receipt each, in order. Once it has returned nil
// the jobs are as durable as the broker is; it keeps nothing of their memory. It fails with
// [ErrPayloadTooLarge], for a job without a kind, and when the broker fails: then the jobs may or may
// not have been accepted, and a DedupeKey makes a second try safe.
func (q *Queue) Enqueue(ctx context.Context, jobs ...Job) ([]Receipt, error) {
	entries := make([]Entry, len(jobs))
	for i, j := range jobs {
		if int64(len(j.Payload)) > q.cfg.MaxPayloadBytes {
			return nil, &payloadError{kind: j.Kind, got: int64(len(j.Payload)), most: q.cfg.MaxPayloadBytes}
		}
		entries[i].Job = j
	}
	return q.enqueue(ctx, entries)
}

// Bury puts a job that can never be run straight among the dead letters, with the reason and without
// its payload, so that it can be seen. Its DedupeKey is asked, as in Enqueue.
func (q *Queue) Bury(ctx context.Context, job Job, reason error) (Receipt, error) {
	job.Payload = nil
	receipts, err := q.enqueue(ctx, []Entry{{Job: job, Dead: reason.Error()}})
	if err != nil {
		return Receipt{}, err
	}
	return receipts[0], nil
}

func (q *Queue) enqueue(ctx context.Context, entries []Entry) ([]Receipt, error) {
	for i := range entries {
		j := &entries[i].Job
		switch {
		case j.Kind == "":
			return nil, errors.New("queue: Enqueue: Job.Kind is empty")
		case j.MaxAttempts < 0:
			return nil, fmt.Errorf("queue: Enqueue: Job.MaxAttempts is %d; want 0 for the default, or more", j.MaxAttempts)
		case j.Class >= classes:
			return nil, fmt.Errorf("queue: Enqueue: Job.Class is %v; want Live or Bulk", j.Class)
		case j.Order >= orders:
			return nil, fmt.Errorf("queue: Enqueue: Job.Order is %v; want Strict or Relaxed", j.Order)
		case j.MaxCrashes < 0:
			return nil, fmt.Errorf("queue: Enqueue: Job.MaxCrashes is %d; want 0 for the default, or more", j.MaxCrashes)
		case j.Deadline < 0:
			return nil, fmt.Errorf("queue: Enqueue: Job.Deadline is %v; want 0 for the default, or more", j.Deadline)
		case j.Delay < 0:
			return nil, fmt.Errorf("queue: Enqueue: Job.Delay is %v; want 0 or more", j.Delay)
		case j.DedupeFor < 0:
			return nil, fmt.Errorf("queue: Enqueue: Job.DedupeFor is %v; want 0 for the default, or more", j.DedupeFor)
		}
		j.ID = newID()
		j.Attempts, j.Crashes = 0, 0
		j.MaxAttempts = cmp.Or(j.MaxAttempts, q.cfg.MaxAttempts)
		j.MaxCrashes = cmp.Or(j.MaxCrashes, defaultMaxCrashes)
		j.Deadline = cmp.Or(j.Deadline, defaultDeadline)
		j.DedupeFor = cmp.Or(j.DedupeFor, defaultDedupeFor)
	}
	receipts, err := q.broker.Enqueue(ctx, q.cfg.Name, Batch{ID: newID(), Jobs: entries})
	if err != nil {
		return nil, fmt.Errorf("queue: enqueue %d jobs: %w", len(entries), err)
	}
	return receipts, nil
}

// Dead lists the queue's dead letters, oldest first, at most limit. It fails with
// [errors.ErrUnsupported] if the broker is no [Operator].
func (q *Queue) Dead(ctx context.Context, limit int) ([]DeadLetter, error) {
	if limit < 0 {
		return nil, fmt.Errorf("queue: Dead: limit is %d; want 0 or more", limit)
	}
	op, ok := q.broker.(Operator)
	if !ok {
		return nil, fmt.Errorf("queue: dead letters of the %s broker: %w", q.broker.Info().Engine, errors.ErrUnsupported)
	}
	return op.Dead(ctx, q.cfg.Name, limit)
}
