package main

import (
	"context"
	"io"
)

var Split = split

func Run(ctx context.Context, root string, out io.Writer, promises ...string) error {
	return run(ctx, config{root: root, promises: promises, out: out})
}

func RunInCI(ctx context.Context, root string, out io.Writer, promises ...string) error {
	return run(ctx, config{root: root, promises: promises, ci: true, out: out})
}

// Stale returns the patches under root that no longer apply.
func Stale(ctx context.Context, root string) (stale []string, err error) {
	all, err := load(root, nil)
	for _, m := range all {
		if out, err := (&lab{root: root}).apply(ctx, m, "--check"); err != nil {
			stale = append(stale, m.file+": "+out)
		}
	}
	return stale, err
}

func Parse(patch string) error {
	_, err := parse("x.patch", []byte(patch))
	return err
}
