package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/rediscache"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

const (
	cacheLag  = time.Second // Config.MaxLag of the processes
	cacheKeys = 4
	// clockError is by how much two processes may read the clock differently.
	clockError = int64(5 * time.Millisecond)
)

// cacheOp is what a process did: a Get that returned Value, or a change of the source to Value and its invalidation.
type cacheOp struct {
	Recipe     bool // by hand, and not by the cache
	Process    int
	Invalidate bool
	Key        string
	Value      int
	Call, Ret  int64 // Unix time in ns; Ret is 0 if it did not return
}

// cacheSource is what is cached: numbers that grow. Its answers are slow.
type cacheSource struct {
	mu     sync.Mutex
	values map[string]int
	deaf   atomic.Bool // the processes are to lose what their channels bring
	over   atomic.Bool
}

func (s *cacheSource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Query().Get("key")
	s.mu.Lock()
	if r.URL.Path == "/change" {
		s.values[key]++
	}
	v := s.values[key]
	s.mu.Unlock()
	if r.URL.Path == "/load" {
		time.Sleep(rand.N(20 * time.Millisecond)) // the value is on its way
		if rand.IntN(20) == 0 {
			time.Sleep(200 * time.Millisecond)
		}
	}
	fmt.Fprintf(w, "%d %v %v", v, s.deaf.Load(), s.over.Load())
}

func askSource(ctx context.Context, url, path, key string) (v int, deaf, over bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path+"?key="+key, nil) //nolint:gosec // this test's
	if err != nil {
		return 0, false, false, err
	}
	resp, err := (&http.Client{}).Do(req) //nolint:gosec // this test's
	if err != nil {
		return 0, false, false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		_, err = fmt.Sscan(string(body), &v, &deaf, &over)
	}
	return v, deaf, over, err
}

// deafConn loses what its channel brings, while it is told to.
type deafConn struct {
	net.Conn

	deaf    *atomic.Bool
	channel atomic.Bool
}

func (c *deafConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("\r\nsubscribe\r\n")) {
		c.channel.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err == nil && c.channel.Load() && c.deaf.Load() {
			continue
		}
		return n, err
	}
}

// cacheProcess reads and changes until the source says that it is over, and prints what it saw.
func cacheProcess(args []string) error {
	logging.Disable() // a Redis that is away is part of it
	addr, url := args[0], args[1]
	process, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx := context.Background()
	var deaf, over atomic.Bool
	client := redis.NewClient(&redis.Options{Addr: addr, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &deafConn{Conn: c, deaf: &deaf}, nil
	}})
	load := func(ctx context.Context, key string) (int, error) {
		v, _, _, err := askSource(ctx, url, "/load", key)
		return v, err
	}
	c, err := cache.New(load, cache.Config[string, int]{
		Name: "numbers", Remote: rediscache.New(client, rediscache.Config{}), MaxLag: cacheLag, TTL: time.Minute,
		Tags: func(key string, _ int) []string { return []string{"of " + key} },
	})
	if err != nil {
		return err
	}
	byHand := recipe{client, load}
	var mu sync.Mutex
	var ops []cacheOp
	note := func(op cacheOp) {
		mu.Lock()
		defer mu.Unlock()
		op.Process = process
		ops = append(ops, op)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !over.Load() {
				op := cacheOp{Key: fmt.Sprint("k", rand.IntN(cacheKeys)), Recipe: rand.IntN(3) == 0}
				get := c.Get
				if op.Recipe {
					get = byHand.get
				}
				op.Call = time.Now().UnixNano()
				v, err := get(ctx, op.Key)
				op.Ret, op.Value = time.Now().UnixNano(), v
				if err == nil {
					note(op)
				}
				time.Sleep(rand.N(4 * time.Millisecond))
			}
		})
	}
	wg.Go(func() {
		for !over.Load() {
			op := cacheOp{Key: fmt.Sprint("k", rand.IntN(cacheKeys)), Invalidate: true, Recipe: rand.IntN(3) == 0}
			op.Call = time.Now().UnixNano()
			v, _, _, err := askSource(ctx, url, "/change", op.Key)
			if err != nil {
				continue
			}
			op.Value = v
			for { // as a queue does
				switch {
				case op.Recipe:
					err = byHand.del(ctx, op.Key)
				case v%3 == 0:
					err = c.InvalidateTags(ctx, "", "of "+op.Key)
				default:
					err = c.Invalidate(ctx, op.Key)
				}
				if err == nil || over.Load() {
					break
				}
			}
			if err == nil {
				op.Ret = time.Now().UnixNano()
			}
			note(op)
			time.Sleep(rand.N(60 * time.Millisecond))
		}
	})
	for !over.Load() {
		_, isDeaf, isOver, err := askSource(ctx, url, "/state", "")
		if err != nil {
			return err
		}
		deaf.Store(isDeaf)
		over.Store(isOver)
		time.Sleep(20 * time.Millisecond)
	}
	wg.Wait()
	for _, op := range ops {
		line, err := json.Marshal(op)
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "op "+string(line))
	}
	fmt.Fprintf(os.Stdout, "stats %+v\n", c.Stats())
	return nil
}

// recipe is what is usually done: GET, on a miss load and SET with a time to live, on a webhook DEL.
type recipe struct {
	client *redis.Client
	load   func(ctx context.Context, key string) (int, error)
}

func (r recipe) get(ctx context.Context, key string) (int, error) {
	if v, err := r.client.Get(ctx, "recipe:"+key).Int(); err == nil {
		return v, nil
	}
	v, err := r.load(ctx, "r"+key)
	if err == nil {
		_ = r.client.Set(ctx, "recipe:"+key, v, time.Minute).Err() // no more than a cache
	}
	return v, err
}

func (r recipe) del(ctx context.Context, key string) error {
	return r.client.Del(ctx, "recipe:"+key).Err()
}

// cacheModel is a key as a process may see it: no Get that begins after an invalidation has returned is answered with an older value. The state is the newest value that is the oldest allowed.
var cacheModel = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, in, _ any) (bool, any) {
		floor, op := state.(int), in.(cacheOp) //nolint:forcetypeassert // ours
		if op.Invalidate {
			return true, max(floor, op.Value)
		}
		return op.Value >= floor, floor
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
}

// seenBy is the history of a key as a process has to see it: invalidations by others may take effect until lag after they returned.
func seenBy(ops []cacheOp, process int, lag time.Duration) []porcupine.Operation {
	var history []porcupine.Operation
	client := 0
	for _, op := range ops {
		if !op.Invalidate && op.Process != process {
			continue
		}
		o := porcupine.Operation{Input: op, Call: op.Call, Return: op.Ret}
		switch {
		case op.Ret == 0:
			o.Return = never
		case op.Process != process:
			o.Call, o.Return = op.Call-clockError, op.Ret+int64(lag)+clockError
		}
		client++
		o.ClientId = client
		history = append(history, o)
	}
	return history
}

// staleOf counts Gets whose value was older than one whose invalidation had returned so long before they began.
func staleOf(ops []cacheOp, lag time.Duration) (stale, gets int, oldest time.Duration) {
	for _, get := range ops {
		if get.Invalidate {
			continue
		}
		gets++
		is := false
		for _, inv := range ops {
			if inv.Invalidate && inv.Ret != 0 && inv.Value > get.Value && inv.Ret+int64(lag) < get.Call {
				is = true
				oldest = max(oldest, time.Duration(get.Call-inv.Ret))
			}
		}
		if is {
			stale++
		}
	}
	return stale, gets, oldest
}

// P10: "Stale data has a bound, and an invalidation wins. A fill that began before an invalidation can't put the old value back." Two processes over a Redis that is paused, flushed, killed (and comes back with what it had on disk), and whose messages get lost. The usual recipe
// runs beside them, for comparison.
func TestP10CacheHistoriesOfTwoProcessesUnderFaults(t *testing.T) { //nolint:paralleltest // clocks of processes are compared
	srv := redistest.Start(t, "--save", "")
	admin := redistest.Dial(t, srv.Addr)
	source := &cacheSource{values: map[string]int{}}
	web := httptest.NewServer(source)
	t.Cleanup(web.Close)
	var children []*child
	for i := range 2 {
		children = append(children, startChild(t, "cache-process", srv.Addr, web.URL, strconv.Itoa(i)))
	}
	calm := func() { time.Sleep(700*time.Millisecond + rand.N(300*time.Millisecond)) }
	for range 2 {
		calm()
		source.deaf.Store(true)
		time.Sleep(2 * cacheLag)
		source.deaf.Store(false)
		calm()
		require.NoError(t, admin.FlushAll(t.Context()).Err())
		calm()
		require.NoError(t, admin.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err())
		calm()
		require.NoError(t, srv.Pause())
		time.Sleep(rand.N(800 * time.Millisecond))
		require.NoError(t, srv.Resume())
		calm()
		require.NoError(t, admin.Save(t.Context()).Err())
		time.Sleep(300 * time.Millisecond) // of which it will know nothing
		require.NoError(t, srv.Kill())
		require.NoError(t, srv.Start())
	}
	calm()
	source.over.Store(true)
	byKey := map[string][]cacheOp{}
	total := 0
	for _, c := range children {
		<-c.done
		require.NoError(t, c.cmd.Wait())
		for _, line := range c.said() {
			text, ok := strings.CutPrefix(line, "op ")
			if !ok {
				t.Log(line)
				continue
			}
			var op cacheOp
			require.NoError(t, json.Unmarshal([]byte(text), &op))
			key := op.Key
			if op.Recipe {
				key = "recipe " + key
			}
			byKey[key] = append(byKey[key], op)
			total++
		}
	}
	require.Greater(t, total, 5000)
	var recipeStale, recipeGets, lagged, gets int
	var recipeOldest, oldest time.Duration
	for key, ops := range byKey {
		if strings.HasPrefix(key, "recipe") {
			stale, n, age := staleOf(ops, 0)
			recipeStale, recipeGets, recipeOldest = recipeStale+stale, recipeGets+n, max(recipeOldest, age)
			continue
		}
		for p := range children {
			require.NoError(t, judge(ops, p, cacheLag), key)
		}
		stale, n, age := staleOf(ops, 0)
		lagged, gets, oldest = lagged+stale, gets+n, max(oldest, age)
	}
	t.Logf("%d calls. Cache: %d of %d answers were older than an invalidation elsewhere that had returned, by %v at most (bound %v). The usual recipe: %d of %d, by %v", total, lagged, gets, oldest, cacheLag, recipeStale, recipeGets, recipeOldest)
}

// judge says what is wrong with the history of a key as a process has seen it.
func judge(ops []cacheOp, process int, lag time.Duration) error {
	history := seenBy(ops, process, lag)
	switch porcupine.CheckOperationsTimeout(cacheModel, history, 30*time.Second) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return errors.New("it could not be told in time")
	case porcupine.Illegal:
	}
	slices.SortFunc(ops, func(a, b cacheOp) int { return int(a.Call - b.Call) })
	for _, get := range ops {
		if get.Invalidate || get.Process != process {
			continue
		}
		for _, inv := range ops {
			late := int64(0)
			if inv.Process != process {
				late = int64(lag) + clockError
			}
			if inv.Invalidate && inv.Ret != 0 && inv.Value > get.Value && inv.Ret+late < get.Call {
				return fmt.Errorf("%+v, %v after %+v", get, time.Duration(get.Call-inv.Ret), inv)
			}
		}
	}
	return errors.New("not what a cache may do")
}

func TestCacheHistoriesThatAreWrongAreRefuted(t *testing.T) {
	t.Parallel()
	const s = int64(time.Second)
	inv := func(process, value int, call, ret int64) cacheOp {
		return cacheOp{Invalidate: true, Process: process, Value: value, Call: call, Ret: ret}
	}
	get := func(value int, call int64) cacheOp { return cacheOp{Value: value, Call: call, Ret: call + 1} }
	for name, c := range map[string]struct {
		ops []cacheOp
		ok  bool
	}{
		"before":              {[]cacheOp{inv(0, 1, s, 2*s), get(0, s/2)}, true},
		"during":              {[]cacheOp{inv(0, 1, s, 2*s), get(0, s+s/2), get(1, s+s/2)}, true},
		"after":               {[]cacheOp{inv(0, 1, s, 2*s), get(0, 2*s+1)}, false},
		"elsewhere, in time":  {[]cacheOp{inv(1, 1, s, 2*s), get(0, 3*s-1)}, true},
		"elsewhere, too late": {[]cacheOp{inv(1, 1, s, 2*s), get(0, 3*s+2*clockError)}, false},
		"never returned":      {[]cacheOp{inv(0, 1, s, 0), get(0, 9*s)}, true},
		"the second":          {[]cacheOp{inv(0, 1, s, 2*s), inv(0, 2, 3*s, 4*s), get(1, 5*s)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.ok, judge(c.ops, 0, time.Second) == nil)
		})
	}
}
