package integration_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

const (
	redisKills = 40
	// redisLease is short, so that what a killed process had comes back while the test runs, and long enough for heartbeats on a busy machine.
	redisLease = 2 * time.Second
)

// redisWorker works, and prints each effect once it is done, with when it began and ended. args: the server's address.
func redisWorker(args []string) error {
	client := redis.NewClient(&redis.Options{Addr: args[0]})
	q, err := queue.New(redisqueue.New(client, redisqueue.Config{}), queue.Config{})
	if err != nil {
		return err
	}
	mux := queue.NewMux()
	mux.Handle("k", func(ctx context.Context, j queue.Job) error {
		began := time.Now().UnixNano()
		select {
		case <-time.After(rand.N(10 * time.Millisecond)): // so that a kill finds it at work
		case <-ctx.Done():
			return ctx.Err()
		}
		_, err := fmt.Fprintf(os.Stdout, "did %s %s %d %d\n", j.Key, j.Payload, began, time.Now().UnixNano()) // at once: no buffer that dies with the process
		return err
	})
	_, _ = os.Stdout.WriteString("works\n")
	return q.Run(context.Background(), mux, queue.WorkerConfig{Concurrency: 8, Lease: redisLease})
}

// TestP4RedisWorkersAreKilled kills worker processes mid-job, one after the other, under load.
//
// P4: "In order per key. Jobs of one group, class and ordering key run one at a time, in the order they entered their lane, retries included"
func TestP4RedisWorkersAreKilled(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	next := map[string]int{}
	enqueue := func(n int) {
		jobs := make([]queue.Job, n)
		for i := range jobs {
			key := strconv.Itoa(rand.IntN(200))
			jobs[i] = queue.Job{Kind: "k", Group: "shop" + key[:1], Key: key, Payload: []byte(strconv.Itoa(next[key])), MaxCrashes: 100}
			next[key]++
		}
		_, err := q.Enqueue(t.Context(), jobs...)
		require.NoError(t, err)
	}
	var said [][]string
	running := []*child{startChild(t, "redis-worker", s.Addr), startChild(t, "redis-worker", s.Addr)}
	for i := range redisKills {
		c := running[i%2]
		least := 1 + rand.IntN(20) // the moment is what is tried
		require.Eventually(t, func() bool {
			enqueue(10) // until this one has something to do, too
			return len(c.said()) > least
		}, time.Minute, 20*time.Millisecond)
		said = append(said, c.kill(t))
		running[i%2] = startChild(t, "redis-worker", s.Addr)
	}
	inOrder(t, said)
	require.Eventually(t, func() bool {
		s, err := q.Stats(t.Context())
		return err == nil && s.Jobs == 0
	}, time.Minute, 20*time.Millisecond)
	for _, c := range running {
		said = append(said, c.kill(t))
	}

	times := inOrder(t, said)
	repeated := 0
	for key, n := range next {
		for i := range n {
			done := times[fmt.Sprintf("%s %d", key, i)]
			require.Positive(t, done, "job %d of key %s is lost", i, key)
			repeated += done - 1
		}
	}
	require.LessOrEqual(t, repeated, redisKills*8, "no more than the slots of those that were killed")
	dead, err := q.Dead(t.Context(), queue.DeadFilter{})
	require.NoError(t, err)
	require.Empty(t, dead)
	problems, err := b.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, problems)
}

// inOrder reads what processes have said, on one machine's clock: the runs of a key follow each other in order, one at a time. It answers how often
// each job was done, by key and number.
func inOrder(t testing.TB, said [][]string) map[string]int {
	t.Helper()
	type run struct {
		number       int
		began, ended int64
	}
	runs := map[string][]run{}
	for _, line := range slices.Concat(said...) {
		var key string
		var r run
		if n, _ := fmt.Sscanf(line+"\n", "did %s %d %d %d\n", &key, &r.number, &r.began, &r.ended); n == 4 { // else the first line, or one that was cut
			runs[key] = append(runs[key], r)
		}
	}
	times := map[string]int{}
	for key, all := range runs {
		slices.SortFunc(all, func(a, b run) int { return cmp.Compare(a.began, b.began) })
		for i, r := range all {
			times[fmt.Sprintf("%s %d", key, r.number)]++
			if i > 0 {
				require.LessOrEqual(t, all[i-1].ended, r.began, "key %s: two at once: %+v and %+v", key, all[i-1], r)
				require.LessOrEqual(t, all[i-1].number, r.number, "key %s: out of order: %+v and %+v", key, all[i-1], r)
			}
		}
	}
	return times
}
