// Package queuetest helps to test handlers of package queue, and code that enqueues.
//
//	synctest.Test(t, func(t *testing.T) {
//		q := queuetest.New(t)
//		// code under test enqueues into q.Queue
//		q.RequireEnqueued("ship", nil)
//		result := q.Drain(t.Context(), mux) // retries and schedules included: hours pass in no time
//		require.Empty(t, result.Died)
//	})
package queuetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// Kit is a queue over a fresh broker in memory that sees what is enqueued. It is safe for concurrent use.
type Kit struct {
	*queue.Queue

	t      testing.TB
	broker *broker

	mu      sync.Mutex
	retried []Retried
	died    []queue.DeadLetter // since the last Drain, without payload
}

// Result is what became of the jobs of one Drain.
type Result struct {
	Died    []queue.DeadLetter // in the order in which they died; each death, also of a job that was replayed meanwhile
	Retried []Retried          // failed attempts after which the job came again
}

// Retried is one failed attempt.
type Retried struct {
	Job   queue.Job // without payload
	Err   error
	After time.Duration // how long it waited for the next one
}

// New makes a Kit. In a test that drains it, call it inside the synctest bubble.
func New(t testing.TB) *Kit {
	t.Helper()
	k := &Kit{t: t, broker: &broker{Memory: new(queue.Memory), seen: map[string]bool{}}}
	q, err := queue.New(k.broker, queue.Config{AllowVolatile: true, Hooks: queue.Hooks{
		Retried: func(_ context.Context, job queue.Job, err error, after time.Duration) {
			k.mu.Lock()
			defer k.mu.Unlock()
			job.Payload = nil
			k.retried = append(k.retried, Retried{job, err, after})
		},
		Died: func(_ context.Context, letter queue.DeadLetter) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.died = append(k.died, letter)
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	k.Queue = q
	return k
}

// FailNext makes the next Enqueue fail with err: nothing of it is accepted.
func (k *Kit) FailNext(err error) {
	k.broker.mu.Lock()
	defer k.broker.mu.Unlock()
	k.broker.fail = append(k.broker.fail, err)
}

// Enqueued lists the jobs that were accepted so far, of all queues of the broker, duplicates left out.
func (k *Kit) Enqueued() []queue.Job {
	k.broker.mu.Lock()
	defer k.broker.mu.Unlock()
	return append([]queue.Job(nil), k.broker.jobs...)
}

// RequireEnqueued ends the test unless a job of the kind was accepted for which match says true; nil matches any. It
// answers the first.
func (k *Kit) RequireEnqueued(kind string, match func(job queue.Job) bool) queue.Job {
	k.t.Helper()
	var others []string
	for _, j := range k.Enqueued() {
		if j.Kind == kind && (match == nil || match(j)) {
			return j
		}
		others = append(others, fmt.Sprintf("\n\t%s of group %q, key %q: %.200q", j.Kind, j.Group, j.Key, j.Payload))
	}
	what := "no job of kind " + kind + " that matches"
	if match == nil {
		what = "no job of kind " + kind
	}
	k.t.Fatalf("queuetest: %s was enqueued, but %d others:%s", what, len(others), strings.Join(others, ""))
	return queue.Job{}
}

const longest = 90 * 24 * time.Hour // of a Drain, in virtual time

// Drain runs the handlers of mux, one at a time, until no job is left that waits, is scheduled or is to be tried again, or
// until ctx ends. It must be called in a synctest bubble, where waiting takes no time. Work that does not come
// to an end (the queue is paused; 90 days of virtual time have passed) ends the test.
func (k *Kit) Drain(ctx context.Context, mux *queue.Mux) Result {
	k.t.Helper()
	k.requireBubble()
	work, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- k.Run(work, mux, queue.WorkerConfig{Concurrency: 1}) }()
	var err error
	begin := time.Now()
	for pause := time.Millisecond; ctx.Err() == nil; pause = min(2*pause, max(time.Minute, time.Since(begin)/100)) {
		synctest.Wait()
		var stats queue.Stats
		if stats, err = k.Stats(context.WithoutCancel(ctx)); err != nil || stats.Jobs+stats.Scheduled == 0 {
			break
		}
		if stats.Paused || time.Since(begin) > longest {
			err = fmt.Errorf("this work does not come to an end: %+v", stats)
			break
		}
		time.Sleep(pause)
	}
	stop()
	if runErr := <-done; runErr != nil {
		k.t.Fatalf("queuetest: Drain: %v", runErr)
	}
	if err != nil {
		k.t.Fatalf("queuetest: Drain: %v", err)
	}
	return k.result()
}

// result is what has happened since the last Drain.
func (k *Kit) result() Result {
	k.t.Helper()
	k.mu.Lock()
	r := Result{Died: k.died, Retried: k.retried}
	k.died, k.retried = nil, nil
	k.mu.Unlock()
	for i := range r.Died { // their payloads are with the dead letters, unless they were replayed or dropped
		letters, err := k.Dead(context.Background(), queue.DeadFilter{IDs: []string{r.Died[i].Job.ID}})
		if err != nil {
			k.t.Fatalf("queuetest: Drain: %v", err)
		}
		if len(letters) == 1 {
			r.Died[i].Job.Payload = letters[0].Job.Payload
		}
	}
	return r
}

// requireBubble ends the test where time is real: a retry's hours would be hours.
func (k *Kit) requireBubble() {
	k.t.Helper()
	defer func() {
		if recover() != nil {
			k.t.Fatal("queuetest: Drain needs virtual time: put the test into synctest.Test(t, func(t *testing.T) { … }), queuetest.New included")
		}
	}()
	synctest.Wait() // panics outside of a bubble
}

// broker notes what is accepted, and fails when it is told to.
type broker struct {
	*queue.Memory

	mu   sync.Mutex
	fail []error
	jobs []queue.Job
	seen map[string]bool // their IDs
}

func (b *broker) Enqueue(ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.fail) > 0 {
		err := b.fail[0]
		b.fail = b.fail[1:]
		return nil, err
	}
	receipts, err := b.Memory.Enqueue(ctx, name, batch)
	b.note(batch.Jobs, receipts)
	return receipts, err
}

// note keeps what was accepted, once. The caller holds mu.
func (b *broker) note(entries []queue.Entry, receipts []queue.Receipt) {
	for i, r := range receipts {
		if !r.Duplicate && !b.seen[r.ID] {
			b.seen[r.ID] = true
			b.jobs = append(b.jobs, entries[i].Job)
		}
	}
}

func (b *broker) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	c, err := b.Memory.Claim(ctx, name, call)
	if err != nil {
		return c, err
	}
	var entries []queue.Entry
	for _, s := range call.Settle {
		if !slices.Contains(c.Lost, s.Token) {
			entries = append(entries, s.Enqueue...)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(entries, c.Enqueued)
	return c, nil
}
