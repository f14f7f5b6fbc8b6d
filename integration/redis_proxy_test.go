package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/brokertest"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// proxied is a server behind a proxy that can do harm to connections.
type proxied struct {
	proxy  *toxiproxy.Proxy
	client *redis.Client // through the proxy
	direct *redis.Client
	dials  atomic.Int64 // of the client through the proxy
	lost   atomic.Int64 // connections that ended where a script's answer should have come
}

// watched is a connection that knows whether a script was sent down it and not answered.
type watched struct {
	*net.TCPConn

	p     *proxied
	asked atomic.Bool
}

func (c *watched) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("eval")) {
		c.asked.Store(true)
	}
	return c.TCPConn.Write(b)
}

func (c *watched) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if c.asked.Swap(false) && err != nil {
		c.p.lost.Add(1)
	}
	return n, err
}

func startProxied(t testing.TB) *proxied {
	t.Helper()
	s := redistest.Start(t)
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := &proxied{proxy: toxiproxy.NewProxy(api, t.Name(), "127.0.0.1:0", s.Addr)}
	require.NoError(t, p.proxy.Start())
	t.Cleanup(p.proxy.Stop)
	p.client = redis.NewClient(&redis.Options{Addr: p.proxy.Listen, ReadTimeout: time.Second, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		p.dials.Add(1)
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &watched{TCPConn: conn.(*net.TCPConn), p: p}, nil //nolint:forcetypeassert // it is one
	}})
	p.direct = redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() {
		require.NoError(t, p.client.Close())
		require.NoError(t, p.direct.Close())
	})
	return p
}

func (p *proxied) harm(t testing.TB, kind, stream, attributes string) {
	t.Helper()
	_, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name": "harm", "type": %q, "stream": %q, "attributes": %s}`, kind, stream, attributes)))
	require.NoError(t, err)
}

// cut lets requests through and closes the connection where an answer would come.
func (p *proxied) cut(t testing.TB) {
	t.Helper()
	p.harm(t, "limit_data", "downstream", `{"bytes": 0}`)
}

func (p *proxied) heal(t testing.TB) {
	t.Helper()
	require.NoError(t, p.proxy.Toxics.RemoveToxic(context.WithoutCancel(t.Context()), "harm"))
}

// scripts is how many scripts the server has run.
func (p *proxied) scripts(t testing.TB) int {
	t.Helper()
	info, err := p.direct.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	n := 0
	for line := range strings.Lines(info) {
		for _, prefix := range []string{"cmdstat_evalsha:calls=", "cmdstat_eval:calls="} {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				calls, err := strconv.Atoi(rest[:strings.IndexByte(rest, ',')])
				require.NoError(t, err)
				n += calls
			}
		}
	}
	return n
}

// lose carries out a call whose answer is lost at least once after the server has done it, and then again until it is answered.
func (p *proxied) lose(t testing.TB, call func() error) {
	t.Helper()
	require.NoError(t, p.client.Ping(t.Context()).Err()) // a connection that is set up already, or nothing would reach the server
	before, lost := p.scripts(t), p.lost.Load()
	p.cut(t)
	done := make(chan error, 1)
	go func() { done <- call() }()
	require.Eventually(t, func() bool { return p.lost.Load() > lost && p.scripts(t) > before }, 10*time.Second, time.Millisecond,
		"the script has run, and the connection on which its answer should come is gone")
	p.heal(t)
	if err := <-done; err != nil { // go-redis has given up
		require.NoError(t, call())
	}
	require.Greater(t, p.scripts(t), before+1, "it was sent again")
}

// warm has the server know the text of all scripts, so that each is run when it is first sent.
func warm(t testing.TB, client *redis.Client) {
	t.Helper()
	ctx := t.Context()
	b := redisqueue.New(client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{Name: "warm"})
	require.NoError(t, err)
	_, err = q.Enqueue(ctx, queue.Job{Kind: "k"})
	require.NoError(t, err)
	c, err := b.Claim(ctx, "warm", queue.Call{Process: "p", Number: 1, Max: 1, Lease: time.Minute})
	require.NoError(t, err)
	_, err = b.Extend(ctx, "warm", queue.Heartbeat{Tokens: []queue.Token{c.Jobs[0].Token}, Lease: time.Minute})
	require.NoError(t, err)
	require.NoError(t, q.Resume(ctx))
	_, err = q.Stats(ctx)
	require.NoError(t, err)
	_, err = b.Claim(ctx, "warm", queue.Call{Process: "p", Number: 2, Lease: time.Minute, Settle: []queue.Settlement{{Token: c.Jobs[0].Token, Action: queue.Ack}}})
	require.NoError(t, err)
}

// TestP2AnswerIsLostOfEveryScript cuts the connection between request and answer: what is sent again, by go-redis or by us, takes effect once.
//
// P2: "A delivery enqueues once. … in the same atomic step as the enqueue"
func TestP2AnswerIsLostOfEveryScript(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	ctx := t.Context()
	b := redisqueue.New(p.client, redisqueue.Config{})
	q, err := queue.New(b, queue.Config{})
	require.NoError(t, err)
	warm(t, p.direct)
	require.NoError(t, q.Resume(ctx)) // it has looked at the server
	stats := func() queue.Stats {
		s, err := q.Stats(ctx)
		require.NoError(t, err)
		return s
	}

	var receipts []queue.Receipt
	p.lose(t, func() (err error) {
		receipts, err = q.Enqueue(ctx, queue.Job{Kind: "k", Group: "g", Key: "a", Track: true}, queue.Job{Kind: "k", Group: "g", Key: "a", DedupeKey: "d", Track: true},
			queue.Job{Kind: "k", Group: "g", Key: "b", Track: true}, queue.Job{Kind: "k", Group: "g", Key: "a", DedupeKey: "d"})
		return err
	})
	require.Equal(t, []bool{false, false, false, true}, []bool{receipts[0].Duplicate, receipts[1].Duplicate, receipts[2].Duplicate, receipts[3].Duplicate})
	require.Equal(t, 3, stats().Jobs)

	var c queue.Claimed
	call := queue.Call{Process: "p", Number: 1, Max: 2, Lease: time.Minute}
	claim := func() (err error) {
		c, err = b.Claim(ctx, "default", call)
		call.Again = true
		return err
	}
	p.lose(t, claim)
	require.Len(t, c.Jobs, 2)
	require.Equal(t, 2, stats().Held)
	a, second := c.Jobs[0], c.Jobs[1]
	require.Equal(t, receipts[0].ID, a.Job.ID)

	p.lose(t, func() error {
		e, err := b.Extend(ctx, "default", queue.Heartbeat{Tokens: []queue.Token{a.Token, second.Token}, Lease: time.Minute, Progress: map[queue.Token]queue.Progress{a.Token: {Percent: 10}}})
		require.Empty(t, e.Lost)
		return err
	})

	// A Retry counts once, an Ack brings its job once, and the second claim is the same.
	call = queue.Call{Process: "p", Number: 2, Max: 2, Lease: time.Minute, Settle: []queue.Settlement{
		{Token: a.Token, Action: queue.Retry, Error: "no"},
		{Token: second.Token, Action: queue.Ack, Enqueue: []queue.Entry{{Job: queue.Job{ID: "follows", Kind: "k", Group: "g", Key: "c", MaxAttempts: 3, MaxCrashes: 3, Deadline: time.Hour, DedupeFor: time.Hour, StatusFor: time.Hour}}}},
	}}
	p.lose(t, claim)
	require.Empty(t, c.Lost)
	require.Len(t, c.Enqueued, 1)
	require.Len(t, c.Jobs, 2)
	s, err := q.Status(ctx, receipts[0].ID)
	require.NoError(t, err)
	require.Equal(t, 1, s.Attempts)
	require.Equal(t, 3, stats().Jobs)
	var dead queue.Token
	for _, l := range c.Jobs {
		if l.Job.ID == receipts[0].ID {
			dead = l.Token
		}
	}

	call = queue.Call{Process: "p", Number: 3, Lease: time.Minute, Settle: []queue.Settlement{{Token: dead, Action: queue.Kill, Error: "no"}}}
	p.lose(t, claim)
	require.Len(t, c.Died, 1)
	require.Equal(t, 1, stats().Dead)

	p.lose(t, func() error { return b.Pause(ctx, "default") })
	p.lose(t, func() error { return b.Resume(ctx, "default") })
	p.lose(t, func() error { return b.Park(ctx, "default", "g", time.Hour) })
	require.Equal(t, 1, stats().Parked)
	p.lose(t, func() error { return b.Park(ctx, "default", "g", 0) })
	p.lose(t, func() error { return b.Limit(ctx, "default", "g", queue.Limits{Cap: 3}) })
	p.lose(t, func() error { return b.Limit(ctx, "default", "g", queue.Limits{}) })
	p.lose(t, func() error {
		n, err := b.Replay(ctx, "default", []string{receipts[0].ID})
		require.True(t, err != nil || n == 1, "the first answer")
		return err
	})
	require.Equal(t, 3, stats().Jobs)
	p.lose(t, func() error {
		state, err := b.Cancel(ctx, "default", receipts[0].ID)
		require.True(t, err != nil || state == queue.Cancelled)
		return err
	})
	require.Equal(t, 2, stats().Jobs)
	p.lose(t, func() error {
		purged, err := b.Purge(ctx, "default", queue.PurgeFilter{Group: "g"})
		require.True(t, err != nil || purged.Jobs == 2, "the first answer: %+v", purged)
		return err
	})
	problems, err := b.Check(ctx)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestConnectionsAreHarmedUnderLoad cuts, stalls and slows connections, and leaves them half closed, while work flows.
func TestConnectionsAreHarmedUnderLoad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, stream, attributes string
		cuts                     bool // connections must be made anew
	}{
		{"limit_data", "downstream", `{"bytes": 0}`, true},
		{"limit_data", "downstream", `{"bytes": 3000}`, true},
		{"limit_data", "upstream", `{"bytes": 5000}`, true},
		{"reset_peer", "downstream", `{"timeout": 0}`, true},
		{"timeout", "downstream", `{"timeout": 0}`, true}, // nothing comes, and nobody hangs up
		{"timeout", "upstream", `{"timeout": 0}`, true},
		{"latency", "downstream", `{"latency": 100, "jitter": 100}`, false},
		{"slow_close", "downstream", `{"delay": 500}`, false},
		{"slicer", "downstream", `{"average_size": 50, "size_variation": 40, "delay": 100}`, false},
	} {
		t.Run(c.kind+" "+c.stream+" "+c.attributes, func(t *testing.T) {
			t.Parallel()
			p := startProxied(t)
			l := brokertest.NewLoad(t, redisqueue.New(p.client, redisqueue.Config{}))
			l.Work(10 * time.Second)
			l.Work(10 * time.Second)
			stop := l.Enqueue()
			for range 4 {
				l.More(50)
				dials, acknowledged := p.dials.Load(), l.Acknowledged()
				p.harm(t, c.kind, c.stream, c.attributes)
				require.Eventually(t, func() bool { // it has been felt, or borne
					return c.cuts && p.dials.Load() > dials+10 || !c.cuts && l.Acknowledged() > acknowledged+100
				}, 30*time.Second, time.Millisecond)
				p.heal(t)
			}
			l.More(50)
			stop()
			l.Drained()
		})
	}
}
