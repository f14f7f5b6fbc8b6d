package brokertest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

// Load is work under way, for tests that break an engine meanwhile: callers that enqueue, workers, and a ledger of what was acknowledged
// and what took effect.
type Load struct {
	Broker Checked
	Jobs   *queue.Queue

	t testing.TB

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

// Checked is an engine whose invariants can be checked.
type Checked interface {
	queue.Broker
	Check(ctx context.Context) (problems []string, err error)
}

// NewLoad makes a Load over an empty queue.
func NewLoad(t testing.TB, b Checked) *Load {
	t.Helper()
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	return &Load{t: t, Broker: b, Jobs: q, acknowledged: map[string][]int{}, effects: map[string][]int{}}
}

// Enqueue starts callers that enqueue until stopEnqueuing is called.
func (l *Load) Enqueue() (stopEnqueuing func()) {
	ctx, stop := context.WithCancel(l.t.Context())
	var all sync.WaitGroup
	for c := range loadCallers {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("%d-%d", c, n%loadKeys)
				job := queue.Job{Kind: "k", Group: "shop" + strconv.Itoa(c), Key: key, DedupeKey: fmt.Sprintf("%s-%d", key, n), Payload: []byte(strconv.Itoa(n)), MaxCrashes: 100}
				for ctx.Err() == nil { // as Shopify does: until somebody says that it is taken
					_, err := l.Jobs.Enqueue(ctx, job)
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

// Work starts a worker, until Stop or Drained.
func (l *Load) Work(lease time.Duration) {
	ctx, stop := context.WithCancel(l.t.Context())
	before := l.stop
	l.stop = func() {
		if before != nil {
			before()
		}
		stop()
	}
	mux := queue.NewMux()
	mux.Handle("k", func(_ context.Context, j queue.Job) error {
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
		assert.NoError(l.t, l.Jobs.Run(ctx, mux, queue.WorkerConfig{Concurrency: 16, Lease: lease, Drain: 2 * time.Second}))
	})
}

// Acknowledged is how many jobs were acknowledged so far.
func (l *Load) Acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, numbers := range l.acknowledged {
		n += len(numbers)
	}
	return n
}

// More waits until n more jobs are acknowledged.
func (l *Load) More(n int) {
	l.t.Helper()
	from := l.Acknowledged()
	require.Eventually(l.t, func() bool { return l.Acknowledged() >= from+n }, time.Minute, time.Millisecond)
}

// Drained waits until nothing is left, ends the work and looks at the ledger: every acknowledged job done, in order, and the
// keys as they should be.
func (l *Load) Drained() {
	l.t.Helper()
	ctx := l.t.Context()
	require.Eventually(l.t, func() bool {
		s, err := l.Jobs.Stats(ctx)
		return err == nil && s.Jobs+s.Scheduled == 0
	}, time.Minute, 20*time.Millisecond)
	l.Stop()
	l.judge()
}

// Stop ends the workers.
func (l *Load) Stop() {
	l.stop()
	l.done.Wait()
}

// Crashes is how many leases of jobs that ran had ended before.
func (l *Load) Crashes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.crashes
}

func (l *Load) judge() {
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
	dead, err := l.Jobs.Dead(l.t.Context(), queue.DeadFilter{})
	require.NoError(l.t, err)
	require.Empty(l.t, dead)
	problems, err := l.Broker.Check(l.t.Context())
	require.NoError(l.t, err)
	require.Empty(l.t, problems)
}

// Twice counts effects that were doubled.
func (l *Load) Twice() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, done := range l.effects {
		n += len(done) - len(slices.Compact(slices.Clone(done)))
	}
	return n
}
