package webhook

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// call is what one request needs and the next can use again: the body's buffer, the timer of the
// deadline, and who has answered.
//
// The sink runs on the request's own goroutine, and the timer's goroutine answers 503 if it is late.
// A goroutine per sink would do as well, at the cost of two switches on every delivery for the sake
// of the few that are late.
type call struct {
	h     *Handler
	buf   []byte  // for bodies up to maxPresize
	large *[]byte // from Handler.large, for a body over that; else nil
	body  []byte  // what this request filled of either
	sum   [sha256.Size]byte
	timer *time.Timer

	mu       sync.Mutex
	w        http.ResponseWriter // nil when no sink is running
	ctx      *sinkContext
	answered bool      // the timer answered
	fires    time.Time // when the timer will; zero if it is not set
}

func newCall(h *Handler) *call {
	c := &call{h: h}
	c.timer = time.AfterFunc(time.Hour, c.expire)
	c.timer.Stop()
	return c
}

// read reads the body up to max bytes, until deadline at the latest where the connection knows
// deadlines.
func (c *call) read(w http.ResponseWriter, r *http.Request, maxBytes int64, deadline time.Time) *refusal {
	if r.ContentLength > maxBytes {
		return errTooLarge
	}
	// One byte more than announced, so that the read that finds the end needs no growth.
	if want := min(max(r.ContentLength+1, minBuffer), maxPresize); int64(cap(c.buf)) < want {
		c.buf = make([]byte, want)
	}
	if r.Body == nil {
		return errEmpty // a request that was made by hand
	}
	conn := limitRead(w, r, deadline)
	body, err := c.fill(r.Body, r.ContentLength, maxBytes)
	if conn != nil && err == nil {
		// net/http reads on in the background while the sink runs, and must not find the deadline.
		_ = conn.SetReadDeadline(time.Time{})
	}
	n := len(body)
	c.body = body[:n:n]
	switch {
	case err == nil && int64(n) > maxBytes:
		return errTooLarge
	case err == nil && n == 0 && r.ContentLength > 0:
		return errRead
	case err == nil && n == 0:
		return errEmpty
	case err == nil:
		return nil
	case isTimeout(err):
		return errSlow
	case errors.As(err, new(*http.MaxBytesError)):
		return errTooLarge // a middleware's limit
	default:
		return errIncomplete
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// fill reads r into buf, or into a large buffer once more than maxPresize bytes have come.
func (c *call) fill(r io.Reader, announced, maxBytes int64) ([]byte, error) {
	b := c.buf[:cap(c.buf)]
	for n := 0; ; {
		if n == len(b) {
			b = c.grow(b, announced)
		}
		m, err := r.Read(b[n:])
		n += m
		switch {
		case errors.Is(err, io.EOF):
			return b[:n], nil
		case err != nil:
			return b[:n], err
		case int64(n) > maxBytes:
			return b[:n], nil
		}
	}
}

// grow doubles a full buffer, but goes straight to the announced length once maxPresize bytes have
// really come: by then an announcement has cost its sender something.
func (c *call) grow(full []byte, announced int64) []byte {
	size := 2 * len(full)
	if size <= maxPresize {
		c.buf = append(make([]byte, 0, size), full...)
		return c.buf[:size]
	}
	if announced >= int64(len(full)) {
		size = int(announced) + 1
	}
	old := c.large
	c.large, _ = c.h.large.Get().(*[]byte)
	if c.large == nil || cap(*c.large) < size {
		c.large = new(append(make([]byte, 0, size), full...))
	} else {
		*c.large = append((*c.large)[:0], full...)
	}
	if old != nil {
		c.h.large.Put(old)
	}
	return (*c.large)[:cap(*c.large)]
}

// limitRead sets the connection's read deadline, unless the server's own ReadTimeout is the shorter
// one, and returns the connection if it did.
func limitRead(w http.ResponseWriter, r *http.Request, deadline time.Time) deadliner {
	conn := readDeadliner(w)
	if conn == nil {
		return nil
	}
	if s, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok && s.ReadTimeout > 0 && s.ReadTimeout < maxTotal {
		return nil
	}
	if conn.SetReadDeadline(deadline) != nil {
		return nil
	}
	return conn
}

type deadliner interface {
	SetReadDeadline(deadline time.Time) error
}

// readDeadliner finds what http.ResponseController would, without the error that it builds where
// there is none.
func readDeadliner(w http.ResponseWriter) deadliner {
	for {
		if rd, ok := w.(deadliner); ok {
			return rd
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = u.Unwrap()
	}
}

// begin starts the sink's time and returns its context. A timer that an earlier delivery left running
// stays as it is if it fires in time: expire sets it again.
func (c *call) begin(w http.ResponseWriter, r *http.Request, deadline time.Time) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w = w
	c.ctx = &sinkContext{values: r.Context(), deadline: deadline}
	if c.fires.IsZero() || c.fires.After(deadline) {
		c.set(deadline)
	}
	return c.ctx
}

func (c *call) set(deadline time.Time) {
	c.fires = deadline
	c.timer.Reset(time.Until(deadline))
}

// finish ends the sink's time. It says false if the deadline has answered in the meantime. Then the
// call does not go back to the pool: whoever the sink left behind may still read the body.
func (c *call) finish() bool {
	c.mu.Lock()
	c.w = nil
	answered := c.answered
	c.ctx.end(context.Canceled) // whoever still waits on it need not wait for ever
	c.mu.Unlock()
	if !answered {
		c.free()
	}
	return !answered
}

// free gives the call and its buffers back.
func (c *call) free() {
	if c.large != nil {
		if cap(*c.large) <= maxPooled {
			c.h.large.Put(c.large)
		}
		c.large = nil
	}
	c.body = nil
	c.h.calls.Put(c)
}

// expire runs at the deadline: the context ends, and Shopify gets its answer.
func (c *call) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fires = time.Time{}
	if c.w == nil || c.answered {
		return // no sink is running, or it was answered for by a timer that fired just before it was set anew
	}
	if time.Now().Before(c.ctx.deadline) {
		c.set(c.ctx.deadline) // it was set for an earlier delivery
		return
	}
	c.ctx.end(context.DeadlineExceeded)
	c.answered = true
	c.w.Header().Set("Connection", "close") // the connection is taken until the sink returns
	unavailable(c.w, c.h.cfg.RetryAfter)
	_ = http.NewResponseController(c.w).Flush() // where it can't, the answer goes out when the sink returns
}

// sinkContext ends at the deadline and not with the request. It makes its channel only if somebody
// asks, which a plain enqueue into memory does not.
type sinkContext struct {
	values   context.Context //nolint:containedctx // it is a context itself
	deadline time.Time

	mu   sync.Mutex
	done chan struct{}
	err  error
}

func (c *sinkContext) Deadline() (time.Time, bool) { return c.deadline, true }
func (c *sinkContext) Value(key any) any           { return c.values.Value(key) }

func (c *sinkContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

func (c *sinkContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *sinkContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
}
