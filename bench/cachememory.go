package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

const (
	weighCallers = 8
	weighSettle  = 5 * time.Second // within which a cache has removed what is above its bound
)

// weighed is a contender that many keys go through.
type weighed struct {
	caching

	most  int // entries that it may hold
	least int // and should, if it is to count

	heap    float64 // bytes that it takes in the end
	size    int     // entries in the end
	problem error
}

// scatter makes keys that look random of numbers, no two the same: the last step of a splitmix64.
func scatter(n uint64) uint64 {
	n *= 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// settledHeap is what is in use when no more of what ran before goes: a cache with goroutines of its own takes several collections.
func settledHeap(ctx context.Context) int64 {
	const little = 1 << 14
	for last := heapInUse(); ; {
		pause(ctx, calm)
		now := heapInUse()
		if last-now < little {
			return now
		}
		last = now
	}
}

// weighedValue is what is loaded for a key: the key, filled up.
func weighedValue(key string) []byte {
	v := make([]byte, hitBytes)
	copy(v, key)
	return v
}

// pass has so many keys go through it, each once.
func (w *weighed) pass(ctx context.Context, keys int) error {
	var loads, wrong atomic.Int64
	before := settledHeap(ctx)
	p, err := w.open(func(_ context.Context, key string) ([]byte, error) {
		loads.Add(1)
		return weighedValue(key), nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	var all sync.WaitGroup
	errs := make([]error, weighCallers)
	for i := range weighCallers {
		all.Go(func() {
			for n := i; n < keys && ctx.Err() == nil; n += weighCallers {
				key := "product/" + strconv.FormatUint(scatter(uint64(n)), 10) //nolint:gosec // not negative
				v, err := p.get(ctx, key)
				if err != nil {
					errs[i] = err
				} else if len(v) != hitBytes || !bytes.HasPrefix(v, []byte(key)) {
					wrong.Add(1)
				}
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for end := time.Now().Add(weighSettle); p.size() > w.most && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	w.heap, w.size = float64(settledHeap(ctx)-before), p.size()
	runtime.KeepAlive(p.get)
	problem := errors.Join(errs...)
	if n := wrong.Load(); n > 0 {
		problem = errors.Join(problem, fmt.Errorf("%d of %d values were wrong", n, keys))
	}
	if n := loads.Load(); n != int64(keys) {
		problem = errors.Join(problem, fmt.Errorf("%d loads of %d keys", n, keys))
	}
	if w.size < w.least {
		problem = errors.Join(problem, fmt.Errorf("%d entries in the end; want at least %d", w.size, w.least))
	}
	if problem != nil {
		w.problem = fmt.Errorf("%s: %w", w.name, problem)
	}
	return nil
}

// each is what an entry takes.
func (w *weighed) each() float64 { return w.heap / float64(max(w.size, 1)) }

// weighedAll are ours, by entries and by bytes, and otter. A Remote has memory keep entries by name besides, and tags by their tags: here each has one of its own, which costs most.
func (b *cacheBench) weighedAll() []*weighed {
	entries, size := b.sizes.entries, b.sizes.bytes
	least := min(entries, b.sizes.memory) / 2
	const atMost = 1500 // bytes of an entry of ours
	leastBytes := min(int(size)/atMost, b.sizes.memory/2)
	tags := func(key string, _ []byte) []string { return []string{key} }
	byBytes := func(name string, cfg cache.Config[string, []byte]) *weighed {
		cfg.Name, cfg.MaxBytes = "weighed", size
		return &weighed{caching: caching{name, openOurs(cfg)}, most: math.MaxInt, least: leastBytes}
	}
	return []*weighed{
		{caching: caching{nameOurs, openOurs(cache.Config[string, []byte]{MaxEntries: entries})}, most: entries, least: least},
		{caching: caching{nameOtter, openRawOtter[string](entries)}, most: entries, least: least},
		byBytes(nameOurs, cache.Config[string, []byte]{}),
		byBytes(nameOurs+", a Remote", cache.Config[string, []byte]{Remote: silent{}}),
		byBytes(nameOurs+", a Remote, tags", cache.Config[string, []byte]{Remote: silent{}, Tags: tags}),
	}
}

// weigh is what caches take when far more has gone through them than they hold.
func (b *cacheBench) weigh(ctx context.Context) error {
	list := b.weighedAll()
	for _, w := range list {
		if err := w.pass(ctx, b.sizes.memory); err != nil {
			return err
		}
	}
	const mb = 1e6
	us, peer := list[0], list[1]
	both := errors.Join(us.problem, peer.problem)
	what := fmt.Sprintf("memory, %d entries, ", us.most)
	b.rep.add(what+us.name+" vs bound", "", float64(us.size), float64(us.most), want{"<=", 1}, us.problem)
	b.rep.add(what+us.name+" vs "+peer.name, "MB", us.heap/mb, peer.heap/mb, want{}, both)
	b.rep.add(what+"each, "+us.name+" vs "+peer.name, "B", us.each(), peer.each(), want{}, both)
	for _, w := range list[2:] {
		b.rep.add(fmt.Sprintf("memory, %d MiB, %s vs bound", b.sizes.bytes>>20, w.name), "MB", w.heap/mb, float64(b.sizes.bytes)/mb, want{"<=", 1}, w.problem)
	}
	return nil
}
