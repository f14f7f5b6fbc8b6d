package brokertest_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/brokertest"
)

// broken is an engine with one fault: each func, if set, stands between the caller and a right engine.
type broken struct {
	*queue.Memory
	enqueue func(b *broken, ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error)
	claim   func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error)
	extend  func(b *broken, ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error)
	dead    func(b *broken, ctx context.Context, name string, ids []string) (int, error) // Replay
	purge   func(b *broken, ctx context.Context, name string, f queue.PurgeFilter) (queue.Purged, error)
	pause   func(b *broken, ctx context.Context, name string) error
	wait    func(b *broken, ctx context.Context, name string, p int) error
	status  func(b *broken, ctx context.Context, name, id string) (queue.Status, error)
	letters func(b *broken, ctx context.Context, name string, f queue.DeadFilter) ([]queue.DeadLetter, error)
	queues  func() ([]string, error)
	limit   func(b *broken, ctx context.Context, name, group string, l queue.Limits) error

	mu   *sync.Mutex // of what follows
	n    uint64
	jobs []queue.Lease
	keys map[string]string
	head map[string]map[string]string
}

func (b *broken) Enqueue(ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
	if b.enqueue != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.enqueue(b, ctx, name, batch)
	}
	return b.Memory.Enqueue(ctx, name, batch)
}

func (b *broken) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	if b.claim != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.claim(b, ctx, name, call)
	}
	return b.Memory.Claim(ctx, name, call)
}

func (b *broken) Extend(ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
	if b.extend != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.extend(b, ctx, name, beat)
	}
	return b.Memory.Extend(ctx, name, beat)
}

func (b *broken) Replay(ctx context.Context, name string, ids []string) (int, error) {
	if b.dead != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.dead(b, ctx, name, ids)
	}
	return b.Memory.Replay(ctx, name, ids)
}

func (b *broken) Purge(ctx context.Context, name string, f queue.PurgeFilter) (queue.Purged, error) {
	if b.purge != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.purge(b, ctx, name, f)
	}
	return b.Memory.Purge(ctx, name, f)
}

func (b *broken) Pause(ctx context.Context, name string) error {
	if b.pause != nil {
		return b.pause(b, ctx, name)
	}
	return b.Memory.Pause(ctx, name)
}

func (b *broken) Wait(ctx context.Context, name string, p int) error {
	if b.wait != nil {
		return b.wait(b, ctx, name, p)
	}
	return b.Memory.Wait(ctx, name, p)
}

func (b *broken) Status(ctx context.Context, name, id string) (queue.Status, error) {
	if b.status != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.status(b, ctx, name, id)
	}
	return b.Memory.Status(ctx, name, id)
}

func (b *broken) Dead(ctx context.Context, name string, f queue.DeadFilter) ([]queue.DeadLetter, error) {
	if b.letters != nil {
		return b.letters(b, ctx, name, f)
	}
	return b.Memory.Dead(ctx, name, f)
}

func (b *broken) Queues(ctx context.Context) ([]string, error) {
	if b.queues != nil {
		return b.queues()
	}
	return b.Memory.Queues(ctx)
}

func (b *broken) Limit(ctx context.Context, name, group string, l queue.Limits) error {
	if b.limit != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.limit(b, ctx, name, group, l)
	}
	return b.Memory.Limit(ctx, name, group, l)
}

// each changes the jobs of a batch.
func each(change func(b *broken, j *queue.Job)) func(*broken, context.Context, string, queue.Batch) ([]queue.Receipt, error) {
	return func(b *broken, ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
		batch.Jobs = slices.Clone(batch.Jobs)
		for i := range batch.Jobs {
			change(b, &batch.Jobs[i].Job)
		}
		return b.Memory.Enqueue(ctx, name, batch)
	}
}

// settling changes the settlements of a call.
func settling(change func(b *broken, s *queue.Settlement)) func(*broken, context.Context, string, queue.Call) (queue.Claimed, error) {
	return func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
		call.Settle = slices.Clone(call.Settle)
		for i := range call.Settle {
			change(b, &call.Settle[i])
		}
		return b.Memory.Claim(ctx, name, call)
	}
}

// answering changes the answer to a call.
func answering(change func(b *broken, c *queue.Claimed)) func(*broken, context.Context, string, queue.Call) (queue.Claimed, error) {
	return func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
		c, err := b.Memory.Claim(ctx, name, call)
		c.Jobs = slices.Clone(c.Jobs)
		change(b, &c)
		return c, err
	}
}

// The suite must refute each of these engines, and for the right reason: by a check or an invariant that speaks
// of what is broken.
func TestSuiteRefutesBrokenEngines(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		engine broken
		by     string // the name of a check, or a part of an invariant that a random sequence quotes
	}{
		"claims a job twice": {broken{claim: func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
			c, err := b.Memory.Claim(ctx, name, call)
			if len(c.Jobs) < call.Max && len(b.jobs) > 0 {
				twice := b.jobs[len(b.jobs)-1]
				b.n++
				twice.Token += queue.Token("'" + strconv.FormatUint(b.n, 10))
				c.Jobs = append(slices.Clone(c.Jobs), twice)
			}
			b.jobs = append(b.jobs, c.Jobs...)
			return c, err
		}}, "ConcurrentWorkersRunEachJobOnceAndInOrder"},
		"takes stale tokens": {broken{claim: answering(func(_ *broken, c *queue.Claimed) { c.Lost = nil })}, "AckSentTwiceIsOkAndTheSecondChangesNothing"},
		"revives lost leases": {broken{extend: func(b *broken, ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
			e, err := b.Memory.Extend(ctx, name, beat)
			e.Lost = nil
			return e, err
		}}, "HeartbeatOfALostLeaseCannotReviveIt"},
		"loses order on retry": {broken{claim: func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
			call.Settle = slices.Clone(call.Settle)
			for i, s := range call.Settle {
				for _, l := range b.jobs {
					if j := l.Job; l.Token == s.Token && s.Action == queue.Retry && j.Attempts+1 < j.MaxAttempts {
						j.Attempts++
						j.Delay = s.After
						call.Settle[i] = queue.Settlement{Token: s.Token, Action: queue.Ack, Enqueue: []queue.Entry{{Job: j}}}
					}
				}
			}
			c, err := b.Memory.Claim(ctx, name, call)
			b.jobs = append(b.jobs, c.Jobs...)
			return c, err
		}}, "StrictOrderThroughRetries"},
		"has no lanes": {broken{enqueue: each(func(b *broken, j *queue.Job) {
			if b.keys == nil {
				b.keys = map[string]string{}
			}
			b.keys[j.ID], j.Key = j.Key, ""
		}), claim: answering(func(b *broken, c *queue.Claimed) {
			for i := range c.Jobs {
				c.Jobs[i].Job.Key = b.keys[c.Jobs[i].Job.ID]
			}
		})}, "StrictOrderThroughRetries"},
		"starves a group": {broken{claim: func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
			c, err := b.Memory.Claim(ctx, name, call)
			var back []queue.Settlement
			c.Jobs = slices.DeleteFunc(slices.Clone(c.Jobs), func(l queue.Lease) bool {
				starved := l.Job.Group == "quiet7" || l.Job.Group == "b"
				if starved {
					back = append(back, queue.Settlement{Token: l.Token, Action: queue.Release})
				}
				return starved
			})
			if len(back) > 0 {
				b.n++
				_, _ = b.Memory.Claim(ctx, name, queue.Call{Process: "starve", Number: b.n, Settle: back})
			}
			return c, err
		}}, "GroupWith1000LanesDelaysAnotherGroupByAtMostOneRound"},
		"leaks the count of a cap": {broken{limit: func(b *broken, ctx context.Context, name, group string, l queue.Limits) error {
			b.n = uint64(max(l.Cap, 0))
			return b.Memory.Limit(ctx, name, group, l)
		}, claim: func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
			for _, s := range call.Settle {
				if s.Action == queue.Retry && b.n > 1 {
					b.n--
					_ = b.Memory.Limit(ctx, name, "g", queue.Limits{Cap: int(b.n)}) //nolint:gosec // a small cap
				}
			}
			return b.Memory.Claim(ctx, name, call)
		}}, "PerGroupCapIsExactAfterCrashesAndExpiries"},
		"ignores caps": {broken{limit: func(*broken, context.Context, string, string, queue.Limits) error { return nil }}, "PerGroupCapIsExactAfterCrashesAndExpiries"},
		"ignores weights": {broken{limit: func(b *broken, ctx context.Context, name, group string, l queue.Limits) error {
			l.Weight = 0
			return b.Memory.Limit(ctx, name, group, l)
		}}, "WeightGivesSoManyLanesATurn"},
		"leaves the dedupe key after a failed enqueue": {broken{enqueue: func(b *broken, ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
			r, err := b.Memory.Enqueue(context.WithoutCancel(ctx), name, batch)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return r, err
		}}, "DedupeKeyDoesNotSurviveAnEnqueueThatFailed"},
		"does not dedupe": {broken{enqueue: each(func(_ *broken, j *queue.Job) { j.DedupeKey = "" })}, "DedupeHitReturnsTheFirstJobsID"},
		"names the duplicate itself": {broken{enqueue: func(b *broken, ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
			r, err := b.Memory.Enqueue(ctx, name, batch)
			for i := range r {
				r[i].ID = batch.Jobs[i].Job.ID
			}
			return r, err
		}}, "DedupeHitReturnsTheFirstJobsID"},
		"takes a batch twice": {broken{enqueue: func(b *broken, ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
			b.n++
			batch.ID += strconv.FormatUint(b.n, 10)
			return b.Memory.Enqueue(ctx, name, batch)
		}}, "1. Each accepted job is in exactly one place"},
		"forgets its answers": {broken{claim: func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
			b.n++
			call.Number = b.n
			call.Again = false
			return b.Memory.Claim(ctx, name, call)
		}}, "Lost replies"},
		"keeps what a forgotten answer gave out": {broken{claim: func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
			call.Again = false
			return b.Memory.Claim(ctx, name, call)
		}}, "ForgottenAnswerGivesBackWhatTheProcessDoesNotKnowOf"},
		"counts a crash as a failure": {broken{claim: answering(func(_ *broken, c *queue.Claimed) {
			for i := range c.Jobs {
				c.Jobs[i].Job.Attempts += c.Jobs[i].Job.Crashes
			}
		})}, "JobWhoseWorkerDiedIsInExactlyOneStructureAndIsTakenOver"},
		"loses what is released": {broken{claim: settling(func(_ *broken, s *queue.Settlement) {
			if s.Action == queue.Release {
				s.Action = queue.Ack
			}
		})}, "ReleaseKeepsOrderAndAttempts"},
		"gives back at the tail": {broken{claim: settling(func(_ *broken, s *queue.Settlement) {
			if s.Action == queue.Release {
				s.Action = queue.Snooze
			}
		})}, "ReleaseKeepsOrderAndAttempts"},
		"counts a snooze as a failure": {broken{claim: settling(func(_ *broken, s *queue.Settlement) {
			if s.Action == queue.Snooze {
				s.Action = queue.Retry
			}
		})}, "SnoozeAndParkSpendNoAttemptAndKeepOrder"},
		"does not park": {broken{claim: settling(func(_ *broken, s *queue.Settlement) { s.Park = false })}, "SnoozeAndParkSpendNoAttemptAndKeepOrder"},
		"bulk before live": {broken{enqueue: each(func(_ *broken, j *queue.Job) { j.Class = 1 - j.Class }), claim: answering(func(_ *broken, c *queue.Claimed) {
			for i := range c.Jobs {
				c.Jobs[i].Job.Class = 1 - c.Jobs[i].Job.Class
			}
		})}, "BulkGetsItsShareAndNoMore"},
		"runs what is scheduled at once": {broken{enqueue: each(func(_ *broken, j *queue.Job) { j.Delay = 0 })}, "DelayedJobsDueWhileNothingRanComeInDueOrder"},
		"knows no deadline":              {broken{enqueue: each(func(_ *broken, j *queue.Job) { j.Deadline = 1 << 60 })}, "ClaimMovesAtMost128LateJobsAndSaysLookAgain"},
		"loses dead letters": {broken{claim: settling(func(_ *broken, s *queue.Settlement) {
			if s.Action == queue.Kill {
				s.Action = queue.Ack
			}
		})}, "What fails for good is a dead letter"},
		"replays nothing but says so": {broken{dead: func(_ *broken, _ context.Context, _ string, ids []string) (int, error) { return len(ids), nil }}, "ReplayedDeadLetterGoesToTheTailOfItsLaneAndKeepsItsHistory"},
		"makes relaxed jobs strict":   {broken{enqueue: each(func(_ *broken, j *queue.Job) { j.Order = queue.Strict })}, "JobsComeBackAsTheyWere"},
		"purges in one call what comes after it": {broken{purge: func(b *broken, ctx context.Context, name string, f queue.PurgeFilter) (queue.Purged, error) {
			f.Cursor = ""
			return b.Memory.Purge(ctx, name, f)
		}}, "PurgeOfManyIsResumableAndSparesWhatComesLater"},
		"does not pause":   {broken{pause: func(*broken, context.Context, string) error { return nil }}, "PauseHoldsAndResumeWakes"},
		"wakes nobody":     {broken{wait: func(_ *broken, ctx context.Context, _ string, _ int) error { <-ctx.Done(); return ctx.Err() }}, "WaitWakesForEverythingThatMakesWork"},
		"hints at nothing": {broken{wait: func(*broken, context.Context, string, int) error { return nil }}, "WaitEndsWithItsContext"},
		"drops progress": {broken{extend: func(b *broken, ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
			beat.Progress = nil
			return b.Memory.Extend(ctx, name, beat)
		}}, "ProgressNeverGoesBackAndIsRejectedFromALostLease"},
		"keeps no results": {broken{claim: settling(func(_ *broken, s *queue.Settlement) { s.Result = nil })}, "StatusReadRightAfterEnqueueIsNeverUnknown"},
		"knows a job's status too late": {broken{status: func(b *broken, ctx context.Context, name, id string) (queue.Status, error) {
			if b.n++; b.n == 1 {
				return queue.Status{}, queue.ErrUnknownJob
			}
			return b.Memory.Status(ctx, name, id)
		}}, "StatusReadRightAfterEnqueueIsNeverUnknown"},
		"changes payloads": {broken{claim: answering(func(_ *broken, c *queue.Claimed) {
			for i := range c.Jobs {
				c.Jobs[i].Job.Payload = append(slices.Clone(c.Jobs[i].Job.Payload), '?')
			}
		})}, "JobsComeBackAsTheyWere"},
		"expires leases early": {broken{claim: func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
			call.Lease = min(call.Lease, 10*time.Second)
			return b.Memory.Claim(ctx, name, call)
		}}, "What fails for good is a dead letter"},
		"ignores NotBefore": {broken{enqueue: each(func(_ *broken, j *queue.Job) { j.NotBefore = time.Time{} })}, "1. Each accepted job"},
		"remembers only the last batch": {broken{enqueue: func(b *broken, ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
			if b.keys == nil {
				b.keys = map[string]string{}
			}
			if b.keys["last"] != batch.ID {
				b.n++
			}
			b.keys["last"] = batch.ID
			batch.ID += strconv.FormatUint(b.n, 10)
			return b.Memory.Enqueue(ctx, name, batch)
		}}, "1. Each accepted job"},
		"takes a batch in pieces": {broken{enqueue: func(b *broken, ctx context.Context, name string, batch queue.Batch) (all []queue.Receipt, err error) {
			for _, e := range batch.Jobs {
				r, err := b.Memory.Enqueue(ctx, name, queue.Batch{ID: batch.ID + e.Job.ID, Jobs: []queue.Entry{e}})
				if err != nil {
					return nil, err
				}
				all = append(all, r...)
			}
			return all, nil
		}}, "BatchIsAcceptedWholeOrNotAtAll"},
		"keeps the caller's headers": {broken{enqueue: each(func(b *broken, j *queue.Job) {
			if b.head == nil {
				b.head = map[string]map[string]string{}
			}
			b.head[j.ID] = j.Headers
		}), claim: answering(func(b *broken, c *queue.Claimed) {
			for i := range c.Jobs {
				c.Jobs[i].Job.Headers = b.head[c.Jobs[i].Job.ID]
			}
		})}, "came back as another job"},
		"forgets history": {broken{claim: answering(func(_ *broken, c *queue.Claimed) {
			for i := range c.Jobs {
				c.Jobs[i].Job.History = nil
			}
		})}, "HistoryKeepsTheFirstAndTheLastTenFailures"},
		"keeps thin dead letters": {broken{letters: func(b *broken, ctx context.Context, name string, f queue.DeadFilter) ([]queue.DeadLetter, error) {
			dead, err := b.Memory.Dead(ctx, name, f)
			for i := range dead {
				dead[i].Job.Headers, dead[i].Job.MaxAttempts = nil, 0
			}
			return dead, err
		}}, "What fails for good is a dead letter"},
		"lists no queues":        {broken{queues: func() ([]string, error) { return nil, nil }}, "1. Each accepted job"},
		"does not report deaths": {broken{claim: answering(func(_ *broken, c *queue.Claimed) { c.Died = nil })}, "What fails for good is a dead letter"},
		"does not say when":      {broken{claim: answering(func(_ *broken, c *queue.Claimed) { c.DueIn = 0 })}, "dueIn tells how long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ok, found := brokertest.Refutes(t, brokertest.Config{
				New: func(testing.TB) brokertest.Engine {
					b := tt.engine
					b.Memory, b.mu = new(queue.Memory), new(sync.Mutex)
					return &b
				},
				Bubble: synctest.Test, Sleep: func(_ brokertest.Engine, d time.Duration) { time.Sleep(d) },
			}, tt.by)
			assert.True(t, ok, "not refuted by %s, but: %s", tt.by, found)
		})
	}
}

// So it must if the engine has partitions.
func TestSuiteRefutesBrokenPartitions(t *testing.T) {
	t.Parallel()
	for by, b := range map[string]broken{
		"StrictOrderThroughRetries":                 {claim: settling(func(_ *broken, s *queue.Settlement) { s.Action = queue.Ack })},
		"PerGroupCapIsExactAfterCrashesAndExpiries": {limit: func(*broken, context.Context, string, string, queue.Limits) error { return nil }},
		"PauseHoldsAndResumeWakes":                  {pause: func(*broken, context.Context, string) error { return nil }},
		"EveryGroupLivesInOnePartition": {claim: func(b *broken, ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
			call.Partition = (call.Partition + int(call.Number)) % 3 //nolint:gosec // a small count
			return b.Memory.Claim(ctx, name, call)
		}},
	} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			ok, _ := brokertest.Refutes(t, brokertest.Config{
				New: func(testing.TB) brokertest.Engine {
					b.Memory, b.mu = &queue.Memory{Partitions: 3}, new(sync.Mutex)
					return &b
				},
				Bubble: synctest.Test, Sleep: func(_ brokertest.Engine, d time.Duration) { time.Sleep(d) },
			}, by)
			assert.True(t, ok)
		})
	}
}
