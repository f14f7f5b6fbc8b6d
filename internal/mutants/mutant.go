package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutant is one patch.
type mutant struct {
	file    string // for messages
	patch   []byte
	promise string   // P2
	breaks  string   // what is taken out
	test    []string // arguments of go test
	dir     string   // where go test runs, from the root
}

// load reads the patches under root, in the order of their names, and keeps those of the promises.
func load(root string, promises []string) ([]mutant, error) {
	pattern := filepath.Join(root, "testdata", "mutants", "*.patch")
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no %s", pattern)
	}
	var all, kept []mutant
	var problems []error
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m, err := parse(filepath.Base(file), b)
		problems = append(problems, err)
		all = append(all, m)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if len(promises) == 0 {
		return all, nil
	}
	for _, p := range promises {
		of := slices.DeleteFunc(slices.Clone(all), func(m mutant) bool { return !strings.EqualFold(m.promise, p) })
		if len(of) == 0 {
			return nil, fmt.Errorf("no patch is of promise %s", p)
		}
		kept = append(kept, of...)
	}
	return kept, nil
}

// parse reads what a patch says of itself, in the lines before its first diff.
func parse(file string, patch []byte) (mutant, error) {
	m := mutant{file: file, patch: patch}
	head := map[string]string{}
	diff := false
	for line := range strings.Lines(string(patch)) {
		line = strings.TrimSpace(line)
		if diff = strings.HasPrefix(line, "diff --git ") || strings.HasPrefix(line, "--- "); diff {
			break
		}
		key, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); {
		case line == "":
		case !slices.Contains([]string{"promise", "breaks", "test", "dir"}, key) || value == "":
			return m, fmt.Errorf("%s: %q is not a line of the form promise|breaks|test|dir: value", file, line)
		case head[key] != "":
			return m, fmt.Errorf("%s: there are two lines %s", file, key)
		default:
			head[key] = value
		}
	}
	if !diff {
		return m, fmt.Errorf("%s: there is no diff in it", file)
	}
	for _, key := range []string{"promise", "breaks", "test"} {
		if head[key] == "" {
			return m, fmt.Errorf("%s: the line %s: is missing", file, key)
		}
	}
	words, err := split(head["test"])
	if err != nil {
		return m, fmt.Errorf("%s: test: %w", file, err)
	}
	named := slices.ContainsFunc(words, func(w string) bool { return w == "-run" || strings.HasPrefix(w, "-run=") })
	if strings.HasPrefix(words[0], "-") || !named {
		return m, fmt.Errorf("%s: test: want a package, then -run and a regexp", file)
	}
	m.promise, m.breaks, m.test, m.dir = head["promise"], head["breaks"], words, head["dir"]
	return m, nil
}

var (
	word   = regexp.MustCompile(`(?:[^\s'"]|'[^']*'|"[^"]*")+`)
	quoted = regexp.MustCompile(`'[^']*'|"[^"]*"`)
)

// split takes a line apart as a shell would, with quotes but without any expansion.
func split(line string) ([]string, error) {
	if rest := strings.TrimSpace(word.ReplaceAllString(line, "")); rest != "" {
		return nil, fmt.Errorf("%s is not closed", rest[:1])
	}
	words := word.FindAllString(line, -1)
	for i, w := range words {
		words[i] = quoted.ReplaceAllStringFunc(w, func(q string) string { return q[1 : len(q)-1] })
	}
	return words, nil
}
