package integration_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
	"github.com/breakwater-go/breakwater/idempotency/sqlstore"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// operated is a store that can be looked into, as all are.
type operated interface {
	idempotency.Store
	idempotency.Operator
}

// crowd is a load on a few keys, and what was seen of it.
type crowd struct {
	stores   []operated // one each process, which share what is kept
	clients  int
	turns    int // of each client: a claim, and what follows it
	least    time.Duration
	forgets  bool          // an operator forgets what is done, and what has ended without a word
	patience time.Duration // > 0: answers may be lost; some callers leave after so long while they are
	losing   atomic.Bool   // they are now

	begin time.Time
	keys  [8]struct{ generation, done atomic.Int64 }
	mu    sync.Mutex
	seen  []porcupine.Operation
	fails error // a store's, where none is expected
}

// run lets all clients work, and answers what they saw.
func (c *crowd) run(ctx context.Context) ([]porcupine.Operation, error) {
	c.begin = time.Now()
	var wg sync.WaitGroup
	for i := range c.clients {
		wg.Go(func() {
			w := &worker{c, i, c.stores[i%len(c.stores)], rand.New(rand.NewPCG(rand.Uint64(), 0))}
			for range c.turns {
				w.turn(ctx)
			}
		})
	}
	wg.Wait()
	return c.seen, c.fails
}

// worker is one client.
type worker struct {
	*crowd

	id    int
	store operated
	rng   *rand.Rand
}

func (w *worker) chance(percent int) bool { return w.rng.IntN(100) < percent }

// pause is for a part of d.
func (w *worker) pause(d time.Duration) {
	time.Sleep(time.Duration(w.rng.Int64N(int64(d) + 1))) // what may happen at any time is tried at any time
}

// turn claims a key, and does with it what a process may: work, extend, complete, complete twice, release, die, or sleep past its lease.
func (w *worker) turn(ctx context.Context) {
	slot := w.rng.IntN(len(w.keys))
	place := &w.keys[slot]
	generation := place.generation.Load()
	r := idempotency.Request{For: (w.least + time.Duration(w.rng.Int64N(int64(2*w.least)))).Truncate(time.Millisecond), Retention: time.Hour, AskFirst: w.chance(40)}
	r.Name = idempotency.Name{Op: "op", Scope: fmt.Sprintf("%d/%d", slot, generation), ID: "k"}
	binary.NativeEndian.PutUint64(r.Token[:], w.rng.Uint64())
	l := r.Lease
	claimed := w.claim(ctx, r)
	switch {
	case claimed.unknown:
		w.release(ctx, l) // as a Keeper does
		return
	case claimed.state == idempotency.InProgress:
		w.pause(min(claimed.rest, 40*time.Millisecond))
		return
	case claimed.state == idempotency.Done && place.done.Add(1)%30 == 0:
		place.generation.CompareAndSwap(generation, generation+1) // it has been asked for often enough
		return
	case claimed.state != idempotency.Claimed:
		if w.forgets && w.chance(50) {
			w.forget(ctx, l.Name)
		}
		return
	}
	switch n := w.rng.IntN(100); {
	case n < 15: // it dies
		return
	case n < 35: // it sleeps for too long, and does not know
		time.Sleep(r.For + time.Duration(w.rng.Int64N(int64(10*time.Millisecond))))
	default:
		w.pause(r.For / 4)
	}
	for w.chance(40) {
		if w.extend(ctx, l, r.For).ok {
			w.pause(r.For)
		}
	}
	if w.chance(30) {
		w.forget(ctx, l.Name) // which must not do anything to what is held
	}
	if w.chance(35) {
		w.complete(ctx, l)
		if w.chance(30) {
			w.complete(ctx, l)
		}
		if w.chance(30) {
			w.release(ctx, l)
		}
		return
	}
	w.release(ctx, l)
}

// record makes a call, and writes down what it was.
func (w *worker) record(ctx context.Context, q question, call func(context.Context) (reply, error)) reply {
	leaves := w.losing.Load() && w.chance(20)
	if leaves {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.patience)
		defer cancel()
	}
	q.again = w.patience > 0
	q.call = time.Since(w.begin).Nanoseconds()
	a, err := call(ctx)
	q.ret = time.Since(w.begin).Nanoseconds()
	times := 1
	switch {
	case err != nil && !leaves:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fails = errors.Join(w.fails, fmt.Errorf("%v: %w", q, err))
		return reply{unknown: true}
	case err != nil:
		a, q.ret = reply{unknown: true}, never
		if q.verb == doClaim {
			times = 2 // what is sent again for those who wait is sent again for those who have left: also when this has been released
		}
	case w.patience > 0 && (q.verb == doClaim || q.verb == doExtend):
		times += min(2, int((q.ret-q.call)/int64(w.least))) // each may have had its effect, which was over when the next one came
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range times {
		o := porcupine.Operation{ClientId: w.id, Input: q, Output: a, Call: q.call, Return: q.ret}
		if i > 0 {
			o.Output = reply{unknown: true}
		}
		w.seen = append(w.seen, o)
	}
	return a
}

func (w *worker) claim(ctx context.Context, r idempotency.Request) reply {
	return w.record(ctx, question{verb: doClaim, key: r.Scope, token: r.Token, lease: r.For, askFirst: r.AskFirst}, func(ctx context.Context) (reply, error) {
		c, err := w.store.Claim(ctx, r)
		return reply{state: c.State, takenOver: c.TakenOver, rest: c.Rest, result: string(c.Result)}, err
	})
}

func (w *worker) extend(ctx context.Context, l idempotency.Lease, lease time.Duration) reply {
	return w.record(ctx, question{verb: doExtend, key: l.Scope, token: l.Token, lease: lease}, func(ctx context.Context) (reply, error) {
		e, err := w.store.Extend(ctx, []idempotency.Lease{l}, lease)
		return reply{ok: len(e.Lost) == 0}, err
	})
}

func (w *worker) complete(ctx context.Context, l idempotency.Lease) {
	result := hex.EncodeToString(l.Token[:])
	w.record(ctx, question{verb: doComplete, key: l.Scope, token: l.Token}, func(ctx context.Context) (reply, error) {
		err := w.store.Complete(ctx, l, []byte(result), time.Hour)
		if errors.Is(err, idempotency.ErrLeaseLost) {
			return reply{}, nil
		}
		return reply{ok: true, result: result}, err
	})
}

func (w *worker) release(ctx context.Context, l idempotency.Lease) {
	w.record(ctx, question{verb: doRelease, key: l.Scope, token: l.Token}, func(ctx context.Context) (reply, error) {
		return reply{ok: true}, w.store.Release(ctx, l, time.Hour)
	})
}

// forget looks, and has forgotten what may be.
func (w *worker) forget(ctx context.Context, name idempotency.Name) {
	var rec idempotency.Record
	a := w.record(ctx, question{verb: doInspect, key: name.Scope}, func(ctx context.Context) (reply, error) {
		var err error
		rec, err = w.store.Inspect(ctx, name)
		if errors.Is(err, idempotency.ErrNoRecord) {
			return reply{}, nil
		}
		return reply{state: rec.State, rest: rec.Rest, token: rec.Token, result: string(rec.Result)}, err
	})
	if !w.forgets || a.unknown || a.state == 0 || a.state == idempotency.InProgress {
		return
	}
	w.record(ctx, question{verb: doForget, key: name.Scope, token: rec.Token, seen: rec.State}, func(ctx context.Context) (reply, error) {
		err := w.store.Resolve(ctx, rec, idempotency.Resolution{Forget: true})
		if errors.Is(err, idempotency.ErrChanged) {
			return reply{}, nil
		}
		return reply{ok: true}, err
	})
}

// TestP3HistoriesAreLinearizable has 64 clients on 8 keys, whose every call and answer is held against a record that does one thing at a time.
//
// P3: "A job takes effect once."
func TestP3HistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stores  func(t *testing.T) []operated
		forgets bool
		turns   int
	}{
		"memory": {func(*testing.T) []operated { return []operated{new(idempotency.Memory)} }, true, 100},
		"redis": {func(t *testing.T) []operated {
			t.Helper()
			return redisStores(t, redisstore.Config{NoMemo: true})
		}, true, 100},
		"redis with a memo": {func(t *testing.T) []operated { // which does not notice what another process forgets
			t.Helper()
			return redisStores(t, redisstore.Config{})
		}, false, 100},
		"sqlite": {func(t *testing.T) []operated {
			t.Helper()
			var stores []operated
			file := filepath.Join(t.TempDir(), "marks.db?_pragma=journal_mode(wal)&_pragma=synchronous(off)&_pragma=busy_timeout(5000)")
			for range 3 {
				stores = append(stores, sqlstore.New(open(t, file), sqlstore.Config{}))
			}
			return stores
		}, true, 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			load := crowd{stores: c.stores(t), clients: 64, turns: c.turns, least: 30 * time.Millisecond, forgets: c.forgets}
			history, err := load.run(t.Context())
			require.NoError(t, err)
			load.judge(t, history)
		})
	}
}

func redisStores(t *testing.T, cfg redisstore.Config) (stores []operated) {
	t.Helper()
	s := redistest.Start(t)
	for range 3 {
		stores = append(stores, redisstore.New(redistest.Dial(t, s.Addr), cfg))
	}
	return stores
}

// judge says what is wrong with a history, and that it has seen what it is to see.
func (c *crowd) judge(t *testing.T, history []porcupine.Operation) {
	t.Helper()
	took := time.Since(c.begin).Round(time.Millisecond)
	each := 10 * time.Second
	if c.patience > 0 {
		each = time.Second // what was lost may take for ever
	}
	r, wrong, open := check(history, each)
	if wrong {
		require.Fail(t, "the history is not that of a record", r.report(t))
	}
	if c.patience > 0 {
		require.LessOrEqual(t, open, len(byKey(history))/4, "too few keys could be judged")
	} else {
		require.Zero(t, open)
	}
	answers, unknown := map[string]int{}, 0
	for _, o := range history {
		q, a := o.Input.(question), o.Output.(reply) //nolint:forcetypeassert // ours
		if a.unknown {
			unknown++
			continue
		}
		what := string(q.verb)
		switch {
		case a.takenOver:
			what += " taken over"
		case a.state != 0:
			what += " " + a.state.String()
		case q.verb != doRelease && !a.ok:
			what += " no"
		}
		answers[what]++
	}
	for _, what := range []string{"claim claimed", "claim taken over", "claim in progress", "claim unknown", "claim done", "extend", "extend no", "complete", "complete no", "release"} {
		require.Positive(t, answers[what], "%s: the load is not what it should be: %v", what, answers)
	}
	t.Logf("%d calls on %d keys in %v, checked in %v, %d of unknown outcome: %v", len(history), len(byKey(history)), took, time.Since(c.begin).Round(time.Millisecond)-took, unknown, answers)
}

// TestP3HistoriesAreLinearizableWhenAnswersAreLost has connections cut between request and answer, and callers who leave. Each key sees one cut at most: a call whose outcome
// nobody knows may have happened at any time after it, which makes for too many histories where there are many.
func TestP3HistoriesAreLinearizableWhenAnswersAreLost(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	var stores []operated
	for range 2 {
		s := redisstore.New(p.client, redisstore.Config{NoMemo: true})
		_, err := s.Inspect(t.Context(), idempotency.Name{Op: "op", ID: "k"}) // it has looked at the server
		require.ErrorIs(t, err, idempotency.ErrNoRecord)
		stores = append(stores, s)
	}
	load := crowd{stores: stores, clients: 64, turns: 60, least: 100 * time.Millisecond, patience: 20 * time.Millisecond}
	over := make(chan struct{})
	cuts := 0
	var harm sync.WaitGroup
	harm.Go(func() {
		for {
			for i := range load.keys {
				load.keys[i].generation.Add(1)
			}
			dials := p.dials.Load()
			p.cut(t)
			load.losing.Store(true)
			for p.dials.Load() < dials+3 { // it has been felt
				select {
				case <-over:
					p.heal(t)
					return
				case <-time.After(time.Millisecond):
				}
			}
			load.losing.Store(false)
			p.heal(t)
			cuts++
			select {
			case <-over:
				return
			case <-time.After(400 * time.Millisecond):
			}
		}
	})
	history, err := load.run(t.Context())
	close(over)
	harm.Wait()
	require.NoError(t, err)
	load.judge(t, history)
	t.Log(cuts, "cuts")
}

// unfenced completes whatever claim is there: a store that forgot to compare tokens.
type unfenced struct{ operated }

func (s unfenced) Complete(ctx context.Context, l idempotency.Lease, result []byte, retention time.Duration) error {
	if rec, err := s.Inspect(ctx, l.Name); err == nil {
		l.Token = rec.Token
	}
	return s.operated.Complete(ctx, l, result, retention)
}

// lookFirst claims in two steps: get, then set.
type lookFirst struct{ operated }

func (s lookFirst) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	rec, err := s.Inspect(ctx, r.Name)
	if err == nil && rec.State != idempotency.Unknown {
		return s.operated.Claim(ctx, r)
	}
	if err == nil && r.AskFirst {
		return idempotency.Claim{State: idempotency.Unknown}, nil
	}
	time.Sleep(time.Millisecond)                           // the network's
	if _, purged := s.Purge(ctx, r.Scope); purged != nil { // each key has a scope of its own: what is there is overwritten
		return idempotency.Claim{}, purged
	}
	c, claimed := s.operated.Claim(ctx, r)
	c.TakenOver = err == nil
	return c, claimed
}

// lenient lets a holder complete after its lease's end, as long as nobody has taken over.
type lenient struct{ operated }

func (s lenient) Complete(ctx context.Context, l idempotency.Lease, result []byte, retention time.Duration) error {
	err := s.operated.Complete(ctx, l, result, retention)
	if rec, looked := s.Inspect(ctx, l.Name); err != nil && looked == nil && rec.State == idempotency.Unknown && rec.Token == l.Token {
		if _, err := s.Claim(ctx, idempotency.Request{Lease: l, For: time.Minute, Retention: time.Hour}); err != nil {
			return err
		}
		return s.operated.Complete(ctx, l, result, retention)
	}
	return err
}

// forgetful says that a claim sent to it is the first.
type forgetful struct{ operated }

func (s forgetful) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	c, err := s.operated.Claim(ctx, r)
	c.TakenOver = false
	return c, err
}

// TestHistoriesOfBrokenStoresAreRefuted shows that the check would see it.
func TestHistoriesOfBrokenStoresAreRefuted(t *testing.T) {
	t.Parallel()
	redisOf := func(t *testing.T) operated { t.Helper(); return redisStores(t, redisstore.Config{NoMemo: true})[0] }
	memory := func(*testing.T) operated { return new(idempotency.Memory) }
	for name, store := range map[string]func(t *testing.T) operated{
		"no fence":             func(t *testing.T) operated { t.Helper(); return unfenced{memory(t)} },
		"no fence, redis":      func(t *testing.T) operated { t.Helper(); return unfenced{redisOf(t)} },
		"get then set":         func(t *testing.T) operated { t.Helper(); return lookFirst{memory(t)} },
		"get then set, redis":  func(t *testing.T) operated { t.Helper(); return lookFirst{redisOf(t)} },
		"late completion":      func(t *testing.T) operated { t.Helper(); return lenient{memory(t)} },
		"takeover kept secret": func(t *testing.T) operated { t.Helper(); return forgetful{memory(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for round := range 20 {
				load := crowd{stores: []operated{store(t)}, clients: 64, turns: 20, least: 30 * time.Millisecond}
				history, err := load.run(t.Context())
				require.NoError(t, err)
				if r, wrong, _ := check(history, 10*time.Second); wrong {
					t.Logf("refuted by %d calls, in round %d", len(r.shortest()), round)
					return
				}
			}
			require.Fail(t, "no history of it was refuted")
		})
	}
}
