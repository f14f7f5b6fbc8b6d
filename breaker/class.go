package breaker

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Class says what an error means, to every layer of a Breaker alike.
type Class int

const (
	_ Class = iota
	// Success says that the dependency has answered, if only that it will not do it. It counts as a success and is not tried again.
	Success
	// Failure counts against the dependency, and is tried again where that is safe.
	Failure
	// Ignored says nothing about the dependency: it counts neither way and is not tried again.
	Ignored
	// Permanent is a Success that no later try will change. The error that is returned has a Permanent method that says true, by which a queue gives up.
	Permanent
	// Throttled says that the dependency works, and asks for less. It counts neither way, and is tried again, where that is safe, when it says so.
	Throttled
)

// String returns the class in lower case.
func (c Class) String() string {
	switch c {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Ignored:
		return "ignored"
	case Permanent:
		return "permanent"
	case Throttled:
		return "throttled"
	default:
		return fmt.Sprintf("class %d", int(c))
	}
}

// Classify is the default of Config.Classify. nil is a Success; an ErrTimeout is a Failure; an ErrOpen or ErrLimited, of another breaker further down, is Ignored; an error whose
// Permanent() bool says true is Permanent; one with a StatusCode() int goes by that: 429 is Throttled, 5xx a Failure, all others a Success; one with a
// RetryAfter() time.Duration is Throttled. Every other error is a Failure.
func Classify(err error) Class {
	if err == nil {
		return Success
	}
	if errors.Is(err, ErrTimeout) { // whatever came after it
		return Failure
	}
	if errors.Is(err, ErrOpen) || errors.Is(err, ErrLimited) {
		return Ignored
	}
	if p, ok := errors.AsType[permanent](err); ok && p.Permanent() {
		return Permanent
	}
	if s, ok := errors.AsType[statusCoder](err); ok {
		switch code := s.StatusCode(); {
		case code == http.StatusTooManyRequests:
			return Throttled
		case code >= http.StatusInternalServerError:
			return Failure
		default:
			return Success
		}
	}
	if _, ok := errors.AsType[delayer](err); ok {
		return Throttled
	}
	return Failure
}

// What an error means is told by methods, so that no package needs to import another.
type (
	permanent interface {
		error
		Permanent() bool
	}
	statusCoder interface {
		error
		StatusCode() int
	}
	delayer interface {
		error
		RetryAfter() time.Duration
	}
)

// StatusError is an HTTP answer with a status of 400 or more. See [CheckStatus].
type StatusError struct {
	Code int    // 404
	Host string // that answered; "" if unknown. A URL's other parts may hold secrets
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("breaker: %s answered with %d %s", cmp.Or(e.Host, "the dependency"), e.Code, http.StatusText(e.Code))
}

// StatusCode returns Code, for Classify.
func (e *StatusError) StatusCode() int { return e.Code }

// waitError is a StatusError whose answer had a Retry-After header.
type waitError struct {
	*StatusError

	after time.Duration
}

func (e *waitError) Unwrap() error             { return e.StatusError }
func (e *waitError) RetryAfter() time.Duration { return e.after }

// CheckStatus makes an error of an answer with a status of 400 or more, and nil of any other. The error is a *StatusError, and has a RetryAfter method
// if the answer has a Retry-After header that can be read (RFC 9110, section 10.2.3: seconds or a date). It neither reads nor closes the body.
func CheckStatus(resp *http.Response) error {
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	e := &StatusError{Code: resp.StatusCode}
	if resp.Request != nil && resp.Request.URL != nil {
		e.Host = resp.Request.URL.Host
	}
	if after, ok := retryAfter(resp.Header, time.Now()); ok {
		return &waitError{e, after}
	}
	return e
}

// retryAfter reads a Retry-After header. A date is compared with the answer's own, so that two clocks that differ do no harm.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	text := h.Get("Retry-After")
	if text == "" {
		return 0, false
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, math.MaxInt64/uint64(time.Second))) * time.Second, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return max(at.Sub(now), 0), true
}
