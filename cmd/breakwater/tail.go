package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// tailBack is how far back each look for dead letters goes: the servers of a Cluster have clocks of their own.
const tailBack = 5 * time.Second

func tail(c *call) func(context.Context) error {
	c.ofQueue()
	every := c.flags.Duration("every", time.Second, "how `often` to look")
	c.flags.BoolVar(&c.payload, "payload", false, payloadAbout)
	return func(ctx context.Context) error {
		if *every <= 0 {
			return fmt.Errorf("%w: -every is %v; want more than 0", errUsage, *every)
		}
		if err := c.noteUnknown(ctx); err != nil {
			return err
		}
		f := follower{c: c}
		tick := time.NewTicker(*every)
		defer tick.Stop()
		for {
			err := f.look(ctx)
			switch {
			case ctx.Err() != nil:
				return nil // interrupted, as it is meant to end
			case err != nil && f.seen == nil:
				return err
			case err != nil: // what is away may come back
				fmt.Fprintln(c.notes, text(c.explain(err).Error()))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}

// follower prints what is new in a queue.
type follower struct {
	c    *call
	last time.Time      // by the engine's clock, of the last look
	seen map[death]bool // the dead letters since tailBack before that; nil before the first look
}

// death is a dead letter: a job that was replayed may die again.
type death struct {
	id string
	at time.Time
}

type tailStats struct {
	Event string `json:"event"`
	statsLine
}

type tailDead struct {
	Event string `json:"event"`
	jobLine
}

func (f *follower) look(ctx context.Context) error {
	s, err := f.c.queue.Stats(ctx)
	if err != nil {
		return err
	}
	var old time.Time // what had died by the first look
	if f.seen == nil {
		old = s.Now.Truncate(time.Millisecond)
		f.last = s.Now
		if !f.c.json {
			fmt.Fprintf(f.c.out, tailFormat, "TIME", "JOBS", "HELD", "WAITING", "SCHEDULED", "DEAD", "PARKED", "PAUSED")
		}
	}
	if err := f.counts(s); err != nil {
		return err
	}
	seen := map[death]bool{}
	for d, err := range f.c.letters(ctx, queue.DeadFilter{From: f.last.Add(-tailBack)}) {
		if err != nil {
			return err
		}
		is := death{d.Job.ID, d.At}
		if !d.At.Before(old) && !f.seen[is] {
			if err := f.letter(&d); err != nil {
				return err
			}
		}
		seen[is] = true
		if f.seen != nil {
			f.seen[is] = true // if a later page fails, this one was printed all the same
		}
	}
	f.last, f.seen = s.Now, seen
	return nil
}

const tailFormat = "%-25s %8s %8s %8s %9s %8s %8s %s\n"

func (f *follower) counts(s queue.Stats) error {
	if f.c.json {
		return f.c.line(tailStats{"stats", newStatsLine(f.c.name, s)})
	}
	cells := []any{stamp(s.Now)}
	for _, n := range counts(s) {
		cells = append(cells, n)
	}
	_, err := fmt.Fprintf(f.c.out, tailFormat, cells...)
	return err
}

func (f *follower) letter(d *queue.DeadLetter) error {
	if f.c.json {
		return f.c.line(tailDead{"dead", f.c.describeLetter(d)})
	}
	_, err := fmt.Fprintln(f.c.out, "dead  "+strings.Join(f.c.letterRow(d).cells, "  "))
	return err
}
