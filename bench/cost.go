package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/breakwater-go/breakwater/shopify"
)

// recording is an exchange with Shopify, as far as its cost goes.
type recording struct {
	Version   string         `json:"version"`
	Query     string         `json:"query"`
	Variables map[string]any `json:"variables"`
	Requested float64        `json:"requested"`
}

func (r *recording) request() shopify.Request {
	return shopify.Request{Query: r.Query, Variables: r.Variables}
}

// id is what makes a request the same as another.
func (r *recording) id() string {
	vars, err := json.Marshal(r.Variables)
	if err != nil { // they come from JSON
		panic(err)
	}
	return r.Version + "\x00" + r.Query + "\x00" + string(vars)
}

// costTally is what became of the recordings of a version.
type costTally struct {
	n, exact, noSchema int
	took               time.Duration
	again, againExact  int // with all answers learned
}

// benchCost compares computed costs with recorded ones.
func benchCost(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: bench cost FILE")
	}
	all, err := readRecordings[recording](args[0])
	if err != nil {
		return err
	}
	tallies := map[string]*costTally{}
	right, wrong := map[string]int{}, map[string]int{} // fields, by the queries that they are in
	learned := map[string]*shopify.Costs{}
	seen := map[string][]float64{}
	for i := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := &all[i]
		t := tallies[r.Version]
		if t == nil {
			t = &costTally{}
			tallies[r.Version] = t
			if learned[r.Version], err = shopify.NewCosts(r.Version); err != nil {
				return err
			}
		}
		fields := right
		begun := time.Now()
		e, err := shopify.Explain(r.Version, r.request())
		t.took += time.Since(begun)
		t.n++
		switch {
		case err == nil && float64(e.Requested) == r.Requested:
			t.exact++
		case err == nil && len(e.Unknown) > 0:
			t.noSchema++
			fields = wrong
		default:
			fields = wrong
		}
		for _, name := range fieldsOf(r.Query) {
			fields[name]++
		}
		if err := learned[r.Version].Learn(r.request(), r.Requested); err == nil {
			seen[r.id()] = append(seen[r.id()], r.Requested)
		}
	}
	for i := range all { // asked again, with every answer learned
		r, t := &all[i], tallies[all[i].Version]
		answers := seen[r.id()]
		if len(slices.Compact(answers)) != 1 { // answers that differ from one time to the next can't be known; nor one to what can't be read
			continue
		}
		t.again++
		if cost, err := learned[r.Version].Of(r.request()); cost == int(r.Requested) && (err == nil || errors.Is(err, shopify.ErrTooExpensive)) {
			t.againExact++
		}
	}
	return printCosts(out, tallies, right, wrong)
}

// readRecordings reads gzipped JSON lines.
func readRecordings[T any](file string) ([]T, error) {
	f, err := os.Open(file) //nolint:gosec // the one that it is told to read
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var all []T
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r T
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", file, len(all)+1, err)
		}
		all = append(all, r)
	}
	if len(all) == 0 && lines.Err() == nil {
		return nil, fmt.Errorf("%s: no recordings", file)
	}
	return all, lines.Err()
}

var word = regexp.MustCompile(`[A-Za-z_]\w*`)

// fieldsOf are the words of a query, each once: fields, among others.
func fieldsOf(query string) []string {
	words := word.FindAllString(query, -1)
	slices.Sort(words)
	return slices.Compact(words)
}

func printCosts(out io.Writer, tallies map[string]*costTally, right, wrong map[string]int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "version\trecordings\texact\tpercent\tno schema\tµs a query\tlearned\texact\t")
	var sum costTally
	row := func(name string, t costTally) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.2f\t%d\t%.1f\t%d\t%d\t\n", name, t.n, t.exact, 100*float64(t.exact)/float64(t.n), t.noSchema, float64(t.took.Nanoseconds())/1e3/float64(t.n), t.again, t.againExact)
	}
	for _, v := range slices.Sorted(maps.Keys(tallies)) {
		t := *tallies[v]
		row(v, t)
		sum = costTally{sum.n + t.n, sum.exact + t.exact, sum.noSchema + t.noSchema, sum.took + t.took, sum.again + t.again, sum.againExact + t.againExact}
	}
	row("all", sum)
	fmt.Fprintln(w, "\nin wrong queries\tof\tfield\t")
	share := func(f string) float64 { return float64(wrong[f]) * float64(wrong[f]) / float64(wrong[f]+right[f]) }
	names := slices.SortedFunc(maps.Keys(wrong), func(a, b string) int {
		if d := share(b) - share(a); d != 0 {
			return map[bool]int{true: 1, false: -1}[d > 0]
		}
		return map[bool]int{true: 1, false: -1}[a > b]
	})
	for _, name := range names[:min(len(names), 15)] {
		fmt.Fprintf(w, "%d\t%d\t%s\t\n", wrong[name], wrong[name]+right[name], name)
	}
	return w.Flush()
}
