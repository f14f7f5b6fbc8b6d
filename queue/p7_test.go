package queue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

// P7: "Nothing dies silently. A job that keeps failing, snoozes past its deadline, kills its workers or has no
// handler ends in the dead letter queue with its history, and can be inspected, replayed or dropped."
func TestP7NothingDiesSilently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		var told journal
		q := newQueueWith(t, b, queue.Config{Hooks: queue.Hooks{Died: func(_ context.Context, d queue.DeadLetter) { told.add("%s", d.Job.Key) }}})
		mended := false
		ran := map[string]int{}
		mux := muxOf("k", func(_ context.Context, job queue.Job) error {
			switch {
			case mended:
				ran[job.Key]++
				return nil
			case job.Key == "fails":
				return errors.New("carrier: 503")
			case job.Key == "snoozes":
				return busy{time.Hour}
			}
			return queue.Permanent(errors.New("no such address"))
		})
		// Three workers in a row die of one job.
		enqueue(t, q, queue.Job{Kind: "k", Key: "crashes", MaxCrashes: 3})
		for i := range uint64(3) {
			require.Len(t, claim(t, b, i, 1).Jobs, 1)
			pass(t, b, 30*time.Second)
		}
		stop := work(t, q, mux, queue.WorkerConfig{Concurrency: 1, Backoff: func(int) time.Duration { return time.Minute }})
		enqueue(t, q,
			queue.Job{Kind: "k", Key: "fails", MaxAttempts: 3}, queue.Job{Kind: "k", Key: "snoozes", Deadline: 10 * time.Hour},
			queue.Job{Kind: "k", Key: "kills", Payload: []byte("body")}, queue.Job{Kind: "nobody's", Key: "nobody's"})
		_, err := q.Bury(t.Context(), queue.Job{Kind: "k", Key: "buried"}, errors.New("payload is too large"))
		require.NoError(t, err)
		time.Sleep(30 * time.Hour)

		// Inspected: with the reason and what went wrong before.
		want := map[string]string{
			"crashes": "crashed its worker 3 times", "fails": "carrier: 503", "snoozes": "deadline", "kills": "no such address",
			"nobody's": "queue: no handler for this kind", "buried": "payload is too large",
		}
		history := map[string]int{"crashes": 3, "fails": 3, "kills": 1, "nobody's": 1}
		dead := deadOf(t, q)
		require.Len(t, dead, len(want))
		for _, d := range dead {
			assert.Equal(t, want[d.Job.Key], d.Error)
			assert.Len(t, d.Job.History, history[d.Job.Key], d.Job.Key)
			assert.False(t, d.At.IsZero())
		}
		assert.ElementsMatch(t, []string{"crashes", "fails", "snoozes", "kills", "nobody's", "buried"}, told.all(), "each was told of, once")

		// Dropped.
		n, err := q.Drop(t.Context(), queue.DeadFilter{Kind: "nobody's"})
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		// Replayed, and done this time.
		mended = true
		n, err = q.Replay(t.Context(), queue.DeadFilter{})
		require.NoError(t, err)
		assert.Equal(t, 5, n)
		time.Sleep(time.Minute)
		stop()
		assert.Equal(t, map[string]int{"crashes": 1, "fails": 1, "snoozes": 1, "kills": 1, "buried": 1}, ran)
		assert.Zero(t, b.Size("default"))
	})
}

// An error's text is kept to 2 KiB, and to whole characters.
func TestLongErrorsAreCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		stop := work(t, q, muxOf("k", func(context.Context, queue.Job) error {
			return queue.Permanent(errors.New("x" + strings.Repeat("é", 5000)))
		}), queue.WorkerConfig{})
		enqueue(t, q, queue.Job{Kind: "k"})
		synctest.Wait()
		stop()
		d := deadOf(t, q)[0]
		assert.Equal(t, "x"+strings.Repeat("é", 1023), d.Error)
		assert.Equal(t, "x"+strings.Repeat("é", 179), d.Job.History[0].Error)
	})
}
