package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// tinyOnce is a run that takes little time and measures nothing. Its rounds use few enough keys for faults to show in each part.
var tinyOnce = onceSizes{rounds: 1, keys: 128, again: 128, replays: 2, records: 200, memory: 128}

// onceBenchOf is a run over a server of its own.
func onceBenchOf(t *testing.T, rep *report) *onceBench {
	t.Helper()
	r, err := newRedisBench(t.Context(), rep, redistest.Start(t).Addr, redisSizes{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(r.close(), r.admin.Close())) })
	return newOnceBench(r, tinyOnce)
}

func TestIdempotencyRuns(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := onceBenchOf(t, &report{out: &out, json: true})
	require.NoError(t, b.run(t.Context()), &out)
	assert.Equal(t, 4+4+1+2+1+8, validRows(t, &out))
	keys, err := b.admin.DBSize(t.Context()).Result()
	require.NoError(t, err)
	assert.Zero(t, keys)
}

func TestIdempotencyLeavesRedisAlone(t *testing.T) {
	t.Parallel()
	b := onceBenchOf(t, &report{})
	require.NoError(t, b.admin.Set(t.Context(), "precious", 1, 0).Err())
	err := run(t.Context(), []string{"idempotency", "-redis", b.addr}, new(bytes.Buffer))
	require.ErrorContains(t, err, "holds 1 keys")
	require.NoError(t, b.admin.Get(t.Context(), "precious").Err())
}

// faultyStore is a store that does something wrong.
type faultyStore struct {
	operated

	claim    func(c idempotency.Claim, r idempotency.Request) idempotency.Claim
	complete func(l idempotency.Lease) bool // whether to
}

type operated interface {
	idempotency.Store
	idempotency.Operator
}

func (s faultyStore) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	c, err := s.operated.Claim(ctx, r)
	if s.claim != nil {
		c = s.claim(c, r)
	}
	return c, err
}

func (s faultyStore) Complete(ctx context.Context, l idempotency.Lease, result []byte, retention time.Duration) error {
	if s.complete != nil && !s.complete(l) {
		return nil
	}
	return s.operated.Complete(ctx, l, result, retention)
}

// marked are the things that a fault hits.
func marked(id string) bool { return id[len(id)-1] == '7' }

var onceFaults = map[string]struct {
	faultyStore
	fresh, again string // what is said of it
}{
	"forgets": {faultyStore{claim: func(c idempotency.Claim, r idempotency.Request) idempotency.Claim {
		if marked(r.ID) {
			c.State = idempotency.Claimed
		}
		return c
	}}, "lease lost", "lease lost"}, // the record is done, and its token another
	"drops what is new": {faultyStore{claim: func(c idempotency.Claim, r idempotency.Request) idempotency.Claim {
		if marked(r.ID) {
			c.State = idempotency.Done
		}
		return c
	}}, "had other than 1 effects", "had other than 1 effects"},
	"does not record":    {faultyStore{complete: func(l idempotency.Lease) bool { return !marked(l.ID) }}, "are not kept as done", "are not kept as done"},
	"does nothing wrong": {},
}

func TestFaultyStoreIsInvalid(t *testing.T) {
	t.Parallel()
	for what, f := range onceFaults {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			b := onceBenchOf(t, &report{out: &out, json: true})
			spoil := func(s idempotency.Store) idempotency.Store {
				faulty := f.faultyStore
				faulty.operated, _ = s.(operated)
				return faulty
			}
			b.store = func(c *redis.Client, cfg redisstore.Config) idempotency.Store { return spoil(redisstore.New(c, cfg)) }
			b.memory = func() idempotency.Store { return spoil(new(idempotency.Memory)) }
			c := b.contenders()[0]
			require.NoError(t, b.round(t.Context(), c))
			k, err := newKept(b.store(b.client(), redisstore.Config{NoMemo: true}), nil)
			require.NoError(t, err)
			r := newReplayer(t.Context(), k, onceCallers, b.sizes.again)
			r.finish(t.Context())
			p := &inProcess{callers: 1, store: b.memory, things: newThings(b.sizes.memory)}
			require.NoError(t, p.turn(t.Context(), 1))
			require.NoError(t, b.bytes(t.Context()))
			if f.fresh == "" {
				require.NoError(t, errors.Join(c.problem, r.problem, p.problem))
				return
			}
			require.ErrorContains(t, c.problem, f.fresh)
			require.ErrorContains(t, r.problem, f.again)
			require.ErrorContains(t, p.problem, f.again)
			if what != "forgets" { // which nobody can see who never asks twice
				require.Contains(t, out.String(), `"invalid"`)
			}
		})
	}
}

// A memo that answers nothing makes the figures those of the server.
func TestMemoThatAsksIsInvalid(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := onceBenchOf(t, &report{out: &out, json: true})
	b.store = func(c *redis.Client, cfg redisstore.Config) idempotency.Store {
		cfg.NoMemo = true
		return redisstore.New(c, cfg)
	}
	require.NoError(t, b.memo(t.Context()))
	require.Contains(t, out.String(), "the server was asked 1024 times")
}

// wrongGuard is a contender that does something wrong.
type wrongGuard struct {
	guard

	call func(do func(context.Context, *thing) (bool, error)) func(context.Context, *thing) (bool, error)
}

func (w wrongGuard) caller() func(context.Context, *thing) (bool, error) {
	return w.call(w.guard.caller())
}

func TestWrongContenderIsInvalid(t *testing.T) {
	t.Parallel()
	type call = func(context.Context, *thing) (bool, error)
	for what, w := range map[string]struct {
		call func(do call) call
		want string
	}{
		"has an effect too many": {func(do call) call {
			return func(ctx context.Context, t *thing) (bool, error) {
				if marked(t.key.ID) {
					t.effects.Add(1)
				}
				return do(ctx, t)
			}
		}, "had other than"},
		"has none": {func(do call) call {
			return func(ctx context.Context, t *thing) (bool, error) {
				if marked(t.key.ID) {
					return false, nil
				}
				return do(ctx, t)
			}
		}, "had other than"},
		"fails": {func(do call) call {
			return func(ctx context.Context, t *thing) (bool, error) {
				if marked(t.key.ID) {
					return false, errors.New("no")
				}
				return do(ctx, t)
			}
		}, "no"},
		"does nothing wrong": {func(do call) call { return do }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := onceBenchOf(t, &report{})
			for _, c := range b.contenders() {
				open := c.open
				c.open = func(client *redis.Client) (guard, error) {
					g, err := open(client)
					return wrongGuard{g, w.call}, err
				}
				require.NoError(t, b.round(t.Context(), c))
				if w.want == "" {
					require.NoError(t, c.problem)
				} else {
					require.ErrorContains(t, c.problem, w.want)
				}
			}
		})
	}
}

// What a contender keeps is looked at: it is not there, or is not what it should be.
func TestWhatIsNotKeptIsNotDone(t *testing.T) {
	t.Parallel()
	b := onceBenchOf(t, &report{})
	things := newThings(1)
	for i, c := range b.contenders() {
		g, err := c.open(b.client())
		require.NoError(t, err)
		if c.again > 1 { // a lock: free is all that it can be
			require.NoError(t, b.admin.Set(t.Context(), things[0].plain, "held", 0).Err())
		}
		require.Error(t, g.done(t.Context(), &things[0]), "%d %s", i, c.name)
		require.NoError(t, b.empty(t.Context()))
	}
}
