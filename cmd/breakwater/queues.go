package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// statsLine is a queue as JSON. The names of its fields stay.
type statsLine struct {
	Queue     string    `json:"queue"`
	Jobs      int       `json:"jobs"`
	Held      int       `json:"held"`
	Waiting   int       `json:"waiting"`
	Scheduled int       `json:"scheduled"`
	Dead      int       `json:"dead"`
	Parked    int       `json:"parked"`
	Paused    bool      `json:"paused"`
	Now       time.Time `json:"now"`
}

func newStatsLine(name string, s queue.Stats) statsLine {
	return statsLine{name, s.Jobs, s.Held, s.Waiting, s.Scheduled, s.Dead, s.Parked, s.Paused, s.Now}
}

func queues(c *call) func(context.Context) error {
	return func(ctx context.Context) error {
		names, err := c.engine.Queues(ctx)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			fmt.Fprintln(c.notes, c.others(names))
			return nil
		}
		rows := make([]row, len(names))
		for i, name := range names {
			s, err := c.engine.Stats(ctx, name)
			if err != nil {
				return err
			}
			rows[i] = row{newStatsLine(name, s), append([]string{cell(name)}, counts(s)...)}
		}
		return c.print("QUEUE,"+countsHeader, rows)
	}
}

const countsHeader = "JOBS,HELD,WAITING,SCHEDULED,DEAD,PARKED,PAUSED"

func counts(s queue.Stats) []string {
	paused := "-"
	if s.Paused {
		paused = "paused"
	}
	var cells []string
	for _, n := range []int{s.Jobs, s.Held, s.Waiting, s.Scheduled, s.Dead, s.Parked} {
		cells = append(cells, strconv.Itoa(n))
	}
	return append(cells, paused)
}

// noteUnknown says so if the queue that was named may be none at all.
func (c *call) noteUnknown(ctx context.Context) error {
	names, err := c.engine.Queues(ctx)
	if err != nil || slices.Contains(names, c.name) {
		return err
	}
	fmt.Fprintf(c.notes, "queue %q is empty, or there is none of that name; %s\n", c.name, c.others(names))
	return nil
}

// noteNone says that nothing was found.
func (c *call) noteNone(ctx context.Context, what string) error {
	fmt.Fprintf(c.notes, "queue %q has no such %s\n", c.name, what)
	return c.noteUnknown(ctx)
}

// others says which queues hold something.
func (c *call) others(names []string) string {
	if len(names) == 0 {
		return fmt.Sprintf("no queue holds anything in this space at %s; others are named by -space and -partitions", c.server)
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return "queues that hold something: " + strings.Join(quoted, ", ")
}
