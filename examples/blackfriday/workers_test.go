package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

const testLease = 3 * time.Second

// A dead worker changes nothing any more: its job stays leased until the lease ends, and that counts as a crash.
func TestDeadWorkerIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, broker := t.Context(), new(queue.Memory)
		jobs, err := queue.New(broker, queue.Config{AllowVolatile: true})
		require.NoError(t, err)
		_, err = jobs.Enqueue(ctx, queue.Job{Kind: "test"})
		require.NoError(t, err)

		w := newWorker(1, broker, func() time.Duration { return time.Second })
		claimed, err := w.Claim(ctx, "default", queue.Call{Process: "w", Number: 1, Max: 1, Lease: testLease})
		require.NoError(t, err)
		require.Len(t, claimed.Jobs, 1)
		waited := make(chan error, 1)
		go func() { waited <- w.Wait(context.WithoutCancel(ctx), "default", 0) }()
		time.Sleep(time.Second + 1)
		begin := time.Now()
		_, err = w.Extend(ctx, "default", queue.Heartbeat{Tokens: []queue.Token{claimed.Jobs[0].Token}, Lease: testLease})
		require.NoError(t, err)
		require.ErrorIs(t, w.step(call{Event: "e"}, true), errDead)
		<-w.died
		assert.Equal(t, "e", w.last.Event)
		require.ErrorIs(t, w.step(call{Event: "f"}, false), errDead)
		require.ErrorIs(t, <-waited, errDead)

		_, err = w.Claim(ctx, "default", queue.Call{Process: "w", Number: 2, Settle: []queue.Settlement{{Token: claimed.Jobs[0].Token, Action: queue.Ack}}})
		require.ErrorIs(t, err, errDead)
		_, err = w.Extend(ctx, "default", queue.Heartbeat{Tokens: []queue.Token{claimed.Jobs[0].Token}, Lease: time.Hour})
		require.ErrorIs(t, err, errDead)
		_, err = w.Enqueue(ctx, "default", queue.Batch{ID: "b", Jobs: []queue.Entry{{Job: queue.Job{ID: "j", Kind: "test", Deadline: time.Hour}}}})
		require.ErrorIs(t, err, errDead)
		require.ErrorIs(t, w.Wait(ctx, "default", 0), errDead)

		next := newWorker(2, broker, func() time.Duration { return time.Hour })
		for number := uint64(1); ; number++ {
			claimed, err = next.Claim(ctx, "default", queue.Call{Process: "next", Number: number, Max: 2, Lease: testLease})
			require.NoError(t, err)
			if len(claimed.Jobs) > 0 {
				break
			}
			time.Sleep(testLease / 6)
		}
		assert.Equal(t, testLease, time.Since(begin))
		require.Len(t, claimed.Jobs, 1)
		assert.Equal(t, 1, claimed.Jobs[0].Job.Crashes)
	})
}

// A worker dies when it is due, at the first job that is between two of its steps; if there is none, later.
func TestWorkerDiesBetweenSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(1, new(queue.Memory), func() time.Duration { return time.Second })
		require.NoError(t, w.step(call{}, true), "it is not due")
		time.Sleep(time.Second + 1)
		require.NoError(t, w.step(call{}, false), "the job is at its beginning")
		time.Sleep(chance)
		require.NoError(t, w.step(call{}, true), "it is overdue: put off")
		time.Sleep(time.Second)
		require.NoError(t, w.step(call{}, true), "the moment itself")
		time.Sleep(time.Millisecond)
		require.ErrorIs(t, w.step(call{}, true), errDead)
	})
}

// What is left of a lease when its worker dies is more than the longest call, at any speed.
func TestLeaseOutlivesCalls(t *testing.T) {
	t.Parallel()
	for _, scale := range []float64{0.5, 1, 12, 100} {
		left := lease(scale) * 2 / 3
		for name, plan := range forecast {
			assert.Greater(t, left, time.Second+2*time.Duration(float64(max(plan.calm, plan.slow))/scale), "%s ×%g", name, scale)
		}
	}
}
