// Command blackfriday runs one storm of webhooks through two integrations, the classic one that works
// inside its handler and one built on Breakwater, and shows both ledgers side by side.
//
//	go run ./examples/blackfriday
//
// The shops are played by webhooktest.Sender, in a process of its own for each side; the two
// integrations are processes of their own too. Breakwater's queue is a SQLite file, in a temporary directory or where -db says; with
// -memory it is in the process. Behind it several workers share the work; they
// die in the midst of jobs, all storm long, and others take the jobs over. Each step of a job happens once (idempotency.Once), and of the states of a product or a stock the newest wins
// (idempotency.Latest), whatever order Shopify sends them in; a system that is down is left alone (breaker.Guard), and the jobs wait for it. This process plays the systems
// behind both, an ERP, a database and a carrier: real HTTP servers that are slow and fail for a while. They
// count what arrives, and at the end that is compared with what the storm's generator knows to have happened.
//
//	go run ./examples/blackfriday -kill
//
// does so in earnest: the Breakwater side is a server and four workers, each a process that opens the file for itself, and all through the
// storm the server and one worker after the other are killed with SIGKILL and started again. The database is a table in the same file, written in
// the transaction that completes the job.
//
// In all ways to play it the systems keep the key of each call of the Breakwater side and answer a repeated one without a second effect; a
// repeat is excused only if the worker that had made the call died before it was recorded as done, and counts as a second
// effect otherwise.
//
//	go run ./examples/blackfriday -redis start -kill
//
// has the queue in Redis: -redis is the address of a server, or "start" for a private one, which keeps an append-only file that is written before each
// answer (appendonly yes, appendfsync always). With -kill that server is killed with SIGKILL all through the storm too, and started again
// with what is on its disk; one that was there before is left alone. Redis has no transaction for an effect and a job's completion: the database is a
// system like the ERP then. After the storm all keys of the queue are walked: any that contradict each other, and
// any job that is left, are a broken promise.
//
// Exit status 1: Breakwater broke a promise. 2: the storm was too weak to hurt the classic side, or killed no
// worker of the other in the midst of a job, or no server that had requests under way, or its own Redis only when nothing was, so that it proved nothing. (go run prints the status and exits 1 for both.)
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

	"github.com/redis/go-redis/v9/logging"

	"github.com/breakwater-go/breakwater/internal/redisserver"
)

// options are the storm's, the same in every process.
type options struct {
	Orders int
	Shops  int
	Seed   uint64
	Scale  float64

	DB     string // the SQLite file of the Breakwater side
	Memory bool   // no file
	Redis  string // instead of the file: the address of a server
	Space  string // of the storm's keys there
	Kill   bool

	server *redisserver.Server // the one at that address, in the process that has started it; nil if it is not ours
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
	logging.Disable() // a Redis that is away is part of the storm
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
	flag.Float64Var(&o.Scale, "scale", 0, "how many times faster than real the clock runs (default 12, with -kill 6)")
	flag.StringVar(&o.DB, "db", "", "new SQLite `file` for the Breakwater side, kept in the end (default one in a temporary directory)")
	flag.BoolVar(&o.Memory, "memory", false, "keep the Breakwater side's queue in memory instead")
	flag.StringVar(&o.Redis, "redis", "", "keep the Breakwater side's queue in the Redis at `address`, in a space of its own; \"start\" starts a private server")
	flag.BoolVar(&o.Kill, "kill", false, "run the Breakwater side in processes and kill them all through the storm, and the Redis of -redis start; not with -memory")
	asJSON := flag.Bool("json", false, "end with one line of JSON")
	flag.Parse()
	if o.Scale == 0 {
		o.Scale = 12
		if o.Kill { // six processes share the machine and the file
			o.Scale = 6
		}
	}
	if o.Orders < 1 || o.Shops < 2 || !(o.Scale > 0) {
		exitOn(errors.New("-orders must be at least 1, -shops 2, and -scale positive"))
	}
	if o.Memory && (o.Kill || o.DB != "") {
		exitOn(errors.New("-memory does not go with -kill, whose processes share a file, nor with -db"))
	}
	if o.Redis != "" && (o.Memory || o.DB != "") {
		exitOn(errors.New("-redis does not go with -memory or -db: the queue is in one place"))
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	done, err := place(&o)
	exitOn(err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	classic, breakwater, err := storm(ctx, os.Stdout, o)
	stop()
	broken, weak := judge(classic, breakwater)
	done(err == nil && broken != "")
	exitOn(err)
	report(os.Stdout, classic, breakwater)
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
	switch {
	case o.Redis == "":
	case o.server != nil:
		fmt.Fprintf(out, "Breakwater's queue is in a Redis of the storm's own at %s, space %s\n", o.Redis, o.Space)
	case o.Kill:
		fmt.Fprintf(out, "Breakwater's queue is in the Redis at %s, space %s; that server is not ours, and is not killed\n", o.Redis, o.Space)
	default:
		fmt.Fprintf(out, "Breakwater's queue is in the Redis at %s, space %s\n", o.Redis, o.Space)
	}
	if classic, err = stormOn(ctx, out, "classic", o, truth); err != nil {
		return classic, breakwater, err
	}
	breakwater, err = stormOn(ctx, out, "breakwater", o, truth)
	return classic, breakwater, err
}

func stormOn(ctx context.Context, out io.Writer, name string, o options, truth []event) (ledger, error) {
	s, err := newSide(ctx, name, o, truth)
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
