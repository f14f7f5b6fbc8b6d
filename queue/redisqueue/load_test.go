package redisqueue_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// load is work under way: callers that enqueue, workers, and a ledger of what was acknowledged and what took effect.
type load struct {
	t      testing.TB
	broker *redisqueue.Broker
	jobs   *queue.Queue

	mu           sync.Mutex
	acknowledged map[string][]int // numbers, by key
	effects      map[string][]int
	crashes      int
	refused      int

	stop func()
	done sync.WaitGroup
}

const (
	loadCallers = 6
	loadKeys    = 5 // of each caller, so that the order in which a key's jobs were accepted is known
)

func newLoad(t testing.TB, client redis.UniversalClient, cfg redisqueue.Config) *load {
	t.Helper()
	b := redisqueue.New(client, cfg)
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	return &load{t: t, broker: b, jobs: q, acknowledged: map[string][]int{}, effects: map[string][]int{}}
}

// enqueue starts callers that enqueue until stopEnqueuing is called.
func (l *load) enqueue() (stopEnqueuing func()) {
	ctx, stop := context.WithCancel(l.t.Context())
	var all sync.WaitGroup
	for c := range loadCallers {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("%d-%d", c, n%loadKeys)
				job := queue.Job{Kind: "k", Group: "shop" + strconv.Itoa(c), Key: key, DedupeKey: fmt.Sprintf("%s-%d", key, n), Payload: []byte(strconv.Itoa(n)), MaxCrashes: 100}
				for ctx.Err() == nil { // as Shopify does: until somebody says that it is taken
					_, err := l.jobs.Enqueue(ctx, job)
					l.mu.Lock()
					if err == nil {
						l.acknowledged[key] = append(l.acknowledged[key], n)
					} else {
						l.refused++
					}
					l.mu.Unlock()
					if err == nil {
						break
					}
				}
			}
		})
	}
	return func() {
		stop()
		all.Wait()
	}
}

// work starts a worker process's worth of work; settled by stopWorking.
func (l *load) work(lease time.Duration) {
	ctx, stop := context.WithCancel(l.t.Context())
	before := l.stop
	l.stop = func() {
		if before != nil {
			before()
		}
		stop()
	}
	mux := queue.NewMux()
	mux.Handle("k", func(ctx context.Context, j queue.Job) error {
		n, err := strconv.Atoi(string(j.Payload))
		if err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.effects[j.Key] = append(l.effects[j.Key], n)
		l.crashes += j.Crashes
		return nil
	})
	l.done.Go(func() {
		assert.NoError(l.t, l.jobs.Run(ctx, mux, queue.WorkerConfig{Concurrency: 16, Lease: lease, Drain: 2 * time.Second}))
	})
}

// acknowledgedCount is how many jobs were acknowledged so far.
func (l *load) acknowledgedCount() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, numbers := range l.acknowledged {
		n += len(numbers)
	}
	return n
}

// more waits until n more jobs are acknowledged.
func (l *load) more(n int) {
	l.t.Helper()
	from := l.acknowledgedCount()
	require.Eventually(l.t, func() bool { return l.acknowledgedCount() >= from+n }, time.Minute, time.Millisecond)
}

// drained waits until nothing is left, ends the work and looks at the ledger: every acknowledged job done, in order, and the
// keys as they should be.
func (l *load) drained() {
	l.t.Helper()
	ctx := l.t.Context()
	require.Eventually(l.t, func() bool {
		s, err := l.jobs.Stats(ctx)
		return err == nil && s.Jobs+s.Scheduled == 0
	}, time.Minute, 20*time.Millisecond)
	l.stop()
	l.done.Wait()
	l.judge()
}

func (l *load) judge() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.NotEmpty(l.t, l.acknowledged)
	for key, numbers := range l.acknowledged {
		done := slices.Compact(slices.Clone(l.effects[key])) // one whose worker was too late runs again at once: it is its lane's head
		last := -1
		for _, n := range done {
			require.Greater(l.t, n, last, "key %s out of order: %v", key, l.effects[key])
			last = n
		}
		for _, n := range numbers {
			require.Contains(l.t, done, n, "job %d of key %s is lost", n, key)
		}
	}
	dead, err := l.jobs.Dead(l.t.Context(), queue.DeadFilter{})
	require.NoError(l.t, err)
	require.Empty(l.t, dead)
	problems, err := l.broker.Check(l.t.Context())
	require.NoError(l.t, err)
	require.Empty(l.t, problems)
}

// twice counts effects that were doubled.
func (l *load) twice() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, done := range l.effects {
		n += len(done) - len(slices.Compact(slices.Clone(done)))
	}
	return n
}
