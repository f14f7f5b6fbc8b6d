package jobhttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

// secretText is what the broker's errors say and no client may read.
const secretText = "redis://10.0.0.7:6379 refused"

// broker is a broker in memory that fails when it is told to.
type broker struct {
	queue.Memory
	failStatus, failCancel, hang atomic.Bool
	failEnqueue                  atomic.Pointer[string] // a kind
	asked                        atomic.Int64           // for a status
}

func (b *broker) Enqueue(ctx context.Context, name string, batch queue.Batch) ([]queue.Receipt, error) {
	if b.hang.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if kind := b.failEnqueue.Load(); kind != nil && batch.Jobs[0].Job.Kind == *kind {
		return nil, errors.New(secretText)
	}
	return b.Memory.Enqueue(ctx, name, batch)
}

func (b *broker) Status(ctx context.Context, name, id string) (queue.Status, error) {
	b.asked.Add(1)
	if b.failStatus.Load() {
		return queue.Status{}, errors.New(secretText)
	}
	return b.Memory.Status(ctx, name, id)
}

func (b *broker) Cancel(ctx context.Context, name, id string) (queue.State, error) {
	if b.failCancel.Load() {
		return "", errors.New(secretText)
	}
	return b.Memory.Cancel(ctx, name, id)
}

// rig is an API over a broker in memory.
type rig struct {
	*jobhttp.Handler
	t      *testing.T
	broker *broker
	jobs   *queue.Queue
	log    *logged
}

// newRig makes one whose submissions are jobs of kind "import", of the group that the header Shop names, and whose clients see
// the jobs of theirs.
func newRig(t *testing.T, cfg jobhttp.Config) *rig {
	t.Helper()
	return newRigOf(t, accept, ownShop, cfg)
}

func newRigOf(t *testing.T, accept func(r *http.Request) (jobhttp.Submission, error), allow func(r *http.Request, st queue.Status) bool, cfg jobhttp.Config) *rig {
	t.Helper()
	r := &rig{t: t, broker: new(broker), log: new(logged)}
	r.jobs = newQueue(t, r.broker, queue.Config{})
	cfg.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	r.Handler, err = jobhttp.New(r.jobs, accept, allow, cfg)
	require.NoError(t, err)
	return r
}

func newQueue(t *testing.T, b queue.Broker, cfg queue.Config) *queue.Queue {
	t.Helper()
	cfg.AllowVolatile = true
	q, err := queue.New(b, cfg)
	require.NoError(t, err)
	return q
}

func accept(r *http.Request) (jobhttp.Submission, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return jobhttp.Submission{}, err
	}
	return jobhttp.Submission{
		Job:      queue.Job{Kind: "import", Group: r.Header.Get("Shop"), Payload: body, DedupeKey: r.Header.Get("Idempotency-Key")},
		Callback: r.Header.Get("Callback"),
	}, nil
}

func ownShop(r *http.Request, st queue.Status) bool { return r.Header.Get("Shop") == st.Group }

// logged is what was logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// request makes a request of shop "a". headers are names and values.
func request(t *testing.T, method, target, body string, headers ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	r.Header.Set("Shop", "a")
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	return r
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func (r *rig) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	return serve(r.Handler, request(r.t, method, target, body, headers...))
}

// submit submits a job of shop "a" and answers its ID.
func (r *rig) submit() string {
	r.t.Helper()
	w := r.do("POST", "/jobs", "{}")
	require.Equal(r.t, 202, w.Code, w.Body)
	return object(r.t, w)["jobId"].(string)
}

// enqueue enqueues a job that did not come over HTTP.
func (r *rig) enqueue(job queue.Job) string {
	r.t.Helper()
	receipts, err := r.jobs.Enqueue(r.t.Context(), job)
	require.NoError(r.t, err)
	return receipts[0].ID
}

// work runs jobs until the func that it answers is called.
func (r *rig) work(mux *queue.Mux) (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		assert.NoError(r.t, r.jobs.Run(ctx, mux, queue.WorkerConfig{Backoff: func(int) time.Duration { return time.Minute }}))
	})
	return func() { cancel(); wg.Wait() }
}

func muxOf(h queue.Handler) *queue.Mux {
	mux := queue.NewMux()
	mux.Handle("import", h)
	return mux
}

// object decodes an answer.
func object(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &m), w.Body)
	return m
}

// requireProblem checks that an answer is a problem, of which nothing is kept.
func requireProblem(t *testing.T, w *httptest.ResponseRecorder, status int, detail string) {
	t.Helper()
	require.Equal(t, status, w.Code, w.Body)
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	p := object(t, w)
	require.Equal(t, map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": float64(status), "detail": detail}, p)
}

const (
	noJob = "There is no job of this ID, or none that you may see."
	ended = "The status of this job is no longer kept."
	away  = "The queue is not available. Try again later."
	ours  = "The request could not be handled."
)
