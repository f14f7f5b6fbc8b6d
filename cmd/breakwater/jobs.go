package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/breakwater-go/breakwater/queue"
)

func jobs(c *call) func(context.Context) error {
	c.ofQueue()
	var filter queue.JobFilter
	c.flags.StringVar(&filter.Group, "group", "", "only those of this `group`")
	c.flags.StringVar(&filter.Key, "key", "", "only those of this `key`")
	c.flags.StringVar(&filter.Kind, "kind", "", "only those of this `kind`")
	c.flags.StringVar(&filter.After, "after", "", "only those whose IDs come after this `ID`")
	limit := c.ofListing()
	return func(ctx context.Context) error {
		filter.Limit = int(*limit) + 1
		found, err := c.queue.Jobs(ctx, filter)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return c.noteNone(ctx, "jobs")
		}
		shown := found[:min(len(found), int(*limit))]
		if err := c.printJobs(shown); err != nil {
			return err
		}
		if len(found) > len(shown) {
			fmt.Fprintf(c.notes, "there are more: add -after %s\n", shown[len(shown)-1].Job.ID)
		}
		return nil
	}
}

func (c *call) printJobs(found []queue.JobInfo) error {
	rows := make([]row, len(found))
	for i, f := range found {
		j := &f.Job
		l := c.describe(j, f.State)
		l.Due = f.Due
		rows[i] = row{l, append([]string{
			cell(j.ID), string(f.State), cell(j.Kind), cell(j.Group), j.Class.String(), cell(j.Key),
			strconv.Itoa(j.Attempts), strconv.Itoa(j.Crashes), stamp(j.Since), stamp(f.Due), brief(l.Error),
		}, c.contents(j)...)}
	}
	return c.print("ID,STATE,KIND,GROUP,CLASS,KEY,ATTEMPTS,CRASHES,SINCE,DUE,LAST ERROR"+c.contentsHeader(), rows)
}
