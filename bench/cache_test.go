package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// tinyCache is a run that takes little time and measures nothing.
var tinyCache = cacheSizes{
	turns: 1, remoteTurns: 1, turn: 100 * time.Microsecond, remoteTurn: time.Millisecond, keys: 64, full: 128, remoteKeys: 64,
	rounds: 1, callers: 100, takes: 20 * time.Millisecond,
	tries: 2, joins: 5 * time.Millisecond, settle: time.Second,
	memory: 4000, entries: 500, bytes: 1 << 20,
}

// cacheBenchOf is a run over a server of its own.
func cacheBenchOf(t *testing.T, rep *report) *cacheBench {
	t.Helper()
	r, err := newRedisBench(t.Context(), rep, redistest.Start(t).Addr, redisSizes{})
	require.NoError(t, err)
	b := &cacheBench{redisBench: r, sizes: tinyCache, timeout: 10 * time.Second}
	t.Cleanup(func() { require.NoError(t, errors.Join(b.end(context.WithoutCancel(t.Context())), r.admin.Close())) })
	return b
}

// cacheRow is what is looked at of a row: a ratio that is no number may be, of old values that only ours has.
type cacheRow struct {
	Case       string
	Ours, Peer float64
	Ratio      any
	Met        bool
	Problem    string
}

func cacheRows(t *testing.T, out io.Reader) (rows []cacheRow) {
	t.Helper()
	for dec := json.NewDecoder(out); dec.More(); {
		var row cacheRow
		require.NoError(t, dec.Decode(&row))
		rows = append(rows, row)
	}
	return rows
}

//nolint:paralleltest // it measures, if little, and heap: what runs beside it would be in that
func TestCacheRuns(t *testing.T) {
	var out bytes.Buffer
	b := cacheBenchOf(t, &report{out: &out, json: true})
	require.NoError(t, b.run(t.Context(), ""), &out)
	rows := cacheRows(t, &out)
	assert.Len(t, rows, 2*(3+5)+2+6+2*3+2*5+3+4+2*8+6+8+4+8+7+1+6)
	for _, row := range rows {
		assert.Empty(t, row.Problem, row.Case)
		assert.NotEqual(t, "invalid", row.Ratio, row.Case)
	}
	keys, err := b.admin.DBSize(t.Context()).Result()
	require.NoError(t, err)
	assert.Zero(t, keys)
}

func TestCachePart(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := cacheBenchOf(t, &report{out: &out, json: true})
	require.NoError(t, b.run(t.Context(), "bulk"))
	assert.Len(t, cacheRows(t, &out), 6)
	require.ErrorContains(t, b.run(t.Context(), "bulky"), `no part "bulky"`)
}

func TestCacheLeavesRedisAlone(t *testing.T) {
	t.Parallel()
	b := cacheBenchOf(t, &report{})
	require.NoError(t, b.admin.Set(t.Context(), "precious", 1, 0).Err())
	err := run(t.Context(), []string{"cache", "-redis", b.addr}, new(bytes.Buffer))
	require.ErrorContains(t, err, "holds 1 keys")
	require.NoError(t, b.admin.Get(t.Context(), "precious").Err())
}

type loads = func(ctx context.Context, key string) ([]byte, error)

// spoiled is a contender whose get does something wrong: by what it had, and by a load.
func spoiled(open opener[string], how func(get, load loads) loads) opener[string] {
	return func(load loader[string]) (process[string], error) {
		p, err := open(load)
		p.get = how(p.get, load)
		return p, err
	}
}

// now and then is when it does it.
func seldom(do, wrong loads) loads {
	var mu sync.Mutex
	asked := map[string]int{}
	return func(ctx context.Context, key string) ([]byte, error) {
		mu.Lock()
		asked[key]++
		n := asked[key]
		mu.Unlock()
		if n > 3 && marked(key) { // what came before was the way in
			return wrong(ctx, key)
		}
		return do(ctx, key)
	}
}

// How a hit may go wrong.
var wrongHits = map[string]struct {
	how  func(get, load loads) loads
	want string
}{
	"gives another's value": {func(get, _ loads) loads {
		return seldom(get, func(ctx context.Context, key string) ([]byte, error) {
			return get(ctx, key[:len(key)-1]+"6")
		})
	}, "values were wrong"},
	"cuts values": {func(get, _ loads) loads {
		return seldom(get, func(ctx context.Context, key string) ([]byte, error) {
			v, err := get(ctx, key)
			return v[:len(v)-1], err
		})
	}, "values were wrong"},
	"fails": {func(get, _ loads) loads {
		return seldom(get, func(context.Context, string) ([]byte, error) { return nil, errors.New("no") })
	}, "no"},
	"loads":              {seldom, "loads of 64 keys"},
	"does nothing wrong": {func(get, _ loads) loads { return get }, ""},
}

func TestWrongHitIsInvalid(t *testing.T) {
	t.Parallel()
	for what, w := range wrongHits {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := cacheBenchOf(t, &report{})
			for _, c := range append(b.hitContenders(), b.remoteContenders()...) {
				things := newStock(64, hitBytes, productOf)
				e, err := enter(t.Context(), c.name, things, true, spoiled(c.open, w.how))
				require.NoError(t, err, c.name)
				for _, callers := range []int{1, 2} {
					trial := e.trial(t.Context(), callers)
					trial.serve(256)
					if w.want == "" {
						require.NoError(t, trial.problem())
					} else {
						require.ErrorContains(t, trial.problem(), w.want, c.name)
					}
				}
				require.NoError(t, b.end(t.Context())) // the next one has the same keys
			}
		})
	}
}

// What is measured is the tier that it is said to be.
func TestHitOfAnotherTierIsInvalid(t *testing.T) {
	t.Parallel()
	b := cacheBenchOf(t, &report{})
	things := newStock(64, hitBytes, productOf)
	remembers := func(load loader[string]) (process[string], error) {
		p, err := b.over(cache.Config[string, []byte]{Name: "remembers"})(load)
		asked, err2 := b.over(cache.Config[string, []byte]{Name: "asked", NoLocal: true})(load)
		p.hits = asked.hits
		return p, errors.Join(err, err2)
	}
	e, err := enter(t.Context(), "remembers", things, true, remembers)
	require.NoError(t, err)
	trial := e.trial(t.Context(), 1)
	trial.serve(64)
	require.ErrorContains(t, trial.problem(), "0 of 64 answers were hits")
}

func TestWrongCrowdIsInvalid(t *testing.T) {
	t.Parallel()
	for what, w := range map[string]struct {
		how  func(get, load loads) loads
		want string
	}{
		"gives a wrong value": {func(get, _ loads) loads {
			return func(ctx context.Context, key string) ([]byte, error) {
				v, err := get(ctx, key)
				return append([]byte("not "), v...), err
			}
		}, "values were wrong"},
		"fails": {func(get, _ loads) loads {
			return func(ctx context.Context, key string) ([]byte, error) {
				v, err := get(ctx, key)
				if key == "crowded" {
					err = errors.New("no")
				}
				return v, err
			}
		}, "no"},
		"keeps nothing": {func(_, load loads) loads { return load }, "was not kept"},
		"loads nothing": {func(_, _ loads) loads {
			return func(_ context.Context, key string) ([]byte, error) { return []byte("the value of " + key), nil }
		}, "nothing was loaded"},
		"does nothing wrong": {func(get, _ loads) loads { return get }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := cacheBenchOf(t, &report{})
			for _, c := range b.crowds() {
				c.open = spoiled(c.open, w.how)
				require.NoError(t, c.gather(t.Context(), time.Millisecond))
				c.rush(t.Context(), "crowded", 20)
				if w.want == "" {
					require.NoError(t, c.problem)
				} else {
					require.ErrorContains(t, c.problem, w.want, c.String())
				}
				require.NoError(t, b.end(t.Context()))
			}
		})
	}
}

// Loads are counted: without anything that has them wait for each other there are as many as callers.
func TestCrowdIsCounted(t *testing.T) {
	t.Parallel()
	b := cacheBenchOf(t, &report{})
	c := &crowd{caching: caching{nameByHand, b.openByHand}, processes: 2}
	require.NoError(t, c.gather(t.Context(), 300*time.Millisecond))
	c.rush(t.Context(), "crowded", 10)
	require.NoError(t, c.problem)
	require.Equal(t, 10, c.loads)
}

// A cache that does not invalidate has old values in all races, and one whose values are neither old nor new is invalid.
func TestRacesAreSeen(t *testing.T) {
	t.Parallel()
	kinds := []raceKind{{name: "stale fill"}, {name: "stale fill, apart", apart: true}, {name: "old load joined", joining: true}}
	for what, w := range map[string]struct {
		spoil   func(p *process[string])
		old     int
		problem string
	}{
		"does not invalidate": {func(p *process[string]) {
			p.drop = func(context.Context, string) error { return nil }
		}, 2, ""},
		"fails to invalidate": {func(p *process[string]) {
			drop := p.drop
			p.drop = func(ctx context.Context, key string) error { return errors.Join(drop(ctx, key), errors.New("no")) }
		}, 0, "no"},
		"has another value": {func(p *process[string]) {
			get := p.get
			p.get = func(ctx context.Context, key string) ([]byte, error) {
				v, err := get(ctx, key)
				return bytes.ToUpper(v), err
			}
		}, 0, `a value is "NEW"`},
		"does not load": {func(p *process[string]) {
			p.get = func(context.Context, string) ([]byte, error) { return []byte(newVersion), nil }
		}, 0, "came without a load"},
		"does nothing wrong": {func(*process[string]) {}, 0, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := cacheBenchOf(t, &report{})
			open := func(load loader[string]) (process[string], error) {
				p, err := b.over(cache.Config[string, []byte]{Name: "races"})(load)
				w.spoil(&p)
				return p, err
			}
			for _, kind := range kinds {
				r := &racing{caching: caching{name: what, open: open}, shares: true}
				require.NoError(t, r.stale(t.Context(), kind, 2, 5*time.Millisecond))
				assert.Equal(t, w.old, r.old, kind.name)
				if w.problem == "" {
					require.NoError(t, r.problem)
				} else {
					require.ErrorContains(t, r.problem, w.problem)
				}
			}
			r := &racing{caching: caching{name: what, open: open}, shares: true}
			e, err := r.invalidate(t.Context(), 2)
			require.NoError(t, err)
			if w.problem != "" {
				require.Error(t, r.problem)
				return
			}
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				r.old = 0
				e.look(t.Context())
				assert.Equal(c, w.old, r.old)
			}, 5*time.Second, 5*time.Millisecond)
			require.NoError(t, r.problem)
		})
	}
}

// Old values of ours, where a peer has none, are no number, and a target that is missed.
func TestOldValueIsTold(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := &cacheBench{redisBench: &redisBench{rep: &report{out: &out, json: true}}}
	b.tell("race", "of 2", []*racing{{caching: caching{name: nameOurs}}, {caching: caching{name: nameOursRedis}, old: 2}, {caching: caching{name: nameByHand}}, {caching: caching{name: nameTTLCache}, problem: errors.New("no")}})
	assert.Equal(t, []cacheRow{
		{Case: "race, breakwater vs target", Ratio: 1.0, Met: true},
		{Case: "race, breakwater, Redis vs target", Ours: 2, Ratio: "+Inf"},
		{Case: "race vs by hand", Ours: 2, Ratio: "+Inf", Met: true},
		{Case: "race vs ttlcache", Ours: 2, Ratio: "invalid", Problem: "no"},
	}, cacheRows(t, &out))
}

func TestWrongBulkIsInvalid(t *testing.T) {
	t.Parallel()
	for what, w := range map[string]struct {
		how  func(get many, load loader[shopKey]) many
		want string
	}{
		"misses one": {func(get many, _ loader[shopKey]) many {
			return func(ctx context.Context, keys []shopKey) (map[shopKey][]byte, error) { return get(ctx, keys[1:]) }
		}, "missing or wrong"},
		"loads one": {func(get many, load loader[shopKey]) many {
			return func(ctx context.Context, keys []shopKey) (map[shopKey][]byte, error) {
				_, err := load(ctx, keys[0])
				got, err2 := get(ctx, keys)
				return got, errors.Join(err, err2)
			}
		}, "loads of 100 keys"},
		"has one too many": {func(get many, _ loader[shopKey]) many {
			return func(ctx context.Context, keys []shopKey) (map[shopKey][]byte, error) {
				got, err := get(ctx, keys)
				got[shopKey{}] = nil
				return got, err
			}
		}, "101 values for 100 keys"},
		"does nothing wrong": {func(get many, _ loader[shopKey]) many { return get }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := cacheBenchOf(t, &report{})
			things := newStock(bulkKeys, remoteBytes, func(i int) shopKey { return shopKey{shopOf(i % 2), productOf(i)} })
			for name, open := range map[string]func(loader[shopKey], redis.Hook) (many, error){"ours": b.bulkOurs("wrong", nil), "MGET": b.bulkMGET} {
				e, err := enterBulk(t.Context(), name, things, func(load loader[shopKey], hook redis.Hook) (many, error) {
					get, err := open(load, hook)
					return w.how(get, load), err
				})
				require.NoError(t, err)
				e.serve(2)
				if w.want == "" {
					require.NoError(t, e.problem())
					require.InDelta(t, 1, e.perCall(), 0)
				} else {
					require.ErrorContains(t, e.problem(), w.want, name)
				}
			}
		})
	}
}

// Who asks for one key after the other takes as many round trips.
func TestTripsAreCounted(t *testing.T) {
	t.Parallel()
	b := cacheBenchOf(t, &report{})
	things := newStock(bulkKeys, remoteBytes, func(i int) shopKey { return shopKey{shopOf(0), productOf(i)} })
	e, err := enterBulk(t.Context(), "one by one", things, func(load loader[shopKey], hook redis.Hook) (many, error) {
		get, err := b.bulkMGET(load, hook)
		return func(ctx context.Context, keys []shopKey) (map[shopKey][]byte, error) {
			out := map[shopKey][]byte{}
			for _, k := range keys {
				one, err := get(ctx, []shopKey{k})
				if err != nil {
					return nil, err
				}
				out[k] = one[k]
			}
			return out, nil
		}, err
	})
	require.NoError(t, err)
	e.serve(2)
	require.NoError(t, e.problem())
	require.InDelta(t, bulkKeys, e.perCall(), 0)
}

//nolint:paralleltest // what runs beside it would be in the heap
func TestWrongWeightIsSeen(t *testing.T) {
	open := openOurs(cache.Config[string, []byte]{MaxEntries: 100_000})
	small := &weighed{caching: caching{"bounded", openOurs(cache.Config[string, []byte]{MaxEntries: 500})}, most: 500, least: 250}
	large := &weighed{caching: caching{"unbounded", open}, most: 100_000, least: 250}
	for _, w := range []*weighed{small, large} {
		require.NoError(t, w.pass(t.Context(), 20_000))
		require.NoError(t, w.problem)
		require.Greater(t, w.each(), float64(hitBytes), w.name)
	}
	assert.LessOrEqual(t, small.size, 500)
	assert.Equal(t, 20_000, large.size)
	assert.Greater(t, large.heap, 10*small.heap)
	for what, w := range map[string]struct {
		how  func(get, load loads) loads
		want string
	}{
		"gives a wrong value": {func(get, _ loads) loads {
			return func(ctx context.Context, key string) ([]byte, error) {
				v, err := get(ctx, key)
				return v[1:], err
			}
		}, "values were wrong"},
		"loads nothing": {func(_, _ loads) loads {
			return func(_ context.Context, key string) ([]byte, error) { return weighedValue(key), nil }
		}, "0 loads of 500 keys"},
		"keeps nothing": {func(_, load loads) loads { return load }, "0 entries in the end"},
		"fails": {func(_, _ loads) loads {
			return func(context.Context, string) ([]byte, error) { return nil, errors.New("no") }
		}, "no"},
	} {
		wrong := &weighed{caching: caching{what, spoiled(open, w.how)}, most: 500, least: 1}
		require.NoError(t, wrong.pass(t.Context(), 500))
		require.ErrorContains(t, wrong.problem, w.want, what)
	}
}
