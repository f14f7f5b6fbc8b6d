package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	main "github.com/breakwater-go/breakwater/internal/mutants"
)

const (
	code = `package sum

func Sum(a, b int) int {
	return a + b
}
`
	tests = `package sum

import (
	"os"
	"testing"
)

func TestSum(t *testing.T) {
	if Sum(1, 2) != 3 {
		t.Fatal(Sum(1, 2))
	}
}

func TestElsewhere(t *testing.T) {
	done := make(chan int)
	go func() { done <- Sum(1, 2) }()
	<-done
}

func TestWrong(t *testing.T) { t.Fail() }

func TestSkipped(t *testing.T) { t.Skip("no server") }

func TestMain(m *testing.M) { os.Exit(m.Run()) }
`
)

// patch changes the one line of code that matters.
func patch(promise, test, from, to string) string {
	return "promise: " + promise + "\nbreaks: the sum\ntest: " + test + "\n\n" +
		"--- a/sum.go\n+++ b/sum.go\n@@ -2,4 +2,4 @@\n \n func Sum(a, b int) int {\n-\treturn " + from + "\n+\treturn " + to + "\n }\n"
}

// repository has a module, a test in a module beneath it, and a patch for each thing that can become of one.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	nested := strings.Replace(patch("P2", ". -run TestSum", "a + b", "a - b"), "test:", "dir: nested\ntest:", 1)
	for name, text := range map[string]string{
		".gitignore":            "/ignored/\n",
		"ignored/broken.go":     "not Go",
		"go.mod":                "module example.com/sum\n\ngo 1.26\n",
		"sum.go":                code,
		"sum_test.go":           tests,
		"nested/go.mod":         "module example.com/nested\n\ngo 1.26\n\nrequire example.com/sum v0.0.0\n\nreplace example.com/sum => ../\n",
		"nested/nested_test.go": "package nested\n\nimport (\n\t\"testing\"\n\n\tsum \"example.com/sum\"\n)\n\nfunc TestSum(t *testing.T) {\n\tif sum.Sum(1, 2) != 3 {\n\t\tt.Fail()\n\t}\n}\n",

		"testdata/mutants/1-caught.patch":   patch("P1", ". -run '^TestSum$'", "a + b", "a - b"),
		"testdata/mutants/2-nested.patch":   nested,
		"testdata/mutants/3-panics.patch":   patch("P3", ". -run Elsewhere", "a + b", "a / (b - b)"),
		"testdata/mutants/4-survived.patch": patch("P4", ". -run '^TestSum$'", "a + b", "b + a"),
		"testdata/mutants/5-build.patch":    patch("P5", ". -run '^TestSum$'", "a + b", "a + c"),
		"testdata/mutants/6-stale.patch":    patch("P6", ". -run '^TestSum$'", "a * b", "a - b"),
		"testdata/mutants/7-wrong.patch":    patch("P7", ". -run TestWrong", "a + b", "a - b"),
		"testdata/mutants/8-none.patch":     patch("P8", ". -run TestNothing", "a + b", "a - b"),
		"testdata/mutants/9-skipped.patch":  patch("P9", ". -run TestSkipped", "a + b", "a - b"),
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	git := exec.CommandContext(t.Context(), "git", "init", "-q", dir)
	git.Env = append(git.Environ(), "GIT_DIR="+filepath.Join(dir, ".git")) // whatever hook this runs in
	out, err := git.CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

func TestRun(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs git, and go test a dozen times")
	}
	dir := repository(t)
	for name, tt := range map[string]struct {
		promises []string
		want     []string // lines without their times
		fails    string
	}{
		"caught": {[]string{"P1", "p2", "P3"}, []string{
			"P1 caught by TestSum: the sum",
			"P2 caught by TestSum: the sum",
			"P3 caught by TestElsewhere: the sum",
		}, ""},
		"not caught": {[]string{"P4", "P5", "P6", "P7", "P8"}, []string{
			"P4 SURVIVED TestSum: the sum",
			"P5 does not build: the sum",
			"P6 is stale: the patch does not apply: the sum",
			"P7 test does not pass on the unchanged tree: the sum",
			"P8 names no test: . -run TestNothing: the sum",
		}, "5 of 5 mutants were not caught"},
		"not run":    {[]string{"P9"}, []string{"P9 not run, TestSkipped is skipped here: the sum"}, ""},
		"no promise": {[]string{"P10"}, nil, "no patch is of promise P10"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := main.Run(t.Context(), dir, &out, tt.promises...)
			if tt.fails == "" {
				require.NoError(t, err, out.String())
			} else {
				require.ErrorContains(t, err, tt.fails, out.String())
			}
			lines := regexp.MustCompile(`(?m)^P.*$`).FindAllString(out.String(), -1)
			for i, line := range lines {
				lines[i] = regexp.MustCompile(` \([0-9.]+s\)`).ReplaceAllString(line, "")
			}
			assert.Equal(t, tt.want, lines)
		})
	}
	t.Run("skipped in CI", func(t *testing.T) {
		t.Parallel()
		require.Error(t, main.RunInCI(t.Context(), dir, new(bytes.Buffer), "P9"))
	})
}

func TestRunWithoutPatches(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, main.Run(t.Context(), t.TempDir(), new(bytes.Buffer)), "there is no")
}

// TestThatThePatchesOfThisRepositoryApply says so within a second, where a run of all mutants takes minutes.
func TestThatThePatchesOfThisRepositoryApply(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	stale, err := main.Stale(t.Context(), root)
	require.NoError(t, err)
	require.Empty(t, stale)
}

func TestParse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ old, new, fails string }{
		"complete":            {"", "", ""},
		"without a promise":   {"promise: P1\n", "", "the line promise: is missing"},
		"without a reason":    {"breaks: the sum\n", "", "the line breaks: is missing"},
		"without a test":      {"test: . -run TestSum\n", "", "the line test: is missing"},
		"empty":               {"the sum", "", `"breaks:" is not a line`},
		"twice":               {"test:", "promise: P2\ntest:", "two lines promise"},
		"unknown line":        {"breaks:", "break:", `"break: the sum" is not a line`},
		"test without -run":   {"-run TestSum", "", "want a package, then -run"},
		"test without a dir":  {". -run", "-run", "want a package, then -run"},
		"test with open ends": {"TestSum", "'TestSum", "' is not closed"},
		"without a diff":      {"--- a/sum.go\n+++", "", "is not a line"},
		"empty header only":   {patch("P1", ". -run TestSum", "a", "b"), "promise: P1\n", "there is no diff"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := main.Parse(strings.Replace(patch("P1", ". -run TestSum", "a", "b"), tt.old, tt.new, 1))
			if tt.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.fails)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	words, err := main.Split(`  ./queue  -run '^TestA|Test B$' -tags="x y"z ''`)
	require.NoError(t, err)
	assert.Equal(t, []string{"./queue", "-run", "^TestA|Test B$", "-tags=x yz", ""}, words)
}
