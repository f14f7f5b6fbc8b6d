package idempotency

import (
	"fmt"
	"sync/atomic"
)

// kind is the first byte of a recorded result, and its format.
type kind byte

const (
	value   kind = 1 // what the work returned
	failure kind = 2 // the text of a permanent error
	notKept kind = 3 // done, with a result that is not here
)

// outcome is what work came to.
type outcome struct {
	kind  kind
	bytes []byte
	fresh []byte // what the first caller gets of a result that is not kept
}

func (o *outcome) value() []byte {
	if o.kind == notKept {
		return o.fresh
	}
	return o.bytes
}

// record is how an outcome is kept. That of work without a result is empty.
func (o *outcome) record() []byte {
	if o.kind == value && o.bytes == nil {
		return nil
	}
	return append([]byte{byte(o.kind)}, o.bytes...)
}

// replay is what a later call gets.
func replay(name Name, record []byte) (Result, error) {
	if len(record) == 0 {
		return Result{Replayed: true}, nil
	}
	switch kind(record[0]) {
	case value:
		return Result{Value: record[1:], Replayed: true}, nil
	case failure:
		return Result{Replayed: true}, permanent{about(name, fmt.Errorf("%w: %s", ErrRecorded, record[1:]))}
	case notKept:
		return Result{Replayed: true}, permanent{about(name, ErrNoResult)}
	default:
		return Result{}, about(name, fmt.Errorf("%w: result of format %d", ErrNewerFormat, record[0]))
	}
}

// Stats are what a Keeper has counted since New.
type Stats struct {
	Claimed     int64 // runs of work under a lease
	Replayed    int64 // calls of what was done
	Superseded  int64 // calls of Latest with an older version
	InProgress  int64 // ErrInProgress
	Mismatch    int64 // ErrMismatch
	TakenOver   int64 // runs after a holder that ended without a word
	Lost        int64 // leases lost before the outcome was recorded
	Unknown     int64 // outcomes that could not be recorded
	Unavailable int64 // calls that found the store away
}

type counts struct {
	claimed, replayed, superseded, inProgress, mismatch, takenOver, lost, unknown, unavailable atomic.Int64
}

// Stats counts.
func (k *Keeper) Stats() Stats {
	c := &k.counts
	return Stats{
		c.claimed.Load(), c.replayed.Load(), c.superseded.Load(), c.inProgress.Load(), c.mismatch.Load(),
		c.takenOver.Load(), c.lost.Load(), c.unknown.Load(), c.unavailable.Load(),
	}
}
