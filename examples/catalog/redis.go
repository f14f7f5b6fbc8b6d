package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/internal/redisserver"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// startRedis is the value of -redis for a server of the program's own.
const startRedis = "start"

// place gives the program a space of its own, on the server of -redis or on one that it starts. done deletes it.
func place(ctx context.Context, o *options) (done func(), err error) {
	o.Space = "catalog-" + strconv.FormatUint(rand.Uint64(), 36)
	if o.Redis != startRedis {
		if err := answers(ctx, *o); err != nil {
			return nil, err
		}
		return func() {
			if err := sweep(context.WithoutCancel(ctx), *o); err != nil {
				fmt.Fprintln(os.Stderr, "catalog: the keys in Redis could not be deleted:", err)
			}
		}, nil
	}
	dir, err := os.MkdirTemp("", "catalog-")
	if err != nil {
		return nil, err
	}
	// A queue keeps jobs that nobody has done yet, and a server that evicts keys is refused. A server for caches alone may evict what it likes.
	own, err := redisserver.Start(dir, "--appendonly", "yes", "--maxmemory-policy", "noeviction")
	if err != nil {
		_ = os.RemoveAll(dir) // it is in the temporary directory
		return nil, err
	}
	o.Redis = own.Addr
	return func() {
		_ = own.Kill() // it dies with this process at the latest
		_ = os.RemoveAll(dir)
	}, nil
}

func dial(o options) *redis.Client { return redis.NewClient(&redis.Options{Addr: o.Redis}) }

// answers sees that the server is there and can keep a queue.
func answers(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := waiting(ctx, o)
	return err
}

// waiting is how many jobs the queue has, those that are being worked on among them. Dead letters are an error.
func waiting(ctx context.Context, o options) (int, error) {
	client := dial(o)
	defer client.Close() //nolint:errcheck // it was only read
	jobs, err := queue.New(redisqueue.New(client, redisqueue.Config{Space: o.Space}), queue.Config{})
	if err != nil {
		return 0, err
	}
	s, err := jobs.Stats(ctx)
	if err == nil && s.Dead > 0 {
		err = fmt.Errorf("%d jobs are dead letters", s.Dead)
	}
	return s.Jobs + s.Scheduled, err
}

// sweep deletes all keys of the space.
func sweep(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := dial(o)
	defer client.Close() //nolint:errcheck // what it was asked is done
	for _, pattern := range []string{"{" + o.Space + ":*", o.Space + ":*"} {
		keys := client.Scan(ctx, 0, pattern, 1000).Iterator()
		for keys.Next(ctx) {
			if err := client.Unlink(ctx, keys.Val()).Err(); err != nil {
				return err
			}
		}
		if err := keys.Err(); err != nil {
			return err
		}
	}
	return nil
}
