package rediscache_test

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// What a proxy does to the connections that channels have.
const (
	passes   = iota
	swallows // what the server says does not arrive
	cuts     // they end, and no new one comes to anything
)

// proxy stands before a server, and harms channels only.
type proxy struct {
	*redis.Client

	mode  atomic.Int64
	mu    sync.Mutex
	conns map[net.Conn]bool // those that have subscribed
}

func newProxy(t *testing.T, addr string) *proxy {
	t.Helper()
	p := &proxy{conns: map[net.Conn]bool{}}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c, addr) })
		}
	})
	p.Client = redis.NewClient(&redis.Options{Addr: l.Addr().String()})
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		require.NoError(t, l.Close())
		wg.Wait()
	})
	return p
}

// harm changes what is done to channels, those that are there included.
func (p *proxy) harm(mode int64) {
	p.mode.Store(mode)
	if mode != cuts {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) serve(client net.Conn, addr string) {
	defer client.Close()                 //nolint:errcheck // whatever it says
	server, err := net.Dial("tcp", addr) //nolint:noctx // of a test
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // whatever it says
	var channel atomic.Bool
	go func() {
		defer client.Close() //nolint:errcheck // whatever it says
		defer server.Close() //nolint:errcheck // whatever it says
		b := make([]byte, 1<<16)
		for {
			n, err := server.Read(b)
			if err != nil {
				return
			}
			if channel.Load() && p.mode.Load() == swallows {
				continue
			}
			if _, err := client.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			break
		}
		if bytes.Contains(bytes.ToLower(b[:n]), []byte("\r\nsubscribe\r\n")) {
			channel.Store(true)
			p.mu.Lock()
			p.conns[client] = true
			p.mu.Unlock()
		}
		if channel.Load() && p.mode.Load() == cuts {
			break
		}
		if _, err := server.Write(b[:n]); err != nil {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
}
