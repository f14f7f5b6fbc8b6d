package main

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// deadFlags are the flags that pick dead letters.
type deadFlags struct {
	filter      queue.DeadFilter
	from, until when
}

func (c *call) ofDead() *deadFlags {
	var f deadFlags
	c.flags.StringVar(&f.filter.Group, "group", "", "only those of this `group`")
	c.flags.StringVar(&f.filter.Kind, "kind", "", "only those of this `kind`")
	c.flags.StringVar(&f.filter.Error, "error", "", "only those whose error has this `text` in it")
	c.flags.Var(&f.from, "from", "only those that died at this `time` or later: 2026-11-27T03:00:00Z, 2026-11-27 (UTC), or 2h ago as 2h")
	c.flags.Var(&f.until, "until", "only those that died before this `time`")
	return &f
}

// at is the filter, with spans counted from now by the engine's clock.
func (f *deadFlags) at(ctx context.Context, c *call) (queue.DeadFilter, error) {
	filter := f.filter
	filter.From, filter.Until = f.from.time, f.until.time
	if f.from.ago == 0 && f.until.ago == 0 {
		return filter, nil
	}
	s, err := c.queue.Stats(ctx)
	if f.from.ago > 0 {
		filter.From = s.Now.Add(-f.from.ago)
	}
	if f.until.ago > 0 {
		filter.Until = s.Now.Add(-f.until.ago)
	}
	return filter, err
}

// given says whether one of the flags was.
func (f *deadFlags) given() bool {
	return f.filter.Group != "" || f.filter.Kind != "" || f.filter.Error != "" || f.from != (when{}) || f.until != (when{})
}

// letters goes through the dead letters that a filter picks, oldest first, a page at a time.
func (c *call) letters(ctx context.Context, filter queue.DeadFilter) iter.Seq2[queue.DeadLetter, error] {
	return func(yield func(queue.DeadLetter, error) bool) {
		for {
			page, err := c.queue.Dead(ctx, filter)
			if err != nil {
				yield(queue.DeadLetter{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			for _, d := range page {
				if !yield(d, nil) {
					return
				}
			}
			last := page[len(page)-1]
			filter.After, filter.AfterTime = last.Job.ID, last.At
		}
	}
}

func deadList(c *call) func(context.Context) error {
	c.ofQueue()
	flags := c.ofDead()
	limit := c.ofListing()
	return func(ctx context.Context) error {
		filter, err := flags.at(ctx, c)
		if err != nil {
			return err
		}
		var rows []row
		var last time.Time
		more := false
		for d, err := range c.letters(ctx, filter) {
			if err != nil {
				return err
			}
			if more = len(rows) == int(*limit); more {
				break
			}
			rows, last = append(rows, c.letterRow(&d)), d.At
		}
		if len(rows) == 0 {
			return c.noteNone(ctx, "dead letters")
		}
		if err := c.print(letterHeader+c.contentsHeader(), rows); err != nil {
			return err
		}
		if more {
			fmt.Fprintf(c.notes, "there are more: add -from %s, or a higher -limit\n", stamp(last))
		}
		return nil
	}
}

const letterHeader = "ID,DIED,KIND,GROUP,KEY,ATTEMPTS,CRASHES,ERROR"

func (c *call) letterRow(d *queue.DeadLetter) row {
	j := &d.Job
	return row{c.describeLetter(d), append([]string{
		cell(j.ID), stamp(d.At), cell(j.Kind), cell(j.Group), cell(j.Key), strconv.Itoa(j.Attempts), strconv.Itoa(j.Crashes), brief(d.Error),
	}, c.contents(j)...)}
}

func (c *call) describeLetter(d *queue.DeadLetter) jobLine {
	l := c.describe(&d.Job, queue.Dead)
	l.Died, l.Error = d.At, d.Error
	return l
}

func deadShow(c *call) func(context.Context) error {
	c.ofQueue()
	c.flags.BoolVar(&c.payload, "payload", false, payloadAbout)
	return func(ctx context.Context) error {
		if len(c.args) != 1 {
			return fmt.Errorf("%w: want one ID, as dead ls shows it; there are %d", errUsage, len(c.args))
		}
		for d, err := range c.letters(ctx, queue.DeadFilter{IDs: c.args, Limit: 1}) {
			switch {
			case err != nil:
				return err
			case c.json:
				return c.line(c.describeLetter(&d))
			default:
				return c.showLetter(&d)
			}
		}
		if err := c.noteUnknown(ctx); err != nil {
			return err
		}
		return fmt.Errorf("queue %q has no dead letter %q", c.name, c.args[0])
	}
}

func (c *call) showLetter(d *queue.DeadLetter) error {
	j := &d.Job
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, f := range [][2]string{
		{"id", cell(j.ID)}, {"kind", cell(j.Kind)}, {"group", cell(j.Group)}, {"class", j.Class.String()}, {"key", cell(j.Key)},
		{"order", j.Order.String()}, {"dedupe key", cell(j.DedupeKey)},
		{"attempts", fmt.Sprintf("%d of %d", j.Attempts, j.MaxAttempts)}, {"crashes", fmt.Sprintf("%d of %d", j.Crashes, j.MaxCrashes)},
		{"since", stamp(j.Since)}, {"died", stamp(d.At)}, {"payload", fmt.Sprintf("%d bytes", len(j.Payload))},
	} {
		fmt.Fprintf(w, "%s\t%s\n", f[0], f[1])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "error       %s\n", indent(d.Error))
	for _, a := range j.History {
		fmt.Fprintf(c.out, "%4d.  %s  %s\n", a.Number, stamp(a.At), indent(a.Error))
	}
	if c.payload {
		fmt.Fprintf(c.out, "\n%s\n\n%s\n", headersText(j), text(payloadText(j)))
	}
	return nil
}

// indent is a text of several lines under what stands before it.
func indent(s string) string { return strings.ReplaceAll(text(s), "\n", "\n            ") }
