package docs_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/queue"
)

// outage is a carrier that is away until a time, with jobs that wait for it.
type outage struct {
	mu       sync.Mutex
	until    time.Time
	reached  []time.Time // calls, while it was away
	shipped  map[string]int
	attempts map[string]int // of the jobs, when they shipped
}

func (o *outage) ship(ctx context.Context, job queue.Job) error {
	time.Sleep(20 * time.Millisecond) // a call takes some time, so that others are under way
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Now().Before(o.until) {
		o.reached = append(o.reached, time.Now())
		return errors.New("connection refused")
	}
	o.shipped[job.Key]++
	o.attempts[job.Key] = job.Attempts
	return ctx.Err()
}

// storm enqueues n jobs and runs them until each has shipped or died. It says how many died.
func storm(t *testing.T, o *outage, b *breaker.Breaker, n int, job queue.Job) (died int) {
	t.Helper()
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true, Hooks: queue.Hooks{
		Died: func(context.Context, queue.DeadLetter) { o.mu.Lock(); died++; o.mu.Unlock() },
	}})
	require.NoError(t, err)
	o.shipped, o.attempts = map[string]int{}, map[string]int{}
	mux := queue.NewMux()
	mux.Handle("ship", breaker.Guard(b, o.ship))
	for i := range n {
		job.Kind, job.Group, job.Key = "ship", fmt.Sprintf("shop-%d", i%7), fmt.Sprintf("order/%d", i)
		_, err := jobs.Enqueue(t.Context(), job)
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- jobs.Run(ctx, mux, queue.WorkerConfig{Concurrency: 16}) }()
	for range 24 * 60 {
		time.Sleep(time.Minute)
		o.mu.Lock()
		over := len(o.shipped)+died == n
		o.mu.Unlock()
		if over {
			break
		}
	}
	cancel()
	assert.NoError(t, <-ended)
	return died
}

// P8: A broken dependency is left alone. While its breaker is open, calls fail fast or fall back, and jobs wait without spending attempts.
func TestP8JobsWaitWithoutSpendingAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := breaker.New("carrier", breaker.Config{OpenFor: 30 * time.Second, MaxOpenFor: time.Minute})
		require.NoError(t, err)
		o := &outage{until: time.Now().Add(20 * time.Minute)}
		died := storm(t, o, b, 200, queue.Job{MaxAttempts: 10})
		require.Zero(t, died, "ten attempts would be over in ten minutes or so")
		require.Len(t, o.shipped, 200)
		spent := 0
		for key, n := range o.shipped {
			require.Equal(t, 1, n, "%s is shipped once", key)
			spent += o.attempts[key]
		}
		require.Equal(t, len(o.reached), spent, "an attempt is a call that reached the carrier")
		require.Less(t, len(o.reached), 10+16+20*2, "ten open it, sixteen may be under way then, and each open period ends with one")
	})
}

func TestFirstJobAfterTheOpenTimeIsTheTrialNotAHerd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := breaker.New("carrier", breaker.Config{OpenFor: 30 * time.Second})
		require.NoError(t, err)
		opened := time.Now()
		o := &outage{until: opened.Add(10 * time.Minute)}
		require.Zero(t, storm(t, o, b, 500, queue.Job{}))
		require.Len(t, o.shipped, 500)
		var trials []time.Time
		for _, at := range o.reached {
			if at.Sub(opened) > 20*time.Second { // what opened it is over
				trials = append(trials, at)
			}
		}
		require.GreaterOrEqual(t, len(trials), 3)
		for i := range trials[1:] {
			require.Greater(t, trials[i+1].Sub(trials[i]), 30*time.Second, "one, though 500 wait")
		}
		require.LessOrEqual(t, len(trials), 11, "30 s, 30 s, then 60 s")
	})
}

func TestDeadlineEndsAJobThatAnOpenBreakerKeepsWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := breaker.New("carrier", breaker.Config{})
		require.NoError(t, err)
		b.ForceOpen()
		o := &outage{}
		begun := time.Now()
		require.Equal(t, 50, storm(t, o, b, 50, queue.Job{Deadline: 5 * time.Minute}))
		require.Empty(t, o.shipped)
		require.LessOrEqual(t, time.Since(begun), 7*time.Minute)
	})
}

// A job that fails because of what is in it spends its attempts, retried calls or not, and is gone then.
func TestPoisonJobDiesThoughItsCallsAreRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := breaker.New("carrier", breaker.Config{MinCalls: 1})
		require.NoError(t, err)
		o := &outage{until: time.Now().Add(1000 * time.Hour)}
		begun := time.Now()
		require.Equal(t, 1, storm(t, o, b.Idempotent(), 1, queue.Job{MaxAttempts: 3}))
		require.Less(t, time.Since(begun), time.Hour)
	})
}
