package main

import (
	"context"
	"flag"
	"fmt"
	"time"
)

// change is what was set, as JSON. The names of its fields stay.
type change struct {
	Action  string   `json:"action"`
	Queue   string   `json:"queue"`
	Group   *string  `json:"group,omitempty"`   // of park
	Seconds *float64 `json:"seconds,omitempty"` // of park
}

func pause(c *call) func(context.Context) error {
	c.ofQueue()
	return func(ctx context.Context) error {
		if err := c.noteUnknown(ctx); err != nil {
			return err
		}
		if err := c.queue.Pause(ctx); err != nil {
			return err
		}
		return c.say(change{Action: "pause", Queue: c.name}, "paused queue %q: workers finish what they have and claim no more; resume ends that", c.name)
	}
}

func resume(c *call) func(context.Context) error {
	c.ofQueue()
	return func(ctx context.Context) error {
		before, err := c.queue.Stats(ctx)
		if err != nil {
			return err
		}
		if !before.Paused {
			fmt.Fprintf(c.notes, "queue %q was not paused\n", c.name)
			return c.noteUnknown(ctx)
		}
		if err := c.queue.Resume(ctx); err != nil {
			return err
		}
		return c.say(change{Action: "resume", Queue: c.name}, "resumed queue %q", c.name)
	}
}

func park(c *call) func(context.Context) error {
	c.ofQueue()
	group := c.flags.String("group", "", "the `group`; \"\" are the jobs without one")
	long := c.flags.Duration("for", 0, "how `long`, such as 10m; 0 unparks it")
	return func(ctx context.Context) error {
		given := map[string]bool{}
		c.flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["group"] || !given["for"] || *long < 0 {
			return fmt.Errorf("%w: want -group, and -for with how long, such as 10m, or 0 to unpark", errUsage)
		}
		if err := c.noteUnknown(ctx); err != nil {
			return err
		}
		if err := c.queue.Park(ctx, *group, *long); err != nil {
			return err
		}
		seconds := long.Seconds()
		what := change{Action: "park", Queue: c.name, Group: group, Seconds: &seconds}
		if *long == 0 {
			return c.say(what, "unparked group %q of queue %q", *group, c.name)
		}
		return c.say(what, "parked group %q of queue %q for %v; -for 0 ends that", *group, c.name, long.Round(time.Millisecond))
	}
}
