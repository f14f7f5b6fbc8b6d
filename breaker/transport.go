package breaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// Transport makes an http.RoundTripper that sends requests by next through the breaker, so that any client gets it. It panics if next is nil.
//
// Config.Timeout is the time until the answer's header is there; for the body the request's context counts, which lives on until the body is read or closed. Answers are
// classified by their status (CheckStatus), and returned as they are: of a request that was tried again, the last one, or its error if the breaker did not let that try through. A client's own
// Timeout should be longer than Config.Timeout: what ends sooner than half of that is not held against the dependency.
//
// Only requests are sent again that say that they may be: GET, HEAD, OPTIONS and TRACE, those with an Idempotency-Key or X-Idempotency-Key header, and all by
// a Breaker.Idempotent; and of those with a body only where Request.GetBody gives it anew, as http.NewRequest sees to for bytes and strings.
// (An http.Transport beneath may by itself send such a request once more on another connection, where one that was kept alive turns out to be closed.)
//
//	client := &http.Client{Transport: carrier.Transport(http.DefaultTransport)}
func (b *Breaker) Transport(next http.RoundTripper) http.RoundTripper {
	return newTransport(next, func(*http.Request) *Breaker { return b })
}

func newTransport(next http.RoundTripper, pick func(*http.Request) *Breaker) *transport {
	if next == nil {
		panic("breaker: Transport: next is nil")
	}
	return &transport{next, pick}
}

type transport struct {
	next http.RoundTripper
	pick func(*http.Request) *Breaker
}

var _ http.RoundTripper = (*transport)(nil)

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	s := &sending{transport: t, req: req.Clone(req.Context())} // an attempt that is left alone may still read it when the caller has it back
	defer s.close()
	b := t.pick(req)
	resp, _, err := run(req.Context(), b, s, how[*http.Response]{repeatable: repeatable(req, b), keep: keepBody})
	if resp != nil {
		resp.Request = req
		return resp, nil
	}
	return nil, err
}

// CloseIdleConnections is for http.Client.CloseIdleConnections.
func (t *transport) CloseIdleConnections() {
	if next, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}

// repeatable says whether a request may be sent more than once. A server that knows it by its key or its method sees to the rest.
func repeatable(req *http.Request, b *Breaker) bool {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace: // safe, by RFC 9110, section 9.2.1
		return true
	}
	_, key := req.Header["Idempotency-Key"] // as net/http has it
	_, xkey := req.Header["X-Idempotency-Key"]
	return b.repeatable || key || xkey
}

// sending is a request and its attempts, of which one that was left alone may still be under way.
type sending struct {
	*transport

	req   *http.Request
	taken atomic.Bool // the request's own body, by the first attempt
}

// errBody is no fault of the dependency's.
var errBody = errors.New("breaker: no body to send again")

// call returns an answer and, if its status is an error, that.
func (s *sending) call(ctx context.Context) (*http.Response, error) {
	req := s.req.WithContext(ctx)
	if !s.taken.CompareAndSwap(false, true) && req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil { // it came too late: RoundTrip is over
			return nil, ctx.Err()
		}
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
		req.Body = body
	}
	resp, err := s.next.RoundTrip(req)
	switch {
	case err != nil:
		return nil, err
	case resp == nil:
		return nil, errors.New("breaker: the RoundTripper returned neither an answer nor an error")
	}
	return resp, CheckStatus(resp)
}

// close closes the body of a request that was never sent, as a RoundTripper has to.
func (s *sending) close() {
	if s.taken.CompareAndSwap(false, true) && s.req.Body != nil {
		s.req.Body.Close()
	}
}

// keepBody lets the attempt's context end with the body.
func keepBody(resp *http.Response, end func()) *http.Response {
	switch {
	case resp == nil:
		end()
	case resp.Body == nil, resp.Body == http.NoBody:
		end()
	default:
		b := &body{resp.Body, end}
		if w, ok := resp.Body.(io.ReadWriteCloser); ok { // 101 Switching Protocols
			resp.Body = &conn{b, w}
		} else {
			resp.Body = b
		}
	}
	return resp
}

// body is an answer's.
type body struct {
	io.ReadCloser

	end func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end()
	}
	return n, err
}

func (b *body) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// conn is the body of an answer that can be written to as well.
type conn struct {
	*body
	io.Writer
}

// CloseWrite is for httputil.ReverseProxy.
func (c *conn) CloseWrite() error {
	if w, ok := c.Writer.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
