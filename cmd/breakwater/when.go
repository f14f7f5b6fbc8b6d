package main

import (
	"errors"
	"time"
)

// when is a flag: a time, or a span before now by the engine's clock.
type when struct {
	time time.Time
	ago  time.Duration
}

func (w *when) String() string { return "" }

func (w *when) Set(s string) (err error) {
	if w.ago, err = time.ParseDuration(s); err == nil && w.ago >= 0 {
		return nil
	}
	w.ago = 0
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if w.time, err = time.Parse(layout, s); err == nil {
			return nil
		}
	}
	return errors.New("want a time such as 2026-11-27T03:00:00Z, a date, or how long ago, such as 2h")
}
