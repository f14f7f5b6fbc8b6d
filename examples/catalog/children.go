package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// roles are the child processes: this program started again with a role and its settings.
var roles = map[string]func(settings string) error{"child-server": serve}

// settings are what a child process is told.
type settings struct {
	options

	URL string // of the Admin API
}

// serve runs a server until its standard input ends, which it does when the parent dies.
func serve(raw string) error {
	var set settings
	if err := json.Unmarshal([]byte(raw), &set); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	s, err := newServer(set)
	if err != nil {
		return err
	}
	defer s.close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }() // ends with Close
	defer srv.Close()                //nolint:errcheck // nobody is served any more
	fmt.Println("http://" + l.Addr().String())
	return s.run(ctx)
}

// child is a running child process.
type child struct {
	url   string
	cmd   *exec.Cmd
	stdin io.Closer
}

// start starts a child and waits until it serves.
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
	c := &child{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("a server did not start: %w", errors.Join(err, c.stop()))
	}
	c.url = strings.TrimSpace(line)
	return c, nil
}

// stop ends the child and waits for it. Its error is one that the child has ended with.
func (c *child) stop() error {
	_ = c.stdin.Close()
	done := make(chan error, 1)
	go func() { done <- c.cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(15 * time.Second):
		_ = c.cmd.Process.Kill()
		err = <-done
	}
	if err != nil {
		return fmt.Errorf("a server ended badly: %w", err)
	}
	return nil
}
