package integration_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Tests that kill processes start this test binary again, with a role.

const roleVariable = "BREAKWATER_TEST_ROLE"

// roles are what a child process can be; args are the parent's.
var roles = map[string]func(args []string) error{
	"sqlite-load":     sqliteLoad,
	"sqlite-receiver": sqliteReceiver,
	"redis-worker":    redisWorker,
	"once-worker":     onceWorker,
	"cache-process":   cacheProcess,
}

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		if err := role(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child is a process in a role.
type child struct {
	cmd   *exec.Cmd
	done  chan struct{} // closed when its output has ended
	mu    sync.Mutex
	lines []string
	wake  chan struct{}
}

func startChild(t testing.TB, role string, args ...string) *child {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	c := &child{cmd: exec.CommandContext(t.Context(), self, args...), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.mu.Lock()
			c.lines = append(c.lines, s.Text())
			c.mu.Unlock()
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
	}()
	return c
}

// line waits for a line that begins with prefix and returns the rest of it.
func (c *child) line(t testing.TB, prefix string) string {
	t.Helper()
	for {
		for _, l := range c.said() {
			if rest, ok := strings.CutPrefix(l, prefix); ok {
				return rest
			}
		}
		select {
		case <-c.wake:
		case <-c.done:
			for _, l := range c.said() {
				if rest, ok := strings.CutPrefix(l, prefix); ok {
					return rest
				}
			}
			require.Fail(t, "the child ended without a word", "no line with %q among %q", prefix, c.said())
		}
	}
}

func (c *child) said() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clip(c.lines)
}

// kill is SIGKILL: the process has no say in it. It returns what the process has printed.
func (c *child) kill(t testing.TB) []string {
	t.Helper()
	require.NoError(t, c.cmd.Process.Kill())
	<-c.done
	_ = c.cmd.Wait() // it was killed
	return c.said()
}
