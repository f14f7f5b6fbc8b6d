// Command breakwater is the operator's tool. It looks after queues in Redis, and sends signed webhooks to
// anybody's handler, as Shopify would:
//
//	export BREAKWATER_REDIS=redis://localhost:6379
//	breakwater queues
//	breakwater dead ls -queue orders
//	breakwater send orders/create -to http://localhost:8080/webhooks -secret $SECRET
//
// It exits with 0 if all went well, 1 if something failed or was found, 2 if it was called wrongly. docs/operations.md
// shows the commands at work.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9/logging"
)

func main() {
	logging.Disable() // what fails is said once, by the error
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "breakwater:", text(err.Error()))
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "breakwater:", text(err.Error()))
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

// command is one of the tool's.
type command struct {
	name  string // its words: "dead ls"
	about string // for the list of commands
	run   func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	return []command{
		{"send", "webhooks to a handler, as Shopify would", func(ctx context.Context, args []string, stdout, _ io.Writer) error {
			return send(ctx, args, stdout)
		}},
		operation{name: "queues", about: "every queue, with what it holds", build: queues}.command(),
		operation{name: "jobs", about: "the jobs that wait, run or are scheduled", build: jobs}.command(),
		operation{name: "dead ls", about: "the dead letters, oldest first", build: deadList}.command(),
		operation{name: "dead show", args: "ID", about: "one dead letter, with all that went wrong", build: deadShow}.command(),
		operation{name: "dead replay", args: "[ID ...]", about: "make dead letters into jobs again", more: dryRun, build: deadReplay}.command(),
		operation{name: "dead drop", args: "[ID ...]", about: "forget dead letters for good", more: dryRun, build: deadDrop}.command(),
		operation{name: "pause", about: "let no worker claim from a queue; enqueues go on", build: pause}.command(),
		operation{name: "resume", about: "end a pause", build: resume}.command(),
		operation{name: "park", about: "keep a group from being claimed for a while", build: park}.command(),
		operation{name: "purge", about: "erase the jobs of a group, key or kind, wherever they are", more: dryRun, build: purge}.command(),
		operation{name: "check", about: "walk all keys of the space and say what contradicts the invariants", more: checkMore, build: check}.command(),
		operation{name: "tail", about: "follow a queue: its counts and new dead letters, until interrupted", build: tail}.command(),
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	all := commands()
	for _, c := range all {
		if words := strings.Fields(c.name); len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c.run(ctx, args[len(words):], stdout, stderr)
		}
	}
	family := "" // "dead ", if that is where args lead
	if len(args) > 0 && slices.ContainsFunc(all, func(c command) bool { return strings.HasPrefix(c.name, args[0]+" ") }) {
		family, args = args[0]+" ", args[1:]
	}
	switch {
	case len(args) == 0:
		list(stderr, all, family)
		return fmt.Errorf("%w: no command given", errUsage)
	case slices.Contains([]string{"-h", "-help", "--help", "help"}, args[0]):
		list(stdout, all, family)
		return nil
	default:
		list(stderr, all, family)
		return fmt.Errorf("%w: no command %q", errUsage, family+args[0])
	}
}

// list prints the commands of a family; "" is all.
func list(w io.Writer, all []command, family string) {
	fmt.Fprintf(w, "usage: breakwater %s<command> [flags]\n\ncommands:\n", family)
	for _, c := range all {
		if strings.HasPrefix(c.name, family) {
			fmt.Fprintf(w, "  %-12s %s\n", c.name, c.about)
		}
	}
	fmt.Fprintln(w, "\nbreakwater <command> -h explains a command.")
}
