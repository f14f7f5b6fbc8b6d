// Command catalog serves a storefront from a cache while a merchant changes what it shows, and judges how old each answer was.
//
//	go run ./examples/catalog
//
// starts a private Redis (redis-server has to be installed; -redis ADDR takes one that is there), a fake Admin API, and two server processes that show its products. For 20 seconds a merchant changes, deletes and creates products, the
// webhooks of that are delivered to either server, some twice, slowly, or not at all, and a crowd reads: a few products much, and most of them little. Answers of the Admin API now and then take so long that the product has changed by
// the time that they are there.
//
// The servers have products in two ways, which get the same requests. One is what everybody writes: GET from Redis, ask the shop and SET with a time to live if it is not there, DEL at a webhook (recipe.go). The other is a cache.Cache
// over the same Redis, that webhooks invalidate at the door, before they are queued and acknowledged (server.go).
//
// This process knows when each version of a product was committed, and when its webhook was acknowledged by which server. Each answer of a storefront says by its price and title which version it is, and is held to three bounds:
//
//   - a process that has acknowledged a webhook never answers anything older to a request that begins later;
//   - the other process doesn't, from Config.MaxLag after that on, and normally some milliseconds;
//   - nothing is older than the TTL, if its webhook never came.
//
// Behind the queue a job for each webhook tells a search index of the product, as the cache has it; in the end that must not have anything older than what was acknowledged either.
//
// Read server.go first, then product.go and recipe.go: they are the storefront. The merchant, the courier of webhooks and the crowd of readers are in files of their names; judge.go holds the answers against what has happened.
//
// Exit status 1: the cache has passed a bound, or anything else went wrong. What the recipe did is a figure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/redis/go-redis/v9/logging"
)

// options are those of a run, the same in every process.
type options struct {
	Duration time.Duration
	Products int
	Seed     uint64
	Redis    string // the address of a server
	Space    string // of the keys there

	TTL    time.Duration // of both ways
	MaxLag time.Duration
	Every  time.Duration // there is a change in the shop
}

// defaults are those of a run of 20 seconds: products are cached for less long than shopify.CacheConfig says, so that it sees the end of that too.
func defaults() options {
	return options{Duration: 20 * time.Second, Products: 300, Seed: 1, Redis: startRedis, TTL: 6 * time.Second, MaxLag: 2 * time.Second, Every: 40 * time.Millisecond}
}

func main() {
	logging.Disable() // what goes wrong with Redis is in the errors
	if len(os.Args) == 3 {
		if role := roles[os.Args[1]]; role != nil { // a child process
			exitOn(role(os.Args[2]))
			return
		}
	}
	o := defaults()
	flag.DurationVar(&o.Duration, "duration", o.Duration, "for how long there are changes and reads")
	flag.IntVar(&o.Products, "products", o.Products, "products in the shop")
	flag.Uint64Var(&o.Seed, "seed", o.Seed, "seed of what is read and changed; 0 draws one")
	flag.StringVar(&o.Redis, "redis", o.Redis, "`address` of a Redis, of which a space of its own is used; \"start\" starts a private server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	r, err := run(ctx, o, os.Stdout)
	exitOn(err)
	r.print(os.Stdout)
	exitOn(r.check())
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "catalog:", err)
		os.Exit(1)
	}
}

// run is the whole of it.
func run(ctx context.Context, o options, out io.Writer) (r result, err error) {
	if o.Products < pageSize || o.Duration <= 0 {
		return r, fmt.Errorf("-products is %d and -duration %v; want at least %d products, for a while", o.Products, o.Duration, pageSize)
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	done, err := place(ctx, &o)
	if err != nil {
		return r, err
	}
	defer done()
	w, err := newWorld(o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Fprintf(out, "%d products, a change every %v, TTL %v, %d servers over the Redis at %s; seed %d\n", o.Products, o.Every, o.TTL, servers, o.Redis, o.Seed)
	if err := w.play(ctx, out); err != nil {
		return r, err
	}
	return w.result(ctx)
}
