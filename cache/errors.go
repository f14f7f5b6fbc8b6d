package cache

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound is what a load returns, alone or wrapped, for what does not exist. Get then returns it, and remembers it for Config.NegativeTTL.
	ErrNotFound = errors.New("cache: not found")
	// ErrIgnore is what the func of InvalidateBy returns for an input that invalidates nothing.
	ErrIgnore = errors.New("cache: nothing is invalidated by this")
	// ErrLoadTimeout is wrapped by the error of a Get whose load took longer than Config.LoadTimeout. Its Timeout method says true.
	ErrLoadTimeout = errors.New("cache: the load took too long")
	// ErrLoadExited is wrapped by the error of a Get whose load ended its goroutine (runtime.Goexit).
	ErrLoadExited = errors.New("cache: the load ended its goroutine")
)

// PanicError is the error of a Get whose load panicked.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // of the goroutine that it did so in
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("cache: the load panicked: %v\n\n%s", e.Value, e.Stack)
}

// Unwrap is Value, if that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// keyError is an error about an entry.
type keyError struct {
	name string
	key  Key
	err  error
}

func (e *keyError) Error() string {
	if e.name == "" {
		return fmt.Sprintf("cache: %v: %v", e.key, e.err)
	}
	return fmt.Sprintf("cache: %s: %v: %v", e.name, e.key, e.err)
}
func (e *keyError) Unwrap() error { return e.err }

// timeoutError is an ErrLoadTimeout.
type timeoutError struct{ error }

func (e timeoutError) Unwrap() error { return e.error }
func (timeoutError) Timeout() bool   { return true }
