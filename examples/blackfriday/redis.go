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

// startRedis is the value of -redis for a server of the storm's own.
const startRedis = "start"

// placeRedis gives the storm a space of its own, on the server of -redis or on one that it starts.
func placeRedis(o *options) (done func(wrong bool), err error) {
	o.Space = "blackfriday-" + strconv.FormatUint(rand.Uint64(), 36)
	if o.Redis != startRedis {
		return func(wrong bool) {
			if wrong {
				fmt.Fprintf(os.Stderr, "blackfriday: the storm's keys are kept in Redis at %s: {%s:0}:* and %s:*\n", o.Redis, o.Space, o.Space)
				return
			}
			if err := sweep(*o); err != nil {
				fmt.Fprintln(os.Stderr, "blackfriday: the storm's keys could not be deleted:", err)
			}
		}, answers(*o)
	}
	dir, err := os.MkdirTemp("", "blackfriday-")
	if err != nil {
		return nil, err
	}
	if o.server, err = redisserver.Start(dir, "--appendonly", "yes", "--appendfsync", "always"); err != nil {
		_ = os.RemoveAll(dir) // it is in the temporary directory
		return nil, err
	}
	o.Redis = o.server.Addr
	return func(wrong bool) {
		_ = o.server.Kill() // it dies with this process at the latest
		if wrong {
			fmt.Fprintf(os.Stderr, "blackfriday: the files of Redis are kept: %s (space %s)\n", dir, o.Space)
			return
		}
		_ = os.RemoveAll(dir) // it is in the temporary directory
	}, nil
}

// answers sees, before the storm, that the server is there and can keep a queue.
func answers(o options) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := inspect(ctx, o)
	return err
}

func dial(o options) *redis.Client { return redis.NewClient(&redis.Options{Addr: o.Redis}) }

// inspect looks at what the storm has left in Redis: keys that contradict each other, and jobs that nobody has done.
func inspect(ctx context.Context, o options) (problems []string, err error) {
	client := dial(o)
	defer client.Close() //nolint:errcheck // it was only read
	broker := redisqueue.New(client, redisqueue.Config{Space: o.Space})
	jobs, err := queue.New(broker, queue.Config{})
	if err != nil {
		return nil, err
	}
	if problems, err = broker.Check(ctx); err != nil {
		return nil, err
	}
	stats, err := jobs.Stats(ctx)
	if err != nil {
		return nil, err
	}
	if left := stats.Jobs + stats.Scheduled; left > 0 {
		problems = append(problems, fmt.Sprintf("%d jobs are left in the queue", left))
	}
	return problems, nil
}

// sweep deletes what the storm has left in a Redis that is not ours.
func sweep(o options) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
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
