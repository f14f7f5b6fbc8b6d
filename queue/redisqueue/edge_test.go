package redisqueue_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// keys is how the default queue's keys begin.
const keys = "{breakwater:0}:default:"

// rig is a broker on a server of its own.
type rig struct {
	*redisqueue.Broker
	t      *testing.T
	jobs   *queue.Queue
	client *redis.Client
	number uint64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	return &rig{Broker: b, t: t, jobs: q, client: client}
}

func (r *rig) enqueue(jobs ...queue.Job) []queue.Receipt {
	r.t.Helper()
	receipts, err := r.jobs.Enqueue(r.t.Context(), jobs...)
	require.NoError(r.t, err)
	return receipts
}

func (r *rig) claim(n int, settle ...queue.Settlement) queue.Claimed {
	r.t.Helper()
	r.number++
	c, err := r.Claim(r.t.Context(), "default", queue.Call{Process: "p", Number: r.number, Max: n, Lease: time.Minute, Settle: settle})
	require.NoError(r.t, err)
	return c
}

func (r *rig) sound() {
	r.t.Helper()
	problems, err := r.Check(r.t.Context())
	require.NoError(r.t, err)
	require.Empty(r.t, problems)
}

// TestAckThatFollowsIntoALaterVersionsQueueChangesNothing: a step that can't be finished must not be begun.
func TestAckThatFollowsIntoALaterVersionsQueueChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other, err := queue.New(r.Broker, queue.Config{Name: "other"})
	require.NoError(t, err)
	_, err = other.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.NoError(t, err)
	const meta = "{breakwater:0}:other:m"
	text, err := r.client.Get(t.Context(), meta).Bytes()
	require.NoError(t, err)
	text[0]++
	require.NoError(t, r.client.Set(t.Context(), meta, text, 0).Err())
	for range 5 {
		r.enqueue(queue.Job{Kind: "k", Key: "a"})
	}
	c := r.claim(1)
	call := queue.Call{Process: "p", Number: 9, Lease: time.Minute, Settle: []queue.Settlement{{
		Token: c.Jobs[0].Token, Action: queue.Ack,
		Enqueue: []queue.Entry{{Queue: "other", Job: queue.Job{ID: "x", Kind: "k", MaxAttempts: 1, MaxCrashes: 1, Deadline: time.Hour}}},
	}}}
	for range 3 {
		_, err = r.Claim(t.Context(), "default", call)
		require.ErrorIs(t, err, queue.ErrNewerFormat)
		call.Again = true
	}
	s, err := r.jobs.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 5, s.Jobs)
	require.Equal(t, 1, s.Held)
}

// TestDamagedRecordDiesAlone has a record that ends too early, in every way that its job can go.
func TestDamagedRecordDiesAlone(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]queue.Settlement{
		"its lease ends": {}, "killed": {Action: queue.Kill, Error: "no"}, "retried": {Action: queue.Retry, Error: "no"}, "acknowledged": {Action: queue.Ack},
	} {
		for _, size := range []int{1, 20, 46, 80} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				t.Parallel()
				end := end // each size has its own token
				r := newRig(t)
				r.enqueue(queue.Job{Kind: "k", Key: "bad", Track: true}, queue.Job{Kind: "k", Key: "good"}, queue.Job{Kind: "k", Key: "good"})
				record, err := r.client.LIndex(t.Context(), keys+"l:0lbad", 1).Result()
				require.NoError(t, err)
				require.NoError(t, r.client.LSet(t.Context(), keys+"l:0lbad", 1, record[:size]).Err())
				c := r.claim(2)
				require.Len(t, c.Jobs, 2)
				require.Error(t, c.Jobs[0].Err)
				settle := []queue.Settlement{{Token: c.Jobs[1].Token, Action: queue.Ack}}
				if end.Token = c.Jobs[0].Token; end.Action != 0 {
					settle = append(settle, end)
				}
				c = r.claim(2, settle...)
				require.Empty(t, c.Lost)
				require.Len(t, c.Jobs, 1, "the next good one")
				r.claim(0, queue.Settlement{Token: c.Jobs[0].Token, Action: queue.Ack})
				if end.Action == 0 {
					require.NoError(t, redisqueue.Forward(t.Context(), r.client, "breakwater", 1, 30*time.Second))
					r.claim(0)
					require.NoError(t, redisqueue.Forward(t.Context(), r.client, "breakwater", 1, 35*time.Second))
					require.Len(t, r.claim(0).Died, 1)
				}
				s, err := r.jobs.Stats(t.Context())
				require.NoError(t, err)
				require.Zero(t, s.Jobs)
				letters, err := r.jobs.Dead(t.Context(), queue.DeadFilter{})
				require.NoError(t, err)
				if end.Action != queue.Ack {
					require.Len(t, letters, 1)
					n, err := r.jobs.Drop(t.Context(), queue.DeadFilter{})
					require.NoError(t, err)
					require.Equal(t, 1, n)
				}
			})
		}
	}
}

func TestOneHeartbeatExtendsThousandsOfLeases(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const many = 9000
	jobs := make([]queue.Job, many)
	for i := range jobs {
		jobs[i] = queue.Job{Kind: "k", Group: fmt.Sprint(i % 100)}
	}
	r.enqueue(jobs...)
	beat := queue.Heartbeat{Lease: time.Minute}
	for len(beat.Tokens) < many {
		c := r.claim(500)
		require.NotEmpty(t, c.Jobs)
		for _, l := range c.Jobs {
			beat.Tokens = append(beat.Tokens, l.Token)
		}
	}
	e, err := r.Extend(t.Context(), "default", beat)
	require.NoError(t, err)
	require.Empty(t, e.Lost)
	settle := make([]queue.Settlement, many)
	for i, token := range beat.Tokens {
		settle[i] = queue.Settlement{Token: token, Action: queue.Ack}
	}
	require.Empty(t, r.claim(0, settle...).Lost)
	r.sound()
}

func TestPurgeOfKeysOfAnyBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 60 {
		r.enqueue(queue.Job{Kind: "k", Group: "shop", Key: fmt.Sprintf("caf\xe9-\x00-%d", i)})
	}
	n, err := r.jobs.Purge(t.Context(), queue.PurgeFilter{Group: "shop"})
	require.NoError(t, err)
	require.Equal(t, 60, n)
	s, err := r.jobs.Stats(t.Context())
	require.NoError(t, err)
	require.Zero(t, s.Jobs)
	r.sound()
}

func TestScheduledForTheSameMomentKeepTheirOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := time.Now().Add(time.Hour)
	job := func(n byte) queue.Job {
		return queue.Job{Kind: "k", Key: "a", NotBefore: at, Payload: []byte{n}}
	}
	r.enqueue(job(1), job(2), job(3))
	r.enqueue(job(4))
	r.enqueue(job(5), job(6))
	require.NoError(t, redisqueue.Forward(t.Context(), r.client, "breakwater", 1, 2*time.Hour))
	c := r.claim(1)
	var order []byte
	for len(c.Jobs) > 0 {
		order = append(order, c.Jobs[0].Job.Payload...)
		c = r.claim(1, queue.Settlement{Token: c.Jobs[0].Token, Action: queue.Ack})
	}
	require.Equal(t, []byte{1, 2, 3, 4, 5, 6}, order)
}

// TestHungServerIsLeftWhenTheContextEnds has a server that does not answer at the first use.
func TestHungServerIsLeftWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	q, err := queue.New(redisqueue.New(redistest.Dial(t, s.Addr), redisqueue.Config{}), queue.Config{})
	require.NoError(t, err)
	require.NoError(t, s.Pause())
	for name, call := range map[string]func(context.Context) error{
		"Enqueue": func(ctx context.Context) error {
			_, err := q.Enqueue(ctx, queue.Job{Kind: "k"})
			return err
		},
		"Status": func(ctx context.Context) error {
			_, err := q.Status(ctx, "x")
			return err
		},
		"Stats": func(ctx context.Context) error {
			_, err := q.Stats(ctx)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		began := time.Now()
		require.ErrorIs(t, call(ctx), context.DeadlineExceeded, name)
		require.Less(t, time.Since(began), 2*time.Second, name)
		cancel()
	}
	require.NoError(t, s.Resume())
}

// TestJobOfALaterFormatKeepsItsLane has a scheduled job whose record this version can't read.
func TestJobOfALaterFormatKeepsItsLane(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.enqueue(queue.Job{Kind: "k", Group: "g", Key: "later", Delay: time.Minute})
	all, err := r.client.HGetAll(t.Context(), keys+"sched").Result()
	require.NoError(t, err)
	require.Len(t, all, 1)
	for field, value := range all {
		b := []byte(value)
		const record = 6 + len("1lglater") + 14 // behind two lengths, the lane and the head
		require.EqualValues(t, 1, b[record])
		b[record] = 2
		require.NoError(t, r.client.HSet(t.Context(), keys+"sched", field, b).Err())
	}
	require.NoError(t, redisqueue.Forward(t.Context(), r.client, "breakwater", 1, 2*time.Minute))
	r.claim(0) // takes it up
	r.enqueue(queue.Job{Kind: "k", Group: "g", Key: "later"})
	c := r.claim(5)
	require.Len(t, c.Jobs, 1, "the one behind it waits for a worker that can read it")
	require.ErrorIs(t, c.Jobs[0].Err, queue.ErrNewerFormat)
	n, err := r.client.LLen(t.Context(), keys+"l:1lglater").Result()
	require.NoError(t, err)
	require.EqualValues(t, 4, n, "two jobs")
	r.claim(0, queue.Settlement{Token: c.Jobs[0].Token, Action: queue.Release})
	r.sound()
}

// TestCallersThatComeWhileAnEnqueueIsUnderWayGoTogether counts the scripts that 64 of them take.
func TestCallersThatComeWhileAnEnqueueIsUnderWayGoTogether(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	b := redisqueue.New(redistest.Dial(t, s.Addr), redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.NoError(t, err)
	admin := redistest.Dial(t, s.Addr)
	scripts := func() (n int) {
		for line := range strings.Lines(admin.Info(t.Context(), "commandstats").Val()) {
			if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
				n, err = strconv.Atoi(rest[:strings.IndexByte(rest, ',')])
				require.NoError(t, err)
			}
		}
		return n
	}
	before := scripts()
	require.NoError(t, s.Pause())
	const callers, most = 64, 2
	errs := make(chan error, callers)
	for i := range callers {
		go func() {
			_, err := q.Enqueue(t.Context(), queue.Job{Kind: "k"})
			errs <- err
		}()
		require.Eventually(t, func() bool { // the first two leave alone, whenever their goroutines come to run
			underWay, waiting := b.Line("default", 0)
			return underWay == min(i+1, most) && waiting == max(0, i+1-most)
		}, 10*time.Second, 100*time.Microsecond)
	}
	require.NoError(t, s.Resume())
	for range callers {
		require.NoError(t, <-errs)
	}
	require.LessOrEqual(t, scripts()-before, most+most, "the two that were under way, and the rest in one or two")
	stats, err := q.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1+callers, stats.Jobs)
}

func FuzzHead(f *testing.F) {
	f.Add("")
	f.Add("\x01" + strings.Repeat("\x00", 13))
	f.Add("\x01" + strings.Repeat("\x00", 21) + "\x00\x00\x00\x01" + strings.Repeat("\x00", 9) + "\x02no")
	f.Fuzz(func(_ *testing.T, head string) { _ = redisqueue.ReadHead(head) })
}

func FuzzStored(f *testing.F) {
	f.Add("\x00\x00\x00\x02\x00\x0e0l\x01" + strings.Repeat("\x00", 13) + "\x01")
	f.Fuzz(func(_ *testing.T, s string) { _ = redisqueue.ReadStored(s) })
}
