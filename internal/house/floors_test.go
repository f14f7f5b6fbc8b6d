package house_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/breakwater-go/breakwater"
	root   = "../.."
)

// Floors, from the ground up. Imports go down only.
const (
	ground   = iota // internal: what two packages share and no user should see
	patterns        // one package, one pattern
	adapters        // adapters, bridges and test kits beneath a pattern package
	domains         // shopify, event
	upper           // what lies beneath those, and the dashboard
	roof            // programs, documents and the other modules: nothing imports them
)

// rooms are the top directories: the floor of the package itself, and that of the packages beneath.
var rooms = map[string]struct{ itself, beneath int }{
	"internal":    {ground, ground},
	"webhook":     {patterns, adapters},
	"queue":       {patterns, adapters},
	"idempotency": {patterns, adapters},
	"cache":       {patterns, adapters},
	"breaker":     {patterns, adapters},
	"shopify":     {domains, upper},
	"event":       {domains, upper},
	"dashboard":   {upper, upper},
	"cmd":         {roof, roof},
	"docs":        {roof, roof},
	"examples":    {roof, roof},
	"bench":       {roof, roof},
	"integration": {roof, roof},
}

// libraries are what the root module may require, and the pattern packages that may import them.
// Adapters and everything above import what they join. .golangci.yml has the same list.
var libraries = map[string][]string{
	"github.com/cenkalti/backoff/v4": {"breaker", "queue"},
	"github.com/maypok86/otter/v2":   {"cache"},
	"github.com/redis/go-redis/v9":   nil,
	"github.com/sony/gobreaker/v2":   {"breaker"},
	"github.com/stretchr/testify":    nil, // tests and test kits
	"github.com/vektah/gqlparser/v2": nil,
	"golang.org/x/time":              {"breaker", "queue"},
}

// place is where a package stands.
type place struct {
	room  string
	floor int
}

// placeOf finds the place of a package by its directory; ok is false where the house has no such room.
func placeOf(dir string) (p place, ok bool) {
	room, beneath, deep := strings.Cut(dir, "/")
	floors, ok := rooms[room]
	p = place{room, floors.itself}
	if deep {
		p.floor = floors.beneath
	}
	if p.floor < roof && slices.Contains(strings.Split(beneath, "/"), "internal") {
		p.floor = ground // queue/internal/x is for queue and what lies beneath it; the compiler keeps others out
	}
	return p, ok
}

// problem says what is wrong with an import, or nothing. file is relative to the root.
func problem(file, imported string) string {
	dir := path.Dir(file)
	isTest := strings.HasSuffix(file, "_test.go")
	from, ok := placeOf(dir)
	if !ok {
		return "is in no room; give " + from.room + " a floor in floors_test.go"
	}
	if imported != module && !strings.HasPrefix(imported, module+"/") {
		return libraryProblem(from, isTest, imported)
	}
	target := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
	to, ok := placeOf(target)
	isKit := strings.HasSuffix(target, "test") && (to.floor == adapters || to.floor == upper)
	sameFloor := from.floor == to.floor
	switch {
	case !ok:
		return "imports " + imported + ", which is in no room"
	case target == dir: // an external test
	case to.floor < from.floor:
	case sameFloor && from.floor == ground:
	case sameFloor && from.room == to.room: // a suite's kit, an example's parts
	case sameFloor && isTest && from.floor != patterns && from.floor != roof: // an adapter tested with another
	case isTest && isKit && from.floor > ground:
	default:
		return fmt.Sprintf("imports %s, which is on floor %d; it stands on floor %d itself", target, to.floor, from.floor)
	}
	return ""
}

// libraryProblem holds the pattern packages to the standard library and their own few libraries.
func libraryProblem(from place, isTest bool, imported string) string {
	if first, _, _ := strings.Cut(imported, "/"); from.floor != patterns || !strings.Contains(first, ".") {
		return ""
	}
	for library, owners := range libraries {
		if imported == library || strings.HasPrefix(imported, library+"/") {
			if slices.Contains(owners, from.room) || isTest && library == "github.com/stretchr/testify" {
				return ""
			}
		}
	}
	return "imports " + imported + ", which is not a library of package " + from.room
}

func TestImportsGoDown(t *testing.T) {
	t.Parallel()
	files, imports := 0, 0
	walk(t, func(file string) {
		if path.Ext(file) != ".go" {
			return
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.ImportsOnly)
		require.NoError(t, err)
		files++
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			imports++
			assert.Empty(t, problem(file, imported), file)
		}
	})
	assert.Greater(t, files, 10, "files seen")
	assert.Greater(t, imports, 10, "imports seen")
}

// The checker itself has to be able to fail.
func TestProblem(t *testing.T) {
	t.Parallel()
	const (
		redis   = "github.com/redis/go-redis/v9"
		testify = "github.com/stretchr/testify/require"
	)
	for _, tt := range []struct {
		file, imported string
		ok             bool
	}{
		{"internal/lease/lease.go", "time", true},
		{"internal/lease/lease.go", module + "/internal/house", true},
		{"internal/lease/lease.go", module + "/queue", false},
		{"internal/lease/lease_test.go", module + "/queue/queuetest", false},

		{"queue/queue.go", "math/rand/v2", true},
		{"queue/queue.go", module + "/internal/lease", true},
		{"queue/queue.go", module + "/queue/internal/packed", true},
		{"queue/queue.go", module + "/webhook", false},
		{"queue/queue.go", module + "/queue/redisqueue", false},
		{"queue/queue.go", module + "/queue/brokertest", false},
		{"queue/queue.go", module + "/bench/load", false},
		{"queue/queue.go", redis, false},
		{"queue/queue.go", testify, false},
		{"queue/queue_test.go", testify, true},
		{"queue/queue_test.go", module + "/queue", true},
		{"queue/queue_test.go", module + "/queue/brokertest", true},
		{"queue/queue_test.go", module + "/webhook/webhooktest", true},
		{"queue/queue_test.go", module + "/webhook", false},
		{"queue/queue_test.go", module + "/queue/redisqueue", false},
		{"queue/queue_test.go", module + "/cmd/fakeshop/test", false},
		{"queue/internal/packed/packed.go", module + "/queue", false},
		{"breaker/breaker.go", "github.com/sony/gobreaker/v2", true},
		{"breaker/breaker.go", "github.com/sony/gobreaker", false},
		{"breaker/breaker.go", "golang.org/x/time/rate", true},
		{"breaker/breaker.go", "golang.org/x/sync/errgroup", false},
		{"cache/cache.go", "golang.org/x/time/rate", false},

		{"queue/redisqueue/broker.go", redis, true},
		{"queue/redisqueue/broker.go", module + "/queue", true},
		{"queue/redisqueue/broker.go", module + "/queue/internal/packed", true},
		{"queue/redisqueue/broker.go", module + "/cache/rediscache", false},
		{"queue/redisqueue/broker.go", module + "/shopify", false},
		{"queue/redisqueue/broker_test.go", module + "/queue/brokertest", true},
		{"webhook/enqueue/enqueue.go", module + "/queue", true},
		{"webhook/enqueue/enqueue_test.go", module + "/queue/redisqueue", true},

		{"shopify/client.go", module + "/breaker", true},
		{"shopify/client.go", module + "/event", false},
		{"shopify/client.go", module + "/shopify/redislimit", false},
		{"shopify/client.go", module + "/shopify/shopifytest", false},
		{"shopify/client_test.go", module + "/shopify/shopifytest", true},
		{"event/bus.go", module + "/queue", true},
		{"event/bus.go", module + "/dashboard", false},
		{"dashboard/page.go", module + "/event", true},

		{"cmd/fakeshop/main.go", module + "/shopify/shopifytest", true},
		{"cmd/fakeshop/main.go", module + "/examples/blackfriday", false},
		{"bench/main.go", module + "/bench/load", true},
		{"bench/main.go", module + "/cmd/fakeshop", false},
		{"integration/sql_test.go", module + "/examples/blackfriday", false},
		{"docs/wiring_test.go", module + "/queue", true},

		{"util/strings.go", "strings", false},
		{"queue/queue.go", module + "/util", false},
		{"queue/queue.go", module, false},
		{"doc.go", "time", false},
	} {
		t.Run(tt.file+" imports "+tt.imported, func(t *testing.T) {
			t.Parallel()
			said := problem(tt.file, tt.imported)
			assert.Equal(t, tt.ok, said == "", said)
		})
	}
}

// Users get the root module's requirements with it; a replace line would keep `go install` from working.
func TestRootModule(t *testing.T) {
	t.Parallel()
	direct, lines := requirements(read(t, "go.mod"))
	require.NotEmpty(t, direct)
	for _, library := range direct {
		assert.Contains(t, libraries, library, "go.mod requires it directly")
	}
	for _, line := range lines {
		assert.NotContains(t, []string{"replace", "exclude"}, line, "go.mod")
	}
	for library := range libraries {
		assert.Contains(t, read(t, ".golangci.yml"), "- "+library+"\n", "the list of depguard")
	}
}

// A module that go.work leaves out would be left out of every test run.
func TestModules(t *testing.T) {
	t.Parallel()
	work := strings.Fields(read(t, "go.work"))
	var found []string
	walk(t, func(file string) {
		if path.Base(file) == "go.mod" {
			dir := path.Dir(file)
			found = append(found, dir)
			assert.True(t, slices.Contains(work, dir) || slices.Contains(work, "./"+dir), "%s is not in go.work", file)
			assert.False(t, strings.HasPrefix(dir, "cmd"), "%s: commands belong to the root module, for go install", file)
		}
	})
	assert.Subset(t, found, []string{".", "bench", "examples", "integration"})
}

func TestRequirements(t *testing.T) {
	t.Parallel()
	direct, verbs := requirements("module m\n\ngo 1.26\n\nrequire a.b/c v1.0.0 // why\n\nrequire (\n\td.e/f v1.0.0\n\tg.h/i v1.0.0 // indirect\n)\n\nreplace (\n\tj.k/l => ../l\n)\n")
	assert.Equal(t, []string{"a.b/c", "d.e/f"}, direct)
	assert.Equal(t, []string{"module", "go", "require", "require", "replace"}, verbs)
}

// requirements reads the direct requirements of a go.mod, and the verbs of all its directives.
func requirements(mod string) (direct, verbs []string) {
	block := ""
	for line := range strings.Lines(mod) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.HasPrefix(fields[0], "//"):
			continue
		case fields[0] == ")":
			block = ""
			continue
		case block == "":
			verbs = append(verbs, fields[0])
			if fields = fields[1:]; slices.Equal(fields, []string{"("}) {
				block = verbs[len(verbs)-1]
				continue
			}
			if verbs[len(verbs)-1] != "require" {
				continue
			}
		case block != "require":
			continue
		}
		if !strings.Contains(line, "// indirect") {
			direct = append(direct, fields[0])
		}
	}
	return direct, verbs
}

// walk visits every file of the repository but test data and what tools keep, by its path from the root.
func walk(t *testing.T, visit func(file string)) {
	t.Helper()
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && file != "." && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return fs.SkipDir
		}
		if !d.IsDir() {
			visit(file)
		}
		return nil
	}))
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	require.NoError(t, err)
	return string(b)
}
