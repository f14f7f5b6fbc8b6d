package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
	"github.com/breakwater-go/breakwater/idempotency/storetest"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// claimed claims a key of shop "s".
func claimed(t *testing.T, s *redisstore.Store, id string) idempotency.Lease {
	t.Helper()
	r := request(t, id)
	c, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, idempotency.Claimed, c.State)
	return r.Lease
}

func request(t *testing.T, id string) idempotency.Request {
	t.Helper()
	r, err := idempotency.NewRequest("ship", idempotency.Key{Scope: "s", ID: id})
	require.NoError(t, err)
	r.For, r.Retention = time.Hour, 48*time.Hour
	return r
}

func done(t *testing.T, s *redisstore.Store, id string, result []byte) {
	t.Helper()
	require.NoError(t, s.Complete(t.Context(), claimed(t, s, id), result, 48*time.Hour))
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	storetest.Run(t, storetest.Config{New: func(*testing.T) idempotency.Store { return redisstore.New(client, redisstore.Config{}) }, Short: 500 * time.Millisecond})
	t.Cleanup(func() {
		for i, node := range c.Nodes {
			n, err := node.DBSize(context.WithoutCancel(t.Context())).Result()
			assert.NoError(t, err)
			assert.Positive(t, n, "node %d has some of the records", i)
		}
	})
}

// TestSlotsMoveWhileKeysAreClaimed has the keys of a running load go from node to node.
func TestSlotsMoveWhileKeysAreClaimed(t *testing.T) {
	t.Parallel()
	c, client := redistest.StartCluster(t)
	s := redisstore.New(client, redisstore.Config{NoMemo: true, Space: "{moving}"}) // one slot
	k, err := idempotency.New(s, idempotency.Config{Wait: time.Minute})
	require.NoError(t, err)
	slot, err := client.ClusterKeySlot(t.Context(), "{moving}").Result()
	require.NoError(t, err)
	var mu sync.Mutex
	effects := map[string]int{}
	moved := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-moved:
					return
				default:
				}
				id := fmt.Sprint(i)
				_, err := k.Do(t.Context(), "ship", idempotency.Key{ID: id}, func(context.Context) ([]byte, error) {
					mu.Lock()
					defer mu.Unlock()
					effects[id]++
					return nil, nil
				})
				if !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(effects)
	}
	for round := range 4 {
		before := count()
		require.Eventually(t, func() bool { return count() > before+50 }, 30*time.Second, time.Millisecond)
		c.Move(t, int(slot), (c.Owner(t, int(slot))+1+round%2)%3)
	}
	close(moved)
	wg.Wait()
	for id, n := range effects {
		require.Equal(t, 1, n, id)
	}
	require.Greater(t, len(effects), 100)
}

// TestManagedRedis is of services that have no CONFIG, DEBUG and CLIENT, with a user who may do no more than docs/idempotency.md says.
func TestManagedRedis(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "idempotency.md"))
	require.NoError(t, err)
	rule := regexp.MustCompile(`(?m)^ACL SETUSER breakwater (.*)$`).FindSubmatch(text)
	require.NotNil(t, rule, "docs/idempotency.md prints the ACL of a user called breakwater")
	s := redistest.Start(t, "--rename-command", "CONFIG", "", "--rename-command", "DEBUG", "", "--rename-command", "CLIENT", "")
	admin := redistest.Dial(t, s.Addr)
	args := []any{"ACL", "SETUSER", "breakwater"}
	for word := range strings.FieldsSeq(string(rule[1])) {
		args = append(args, strings.Replace(word, "PASSWORD", "secret", 1))
	}
	require.NoError(t, admin.Do(t.Context(), args...).Err())
	client := redis.NewClient(&redis.Options{Addr: s.Addr, Username: "breakwater", Password: "secret"})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	storetest.Run(t, storetest.Config{New: func(*testing.T) idempotency.Store { return redisstore.New(client, redisstore.Config{}) }})
	t.Run("another space", func(t *testing.T) {
		t.Parallel()
		_, err := redisstore.New(client, redisstore.Config{Space: "other"}).Claim(t.Context(), request(t, "k"))
		require.ErrorContains(t, err, "prints its ACL")
	})
}

// TestClockSkewBetweenReplicasCannotShortenALease looks at what is sent: spans, and no times of this process's clock.
func TestClockSkewBetweenReplicasCannotShortenALease(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	sent := &recorder{}
	client.AddHook(sent)
	s := redisstore.New(client, redisstore.Config{NoMemo: true})
	l := claimed(t, s, "k")
	_, err := s.Extend(t.Context(), []idempotency.Lease{l}, time.Hour)
	require.NoError(t, err)
	require.NoError(t, s.Complete(t.Context(), l, nil, 48*time.Hour))
	spans := map[int64]bool{1: true, time.Hour.Milliseconds(): true, 48 * time.Hour.Milliseconds(): true} // 1 is the number of keys
	numbers := 0
	for _, arg := range sent.args {
		if n, err := strconv.ParseInt(fmt.Sprint(arg), 10, 64); err == nil {
			require.True(t, spans[n], n)
			numbers++
		}
	}
	require.Greater(t, numbers, 4)
}

type recorder struct {
	mu   sync.Mutex
	args []any
}

func (r *recorder) note(cmds ...redis.Cmder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cmd := range cmds {
		if strings.HasPrefix(cmd.Name(), "eval") {
			r.args = append(r.args, cmd.Args()...)
		}
	}
}

func (*recorder) DialHook(next redis.DialHook) redis.DialHook { return next }

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

// TestOnlyCommandsOfRedis62 holds what is sent, by the script and without, against what the server says of its commands.
func TestOnlyCommandsOfRedis62(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	names := []any{"COMMAND", "DOCS", "eval", "evalsha", "scan", "del", "info"} // store.go
	script, err := os.ReadFile("store.lua")
	require.NoError(t, err)
	calls := regexp.MustCompile(`call\('(\w+)'`).FindAllSubmatch(script, -1)
	require.Greater(t, len(calls), 5)
	for _, c := range calls {
		names = append(names, string(c[1]))
	}
	docs, err := client.Do(t.Context(), names...).Result()
	require.NoError(t, err)
	all, ok := docs.(map[any]any)
	require.True(t, ok)
	require.GreaterOrEqual(t, len(all), 9)
	for name, doc := range all {
		since := fmt.Sprint(doc.(map[any]any)["since"]) //nolint:forcetypeassert // the server's answer
		require.Less(t, since, "6.2.1", name)
	}
}

func TestFullRedisCompletesAndRefusesClaims(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := redistest.Dial(t, server.Addr)
	s := redisstore.New(client, redisstore.Config{NoMemo: true})
	kept, given, extended := claimed(t, s, "kept"), claimed(t, s, "given"), claimed(t, s, "extended")
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	_, err := s.Claim(t.Context(), request(t, "new"))
	require.ErrorContains(t, err, "takes no new claims")
	require.NoError(t, s.Complete(t.Context(), kept, []byte("what was done must be known"), time.Hour))
	e, err := s.Extend(t.Context(), []idempotency.Lease{extended}, time.Hour)
	require.NoError(t, err)
	require.Empty(t, e)
	require.NoError(t, s.Release(t.Context(), given, time.Hour))
	c, err := s.Claim(t.Context(), request(t, "kept"))
	require.NoError(t, err)
	require.Equal(t, idempotency.Done, c.State)
}

func TestServersThatForgetAreRefused(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t, "--maxmemory-policy", "allkeys-lru").Addr)
	s := redisstore.New(client, redisstore.Config{})
	_, err := s.Claim(t.Context(), request(t, "k"))
	require.ErrorIs(t, err, redisstore.ErrServer)
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	claimed(t, s, "k") // it looks again
}

func TestStoreSaysWhatIsWrongWithHowItWasMade(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{})
	defer client.Close() //nolint:errcheck // it was never used
	reading := redis.NewClusterClient(&redis.ClusterOptions{ReadOnly: true})
	defer reading.Close() //nolint:errcheck // it was never used
	for want, s := range map[string]*redisstore.Store{
		"client is nil":              redisstore.New(nil, redisstore.Config{}),
		"client is a *redis.Ring":    redisstore.New(redis.NewRing(&redis.RingOptions{}), redisstore.Config{}),
		"client reads from replicas": redisstore.New(reading, redisstore.Config{}),
		"Config.MemoKeys is -1":      redisstore.New(client, redisstore.Config{MemoKeys: -1}),
		"Config.MemoFor is -1ns":     redisstore.New(client, redisstore.Config{MemoFor: -1}),
	} {
		_, err := idempotency.New(s, idempotency.Config{})
		require.ErrorContains(t, err, want)
		_, err = s.Claim(t.Context(), idempotency.Request{})
		require.ErrorContains(t, err, want)
	}
}

func TestRecordOfALaterVersionIsAnErrorAndIsLeftAlone(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := redisstore.New(client, redisstore.Config{})
	k, err := idempotency.New(s, idempotency.Config{FailOpen: true})
	require.NoError(t, err)
	const key = "breakwater:once:s:ship:k"
	require.NoError(t, client.Set(t.Context(), key, "\x02later", 0).Err())
	_, err = k.Do(t.Context(), "ship", idempotency.Key{Scope: "s", ID: "k"}, nil)
	require.ErrorIs(t, err, idempotency.ErrNewerFormat)
	_, err = k.Inspect(t.Context(), "ship", idempotency.Key{Scope: "s", ID: "k"})
	require.ErrorIs(t, err, idempotency.ErrNewerFormat)
	v, err := client.Get(t.Context(), key).Result()
	require.NoError(t, err)
	require.Equal(t, "\x02later", v)
	for _, damaged := range []string{"", "\x01", "\x01\x02" + strings.Repeat("x", 30), "\x01\x09" + strings.Repeat("\x00", 30), "\x01\x01" + strings.Repeat("\x00", 10), "\x01\x04" + strings.Repeat("\x00", 14)} {
		require.NoError(t, client.Set(t.Context(), key, damaged, 0).Err())
		_, err := k.Do(t.Context(), "ship", idempotency.Key{Scope: "s", ID: "k"}, nil)
		require.ErrorIs(t, err, idempotency.ErrNewerFormat, "%q is no fresh run, not with FailOpen either", damaged)
	}
	require.NoError(t, client.Del(t.Context(), key).Err())
	require.NoError(t, client.RPush(t.Context(), key, "a list").Err())
	_, err = s.Claim(t.Context(), request(t, "k"))
	require.ErrorContains(t, err, "WRONGTYPE")
}

// TestRecordWrittenByVersionNIsReadableByTheNext has one of each kind, as version 1 writes them.
func TestRecordWrittenByVersionNIsReadableByTheNext(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := redisstore.New(client, redisstore.Config{})
	token := strings.Repeat("t", 8)
	far := "\x7f\xff\xff\xff\xff\xff" // a lease's end
	none := strings.Repeat("\x00", 6)
	for name, tt := range map[string]struct {
		raw  string
		want idempotency.Record
	}{
		"progress": {"\x01\x01" + token + "\x00\x00" + far, idempotency.Record{State: idempotency.InProgress}},
		"ended":    {"\x01\x01" + token + "\x00\x00" + none, idempotency.Record{State: idempotency.Unknown}},
		"done":     {"\x01\x02" + token + "\x02\x00fpresult", idempotency.Record{State: idempotency.Done, Fingerprint: "fp", Result: []byte("result")}},
		"released": {"\x01\x03" + token + "\x00\x02v1", idempotency.Record{State: idempotency.Released, Version: "v1"}},
	} {
		require.NoError(t, client.Set(t.Context(), "breakwater:once:s:ship:"+name, tt.raw, time.Hour).Err())
		rec, err := s.Inspect(t.Context(), idempotency.Name{Op: "ship", Scope: "s", ID: name})
		require.NoError(t, err, name)
		rec.Rest, rec.Kept = 0, 0
		tt.want.Name = idempotency.Name{Op: "ship", Scope: "s", ID: name}
		copy(tt.want.Token[:], token)
		require.Equal(t, tt.want, rec)
	}
}

func TestScriptsAreSentAgainAfterAFlushAndARestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	client := redistest.Dial(t, server.Addr)
	s := redisstore.New(client, redisstore.Config{NoMemo: true})
	l := claimed(t, s, "k")
	require.NoError(t, client.ScriptFlush(t.Context()).Err())
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { done(t, s, fmt.Sprint(i), nil) })
	}
	wg.Wait()
	require.NoError(t, server.Kill())
	completed := make(chan error, 1)
	go func() { completed <- s.Complete(t.Context(), l, []byte("r"), time.Hour) }() // while it is away
	require.NoError(t, server.Start())
	require.NoError(t, <-completed)
	for i := range 100 {
		c, err := s.Claim(t.Context(), request(t, fmt.Sprint(i)))
		require.NoError(t, err)
		require.Equal(t, idempotency.Done, c.State, "what was acknowledged is there after a SIGKILL")
	}
}

func TestHungServerEndsWithTheContext(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redisstore.New(redistest.Dial(t, server.Addr), redisstore.Config{NoMemo: true})
	l := claimed(t, s, "k")
	require.NoError(t, server.Pause())
	defer server.Resume() //nolint:errcheck // the test is over
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := s.Claim(ctx, request(t, "other"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = s.Extend(ctx, []idempotency.Lease{l}, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 2*time.Second)
}

func TestMemoAnswersWithoutTheServerForAWhile(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := redistest.Dial(t, server.Addr)
	s := redisstore.New(client, redisstore.Config{MemoFor: time.Hour})
	done(t, s, "k", []byte("r"))
	done(t, s, "large", make([]byte, 5<<10))
	first, err := s.Claim(t.Context(), request(t, "k"))
	require.NoError(t, err)
	_, err = s.Claim(t.Context(), request(t, "large"))
	require.NoError(t, err)
	require.NoError(t, client.FlushAll(t.Context()).Err())
	again, err := s.Claim(t.Context(), request(t, "k"))
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, "r", string(again.Result))
	c, err := s.Claim(t.Context(), request(t, "large"))
	require.NoError(t, err)
	require.Equal(t, idempotency.Claimed, c.State, "large results are not remembered")
	other := request(t, "k")
	other.Fingerprint = "f"
	c, err = s.Claim(t.Context(), other)
	require.NoError(t, err)
	require.Equal(t, idempotency.Done, c.State)
	_, err = s.Purge(t.Context(), "s")
	require.NoError(t, err)
	c, err = s.Claim(t.Context(), request(t, "k"))
	require.NoError(t, err)
	require.Equal(t, idempotency.Claimed, c.State, "a purge forgets here too")
}

func TestFinishedKeyTakesUnder200Bytes(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := redisstore.New(client, redisstore.Config{NoMemo: true})
	used := func() int {
		n, err := strconv.Atoi(regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(client.Info(t.Context(), "memory").Val())[1])
		require.NoError(t, err)
		return n
	}
	finish := func(from, to int) {
		var wg sync.WaitGroup
		for w := range 32 {
			wg.Go(func() {
				for i := from + w; i < to; i += 32 {
					r, err := idempotency.NewRequest("ship", idempotency.Key{Scope: fmt.Sprintf("shop-%04d.myshopify.com", i%100), ID: fmt.Sprintf("order/82098291194615%04d", i)})
					if !assert.NoError(t, err) {
						return
					}
					r.For, r.Retention = time.Minute, time.Hour
					_, err = s.Claim(t.Context(), r)
					assert.NoError(t, errors.Join(err, s.Complete(t.Context(), r.Lease, nil, time.Hour)))
				}
			})
		}
		wg.Wait()
	}
	finish(0, 1000) // connections, the script
	before := used()
	const keys = 65_000 // Redis doubles its table of keys at 65,536: it costs 16 bytes a key then, and 32 after
	finish(1000, keys)
	each := (used() - before) / (keys - 1000)
	t.Log(each, "bytes")
	require.LessOrEqual(t, each, 200)
}

// TestServerThatIsAwayKeepsNobodyFromTheOthers has one node of three hang before the first use.
func TestServerThatIsAwayKeepsNobodyFromTheOthers(t *testing.T) {
	t.Parallel()
	c, _ := redistest.StartCluster(t)
	require.NoError(t, c.Servers[2].Pause())
	defer c.Servers[2].Resume() //nolint:errcheck // the test is over
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{c.Nodes[0].Options().Addr, c.Nodes[1].Options().Addr}, ReadTimeout: 300 * time.Millisecond, MaxRetries: -1,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 300 * time.Millisecond}).DialContext(ctx, network, addr)
		},
	})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	s := redisstore.New(client, redisstore.Config{Space: "{b}", NoMemo: true}) // whose slot is the first node's or the second's
	slot, err := c.Nodes[0].ClusterKeySlot(t.Context(), "{b}").Result()
	require.NoError(t, err)
	require.NotEqual(t, 2, c.Owner(t, int(slot)))
	require.Eventually(t, func() bool {
		_, err := s.Claim(t.Context(), request(t, fmt.Sprint(time.Now().UnixNano())))
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
}
