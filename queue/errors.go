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
	// ErrLeaseLost is the cause with which a handler's context ends when another worker has taken
	// its job over.
	ErrLeaseLost = errors.New("queue: lease lost")
	// ErrNoHandler is why a job of a kind that no worker knew for 24 h died.
	ErrNoHandler = errors.New("queue: no handler for this kind")
	// ErrStopped is the cause with which a handler's context ends when it outlived the drain time.
	ErrStopped = errors.New("queue: worker stopped")

	errGone = errors.New("queue: handler ended its goroutine")
)

// payloadError is the error of a payload over the limit.
type payloadError struct {
	kind      string
	got, most int64
}

func (e *payloadError) Error() string {
	return fmt.Sprintf("queue: payload of %s has %d bytes; Config.MaxPayloadBytes is %d", e.kind, e.got, e.most)
}
func (e *payloadError) Unwrap() error   { return ErrPayloadTooLarge }
func (e *payloadError) Permanent() bool { return true }

// What an error means to the queue is told by methods, so that no package needs to import another.
type (
	// delayer snoozes its job: the dependency said when to come back.
	delayer interface {
		error
		RetryAfter() time.Duration
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

type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("queue: handler panicked: %v", e.value) }
