// Command blackfriday runs one storm of webhooks through two integrations, the classic one that works
// inside its handler and one built on Breakwater, and shows both ledgers side by side.
//
//	go run ./examples/blackfriday
//
// The shops are played by webhooktest.Sender, in a process of its own for each side; the two
// integrations are processes of their own too. Behind Breakwater's queue several workers share the work; they
// die in the midst of jobs, all storm long, and others take the jobs over. This process plays the systems
// behind both, an ERP, a database and a carrier: real HTTP servers that are slow and fail for a while. They
// count what arrives, and at the end that is compared with what the storm's generator knows to have happened.
//
// Exit status 1: Breakwater broke a promise. 2: the storm was too weak to hurt the classic side, or killed no
// worker of the other, so that it proved nothing. (go run prints the status and exits 1 for both.)
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

// options are the storm's, the same in every process.
type options struct {
	Orders int
	Shops  int
	Seed   uint64
	Scale  float64
}

const (
	// stormLength is how long new events happen, in Shopify's time.
	stormLength = 3 * time.Minute
	// retrySpeedup is how many times faster than the rest the waits between redeliveries run: Shopify's
	// span 4 hours, for which nobody wants to wait. What they meet is compressed with them: an outage of
	// one minute here stands for four hours.
	retrySpeedup = 240

	secret = "hush"
)

func main() {
	if len(os.Args) == 3 {
		if role := roles[os.Args[1]]; role != nil { // a child process
			exitOn(role(os.Args[2]))
			return
		}
	}
	var o options
	flag.IntVar(&o.Orders, "orders", 1200, "orders in the storm")
	flag.IntVar(&o.Shops, "shops", 20, "shops; the first has a spike of its own")
	flag.Uint64Var(&o.Seed, "seed", 1, "seed of the storm; 0 draws one")
	flag.Float64Var(&o.Scale, "scale", 12, "how many times faster than real the clock runs")
	asJSON := flag.Bool("json", false, "end with one line of JSON")
	flag.Parse()
	if o.Orders < 1 || o.Shops < 2 || !(o.Scale > 0) {
		exitOn(errors.New("-orders must be at least 1, -shops 2, and -scale positive"))
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	classic, breakwater, err := storm(ctx, os.Stdout, o)
	stop()
	exitOn(err)
	report(os.Stdout, classic, breakwater)
	broken, weak := judge(classic, breakwater)
	if *asJSON {
		exitOn(json.NewEncoder(os.Stdout).Encode(struct {
			Classic    ledger `json:"classic"`
			Breakwater ledger `json:"breakwater"`
		}{classic, breakwater}))
	}
	switch {
	case broken != "":
		fmt.Fprintln(os.Stderr, "blackfriday: a promise was broken:", broken)
		os.Exit(1)
	case weak != "":
		fmt.Fprintln(os.Stderr, "blackfriday: the storm was too weak:", weak)
		os.Exit(2)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "blackfriday:", err)
		os.Exit(3)
	}
}

// storm sends the same storm through one side after the other, so that neither takes the machine from the
// other, and returns their ledgers.
func storm(ctx context.Context, out io.Writer, o options) (classic, breakwater ledger, err error) {
	truth := generate(o)
	fmt.Fprintf(out, "%d orders of %d shops make %d events; seed %d, clock ×%g, waits between redeliveries ×%g\n",
		o.Orders, o.Shops, len(truth), o.Seed, o.Scale, o.Scale*retrySpeedup)
	if classic, err = stormOn(ctx, out, "classic", o, truth); err != nil {
		return classic, breakwater, err
	}
	breakwater, err = stormOn(ctx, out, "breakwater", o, truth)
	return classic, breakwater, err
}

func stormOn(ctx context.Context, out io.Writer, name string, o options, truth []event) (ledger, error) {
	s, err := newSide(name, o, truth)
	if err != nil {
		return ledger{}, err
	}
	defer s.stop()
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return s.ledger(), err
		case <-tick.C:
			fmt.Fprintf(out, "%-10s %3.0f s: %s\n", name, time.Since(begin).Seconds(), s.progress())
		}
	}
}
