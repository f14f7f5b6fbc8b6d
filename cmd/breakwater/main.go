// Command breakwater is the operator's tool. Today it has one command, which
// sends a signed webhook to anybody's handler, as Shopify would:
//
//	breakwater send orders/create -to http://localhost:8080/webhooks -secret $SECRET
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
)

const usage = `usage: breakwater <command> [arguments]

commands:
  send    webhooks to a handler, as Shopify would

breakwater <command> -h explains a command.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "breakwater:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "breakwater:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return fmt.Errorf("%w: no command given", errUsage)
	}
	switch args[0] {
	case "send":
		return send(ctx, args[1:], stdout)
	case "-h", "-help", "--help", "help":
		fmt.Fprint(stdout, usage)
		return nil
	default:
		fmt.Fprint(stderr, usage)
		return fmt.Errorf("%w: no command %q", errUsage, args[0])
	}
}
