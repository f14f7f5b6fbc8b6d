package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	closedLimit    = 1.5  // what a call through a closed breaker may cost, in calls through gobreaker
	closedAllocs   = 2    // of such a call
	timeoutLimit   = 1000 // ns of a call with a timeout
	rejectionLimit = 60   // ns of a call that is not made, where all processors make them
)

// breakerBench is one run.
type breakerBench struct {
	rep    *report
	rivals func(breakerCase) []rival
	total  time.Duration // of a case, serial or parallel, for all rivals together
}

// benchBreaker measures what a breaker costs a call.
func benchBreaker(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("breaker", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object per case and line")
	rounds := flags.Int("rounds", 20, "`rounds` over which medians are taken")
	length := flags.Duration("time", 500*time.Millisecond, "`length` of a round")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *length <= 0 {
		return errors.New("bench: -rounds and -time must be positive")
	}
	live := make([]byte, liveHeap)
	defer runtime.KeepAlive(live)
	b := &breakerBench{rep: &report{out: out, json: *asJSON}, rivals: rivals, total: time.Duration(*rounds) * *length}
	return b.run(ctx)
}

// breakerCase is what the breakers are asked to do.
type breakerCase struct {
	name    string
	timeout time.Duration // of a call; 0 means none
	open    bool          // all calls are rejected
}

func (b *breakerBench) run(ctx context.Context) error {
	b.rep.head()
	for _, part := range []func(context.Context) error{b.closed, b.timeout, b.open} {
		if err := part(ctx); err != nil {
			return fmt.Errorf("bench: breaker: %w", err)
		}
	}
	return b.rep.finish()
}

// closed is what a call costs that goes through.
func (b *breakerBench) closed(ctx context.Context) error {
	return b.each(ctx, breakerCase{name: "closed"}, func(name string, of func(string) *breakerTrial) {
		call := of(rivalCall)
		for _, ours := range []string{rivalCall, rivalDo, rivalGuard} {
			b.compare(name, of(ours), of(rivalGobreaker2), want{"<=", closedLimit})
		}
		for _, peer := range []string{rivalGobreaker1, rivalPermits, rivalFailsafe} {
			b.compare(name, call, of(peer), want{})
		}
		if call.callers == 1 {
			for _, t := range []*breakerTrial{call, of(rivalDo), of(rivalGuard)} {
				b.rep.add("closed, "+t.name+" allocations vs limit", "allocs", t.allocs, closedAllocs, want{"<=", 1}, t.problem())
			}
		}
	})
}

// timeout is the same with the timeout that a breaker has by default.
func (b *breakerBench) timeout(ctx context.Context) error {
	return b.each(ctx, breakerCase{name: "closed, timeout", timeout: rivalTimeout}, func(name string, of func(string) *breakerTrial) {
		for _, ours := range []string{rivalCall, rivalDo, rivalGuard} {
			t := of(ours)
			b.rep.add(fmt.Sprintf("%s, %s vs target", name, ours), "ns", median(t.turns), timeoutLimit, want{"<=", 1}, t.problem())
		}
		b.compare(name, of(rivalCall), of(rivalByHand), want{})
		for _, peer := range []string{rivalGobreaker2, rivalFailsafe} {
			b.compare(name, of(rivalGuard), of(peer), want{}) // they wait for the call too
		}
	})
}

// open is what a call costs that is not made.
func (b *breakerBench) open(ctx context.Context) error {
	return b.each(ctx, breakerCase{name: "open rejection", timeout: rivalTimeout, open: true}, func(name string, of func(string) *breakerTrial) {
		call := of(rivalCall)
		if call.callers > 1 {
			b.rep.add(name+", Call vs target", "ns", median(call.turns), rejectionLimit, want{"<=", 1}, call.problem())
		}
		for _, peer := range []string{rivalGobreaker1, rivalGobreaker2, rivalPermits, rivalFailsafe} {
			b.compare(name, call, of(peer), want{})
		}
	})
}

func (b *breakerBench) compare(name string, ours, peer *breakerTrial, w want) {
	b.rep.add(fmt.Sprintf("%s, %s vs %s", name, ours.name, peer.name), "ns", median(ours.turns), median(peer.turns), w, errors.Join(ours.problem(), peer.problem()))
}

// each measures all rivals at a case, from one goroutine and from as many as there are processors, and gives what came of it to tell.
func (b *breakerBench) each(ctx context.Context, c breakerCase, tell func(name string, of func(rival string) *breakerTrial)) error {
	for _, parallel := range []bool{false, true} {
		name, callers := c.name+", serial", 1
		if parallel {
			name, callers = c.name+", parallel", max(2, runtime.GOMAXPROCS(0))
		}
		var trials []*breakerTrial
		for _, rv := range b.rivals(c) {
			t, err := newBreakerTrial(ctx, rv, c, callers)
			if err != nil {
				return fmt.Errorf("%s: %w", rv.name, err)
			}
			trials = append(trials, t)
		}
		order := slices.Clone(trials)
		for range max(1, int(b.total/turnTime)/len(trials)) {
			rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, t := range order {
				if err := ctx.Err(); err != nil {
					return err
				}
				t.turn()
			}
		}
		tell(name, func(rival string) *breakerTrial {
			return trials[slices.IndexFunc(trials, func(t *breakerTrial) bool { return t.name == rival })]
		})
	}
	return nil
}

// breakerTrial is one rival at one case.
type breakerTrial struct {
	rival

	callers  int
	list     []*breakerCaller
	breaks   error // nil if it opens, and ends a call that takes too long
	rejected error // what it rejects with, if it is open
	batch    int   // calls of each caller that fill a turn
	turns    []float64
	allocs   float64 // a call
}

// factor makes a call's value of its number: none fits into a byte, which an interface would hold without an allocation.
const factor = 1_000_003

// breakerCaller is who calls from one goroutine.
type breakerCaller struct {
	_            [64]byte // no two of them share a line of a cache
	call         func() (int64, error)
	calls, ran   int64
	wrong, other int64 // values, and errors, that should not be
	_            [64]byte
}

// dependency answers with a value that is another for each call.
func (c *breakerCaller) dependency(context.Context) (int64, error) {
	c.ran++
	return c.ran * factor, nil
}

func newBreakerTrial(ctx context.Context, rv rival, c breakerCase, callers int) (*breakerTrial, error) {
	t := &breakerTrial{rival: rv, callers: callers}
	var err error
	if t.breaks, err = checkBreaks(ctx, rv, c); err != nil {
		return nil, err
	}
	protect, err := rv.open(ctx, c.timeout)
	if err != nil {
		return nil, err
	}
	if c.open {
		t.rejected = trip(protect)
		if !errors.Is(t.rejected, rv.rejection) {
			t.rejected = rv.rejection // which no call will get, and that is said
		}
	}
	for range callers {
		bc := &breakerCaller{}
		bc.call = protect(bc.dependency)
		t.list = append(t.list, bc)
	}
	t.measureAllocs()
	t.calibrate()
	return t, nil
}

// serve makes n calls from each caller.
func (t *breakerTrial) serve(n int) {
	if len(t.list) == 1 {
		t.list[0].serve(n, t.rejected)
		return
	}
	var all sync.WaitGroup
	for _, c := range t.list {
		all.Go(func() { c.serve(n, t.rejected) })
	}
	all.Wait()
}

func (c *breakerCaller) serve(n int, rejected error) {
	if rejected != nil {
		for range n {
			c.calls++
			if v, err := c.call(); v != 0 || err != rejected { //nolint:errorlint // this very value: errors.Is would take longer than the rest
				c.other++
			}
		}
		return
	}
	for range n {
		c.calls++
		v, err := c.call()
		if err != nil {
			c.other++
		}
		if v != c.calls*factor {
			c.wrong++
		}
	}
}

func (t *breakerTrial) calibrate() {
	for n := 64; ; n *= 2 {
		start := time.Now()
		t.serve(n)
		if took := time.Since(start); took > turnTime/4 {
			t.batch = max(1, int(int64(n)*int64(turnTime)/int64(took)))
			return
		}
	}
}

// turn takes one measurement: the time from the first call to the last, divided by the calls of all.
func (t *breakerTrial) turn() {
	runtime.GC()
	t.serve(4)
	start := time.Now()
	t.serve(t.batch)
	t.turns = append(t.turns, float64(time.Since(start))/float64(t.batch*t.callers))
}

func (t *breakerTrial) measureAllocs() {
	runtime.GC()
	t.serve(4)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	t.list[0].serve(memoryRuns, t.rejected)
	runtime.ReadMemStats(&after)
	t.allocs = float64(after.Mallocs-before.Mallocs) / memoryRuns
}

// problem says why the trial's figures mean nothing, if they don't.
func (t *breakerTrial) problem() error {
	if t.breaks != nil {
		return fmt.Errorf("%s %w", t.name, t.breaks)
	}
	for _, c := range t.list {
		want := c.calls
		if t.rejected != nil {
			want = 0
		}
		switch {
		case c.ran != want:
			return fmt.Errorf("%s ran the dependency %d times for %d calls; want %d", t.name, c.ran, c.calls, want)
		case c.other > 0 && t.rejected != nil:
			return fmt.Errorf("%s answered %d of %d calls otherwise than with %w", t.name, c.other, c.calls, t.rejected)
		case c.other > 0:
			return fmt.Errorf("%s answered %d of %d calls with an error", t.name, c.other, c.calls)
		case c.wrong > 0:
			return fmt.Errorf("%s gave back a wrong value %d times", t.name, c.wrong)
		}
	}
	return nil
}

const failuresToTrip = 20

var (
	errDown = errors.New("bench: the dependency is down")
	errNone = errors.New("no error")
)

// trip fails until the breaker must be open, and returns what it says then.
func trip(protect func(dependency) func() (int64, error)) error {
	down := protect(func(context.Context) (int64, error) { return 0, errDown })
	for range failuresToTrip {
		_, _ = down()
	}
	_, err := down()
	return err
}

// checkBreaks says what is wrong with a breaker of which each call of a case goes well: it does not open, or ends no call.
func checkBreaks(ctx context.Context, rv rival, c breakerCase) (problem, err error) {
	protect, err := rv.open(ctx, c.timeout)
	if err != nil {
		return nil, err
	}
	if got := trip(protect); !errors.Is(got, rv.rejection) {
		return fmt.Errorf("after %d failures answered with %w; want %w", failuresToTrip, cmp.Or(got, errNone), rv.rejection), nil
	}
	if c.timeout == 0 || c.open {
		return nil, nil
	}
	const short = 10 * time.Millisecond
	if protect, err = rv.open(ctx, short); err != nil {
		return nil, err
	}
	ended := make(chan bool, 1)
	_, got := protect(func(ctx context.Context) (int64, error) {
		select {
		case <-ctx.Done():
			ended <- true
		case <-time.After(25 * short):
			ended <- false
		}
		return 0, ctx.Err()
	})()
	if got == nil || !<-ended {
		return fmt.Errorf("did not end a call after %v (%w)", short, cmp.Or(got, errNone)), nil
	}
	return nil, nil
}
