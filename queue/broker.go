package queue

import (
	"context"
	"time"
)

// Broker is an engine that keeps queues. It is written for [Queue]'s Enqueue and Run, its only callers.
// Every operation is one atomic step; all are safe for concurrent use. Time is the engine's own: durations
// go in and come out, never a worker's clock. An error means that the engine failed and that the step may or
// may not have happened; a call whose context has ended before it begins changes nothing.
//
// An engine with partitions is that many machines side by side: every group lives in one of them, and what
// the operations below say of order, turns and limits holds within one. brokertest.Run checks an engine.
type Broker interface {
	// Info describes the engine. It does no I/O.
	Info() BrokerInfo

	// Enqueue accepts all jobs of a batch or none, and answers one Receipt each, in order. It keeps
	// nothing of the batch's memory. Once it has returned nil the jobs are as durable as Info says.
	// A batch whose ID was seen in the last two minutes gets the same answer and changes nothing.
	// Where a batch spans partitions, all or none holds in each: an error then comes with receipts, of which
	// those without an ID were not accepted.
	Enqueue(ctx context.Context, queue string, batch Batch) ([]Receipt, error)

	// Claim settles jobs and then leases up to call.Max others, in one step. It keeps nothing of the call's memory, and the
	// caller changes nothing of the answer's. A call with the process
	// and number of that process's last one gets the same answer and changes nothing, for ten minutes; leases that were lost meanwhile, and
	// dead letters that are gone, may be missing from it. One with a lower number was
	// given up by its process before a later one: it changes nothing, and all its tokens are Lost.
	Claim(ctx context.Context, queue string, call Call) (Claimed, error)

	// Extend gives those of the tokens that are still held a full lease from now, names the others, and
	// takes note of progress. Without tokens it only says whether the engine answers.
	Extend(ctx context.Context, queue string, beat Heartbeat) (Extended, error)

	// Wait blocks until there may be a job to claim that was not there when it was called, or until
	// ctx ends. It is a hint: it may return early, and a lost one is made up by the worker's own
	// look every 5 s. It does not announce what falls due; Claimed.DueIn tells that.
	Wait(ctx context.Context, queue string, partition int) error
}

// BrokerInfo describes an engine.
type BrokerInfo struct {
	Engine     string // its name, for messages: "memory"
	Durable    bool   // what Enqueue accepted outlives the process
	Partitions int    // 0 means 1
	Err        error  // what is wrong with how it was made; New fails with it
}

// Batch is what one Enqueue accepts.
type Batch struct {
	ID   string // random; the same when the batch is sent again
	Jobs []Entry
}

// Entry is one job of a batch. Its Job has an ID and no field left to default.
type Entry struct {
	Queue string // where to, in a Settlement; "" is the settled job's queue. Not used in a Batch
	Job   Job
	Dead  string // if set, the job goes to the dead letters with this error; its dedupe key is asked all the same
}

// Token proves that a lane is leased. It differs from every token ever issued and is compared for
// equality only.
type Token string

// Call is one Claim: settlements first, then leases.
type Call struct {
	Partition int    // from 0
	Process   string // random, drawn anew at every start
	Number    uint64 // rises with every call of the process in the partition that is not a repetition; one is under way at a time

	Settle []Settlement
	Max    int           // jobs to lease at most; may be 0
	Lease  time.Duration // how long the leases last

	// BulkEvery is which turn goes to bulk work although live work is ready; 0 means every 8th.
	BulkEvery int

	// Again marks a repetition. If the engine has lost the answer (its time ran out, a failover), Held are
	// the tokens that the process knows of in this partition, and the engine gives its others back.
	Again bool
	Held  []Token
}

// Action is what a settlement does to the head of its lane.
type Action uint8

// The actions. Attempts rises only by Retry; Retry and Snooze kill a job that is past its deadline. On a
// cancelled job all but Ack end it.
const (
	Ack     Action = iota + 1 // the job is done and leaves
	Retry                     // the job failed and is due After, as its Order says; at MaxAttempts it dies
	Snooze                    // the job is put off: it stays the head and is due After, without a failure
	Kill                      // the job goes to the dead letters
	Release                   // the worker gives the job back: its lane is the next of its group
)

// Settlement ends one lease.
type Settlement struct {
	Token  Token
	Action Action
	After  time.Duration // of Retry and Snooze
	Park   bool          // of Snooze: the job's whole group is parked for After, too
	Error  string        // of Retry and Kill; of Snooze, for a job that is past its deadline

	Progress *Progress // the last one that no heartbeat has carried
	Result   []byte    // of Ack, for the Status of a tracked job
	Enqueue  []Entry   // of Ack: jobs of the same group, in any queue of the space, in the same step
}

// Progress is how far a job has come.
type Progress struct {
	Percent int // 0 to 100; one below an earlier one of the attempt changes nothing
	Note    string
}

// Claimed is the answer to a Call.
type Claimed struct {
	Lost []Token      // tokens of settlements that changed nothing: another worker has the lane
	Died []DeadLetter // what this step sent to the dead letters; their jobs without payload

	Enqueued []Receipt // of the jobs that Acks have brought, in their order; those of lost tokens are left out

	Jobs []Lease
	// DueIn is how long until something falls due; 0 if nothing will; the least there is if the call stopped short.
	// Leases that end do not count.
	DueIn time.Duration
}

// Lease is one claimed job.
type Lease struct {
	Token Token
	Job   Job
	Age   time.Duration // since Job.Since
	Err   error         // the record could not be read, and Job is empty: ErrNewerFormat, or it is damaged
}

// Heartbeat extends leases of one partition.
type Heartbeat struct {
	Partition int
	Tokens    []Token
	Lease     time.Duration
	Progress  map[Token]Progress // of some of the tokens
}

// Extended is the answer to a Heartbeat.
type Extended struct {
	Lost      []Token // not held any more
	Cancelled []Token // held, but the job is cancelled: its handler should stop
}
