package queuetest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/queuetest"
)

// fake is a testing.TB that notes how the test was ended.
type fake struct {
	testing.TB
	said string
}

func (f *fake) Helper() {}
func (f *fake) Fatal(args ...any) {
	f.said = fmt.Sprint(args...)
	panic(f)
}
func (f *fake) Fatalf(format string, args ...any) { f.Fatal(fmt.Sprintf(format, args...)) }

// ends says how do ended its test.
func ends(do func(fails *fake)) (said string) {
	f := &fake{}
	defer func() {
		if v := recover(); v != nil && v != any(f) {
			panic(v)
		}
		said = f.said
	}()
	do(f)
	return
}

func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queuetest.New(t)
		mux := queue.NewMux()
		tries := 0
		mux.Handle("flaky", func(ctx context.Context, job queue.Job) error {
			if tries++; tries < 4 {
				return errors.New("carrier is away")
			}
			_, err := q.EnqueueOnAck(ctx, queue.Job{Kind: "mail", Group: job.Group, Payload: []byte("shipped")})
			return err
		})
		mux.Handle("hopeless", func(context.Context, queue.Job) error { return queue.Permanent(errors.New("no such address")) })
		mux.Handle("mail", func(context.Context, queue.Job) error { return nil })
		start := time.Now()
		_, err := q.Enqueue(t.Context(), queue.Job{Kind: "flaky", Group: "shop", Key: "1"}, queue.Job{Kind: "hopeless", Payload: []byte("body")}, queue.Job{Kind: "mail", Delay: 48 * time.Hour})
		require.NoError(t, err)

		result := q.Drain(t.Context(), mux)
		assert.Equal(t, 4, tries)
		require.Len(t, result.Retried, 3)
		assert.EqualError(t, result.Retried[0].Err, "carrier is away")
		require.Len(t, result.Died, 1)
		assert.Equal(t, "no such address", result.Died[0].Error)
		assert.Equal(t, "body", string(result.Died[0].Job.Payload))
		assert.GreaterOrEqual(t, time.Since(start), 48*time.Hour, "what is scheduled runs too")
		q.RequireEnqueued("mail", func(j queue.Job) bool { return string(j.Payload) == "shipped" })
		assert.Len(t, q.Enqueued(), 4)

		assert.Empty(t, q.Drain(t.Context(), mux), "each Drain tells of what is new")
		n, err := q.Replay(t.Context(), queue.DeadFilter{})
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		assert.Len(t, q.Drain(t.Context(), mux).Died, 1)
	})
}

func TestFailNext(t *testing.T) {
	t.Parallel()
	q := queuetest.New(t)
	away := errors.New("redis is away")
	q.FailNext(away)
	_, err := q.Enqueue(t.Context(), queue.Job{Kind: "k"})
	require.ErrorIs(t, err, away)
	assert.Empty(t, q.Enqueued())
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k", DedupeKey: "d"}, queue.Job{Kind: "k", DedupeKey: "d"})
	require.NoError(t, err)
	assert.Len(t, q.Enqueued(), 1)
}

func TestWhatEndsATest(t *testing.T) {
	t.Parallel()
	assert.Contains(t, ends(func(tb *fake) {
		q := queuetest.New(tb)
		_, _ = q.Enqueue(t.Context(), queue.Job{Kind: "other", Group: "g", Key: "k", Payload: []byte("body")})
		q.RequireEnqueued("ship", nil)
	}), "no job of kind ship was enqueued, but 1 others:\n\tother of group \"g\", key \"k\": \"body\"")
	assert.Contains(t, ends(func(tb *fake) {
		q := queuetest.New(tb)
		_, _ = q.Enqueue(t.Context(), queue.Job{Kind: "ship"})
		q.RequireEnqueued("ship", func(queue.Job) bool { return false })
	}), "no job of kind ship that matches")
	assert.Contains(t, ends(func(tb *fake) { queuetest.New(tb).Drain(t.Context(), queue.NewMux()) }), "Drain needs virtual time")
	synctest.Test(t, func(t *testing.T) {
		assert.Contains(t, ends(func(tb *fake) {
			q := queuetest.New(tb)
			_, _ = q.Enqueue(t.Context(), queue.Job{Kind: "ship"})
			require.NoError(t, q.Pause(t.Context()))
			mux := queue.NewMux()
			mux.Handle("ship", func(context.Context, queue.Job) error { return nil })
			q.Drain(t.Context(), mux)
		}), "this work does not come to an end: {Jobs:1 Held:0")
		assert.Contains(t, ends(func(tb *fake) { queuetest.New(tb).Drain(t.Context(), queue.NewMux()) }), "the mux has no handler")
	})
}

// A kit stands behind anything that enqueues, such as a web handler.
func TestBehindAHandler(t *testing.T) {
	t.Parallel()
	q := queuetest.New(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := q.Enqueue(r.Context(), queue.Job{Kind: "import"}); err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
		}
	})
	q.FailNext(errors.New("away"))
	for _, want := range []int{http.StatusServiceUnavailable, http.StatusOK} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
		assert.Equal(t, want, w.Code)
	}
	q.RequireEnqueued("import", nil)
}
