package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

// crowd is a contender of whom many want a key that nobody has.
type crowd struct {
	caching

	processes int

	loads   int       // of a key, the worst of all rounds
	times   []float64 // ms until all had it, by round
	problem error
	begin   func() // that nothing has been loaded
	counted func() int
	list    []process[string]
}

func (b *cacheBench) crowds() []*crowd {
	fleet := cache.Config[string, []byte]{Name: "fleet", Fleet: cacheFleet}
	return []*crowd{
		{caching: caching{nameOurs, openOurs(cache.Config[string, []byte]{})}, processes: 1},
		{caching: caching{nameOurs, b.over(fleet)}, processes: 4},
		{caching: caching{nameOtterGet, openOtter}, processes: 1},
		{caching: caching{"sturdyc", openSturdyc}, processes: 1},
		{caching: caching{nameTTLCache, openTTLCache}, processes: 1},
		{caching: caching{nameGoCache, b.openGoCache}, processes: 1},
		{caching: caching{nameAside, b.openAside}, processes: 1},
		{caching: caching{nameByHand, b.openByHand}, processes: 1},
		{caching: caching{nameGoCache, b.openGoCache}, processes: 4},
		{caching: caching{nameAside, b.openAside}, processes: 4},
	}
}

func (c *crowd) String() string {
	if c.processes == 1 {
		return c.name
	}
	return fmt.Sprintf("%s, %d processes", c.name, c.processes)
}

// gather opens the processes of a crowd.
func (c *crowd) gather(ctx context.Context, takes time.Duration) error {
	var loads atomic.Int64
	load := func(ctx context.Context, key string) ([]byte, error) {
		loads.Add(1)
		pause(ctx, takes)
		return []byte("the value of " + key), ctx.Err()
	}
	c.begin, c.counted = func() { loads.Store(0) }, func() int { return int(loads.Load()) }
	for i := range c.processes {
		p, err := c.open(load)
		if err == nil {
			_, err = p.get(ctx, fmt.Sprintf("%v, first of %d", c, i)) // it opens a connection
		}
		if err != nil {
			return fmt.Errorf("%v: %w", c, err)
		}
		c.list = append(c.list, p)
	}
	return nil
}

// rush has all callers want a key at once.
func (c *crowd) rush(ctx context.Context, key string, callers int) {
	c.begin()
	value := []byte("the value of " + key)
	var ready, all sync.WaitGroup
	var wrong atomic.Int64
	errs := make([]error, callers)
	start := make(chan struct{})
	ready.Add(callers)
	for i := range callers {
		get := c.list[i%len(c.list)].get
		all.Go(func() {
			ready.Done()
			<-start
			v, err := get(ctx, key)
			if errs[i] = err; err == nil && !bytes.Equal(v, value) {
				wrong.Add(1)
			}
		})
	}
	ready.Wait()
	begun := time.Now()
	close(start)
	all.Wait()
	c.times = append(c.times, float64(time.Since(begun))/float64(time.Millisecond))
	loads := c.counted()
	c.loads = max(c.loads, loads)
	problem := errors.Join(errs...)
	if n := wrong.Load(); n > 0 {
		problem = errors.Join(problem, fmt.Errorf("%d of %d values were wrong", n, callers))
	}
	if loads == 0 {
		problem = errors.Join(problem, errors.New("nothing was loaded"))
	}
	for _, p := range c.list { // it is kept
		v, err := p.get(ctx, key)
		if err == nil && !bytes.Equal(v, value) {
			err = errors.New("a later value was wrong")
		}
		problem = errors.Join(problem, err)
	}
	if later := c.counted() - loads; later > 0 {
		problem = errors.Join(problem, fmt.Errorf("%d loads came later: the value was not kept", later))
	}
	if problem != nil && c.problem == nil {
		c.problem = fmt.Errorf("%v: %w", c, problem)
	}
}

// misses is how often a key is loaded that a thousand callers want at once.
func (b *cacheBench) misses(ctx context.Context) error {
	list := b.crowds()
	for _, c := range list {
		if err := c.gather(ctx, b.sizes.takes); err != nil {
			return err
		}
	}
	for round := range b.sizes.rounds {
		for i, c := range list {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.rush(ctx, fmt.Sprintf("key-%d-of-%d", round, i), b.sizes.callers)
		}
	}
	what := fmt.Sprintf("%d misses, ", b.sizes.callers)
	for _, us := range list[:2] {
		b.rep.add(what+"loads, "+us.String()+" vs target", "loads", float64(us.loads), 1, want{"<=", 1}, us.problem)
		b.rep.add(what+"time, "+us.String()+" vs a load", "ms", median(us.times), float64(b.sizes.takes)/float64(time.Millisecond), want{}, us.problem)
	}
	for _, peer := range list[2:] {
		us := list[0]
		if peer.processes > 1 {
			us = list[1]
		}
		problem := errors.Join(us.problem, peer.problem)
		b.rep.add(what+"loads vs "+peer.String(), "loads", float64(us.loads), float64(peer.loads), want{}, problem)
		b.rep.add(what+"time vs "+peer.String(), "ms", median(us.times), median(peer.times), want{}, problem)
	}
	return nil
}

// fact is something that changes while it is loaded.
type fact struct {
	version atomic.Value // a string
	held    atomic.Bool  // the next load waits, after it has read the version
	reading chan struct{}
	gate    chan struct{}
}

const (
	oldVersion = "old"
	newVersion = "new"
)

// facts are what a contender caches in a race, by key.
type facts map[string]*fact

func newFacts(prefix string, n int, held bool) (keys []string, of facts) {
	of = facts{}
	for i := range n {
		f := &fact{reading: make(chan struct{}), gate: make(chan struct{})}
		f.version.Store(oldVersion)
		f.held.Store(held)
		keys = append(keys, fmt.Sprintf("%s-%d", prefix, i))
		of[keys[i]] = f
	}
	return keys, of
}

func (of facts) load(_ context.Context, key string) ([]byte, error) {
	f := of[key]
	if f == nil {
		return nil, fmt.Errorf("%q was asked for, which does not exist", key)
	}
	v, _ := f.version.Load().(string)
	if f.held.CompareAndSwap(true, false) {
		close(f.reading)
		<-f.gate
	}
	return []byte(v), nil
}

// answer is what a Get returned.
type answer struct {
	v   []byte
	err error
}

// isOld says whether it is the old value; its error, that it is neither.
func (a answer) isOld() (bool, error) {
	switch {
	case a.err != nil:
		return false, a.err
	case string(a.v) == oldVersion:
		return true, nil
	case string(a.v) == newVersion:
		return false, nil
	}
	return false, fmt.Errorf("a value is %q", a.v)
}

func ask(ctx context.Context, p process[string], key string) answer {
	v, err := p.get(ctx, key)
	return answer{v, err}
}

// racing is a contender in the races.
type racing struct {
	caching

	shares bool // its processes share a tier

	old     int // how often the old value came back
	lags    []float64
	problem error
}

// pair opens two processes of a contender.
func (r *racing) pair(load loader[string]) (a, b process[string], err error) {
	if a, err = r.open(load); err == nil {
		b, err = r.open(load)
	}
	return a, b, err
}

func (r *racing) fail(err error) {
	if err != nil && r.problem == nil {
		r.problem = fmt.Errorf("%s: %w", r.name, err)
	}
}

// racers are all contenders, or those whose processes share a tier.
func (b *cacheBench) racers(shared bool) []*racing {
	list := []*racing{
		{caching: caching{nameOurs, openOurs(cache.Config[string, []byte]{})}},
		{caching: caching{nameOursRedis, b.over(cache.Config[string, []byte]{Name: "races"})}, shares: true},
		{caching: caching{nameOtterGet, openOtter}},
		{caching: caching{nameSturdyFetch, openSturdyc}},
		{caching: caching{nameTTLCache, openTTLCache}},
		{caching: caching{nameGoCache, b.openGoCache}, shares: true},
		{caching: caching{nameAside, b.openAside}, shares: true},
		{caching: caching{nameByHand, b.openByHand}, shares: true},
	}
	return slices.DeleteFunc(list, func(r *racing) bool { return shared && !r.shares })
}

// raceKind is a way for an old value to come back.
type raceKind struct {
	name    string
	apart   bool // another process invalidates
	joining bool // a Get begins after the invalidation, while the old load is under way; otherwise after it
}

// stale lets a load read, then changes and invalidates what it has read, and then lets it go on. It counts how often a Get that begins after the invalidation returns the old value all the same.
func (r *racing) stale(ctx context.Context, kind raceKind, tries int, joins time.Duration) error {
	keys, of := newFacts(r.name+", "+kind.name, tries, true)
	loader, other, err := r.pair(of.load)
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	if !kind.apart {
		other = loader
	}
	for _, key := range keys {
		old, err := of[key].race(ctx, loader, other, key, kind, joins)
		r.fail(err)
		if old {
			r.old++
		}
	}
	return ctx.Err()
}

func (f *fact) race(ctx context.Context, loader, other process[string], key string, kind raceKind, joins time.Duration) (old bool, err error) {
	later := func() <-chan answer {
		ch := make(chan answer, 1)
		go func() { ch <- ask(ctx, loader, key) }() // until the gate is open
		return ch
	}
	first := later()
	select {
	case <-f.reading:
	case a := <-first:
		close(f.gate)
		return false, errors.Join(a.err, errors.New("the first answer came without a load"))
	case <-ctx.Done():
		close(f.gate)
		return false, ctx.Err()
	}
	f.version.Store(newVersion)
	err = other.drop(ctx, key)
	var second <-chan answer
	if kind.joining {
		second = later()
		for end := time.Now().Add(joins); time.Now().Before(end) && len(second) == 0; {
			time.Sleep(time.Millisecond)
		}
	}
	close(f.gate)
	_, problem := (<-first).isOld() // it was asked before: either will do
	err = errors.Join(err, problem)
	if second == nil {
		ch := make(chan answer, 1)
		ch <- ask(ctx, loader, key)
		second = ch
	}
	old, problem = (<-second).isOld()
	return old, errors.Join(err, problem)
}

// races are the ways in which an old value comes back, or stays.
func (b *cacheBench) races(ctx context.Context) error {
	unit := fmt.Sprintf("of %d", b.sizes.tries)
	for _, kind := range []raceKind{
		{name: "stale fill"},
		{name: "stale fill, apart", apart: true},
		{name: "old load joined", joining: true},
	} {
		list := b.racers(kind.apart)
		for _, r := range list {
			if err := r.stale(ctx, kind, b.sizes.tries, b.sizes.joins); err != nil {
				return err
			}
		}
		b.tell(kind.name, unit, list)
		if err := b.end(ctx); err != nil {
			return err
		}
	}
	list := slices.DeleteFunc(b.racers(false), func(r *racing) bool { return r.name == nameOurs }) // which is for one process
	var all []*elsewhere
	for _, r := range list {
		e, err := r.invalidate(ctx, b.sizes.tries)
		if err != nil {
			return err
		}
		all = append(all, e)
	}
	pause(ctx, b.sizes.settle)
	for _, e := range all {
		e.look(ctx)
	}
	b.tell(fmt.Sprintf("other process, %v later", b.sizes.settle), unit, list)
	var us, aside *elsewhere
	for _, e := range all {
		switch e.name {
		case nameOursRedis:
			us = e
		case nameAside:
			aside = e
		}
	}
	for range b.sizes.tries {
		for _, e := range []*elsewhere{us, aside} {
			if e.lag(ctx); ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	b.rep.add("other process, until it has the new value vs "+aside.name, "ms", median(us.lags), median(aside.lags), want{}, errors.Join(us.problem, aside.problem))
	return nil
}

// tell prints how often each had the old value: ours beside none, and beside each peer.
func (b *cacheBench) tell(what, unit string, list []*racing) {
	var us *racing
	for _, r := range list {
		if r.name == nameOurs || r.name == nameOursRedis {
			us = r // the last of ours, which has both tiers
			b.rep.add(what+", "+r.name+" vs target", unit, float64(r.old), 0, want{"<=", 1}, r.problem)
		}
	}
	for _, r := range list {
		if r.name != nameOurs && r.name != nameOursRedis {
			b.rep.add(what+" vs "+r.name, unit, float64(us.old), float64(r.old), want{}, errors.Join(us.problem, r.problem))
		}
	}
}

// elsewhere is a contender with two processes, which have both read what one of them then invalidates.
type elsewhere struct {
	*racing

	facts facts
	keys  []string
	a, b  process[string]
}

func (r *racing) invalidate(ctx context.Context, tries int) (e *elsewhere, err error) {
	e = &elsewhere{racing: r}
	e.keys, e.facts = newFacts(r.name, tries, false)
	if e.a, e.b, err = r.pair(e.facts.load); err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	for _, key := range e.keys {
		r.fail(e.both(ctx, key, oldVersion))
	}
	for _, key := range e.keys {
		e.facts[key].version.Store(newVersion)
		r.fail(e.a.drop(ctx, key))
	}
	return e, nil
}

// both has both processes read a key twice, so that they have it in their memory.
func (e *elsewhere) both(ctx context.Context, key, version string) error {
	for range 2 {
		for _, p := range []process[string]{e.a, e.b} {
			if a := ask(ctx, p, key); a.err != nil || string(a.v) != version {
				return fmt.Errorf("before the invalidation %s is %q: %w", key, a.v, cmp.Or(a.err, errNone))
			}
		}
	}
	return nil
}

// look counts old values in the other process.
func (e *elsewhere) look(ctx context.Context) {
	for _, key := range e.keys {
		old, err := ask(ctx, e.b, key).isOld()
		if e.fail(err); old {
			e.old++
		}
	}
}

// lag takes the time from the return of an invalidation until the other process has the new value.
func (e *elsewhere) lag(ctx context.Context) {
	key := e.keys[len(e.lags)%len(e.keys)]
	f := e.facts[key]
	f.version.Store(oldVersion)
	err := e.a.drop(ctx, key)
	if err == nil {
		for end := time.Now().Add(lagLimit); ; {
			if err = e.both(ctx, key, oldVersion); err == nil || time.Now().After(end) || ctx.Err() != nil {
				break
			}
		}
	}
	f.version.Store(newVersion)
	err = errors.Join(err, e.a.drop(ctx, key))
	start := time.Now()
	for old := true; old && err == nil; {
		old, err = ask(ctx, e.b, key).isOld()
		if err == nil && time.Since(start) > lagLimit {
			err = fmt.Errorf("the other process still had the old value after %v", lagLimit)
		}
	}
	e.lags = append(e.lags, float64(time.Since(start))/float64(time.Millisecond))
	e.fail(err)
}

const lagLimit = 10 * time.Second
