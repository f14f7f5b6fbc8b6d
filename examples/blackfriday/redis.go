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

func openRedis(o options) (redisBook, *redisqueue.Broker) {
	client := dial(o)
	return redisBook{client, o.Space}, redisqueue.New(client, redisqueue.Config{Space: o.Space})
}

// inspect looks at what the storm has left in Redis: keys that contradict each other, and jobs that nobody has done.
func inspect(ctx context.Context, o options) (problems []string, err error) {
	book, broker := openRedis(o)
	defer book.close() //nolint:errcheck // it was only read
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

// redisBook keeps its notes beside the queue's keys. Redis has no transaction for an effect and a job's completion, so the
// database is a system like the others.
type redisBook struct {
	client *redis.Client
	space  string
}

var _ book = redisBook{}

func (b redisBook) make(context.Context) error { return nil }

func (b redisBook) stepsKey(job string) string { return b.space + ":steps:" + job }

func (b redisBook) notedKey() string { return b.space + ":noted" }

func (b redisBook) steps(ctx context.Context, job string) (systems []string, err error) {
	err = patiently(ctx, func() (err error) {
		systems, err = b.client.SMembers(ctx, b.stepsKey(job)).Result()
		return err
	})
	return systems, err
}

// did may write a note twice, when Redis dies with its answer; it says the same.
func (b redisBook) did(ctx context.Context, batch []note) error {
	return patiently(ctx, func() error {
		_, err := b.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
			for _, n := range batch {
				tx.SAdd(ctx, b.stepsKey(n.job), n.system)
				tx.RPush(ctx, b.notedKey(), keyOf(n.job, n.system))
			}
			return nil
		})
		return err
	})
}

func (b redisBook) read(ctx context.Context, after *mark) (keys []string, effects []effect, err error) {
	err = patiently(ctx, func() (err error) {
		keys, err = b.client.LRange(ctx, b.notedKey(), int64(after.notes), -1).Result()
		return err
	})
	after.notes += len(keys)
	return keys, nil, err
}

func (b redisBook) close() error { return b.client.Close() }

const (
	// patience is how long a book waits for a Redis that is being started again. The workers' calls that are made and not noted
	// would be made twice if it gave up earlier.
	patience = 20 * time.Second
	// impatience is how often it looks.
	impatience = 20 * time.Millisecond
)

// patiently tries until it works, or ctx ends.
func patiently(ctx context.Context, do func() error) error {
	for end := time.Now().Add(patience); ; {
		err := do()
		if err == nil || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(impatience):
		case <-ctx.Done():
			return err
		}
	}
}
