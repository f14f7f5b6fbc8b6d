// Command mutants shows that the tests behind the promises can fail. Each testdata/mutants/*.patch
// takes out what one promise rests on; its test has to pass without the patch and fail with it.
//
//	go run ./internal/mutants           # all
//	go run ./internal/mutants P2 P5     # those of two promises
//
// A patch begins with what it is about, which git apply passes over:
//
//	promise: P2
//	breaks: the dedupe key is not looked at
//	test: ./queue -run '^TestDuplicateIsDropped$'
//	dir: integration
//
// The test line is what follows `go test`: a package, then flags, -run among them. The dir line is
// only for tests in another module than the root.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type config struct {
	root     string    // the repository
	promises []string  // empty means all
	ci       bool      // a test that is skipped here is a failure
	out      io.Writer // one line per mutant
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, config{root: ".", promises: os.Args[1:], ci: os.Getenv("CI") == "true", out: os.Stdout})
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to clean up: run has removed its copy
	}
}

// run tries every mutant, however the others end, and fails if one was not caught.
func run(ctx context.Context, cfg config) (err error) {
	mutants, err := load(cfg.root, cfg.promises)
	if err != nil {
		return err
	}
	copied, err := os.MkdirTemp("", "breakwater-mutants-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	if err := copyTree(ctx, cfg.root, copied); err != nil {
		return fmt.Errorf("copy the tree: %w", err)
	}

	l := &lab{root: copied, unchanged: map[string]result{}}
	bad := 0
	for _, m := range mutants {
		start := time.Now()
		v, err := l.try(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.file, err)
		}
		if v.state == survived || v.state == broken || v.state == skipped && cfg.ci {
			bad++
		}
		fmt.Fprintf(cfg.out, "%s %s (%.1fs): %s\n", m.promise, v.text, time.Since(start).Seconds(), m.breaks)
		if v.state != caught {
			fmt.Fprintf(cfg.out, "    %s\n%s", m.file, v.detail)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d mutants were not caught", bad, len(mutants))
	}
	return nil
}

// copyTree copies what git tracks or would track, as it lies in the work tree.
func copyTree(ctx context.Context, from, to string) error {
	list := command(ctx, from, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	src, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // nothing was written through it
	dst, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer dst.Close() //nolint:errcheck // each file is written and closed by WriteFile
	names := slices.Compact(slices.Sorted(strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00")))
	for _, name := range names {
		info, err := src.Stat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but not yet in the index
		}
		if err != nil {
			return err
		}
		b, err := src.ReadFile(name)
		if err != nil {
			return err
		}
		if err := dst.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			return err
		}
		if err := dst.WriteFile(name, b, info.Mode().Perm()|0o200); err != nil {
			return err
		}
	}
	return nil
}

// command is a command in dir whose git and go look at nothing but dir, even if this program was
// started by a git hook or under another go.work.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // go test passes it on
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = slices.DeleteFunc(cmd.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "GIT_") || strings.HasPrefix(kv, "GOWORK=")
	})
	return cmd
}
