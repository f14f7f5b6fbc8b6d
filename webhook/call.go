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
	buf   []byte
	body  []byte // what of buf this request filled
	sum   [sha256.Size]byte
	timer *time.Timer

	mu       sync.Mutex
	w        http.ResponseWriter // nil when no sink is running
	ctx      *sinkContext
	answered bool // the timer answered
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
	if cap(c.buf) > maxPooled {
		c.buf = nil
	}
	// One byte more than announced, so that the read that finds the end needs no growth.
	if want := min(max(r.ContentLength+1, minBuffer), maxPresize); int64(cap(c.buf)) < want {
		c.buf = make([]byte, want)
	}
	if r.Body == nil {
		return errEmpty // a request that was made by hand
	}
	conn := limitRead(w, r, deadline)
	n, err := c.fill(r.Body, maxBytes)
	if conn != nil && err == nil {
		// net/http reads on in the background while the sink runs, and must not find the deadline.
		_ = conn.SetReadDeadline(time.Time{})
	}
	c.body = c.buf[:n:n]
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil && int64(n) > maxBytes:
		return errTooLarge
	case err == nil && n == 0 && r.ContentLength > 0:
		return errRead
	case err == nil && n == 0:
		return errEmpty
	case err == nil:
		return nil
	case errors.As(err, &timeout) && timeout.Timeout():
		return errSlow
	case errors.As(err, new(*http.MaxBytesError)):
		return errTooLarge // a middleware's limit
	default:
		return errIncomplete
	}
}

// fill reads r into buf, growing it as bytes arrive and not as they are announced.
func (c *call) fill(r io.Reader, maxBytes int64) (int, error) {
	n := 0
	for {
		if n == len(c.buf) {
			c.buf = append(c.buf, make([]byte, n)...)
		}
		c.buf = c.buf[:cap(c.buf)]
		m, err := r.Read(c.buf[n:])
		n += m
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		case int64(n) > maxBytes:
			return n, nil
		}
	}
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

// begin starts the sink's time and returns its context.
func (c *call) begin(w http.ResponseWriter, r *http.Request, timeout time.Duration) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w = w
	c.answered = false
	c.ctx = &sinkContext{values: r.Context(), deadline: time.Now().Add(timeout)}
	c.timer.Reset(timeout)
	return c.ctx
}

// finish ends the sink's time. It says false if the deadline has answered in the meantime. The call
// goes back to the pool only if its timer never fired: else the timer's goroutine may still hold it,
// or whoever the sink left behind still reads the body.
func (c *call) finish() bool {
	stopped := c.timer.Stop()
	c.mu.Lock()
	answered := c.answered
	c.w = nil
	c.mu.Unlock()
	if stopped {
		c.h.calls.Put(c)
	}
	return !answered
}

// expire runs at the deadline: the context ends, and Shopify gets its answer.
func (c *call) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w == nil {
		return // the sink has just returned
	}
	c.ctx.end()
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

func (c *sinkContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = context.DeadlineExceeded
	if c.done != nil {
		close(c.done)
	}
}
