// Command bench measures Breakwater beside peer libraries and beside code written by hand, in one
// process, and verifies the outcome of every run:
//
//	go run ./bench webhook [-json] [-rounds n] [-time d]
//	go run ./bench queue [-engine memory|sqlite|redis] [-json] [-rounds n]
//	go run ./bench idempotency [-redis address] [-json] [-rounds n]
//	go run ./bench breaker [-json] [-rounds n] [-time d]
//	go run ./bench cache [-redis address] [-json] [-rounds n] [-keys n] [-part name]
//	go run ./bench outage [-json] [-svg directory]
//	go run ./bench cost FILE
//	go run ./bench replay FILE
//	go run ./bench quota [-json] [-svg directory]
//	go run ./bench shopify [-json] [-rounds n] [-time d]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run hands args to the benchmark that the first of them names.
func run(ctx context.Context, args []string, out io.Writer) error {
	benchmarks := map[string]func(context.Context, []string, io.Writer) error{
		"breaker":     benchBreaker,
		"cache":       benchCache,
		"cost":        benchCost,
		"replay":      benchReplay,
		"idempotency": benchIdempotency,
		"outage":      benchOutage,
		"queue":       benchQueue,
		"quota":       benchQuota,
		"shopify":     benchShopify,
		"webhook":     benchWebhook,
	}
	const usage = "usage: bench breaker|cache|cost|idempotency|outage|queue|quota|replay|shopify|webhook [flags]; bench queue -h lists them"
	if len(args) == 0 {
		return errors.New(usage)
	}
	bench, ok := benchmarks[args[0]]
	if !ok {
		return fmt.Errorf("bench: no benchmark %q; %s", args[0], usage)
	}
	return bench(ctx, args[1:], out)
}
