package queue

import (
	"context"
	"time"
)

// Broker is an engine that keeps queues. It is written for the worker of [Queue.Run], which is its
// only caller beside [Queue.Enqueue]. Every operation is one atomic step; all are safe for concurrent
// use. Time is the engine's own: durations go in and come out, never a worker's clock. An error other than
// those named means that the engine failed and that the step may or may not have happened.
type Broker interface {
	// Info describes the engine. It does no I/O.
	Info() BrokerInfo

	// Enqueue accepts all jobs of a batch or none, and answers one Receipt each, in order. It keeps
	// nothing of the batch's memory. Once it has returned nil the jobs are as durable as Info says.
	// A batch whose ID was seen in the last two minutes gets the same answer and changes nothing.
	Enqueue(ctx context.Context, queue string, batch Batch) ([]Receipt, error)

	// Claim settles jobs and then leases up to call.Max others, in one step. A call with the process
	// and number of that process's last one gets the same answer and changes nothing.
	Claim(ctx context.Context, queue string, call Call) (Claimed, error)

	// Extend gives those of the tokens that are still held a full lease from now, and answers the others.
	Extend(ctx context.Context, queue string, tokens []Token, lease time.Duration) (lost []Token, err error)

	// Wait blocks until there may be a job to claim that was not there when it was called, or until
	// ctx ends. It is a hint: it may return early, and a lost one is made up by the worker's own
	// look every 5 s. It does not announce what falls due; Claimed.DueIn tells that.
	Wait(ctx context.Context, queue string) error
}

// Operator is what an engine offers to people who look after queues. [Memory] has it.
type Operator interface {
	// Dead lists a queue's dead letters, oldest first, at most limit.
	Dead(ctx context.Context, queue string, limit int) ([]DeadLetter, error)
}

// BrokerInfo describes an engine.
type BrokerInfo struct {
	Engine  string // its name, for messages: "memory"
	Durable bool   // what Enqueue accepted outlives the process
}

// Batch is what one Enqueue accepts.
type Batch struct {
	ID   string // random; the same when the batch is sent again
	Jobs []Entry
}

// Entry is one job of a batch. Its Job has an ID and no field left to default.
type Entry struct {
	Job  Job
	Dead string // if set, the job goes to the dead letters with this error; its dedupe key is asked all the same
}

// Token proves that a lane is leased. It differs from every token ever issued and is compared for
// equality only.
type Token string

// Call is one Claim: settlements first, then leases.
type Call struct {
	Process string // random, drawn anew at every start
	Number  uint64 // rises with every call of the process that is not a repetition; one call is under way at a time

	Settle []Settlement
	Max    int           // jobs to lease at most; may be 0
	Lease  time.Duration // how long the leases last
}

// Action is what a settlement does to the head of its lane.
type Action uint8

// The actions. Attempts rises only by Retry; Retry and Snooze kill a job that is past its deadline.
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
	Error  string        // of Retry and Kill
}

// Claimed is the answer to a Call.
type Claimed struct {
	Lost  []Token // tokens of settlements that changed nothing: another worker has the lane
	Jobs  []Lease
	DueIn time.Duration // until something falls due; 0 if nothing will; the least there is if the call stopped short
}

// Lease is one claimed job.
type Lease struct {
	Token Token
	Job   Job
	Age   time.Duration // since the job was accepted or due, whichever is later
}
