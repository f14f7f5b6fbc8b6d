package main

import (
	"context"
	"fmt"
)

const checkMore = "It reads all that the space holds, and exits with 1 if it finds something.\n\n"

type problemLine struct {
	Problem string `json:"problem"`
}

func check(c *call) func(context.Context) error {
	return func(ctx context.Context) error {
		problems, err := c.engine.Check(ctx)
		if err != nil {
			return err
		}
		for _, p := range problems {
			if err := c.say(problemLine{p}, "%s", cell(p)); err != nil {
				return err
			}
		}
		if len(problems) > 0 {
			return fmt.Errorf("%s; docs/queue.md says what should hold", count(len(problems), "finding"))
		}
		names, err := c.engine.Queues(ctx)
		if err == nil { // a space that nobody uses is well, too
			fmt.Fprintf(c.notes, "nothing contradicts the invariants; %s\n", c.others(names))
		}
		return err
	}
}
