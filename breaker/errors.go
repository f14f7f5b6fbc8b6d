package breaker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

var (
	// ErrOpen says that the breaker is open, or half-open with its trials under way: the dependency was not called. The error is an *OpenError.
	ErrOpen = errors.New("breaker: open")
	// ErrLimited says that Config.Limiter or Config.MaxConcurrent had no place within Config.MaxWait: the dependency was not called. The error has a
	// RetryAfter method.
	ErrLimited = errors.New("breaker: limited")
	// ErrTimeout says that the call took longer than Config.Timeout. The error is a context.DeadlineExceeded as well.
	ErrTimeout = errors.New("breaker: timed out")
)

// OpenError is why a breaker did not let a call through; it is an ErrOpen. All calls that are rejected in one open period get the same value: don't
// change it.
type OpenError struct {
	Name      string
	Since     time.Time // when the breaker opened
	NextTrial time.Time // when the first trial may come; zero if it was forced open
	// Cause is the failure that opened it; nil if it was forced open. errors.Is and As do not see it: the call that got this error has not had that failure.
	Cause error

	spread time.Duration // callers who come back are spread over so much
	rest   time.Duration // of a breaker that was forced open: there is no other time to come back at
}

func (e *OpenError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "breaker: %s is open since %s", e.Name, e.Since.UTC().Format(time.RFC3339))
	if e.NextTrial.IsZero() {
		s.WriteString(", forced")
	} else {
		fmt.Fprintf(&s, ", next trial at %s", e.NextTrial.UTC().Format(time.RFC3339))
	}
	if e.Cause != nil {
		fmt.Fprintf(&s, ": %v", e.Cause)
	}
	return s.String()
}

// Unwrap returns ErrOpen.
func (e *OpenError) Unwrap() error { return ErrOpen }

// RetryAfter is how long to stay away: the rest of the open period, and up to a tenth of it on top, at random, so that those who were rejected do not
// all come back at once. While a trial is under way it is one to two tenths. It is never 0, of one that a Breaker has made.
func (e *OpenError) RetryAfter() time.Duration {
	jitter := rand.N(e.spread + 1)
	switch rest := time.Until(e.NextTrial); {
	case e.NextTrial.IsZero():
		return e.rest + jitter
	case rest > 0:
		return rest + jitter
	default:
		return e.spread + jitter
	}
}

// limitError is an ErrLimited.
type limitError struct {
	name, limit string
	after       time.Duration
}

func (e *limitError) Error() string {
	return fmt.Sprintf("breaker: %s: no place in its %s limit; free in about %v", e.name, e.limit, e.after.Round(time.Millisecond))
}
func (e *limitError) Unwrap() error             { return ErrLimited }
func (e *limitError) RetryAfter() time.Duration { return e.after }

// timeoutError is an ErrTimeout and a context.DeadlineExceeded.
type timeoutError struct {
	name  string
	after time.Duration
	cause error // what the call made of it; nil if it has not returned
}

func (e *timeoutError) Error() string {
	s := fmt.Sprintf("breaker: %s did not answer within %v", e.name, e.after)
	if e.cause != nil && !errors.Is(e.cause, context.DeadlineExceeded) {
		s += ": " + e.cause.Error()
	}
	return s
}
func (e *timeoutError) Timeout() bool { return true }
func (e *timeoutError) Unwrap() []error {
	if e.cause == nil {
		return []error{ErrTimeout, context.DeadlineExceeded}
	}
	return []error{ErrTimeout, context.DeadlineExceeded, e.cause}
}

// contextError is the context's, of a caller who did not wait for the end.
type contextError struct {
	name string
	err  error
}

func (e *contextError) Error() string { return fmt.Sprintf("breaker: %s: %v", e.name, e.err) }
func (e *contextError) Unwrap() error { return e.err }
func (e *contextError) Timeout() bool { return errors.Is(e.err, context.DeadlineExceeded) }

// stoppedError is an error after which there was no more try, and why.
type stoppedError struct {
	name     string
	attempts int
	why      error // of the context, or that there is no body to send again
	last     error // of the last attempt; nil if there was none
}

func (e *stoppedError) Error() string {
	if e.last == nil {
		return fmt.Sprintf("breaker: %s was not called: %v", e.name, e.why)
	}
	return fmt.Sprintf("breaker: %s: no more tries after %d: %v: %v", e.name, e.attempts, e.why, e.last)
}

func (e *stoppedError) Unwrap() []error {
	if e.last == nil {
		return []error{e.why}
	}
	return []error{e.why, e.last}
}

func (e *stoppedError) Timeout() bool { return errors.Is(e.why, context.DeadlineExceeded) }

// permanentError makes an error permanent that Classify calls so, for those who ask it: a queue does not try again.
type permanentError struct{ cause error }

func (e *permanentError) Error() string   { return e.cause.Error() }
func (e *permanentError) Unwrap() error   { return e.cause }
func (e *permanentError) Permanent() bool { return true }

// fallbackError keeps why the fallback was asked.
type fallbackError struct{ err, cause error }

func (e *fallbackError) Error() string   { return fmt.Sprintf("%v (a fallback for: %v)", e.err, e.cause) }
func (e *fallbackError) Unwrap() []error { return []error{e.err, e.cause} }
