package webhook

import (
	"errors"
	"fmt"
)

// What a sink may return, alone or wrapped, to say that a delivery is done with although it did not
// take it. Each is answered 200 and counted in [Stats].
var (
	// ErrDuplicate means that the delivery was taken before.
	ErrDuplicate = errors.New("webhook: duplicate delivery")
	// ErrUnhandled means that nothing here wants the delivery's topic.
	ErrUnhandled = errors.New("webhook: no handler for this topic")
	// ErrBuried means that the delivery can never be taken and was kept as a dead letter.
	ErrBuried = errors.New("webhook: kept as a dead letter")
)

var (
	errLookup = errors.New("webhook: the SecretFunc did not return")
	errGone   = errors.New("webhook: the sink ended its goroutine")
)

type panicError struct {
	value any
	what  string
	stack []byte
}

// Error has the stack with it: it is for the log, and goes nowhere else.
func (e *panicError) Error() string {
	return fmt.Sprintf("webhook: %s panicked: %v\n%s", e.what, e.value, e.stack)
}
