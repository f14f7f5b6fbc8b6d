// Package queue runs jobs in order per key, fairly over tenants, and once more when they fail.
//
// The problem: webhooks arrive faster than the systems behind them can take, in bursts of one shop,
// twice and while those systems are down. The cure is to store each job before it is acknowledged and
// to work it off in lanes: jobs of one group (the tenant) and class that share a key run one at a time,
// in the order in which they were enqueued, retries included; different keys run in parallel, and groups
// take turns, so that a shop's spike delays no other shop and a backfill (class Bulk) no live orders.
//
// The guarantee: at least once. A job leaves the queue when its handler returned nil, or for the dead
// letters; a worker that lost its lease can settle nothing. A handler may therefore run twice (its
// process died after the effect and before the settlement), and makes its effect idempotent.
// Whether a job outlives the process is the [Broker]'s business: [Memory] is volatile, and [New]
// refuses it unless told that this is meant.
//
//	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
//	mux := queue.NewMux()
//	mux.Handle("ship", ship)
//	_, err = jobs.Enqueue(ctx, queue.Job{Kind: "ship", Group: shop, Key: "order/1", Payload: body})
//	err = jobs.Run(ctx, mux, queue.WorkerConfig{Concurrency: 64})
package queue
