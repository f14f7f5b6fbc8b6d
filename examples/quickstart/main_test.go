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

// The README's main: built, started, sent an order twice, and read from its log.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "quickstart")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())

	cmd := exec.CommandContext(t.Context(), bin)
	cmd.Env = append(os.Environ(), "SHOPIFY_API_SECRET=hush", "ADDR="+addr)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	log := bufio.NewScanner(stderr)
	next := func(want string) string {
		for log.Scan() {
			if strings.Contains(log.Text(), want) {
				return log.Text()
			}
		}
		t.Fatalf("the log ended before %q", want)
		return ""
	}
	next("listening")

	sender, err := webhooktest.NewSender("http://"+addr+"/webhooks", "hush", webhooktest.Config{Duplicate: 1, RetrySpeed: 1000})
	require.NoError(t, err)
	ledger, err := sender.Send(t.Context(), []webhooktest.Outgoing{{Delivery: webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create"}}}})
	require.NoError(t, err)
	assert.Equal(t, 1, ledger.Acknowledged)
	assert.Equal(t, 1, ledger.Duplicated)
	shipped := next("shipping")
	assert.Contains(t, shipped, "order=#9999")
	assert.Contains(t, shipped, "id=820982911946154508")

	resp, err := http.Post("http://"+addr+"/webhooks", "application/json", strings.NewReader("{}")) //nolint:noctx // a test
	require.NoError(t, err)
	_ = resp.Body.Close()
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)

	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	for log.Scan() {
		assert.NotContains(t, log.Text(), "shipping", "the duplicate did not ship")
	}
	require.NoError(t, cmd.Wait())
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
	assert.Less(t, strings.Count(string(main), "\n"), 60)
}
