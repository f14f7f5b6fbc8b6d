package queue

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrVolatile is returned by New for a broker that forgets its jobs when the process ends.
	ErrVolatile = errors.New("queue: the broker is volatile")
	// ErrPayloadTooLarge is wrapped by Enqueue's error for a payload over Config.MaxPayloadBytes. The
	// error's Permanent method says true: the job can never be taken.
	ErrPayloadTooLarge = errors.New("queue: payload is too large")
	// ErrNameTooLong is wrapped by Enqueue's error for a kind, group, key, dedupe key or header's name over 65,535 bytes.
	// The error's Permanent method says true.
	ErrNameTooLong = errors.New("queue: name is too long")
	// ErrResultTooLarge is wrapped by SetResult's error for a result over 64 KiB. The error's Permanent method says true.
	ErrResultTooLarge = errors.New("queue: result is too large")
	// ErrUnknownJob is returned by Status and Cancel.
	ErrUnknownJob = errors.New("queue: no tracked job of this ID, or its status has ended")
	// ErrNoJob is returned by what is for handlers only, where the context is not a handler's.
	ErrNoJob = errors.New("queue: the context is not that of a running job")

	// ErrCompleted is returned by what is for running jobs only, once an engine has completed the job in a transaction
	// with its effect: it can't be completed again, and nothing can be added.
	ErrCompleted = errors.New("queue: the job is completed already")

	// ErrLeaseLost is the cause with which a handler's context ends when another worker has taken
	// its job over.
	ErrLeaseLost = errors.New("queue: lease lost")
	// ErrCancelled is the cause with which a handler's context ends when its job was cancelled or purged.
	ErrCancelled = errors.New("queue: job cancelled")
	// ErrStopped is the cause with which a handler's context ends when it outlived the drain time.
	ErrStopped = errors.New("queue: worker stopped")
	// ErrTimeout is the cause with which a handler's context ends after its timeout.
	ErrTimeout = errors.New("queue: handler timed out")

	// ErrNoHandler is why a job of a kind that no worker knew for 24 h died.
	ErrNoHandler = errors.New("queue: no handler for this kind")
	// ErrNoCodec is why a job died whose payload no worker could decode for 24 h.
	ErrNoCodec = errors.New("queue: no codec for this payload")

	errGone   = errors.New("queue: handler ended its goroutine")
	errZombie = errors.New("queue: handler ignored the end of its context")
)

// sizeError is the error of something that is too large to be taken, ever.
type sizeError struct {
	what      string
	got, most int
	setting   string // where most can be changed, if it can
	sentinel  error
}

func (e *sizeError) Error() string {
	if e.setting != "" {
		return fmt.Sprintf("queue: %s has %d bytes; %s is %d", e.what, e.got, e.setting, e.most)
	}
	return fmt.Sprintf("queue: %s has %d bytes; at most %d are possible", e.what, e.got, e.most)
}
func (e *sizeError) Unwrap() error   { return e.sentinel }
func (e *sizeError) Permanent() bool { return true }

// What an error means to the queue is told by methods, so that no package needs to import another.
type (
	// delayer snoozes its job: the dependency said when to come back.
	delayer interface {
		error
		RetryAfter() time.Duration
	}
	// parker parks its job's whole group, if its ParkGroup says true, for as long as it snoozes the job: what was
	// used up is the group's.
	parker interface {
		delayer
		ParkGroup() bool
	}
	// permanent kills its job: no later try can succeed.
	permanent interface {
		error
		Permanent() bool
	}
)

// Permanent makes err kill its job at once: no later try can succeed. nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ cause error }

func (e *permanentError) Error() string   { return e.cause.Error() }
func (e *permanentError) Unwrap() error   { return e.cause }
func (e *permanentError) Permanent() bool { return true }

// decodeError is why a payload could not be given to its handler.
type decodeError struct{ cause error }

func (e *decodeError) Error() string { return e.cause.Error() }
func (e *decodeError) Unwrap() error { return e.cause }

type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("queue: handler panicked: %v", e.value) }
