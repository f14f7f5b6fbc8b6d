package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// childEnv is set for a server that a demo has started: it ends with its standard input, so that it does not outlive the demo.
const childEnv = "BULKIMPORT_CHILD"

// untilAlone gives a context that ends with the process's standard input: the parent has closed it, or is dead.
func untilAlone(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx, cancel
}

// child is this program with -serve, as a process of its own.
type child struct {
	o     options
	cmd   *exec.Cmd
	stdin io.Closer
}

// newChild starts one at an address of its own, at which it will be started again.
func newChild(ctx context.Context, o options) (*child, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o.Addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	c := &child{o: o}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) url() string { return "http://" + c.o.Addr }

// start starts it and waits until it serves.
func (c *child) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// It has a context that does not end: it is killed, or stopped in order.
	c.cmd = exec.CommandContext(context.WithoutCancel(ctx), self, "-serve", "-db", c.o.DB, "-addr", c.o.Addr, "-pace", c.o.Pace.String())
	c.cmd.Env = append(os.Environ(), childEnv+"=1")
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var log strings.Builder
	c.cmd.Stderr = &log
	if err := c.cmd.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		_ = c.cmd.Wait()
		return fmt.Errorf("the server did not start: %s", log.String())
	}
	return nil
}

// kill is SIGKILL: the child has no say in it.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = c.cmd.Wait() // it says that it was killed
	return nil
}

// stop ends the child in order.
func (c *child) stop() error {
	_ = c.stdin.Close()
	late := time.AfterFunc(10*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer late.Stop()
	return c.cmd.Wait()
}

// killer kills a child in mid-import, at moments that have nothing to do with what it is doing.
type killer struct {
	child *child
	rand  *rand.Rand
	say   func(format string, args ...any)
	kills int // that are to be
	done  int // kills so far
	at    int // percent at the last one
}

// see kills the child if it is time. Kills are spread over the import, and each comes after the child has got further
// than the one before it: so each is in the midst of work.
func (k *killer) see(ctx context.Context, st status) error {
	if k.done == k.kills || st.ended() || st.Progress <= k.at || st.Progress < (k.done+1)*80/(k.kills+1) {
		return nil
	}
	select {
	case <-time.After(time.Duration(k.rand.IntN(150)) * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := k.child.kill(); err != nil {
		return err
	}
	begin := time.Now()
	if err := k.child.start(ctx); err != nil {
		return err
	}
	k.done, k.at = k.done+1, st.Progress
	k.say("SIGKILL %d, when the server had last said %q; it serves again after %d ms", k.done, st.Note, time.Since(begin).Milliseconds())
	return nil
}
