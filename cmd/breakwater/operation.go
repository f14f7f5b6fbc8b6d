package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	envRedis     = "BREAKWATER_REDIS"
	payloadAbout = "show headers and payload: text as it is, else base64"
)

// operation is a command that looks after queues.
type operation struct {
	name, args, about string
	more              string                                  // what -h says besides; ends with an empty line
	build             func(*call) func(context.Context) error // adds flags, and answers what to do once they are parsed
}

// engine is what an operation needs of whatever keeps the queues.
type engine interface {
	queue.Broker
	queue.Operator
	Check(ctx context.Context) (problems []string, err error)
}

// call is one run of an operation.
type call struct {
	flags *flag.FlagSet
	args  []string // those that are no flags
	out   io.Writer
	notes io.Writer // for people, beside the data

	redis, space, name string
	partitions         int
	json, payload      bool

	server string // where the engine is, without secrets
	engine engine
	queue  *queue.Queue
}

func (o operation) command() command { return command{o.name, o.about, o.run} }

func (o operation) run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	c := &call{flags: flag.NewFlagSet(o.name, flag.ContinueOnError), out: stdout, notes: stderr}
	c.flags.SetOutput(io.Discard) // errors are printed once, by main
	c.flags.StringVar(&c.redis, "redis", "", "host:port or redis:// or rediss:// `URL`, the place for user and password; several with commas between are a Cluster; $"+envRedis+" by default")
	c.flags.StringVar(&c.space, "space", "", "`name` of the space that the queues are in; as redisqueue.Config.Space, \"breakwater\" by default")
	c.flags.IntVar(&c.partitions, "partitions", 1, "how many partitions the space has; as redisqueue.Config.Partitions")
	c.flags.BoolVar(&c.json, "json", false, "print JSON objects, one a line")
	do := o.build(c)
	c.args, err = parse(c.flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(stdout, "usage: breakwater %s [flags]\n\n%s.\n\n%s", strings.TrimSpace(o.name+" "+o.args), strings.ToUpper(o.about[:1])+o.about[1:], o.more)
		c.flags.SetOutput(stdout)
		c.flags.PrintDefaults()
		return nil
	case err == nil && o.args == "" && len(c.args) > 0:
		err = fmt.Errorf("%q is one argument too many", c.args[0])
	}
	var client redis.UniversalClient
	if err == nil {
		client, c.server, err = dial(cmp.Or(c.redis, os.Getenv(envRedis)))
	}
	if err == nil {
		defer client.Close() //nolint:errcheck // nothing is left to be sent
		err = c.open(client)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w (breakwater %s -h explains)", errUsage, o.name, err, o.name)
	}
	if err = do(ctx); err != nil {
		return fmt.Errorf("%s: %w", o.name, c.explain(err))
	}
	return nil
}

// ofQueue adds the flag that names a queue.
func (c *call) ofQueue() { c.flags.StringVar(&c.name, "queue", "default", "`name` of the queue") }

// ofListing adds the flags of what lists jobs.
func (c *call) ofListing() *positive {
	c.flags.BoolVar(&c.payload, "payload", false, payloadAbout)
	limit := positive(100)
	c.flags.Var(&limit, "limit", "show at most `n`")
	return &limit
}

// positive is a flag of 1 or more.
type positive int

func (p *positive) String() string { return strconv.Itoa(int(*p)) }

func (p *positive) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 {
		return errors.New("want 1 or more")
	}
	*p = positive(n)
	return nil
}

// parse parses args, in which flags may stand before the rest, after it or among it.
func parse(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}
