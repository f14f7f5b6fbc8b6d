package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// result is what a run has come to.
type result struct {
	Reads, Pages int // requests to the storefront in each way, and those of them that were for many products
	Webhooks     tally
	Ways         [len(ways)]outcome

	Invalidations uint64 // in all servers
	Refused       uint64 // loads that were not kept

	Indexed   int // products in the search index
	Unindexed int // products of which the index has something older than an acknowledged webhook
}

// outcome is how one way to cache has done.
type outcome struct {
	verdict

	Failed  int // reads
	Failure string

	Calls, Without        int     // of the Admin API, and how many there would be without a cache
	Points, PointsWithout float64 // likewise
	Throttled             int

	Memory, Redis, Shared, Loads uint64 // where products came from, those for the search index too
}

func share(part, of float64) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*part/of)
}

// check says what is wrong with the right column.
func (r result) check() error {
	b := r.Ways[breakwaterWay]
	errs := []error{b.broken()}
	if b.Failed > 0 {
		errs = append(errs, fmt.Errorf("%d reads failed: %s", b.Failed, b.Failure))
	}
	if r.Unindexed > 0 {
		errs = append(errs, fmt.Errorf("of %d products the search index has something older than a webhook that was acknowledged", r.Unindexed))
	}
	return errors.Join(errs...)
}

func (r result) print(out io.Writer) {
	t := r.Webhooks
	fmt.Fprintf(out, "\n%d webhooks, of which Shopify lost %d; the others came in %d requests, %d of them answered 200, the slowest webhook after %v\n", t.Sent, t.Lost, t.Attempts, t.Acknowledged, t.Longest.Round(time.Millisecond))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(what string, of func(o outcome) string) {
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", what, of(r.Ways[recipeWay]), of(r.Ways[breakwaterWay]))
	}
	count := func(what string, of func(o outcome) int) {
		row(what, func(o outcome) string { return fmt.Sprint(of(o)) })
	}
	from := func(what string, of func(o outcome) uint64) {
		row(what, func(o outcome) string { return share(float64(of(o)), float64(o.Memory+o.Redis+o.Shared+o.Loads)) })
	}
	fmt.Fprintf(w, "\n\t%s\t%s\t\n", ways[recipeWay].name, ways[breakwaterWay].name)
	count("pages served", func(outcome) int { return r.Reads })
	count("products on them", func(o outcome) int { return o.Answers })
	from("out of the process's memory", func(o outcome) uint64 { return o.Memory })
	from("out of Redis", func(o outcome) uint64 { return o.Redis })
	from("out of a load that another had begun", func(o outcome) uint64 { return o.Shared })
	from("loaded for them", func(o outcome) uint64 { return o.Loads })
	count("calls to the Admin API", func(o outcome) int { return o.Calls })
	count("calls without a cache", func(o outcome) int { return o.Without })
	row("calls saved", func(o outcome) string { return share(float64(o.Without-o.Calls), float64(o.Without)) })
	row("points of quota used", func(o outcome) string { return fmt.Sprintf("%.0f", o.Points) })
	row("points without a cache", func(o outcome) string { return fmt.Sprintf("%.0f", o.PointsWithout) })
	row("points saved", func(o outcome) string { return share(o.PointsWithout-o.Points, o.PointsWithout) })
	count("throttled answers", func(o outcome) int { return o.Throttled })
	only := func(what string, n uint64) { fmt.Fprintf(w, "%s\t-\t%d\t\n", what, n) }
	only("invalidations", r.Invalidations)
	only("fills refused: the product had changed meanwhile", r.Refused)
	only("products in the search index", uint64(r.Indexed))                 //nolint:gosec // not negative
	only("of them older than an acknowledged webhook", uint64(r.Unindexed)) //nolint:gosec // not negative
	count("reads that failed", func(o outcome) int { return o.Failed })
	count("answers older than an acknowledged webhook", func(o outcome) int { return o.Stale })
	age := func(what string, of func(o outcome) measure) {
		fmt.Fprintf(w, "%s (bound: %v)\t%s\t%s\t\n", what, of(r.Ways[breakwaterWay]).Bound, round(of(r.Ways[recipeWay]).Age), round(of(r.Ways[breakwaterWay]).Age))
	}
	age("the oldest, since the same process had acknowledged", func(o outcome) measure { return o.Same })
	age("the oldest, since the other process had", func(o outcome) measure { return o.Other })
	age("the oldest, since the change", func(o outcome) measure { return o.Commit })
	_ = w.Flush() // out is the terminal
}

func round(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
