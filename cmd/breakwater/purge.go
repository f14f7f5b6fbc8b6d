package main

import (
	"context"
	"fmt"

	"github.com/breakwater-go/breakwater/queue"
)

// purgeLook is how many jobs a dry run counts: each page of a listing reads all that the queue holds, so that there is one.
const purgeLook = 1000

func purge(c *call) func(context.Context) error {
	c.ofQueue()
	var f queue.PurgeFilter
	c.flags.StringVar(&f.Group, "group", "", "erase what is of this `group`")
	c.flags.StringVar(&f.Key, "key", "", "erase what is of this `key`")
	c.flags.StringVar(&f.Kind, "kind", "", "erase what is of this `kind`")
	yes := c.ofYes()
	return func(ctx context.Context) error {
		if f == (queue.PurgeFilter{}) {
			return fmt.Errorf("%w: say what: -group, -key or -kind; where several are given all must match", errUsage)
		}
		if !*yes {
			return c.planPurge(ctx, f)
		}
		n, err := c.queue.Purge(ctx, f)
		said := c.say(removal{Action: "purge", Queue: c.name, Count: n},
			"erased %s of queue %q, dead letters among them, with status and dedupe keys", count(n, "job"), c.name)
		if err != nil {
			return err
		}
		return said
	}
}

func (c *call) planPurge(ctx context.Context, f queue.PurgeFilter) error {
	found, err := c.queue.Jobs(ctx, queue.JobFilter{Group: f.Group, Key: f.Key, Kind: f.Kind, Limit: purgeLook + 1})
	if err != nil {
		return err
	}
	p := removal{Action: "purge", Queue: c.name, DryRun: true, More: len(found) > purgeLook}
	jobs, atLeast, running := min(len(found), purgeLook), "", 0
	if p.More {
		atLeast = "more than "
	}
	var rows []row
	for _, i := range found[:jobs] {
		p.IDs = append(p.IDs, i.Job.ID)
		if i.State == queue.Processing {
			running++
		}
		if len(rows) < planRows {
			rows = append(rows, c.planRow(&i.Job, i.State))
		}
	}
	dead := 0
	for d, err := range c.letters(ctx, queue.DeadFilter{Group: f.Group, Kind: f.Kind}) {
		switch {
		case err != nil:
			return err
		case f.Key != "" && f.Key != d.Job.Key:
			continue
		}
		dead++
		p.IDs = append(p.IDs, d.Job.ID)
		if len(rows) < planRows {
			rows = append(rows, c.planRow(&d.Job, queue.Dead))
		}
	}
	p.Count = jobs + dead
	return c.plan(ctx, p, "ID,STATE,KIND,GROUP,KEY", rows,
		"erase %s%s (workers have %d, which are cancelled) and %s of queue %q, with their status and dedupe keys, and with those of jobs that have ended",
		atLeast, count(jobs, "job"), running, count(dead, "dead letter"), c.name)
}

func (c *call) planRow(j *queue.Job, state queue.State) row {
	return row{c.describe(j, state), []string{cell(j.ID), string(state), cell(j.Kind), cell(j.Group), cell(j.Key)}}
}
