package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/breakwater-go/breakwater/queue"
)

func deadReplay(c *call) func(context.Context) error {
	return c.deadDo("replay", "replayed", func(ctx context.Context, f queue.DeadFilter) (int, error) { return c.queue.Replay(ctx, f) })
}

func deadDrop(c *call) func(context.Context) error {
	return c.deadDo("drop", "dropped", func(ctx context.Context, f queue.DeadFilter) (int, error) { return c.queue.Drop(ctx, f) })
}

func (c *call) deadDo(verb, past string, do func(context.Context, queue.DeadFilter) (int, error)) func(context.Context) error {
	c.ofQueue()
	flags := c.ofDead()
	all := c.flags.Bool("all", false, verb+" every dead letter of the queue")
	yes := c.ofYes()
	return func(ctx context.Context) error {
		ways := slices.DeleteFunc([]bool{len(c.args) > 0, flags.given(), *all}, func(given bool) bool { return !given })
		if len(ways) != 1 {
			return fmt.Errorf("%w: say which, in one way: IDs, filters (-group, -kind, -error, -from, -until), or -all", errUsage)
		}
		filter, err := flags.at(ctx, c)
		if err != nil {
			return err
		}
		filter.IDs = c.args
		plan := removal{Action: verb, Queue: c.name, DryRun: true}
		var rows []row
		if len(c.args) > 0 || !*yes {
			if rows, err = c.planDead(ctx, filter, &plan); err != nil {
				return err
			}
		}
		missing := slices.DeleteFunc(slices.Clone(c.args), func(id string) bool { return slices.Contains(plan.IDs, id) })
		if len(missing) > 0 {
			fmt.Fprintf(c.notes, "queue %q has no dead letter %q\n", c.name, missing)
		}
		if !*yes {
			return c.plan(ctx, plan, letterHeader, rows, "%s %s of queue %q", verb, count(plan.Count, "dead letter"), c.name)
		}
		n, err := do(ctx, filter)
		if said := c.say(removal{Action: verb, Queue: c.name, Count: n}, "%s %s of queue %q", past, count(n, "dead letter"), c.name); err == nil {
			err = said
		}
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("%d of the IDs are of no dead letter", len(missing))
		}
		return err
	}
}

// planDead counts the dead letters that a filter picks, and answers the first of them.
func (c *call) planDead(ctx context.Context, filter queue.DeadFilter, plan *removal) (rows []row, err error) {
	for d, err := range c.letters(ctx, filter) {
		if err != nil {
			return nil, err
		}
		plan.Count++
		plan.IDs = append(plan.IDs, d.Job.ID)
		if len(rows) < planRows {
			rows = append(rows, c.letterRow(&d))
		}
	}
	return rows, nil
}
