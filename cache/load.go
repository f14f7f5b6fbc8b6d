package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// loadAll loads what nobody has.
func (c *Cache[K, V]) loadAll(ctx context.Context, fs []*flight[K, V]) {
	switch {
	case len(fs) == 0:
	case len(fs) == 1:
		c.loadOne(ctx, fs[0])
	case c.cfg.LoadMany != nil:
		for batch := range slices.Chunk(fs, c.cfg.MaxBatch) {
			if ctx.Err() != nil {
				return // the flights have ended
			}
			c.guard(batch, func() { c.loadBatch(ctx, batch) })
		}
	default:
		var wg sync.WaitGroup
		places := make(chan struct{}, loadsAtOnce)
		for _, f := range fs {
			places <- struct{}{}
			if ctx.Err() != nil {
				break
			}
			wg.Go(func() {
				defer func() { <-places }()
				c.loadOne(ctx, f)
			})
		}
		wg.Wait()
	}
}

// loadsAtOnce is how many single loads a GetMany has under way.
const loadsAtOnce = 16

func (c *Cache[K, V]) loadOne(ctx context.Context, f *flight[K, V]) {
	c.guard([]*flight[K, V]{f}, func() {
		ctx, keep := withStore(ctx)
		begin := sinceBegan()
		v, err := c.load(ctx, f.key)
		c.land(ctx, begin, keep, loaded[K, V]{f, v, err})
	})
}

func (c *Cache[K, V]) loadBatch(ctx context.Context, fs []*flight[K, V]) {
	keys := make([]K, len(fs))
	for i, f := range fs {
		keys[i] = f.key
	}
	ctx, keep := withStore(ctx)
	begin := sinceBegan()
	values, err := c.cfg.LoadMany(ctx, keys)
	out := make([]loaded[K, V], len(fs))
	for i, f := range fs {
		v, ok := values[f.key]
		switch {
		case ok:
			out[i] = loaded[K, V]{f, v, nil}
		case err == nil:
			out[i] = loaded[K, V]{f, v, ErrNotFound}
		default:
			out[i] = loaded[K, V]{f, v, err}
		}
	}
	c.land(ctx, begin, keep, out...)
}

// loaded is what a load brought for a flight.
type loaded[K comparable, V any] struct {
	f   *flight[K, V]
	v   V
	err error
}

// landing is what comes of a load. e is nil if it has ended its flight.
type landing[V any] struct {
	e    *entry[V]
	kept bool  // by whatever tier may
	fill *Fill // nil if the Remote gets nothing
}

// land puts what was loaded where it may go, and ends the flights.
func (c *Cache[K, V]) land(ctx context.Context, begin int64, keep *atomic.Bool, all ...loaded[K, V]) {
	took := time.Duration(sinceBegan() - begin)
	landed := make([]landing[V], len(all))
	var fills []Fill
	var filled []*landing[V]
	for i, l := range all {
		c.guard([]*flight[K, V]{l.f}, func() { // what is wrong with one value is not with the others
			landed[i] = c.landed(ctx, begin, took, keep, l)
		})
		if fill := landed[i].fill; fill != nil {
			fills, filled = append(fills, *fill), append(filled, &landed[i])
		} else {
			c.drop(ctx, l.f)
		}
	}
	if len(fills) > 0 {
		for n, kept := range c.fill(ctx, fills) {
			filled[n].kept = kept
		}
	}
	for i, l := range landed {
		switch f := all[i].f; {
		case l.kept:
			c.put(f, l.e)
		case l.fill != nil:
			c.refused(f)
		}
		if l.e != nil {
			c.finish(all[i].f, l.e, nil)
		}
	}
}

// landed makes an entry of what was loaded, and what the Remote gets of it, if that is to keep it. A load that failed ends its flight.
func (c *Cache[K, V]) landed(ctx context.Context, begin int64, took time.Duration, keep *atomic.Bool, l loaded[K, V]) (out landing[V]) {
	f, notFound := l.f, errors.Is(l.err, ErrNotFound)
	c.counts.loaded(l.err, notFound)
	if c.cfg.Hooks.Loaded != nil {
		c.cfg.Hooks.Loaded(f.name, took, l.err)
	}
	ttl := c.ttl(notFound)
	switch {
	case notFound:
		out.e = c.entry(f, l.v, &keyError{c.cfg.Name, f.name, l.err}, begin, ttl, ttl)
	case l.err != nil:
		if ctx.Err() != nil { // whatever the load made of that
			l.err = fmt.Errorf("%w: %w", context.Cause(ctx), l.err)
		}
		c.drop(ctx, f) // who tries again at once does not wait for its own claim
		c.failed(f, l.err)
		return out
	default:
		out.e = c.entry(f, l.v, nil, begin, ttl, ttl+c.keep)
	}
	if ttl <= took || !keep.Load() || !c.mayKeep(f) {
		return out
	}
	fill, err := c.filling(f, out.e, ttl, notFound)
	c.weigh(f.key, out.e, len(fill.Value))
	if out.kept = true; f.read && err == nil {
		out.fill = &fill
	}
	return out
}

// mayKeep says whether what a flight brings may be kept: its key was not invalidated, and it does not come too late.
func (c *Cache[K, V]) mayKeep(f *flight[K, V]) bool {
	c.mu.Lock()
	void, over := f.void, f.over
	c.mu.Unlock()
	if void && !over {
		c.refused(f)
	}
	return !void && !over
}

// filling is what the Remote gets of an entry.
func (c *Cache[K, V]) filling(f *flight[K, V], e *entry[V], ttl time.Duration, notFound bool) (Fill, error) {
	fill := Fill{Key: f.name, Mark: f.mark, Stamp: f.stamp, Claim: f.claim, NotFound: notFound, Tags: e.tags, Version: e.version, Fresh: ttl, Keep: ttl}
	if !f.read || notFound {
		return fill, nil
	}
	fill.Keep += c.keep
	b, err := c.cfg.Encode(e.value)
	if err != nil {
		c.counts.codec.Add(1)
		c.cfg.Logger.Warn("cache: a value does not encode, and is kept in this process only", "cache", c.cfg.Name, "key", f.name, "error", err)
		return fill, err
	}
	fill.Value = append(binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(b)), c.cfg.Schema), b...)
	return fill, nil
}

// decode reads what filling wrote. Its error is no more than a miss.
func (c *Cache[K, V]) decode(name Key, b []byte) (v V, err error) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != c.cfg.Schema {
		return v, errOtherSchema
	}
	if v, err = c.cfg.Decode(b[4:]); err != nil {
		c.counts.codec.Add(1)
		c.cfg.Logger.Warn("cache: an entry does not decode, and is loaded again", "cache", c.cfg.Name, "key", name, "error", err)
	}
	return v, err
}

var errOtherSchema = errors.New("cache: an entry of another schema")

// drop gives a claim up.
func (c *Cache[K, V]) drop(ctx context.Context, f *flight[K, V]) {
	if f.claim != 0 {
		c.fill(ctx, []Fill{{Key: f.name, Claim: f.claim, Drop: true}})
		f.claim = 0
	}
}

// fill fills the Remote. What it is not asked or does not say counts as kept: memory has rules of its own.
func (c *Cache[K, V]) fill(ctx context.Context, fills []Fill) []bool {
	kept, err := c.cfg.Remote.Fill(context.WithoutCancel(ctx), c.cfg.Name, fills)
	if err != nil {
		c.remoteFailed("fill", err)
		return nil
	}
	return kept
}

func (c *Cache[K, V]) remoteFailed(op string, err error) {
	c.counts.remoteErrors.Add(1)
	if c.cfg.Hooks.RemoteFailed != nil {
		c.cfg.Hooks.RemoteFailed(op, err)
	}
	c.cfg.Logger.Debug("cache: the remote failed", "cache", c.cfg.Name, "op", op, "error", err)
}

func (c *Cache[K, V]) refused(f *flight[K, V]) {
	c.counts.refused.Add(1)
	if c.cfg.Hooks.Refused != nil {
		c.cfg.Hooks.Refused(f.name)
	}
}

// guard runs something of the user's for flights: if it panics or ends its goroutine, they end with that.
func (c *Cache[K, V]) guard(fs []*flight[K, V], do func()) {
	returned := false
	defer func() {
		if returned {
			return
		}
		err := ErrLoadExited
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
			c.cfg.Logger.Error("cache: a load panicked", "cache", c.cfg.Name, "key", fs[0].name, "error", err)
		}
		for _, f := range fs {
			c.drop(context.Background(), f)
			c.failed(f, err)
		}
	}()
	do()
	returned = true
}

type storeKey struct{}

// withStore is a context for a load that may say that its value is not to be kept.
func withStore(ctx context.Context) (context.Context, *atomic.Bool) {
	keep := new(atomic.Bool)
	keep.Store(true)
	return context.WithValue(ctx, storeKey{}, keep), keep
}

// NoStore says of the load that ctx belongs to that its value is not to be kept, only returned: it was read within an open transaction, or from a replica that lags behind. For others it does nothing.
func NoStore(ctx context.Context) {
	if keep, ok := ctx.Value(storeKey{}).(*atomic.Bool); ok {
		keep.Store(false)
	}
}
