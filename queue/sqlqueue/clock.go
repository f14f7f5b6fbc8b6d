package sqlqueue

import (
	"sync"
	"time"
)

// clock is the engine's time in one process. All processes of a file share the system's clock, and how far the engine's is ahead of
// it, so that the engine's never goes back: a system's clock that is set back is made up for. One that is set forward is time that has passed.
type clock struct {
	mu  sync.Mutex
	at  time.Time // when it was last read, by the process's monotonic clock
	now int64     // what it said
}

// read tells the time in microseconds since 1970. ahead and last stand in the file: how far the engine's clock is ahead, which read may
// correct, and the time of the last step.
func (c *clock) read(ahead, last int64) (now, corrected int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	now = at.UnixMicro() + ahead
	least := last
	if !c.at.IsZero() {
		least = max(least, c.now+at.Sub(c.at).Microseconds())
	}
	if least-now > time.Second.Microseconds() {
		ahead += least - now
	}
	c.at, c.now = at, max(now, least)
	return c.now, ahead
}
