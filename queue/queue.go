package queue

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultName        = "default"
	defaultMaxPayload  = 32 << 20 // as webhook.Config.MaxBytes, so that what was received can be queued
	defaultMaxAttempts = 30       // with the default Backoff: about 48 h
	defaultMaxCrashes  = 5
	defaultDeadline    = 72 * time.Hour
	defaultDedupeFor   = 48 * time.Hour
	defaultStatusFor   = 24 * time.Hour
)

// Config tunes a Queue. The zero value is valid with a durable broker.
type Config struct {
	Name            string // of the queue within the broker; "" means "default"
	AllowVolatile   bool   // accept a broker that forgets its jobs when the process ends
	MaxPayloadBytes int64  // before Codecs; 0 means 32 MiB
	MaxAttempts     int    // of a job that names none; 0 means 30
	BulkEvery       int    // the turn that bulk work gets while live work is ready; 0 means every 8th, 1 every one

	// MaxDead bounds the dead letters: workers drop the oldest beyond it, after Hooks.Trimmed has seen
	// them. 0 means no bound. It needs a broker that is an [Operator].
	MaxDead int

	// Codecs encode payloads on their way into the broker. The first encodes; each decodes what it has
	// encoded, so that one can follow another while jobs of both are queued. nil means [Plain]. Plain payloads are
	// always read.
	Codecs []Codec

	Hooks  Hooks
	Logger *slog.Logger // nil discards
}

// Queue takes jobs and runs them. It is safe for concurrent use.
type Queue struct {
	broker Broker
	op     Operator // nil if the broker is none
	cfg    Config
	log    *slog.Logger

	ids      idSource
	zombies  atomic.Int64
	trimmed  atomic.Int64
	trimming atomic.Bool

	mu      sync.Mutex
	workers map[*worker]struct{} // that run
}

// New makes a Queue over broker. It does no I/O. It fails with [ErrVolatile] if the broker is not
// durable and cfg does not allow that, and if a field of cfg is negative or does not fit.
func New(broker Broker, cfg Config) (*Queue, error) {
	switch {
	case broker == nil:
		return nil, errors.New("queue: New: broker is nil")
	case cfg.MaxPayloadBytes < 0:
		return nil, fmt.Errorf("queue: New: Config.MaxPayloadBytes is %d; want 0 for the default, or more", cfg.MaxPayloadBytes)
	case cfg.MaxAttempts < 0:
		return nil, fmt.Errorf("queue: New: Config.MaxAttempts is %d; want 0 for the default, or more", cfg.MaxAttempts)
	case cfg.BulkEvery < 0:
		return nil, fmt.Errorf("queue: New: Config.BulkEvery is %d; want 0 for the default, or more", cfg.BulkEvery)
	case cfg.MaxDead < 0:
		return nil, fmt.Errorf("queue: New: Config.MaxDead is %d; want 0 for no bound, or more", cfg.MaxDead)
	}
	op, _ := broker.(Operator)
	info := broker.Info()
	if info.Err != nil {
		return nil, fmt.Errorf("queue: New: %w", info.Err)
	}
	if cfg.MaxDead > 0 && op == nil {
		return nil, fmt.Errorf("queue: New: Config.MaxDead is %d, but the %s broker can't list dead letters: %w", cfg.MaxDead, info.Engine, errors.ErrUnsupported)
	} else if !info.Durable && !cfg.AllowVolatile {
		return nil, fmt.Errorf("%w: the %s broker loses every job when the process ends, acknowledged ones too; "+
			"use a durable one (package sqlqueue or redisqueue), or set Config.AllowVolatile where that is meant (tests, demos)", ErrVolatile, info.Engine)
	}
	cfg.Codecs = slices.Clone(cfg.Codecs)
	for i, c := range cfg.Codecs {
		if c == nil || c.Name() == "" && c != Plain() {
			return nil, fmt.Errorf("queue: New: Config.Codecs[%d] is nil or has no name", i)
		}
		for _, before := range cfg.Codecs[:i] {
			if before.Name() == c.Name() {
				return nil, fmt.Errorf("queue: New: Config.Codecs has two of the name %q", c.Name())
			}
		}
	}
	cfg.Name = cmp.Or(cfg.Name, defaultName)
	cfg.MaxPayloadBytes = cmp.Or(cfg.MaxPayloadBytes, defaultMaxPayload)
	cfg.MaxAttempts = cmp.Or(cfg.MaxAttempts, defaultMaxAttempts)
	cfg.BulkEvery = cmp.Or(cfg.BulkEvery, bulkTurn)
	q := &Queue{broker: broker, op: op, cfg: cfg, log: cfg.Logger, workers: map[*worker]struct{}{}}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	q.log = q.log.With(slog.String(logQueue, cfg.Name))
	return q, nil
}

// Enqueue accepts all jobs or none, and answers one Receipt each, in order. Once it has returned nil
// the jobs are as durable as the broker is; it keeps nothing of their memory. It fails with
// [ErrPayloadTooLarge], [ErrNameTooLong], for a job without a kind, and when the broker fails: then the jobs may or
// may not have been accepted, and a DedupeKey makes a second try safe. Over a broker with partitions, "all or none" holds in each; the
// receipts that come with an error then have an ID where a job was accepted.
func (q *Queue) Enqueue(ctx context.Context, jobs ...Job) ([]Receipt, error) {
	entries, err := q.prepare("Enqueue", jobs)
	if err != nil {
		return nil, err
	}
	return q.enqueue(ctx, entries)
}

// Bury puts a job that can never be run straight among the dead letters, with the reason and without
// its payload, so that it can be seen. Its DedupeKey is asked, as in Enqueue. Names that are too long to be stored are replaced by
// their beginning and their SHA-256.
func (q *Queue) Bury(ctx context.Context, job Job, reason error) (Receipt, error) {
	if reason == nil {
		return Receipt{}, errors.New("queue: Bury: there is no reason")
	}
	job.Payload = nil
	for _, name := range []*string{&job.Kind, &job.Group, &job.Key, &job.DedupeKey} {
		*name = fitName(*name)
	}
	if job.checkNames() != nil {
		job.Headers = nil // one of their names
	}
	entries, err := q.prepare("Bury", []Job{job})
	if err != nil {
		return Receipt{}, err
	}
	entries[0].Dead = cut(cmp.Or(reason.Error(), noText), maxErrorLen)
	receipts, err := q.enqueue(ctx, entries)
	if err != nil {
		return Receipt{}, err
	}
	if !receipts[0].Duplicate {
		q.died(ctx, []DeadLetter{{Job: entries[0].Job, Error: entries[0].Dead, At: time.Now()}})
	}
	return receipts[0], nil
}

// noText stands for an error without a text.
const noText = "an error without a text"

func fitName(s string) string {
	if len(s) <= maxName {
		return s
	}
	return cut(s, 64) + fmt.Sprintf("…%x", sha256.Sum256([]byte(s)))
}

// prepare checks jobs, gives them their IDs and defaults, and encodes their payloads.
func (q *Queue) prepare(what string, jobs []Job) ([]Entry, error) {
	entries := make([]Entry, len(jobs))
	for i, j := range jobs {
		if int64(len(j.Payload)) > q.cfg.MaxPayloadBytes {
			return nil, &sizeError{what: "payload of " + j.Kind, got: len(j.Payload), most: int(q.cfg.MaxPayloadBytes), setting: "Config.MaxPayloadBytes", sentinel: ErrPayloadTooLarge}
		}
		if err := j.check(); err != nil {
			return nil, fmt.Errorf("queue: %s: %w", what, err)
		}
		if err := j.checkNames(); err != nil {
			return nil, err
		}
		j.ID = q.ids.next()
		j.Attempts, j.Crashes, j.History, j.Since = 0, 0, nil, time.Time{}
		j.MaxAttempts = min(cmp.Or(j.MaxAttempts, q.cfg.MaxAttempts), math.MaxInt32) // what a record can hold
		j.MaxCrashes = min(cmp.Or(j.MaxCrashes, defaultMaxCrashes), math.MaxInt32)
		j.Deadline = cmp.Or(j.Deadline, defaultDeadline)
		j.DedupeFor = cmp.Or(j.DedupeFor, defaultDedupeFor)
		j.StatusFor = cmp.Or(j.StatusFor, defaultStatusFor)
		if err := q.encode(&j); err != nil {
			return nil, fmt.Errorf("queue: %s: encode payload of %s: %w", what, j.Kind, err)
		}
		entries[i].Job = j
	}
	return entries, nil
}

// check says what is wrong with a job that a user has made.
func (j *Job) check() error {
	switch {
	case j.Kind == "":
		return errors.New("Job.Kind is empty")
	case j.MaxAttempts < 0:
		return fmt.Errorf("Job.MaxAttempts is %d; want 0 for the default, or more", j.MaxAttempts)
	case j.Class >= classes:
		return fmt.Errorf("Job.Class is %v; want Live or Bulk", j.Class)
	case j.Order >= orders:
		return fmt.Errorf("Job.Order is %v; want Strict or Relaxed", j.Order)
	case j.MaxCrashes < 0:
		return fmt.Errorf("Job.MaxCrashes is %d; want 0 for the default, or more", j.MaxCrashes)
	case j.Deadline < 0:
		return fmt.Errorf("Job.Deadline is %v; want 0 for the default, or more", j.Deadline)
	case j.Delay < 0:
		return fmt.Errorf("Job.Delay is %v; want 0 or more", j.Delay)
	case j.DedupeFor < 0:
		return fmt.Errorf("Job.DedupeFor is %v; want 0 for the default, or more", j.DedupeFor)
	case j.StatusFor < 0:
		return fmt.Errorf("Job.StatusFor is %v; want 0 for the default, or more", j.StatusFor)
	}
	return nil
}

func (q *Queue) enqueue(ctx context.Context, entries []Entry) ([]Receipt, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	receipts, err := q.broker.Enqueue(ctx, q.cfg.Name, Batch{ID: newID(), Jobs: entries})
	if err != nil {
		return receipts, fmt.Errorf("queue: enqueue %d jobs: %w", len(entries), err)
	}
	if q.cfg.Hooks.Enqueued != nil {
		for i := range entries {
			q.hookApart(ctx, "Enqueued", func() { q.cfg.Hooks.Enqueued(ctx, entries[i].Job, receipts[i]) })
		}
	}
	return receipts, nil
}

// Health says whether the queue can do its work: the broker answers, and no worker of this process is stuck
// because all its slots are taken by handlers that ignore the end of their context.
func (q *Queue) Health(ctx context.Context) error {
	var problems []error
	for p := range max(1, q.broker.Info().Partitions) {
		if _, err := q.broker.Extend(ctx, q.cfg.Name, Heartbeat{Partition: p}); err != nil {
			problems = append(problems, fmt.Errorf("queue: partition %d of the %s broker does not answer: %w", p, q.broker.Info().Engine, err))
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := range q.workers {
		if n := w.stuck(); n > 0 {
			problems = append(problems, fmt.Errorf("queue: a worker is stuck: %d handlers ignore the end of their context, and no slot is left", n))
		}
	}
	return errors.Join(problems...)
}

// Zombies counts the handlers of this process that still run although their time was over, their lease lost,
// or their job cancelled.
func (q *Queue) Zombies() int { return int(q.zombies.Load()) }

// Trimmed counts the dead letters that this process has dropped because there were more than Config.MaxDead.
func (q *Queue) Trimmed() int64 { return q.trimmed.Load() }

// died tells of dead letters, whose jobs have no payload.
func (q *Queue) died(ctx context.Context, letters []DeadLetter) {
	for _, d := range letters {
		q.log.LogAttrs(ctx, slog.LevelError, "queue: job is dead", append(jobAttrs(&d.Job), slog.String(logError, d.Error))...)
		if q.cfg.Hooks.Died != nil {
			q.hookApart(ctx, "Died", func() { q.cfg.Hooks.Died(ctx, d) })
		}
	}
}

// trim drops the oldest dead letters over the bound that the user has set. Several processes may do so at
// once: each letter is counted by one of them.
func (q *Queue) trim(ctx context.Context) error {
	if q.cfg.MaxDead == 0 || !q.trimming.CompareAndSwap(false, true) {
		return nil
	}
	defer q.trimming.Store(false)
	for {
		stats, err := q.op.Stats(ctx, q.cfg.Name)
		if err != nil || stats.Dead <= q.cfg.MaxDead {
			return err
		}
		letters, err := q.Dead(ctx, DeadFilter{Limit: min(stats.Dead-q.cfg.MaxDead, stepIDs)})
		if err != nil || len(letters) == 0 {
			return err
		}
		ids := make([]string, len(letters))
		for i, d := range letters {
			ids[i] = d.Job.ID
			q.log.LogAttrs(ctx, slog.LevelWarn, "queue: dead letter trimmed: there are more than Config.MaxDead", append(jobAttrs(&d.Job), slog.String(logError, d.Error))...)
			if q.cfg.Hooks.Trimmed != nil {
				q.hookApart(ctx, "Trimmed", func() { q.cfg.Hooks.Trimmed(ctx, d) })
			}
		}
		n, err := q.op.Drop(ctx, q.cfg.Name, ids)
		q.trimmed.Add(int64(n))
		if err != nil {
			return err
		}
	}
}
