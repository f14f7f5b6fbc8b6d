package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

type state int

const (
	caught   state = iota
	survived       // the test still passes
	skipped        // the test can't run here
	broken         // the mutant says nothing: stale, does not build, no such test
)

// verdict is what became of one mutant.
type verdict struct {
	state  state
	text   string
	detail string // the end of what go or git said, where it helps
}

// lab is a copy of the tree in which patches are tried one after the other.
type lab struct {
	root      string
	unchanged map[string]result // by directory and arguments
}

// try runs m's test without and with its patch. An error means that no more mutants can be tried.
func (l *lab) try(ctx context.Context, m mutant) (verdict, error) {
	key := m.dir + " " + strings.Join(m.test, " ")
	before, ok := l.unchanged[key]
	if !ok {
		before = l.test(ctx, m)
		l.unchanged[key] = before
	}
	switch {
	case ctx.Err() != nil:
		return verdict{}, ctx.Err()
	case !before.passed:
		return verdict{broken, "test does not pass on the unchanged tree", tail(before.output)}, nil
	case len(before.ran) == 0:
		return verdict{broken, "names no test: " + strings.Join(m.test, " "), tail(before.output)}, nil
	case len(before.skipped) == len(before.ran):
		return verdict{state: skipped, text: "not run, " + names(before.skipped) + " is skipped here"}, nil
	}

	if out, err := l.apply(ctx, m); err != nil {
		return verdict{broken, "is stale: the patch does not apply", tail(out)}, nil //nolint:nilerr // said by the verdict
	}
	after := l.test(ctx, m)
	if out, err := l.apply(ctx, m, "--reverse"); err != nil {
		return verdict{}, fmt.Errorf("take the patch back: %w\n%s", err, out)
	}
	switch {
	case ctx.Err() != nil:
		return verdict{}, ctx.Err()
	case !after.built:
		return verdict{broken, "does not build", tail(after.output)}, nil
	case after.passed:
		return verdict{state: survived, text: "SURVIVED " + names(before.ran)}, nil
	case len(after.failed) == 0:
		return verdict{broken, "go test failed, but no test did", tail(after.output)}, nil
	}
	return verdict{state: caught, text: "caught by " + names(after.failed)}, nil
}

// apply gives the patch to git, which is kept from finding a repository around the copy.
func (l *lab) apply(ctx context.Context, m mutant, flags ...string) (string, error) {
	cmd := command(ctx, l.root, "git", append([]string{"apply", "--whitespace=nowarn"}, flags...)...)
	cmd.Env = append(cmd.Env, "GIT_CEILING_DIRECTORIES="+filepath.Dir(l.root))
	cmd.Stdin = bytes.NewReader(m.patch)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// result is what one go test said. Names are those of top-level tests.
type result struct {
	passed, built        bool
	ran, skipped, failed []string
	output               string
}

func (l *lab) test(ctx context.Context, m mutant) result {
	args := append([]string{"test", "-json", "-vet=off", "-timeout=2m"}, m.test...)
	cmd := command(ctx, filepath.Join(l.root, m.dir), "go", args...)
	out, err := cmd.Output()
	r := read(out)
	r.passed = err == nil
	if failure, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output does not wrap it
		r.output += string(failure.Stderr)
	} else if err != nil {
		r.output += err.Error()
	}
	return r
}

// read makes a result of what go test -json printed.
func read(out []byte) result {
	r := result{built: true}
	packageFailed := false
	var ended []string
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Output, FailedBuild string }
		if json.Unmarshal(line, &e) != nil {
			r.output += string(line) // go itself, before it came to testing
			continue
		}
		r.output += e.Output
		if e.Action == "build-fail" || e.FailedBuild != "" {
			r.built = false
		}
		switch top := e.Test != "" && !strings.Contains(e.Test, "/"); {
		case e.Test == "" && e.Action == "fail":
			packageFailed = true
		case !top:
		case e.Action == "run":
			r.ran = append(r.ran, e.Test)
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			ended = append(ended, e.Test)
			if e.Action == "fail" {
				r.failed = append(r.failed, e.Test)
			}
			if e.Action == "skip" {
				r.skipped = append(r.skipped, e.Test)
			}
		}
	}
	// A test that took the whole process with it (a panic elsewhere, a deadlock, the time limit) has
	// no end of its own.
	if packageFailed && len(r.failed) == 0 {
		r.failed = slices.DeleteFunc(slices.Clone(r.ran), func(name string) bool { return slices.Contains(ended, name) })
	}
	return r
}

// names lists a few.
func names(of []string) string {
	const few = 3
	if len(of) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(of[:few], ", "), len(of)-few)
	}
	return strings.Join(of, ", ")
}

// tail is the end of an output, indented.
func tail(output string) string {
	const most = 30
	lines := slices.Collect(strings.Lines(strings.TrimSpace(output) + "\n"))
	return "    " + strings.Join(lines[max(0, len(lines)-most):], "    ")
}
