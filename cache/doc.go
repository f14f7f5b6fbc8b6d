// Package cache keeps what is read often and changes rarely, in memory and in a second tier that processes share, and lets an invalidation win.
//
// The problem: get, and on a miss fetch and SET with a time to live, is what everybody writes. A fetch that is slow puts the old value back after a webhook has deleted it, where it stays until its time is over; a thousand callers who
// miss a key fetch it a thousand times; what one process deletes another still serves from its memory.
//
// A [Cache] loads each key once for all who wait, in a process and, with Config.Fleet, among processes. A load is a lease: an invalidation that comes before it has ended voids it, in memory, in the Remote and across processes, and
// what it brings is returned to those who asked before and kept nowhere.
//
//	products, err := cache.New(loadProduct, cache.Config[ProductKey, Product]{Name: "products", TTL: 5 * time.Minute, Remote: rediscache.New(rdb, rediscache.Config{})})
//	product, err := products.Get(ctx, ProductKey{shop, id})
//	enqueue.Handle(mux, "products/update", cache.InvalidateOn(products, productKey, syncProduct))
//
// What holds: no value is served that is older than TTL, or TTL and StaleWhileRevalidate or StaleIfError where those are set. After [Cache.Invalidate] has returned no Get of the same process that begins later returns what was loaded
// before, nor does one of another process from the Remote; from its memory, it does so for the time that a message takes, and MaxLag if messages get lost. What does not: a source that answers with what is older than its webhook puts that into
// the cache, unless Config.UpdatedAt says how old it is.
package cache
