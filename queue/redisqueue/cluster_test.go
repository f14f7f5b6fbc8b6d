package redisqueue_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/brokertest"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	used := map[int]bool{}
	for p := range 5 {
		slot, err := client.ClusterKeySlot(t.Context(), "{breakwater:"+strconv.Itoa(p)+"}:g1").Result()
		require.NoError(t, err)
		used[c.Owner(t, int(slot))] = true
	}
	require.Len(t, used, 3, "five partitions are on all three nodes")
	brokertest.Run(t, brokertest.Config{
		New:       func(t testing.TB) brokertest.Engine { t.Helper(); return newTimed(t, client, 5) },
		Sleep:     sleep,
		Sequences: 4, Steps: 80,
	})
}

// TestSlotsMoveWhileJobsFlow moves the slots of a space from node to node, more than once, under load.
func TestSlotsMoveWhileJobsFlow(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	const partitions = 3
	l := brokertest.NewLoad(t, redisqueue.New(client, redisqueue.Config{Partitions: partitions}))
	l.Work(10 * time.Second)
	l.Work(10 * time.Second)
	stop := l.Enqueue()
	for round := range 2 {
		for p := range partitions {
			l.More(100)
			slot, err := client.ClusterKeySlot(t.Context(), "{breakwater:"+strconv.Itoa(p)+"}:g1").Result()
			require.NoError(t, err)
			c.Move(t, int(slot), (c.Owner(t, int(slot))+1+round)%3)
		}
	}
	l.More(200)
	stop()
	l.Drained()
	require.Zero(t, l.Twice())
}

// TestBulkEnqueueAcrossClusterSlotsReportsEachJob has one batch for several nodes, of which one is away.
func TestBulkEnqueueAcrossClusterSlotsReportsEachJob(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	const partitions = 6
	q, err := queue.New(redisqueue.New(client, redisqueue.Config{Partitions: partitions}), queue.Config{})
	require.NoError(t, err)
	jobs := make([]queue.Job, 60)
	for i := range jobs {
		jobs[i] = queue.Job{Kind: "k", Group: "shop" + strconv.Itoa(i), DedupeKey: strconv.Itoa(i)}
	}
	receipts, err := q.Enqueue(t.Context(), jobs...)
	require.NoError(t, err)
	for i, r := range receipts {
		require.False(t, r.Duplicate)
		require.NotEmpty(t, r.ID, i)
	}
	require.NoError(t, c.Servers[1].Pause())
	for i := range jobs {
		jobs[i].DedupeKey += " again"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	receipts, err = q.Enqueue(ctx, jobs...)
	require.Error(t, err)
	require.NoError(t, c.Servers[1].Resume())
	accepted := 0
	for _, r := range receipts {
		if r.ID != "" {
			accepted++
		}
	}
	require.Positive(t, accepted, "the other nodes have theirs")
	require.Less(t, accepted, len(jobs))
	again, err := q.Enqueue(t.Context(), jobs...)
	require.NoError(t, err)
	for i, r := range receipts {
		if r.ID != "" {
			require.Equal(t, queue.Receipt{ID: r.ID, Duplicate: true}, again[i], "it was reported, so it is there")
		}
	}
	s, err := q.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2*len(jobs), s.Jobs)
}

// TestNodeThatIsAwayKeepsNobodyFromTheOthers has a process start while one primary of three is away.
func TestNodeThatIsAwayKeepsNobodyFromTheOthers(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	const partitions = 6
	enqueue := func(client redis.UniversalClient) (accepted int) {
		q, err := queue.New(redisqueue.New(client, redisqueue.Config{Partitions: partitions}), queue.Config{})
		require.NoError(t, err)
		jobs := make([]queue.Job, 60)
		for i := range jobs {
			jobs[i] = queue.Job{Kind: "k", Group: "shop" + strconv.Itoa(i)}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		receipts, err := q.Enqueue(ctx, jobs...)
		for _, r := range receipts {
			if r.ID != "" {
				accepted++
			}
		}
		require.Equal(t, err == nil, accepted == len(jobs))
		return accepted
	}
	require.Equal(t, 60, enqueue(client))
	for _, node := range c.Nodes {
		require.NoError(t, node.ConfigSet(t.Context(), "cluster-require-full-coverage", "no").Err())
	}
	slot, err := client.ClusterKeySlot(t.Context(), "{breakwater:0}:g1").Result()
	require.NoError(t, err)
	away := c.Owner(t, int(slot)) // even the one that decides how many partitions there are
	require.NoError(t, c.Servers[away].Pause())
	defer c.Servers[away].Resume() //nolint:errcheck // the test is over
	young := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{c.Nodes[(away+1)%3].Options().Addr, c.Nodes[(away+2)%3].Options().Addr}, ReadTimeout: 500 * time.Millisecond, DialTimeout: 500 * time.Millisecond})
	defer young.Close() //nolint:errcheck // as above
	accepted := enqueue(young)
	require.Positive(t, accepted)
	require.Less(t, accepted, 60)
}

// TestPartitionsAreChanged is the way that docs/redis.md describes: a new space beside the old one, whose workers begin when the old one
// is empty.
func TestPartitionsAreChanged(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	before := redisqueue.New(client, redisqueue.Config{})
	old, err := queue.New(before, queue.Config{})
	require.NoError(t, err)
	after, err := queue.New(redisqueue.New(client, redisqueue.Config{Space: "breakwater2", Partitions: 4}), queue.Config{})
	require.NoError(t, err)
	for i := range 200 {
		q := old
		if i >= 100 {
			q = after // from here on the processes that enqueue have the new setting
		}
		_, err := q.Enqueue(t.Context(), queue.Job{Kind: "k", Group: fmt.Sprint(i % 7), Key: fmt.Sprint(i % 7), Payload: fmt.Append(nil, i)})
		require.NoError(t, err)
	}
	order := map[string][]int{}
	done := 0
	run := func(q *queue.Queue, until int) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		mux := queue.NewMux()
		mux.Handle("k", func(_ context.Context, j queue.Job) error {
			n, err := strconv.Atoi(string(j.Payload))
			order[j.Key] = append(order[j.Key], n)
			if done++; done == until {
				stop()
			}
			return err
		})
		require.NoError(t, q.Run(ctx, mux, queue.WorkerConfig{Concurrency: 1}))
	}
	run(old, 100)
	s, err := old.Stats(t.Context())
	require.NoError(t, err)
	require.Zero(t, s.Jobs+s.Scheduled)
	run(after, 200)
	for key, numbers := range order {
		require.IsIncreasing(t, numbers, key)
	}

	// And nobody uses a space with another number by mistake.
	wrong, err := queue.New(redisqueue.New(client, redisqueue.Config{Partitions: 4}), queue.Config{})
	require.NoError(t, err)
	_, err = wrong.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.ErrorIs(t, err, redisqueue.ErrPartitions)
	require.ErrorContains(t, err, "4")

	// Somebody who only looks notes nothing.
	look, err := queue.New(redisqueue.New(client, redisqueue.Config{Space: "new"}), queue.Config{})
	require.NoError(t, err)
	_, err = look.Stats(t.Context())
	require.NoError(t, err)
	first, err := queue.New(redisqueue.New(client, redisqueue.Config{Space: "new", Partitions: 2}), queue.Config{})
	require.NoError(t, err)
	_, err = first.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.NoError(t, err)
	_, err = look.Stats(t.Context())
	require.NoError(t, err, "it has looked already")
	_, err = look.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.ErrorIs(t, err, redisqueue.ErrPartitions)
}
