package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"time"
)

// Schedule says when the ticks of a periodic job are. [Every] is one; those of a cron library, such as the result
// of ParseStandard of github.com/robfig/cron/v3, have the method as well.
type Schedule interface {
	// Next is the first tick after t. The zero time means that there is none.
	Next(t time.Time) time.Time
}

// Every ticks at the multiples of d since the zero time, the same in all processes: Every(time.Hour) on the hour (UTC).
func Every(d time.Duration) Schedule { return every(d) }

type every time.Duration

func (d every) Next(t time.Time) time.Time {
	return t.Truncate(time.Duration(d)).Add(time.Duration(d))
}

// Missed says what becomes of ticks that passed while no worker was there to enqueue their job.
type Missed uint8

const (
	// MissedSkip forgets them.
	MissedSkip Missed = iota
	// MissedOnce makes up for them by one job, that of the last tick.
	MissedOnce
	// MissedEach makes up for each tick of the last 24 h, the last 4,096 at most.
	MissedEach
)

// Periodic is a job that is enqueued at every tick of a schedule, once among all workers that name it, in every
// process: the tick's dedupe key sees to that. A tick is a job as any other: it waits if the
// one before still runs and both have the same Key, and is tried again if it fails.
type Periodic struct {
	Name     string // of the periodic job, within the queue and the Job's group; part of the dedupe key
	Schedule Schedule
	// Job is what each tick enqueues. Its DedupeKey, DedupeFor, Delay and NotBefore are set for it; the header
	// "Breakwater-Tick" says which tick it is for, in RFC 3339.
	Job    Job
	Missed Missed // what becomes of ticks that nobody was there for. At a schedule's very first start the ticks before it count as missed
}

// TickHeader names the header that tells a periodic job which tick it is for.
const TickHeader = "Breakwater-Tick"

const (
	missedEachFor = 24 * time.Hour
	maxMissed     = 1 << 12                  // ticks made up for at most
	longestPeriod = 5 * 366 * 24 * time.Hour // the last tick is looked for so far back, in steps that end at about two years
)

func (p *Periodic) check() error {
	if p.Name == "" || p.Schedule == nil {
		return errors.New("Name or Schedule is missing")
	}
	if e, ok := p.Schedule.(every); ok && time.Duration(e) < time.Second {
		return fmt.Errorf("Schedule is Every(%v); want a second, or more", time.Duration(e))
	}
	if p.Missed > MissedEach {
		return fmt.Errorf("Missed is %d; want MissedSkip, MissedOnce or MissedEach", p.Missed)
	}
	return p.Job.check()
}

// tick enqueues the ticks of one periodic job until ctx ends. Its schedule is the user's code: if that panics or does not
// move on, this job ends, loudly, and nothing else does.
func (w *worker) tick(ctx context.Context, p Periodic) {
	defer func() {
		if v := recover(); v != nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: a schedule panicked; its job is not enqueued any more", slog.String("periodic", p.Name),
				slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
	}()
	now := time.Now()
	for _, at := range p.missed(now) {
		w.enqueueTick(ctx, p, at)
	}
	for {
		at := p.Schedule.Next(now)
		if at.IsZero() {
			return
		}
		if !at.After(now) {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: a schedule does not move on; its job is not enqueued any more", slog.String("periodic", p.Name), slog.Time("tick", at))
			return
		}
		wait(ctx, time.Until(at))
		if ctx.Err() != nil {
			return
		}
		w.enqueueTick(ctx, p, at)
		// While the broker was away, or the machine asleep, ticks may have passed.
		if now = time.Now(); now.Before(at) { // a clock was set
			now = at
		}
		for _, at := range p.between(at, now) {
			w.enqueueTick(ctx, p, at)
		}
	}
}

// missed are the ticks up to now that are made up for at the start.
func (p *Periodic) missed(now time.Time) []time.Time {
	switch p.Missed {
	case MissedEach:
		return p.between(now.Add(-missedEachFor), now)
	case MissedOnce:
		// A schedule can only be asked for what comes next: look from further and further back.
		for back := time.Minute; back < longestPeriod; back *= 4 {
			if first := p.Schedule.Next(now.Add(-back)); !first.IsZero() && !first.After(now) {
				return p.between(now.Add(-back), now)
			}
		}
	case MissedSkip:
	}
	return nil
}

// between are the ticks after from, up to and at to, that are made up for: the last ones.
func (p *Periodic) between(from, to time.Time) []time.Time {
	keep := 0
	switch p.Missed {
	case MissedOnce:
		keep = 1
	case MissedEach:
		keep = maxMissed
		if oldest := to.Add(-missedEachFor); from.Before(oldest) {
			from = oldest
		}
	case MissedSkip:
		return nil
	}
	var ticks []time.Time
	for at := from; ; {
		next := p.Schedule.Next(at)
		if next.IsZero() || next.After(to) || !next.After(at) {
			return ticks
		}
		if at = next; len(ticks) == keep {
			ticks = ticks[1:]
		}
		ticks = append(ticks, at)
	}
}

// enqueueTick enqueues one tick, trying until the broker takes it or ctx ends. The engine's clock keeps it until its
// time, so that a process whose clock is ahead is not early.
func (w *worker) enqueueTick(ctx context.Context, p Periodic, at time.Time) {
	job := p.Job
	job.DedupeKey = "periodic " + p.Name + " " + strconv.FormatInt(at.UnixMilli(), 10)
	job.DedupeFor = defaultDedupeFor
	if next := p.Schedule.Next(at); !next.IsZero() {
		job.DedupeFor += min(next.Sub(at), longestPeriod) // until the next tick has been made up for, at least
	}
	job.Delay, job.NotBefore = 0, at
	job.Headers = map[string]string{TickHeader: at.UTC().Format(time.RFC3339)}
	maps.Copy(job.Headers, p.Job.Headers)
	for failures := 0; ctx.Err() == nil; failures++ {
		if time.Since(at) > job.DedupeFor-defaultDedupeFor/2 {
			// Another process may have enqueued it so long ago that its key is about to end.
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: periodic job's tick given up: the broker was away for too long", slog.String("periodic", p.Name), slog.Time("tick", at))
			return
		}
		_, err := w.q.Enqueue(ctx, job)
		if err == nil {
			return
		}
		if p, ok := errors.AsType[permanent](err); ok && p.Permanent() {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: periodic job can't be enqueued, ever", slog.String("periodic", job.DedupeKey), slog.Any(logError, err))
			return
		}
		if ctx.Err() == nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: periodic job not enqueued; trying again", slog.String("periodic", p.Name), slog.Time("tick", at), slog.Any(logError, err))
		}
		wait(ctx, rand.N(min(backstop, 100*time.Millisecond<<min(failures, 10))))
	}
}
