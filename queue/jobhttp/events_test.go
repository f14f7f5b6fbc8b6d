package jobhttp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

// client is the other end of a stream: it has what was flushed.
type client struct {
	head http.Header

	mu        sync.Mutex
	code      int
	waiting   strings.Builder
	got       []string // one for each flush, without the empty first one
	deadlines []time.Time
	fails     error // of writes
}

func newClient() *client { return &client{head: http.Header{}} }

func (c *client) Header() http.Header { return c.head }

func (c *client) WriteHeader(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.code = code
}

func (c *client) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails != nil {
		return 0, c.fails
	}
	return c.waiting.Write(b)
}

func (c *client) FlushError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code == 0 {
		c.code = 200
	}
	if c.waiting.Len() > 0 {
		c.got = append(c.got, c.waiting.String())
	}
	c.waiting.Reset()
	return c.fails
}

func (c *client) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadlines = append(c.deadlines, t)
	return nil
}

// take answers what has come since the last take.
func (c *client) take() []string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

// follow opens a stream. done is closed when it has ended.
func (r *rig) follow(c *client, req *http.Request) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		r.ServeHTTP(c, req)
	}()
	return done
}

func closed(c chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// eventOf checks the form of an event and answers its name and what its data says of the status.
func eventOf(t *testing.T, text string) (name, id string) {
	t.Helper()
	lines := strings.Split(text, "\n")
	if strings.HasPrefix(text, "retry: ") {
		lines = lines[2:]
	}
	require.Len(t, lines, 5, text)
	id, ok := strings.CutPrefix(lines[0], "id: ")
	require.True(t, ok, text)
	name, ok = strings.CutPrefix(lines[1], "event: ")
	require.True(t, ok, text)
	data, ok := strings.CutPrefix(lines[2], "data: ")
	require.True(t, ok, text)
	require.Equal(t, []string{"", ""}, lines[3:])
	_, status, _ := strings.Cut(data, `"status":"`)
	status, _, _ = strings.Cut(status, `"`)
	return name + " " + status, id
}

func TestEventsOverAJobsLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		id := r.submit()
		c := newClient()
		done := r.follow(c, request(t, "GET", "/jobs/"+id+"/events", ""))
		got := c.take()
		require.Len(t, got, 1, "at once")
		assert.Equal(t, 200, c.code)
		assert.Equal(t, http.Header{
			"Content-Type":           {"text/event-stream"},
			"Cache-Control":          {"no-store, no-transform"},
			"X-Accel-Buffering":      {"no"},
			"X-Content-Type-Options": {"nosniff"},
		}, c.head)
		assert.True(t, strings.HasPrefix(got[0], "retry: 2000\n\nid: "), got[0])
		name, _ := eventOf(t, got[0])
		assert.Equal(t, "status pending", name)

		time.Sleep(14 * time.Second)
		assert.Empty(t, c.take(), "nothing has changed")
		time.Sleep(time.Second)
		assert.Equal(t, []string{":\n\n"}, c.take())
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{":\n\n", ":\n\n"}, c.take())

		stop := r.work(muxOf(func(ctx context.Context, _ queue.Job) error {
			time.Sleep(time.Second)
			assert.NoError(t, queue.ReportProgress(ctx, 50, "half\nway"))
			time.Sleep(time.Second)
			return queue.SetResult(ctx, []byte("{\n\n\"data\": 1}"))
		}))
		time.Sleep(time.Minute)
		assert.True(t, closed(done), "the end of the stream")
		got = c.take()
		require.Len(t, got, 3)
		var names []string
		for _, e := range got {
			name, _ := eventOf(t, e)
			names = append(names, name)
		}
		assert.Equal(t, []string{"status processing", "status processing", "end succeeded"}, names)
		assert.Contains(t, got[1], `"progress":50,"note":"half\nway"`)
		assert.Contains(t, got[2], `"result":{"data":1}`)
		stop()
		for _, d := range c.deadlines[:len(c.deadlines)-1] {
			assert.False(t, d.IsZero())
		}
		assert.Zero(t, c.deadlines[len(c.deadlines)-1], "the connection's next answer has no deadline of ours")
	})
}

func TestEventsOfAJobThatHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		id := r.submit()
		r.do("DELETE", "/jobs/"+id, "")
		w := r.do("GET", "/jobs/"+id+"/events", "")
		name, last := eventOf(t, w.Body.String())
		assert.Equal(t, "end cancelled", name)

		// An EventSource that is not closed by its page comes again; 204 is what makes it stop.
		w = r.do("GET", "/jobs/"+id+"/events", "", "Last-Event-ID", last)
		assert.Equal(t, 204, w.Code)
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		assert.Empty(t, w.Body.String())

		w = r.do("HEAD", "/jobs/"+id+"/events", "")
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "text/event-stream", w.Header().Get("Content-Type"))
		assert.Empty(t, w.Body.String())
	})
}

func TestClientThatComesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		id := r.submit()
		ctx, hangUp := context.WithCancel(t.Context())
		c := newClient()
		done := r.follow(c, request(t, "GET", "/jobs/"+id+"/events", "").WithContext(ctx))
		_, last := eventOf(t, c.take()[0])
		hangUp()
		assert.True(t, closed(done), "nobody reads it any more")

		again := newClient()
		done = r.follow(again, request(t, "GET", "/jobs/"+id+"/events", "", "Last-Event-ID", last))
		assert.Equal(t, []string{"retry: 2000\n\n"}, again.take(), "it has this status")
		r.do("DELETE", "/jobs/"+id, "")
		time.Sleep(time.Second)
		assert.True(t, closed(done))
		name, _ := eventOf(t, again.take()[0])
		assert.Equal(t, "end cancelled", name)

		other := newClient()
		r.follow(other, request(t, "GET", "/jobs/"+id+"/events", "", "Last-Event-ID", "\x00nonsense\n\n"))
		name, _ = eventOf(t, other.take()[0])
		assert.Equal(t, "end cancelled", name)
	})
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{MaxStreams: 2, RetryAfter: time.Minute})
		target := "/jobs/" + r.submit() + "/events"
		ctx, hangUp := context.WithCancel(t.Context())
		first := r.follow(newClient(), request(t, "GET", target, "").WithContext(ctx))
		r.follow(newClient(), request(t, "GET", target, "").WithContext(ctx))
		synctest.Wait()
		w := r.do("GET", target, "")
		requireProblem(t, w, 503, "Too many streams are open. Ask for the status instead.")
		assert.Equal(t, "60", w.Header().Get("Retry-After"))
		requireProblem(t, r.do("GET", target, "", "Shop", "b"), 404, noJob) // no sign of the job here either

		hangUp()
		assert.True(t, closed(first))
		third := newClient()
		end, stop := context.WithCancel(t.Context())
		done := r.follow(third, request(t, "GET", target, "").WithContext(end))
		assert.Len(t, third.take(), 1, "there is room again")
		stop()
		assert.True(t, closed(done))
	})
}

func TestEndStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		target := "/jobs/" + r.submit() + "/events"
		c := newClient()
		done := r.follow(c, request(t, "GET", target, ""))
		require.Len(t, c.take(), 1)
		r.EndStreams()
		r.EndStreams()
		assert.True(t, closed(done))
		assert.Empty(t, c.take())
		assert.True(t, closed(r.follow(c, request(t, "GET", target, ""))), "and no new ones")
	})
}

func TestStreamEndsAfterAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{Poll: time.Minute, Heartbeat: 10 * time.Second})
		done := r.follow(newClient(), request(t, "GET", "/jobs/"+r.submit()+"/events", ""))
		time.Sleep(time.Hour - time.Nanosecond)
		assert.False(t, closed(done))
		time.Sleep(time.Nanosecond)
		assert.True(t, closed(done), "its client comes again and is asked who it is")
		assert.LessOrEqual(t, r.broker.asked.Load(), int64(62), "heartbeats ask nothing")
	})
}

func TestBrokerIsAwayDuringAStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		id := r.submit()
		c := newClient()
		done := r.follow(c, request(t, "GET", "/jobs/"+id+"/events", ""))
		require.Len(t, c.take(), 1)
		r.broker.failStatus.Store(true)
		time.Sleep(20 * time.Second)
		assert.Equal(t, []string{":\n\n"}, c.take(), "the connection is kept")
		assert.Equal(t, 1, strings.Count(r.log.String(), secretText), "it is said once")
		r.broker.failStatus.Store(false)
		r.do("DELETE", "/jobs/"+id, "")
		time.Sleep(time.Second)
		assert.True(t, closed(done))
		name, _ := eventOf(t, c.take()[0])
		assert.Equal(t, "end cancelled", name)
	})
}

func TestJobIsPurgedDuringAStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		c := newClient()
		done := r.follow(c, request(t, "GET", "/jobs/"+r.submit()+"/events", ""))
		require.Len(t, c.take(), 1)
		_, err := r.jobs.Purge(t.Context(), queue.PurgeFilter{Group: "a"})
		require.NoError(t, err)
		time.Sleep(time.Second)
		assert.True(t, closed(done))
		assert.Empty(t, c.take())
	})
}

func TestClientThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		c := newClient()
		done := r.follow(c, request(t, "GET", "/jobs/"+r.submit()+"/events", ""))
		require.Len(t, c.take(), 1)
		c.mu.Lock()
		c.fails = errors.New("broken pipe")
		c.mu.Unlock()
		time.Sleep(15 * time.Second)
		assert.True(t, closed(done), "the heartbeat has found out")
	})
}

func TestErrorTextThatPanicsDuringAStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{ErrorText: func(queue.Status) string { panic("boom") }})
		c := newClient()
		done := r.follow(c, request(t, "GET", "/jobs/"+r.submit()+"/events", ""))
		require.Len(t, c.take(), 1)
		stop := r.work(muxOf(func(context.Context, queue.Job) error { return queue.Permanent(errors.New("no")) }))
		time.Sleep(time.Second)
		assert.True(t, closed(done))
		assert.Empty(t, c.take())
		assert.Zero(t, c.waiting.Len(), "nothing is mixed into the stream")
		assert.Contains(t, r.log.String(), "boom")
		stop()
	})
}

// deaf is a ResponseWriter that a middleware has wrapped so that nobody can flush it.
type deaf struct{ http.ResponseWriter }

func TestWriterThatCantFlush(t *testing.T) {
	t.Parallel()
	r := newRig(t, jobhttp.Config{})
	target := "/jobs/" + r.submit() + "/events"
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.ServeHTTP(deaf{w}, req) })
	requireProblem(t, serve(h, request(t, "GET", target, "")), 501, "This server can't stream. Ask for the status instead.")
	requireProblem(t, serve(http.TimeoutHandler(r, time.Minute, ""), request(t, "GET", target, "")), 501, "This server can't stream. Ask for the status instead.")
}

// pipes is a listener whose connections are pipes, which a bubble's clock rules.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// listen runs a server and answers a func that connects to it.
func listen(t *testing.T, srv *http.Server) (dial func() net.Conn, stop func()) {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() { assert.ErrorIs(t, srv.Serve(p), http.ErrServerClosed) })
	dial = func() net.Conn {
		ours, theirs := net.Pipe()
		p.conns <- theirs
		return ours
	}
	return dial, func() { assert.NoError(t, srv.Close()); wg.Wait() }
}

func TestStreamOutlivesTheServersTimeouts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		timeout, wait time.Duration
	}{
		{"both", 5 * time.Second, 4 * time.Second},
		{"none", 0, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, jobhttp.Config{})
				id := r.submit()
				srv := &http.Server{Handler: r, ReadTimeout: tt.timeout, WriteTimeout: tt.timeout}
				dial, stop := listen(t, srv)
				conn := dial()
				_, err := fmt.Fprintf(conn, "GET /jobs/%s/events HTTP/1.1\r\nHost: x\r\nShop: a\r\n\r\n", id)
				require.NoError(t, err)
				in := bufio.NewReader(conn)
				resp, err := http.ReadResponse(in, nil)
				require.NoError(t, err)
				defer resp.Body.Close()
				lines := bufio.NewReader(resp.Body)
				beats := 0
				for beats < 20 {
					line, err := lines.ReadString('\n')
					require.NoError(t, err)
					if line == ":\n" {
						beats++
					}
				}
				r.do("DELETE", "/jobs/"+id, "")
				rest, err := io.ReadAll(lines)
				require.NoError(t, err, "the whole stream has come")
				assert.Contains(t, string(rest), "event: end")

				// The connection lives on, and what was set for the stream does not hurt it.
				time.Sleep(tt.wait)
				_, err = fmt.Fprintf(conn, "GET /jobs/%s HTTP/1.1\r\nHost: x\r\nShop: a\r\n\r\n", id)
				require.NoError(t, err)
				resp, err = http.ReadResponse(in, nil)
				require.NoError(t, err)
				defer resp.Body.Close()
				assert.Equal(t, 200, resp.StatusCode)
				require.NoError(t, conn.Close())
				stop()
			})
		})
	}
}

// Who opens streams and does not read them must not hold their places for ever.
func TestClientThatDoesNotReadLosesItsStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{MaxStreams: 1})
		id := r.submit()
		dial, stop := listen(t, &http.Server{Handler: r}) //nolint:gosec // no timeouts: that is the point
		conn := dial()
		_, err := fmt.Fprintf(conn, "GET /jobs/%s/events HTTP/1.1\r\nHost: x\r\nShop: a\r\n\r\n", id)
		require.NoError(t, err)
		time.Sleep(9 * time.Second)
		assert.Equal(t, 503, r.do("GET", "/jobs/"+id+"/events", "").Code, "it still has its place")
		time.Sleep(2 * time.Second)
		c := newClient()
		ctx, hangUp := context.WithCancel(t.Context())
		done := r.follow(c, request(t, "GET", "/jobs/"+id+"/events", "").WithContext(ctx))
		assert.Len(t, c.take(), 1, "its place is free")
		hangUp()
		assert.True(t, closed(done))
		require.NoError(t, conn.Close())
		stop()
	})
}

// Not even the last bytes of all, which the server writes when the stream has ended, may wait for ever.
func TestClientThatDoesNotReadTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		id := r.submit()
		r.do("DELETE", "/jobs/"+id, "")
		var gone atomic.Bool
		dial, stop := listen(t, &http.Server{Handler: r, WriteTimeout: time.Minute, ReadHeaderTimeout: time.Minute, ConnState: func(_ net.Conn, s http.ConnState) {
			gone.Store(s == http.StateClosed)
		}})
		conn := dial()
		_, err := fmt.Fprintf(conn, "GET /jobs/%s/events HTTP/1.1\r\nHost: x\r\nShop: a\r\n\r\n", id)
		require.NoError(t, err)
		got := ""
		for b := make([]byte, 1); !strings.HasSuffix(got, "\n\n\r\n"); { // the end of the event's chunk
			n, err := conn.Read(b)
			require.NoError(t, err)
			got += string(b[:n])
		}
		assert.Contains(t, got, "event: end")
		time.Sleep(11 * time.Second)
		assert.True(t, gone.Load())
		require.NoError(t, conn.Close())
		stop()
	})
}

// http.Server.Shutdown waits for open connections.
func TestShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		srv := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
		srv.RegisterOnShutdown(r.EndStreams)
		p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		var wg sync.WaitGroup
		wg.Go(func() { assert.ErrorIs(t, srv.Serve(p), http.ErrServerClosed) })
		ours, theirs := net.Pipe()
		p.conns <- theirs
		_, err := fmt.Fprintf(ours, "GET /jobs/%s/events HTTP/1.1\r\nHost: x\r\nShop: a\r\n\r\n", r.submit())
		require.NoError(t, err)
		wg.Go(func() { _, _ = io.Copy(io.Discard, ours) })
		synctest.Wait()
		start := time.Now()
		require.NoError(t, srv.Shutdown(t.Context()))
		assert.Less(t, time.Since(start), time.Second)
		require.NoError(t, ours.Close())
		wg.Wait()
	})
}
