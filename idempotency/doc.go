// Package idempotency makes what is asked for twice happen once.
//
// The problem: queues deliver at least once, Shopify sends webhooks again, people press the button twice, and processes die between the
// effect and the note of it. The usual cure (look whether the key was seen, work, note it) lets two workers through that look at the same
// time, and forgets what was done when a process dies before the note.
//
// A [Keeper] over a [Store] claims a key under a lease before the work, extends the lease while the work runs, and records the outcome with the
// lease's token, so that one that was lost can change nothing. [Once] wraps a handler, [OnceValue] keeps a result too and answers with it,
// [Latest] lets an older state of a resource never follow a newer one, and [NewMiddleware] does it for HTTP, by the Idempotency-Key header.
//
//	keeper, err := idempotency.New(redisstore.New(client, redisstore.Config{}), idempotency.Config{})
//	ship = idempotency.Once(keeper, "ship", orderKey, ship)
//
// What holds: of calls with one key, one at a time runs, and none after one has succeeded, for as long as Config.Retention. What does not: a process that dies,
// or loses its lease, between an effect and its record leaves an effect that happens again. Nothing outside the system that has the effect can prevent that; what can is one transaction for mark and
// effect (sqlstore.OnceTx), or a key that the dependency remembers (ChildKey). docs/idempotency.md has the whole of it.
package idempotency
