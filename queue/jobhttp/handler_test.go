package jobhttp_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

// dumb is a broker that is no operator.
type dumb struct{ queue.Broker }

func TestNewSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	q := newQueue(t, new(queue.Memory), queue.Config{})
	for _, tt := range []struct {
		name   string
		jobs   *queue.Queue
		accept func(r *http.Request) (jobhttp.Submission, error)
		allow  func(r *http.Request, st queue.Status) bool
		cfg    jobhttp.Config
		want   string
	}{
		{"no queue", nil, accept, ownShop, jobhttp.Config{}, "jobhttp: New: jobs is nil"},
		{"no accept func", q, nil, ownShop, jobhttp.Config{}, "jobhttp: New: accept is nil"},
		{"no allow func", q, accept, nil, jobhttp.Config{}, "jobhttp: New: allow is nil; use jobhttp.Anyone if everybody may see every job"},
		{"path", q, accept, ownShop, jobhttp.Config{Path: "jobs"}, `jobhttp: New: Config.Path is "jobs"; want a clean path such as /api/jobs, percent-encoded where it must be`},
		{"bytes", q, accept, ownShop, jobhttp.Config{MaxBytes: -1}, "jobhttp: New: Config.MaxBytes is -1; want 0 for the default, or more"},
		{"streams", q, accept, ownShop, jobhttp.Config{MaxStreams: -1}, "jobhttp: New: Config.MaxStreams is -1; want 0 for the default, or more"},
		{"timeout", q, accept, ownShop, jobhttp.Config{Timeout: -1}, "jobhttp: New: Config.Timeout is -1ns; want 0 for the default, or more"},
		{"retry after", q, accept, ownShop, jobhttp.Config{RetryAfter: -1}, "jobhttp: New: Config.RetryAfter is -1ns; want 0 for the default, or more"},
		{"status for", q, accept, ownShop, jobhttp.Config{StatusFor: -1}, "jobhttp: New: Config.StatusFor is -1ns; want 0 for the default, or more"},
		{"poll", q, accept, ownShop, jobhttp.Config{Poll: -1}, "jobhttp: New: Config.Poll is -1ns; want 0 for the default, or more"},
		{"heartbeat", q, accept, ownShop, jobhttp.Config{Heartbeat: -1}, "jobhttp: New: Config.Heartbeat is -1ns; want 0 for the default, or more"},
		{"callbacks", q, accept, ownShop, jobhttp.Config{Callbacks: newCallbacks(t, jobhttp.CallbackConfig{})}, "jobhttp: New: Config.Callbacks is of another queue"},
		{"broker", newQueue(t, dumb{new(queue.Memory)}, queue.Config{}), accept, ownShop, jobhttp.Config{}, "jobhttp: New: queue: Status: the memory broker: unsupported operation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, err := jobhttp.New(tt.jobs, tt.accept, tt.allow, tt.cfg)
			assert.Nil(t, h)
			require.EqualError(t, err, tt.want)
		})
	}
}

// A Location is sent as the user has written its path, so that must be one which can stand in a header.
func TestPath(t *testing.T) {
	t.Parallel()
	q := newQueue(t, new(queue.Memory), queue.Config{})
	for _, tt := range []struct{ path, want string }{
		{"", "/jobs/"},
		{"/", "/"},
		{"/jobs/", "/jobs/"},
		{"/api/v1/jobs", "/api/v1/jobs/"},
		{"/caf%C3%A9/jobs", "/caf%C3%A9/jobs/"},
		{"//evil.example/jobs", ""},
		{"https://evil.example/jobs", ""},
		{"/a/../jobs", ""},
		{"/a//jobs", ""},
		{"/jobs\r\nSet-Cookie: a=b", ""},
		{"/café", ""},
		{"/a b", ""},
		{`/\evil.example`, ""},
		{"/jobs?x", ""},
	} {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			h, err := jobhttp.New(q, accept, ownShop, jobhttp.Config{Path: tt.path})
			if tt.want == "" {
				require.ErrorContains(t, err, "jobhttp: New: Config.Path is ")
				return
			}
			require.NoError(t, err)
			w := serve(h, request(t, "POST", "/", ""))
			require.Equal(t, 202, w.Code, w.Body)
			require.Equal(t, tt.want+object(t, w)["jobId"].(string), w.Header().Get("Location"))
		})
	}
}

// router is one that its user has made: it knows no PathValue.
type router map[string]http.HandlerFunc

func (rt router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) > 2 {
		parts[2] = "*"
	}
	if h := rt[r.Method+" "+strings.Join(parts, "/")]; h != nil {
		h(w, r)
		return
	}
	http.NotFound(w, r)
}

func TestUnderAnyRouter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cfg  jobhttp.Config
		make func(h *jobhttp.Handler) http.Handler
		post string // where submissions go
		base string // where clients find the jobs
	}{
		{"alone", jobhttp.Config{}, func(h *jobhttp.Handler) http.Handler { return h }, "/jobs", "/jobs"},
		{"alone, a slash behind", jobhttp.Config{}, func(h *jobhttp.Handler) http.Handler { return h }, "/jobs/", "/jobs"},
		{"ServeMux", jobhttp.Config{Path: "/api/jobs"}, func(h *jobhttp.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/api/jobs", h)
			mux.Handle("/api/jobs/", h)
			return mux
		}, "/api/jobs", "/api/jobs"},
		{"ServeMux, a part of the prefix stripped", jobhttp.Config{Path: "/api/jobs"}, func(h *jobhttp.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/api/", http.StripPrefix("/api", h))
			return mux
		}, "/api/jobs", "/api/jobs"},
		{"ServeMux, all of the prefix stripped", jobhttp.Config{Path: "/api/jobs"}, func(h *jobhttp.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/api/jobs", http.StripPrefix("/api/jobs", h))
			mux.Handle("/api/jobs/", http.StripPrefix("/api/jobs", h))
			return mux
		}, "/api/jobs", "/api/jobs"},
		{"at the root", jobhttp.Config{Path: "/"}, func(h *jobhttp.Handler) http.Handler { return h }, "/", ""},
		{"single handlers of a ServeMux", jobhttp.Config{Path: "/shops/1/jobs"}, func(h *jobhttp.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.HandleFunc("POST /imports", h.Submit)
			mux.HandleFunc("GET /shops/{shop}/jobs/{id}", h.Status)
			mux.HandleFunc("DELETE /shops/{shop}/jobs/{id}", h.Cancel)
			mux.HandleFunc("GET /shops/{shop}/jobs/{id}/events", h.Events)
			return mux
		}, "/imports", "/shops/1/jobs"},
		{"single handlers, the ID in the middle", jobhttp.Config{}, func(h *jobhttp.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.HandleFunc("POST /jobs", h.Submit)
			for pattern, single := range map[string]http.HandlerFunc{"GET /jobs/{id}/status": h.Status, "DELETE /jobs/{id}/status": h.Cancel, "GET /jobs/{id}/stream": h.Events} {
				mux.HandleFunc(pattern, single)
			}
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if before, ok := strings.CutSuffix(r.URL.Path, "/events"); ok {
					r.URL.Path = before + "/stream"
				} else if r.Method != http.MethodPost {
					r.URL.Path += "/status"
				}
				mux.ServeHTTP(w, r)
			})
		}, "/jobs", "/jobs"},
		{"single handlers, another name than id", jobhttp.Config{}, func(h *jobhttp.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.HandleFunc("POST /jobs", h.Submit)
			mux.HandleFunc("GET /jobs/{job}", h.Status)
			mux.HandleFunc("DELETE /jobs/{job}", h.Cancel)
			mux.HandleFunc("GET /jobs/{job}/events", h.Events)
			return mux
		}, "/jobs", "/jobs"},
		{"a router without PathValue", jobhttp.Config{Path: "/api/jobs"}, func(h *jobhttp.Handler) http.Handler {
			return router{"POST api/jobs": h.Submit, "GET api/jobs/*": h.Status, "DELETE api/jobs/*": h.Cancel, "GET api/jobs/*/events": h.Events}
		}, "/api/jobs", "/api/jobs"},
		{"a router with a way of its own", jobhttp.Config{Path: "/api/jobs", ID: func(r *http.Request) string { return r.Context().Value(idKey{}).(string) }}, func(h *jobhttp.Handler) http.Handler {
			with := func(h http.HandlerFunc) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					id := strings.Split(r.URL.Path, "/")[3]
					r = r.WithContext(context.WithValue(r.Context(), idKey{}, id))
					r.URL.Path = "/elsewhere"
					h(w, r)
				}
			}
			return router{"POST api/jobs": h.Submit, "GET api/jobs/*": with(h.Status), "DELETE api/jobs/*": with(h.Cancel), "GET api/jobs/*/events": with(h.Events)}
		}, "/api/jobs", "/api/jobs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := tt.make(newRig(t, tt.cfg).Handler)
			posted := serve(h, request(t, "POST", tt.post, "{}"))
			require.Equal(t, 202, posted.Code, posted.Body)
			id := object(t, posted)["jobId"].(string)
			at := posted.Header().Get("Location")
			require.Equal(t, tt.base+"/"+id, at)

			got := serve(h, request(t, "GET", at, ""))
			require.Equal(t, 200, got.Code, got.Body)
			assert.Equal(t, id, object(t, got)["jobId"])

			deleted := serve(h, request(t, "DELETE", at, ""))
			require.Equal(t, 200, deleted.Code, deleted.Body)
			assert.Equal(t, "cancelled", object(t, deleted)["status"])

			streamed := serve(h, request(t, "GET", at+"/events", ""))
			require.Equal(t, 200, streamed.Code, streamed.Body)
			assert.Contains(t, streamed.Body.String(), "event: end\ndata: {\"jobId\":\""+id+"\"")

			unknown := serve(h, request(t, "GET", tt.base+"/nonsense", ""))
			assert.Equal(t, 404, unknown.Code)
		})
	}
}

type idKey struct{}

func TestNothingElseIsThere(t *testing.T) {
	t.Parallel()
	r := newRig(t, jobhttp.Config{Path: "/api/jobs"})
	id := r.submit()
	for _, tt := range []struct {
		method, target string
		status         int
		allow          string
	}{
		{"GET", "/api/jobs", 405, "POST"},
		{"OPTIONS", "/api/jobs", 405, "POST"},
		{"POST", "/api/jobs/" + id, 405, "GET, HEAD, DELETE"},
		{"PATCH", "/api/jobs/" + id, 405, "GET, HEAD, DELETE"},
		{"DELETE", "/api/jobs/" + id + "/events", 405, "GET, HEAD"},
		{"POST", "/api/jobs/" + id + "/events", 405, "GET, HEAD"},
		{"GET", "/api/jobs/" + id + "/", 404, ""},
		{"GET", "/api/jobs/" + id + "/events/", 404, ""},
		{"GET", "/api/jobs/" + id + "/result", 404, ""},
		{"GET", "/api/jobs//" + id, 404, ""},
		{"GET", "/api/jobsx/" + id, 404, ""},
		{"GET", "/api/jobs" + id, 404, ""},
		{"POST", "//", 404, ""},
		{"GET", "/other/" + id, 404, ""},
	} {
		t.Run(tt.method+" "+tt.target, func(t *testing.T) {
			t.Parallel()
			w := r.do(tt.method, tt.target, "")
			assert.Equal(t, tt.status, w.Code, w.Body)
			assert.Equal(t, tt.allow, w.Header().Get("Allow"))
			assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
		})
	}
	for name, single := range map[string]http.HandlerFunc{"GET": r.Submit, "POST": r.Status, "PUT": r.Cancel, "DELETE": r.Events} {
		w := serve(single, request(t, name, "/api/jobs/"+id, ""))
		assert.Equal(t, 405, w.Code)
		assert.NotEmpty(t, w.Header().Get("Allow"))
	}
}

// One of the user's funcs that panics is the user's to mend: it is logged with its stack, and the client learns nothing.
func TestPanics(t *testing.T) {
	t.Parallel()
	boom := func() { panic("boom: " + secretText) }
	inAccept := newRigOf(t, func(*http.Request) (jobhttp.Submission, error) { boom(); return jobhttp.Submission{}, nil }, ownShop, jobhttp.Config{})
	requireProblem(t, inAccept.do("POST", "/jobs", "{}"), 500, ours)

	inAllow := newRigOf(t, accept, func(*http.Request, queue.Status) bool { boom(); return true }, jobhttp.Config{})
	id := inAllow.submit()
	for _, method := range []string{"GET", "DELETE"} {
		requireProblem(t, inAllow.do(method, "/jobs/"+id, ""), 404, noJob) // 500 would tell that there is such a job
	}
	requireProblem(t, inAllow.do("GET", "/jobs/"+id+"/events", ""), 404, noJob)

	inText := newRig(t, jobhttp.Config{ErrorText: func(queue.Status) string { boom(); return "" }})
	died, err := inText.jobs.Bury(t.Context(), queue.Job{Kind: "import", Group: "a", Track: true}, errors.New("no"))
	require.NoError(t, err)
	requireProblem(t, inText.do("GET", "/jobs/"+died.ID, ""), 500, ours)
	requireProblem(t, inText.do("GET", "/jobs/"+died.ID+"/events", ""), 500, ours)

	inID := newRig(t, jobhttp.Config{ID: func(*http.Request) string { boom(); return "" }})
	requireProblem(t, serve(http.HandlerFunc(inID.Status), request(t, "GET", "/", "")), 500, ours)

	for _, r := range []*rig{inAccept, inAllow, inText, inID} {
		assert.Contains(t, r.log.String(), "boom: "+secretText)
		assert.Contains(t, r.log.String(), "handler_test.go", "the stack")
	}

	// This one means that the connection is to be cut.
	aborts := newRigOf(t, func(*http.Request) (jobhttp.Submission, error) { panic(http.ErrAbortHandler) }, ownShop, jobhttp.Config{})
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { aborts.do("POST", "/jobs", "{}") })
}

func TestAnyone(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, accept, jobhttp.Anyone, jobhttp.Config{})
	assert.Equal(t, 200, r.do("GET", "/jobs/"+r.submit(), "", "Shop", "another").Code)
}

func TestBrokerThatHangsIs503(t *testing.T) {
	t.Parallel()
	r := newRig(t, jobhttp.Config{Timeout: time.Millisecond, RetryAfter: 1500 * time.Millisecond})
	r.broker.hang.Store(true)
	w := r.do("POST", "/jobs", "{}")
	requireProblem(t, w, 503, away)
	assert.Equal(t, "2", w.Header().Get("Retry-After"))
}
