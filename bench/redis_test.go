package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
)

// tinyRedis is a run that takes little time and measures nothing.
var tinyRedis = redisSizes{
	rounds: 1, jobs: batchJobs * batchJobs, rate: 1000, trickle: 20, idle: 2 * time.Second, lease: 300 * time.Millisecond, crowd: batchJobs * batchJobs,
	late: 10, handling: 2 * time.Millisecond, memoryJobs: 4 * batchJobs, turn: batchJobs, waiting: []int{100, 200}, lanes: []int{50, 100}, scripts: 3,
	stall: 10 * time.Second,
}

// redisBenchOf is a run over a server of its own.
func redisBenchOf(t *testing.T, rep *report) *redisBench {
	t.Helper()
	b, err := newRedisBench(t.Context(), rep, redistest.Start(t).Addr, tinyRedis)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(b.close(), b.admin.Close())) })
	return b
}

// faultyRedis opens engines that have a fault.
func faultyRedis(f faulty) func(*redis.Client, string) backend {
	return func(c *redis.Client, space string) backend {
		engine := f
		engine.backend = openRedis(c, space)
		return &engine
	}
}

func TestRedisRuns(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := redisBenchOf(t, &report{out: &out, json: true})
	require.NoError(t, b.run(t.Context()), &out)
	assert.Equal(t, 15+4+3+2+2+3+2+3+6, validRows(t, &out))
	keys, err := b.admin.DBSize(t.Context()).Result()
	require.NoError(t, err)
	assert.Zero(t, keys)
	slower, err := b.admin.ConfigGet(t.Context(), slowerThan).Result()
	require.NoError(t, err)
	assert.Equal(t, map[string]string{slowerThan: "10000"}, slower)
}

func TestRedisIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := redisBenchOf(t, &report{})
	require.NoError(t, b.admin.Set(t.Context(), "precious", 1, 0).Err())
	err := run(t.Context(), []string{"queue", "-engine", "redis", "-redis", b.addr}, new(bytes.Buffer))
	require.ErrorContains(t, err, "holds 1 keys")
	require.NoError(t, b.admin.Get(t.Context(), "precious").Err())
}

func TestFaultyRedisIsInvalid(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{
		"loses a job":          "jobs in lanes",
		"runs a job twice":     "ran twice or out of order",
		"turns an order round": "ran twice or out of order",
		"keeps a job":          "5 jobs were taken for others",
		"buries a job":         "dead, 0 groups",
		"cuts payloads":        "had a wrong payload",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := redisBenchOf(t, &report{})
			b.sizes.stall = 300 * time.Millisecond
			b.open = faultyRedis(faults()[what].engine)
			r := &racer{dedupe: true, system: func(c *redis.Client) (system, error) {
				engine := b.open(c, "faulty")
				return newQueues(engine, engine)
			}}
			course := makeLoad(laneNames(32, 2), 1, batchJobs) // a batch has two of each lane
			require.NoError(t, b.round(t.Context(), r, course, 4*batchJobs))
			require.ErrorContains(t, r.problem, want)
		})
	}
}

// wrong is a system that does something wrong.
type wrong struct {
	system
	enqueued func([]queue.Job) []queue.Job
	taken    func(body []byte, take func([]byte))
}

func (w wrong) enqueue(ctx context.Context, jobs ...queue.Job) (int, error) {
	if w.enqueued != nil {
		jobs = w.enqueued(slices.Clone(jobs))
	}
	return w.system.enqueue(ctx, jobs...)
}

func (w wrong) work(ctx context.Context, take func([]byte)) error {
	return w.system.work(ctx, func(body []byte) {
		if w.taken != nil {
			w.taken(body, take)
		} else {
			take(body)
		}
	})
}

func TestWrongPeerIsInvalid(t *testing.T) {
	t.Parallel()
	peers := map[string]racer{
		"asynq":     {dedupe: true, system: func(c *redis.Client) (system, error) { return newAsynq(c, c), nil }},
		"Watermill": {system: func(c *redis.Client) (system, error) { return newWatermill(c, 3) }},
		"stream":    {system: func(c *redis.Client) (system, error) { return bareStream{streamed{c}, 3}, nil }},
	}
	for what, f := range map[string]struct {
		wrong
		dedupe bool // only a peer that knows duplicates can do this wrong
		want   string
	}{
		"loses a job": {wrong: wrong{enqueued: func(jobs []queue.Job) []queue.Job { return jobs[1:] }}, want: "want 320"},
		"runs a job twice": {wrong: wrong{taken: func(body []byte, take func([]byte)) {
			take(body)
			take(body)
		}}, want: "ran twice"},
		"cuts payloads": {wrong: wrong{taken: func(body []byte, take func([]byte)) { take(body[:512]) }}, want: "had a wrong payload"},
		"takes a job twice": {dedupe: true, wrong: wrong{enqueued: func(jobs []queue.Job) []queue.Job {
			for i := range jobs {
				jobs[i].DedupeKey = rand.Text()
			}
			return jobs
		}}, want: "64 jobs of 64 were accepted a second time"},
		"drops a job": {dedupe: true, wrong: wrong{enqueued: func(jobs []queue.Job) []queue.Job {
			return append(jobs, jobs[0])
		}}, want: "jobs were taken for others"},
		"does nothing": {},
	} {
		for name, r := range peers {
			if f.dedupe && !r.dedupe {
				continue
			}
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				b := redisBenchOf(t, &report{})
				b.sizes.stall = 300 * time.Millisecond
				open := r.system
				r.system = func(c *redis.Client) (system, error) {
					s, err := open(c)
					w := f.wrong
					w.system = s
					return w, err
				}
				course := makeLoad(laneNames(64, 2), 1, batchJobs)
				course.tally.anyOrder(8)
				require.NoError(t, b.round(t.Context(), &r, course, 4*batchJobs))
				if f.want == "" {
					require.NoError(t, r.problem)
				} else {
					require.ErrorContains(t, r.problem, f.want)
				}
			})
		}
	}
}
