// Command shipping ships orders by three carriers that have bad times, and shows that each order ships once, and that a carrier that is down is left alone.
//
//	go run ./examples/shipping
//
// starts three carriers, real HTTP servers, each with an ailment of its own: one becomes slow, one answers 503, one allows for a fifth of the calls that it has promised
// and answers 429 beyond. In front of them is an app with an API, and a breaker for each carrier. The program sends the app 300 orders, 30 a second, lets the carriers
// go bad for some seconds and come back, prints what happens, second by second, and in the end a ledger of what the carriers have sold and the app knows.
//
// How it works. A request buys a label through the carrier's breaker (breaker.CallOr). When the carrier can't sell it now, or is not asked because its breaker is
// open, the fallback puts the order into a queue, a SQLite file, and the shopper gets 202 at once. Workers ship what is queued through the same breaker
// (breaker.Guard): while it is open they put jobs off, which spends no attempt; when its time is over the first call is a trial, and the others go on waiting until it
// has succeeded. All calls for an order carry the same Idempotency-Key, so that a label that was bought by a call whose answer came too late is not bought again.
//
// Read app.go first. The carriers are in carrier.go, those who send orders in shoppers.go, timeline and ledger in report.go.
//
// Exit status 1: an order has not shipped, or has two labels, or anything else went wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/breaker"
)

type options struct {
	Orders int
	Seed   uint64
	Every  time.Duration // comes an order
	Step   time.Duration // of the timeline, and what bad times are counted in
}

func main() {
	o := options{Every: time.Second / 30, Step: time.Second}
	flag.IntVar(&o.Orders, "orders", 300, "orders to send, 30 a second")
	flag.Uint64Var(&o.Seed, "seed", 1, "seed of which order goes by which carrier")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	l, err := run(ctx, o, os.Stdout)
	if err == nil {
		err = l.check()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shipping:", err)
		os.Exit(1)
	}
}

// party is a carrier, what the app has in front of it, and when it is bad.
type party struct {
	*carrier
	cfg      breaker.Config
	from, to float64 // in steps
}

// parties have times that are scaled down, as the carriers' are: good answers take 20 ms and bad times last seconds. Most of what a real app needs are the defaults.
func parties() []party {
	soon := func(cfg breaker.Config) breaker.Config {
		cfg.Window, cfg.MinCalls = time.Second, 5
		cfg.OpenFor, cfg.MaxOpenFor = 500*time.Millisecond, time.Second
		return cfg
	}
	return []party{
		// Calls that just get by count against it as well: a carrier that is slow today is down tomorrow, and until then holds up everybody. A
		// second try of what took long would take long again.
		{newCarrier("tortoise", slow, nil), soon(breaker.Config{
			Timeout: 10 * goodAnswer, SlowCall: 5 * goodAnswer, Retry: breaker.Retry{MaxAttempts: 1},
		}), 1.5, 4.5},
		// Any five failures in a row are enough, whatever the rate in the window is.
		{newCarrier("brittle", failing, nil), soon(breaker.Config{
			FailureRate: 0.4, ConsecutiveFailures: 5, Retry: breaker.Retry{MaxAttempts: 2, Backoff: 50 * time.Millisecond},
		}), 2.5, 6.5},
		// A 429 says that the carrier works, so its breaker does not open: our limiter keeps to what was promised, a request that gets a 429 all the same is sent once
		// more when Retry-After says so, and a job comes back then.
		{newCarrier("meter", nil, rate.NewLimiter(20, 10)), soon(breaker.Config{
			Limiter: rate.NewLimiter(15, 5), MaxWait: 200 * time.Millisecond, Retry: breaker.Retry{MaxAttempts: 2, MaxRetryAfter: time.Second},
		}), 4, 7},
	}
}

// run is the whole demonstration.
func run(ctx context.Context, o options, out io.Writer) (l ledger, err error) {
	if o.Orders < 1 {
		return l, fmt.Errorf("-orders is %d; want 1 or more", o.Orders)
	}
	dir, err := os.MkdirTemp("", "shipping-")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is in the temporary directory
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	a, err := newApp(filepath.Join(dir, "jobs.db"), log)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	all := parties()
	up, down := context.WithCancel(ctx)
	defer down()
	url, err := open(up, a, all)
	if err != nil {
		return l, err
	}
	work, stop := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- a.run(work) }()
	defer func() { stop(); err = errors.Join(err, <-worked) }()

	fmt.Fprintf(out, "%d orders, one every %v; seed %d\n\n", o.Orders, o.Every.Round(time.Millisecond), o.Seed)
	r := newReport(out, a, all)
	end := r.timeline(o.Step)
	var outages sync.WaitGroup
	for i := range all {
		outages.Go(func() { r.outage(ctx, i, o.Step) })
	}
	refused := send(ctx, url, all, o)
	outages.Wait()
	a.settle(ctx)
	end()
	if err := ctx.Err(); err != nil {
		return l, err
	}
	if l, err = r.ledger(ctx, o.Orders, refused); err == nil {
		l.print(out)
	}
	return l, err
}

// open starts the carriers and the app, which serve until ctx ends.
func open(ctx context.Context, a *app, all []party) (url string, err error) {
	for _, p := range all {
		url, err := serve(ctx, p.carrier)
		if err != nil {
			return "", err
		}
		if err := a.add(p.name, url, p.cfg); err != nil {
			return "", err
		}
	}
	return serve(ctx, a.routes())
}
