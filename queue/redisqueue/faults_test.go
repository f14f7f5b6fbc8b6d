package redisqueue_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/brokertest"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// always is how a server must be set up to lose nothing when it is killed.
var always = []string{"--appendonly", "yes", "--appendfsync", "always"}

// P1: "Acknowledged means durable. 200 is sent only after the job is in a durable queue."
func TestP1RedisIsKilled(t *testing.T) {
	t.Parallel()
	for _, sync := range []string{"always", "everysec"} { // what a process has written the system keeps, whenever the disk has it
		t.Run(sync, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", sync)
			l := brokertest.NewLoad(t, redisqueue.New(redistest.Dial(t, s.Addr), redisqueue.Config{}))
			l.Work(2 * time.Second)
			l.Work(2 * time.Second)
			stop := l.Enqueue()
			for range 5 {
				l.More(100)
				require.NoError(t, s.Kill())
				require.NoError(t, s.Start())
			}
			l.More(100)
			stop()
			l.Drained()
		})
	}
}

func TestRedisIsPausedForLongerThanALease(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	client := redis.NewClient(&redis.Options{Addr: s.Addr, ReadTimeout: time.Second})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	l := brokertest.NewLoad(t, redisqueue.New(client, redisqueue.Config{}))
	const lease = time.Second
	l.Work(lease)
	l.Work(lease)
	stop := l.Enqueue()
	for range 3 {
		l.More(200)
		require.NoError(t, s.Pause())
		time.Sleep(3 * lease) // the fault itself
		require.NoError(t, s.Resume())
	}
	l.More(200)
	stop()
	l.Drained()
	require.Zero(t, l.Crashes(), "no worker died: what ended while Redis was away must not count")
	require.Zero(t, l.Twice())
}

func TestScriptFlushAndReconnectMidBatchRepeatSafely(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	client := redistest.Dial(t, s.Addr)
	admin := redistest.Dial(t, s.Addr)
	l := brokertest.NewLoad(t, redisqueue.New(client, redisqueue.Config{}))
	l.Work(10 * time.Second)
	stop := l.Enqueue()
	for i := range 50 {
		l.More(20)
		require.NoError(t, admin.ScriptFlush(t.Context()).Err())
		if i%5 == 0 {
			require.NoError(t, admin.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
		}
	}
	stop()
	l.Drained()
	require.Zero(t, l.Twice())
}

func TestBlockingConnectionIsKilled(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	l := brokertest.NewLoad(t, redisqueue.New(client, redisqueue.Config{}))
	l.Work(30 * time.Second)
	blocked := func() (ids []string) {
		list, err := client.ClientList(t.Context()).Result()
		assert.NoError(t, err)
		for line := range strings.Lines(list) {
			if strings.Contains(line, "cmd=bzpopmin") {
				ids = append(ids, strings.TrimPrefix(strings.Fields(line)[0], "id="))
			}
		}
		return ids
	}
	for range 5 {
		require.Eventually(t, func() bool { return len(blocked()) > 0 }, 10*time.Second, time.Millisecond)
		for _, id := range blocked() {
			require.NoError(t, client.ClientKillByFilter(t.Context(), "ID", id).Err())
		}
		began := time.Now()
		_, err := l.Jobs.Enqueue(t.Context(), queue.Job{Kind: "k", Key: "x", Payload: []byte("1")})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			s, err := l.Jobs.Stats(t.Context())
			return err == nil && s.Jobs == 0
		}, 10*time.Second, time.Millisecond)
		require.Less(t, time.Since(began), 6*time.Second, "at the latest the worker looks by itself, after 5 s")
	}
	l.Stop()
}

// TestFullRedisRefusesWholeAndDrains is of a Redis at its maxmemory: an Enqueue is refused whole, the webhook answers 503, and
// workers go on until there is room.
func TestFullRedisRefusesWholeAndDrains(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t, "--maxmemory", "12mb").Addr)
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	payload := make([]byte, 10_000)
	accepted := 0
	for {
		batch := make([]queue.Job, 20)
		for i := range batch {
			batch[i] = queue.Job{Kind: "k", Group: fmt.Sprint("shop", i%5), Key: fmt.Sprint(i % 7), Payload: payload, DedupeKey: fmt.Sprint(accepted, "-", i), Track: i == 0}
		}
		_, err := q.Enqueue(t.Context(), batch...)
		if err == nil {
			accepted += len(batch)
			require.Less(t, accepted, 10_000)
			continue
		}
		require.ErrorContains(t, err, "maxmemory")
		s, err := q.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, accepted, s.Jobs, "refused whole")
		first, err := client.Exists(t.Context(), "{breakwater:0}:default:d:5:shop0"+batch[0].DedupeKey).Result()
		require.NoError(t, err)
		require.Zero(t, first, "no dedupe key of an enqueue that failed")
		break
	}
	require.Positive(t, accepted)
	problems, err := b.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, problems)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	mux := queue.NewMux()
	var done atomic.Int64
	mux.Handle("k", func(context.Context, queue.Job) error {
		if done.Add(1) == int64(accepted) {
			stop()
		}
		return nil
	})
	require.NoError(t, q.Run(ctx, mux, queue.WorkerConfig{Concurrency: 20}))
	require.EqualValues(t, accepted, done.Load())
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.NoError(t, err, "there is room again")
}

func TestEvictionPolicyThatMayDropJobsIsRefusedAtStart(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"allkeys-lru", "volatile-ttl", "allkeys-random"} {
		client := redistest.Dial(t, redistest.Start(t, "--maxmemory", "100mb", "--maxmemory-policy", policy).Addr)
		q, err := queue.New(redisqueue.New(client, redisqueue.Config{}), queue.Config{})
		require.NoError(t, err)
		_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
		require.ErrorIs(t, err, redisqueue.ErrServer)
		require.ErrorContains(t, err, policy)
		require.NoError(t, client.Do(t.Context(), "config", "set", "maxmemory-policy", "noeviction").Err())
		_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
		require.NoError(t, err, "it is asked again until it is fit")
	}
}

// pair is a server's replica, a client that speaks to the primary, and what cuts the replica off and makes it the primary.
func pair(t *testing.T) (replica *redisserver.Server, client *redis.Client, cutOff, promote func()) {
	t.Helper()
	a := redistest.Start(t, always...)
	_, port, err := net.SplitHostPort(a.Addr)
	require.NoError(t, err)
	b := redistest.Start(t, append([]string{"--replicaof", "127.0.0.1 " + port, "--repl-diskless-sync-delay", "0"}, always...)...)
	var addr atomic.Pointer[string]
	addr.Store(&a.Addr)
	client = redis.NewClient(&redis.Options{
		Addr: "primary:0", Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", *addr.Load())
		},
	})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	direct := redistest.Dial(t, b.Addr)
	require.Eventually(t, func() bool {
		return strings.Contains(direct.Info(t.Context(), "replication").Val(), "master_link_status:up")
	}, 20*time.Second, 10*time.Millisecond)
	cutOff = func() { require.NoError(t, direct.Do(t.Context(), "replicaof", "no", "one").Err()) }
	return b, client, cutOff, func() {
		require.NoError(t, a.Kill())
		cutOff()
		addr.Store(&b.Addr)
	}
}

func TestReplicaIsPromotedAfterItHasConfirmed(t *testing.T) {
	t.Parallel()
	_, client, _, promote := pair(t)
	l := brokertest.NewLoad(t, redisqueue.New(client, redisqueue.Config{Replicas: 1}))
	l.Work(2 * time.Second)
	stop := l.Enqueue()
	l.More(500)
	promote()
	// The new primary has no replica: nothing more is acknowledged, and all that was is done.
	stop()
	l.Drained()
}

func TestEnqueueFailsIfReplicasDoNotConfirm(t *testing.T) {
	t.Parallel()
	replica, client, _, _ := pair(t)
	l := brokertest.NewLoad(t, redisqueue.New(client, redisqueue.Config{Replicas: 1, ReplicasWithin: 100 * time.Millisecond}))
	_, err := l.Jobs.Enqueue(t.Context(), queue.Job{Kind: "k", DedupeKey: "a"})
	require.NoError(t, err)
	require.NoError(t, replica.Pause())
	_, err = l.Jobs.Enqueue(t.Context(), queue.Job{Kind: "k", DedupeKey: "b"})
	require.ErrorIs(t, err, redisqueue.ErrNotReplicated)
	require.NoError(t, replica.Resume())
	r, err := l.Jobs.Enqueue(t.Context(), queue.Job{Kind: "k", DedupeKey: "b"})
	require.NoError(t, err)
	require.True(t, r[0].Duplicate, "it is in the queue of the primary: sending it again is safe")
}

// TestAckAfterFailoverThatLostTheLeaseIsErrLeaseLostNotALoop is of a failover that loses the last moment, as one without Config.Replicas may: what is there
// goes on as it should, and no token of the lost moment is taken for one of after it.
func TestAckAfterFailoverThatLostTheLeaseIsErrLeaseLostNotALoop(t *testing.T) {
	t.Parallel()
	_, client, cutOff, promote := pair(t)
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	for i := range 10 {
		_, err := q.Enqueue(t.Context(), queue.Job{Kind: "k", Key: "one", Payload: []byte{byte(i)}})
		require.NoError(t, err)
	}
	require.NoError(t, client.Do(t.Context(), "wait", 1, 10_000).Err())
	cutOff() // from here on the replica gets nothing
	before, err := b.Claim(t.Context(), "default", queue.Call{Process: "p", Number: 1, Max: 1, Lease: time.Minute})
	require.NoError(t, err)
	require.Len(t, before.Jobs, 1)
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k", Key: "lost"})
	require.NoError(t, err)
	promote()

	problems, err := b.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, problems)
	e, err := b.Extend(t.Context(), "default", queue.Heartbeat{Tokens: []queue.Token{before.Jobs[0].Token}, Lease: time.Minute})
	require.NoError(t, err)
	require.Equal(t, []queue.Token{before.Jobs[0].Token}, e.Lost, "the lease is of the lost moment")
	ack := queue.Call{Process: "p", Number: 2, Max: 1, Lease: time.Minute, Settle: []queue.Settlement{{Token: before.Jobs[0].Token, Action: queue.Ack}}}
	after, err := b.Claim(t.Context(), "default", ack)
	require.NoError(t, err)
	require.Equal(t, e.Lost, after.Lost, "as is its Ack, which changes nothing")
	require.Len(t, after.Jobs, 1)
	require.Equal(t, before.Jobs[0].Job.ID, after.Jobs[0].Job.ID, "the head is still there")
	require.NotEqual(t, before.Jobs[0].Token, after.Jobs[0].Token)
}

// P3: "A job takes effect once. Two workers never both hold a key; a worker that lost its lease can't complete or overwrite"
func TestP3LostLeaseChangesNothing(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	r, err := q.Enqueue(t.Context(), queue.Job{Kind: "k", Key: "a", Track: true}, queue.Job{Kind: "k", Key: "a"})
	require.NoError(t, err)
	claim := func(process string, number uint64, settle ...queue.Settlement) queue.Claimed {
		c, err := b.Claim(t.Context(), "default", queue.Call{Process: process, Number: number, Max: 2, Lease: time.Minute, Settle: settle})
		require.NoError(t, err)
		return c
	}
	late := claim("late", 1)
	require.Len(t, late.Jobs, 1, "one job of a lane at a time")
	require.NoError(t, redisqueue.Forward(t.Context(), client, "breakwater", 1, 30*time.Second))
	require.Empty(t, claim("other", 1).Jobs)
	require.NoError(t, redisqueue.Forward(t.Context(), client, "breakwater", 1, 35*time.Second))
	other := claim("other", 2) // somebody was there all the time: the lease has ended
	require.Len(t, other.Jobs, 1)
	require.Equal(t, r[0].ID, other.Jobs[0].Job.ID)
	require.Equal(t, 1, other.Jobs[0].Job.Crashes)

	token := late.Jobs[0].Token
	for i, action := range []queue.Action{queue.Ack, queue.Retry, queue.Snooze, queue.Kill, queue.Release} {
		c := claim("late", uint64(2+i), queue.Settlement{Token: token, Action: action, Error: "no", After: time.Minute})
		require.Equal(t, []queue.Token{token}, c.Lost)
		require.Empty(t, c.Jobs)
	}
	e, err := b.Extend(t.Context(), "default", queue.Heartbeat{Tokens: []queue.Token{token, other.Jobs[0].Token}, Lease: time.Minute, Progress: map[queue.Token]queue.Progress{token: {Percent: 50}}})
	require.NoError(t, err)
	require.Equal(t, []queue.Token{token}, e.Lost)
	s, err := q.Status(t.Context(), r[0].ID)
	require.NoError(t, err)
	require.Equal(t, queue.Processing, s.State)
	require.Zero(t, s.Percent)
	require.Len(t, claim("other", 3, queue.Settlement{Token: other.Jobs[0].Token, Action: queue.Ack}).Jobs, 1, "and the next of the lane")
}

// TestSentinelPromotesTheReplica has the primary killed under a client that asks Sentinel where it is.
func TestSentinelPromotesTheReplica(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary := redistest.Start(t, always...)
	_, port, err := net.SplitHostPort(primary.Addr)
	require.NoError(t, err)
	replica := redistest.Start(t, append([]string{"--replicaof", "127.0.0.1 " + port, "--repl-diskless-sync-delay", "0"}, always...)...)
	direct := redistest.Dial(t, replica.Addr)
	require.Eventually(t, func() bool {
		return strings.Contains(direct.Info(ctx, "replication").Val(), "master_link_status:up")
	}, 20*time.Second, 10*time.Millisecond)
	sentinel, err := redisserver.StartSentinel(t.TempDir(), "shop", primary.Addr)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sentinel.Kill()) })
	watch := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
	t.Cleanup(func() { require.NoError(t, watch.Close()) })
	require.Eventually(t, func() bool { // it has found the replica, and will promote it
		replicas, err := watch.Replicas(ctx, "shop").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["flags"] == "slave"
	}, 30*time.Second, 10*time.Millisecond)

	client := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "shop", SentinelAddrs: []string{sentinel.Addr}})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	l := brokertest.NewLoad(t, redisqueue.New(client, redisqueue.Config{}))
	l.Work(2 * time.Second)
	stop := l.Enqueue()
	l.More(200)
	stop()
	l.Stop()
	require.NoError(t, client.Do(ctx, "wait", 1, 10_000).Err()) // nothing is under way that the replica has not
	require.NoError(t, primary.Kill())

	l.Work(2 * time.Second)
	stop = l.Enqueue()
	l.More(200)
	stop()
	l.Drained()
}

// P1: "200 is sent only after the job is in a durable queue. Queue down or slow: 503 inside the deadline, so Shopify redelivers."
func TestP1RedisThatDoesNotAnswerAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	q, err := queue.New(redisqueue.New(redistest.Dial(t, s.Addr), redisqueue.Config{}), queue.Config{})
	require.NoError(t, err)
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.NoError(t, err)
	require.NoError(t, s.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = q.Enqueue(ctx, queue.Job{Kind: "k"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, s.Resume())
}
