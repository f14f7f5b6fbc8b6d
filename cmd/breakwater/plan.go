package main

import (
	"context"
	"fmt"
)

const (
	dryRun = "Without -yes it only says what it would do.\n\n"

	// planRows is how many jobs a dry run shows.
	planRows = 20
)

// removal is what was done, or would be, to many jobs, as JSON. The names of its fields stay.
type removal struct {
	Action string   `json:"action"`
	Queue  string   `json:"queue"`
	DryRun bool     `json:"dryRun"`
	Count  int      `json:"count"`
	More   bool     `json:"more,omitempty"` // there may be more than Count
	IDs    []string `json:"ids,omitempty"`  // in a dry run
}

func (c *call) ofYes() *bool {
	return c.flags.Bool("yes", false, "do it; without this it is only said")
}

// plan says what -yes would do, and shows rows, the first of the jobs.
func (c *call) plan(ctx context.Context, p removal, header string, rows []row, format string, args ...any) error {
	if c.json {
		return c.line(p)
	}
	if len(rows) == 0 {
		if err := c.noteUnknown(ctx); err != nil {
			return err
		}
	} else if err := c.print(header, rows); err != nil {
		return err
	}
	if more := p.Count - len(rows); more > 0 {
		fmt.Fprintf(c.out, "… and %d more\n", more)
	}
	_, err := fmt.Fprintf(c.out, "would "+format+"; nothing was changed: add -yes to do it\n", args...)
	return err
}
