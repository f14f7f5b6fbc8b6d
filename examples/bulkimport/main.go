// Command bulkimport imports product CSVs over HTTP: POST the file, follow the import, read which rows were bad. The process
// may be killed at any moment; the import goes on where it was, and no row is imported twice.
//
//	go run ./examples/bulkimport
//
// shows all of it once: it serves, makes a CSV of 10,000 rows in the shape of Shopify's product export, some of them bad, posts it to itself,
// draws the progress, prints the result, and counts in the database that every row is there once.
//
//	go run ./examples/bulkimport -kill
//
// does so with a server that is a process of its own, which is killed with SIGKILL five times in mid-import and started again.
//
//	go run ./examples/bulkimport -serve
//
// keeps serving, with a page to upload files. Kill it and start it again: what was being imported goes on.
//
// How it works. The CSV is the payload of a tracked job, so that 202 means that the file is stored. The handler reads it in chunks of 250 rows. A
// chunk's products, its bad rows and the position behind it are written in one transaction, which begins with
//
//	UPDATE imports SET at = <behind> WHERE id = <the job's> AND at = <before>
//
// So a chunk and its position are there together or not at all: whoever runs the job next begins at the position. And of two
// that are at the same chunk, for instance a worker that was taken for dead and its successor, one changes a row and the other none: that one
// has written nothing, and looks again where the import is.
//
// Exit status 1: a row is missing, is there twice, or anything else went wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

type options struct {
	Rows  int
	Seed  uint64
	DB    string
	Addr  string
	Pace  time.Duration
	Serve bool
	Kills int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	switch err := run(ctx, os.Args[1:], os.Stdout); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bulkimport:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("bulkimport", flag.ContinueOnError)
	flags.IntVar(&o.Rows, "rows", 10_000, "rows of the CSV")
	flags.Uint64Var(&o.Seed, "seed", 1, "seed of the CSV")
	flags.StringVar(&o.DB, "db", "", "SQLite `file` (default one in a temporary directory; with -serve imports.db)")
	flags.StringVar(&o.Addr, "addr", "localhost:8080", "where -serve listens")
	flags.DurationVar(&o.Pace, "pace", 100*time.Millisecond, "what a chunk of 250 rows takes beside the database: a real import calls an API")
	flags.BoolVar(&o.Serve, "serve", false, "serve until interrupted")
	kill := flags.Bool("kill", false, "kill the server in mid-import and start it again, five times")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("there are no arguments but flags, and %q is none", flags.Arg(0))
	case o.Rows < 1:
		return fmt.Errorf("-rows is %d; want 1 or more", o.Rows)
	case o.Serve && *kill:
		return errors.New("-serve and -kill do not go together: kill it yourself")
	case *kill:
		o.Kills = 5
	}
	if o.Serve {
		if o.DB == "" {
			o.DB = "imports.db"
		}
		return serve(ctx, o, out)
	}
	if o.DB == "" {
		dir, err := os.MkdirTemp("", "bulkimport-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // it is in the temporary directory
		o.DB = filepath.Join(dir, "imports.db")
	}
	return demo(ctx, o, out)
}

// serve is -serve, and what a child process does.
func serve(ctx context.Context, o options, out io.Writer) error {
	if os.Getenv(childEnv) != "" {
		var alone context.CancelFunc
		ctx, alone = untilAlone(ctx)
		defer alone()
	}
	s, err := open(o, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	fmt.Fprintf(out, "http://%s/\n", l.Addr())
	return s.run(ctx, l)
}
