package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	gocache "github.com/go-redis/cache/v9"

	"github.com/breakwater-go/breakwater/cache"
)

const (
	hitLimit    = 1.5 // what a hit in memory may cost, in hits of otter
	hitAllocs   = 1   // of 1,000 hits: none but what the runtime makes beside them
	remoteLimit = 1.1 // what a hit in Redis may cost, in GETs
	hitBytes    = 100
	remoteBytes = 1 << 10

	hitCallers    = 4 // goroutines of a processor
	remoteCallers = 64
)

// The names of contenders.
const (
	nameOurs        = "breakwater"
	nameOursRedis   = "breakwater, Redis"
	nameOursInts    = "breakwater, ints"
	nameOursTagged  = "breakwater, a tag"
	nameOtter       = "otter"
	nameOtterInts   = "otter, ints"
	nameOtterGet    = "otter Get"
	nameSturdyGet   = "sturdyc Get"
	nameSturdyFetch = "sturdyc"
	nameTTLCache    = "ttlcache"
	nameGoCache     = "go-redis/cache"
	nameGoCacheBare = "go-redis/cache, bare"
	nameAside       = "rueidisaside"
	nameAsideBare   = "rueidisaside, bare"
	nameByHand      = "by hand"
	nameGet         = "GET"
)

// hitPeers are those beside whom ours stands, after otter.
var hitPeers = [...]string{nameOtterGet, nameSturdyGet, nameSturdyFetch, nameTTLCache, nameGoCache}

// hitContenders are those who have a first tier.
func (b *cacheBench) hitContenders() []caching {
	return []caching{
		{nameOurs, openOurs(cache.Config[string, []byte]{})},
		{nameOursRedis, b.over(cache.Config[string, []byte]{Name: "hits"})},
		{nameOtter, openRawOtter[string](cacheEntries)},
		{nameOtterGet, openOtter},
		{nameSturdyGet, openSturdycGet},
		{nameSturdyFetch, openSturdyc},
		{nameTTLCache, openTTLCache},
		{nameGoCache, b.openGoCacheGet(gocache.NewTinyLFU(cacheEntries, cacheTTL))},
	}
}

// hits is what an answer costs that is in the process's memory.
func (b *cacheBench) hits(ctx context.Context) error {
	live := make([]byte, liveHeap)
	defer runtime.KeepAlive(live)
	for _, keys := range []int{b.sizes.keys, b.sizes.full} {
		if err := errors.Join(b.hitsOf(ctx, keys, keys == b.sizes.keys), b.end(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// hitsOf measures hits of so many keys, all as often. With peers ours stands beside all, otherwise beside otter.
func (b *cacheBench) hitsOf(ctx context.Context, keys int, peers bool) error {
	texts, ints := newStock(keys, hitBytes, productOf), newStock(keys, hitBytes, func(i int) int64 { return firstProduct + int64(i) })
	var list []*entrant
	for _, c := range b.hitContenders() {
		if !peers && !slices.Contains([]string{nameOurs, nameOursRedis, nameOtter}, c.name) {
			continue
		}
		e, err := enter(ctx, c.name, texts, false, c.open)
		if err != nil {
			return err
		}
		list = append(list, e)
	}
	for name, open := range map[string]opener[int64]{nameOursInts: openOurs(cache.Config[int64, []byte]{}), nameOtterInts: openRawOtter[int64](cacheEntries)} {
		e, err := enter(ctx, name, ints, false, open)
		if err != nil {
			return err
		}
		list = append(list, e)
	}
	for _, callers := range []int{1, hitCallers * runtime.GOMAXPROCS(0)} {
		of, err := contest(ctx, list, callers, b.sizes.turns, b.sizes.turn)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("hit of %d, %s", keys, callersText(callers))
		b.compare(what, "ns", 1, of(nameOurs), of(nameOtter), want{"<=", hitLimit})
		b.compare(what, "ns", 1, of(nameOursRedis), of(nameOtter), want{"<=", hitLimit})
		b.compare(what, "ns", 1, of(nameOursInts), of(nameOtterInts), want{"<=", hitLimit})
		if !peers {
			continue
		}
		for _, peer := range hitPeers {
			b.compare(what, "ns", 1, of(nameOurs), of(peer), want{})
		}
		if callers == 1 {
			b.hitAllocs(of)
		}
	}
	return nil
}

// hitAllocs prints what a caller's hits allocate.
func (b *cacheBench) hitAllocs(of func(name string) *cacheTrial) {
	const what = "hit, allocations of 1000, "
	us := of(nameOurs)
	for _, t := range []*cacheTrial{us, of(nameOursRedis)} {
		b.rep.add(what+t.name+" vs limit", "allocs", t.allocs, hitAllocs, want{"<=", 1}, t.problem())
	}
	for _, name := range append([]string{nameOtter}, hitPeers[:]...) {
		t := of(name)
		b.rep.add(what+us.name+" vs "+name, "allocs", us.allocs, t.allocs, want{}, errors.Join(us.problem(), t.problem()))
	}
}

// remoteContenders are those who ask the server; one of them keeps what it has said.
func (b *cacheBench) remoteContenders() []caching {
	tags := func(string, []byte) []string { return []string{cacheTag} }
	return []caching{
		{nameOurs, b.over(cache.Config[string, []byte]{Name: "remote", NoLocal: true})},
		{nameOursTagged, b.over(cache.Config[string, []byte]{Name: "tagged", NoLocal: true, Tags: tags})},
		{nameGet, b.openByHand},
		{nameGoCacheBare, b.openGoCacheGet(nil)},
		{nameAside, b.openAside},
		{nameAsideBare, b.openAsideBare},
	}
}

// remoteHits is what an answer costs that is in Redis.
func (b *cacheBench) remoteHits(ctx context.Context) error {
	live := make([]byte, liveHeap)
	defer runtime.KeepAlive(live)
	var list []*entrant
	for i, c := range b.remoteContenders() {
		things := newStock(b.sizes.remoteKeys, remoteBytes, func(n int) string { return fmt.Sprintf("%d:%s", i, productOf(n)) }) // each has its own
		e, err := enter(ctx, c.name, things, true, c.open)
		if err != nil {
			return err
		}
		list = append(list, e)
	}
	for _, callers := range []int{1, remoteCallers} {
		of, err := contest(ctx, list, callers, b.sizes.remoteTurns, b.sizes.remoteTurn)
		if err != nil {
			return err
		}
		what := "Redis hit, " + callersText(callers)
		b.compare(what, "us", 1000, of(nameOurs), of(nameGet), want{"<=", remoteLimit})
		b.compare(what, "us", 1000, of(nameOursTagged), of(nameGet), want{})
		for _, peer := range []string{nameGoCacheBare, nameAsideBare, nameAside} {
			b.compare(what, "us", 1000, of(nameOurs), of(peer), want{})
		}
		if callers == 1 {
			for _, peer := range []string{nameGet, nameGoCacheBare, nameAsideBare} {
				b.rep.add("Redis hit, allocations of 1000, "+nameOurs+" vs "+peer, "allocs", of(nameOurs).allocs, of(peer).allocs, want{}, errors.Join(of(nameOurs).problem(), of(peer).problem()))
			}
		}
	}
	return nil
}
