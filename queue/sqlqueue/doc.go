// Package sqlqueue keeps the queues of package queue in one SQLite file, with no server at all.
//
// What Enqueue has accepted is on the disk before it returns. The whole model holds as on every engine: order, fairness, leases,
// dead letters, dedupe. Several processes on one machine may use the file at once: a receiver and its workers. All calls of a process that
// wait at the same moment share one transaction, so that the disk is asked once for many jobs. Jobs that are done leave nothing behind.
//
//	db, err := sql.Open("sqlite", "jobs.db") // modernc.org/sqlite; any driver for SQLite will do
//	jobs, err := queue.New(sqlqueue.New(db, sqlqueue.Config{}), queue.Config{})
//	_, err = jobs.Enqueue(ctx, queue.Job{Kind: "ship", Payload: order})
//	err = jobs.Run(ctx, mux, queue.WorkerConfig{})
//
// [WithTx] enqueues in a transaction of the user's, so that an order and its job are written together or not at all. [InTx] makes a handler
// whose effect in the same database, whose completion and whose new jobs are one transaction, so that the effect is neither lost
// nor doubled, whatever dies when.
//
// Transactions of your own on the file need a busy_timeout, and begin best with their write: SQLite fails one that reads first and writes later when
// somebody else has written in between (in modernc.org/sqlite: "file:jobs.db?_txlock=immediate&_pragma=busy_timeout(5000)").
//
// SQLite has one writer at a time, and the file must be on a local disk. For more than one machine use another engine.
package sqlqueue
