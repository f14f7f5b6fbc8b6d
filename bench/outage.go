package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// outageRate is how many calls come a second.
const outageRate = 1000

// outagePlan is what happens.
type outagePlan struct {
	rate                int           // calls a second
	before, down, after time.Duration // the outage
}

func (p outagePlan) total() time.Duration { return p.before + p.down + p.after }

// planned is an outage of so long, before which and after which there is time enough to see what comes of it.
func planned(rate int, down time.Duration) outagePlan {
	return outagePlan{rate: rate, before: 30 * time.Second, down: down, after: 90 * time.Second}
}

// outageBench is one run.
type outageBench struct {
	out        io.Writer
	json       bool
	svg        string // directory for the plots; "" draws none
	rate       int
	lengths    []time.Duration // of outages, one after the other; that in the middle is plotted
	contenders []outageContender

	results []outageResult
}

// benchOutage takes a dependency away from its callers, and gives it back.
func benchOutage(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("outage", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object per contender and line")
	svg := flags.String("svg", "", "`directory` for the plots, outage-failing.svg and so on; by default none are drawn")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &outageBench{out: out, json: *asJSON, svg: *svg, rate: outageRate, lengths: []time.Duration{time.Minute}, contenders: outageContenders()}
	return b.run(ctx)
}

// outageKind is what a dependency does while it is down, and when it is back.
type outageKind struct {
	name  string
	hangs bool          // while it is down; otherwise it answers 503
	queue time.Duration // a call that would wait longer is refused
}

func outageKinds() []outageKind {
	const noLimit = time.Hour
	return []outageKind{{name: "failing", queue: queueTime}, {name: "hanging", hangs: true, queue: queueTime}, {name: "collapsing", hangs: true, queue: noLimit}}
}

// run goes through all outages. The contenders share nothing, and are in it at the same time.
func (b *outageBench) run(ctx context.Context) error {
	kinds := outageKinds()
	runs := make([][][]*outageRun, len(kinds)) // by kind, contender and length
	for k := range runs {
		runs[k] = make([][]*outageRun, len(b.contenders))
		for c := range runs[k] {
			runs[k][c] = make([]*outageRun, len(b.lengths))
		}
	}
	for i, down := range b.lengths {
		var all sync.WaitGroup
		for k, kind := range kinds {
			for c, contender := range b.contenders {
				all.Go(func() { runs[k][c][i] = simulate(ctx, planned(b.rate, down), kind, contender) })
			}
		}
		all.Wait()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	invalid := false
	for k, kind := range kinds {
		var results []outageResult
		for _, of := range runs[k] {
			res := summary(of)
			invalid = invalid || res.Problem != ""
			results = append(results, res)
		}
		b.results = append(b.results, results...)
		if err := b.print(kind.name, results); err != nil {
			return err
		}
		if b.svg == "" {
			continue
		}
		var middle []*outageRun
		for _, of := range runs[k] {
			middle = append(middle, of[len(of)/2])
		}
		if err := plotOutage(filepath.Join(b.svg, "outage-"+kind.name+".svg"), kind.name, middle); err != nil {
			return fmt.Errorf("bench: outage: %w", err)
		}
	}
	if invalid {
		return errInvalid
	}
	return nil
}

// outageResult is what came of a contender in a kind of outage: medians over all of them, and the worst recovery.
type outageResult struct {
	Outage    string `json:"outage"`
	Contender string `json:"contender"`
	Runs      int    `json:"runs"`
	Rate      int    `json:"rate"`  // calls of callers a second
	Calls     int    `json:"calls"` // of callers

	WhileDown    int     `json:"while_down"`     // calls that reached the dependency while it was down
	WhileDownMax int     `json:"while_down_max"` // in the worst second
	Recovery     float64 `json:"recovery_s"`     // seconds from the end of the outage until 99 of 100 calls succeeded, and went on to
	Worst        float64 `json:"recovery_worst_s"`
	Recovered    bool    `json:"recovered"` // always; if not, the time is that until the end
	Peak         float64 `json:"peak"`      // calls that reached the dependency in the worst second after the outage, in calls of callers

	Failed     int     `json:"failed"`   // calls of callers that ended in an error
	Rejected   int     `json:"rejected"` // of them, by a breaker
	WaitMedian float64 `json:"failed_wait_median_ms"`
	WaitP99    float64 `json:"failed_wait_p99_ms"`

	Problem string `json:"problem,omitempty"` // what makes it invalid
}

// summary is the result of one contender's runs.
func summary(runs []*outageRun) outageResult {
	first := runs[0]
	res := outageResult{Outage: first.kind, Contender: first.contender, Runs: len(runs), Rate: first.plan.rate, Recovered: true}
	mid := func(of func(r *outageRun) float64) float64 {
		var values []float64
		for _, r := range runs {
			values = append(values, of(r))
		}
		return median(values)
	}
	count := func(of func(r *outageRun) int) int {
		return int(mid(func(r *outageRun) float64 { return float64(of(r)) }))
	}
	res.Calls = count(func(r *outageRun) int { return len(r.calls) })
	res.WhileDown = count(func(r *outageRun) int { return r.whileDown })
	res.WhileDownMax = count(func(r *outageRun) int { return r.whileDownMax })
	res.Recovery = mid(func(r *outageRun) float64 { return r.recovery.Seconds() })
	res.Peak = mid(func(r *outageRun) float64 { return float64(r.peak) / float64(r.plan.rate) })
	res.Failed = count(func(r *outageRun) int { return r.failed })
	res.Rejected = count(func(r *outageRun) int { return r.rejected })
	res.WaitMedian = mid(func(r *outageRun) float64 { return millis(r.waitMedian) })
	res.WaitP99 = mid(func(r *outageRun) float64 { return millis(r.waitP99) })
	var problems []error
	for _, r := range runs {
		res.Worst = max(res.Worst, r.recovery.Seconds())
		res.Recovered = res.Recovered && r.recovered
		problems = append(problems, r.problem)
	}
	if err := errors.Join(problems...); err != nil {
		res.Problem = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return res
}

func millis(d time.Duration) float64 { return micros(d) / 1000 }

func (b *outageBench) print(kind string, results []outageResult) error {
	if b.json {
		return printJSON(b.out, results)
	}
	const line = "%-26s %10s %8s %10s %8s %7s %9s %9s %9s %9s\n"
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %s, %d calls/s, median of %d\n\n", kind, lengthsText(b.lengths), b.rate, len(b.lengths))
	fmt.Fprintf(&s, line, "", "calls", "worst", "recovery", "worst", "peak", "failed", "of them", "waited", "waited")
	fmt.Fprintf(&s, line, "contender", "while down", "second", "s", "s", "x rate", "calls", "rejected", "p50 ms", "p99 ms")
	for _, r := range results {
		if r.Problem != "" {
			fmt.Fprintf(&s, "%-26s invalid: %s\n", r.Contender, r.Problem)
			continue
		}
		more := ""
		if !r.Recovered {
			more = ">"
		}
		fmt.Fprintf(&s, line, r.Contender, fmt.Sprint(r.WhileDown), fmt.Sprint(r.WhileDownMax), number(r.Recovery), more+number(r.Worst), fmt.Sprintf("%.2f", r.Peak),
			fmt.Sprint(r.Failed), fmt.Sprint(r.Rejected), number(r.WaitMedian), number(r.WaitP99))
	}
	_, err := fmt.Fprintf(b.out, "%s\n", s.String())
	return err
}

func printJSON(out io.Writer, results []outageResult) error {
	enc := json.NewEncoder(out)
	for _, res := range results {
		if err := enc.Encode(res); err != nil {
			return err
		}
	}
	return nil
}

func lengthsText(lengths []time.Duration) string {
	shortest, longest := slices.Min(lengths), slices.Max(lengths)
	if shortest == longest {
		return fmt.Sprintf("an outage of %.0f s", shortest.Seconds())
	}
	return fmt.Sprintf("outages of %.0f to %.0f s", shortest.Seconds(), longest.Seconds())
}

// outageRun is how one contender went through one outage.
type outageRun struct {
	kind, contender string
	plan            outagePlan
	calls           []outageCall
	reached         []int // calls that reached the dependency, by tick
	succeeded       []int // calls of callers that ended well, by the tick of their end
	ended           []int // calls of callers that ended

	whileDown, whileDownMax int
	recovery                time.Duration
	recovered               bool
	peak                    int
	failed, rejected        int
	waitMedian, waitP99     time.Duration
	problem                 error
}

const (
	// outageTick is how finely time is divided in what is counted.
	outageTick     = 100 * time.Millisecond
	ticksPerSecond = int(time.Second / outageTick)
)

// measure takes the measures of a run.
func (r *outageRun) measure() {
	from, to, end := ticks(r.plan.before), ticks(r.plan.before+r.plan.down), ticks(r.plan.total())
	for _, n := range r.reached[from:to] {
		r.whileDown += n
	}
	r.whileDownMax = worstSecond(r.reached[from:to])
	r.peak = worstSecond(r.reached[to:])

	var waits []time.Duration
	for _, c := range r.calls {
		if c.err != nil {
			waits = append(waits, c.took)
		}
		if c.rejected {
			r.rejected++
		}
	}
	r.failed = len(waits)
	slices.Sort(waits)
	r.waitMedian, r.waitP99 = percentile(waits, 50), percentile(waits, 99)

	// From the end back to the last second that was not good.
	last := end - ticksPerSecond
	for last >= to && r.good(last) {
		last--
	}
	r.recovery, r.recovered = time.Duration(last+1-to)*outageTick, last < end-ticksPerSecond
	if !r.recovered {
		r.recovery = r.plan.after
	}
}

// good says whether 99 of 100 calls that ended in the second from a tick on succeeded.
func (r *outageRun) good(tick int) bool {
	ended, succeeded := 0, 0
	for i := range ticksPerSecond {
		ended += r.ended[tick+i]
		succeeded += r.succeeded[tick+i]
	}
	return ended > 0 && succeeded*100 >= ended*99
}

func ticks(d time.Duration) int { return int(d / outageTick) }

// worstSecond is the most that ten ticks in a row have.
func worstSecond(counts []int) (worst int) {
	sum := 0
	for i, n := range counts {
		if sum += n; i >= ticksPerSecond {
			sum -= counts[i-ticksPerSecond]
		}
		worst = max(worst, sum)
	}
	return worst
}

// percentile is of sorted values.
func percentile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// check says why a run's figures mean nothing, if they don't.
func (r *outageRun) check(accepted int) error {
	succeeded, late := 0, 0
	for i, c := range r.calls {
		if c.late > outageTick {
			late++
		}
		at := time.Duration(i) * time.Second / time.Duration(r.plan.rate)
		switch {
		case c.results != 1:
			return fmt.Errorf("call %d had %d results", i, c.results)
		case c.err == nil && c.value != i:
			return fmt.Errorf("call %d got the value of call %d", i, c.value)
		case c.err != nil && at+time.Second < r.plan.before:
			return fmt.Errorf("call %d failed before the outage: %w", i, c.err)
		case c.err == nil:
			succeeded++
		}
	}
	reached := 0
	for _, n := range r.reached {
		reached += n
	}
	switch {
	case late*100 > len(r.calls):
		return fmt.Errorf("%d of %d calls were made more than %v late: the machine is too busy", late, len(r.calls), outageTick)
	case succeeded > accepted || accepted > reached:
		return fmt.Errorf("%d calls succeeded; the dependency took %d of %d that reached it", succeeded, accepted, reached)
	case r.whileDown == 0 || r.failed == 0:
		return fmt.Errorf("%d calls reached the dependency while it was down, and %d failed: there was no outage", r.whileDown, r.failed)
	}
	return nil
}
