package idempotency

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrInProgress is wrapped by the error of a call whose key another holds. The error's RetryAfter method says when to come back, so that a queue waits.
	ErrInProgress = errors.New("idempotency: in progress")
	// ErrMismatch is wrapped by the error of a call whose key was used with another payload. The error's Permanent method says true.
	ErrMismatch = errors.New("idempotency: the key was used with another payload")
	// ErrLeaseLost is the cause with which the work's context ends when its lease is lost, and wrapped by the error of a call that lost it: the store was
	// away for too long, the process stood still, or the scope was purged. Another may have run meanwhile.
	ErrLeaseLost = errors.New("idempotency: lease lost")
	// ErrUnknownOutcome is wrapped by the error of a call whose work succeeded and could not be recorded, and, with Config.AskFirst, of calls whose key's
	// last holder ended without a word. The former's RetryAfter method says when the lease is over; the latter's Permanent method says true: somebody has to look
	// (Keeper.Inspect, Keeper.Resolve).
	ErrUnknownOutcome = errors.New("idempotency: the outcome is not known")
	// ErrUnavailable is wrapped by the error of a call that found the store away: nothing was run. The error's RetryAfter method says when to come back.
	ErrUnavailable = errors.New("idempotency: the store is not available")
	// ErrRecorded is wrapped by the error of a call whose key has ended with a permanent error, whose text it has. Its Permanent method says true.
	ErrRecorded = errors.New("idempotency: it failed for good")
	// ErrNoResult is wrapped by the error of a call whose key is done and whose result is not kept: it was too large, did not encode, or the key was used without one.
	// The error's Permanent method says true.
	ErrNoResult = errors.New("idempotency: done, but its result was not kept")
	// ErrKey is wrapped by the error for a key or version that can't be one. The error's Permanent method says true.
	ErrKey = errors.New("idempotency: not a key")
	// ErrNested is wrapped by the error of a call within the work of the same operation on the same key: it would wait for itself. The error's Permanent method says true.
	ErrNested = errors.New("idempotency: within the work of the same key")
	// ErrNewerFormat is wrapped by the error for a record of a later version of this module, or a damaged one: nothing is run.
	ErrNewerFormat = errors.New("idempotency: a record that this version can't read")

	// ErrNoOperation is returned by ChildKey outside any work.
	ErrNoOperation = errors.New("idempotency: the context is not that of an operation")
	// ErrNoRecord is wrapped by Inspect's error.
	ErrNoRecord = errors.New("idempotency: no record of this key")
	// ErrChanged is wrapped by Resolve's error: look again.
	ErrChanged = errors.New("idempotency: the record has changed meanwhile")
	// ErrNoOperator is returned by Inspect, Resolve and Purge over a store that can't.
	ErrNoOperator = errors.New("idempotency: the store has no Operator")
	// ErrFull is returned by Memory's Claim when all its records are in progress.
	ErrFull = errors.New("idempotency: too many keys in progress")
)

// permanent is an error that no later try can change.
type permanent struct{ error }

func (e permanent) Unwrap() error { return e.error }
func (permanent) Permanent() bool { return true }

// later is an error that says when to come back.
type later struct {
	error
	after time.Duration
}

func (e later) Unwrap() error             { return e.error }
func (e later) RetryAfter() time.Duration { return e.after }

type keyError struct{ text string }

func (e *keyError) Error() string   { return "idempotency: " + e.text }
func (e *keyError) Unwrap() error   { return ErrKey }
func (e *keyError) Permanent() bool { return true }

func about(n Name, err error) error { return fmt.Errorf("%w: %v", err, n) }
