package redisqueue_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/brokertest"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// acl is what docs/redis.md says a user needs.
func acl(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "redis.md"))
	require.NoError(t, err)
	rule := regexp.MustCompile(`(?m)^ACL SETUSER breakwater (.*)$`).FindSubmatch(text)
	require.NotNil(t, rule, "docs/redis.md prints the ACL of a user called breakwater")
	return strings.Fields(string(rule[1]))
}

// TestManagedRedis is of services that have no CONFIG, DEBUG and CLIENT, with a user who may do no more than docs/redis.md says.
func TestManagedRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--rename-command", "CONFIG", "", "--rename-command", "DEBUG", "", "--rename-command", "CLIENT", "", "--appendonly", "yes")
	admin := redistest.Dial(t, s.Addr)
	rule := []any{"ACL", "SETUSER", "breakwater"}
	for _, word := range acl(t) {
		rule = append(rule, strings.NewReplacer("PASSWORD", "secret", "{breakwater:", "{test").Replace(word)) // the spaces of these tests
	}
	require.NoError(t, admin.Do(t.Context(), rule...).Err())
	client := redis.NewClient(&redis.Options{Addr: s.Addr, Username: "breakwater", Password: "secret"})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	brokertest.Run(t, brokertest.Config{
		New: func(t testing.TB) brokertest.Engine {
			t.Helper()
			e := newTimed(t, client, 2)
			e.client = admin // who puts the clock forward
			return e
		},
		Sleep:     sleep,
		Sequences: 3, Steps: 80,
	})
}

// TestOnlyCommandsOfRedis62 holds what is sent to Redis, by scripts and without, against what the server says of its commands.
func TestOnlyCommandsOfRedis62(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	seen := &recorder{names: map[string]bool{}}
	watched := redistest.Dial(t, client.Options().Addr)
	watched.AddHook(seen)
	brokertest.Run(t, brokertest.Config{
		New:       func(t testing.TB) brokertest.Engine { t.Helper(); return newTimed(t, watched, 1) },
		Sleep:     sleep,
		Sequences: 1, Steps: 40,
	})
	t.Cleanup(func() { // after the suite, whose checks run side by side
		names := seen.list()
		scripts, err := filepath.Glob("lua/*.lua")
		assert.NoError(t, err)
		assert.NotEmpty(t, scripts)
		for _, file := range scripts {
			text, err := os.ReadFile(file)
			assert.NoError(t, err)
			for _, m := range regexp.MustCompile(`(?:call|many)\('([A-Z]+)'`).FindAllStringSubmatch(string(text), -1) {
				names = append(names, strings.ToLower(m[1]))
			}
		}
		assert.Contains(t, names, "evalsha")
		assert.Contains(t, names, "ltrim")
		direct := redis.NewClient(&redis.Options{Addr: client.Options().Addr})
		defer direct.Close() //nolint:errcheck // only asked
		docs, err := direct.Do(context.WithoutCancel(t.Context()), append([]any{"COMMAND", "DOCS"}, anys(names)...)...).Result()
		assert.NoError(t, err, "COMMAND DOCS needs Redis 7")
		all, _ := docs.(map[any]any)
		for _, name := range names {
			doc, _ := all[name].(map[any]any)
			since, _ := doc["since"].(string)
			var major, minor int
			_, err := fmt.Sscanf(since, "%d.%d", &major, &minor)
			assert.NoError(t, err, "%s is there since %q", name, since)
			assert.True(t, major < 6 || major == 6 && minor <= 2, "%s is there since %s", name, since)
		}
	})
}

func anys(names []string) (list []any) {
	for _, name := range names {
		list = append(list, name)
	}
	return list
}

// recorder is a hook that notes the names of commands.
type recorder struct {
	mu    sync.Mutex
	names map[string]bool
}

func (r *recorder) list() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (r *recorder) note(cmds ...redis.Cmder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range cmds {
		r.names[c.Name()] = true
	}
}

func (r *recorder) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.note(cmd)
		return next(ctx, cmd)
	}
}

func (r *recorder) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		r.note(cmds...)
		return next(ctx, cmds)
	}
}

// TestClockOfAWorkerAnHourOffChangesNothing has the server's clock an hour before and after that of the process.
func TestClockOfAWorkerAnHourOffChangesNothing(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		space := "off" + strconv.Itoa(int(off.Hours()))
		require.NoError(t, redisqueue.Forward(t.Context(), client, space, 1, off))
		l := brokertest.NewLoad(t, redisqueue.New(client, redisqueue.Config{Space: space}))
		ctx, stop := context.WithCancel(t.Context())
		mux := queue.NewMux()
		var order []string
		var failed atomic.Bool
		began := time.Now()
		mux.Handle("k", func(_ context.Context, j queue.Job) error {
			if string(j.Payload) == "first" && failed.CompareAndSwap(false, true) {
				return assert.AnError
			}
			if order = append(order, string(j.Payload)); len(order) == 3 {
				stop()
			}
			return nil
		})
		_, err := l.Jobs.Enqueue(ctx, queue.Job{Kind: "k", Key: "k", Payload: []byte("later"), Delay: time.Second}, queue.Job{Kind: "k", Key: "k", Payload: []byte("first")},
			queue.Job{Kind: "k", Key: "k", Payload: []byte("second")})
		require.NoError(t, err)
		require.NoError(t, l.Jobs.Run(ctx, mux, queue.WorkerConfig{Backoff: func(int) time.Duration { return 100 * time.Millisecond }}))
		require.Equal(t, []string{"first", "second", "later"}, order)
		require.Less(t, time.Since(began), 10*time.Second)
		problems, err := l.Broker.Check(t.Context())
		require.NoError(t, err)
		require.Empty(t, problems)
	}
}

// TestEverythingIsRestartedWith100kWaiting restarts the server and the workers with a backlog.
func TestEverythingIsRestartedWith100kWaiting(t *testing.T) {
	t.Parallel()
	const jobs = 100_000
	s := redistest.Start(t, "--appendonly", "yes")
	fill := func() {
		client := redistest.Dial(t, s.Addr)
		q, err := queue.New(redisqueue.New(client, redisqueue.Config{}), queue.Config{})
		require.NoError(t, err)
		for i := 0; i < jobs; i += 500 {
			batch := make([]queue.Job, 500)
			for n := range batch {
				batch[n] = queue.Job{Kind: "k", Group: fmt.Sprint("shop", (i+n)%100), Key: fmt.Sprint((i + n) % 1000), Payload: fmt.Append(nil, i+n)}
			}
			_, err := q.Enqueue(t.Context(), batch...)
			require.NoError(t, err)
		}
	}
	fill()
	require.NoError(t, s.Stop())
	require.NoError(t, s.Start())

	b := redisqueue.New(redistest.Dial(t, s.Addr), redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	last, done := map[string]int{}, 0
	mux := queue.NewMux()
	mux.Handle("k", func(_ context.Context, j queue.Job) error {
		n, err := strconv.Atoi(string(j.Payload))
		mu.Lock()
		defer mu.Unlock()
		if before, some := last[j.Key]; some && before >= n {
			return fmt.Errorf("job %d of key %s after %d", n, j.Key, before)
		}
		last[j.Key] = n
		if done++; done == jobs {
			stop()
		}
		return err
	})
	require.NoError(t, q.Run(ctx, mux, queue.WorkerConfig{Concurrency: 64}))
	require.Equal(t, jobs, done)
	problems, err := b.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	q, err := queue.New(redisqueue.New(redistest.Dial(t, l.Addr().String()), redisqueue.Config{}), queue.Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	_, err = q.Enqueue(ctx, queue.Job{Kind: "k"})
	require.ErrorContains(t, err, l.Addr().String())
	require.Less(t, time.Since(began), 4*time.Second)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, "127.0.0.1:1")
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	t.Cleanup(func() { require.NoError(t, ring.Close()) })
	for name, c := range map[string]struct {
		client redis.UniversalClient
		cfg    redisqueue.Config
		want   string
	}{
		"no client":           {nil, redisqueue.Config{}, "client is nil"},
		"a ring":              {ring, redisqueue.Config{}, "*redis.Ring"},
		"braces":              {client, redisqueue.Config{Space: "{a}"}, `Config.Space is "{a}"`},
		"partitions":          {client, redisqueue.Config{Partitions: -1}, "Config.Partitions is -1"},
		"too many partitions": {client, redisqueue.Config{Partitions: 20_000}, "up to 16384"},
		"replicas":            {client, redisqueue.Config{Replicas: -1}, "Config.Replicas is -1"},
		"a long wait":         {client, redisqueue.Config{Replicas: 1, ReplicasWithin: time.Minute}, "less than the client's ReadTimeout"},
		"time":                {client, redisqueue.Config{ReplicasWithin: -1}, "Config.ReplicasWithin is -1ns"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := queue.New(redisqueue.New(c.client, c.cfg), queue.Config{})
			require.ErrorContains(t, err, c.want)
		})
	}
}
