package integration_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

// A job over real HTTP and SQLite, from the POST to the callback, whose signature the public library of Standard Webhooks checks.
func TestJobOverHTTPIsCalledBack(t *testing.T) {
	t.Parallel()
	s := newShop(t, filepath.Join(t.TempDir(), "queue.db"))
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	type call struct {
		err  error
		body map[string]any
	}
	calls := make(chan call, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		verifier, err := standardwebhooks.NewWebhook(secret)
		assert.NoError(t, err)
		c := call{err: verifier.Verify(raw, r.Header)}
		assert.NoError(t, json.Unmarshal(raw, &c.body))
		calls <- c
	}))
	defer receiver.Close()

	secrets, err := jobhttp.Secrets(secret)
	require.NoError(t, err)
	callbacks, err := jobhttp.NewCallbacks(s.jobs, secrets, jobhttp.CallbackConfig{AllowHTTP: true, AllowPrivate: true})
	require.NoError(t, err)
	api, err := jobhttp.New(s.jobs, func(*http.Request) (jobhttp.Submission, error) {
		return jobhttp.Submission{Job: queue.Job{Kind: "import"}, Callback: receiver.URL}, nil
	}, jobhttp.Anyone, jobhttp.Config{Callbacks: callbacks, Poll: 10 * time.Millisecond})
	require.NoError(t, err)
	srv := httptest.NewServer(api)
	defer srv.Close()

	mux := queue.NewMux()
	callbacks.Handle(mux)
	mux.Handle("import", func(ctx context.Context, _ queue.Job) error {
		assert.NoError(t, queue.ReportProgress(ctx, 50, "half"))
		return queue.SetResult(ctx, []byte(`{"rows":3}`))
	})
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.jobs.Run(ctx, mux, queue.WorkerConfig{}) }()

	client := &http.Client{Timeout: time.Minute}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/jobs", strings.NewReader("{}"))
	require.NoError(t, err)
	resp, err := client.Do(post)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusAccepted, resp.StatusCode)

	events, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+resp.Header.Get("Location")+"/events", nil)
	require.NoError(t, err)
	stream, err := client.Do(events)
	require.NoError(t, err)
	defer stream.Body.Close()
	told, err := io.ReadAll(stream.Body) // it ends with the job
	require.NoError(t, err)
	require.Contains(t, string(told), "event: end")
	require.Contains(t, string(told), `"result":{"rows":3}`)

	c := <-calls
	require.NoError(t, c.err)
	require.Contains(t, c.body, "data", "%v", c.body)
	stop()
	require.NoError(t, <-ran)
	require.Empty(t, calls, "it is told once")
}
