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

func Parse(patch string) error {
	_, err := parse("x.patch", []byte(patch))
	return err
}
