package queue_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/breakwater-go/breakwater/queue"
)

// P6: partitions share a worker's slots fairly, however few there are.
func TestPartitionsShareTheSlots(t *testing.T) {
	t.Parallel()
	for _, concurrency := range []int{1, 2, 16} {
		t.Run(strconv.Itoa(concurrency), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &queue.Memory{Partitions: 3}
				q := newQueue(t, b)
				home := map[string]int{} // by group, one of each partition
				for g := 0; len(home) < 3; g++ {
					name := fmt.Sprint(g)
					probe := newQueueWith(t, b, queue.Config{Name: "probe" + name})
					enqueue(t, probe, queue.Job{Kind: "k", Group: name})
					for p := range 3 {
						c, err := b.Claim(t.Context(), "probe"+name, queue.Call{Partition: p, Process: "p", Number: 1, Max: 1, Lease: time.Hour})
						assert.NoError(t, err)
						taken := false
						for _, other := range home {
							taken = taken || other == p
						}
						if len(c.Jobs) == 1 && !taken {
							home[name] = p
						}
					}
				}
				for g := range home {
					for i := range 1000 {
						enqueue(t, q, queue.Job{Kind: "k", Group: g, Key: strconv.Itoa(i)})
					}
				}
				var mu sync.Mutex
				ran := map[string]int{}
				running, peak := 0, 0
				stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
					mu.Lock()
					ran[job.Group]++
					running++
					peak = max(peak, running)
					mu.Unlock()
					time.Sleep(10 * time.Millisecond)
					mu.Lock()
					running--
					mu.Unlock()
					return nil
				}), queue.WorkerConfig{Concurrency: concurrency, Drain: time.Second})
				time.Sleep(time.Second)
				mu.Lock()
				least, most := 1<<30, 0
				for g := range home {
					least, most = min(least, ran[g]), max(most, ran[g])
				}
				mu.Unlock()
				stop()
				assert.Equal(t, concurrency, peak)
				assert.Less(t, float64(most), 1.5*float64(least)+3, "%v", ran)
			})
		})
	}
}

// A partition that hangs does not cost another its leases, though a job reports progress all the time.
func TestHungPartitionCostsNobodyElseALease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &halfDead{Memory: &queue.Memory{Partitions: 2}}
		q := newQueue(t, b)
		causes := make(chan error, 20)
		stop := work(t, q, muxOf("k", func(ctx context.Context, _ queue.Job) error {
			for range 2800 {
				_ = queue.ReportProgress(ctx, 1, "")
				time.Sleep(50 * time.Millisecond)
				if ctx.Err() != nil {
					causes <- context.Cause(ctx)
					return ctx.Err()
				}
			}
			return nil
		}), queue.WorkerConfig{})
		for g := range 10 {
			enqueue(t, q, queue.Job{Kind: "k", Group: strconv.Itoa(g), Track: true})
		}
		time.Sleep(time.Second)
		b.on.Store(true) // partition 0; the other's leases must go on
		time.Sleep(3 * time.Minute)
		b.on.Store(false)
		time.Sleep(5 * time.Minute)
		stop()
		assert.Empty(t, causes)
	})
}
