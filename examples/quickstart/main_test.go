package main

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// The README's main: built, started, sent an order twice, and read from its log. Started again over the same file, it still knows the
// order; without a file it does not.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "quickstart")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)

	dir := t.TempDir()
	s := start(t, bin, dir)
	s.send(t)
	shipped := s.next(t, "shipping")
	assert.Contains(t, shipped, "order=#9999")
	assert.Contains(t, shipped, "id=820982911946154508")
	resp, err := http.Post(s.url, "application/json", strings.NewReader("{}")) //nolint:noctx // a test
	require.NoError(t, err)
	_ = resp.Body.Close()
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	assert.NotContains(t, s.stop(t), "shipping", "the duplicate did not ship")

	s = start(t, bin, dir)
	s.send(t)
	assert.NotContains(t, s.stop(t), "shipping", "jobs.db remembers the order")

	dir = t.TempDir()
	s = start(t, bin, dir, "-memory")
	s.send(t)
	s.next(t, "shipping")
	s.stop(t)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, files)
}

// service is the program, running.
type service struct {
	cmd *exec.Cmd
	url string
	log *bufio.Scanner
}

func start(t *testing.T, bin, dir string, args ...string) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	s := &service{cmd: exec.CommandContext(t.Context(), bin, args...), url: "http://" + addr + "/webhooks"}
	s.cmd.Dir = dir
	s.cmd.Env = append(os.Environ(), "SHOPIFY_API_SECRET=hush", "ADDR="+addr)
	stderr, err := s.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	s.log = bufio.NewScanner(stderr)
	s.next(t, "listening")
	return s
}

// next is the next line of the log that contains want.
func (s *service) next(t *testing.T, want string) string {
	t.Helper()
	for s.log.Scan() {
		if strings.Contains(s.log.Text(), want) {
			return s.log.Text()
		}
	}
	t.Fatalf("the log ended before %q", want)
	return ""
}

// send delivers one order, twice.
func (s *service) send(t *testing.T) {
	t.Helper()
	sender, err := webhooktest.NewSender(s.url, "hush", webhooktest.Config{Duplicate: 1, RetrySpeed: 1000})
	require.NoError(t, err)
	order := webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", WebhookID: "w1"}}
	ledger, err := sender.Send(t.Context(), []webhooktest.Outgoing{{Delivery: order}})
	require.NoError(t, err)
	assert.Equal(t, 1, ledger.Acknowledged)
	assert.Equal(t, 1, ledger.Duplicated)
}

// stop ends the program as Ctrl-C does, and returns the rest of its log.
func (s *service) stop(t *testing.T) string {
	t.Helper()
	require.NoError(t, s.cmd.Process.Signal(os.Interrupt))
	var rest strings.Builder
	for s.log.Scan() {
		rest.WriteString(s.log.Text() + "\n")
	}
	require.NoError(t, s.cmd.Wait())
	return rest.String()
}

// The README shows this program, and no other.
func TestREADMEShowsThisProgram(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	main, err := os.ReadFile("main.go")
	require.NoError(t, err)
	_, program, ok := strings.Cut(string(main), "package main\n")
	require.True(t, ok)
	assert.Contains(t, string(readme), "```go\npackage main\n"+program+"```\n")
	assert.Less(t, strings.Count(string(main), "\n"), 75)
}
