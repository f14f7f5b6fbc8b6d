package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// roles are the child processes: this program started again with a role and its settings.
var roles = map[string]func(settings string) error{
	"child-sender":     sender,
	"child-classic":    func(s string) error { return app(s, newClassic) },
	"child-breakwater": func(s string) error { return app(s, newBreakwater) },
	"child-server":     func(s string) error { return app(s, newServer) },
	"child-worker":     hired,
}

// settings are what a child process is told.
type settings struct {
	options
	URL   string    // where the sender sends to, or where an integration finds the systems
	Begin time.Time // of the storm, for the sender

	Addr   string // of a server that takes the place of one that was killed
	Worker int    // a worker's number, which no other process has
}

// attempt is what the sender reports of each request: Shopify's side of the truth.
type attempt struct {
	Event      string
	Number     int
	Duplicate  bool
	Cut, Slow  bool
	Start, End time.Time
	Status     int
}

// line is one line of the sender's report: an attempt, or the ledger as the last.
type line struct {
	Attempt *attempt            `json:",omitempty"`
	Ledger  *webhooktest.Ledger `json:",omitempty"`
}

// sender plays the shops: it sends the storm and prints every attempt, then the ledger.
func sender(raw string) error {
	var set settings
	if err := json.Unmarshal([]byte(raw), &set); err != nil {
		return err
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<16)
	enc := json.NewEncoder(out)
	var mu sync.Mutex
	s, err := webhooktest.NewSender(set.URL, secret, webhooktest.Config{
		Speed: set.Scale, RetrySpeed: set.Scale * retrySpeedup, Seed: set.Seed,
		Duplicate: 0.08, Reorder: 0.08, Slow: 0.02, Cut: 0.02, MaxInFlight: 1024,
		OnAttempt: func(a webhooktest.Attempt) {
			mu.Lock()
			defer mu.Unlock()
			_ = enc.Encode(line{Attempt: &attempt{a.WebhookID, a.Number, a.Duplicate, a.Cut, a.Slow, a.Start, a.End, a.Status}}) // a parent that is gone needs no report
			_ = out.Flush()
		},
	})
	if err != nil {
		return err
	}
	deliveries := outgoing(generate(set.options))
	time.Sleep(time.Until(set.Begin))
	ledger, err := s.Send(context.Background(), deliveries)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(line{Ledger: &ledger})
}

// app runs an integration until its standard input ends, which it does when the parent dies.
func app(raw string, build func(ctx context.Context, set settings) (http.Handler, func() error, error)) error {
	var set settings
	if err := json.Unmarshal([]byte(raw), &set); err != nil {
		return err
	}
	ctx, cancel := untilAlone()
	defer cancel()
	handler, work, err := build(ctx, set)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", cmp.Or(set.Addr, "127.0.0.1:0"))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }() // ends with Close
	fmt.Println("http://" + l.Addr().String())
	err = work()
	_ = srv.Close()
	return err
}

// untilAlone gives a context that ends with the process's standard input: the parent has closed it, or is dead.
func untilAlone() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx, cancel
}

// child is a running child process.
type child struct {
	cmd      *exec.Cmd
	stdin    io.Closer
	lines    *bufio.Scanner
	worker   int         // its number, if it is a worker
	expected atomic.Bool // its end is
	waited   sync.Once
}

func start(role string, set settings) (*child, error) {
	raw, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), self, role, string(raw)) // it ends with its standard input
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}, nil
}

// line reads the child's next line of output.
func (c *child) line() (string, error) {
	if c.lines.Scan() {
		return strings.TrimSpace(c.lines.Text()), nil
	}
	if err := c.lines.Err(); err != nil {
		return "", err
	}
	return "", io.EOF
}

// wait waits for the child's end. What it has printed and nobody has read by then is lost.
func (c *child) wait() { c.waited.Do(func() { _ = c.cmd.Wait() }) }

// kill is SIGKILL: the child has no say in it.
func (c *child) kill() error {
	c.expected.Store(true)
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	c.wait()
	return nil
}

// stop ends the child and waits for it.
func (c *child) stop() {
	c.expected.Store(true)
	_ = c.stdin.Close()
	done := make(chan struct{})
	go func() { c.wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		_ = c.cmd.Process.Kill()
		<-done
	}
}

// client is how an integration reaches the systems.
type client struct {
	url  string
	http *http.Client
}

func newClient(url string) *client {
	return &client{url: url, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}}
}

// noted tells the systems that the call of a key is recorded as done.
func (c *client) noted(ctx context.Context, key string) error {
	return c.do(ctx, "noted", call{}, key)
}

// do tells a system of an event. A key marks the call as the same one as others of that key; "" is none.
func (c *client) do(ctx context.Context, system string, in call, key string) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/"+system, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	if key != "" {
		req.Header.Set(keyHeader, key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s answered %s", system, resp.Status)
	}
	return nil
}
