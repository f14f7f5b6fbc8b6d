package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/queue"
)

// report watches a run.
type report struct {
	out   io.Writer
	app   *app
	all   []party
	begun time.Time
	held  []int64 // by the breaker of each party, while its carrier was bad
}

func newReport(out io.Writer, a *app, all []party) *report {
	return &report{out: out, app: a, all: all, begun: time.Now(), held: make([]int64, len(all))}
}

func (r *report) breaker(i int) *breaker.Breaker { return r.app.carriers[r.all[i].name].breaker }

// outage makes a carrier bad for its time, and good again.
func (r *report) outage(ctx context.Context, i int, step time.Duration) {
	p := r.all[i]
	until(ctx, r.begun.Add(time.Duration(p.from*float64(step))))
	before := r.breaker(i).Stats().Rejected
	p.turn(true)
	until(ctx, r.begun.Add(time.Duration(p.to*float64(step))))
	p.turn(false)
	r.held[i] = r.breaker(i).Stats().Rejected - before
}

func until(ctx context.Context, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// timeline prints a line for each step, until end is called.
func (r *report) timeline(step time.Duration) (end func()) {
	names, head := "      ", "  time"
	for _, p := range r.all {
		names += fmt.Sprintf("   %-4s%18s", "", p.name)
		head += fmt.Sprintf("   %-4s%10s%8s", "is", "breaker", "calls")
	}
	fmt.Fprintf(r.out, "%s\n%s   shipped waiting\n", names, head)
	var (
		ended = make(chan struct{})
		done  sync.WaitGroup
	)
	done.Go(func() {
		tick := time.NewTicker(step)
		defer tick.Stop()
		calls := make([]int, len(r.all))
		for {
			select {
			case <-tick.C:
				r.line(calls)
			case <-ended:
				return
			}
		}
	})
	return func() { close(ended); done.Wait() }
}

// line prints how things are, and the calls that have reached each carrier since the line before.
func (r *report) line(calls []int) {
	fmt.Fprintf(r.out, "%4.1f s", time.Since(r.begun).Seconds())
	for i, p := range r.all {
		bad, n := p.look()
		how := "ok"
		if bad {
			how = "BAD"
		}
		fmt.Fprintf(r.out, "   %-4s%10v%8d", how, r.breaker(i).State(), n.Calls-calls[i])
		calls[i] = n.Calls
	}
	shipped, waiting := r.app.book.count()
	fmt.Fprintf(r.out, "   %7d %7d\n", shipped, waiting)
}

// ledger is what has come of a run: what the carriers have sold, against what the app knows.
type ledger struct {
	Orders, Refused        int
	AtOnce, Queued, Later  int
	Labels                 int
	Missing, Twice, Differ []string // orders without a label, with two, and with another one than the app believes
	Left, Dead             int      // jobs

	PutOff, Throttled, Failed, SpentOnOpen int64 // see counts

	Carriers []sold
}

// sold is a carrier's part of the ledger.
type sold struct {
	Name string
	seen
	HeldBack int64 // by the breaker, while the carrier was bad
	Trips    int64
	Limited  int64 // calls that the app's own limit had no place for
}

func (r *report) ledger(ctx context.Context, orders int, refused int64) (ledger, error) {
	c := &r.app.counts
	l := ledger{
		Orders: orders, Refused: int(refused),
		PutOff: c.putOff.Load(), Throttled: c.throttled.Load(), Failed: c.failed.Load(), SpentOnOpen: c.spentOnOpen.Load(),
	}
	for n := range orders {
		id, bought := orderID(n), []string(nil)
		for _, p := range r.all {
			bought = append(bought, p.labels(id)...)
		}
		e := r.app.book.entry(id)
		l.Labels += len(bought)
		switch {
		case len(bought) == 0:
			l.Missing = append(l.Missing, id)
		case len(bought) > 1:
			l.Twice = append(l.Twice, id)
		case !slices.Equal(bought, e.labels):
			l.Differ = append(l.Differ, id)
		case e.queued:
			l.Later++
		default:
			l.AtOnce++
		}
		if e.queued {
			l.Queued++
		}
	}
	for i, p := range r.all {
		_, n := p.look()
		s := r.breaker(i).Stats()
		l.Carriers = append(l.Carriers, sold{p.name, n, r.held[i], s.Trips, s.Limited})
	}
	stats, err := r.app.jobs.Stats(ctx)
	l.Left, l.Dead = stats.Jobs+stats.Scheduled, stats.Dead
	if err != nil || stats.Dead == 0 {
		return l, err
	}
	dead, err := r.app.jobs.Dead(ctx, queue.DeadFilter{Limit: 1})
	if err == nil {
		fmt.Fprintf(r.out, "the first dead letter: %s\n", dead[0].Error)
	}
	return l, err
}

// check says what is wrong, if each order has not shipped exactly once.
func (l ledger) check() error {
	if l.Refused+len(l.Missing)+len(l.Twice)+len(l.Differ)+l.Left+l.Dead == 0 && l.AtOnce+l.Later == l.Orders && l.SpentOnOpen == 0 {
		return nil
	}
	return fmt.Errorf("not each order has shipped once: %d refused; without a label %v; with two %v; with another one than the app knows %v; %d jobs left, %d dead; %d attempts spent on open breakers",
		l.Refused, l.Missing, l.Twice, l.Differ, l.Left, l.Dead, l.SpentOnOpen)
}

func (l ledger) print(out io.Writer) {
	row := func(name string, cells ...any) {
		fmt.Fprintf(out, "%46s", name)
		for _, c := range cells {
			fmt.Fprintf(out, "%10v", c)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out)
	row("orders", l.Orders)
	row("shipped at once (200)", l.AtOnce)
	row("queued (202)", l.Queued)
	row("queued, then shipped", l.Later)
	row("labels bought", l.Labels)
	row("orders without a label", len(l.Missing))
	row("orders with two labels", len(l.Twice))
	fmt.Fprintln(out)
	row("jobs put off, by an open breaker or a limit", l.PutOff)
	row("jobs put off by a 429", l.Throttled)
	row("attempts spent on that", l.SpentOnOpen)
	row("attempts spent on calls that failed", l.Failed)
	fmt.Fprintln(out)
	cells := make([]any, len(l.Carriers))
	each := func(name string, f func(s sold) any) {
		for i, s := range l.Carriers {
			cells[i] = f(s)
		}
		row(name, cells...)
	}
	each("", func(s sold) any { return s.Name })
	each("calls that reached it", func(s sold) any { return s.Calls })
	each("of these while it was bad", func(s sold) any { return s.WhileBad })
	each("without its breaker it would have been", func(s sold) any { return int64(s.WhileBad) + s.HeldBack })
	each("the breaker opened", func(s sold) any { return s.Trips })
	each("calls that our own limit had no place for", func(s sold) any { return s.Limited })
	each("answered 429", func(s sold) any { return s.Throttled })
	each("asked again, and given the same label", func(s sold) any { return s.Again })
}
