package breaker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/breaker"
)

// roundTrip is an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer reads a request, as a server does, and answers it.
func answer(req *http.Request, status int, header ...[2]string) *http.Response {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	h := http.Header{}
	for _, pair := range header {
		h.Set(pair[0], pair[1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader("answer")), Request: req}
}

func request(t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://user:secret@erp.example/path?token=secret", body)
	require.NoError(t, err)
	return req
}

// send returns the status, 0 for none, and closes the body.
func send(rt http.RoundTripper, req *http.Request) (int, error) {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func TestTransportClassifiesAnswersAndReturnsThemAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		class  breaker.Class
	}{
		{200, breaker.Success},
		{204, breaker.Success},
		{302, breaker.Success},
		{404, breaker.Success},
		{422, breaker.Success},
		{429, breaker.Throttled},
		{500, breaker.Failure},
		{503, breaker.Failure},
	} {
		var class breaker.Class
		cfg := calm()
		cfg.Hooks.Called = func(a breaker.Attempt) { class = a.Class }
		rt := newBreaker(t, cfg).Transport(roundTrip(func(req *http.Request) (*http.Response, error) { return answer(req, c.status), nil }))
		status, err := send(rt, request(t, http.MethodPost, strings.NewReader("x")))
		require.NoError(t, err)
		require.Equal(t, c.status, status)
		require.Equal(t, c.class, class, "%d", c.status)
	}
}

func TestTransportRetriesWhatSaysThatItMayBe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, header string
		want           int
	}{
		{"", "", 3},
		{http.MethodGet, "", 3},
		{http.MethodHead, "", 3},
		{http.MethodOptions, "", 3},
		{http.MethodPost, "", 1},
		{http.MethodPut, "", 1},
		{http.MethodDelete, "", 1},
		{http.MethodPost, "Idempotency-Key", 3},
		{http.MethodPost, "X-Idempotency-Key", 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			b := newBreaker(t, calm())
			next := roundTrip(func(req *http.Request) (*http.Response, error) { n++; return answer(req, 503), nil })
			req := request(t, http.MethodGet, nil)
			req.Method = c.method
			if c.header != "" {
				req.Header.Set(c.header, "order-1")
			}
			status, err := send(b.Transport(next), req)
			require.NoError(t, err)
			require.Equal(t, 503, status, "the last answer")
			require.Equal(t, c.want, n, "%+v", c)
			n = 0
			_, err = send(b.Idempotent().Transport(next), req)
			require.NoError(t, err)
			require.Equal(t, 3, n)
		})
	}
}

func TestBodyIsRewoundOrNotRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		rt := newBreaker(t, calm()).Idempotent().Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(req.Body)
			bodies = append(bodies, string(b))
			req.Body.Close()
			return nil, errors.Join(err, errDown)
		}))
		_, err := send(rt, request(t, http.MethodPost, strings.NewReader("order")))
		require.ErrorIs(t, err, errDown)
		require.Equal(t, []string{"order", "order", "order"}, bodies)
		bodies = nil
		_, err = send(rt, request(t, http.MethodPost, io.MultiReader(strings.NewReader("order")))) // http.NewRequest does not know how
		require.ErrorIs(t, err, errDown)
		require.Equal(t, []string{"order"}, bodies)
		req := request(t, http.MethodPost, strings.NewReader("order"))
		req.GetBody = func() (io.ReadCloser, error) { return nil, io.ErrUnexpectedEOF }
		_, err = send(rt, req)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	})
}

// failsafe-go#123
func TestAttemptContextIsNotCancelledUntilResponseBodyIsClosed(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"close", "read"} {
		synctest.Test(t, func(t *testing.T) {
			var ctx context.Context
			rt := newBreaker(t, breaker.Config{Timeout: time.Second}).Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
				ctx = req.Context() //nolint:fatcontext // to look at
				return answer(req, 200), nil
			}))
			resp, err := rt.RoundTrip(request(t, http.MethodGet, nil))
			require.NoError(t, err)
			defer resp.Body.Close()
			time.Sleep(time.Hour) // the timeout is for the header
			require.NoError(t, ctx.Err())
			b, err := io.ReadAll(io.LimitReader(resp.Body, 6))
			require.NoError(t, err)
			require.Equal(t, "answer", string(b))
			require.NoError(t, ctx.Err())
			if end == "close" {
				require.NoError(t, resp.Body.Close())
			} else {
				_, err = resp.Body.Read(make([]byte, 1))
				require.ErrorIs(t, err, io.EOF)
			}
			require.Error(t, ctx.Err())
		})
	}
}

func TestAbandonedAndDiscardedResponsesAreClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late, first, last := new(closer), new(closer), new(closer)
		var n atomic.Int64 // the first is under way when the second begins
		rt := newBreaker(t, breaker.Config{Timeout: time.Second}).Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
			resp := answer(req, 200)
			switch n.Add(1) {
			case 1:
				time.Sleep(2 * time.Second) // whatever its context says
				resp.Body = late
			case 2:
				resp.StatusCode, resp.Body = 500, first
			case 3:
				resp.Body = last
			}
			return resp, nil
		}))
		resp, err := rt.RoundTrip(request(t, http.MethodGet, nil))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.True(t, first.closed.Load())
		require.False(t, last.closed.Load())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.True(t, late.closed.Load())
		require.NoError(t, resp.Body.Close())
		require.True(t, last.closed.Load())
	})
}

func TestTransportClosesTheBodyOfARequestThatItDoesNotSend(t *testing.T) {
	t.Parallel()
	b := newBreaker(t, hair())
	_ = trip(t, b)
	body := new(closer)
	_, err := send(b.Transport(roundTrip(func(*http.Request) (*http.Response, error) { panic("sent") })), request(t, http.MethodPost, body))
	require.ErrorIs(t, err, breaker.ErrOpen)
	require.True(t, body.closed.Load(), "as http.RoundTripper has it")
}

func TestTransportTimesOutForTheHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Timeout: time.Second, MinCalls: 1})
		begun := time.Now()
		_, err := send(b.Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})), request(t, http.MethodPost, nil))
		require.ErrorIs(t, err, breaker.ErrTimeout)
		require.Equal(t, time.Second, time.Since(begun))
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestTransportNeedsAnAnswerOrAnError(t *testing.T) {
	t.Parallel()
	require.PanicsWithValue(t, "breaker: Transport: next is nil", func() { newBreaker(t, calm()).Transport(nil) })
	_, err := send(newBreaker(t, calm()).Transport(roundTrip(func(*http.Request) (*http.Response, error) { return nil, nil })), request(t, http.MethodPost, nil)) //nolint:nilnil // that is what it is about
	require.ErrorContains(t, err, "neither an answer nor an error")
}

// With a real client and server: redirects, a streamed answer, an upgrade, a panic of the transport, and connections that are used again.
func TestTransportBeneathARealClient(t *testing.T) {
	t.Parallel()
	var conns, sick atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/stream", http.StatusFound) })
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "%d\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	})
	mux.HandleFunc("GET /upgrade", func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer func() { _ = c.Close() }()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		line, err := rw.ReadString('\n')
		assert.NoError(t, err)
		fmt.Fprint(rw, line)
		_ = rw.Flush()
	})
	mux.HandleFunc("POST /sick", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, "order", string(b))
		if sick.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	server := httptest.NewUnstartedServer(mux)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	transport := server.Client().Transport
	cfg := breaker.Config{Timeout: time.Minute}
	cfg.Retry.Backoff = time.Millisecond
	client := &http.Client{Transport: newBreaker(t, cfg).Transport(transport)}
	defer client.CloseIdleConnections()
	get := func(path string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		require.NoError(t, err)
		if path == "/upgrade" {
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "echo")
		}
		resp, err := client.Do(req)
		require.NoError(t, err)
		return resp
	}
	for range 3 {
		resp := get("/moved")
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "0\n1\n2\n", string(b))
	}
	resp := get("/upgrade") //nolint:bodyclose // below, as what it is
	rw, ok := resp.Body.(io.ReadWriteCloser)
	require.True(t, ok)
	_, err := io.WriteString(rw, "echo\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(rw).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "echo\n", line)
	require.NoError(t, rw.Close())

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/sick", bytes.NewReader([]byte("order")))
	require.NoError(t, err)
	req.Header.Set("Idempotency-Key", "1")
	resp, err = client.Do(req)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
	require.EqualValues(t, 3, sick.Load())
	require.LessOrEqual(t, conns.Load(), int64(3), "one, one for the upgrade, and one that a broken answer may have cost")
}

func TestGroupKeepsHostsApart(t *testing.T) {
	t.Parallel()
	g, err := breaker.NewGroup("carriers", 10, hair())
	require.NoError(t, err)
	rt := g.Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == "down.example" {
			return nil, errDown
		}
		return answer(req, 200), nil
	}), nil)
	down, up := request(t, http.MethodPost, nil), request(t, http.MethodPost, nil)
	down.URL.Host, up.URL.Host = "down.example", "up.example"
	for range 10 {
		_, err = send(rt, down)
		require.Error(t, err)
		status, err := send(rt, up)
		require.NoError(t, err)
		require.Equal(t, 200, status)
	}
	require.ErrorIs(t, err, breaker.ErrOpen)
	require.ErrorContains(t, err, "carriers/down.example is open")
	stats := g.Stats()
	require.Len(t, stats, 2)
	require.Equal(t, "carriers/up.example", stats[0].Name)
	require.Equal(t, breaker.Open, stats[1].State)
	byShop := g.Transport(roundTrip(func(req *http.Request) (*http.Response, error) { return answer(req, 200), nil }), func(req *http.Request) string { return req.Header.Get("Shop") })
	down.Header.Set("Shop", "a.myshopify.com")
	status, err := send(byShop, down)
	require.NoError(t, err)
	require.Equal(t, 200, status)
	require.Equal(t, "carriers/a.myshopify.com", g.Stats()[0].Name)
}

func TestBreakerPerKeyMapIsBoundedAndEvictingAKeyInUseIsSafe(t *testing.T) {
	t.Parallel()
	g, err := breaker.NewGroup("hosts", 3, hair())
	require.NoError(t, err)
	used := g.Get("used")
	p := begin(t, used)
	open := g.Get("open")
	_ = trip(t, open)
	for i := range 1000 {
		key := fmt.Sprint("host ", i)
		b := g.Get(key)
		require.Same(t, b, g.Get(key))
		require.LessOrEqual(t, len(g.Stats()), 3)
	}
	require.Same(t, open, g.Get("open"), "it keeps callers away: closed ones go first")
	require.NotSame(t, used, g.Get("used"), "its key begins anew")
	require.ErrorIs(t, p.finish(errDown), errDown)
	require.Equal(t, breaker.Open, used.State(), "those who have it go on with it")
	require.Equal(t, breaker.Closed, g.Get("used").State())
	for i := range 10 {
		_ = trip(t, g.Get(fmt.Sprint("open ", i)))
	}
	require.Len(t, g.Stats(), 3)

	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				_ = g.Get(fmt.Sprint((i*j)%7)).Do(t.Context(), func(context.Context) error {
					if j%3 == 0 {
						return errDown
					}
					return nil
				})
				_ = g.Stats()
			}
		})
	}
	all.Wait()
	require.Len(t, g.Stats(), 3)
}
