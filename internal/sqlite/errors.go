// Package sqlite knows SQLite's errors, whatever the driver.
package sqlite

import (
	"errors"
	"strings"
)

// Result codes, https://www.sqlite.org/rescode.html.
const (
	busy = 5
	full = 13
)

// IsBusy says whether another connection holds the file.
func IsBusy(err error) bool { return hasCode(err, busy, "database is locked") }

// IsFull says whether the disk, or what the file may take of it, is full.
func IsFull(err error) bool { return hasCode(err, full, "database or disk is full") }

// hasCode says whether an error is SQLite's of a code. Drivers tell the code in ways of their own; the text is SQLite's and the
// same in all.
func hasCode(err error, code int, text string) bool {
	if err == nil {
		return false
	}
	if c, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		return c.Code()&0xff == code
	}
	return strings.Contains(err.Error(), text)
}
