package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

func TestPeriodicJobIsEnqueuedOnceAmongAllWorkers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, new(queue.Memory))
		var j journal
		mux := muxOf("sweep", func(_ context.Context, job queue.Job) error {
			j.add("%s at %s", job.Headers[queue.TickHeader], time.Now().UTC().Format(time.TimeOnly))
			assert.Equal(t, "x", job.Headers["more"])
			return nil
		})
		sweep := queue.Periodic{Name: "sweep", Schedule: queue.Every(time.Hour), Job: queue.Job{Kind: "sweep", Headers: map[string]string{"more": "x"}}}
		time.Sleep(10 * time.Minute)
		var stops []func()
		for range 5 {
			stops = append(stops, work(t, q, mux, queue.WorkerConfig{Periodic: []queue.Periodic{sweep}}))
			time.Sleep(time.Minute)
		}
		time.Sleep(3 * time.Hour)
		for _, stop := range stops {
			stop()
		}
		assert.Equal(t, []string{"2000-01-01T01:00:00Z at 01:00:00", "2000-01-01T02:00:00Z at 02:00:00", "2000-01-01T03:00:00Z at 03:00:00"}, j.all())
	})
}

// tuesdays ticks as a cron library's schedule would: at 3 in the morning of every Tuesday.
type tuesdays struct{}

func (tuesdays) Next(t time.Time) time.Time {
	t = t.UTC()
	for d := time.Date(t.Year(), t.Month(), t.Day(), 3, 0, 0, 0, time.UTC); ; d = d.AddDate(0, 0, 1) {
		if d.Weekday() == time.Tuesday && d.After(t) {
			return d
		}
	}
}

func TestMissedTicks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		schedule queue.Schedule
		missed   queue.Missed
		down     time.Duration
		want     []string
	}{
		"are skipped":             {queue.Every(time.Hour), queue.MissedSkip, 5 * time.Hour, nil},
		"are made up for once":    {queue.Every(time.Hour), queue.MissedOnce, 5 * time.Hour, []string{"2000-01-01T07:00:00Z"}},
		"are made up for each":    {queue.Every(time.Hour), queue.MissedEach, 5 * time.Hour, []string{"2000-01-01T03:00:00Z", "2000-01-01T04:00:00Z", "2000-01-01T05:00:00Z", "2000-01-01T06:00:00Z", "2000-01-01T07:00:00Z"}},
		"of a week":               {tuesdays{}, queue.MissedOnce, 20 * 24 * time.Hour, []string{"2000-01-18T03:00:00Z"}},
		"of a restart in between": {queue.Every(time.Hour), queue.MissedOnce, time.Minute, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(t, new(queue.Memory))
				var j journal
				mux := muxOf("k", func(_ context.Context, job queue.Job) error { j.add("%s", job.Headers[queue.TickHeader]); return nil })
				cfg := queue.WorkerConfig{Periodic: []queue.Periodic{{Name: "p", Schedule: tt.schedule, Missed: tt.missed, Job: queue.Job{Kind: "k", Key: "p"}}}}
				stop := work(t, q, mux, cfg)
				time.Sleep(2*time.Hour + 30*time.Minute)
				stop()
				before := len(j.all())
				time.Sleep(tt.down)
				stop = work(t, q, mux, cfg)
				time.Sleep(time.Minute)
				synctest.Wait()
				stop()
				assert.Equal(t, tt.want, append([]string(nil), j.all()[before:]...))
			})
		})
	}
}

// A broker that is away at the tick gets it when it is back, and worker's clocks that are ahead are not early.
func TestTickOutlivesABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &deafBroker{Memory: new(queue.Memory)}
		q := newQueue(t, b)
		var j journal
		mux := muxOf("k", func(_ context.Context, job queue.Job) error { j.add("%s", job.Headers[queue.TickHeader]); return nil })
		stop := work(t, q, mux, queue.WorkerConfig{Periodic: []queue.Periodic{{Name: "p", Schedule: queue.Every(time.Hour), Job: queue.Job{Kind: "k"}}}})
		time.Sleep(50 * time.Minute)
		b.away.Store(true)
		time.Sleep(3 * time.Hour)
		b.away.Store(false)
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{"2000-01-01T01:00:00Z"}, j.all(), "the tick that it was at; those it slept through are missed")
		time.Sleep(time.Hour)
		stop()
		assert.Equal(t, []string{"2000-01-01T01:00:00Z", "2000-01-01T04:00:00Z"}, j.all())

		rec := &recorder{Memory: new(queue.Memory)}
		stop = work(t, newQueue(t, rec), mux, queue.WorkerConfig{Periodic: []queue.Periodic{{Name: "p", Schedule: queue.Every(time.Hour), Job: queue.Job{Kind: "k"}}}})
		time.Sleep(time.Hour)
		stop()
		require.NotEmpty(t, rec.batches)
		job := rec.batches[0].Jobs[0].Job
		assert.Equal(t, time.Date(2000, 1, 1, 5, 0, 0, 0, time.UTC), job.NotBefore.UTC())
		assert.Equal(t, 49*time.Hour, job.DedupeFor, "longer than until the next tick")
	})
}

func TestPeriodicIsChecked(t *testing.T) {
	t.Parallel()
	q := newQueue(t, new(queue.Memory))
	job := queue.Job{Kind: "k"}
	for want, p := range map[string][]queue.Periodic{
		"Name or Schedule is missing": {{Name: "x", Job: job}},
		"Kind is empty":               {{Name: "x", Schedule: queue.Every(time.Hour)}},
		"Every(1ms)":                  {{Name: "x", Schedule: queue.Every(time.Millisecond), Job: job}},
		"Missed is 9":                 {{Name: "x", Schedule: queue.Every(time.Hour), Job: job, Missed: 9}},
		`two of the name "x"`:         {{Name: "x", Schedule: queue.Every(time.Hour), Job: job}, {Name: "x", Schedule: queue.Every(time.Hour), Job: job}},
	} {
		err := q.Run(t.Context(), muxOf("k", func(context.Context, queue.Job) error { return nil }), queue.WorkerConfig{Periodic: p})
		require.ErrorContains(t, err, want)
	}
}
