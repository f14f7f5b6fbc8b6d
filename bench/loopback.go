package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"time"
)

const connections = 64

// benchLoopback compares a server with webhook.Handler and one with a plain handler, by turns, under
// the load of connections that each send the next request as soon as the last is answered.
func benchLoopback(ctx context.Context, rep *report, body []byte, rounds int, length time.Duration) error {
	var sites []*site
	defer func() {
		for _, s := range sites {
			s.close()
		}
	}()
	for _, rc := range []receiver{breakwater(), plain()} {
		s, err := newSite(ctx, rc, body)
		if err != nil {
			return fmt.Errorf("bench: %s: %w", rc.name, err)
		}
		sites = append(sites, s)
		s.round(length / 2) // fills pools, grows stacks
		s.rps, s.p99 = nil, nil
	}
	for range rounds {
		for _, s := range sites {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.round(length)
		}
	}
	ours, peer := sites[0], sites[1]
	problem := errors.Join(ours.problem(), peer.problem())
	name := fmt.Sprintf("loopback %d KB ", len(body)>>10)
	rep.add(name+"vs "+peer.name, "req/s", median(ours.rps), median(peer.rps), want{">=", 1.25}, problem)
	rep.add(name+"p99 vs "+peer.name, "µs", median(ours.p99), median(peer.p99), want{"<", 1}, problem)
	return nil
}

// site is a server and its clients.
type site struct {
	name    string
	sink    *sink
	server  *http.Server
	clients []*client
	refuses error // nil if it refused a wrong signature

	rps []float64
	p99 []float64 // µs
}

func newSite(ctx context.Context, rc receiver, body []byte) (*site, error) {
	s := &site{name: rc.name, sink: &sink{want: body}}
	handler, err := rc.handler(s.sink.take)
	if err != nil {
		return nil, err
	}
	header, err := rc.headers(body)
	if err != nil {
		return nil, err
	}
	s.refuses = checkRefusal(handler, s.sink, header, body)

	r := httptest.NewRequest(http.MethodPost, "/webhooks", bytes.NewReader(body))
	r.Header = header
	var request bytes.Buffer
	if err := r.Write(&request); err != nil {
		return nil, err
	}

	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.server = &http.Server{Handler: handler} //nolint:gosec // default settings, for clients of our own
	go func() { _ = s.server.Serve(ln) }()    // ends with close; another end shows in the clients
	for range connections {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		if err != nil {
			s.close()
			return nil, err
		}
		s.clients = append(s.clients, &client{conn: conn, request: request.Bytes()})
	}
	return s, nil
}

func (s *site) close() {
	for _, c := range s.clients {
		_ = c.conn.Close()
	}
	_ = s.server.Close()
}

// round lets all clients send for d. It starts with the garbage of the other site collected.
func (s *site) round(d time.Duration) {
	runtime.GC()
	start := time.Now()
	var wg sync.WaitGroup
	for _, c := range s.clients {
		wg.Go(func() { c.send(start.Add(d)) })
	}
	wg.Wait()
	took := time.Since(start)

	var all []time.Duration
	for _, c := range s.clients {
		all = append(all, c.latencies...)
	}
	if len(all) == 0 {
		return // every client failed, which problem tells
	}
	slices.Sort(all)
	s.rps = append(s.rps, float64(len(all))/took.Seconds())
	s.p99 = append(s.p99, float64(all[len(all)*99/100])/float64(time.Microsecond))
}

// problem says why the site's figures mean nothing, if they don't.
func (s *site) problem() error {
	if s.refuses != nil {
		return fmt.Errorf("%s %w", s.name, s.refuses)
	}
	var requests int64
	for _, c := range s.clients {
		if c.err != nil {
			return fmt.Errorf("%s: %w", s.name, c.err)
		}
		requests += c.requests
	}
	if err := s.sink.check(requests); err != nil {
		return fmt.Errorf("%s %w", s.name, err)
	}
	return nil
}

// client sends the same bytes over one connection again and again. It is no more than this because it
// shares the machine with the server: what it spends, both contenders pay, and their ratio shrinks.
type client struct {
	conn      net.Conn
	request   []byte
	answer    [1 << 10]byte
	latencies []time.Duration // of the last round
	requests  int64
	err       error // the first failure, after which it sends no more
}

// send makes requests until end.
func (c *client) send(end time.Time) {
	c.latencies = c.latencies[:0]
	if c.err == nil {
		c.err = c.conn.SetDeadline(end.Add(10 * time.Second)) // a server that hangs must not hang the run
	}
	for now := time.Now(); c.err == nil && now.Before(end); {
		c.err = c.exchange()
		done := time.Now()
		c.latencies = append(c.latencies, done.Sub(now))
		c.requests++
		now = done
	}
}

// exchange sends one request and reads its answer, which must be a 200 without a body.
func (c *client) exchange() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	n := 0
	for {
		m, err := c.conn.Read(c.answer[n:])
		if err != nil {
			return err
		}
		n += m
		got := c.answer[:n]
		if bytes.HasSuffix(got, []byte("\r\n\r\n")) {
			if !bytes.HasPrefix(got, []byte("HTTP/1.1 200 ")) || !bytes.Contains(got, []byte("\r\nContent-Length: 0\r\n")) {
				return fmt.Errorf("answered %q", got)
			}
			return nil
		}
		if n == len(c.answer) {
			return fmt.Errorf("answered more than %d bytes", n)
		}
	}
}
