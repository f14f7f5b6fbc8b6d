package jobhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

func TestSubmit(t *testing.T) {
	t.Parallel()
	r := newRig(t, jobhttp.Config{Path: "/api/jobs", RetryAfter: 2100 * time.Millisecond, StatusFor: time.Hour})
	w := r.do("POST", "/api/jobs", `{"rows":3}`)
	require.Equal(t, 202, w.Code, w.Body)
	id := object(t, w)["jobId"].(string)
	assert.JSONEq(t, `{"jobId":"`+id+`","status":"pending"}`, w.Body.String())
	assert.Equal(t, http.Header{
		"Content-Type":           {"application/json"},
		"Content-Length":         {fmt.Sprint(w.Body.Len())},
		"Cache-Control":          {"no-store"},
		"X-Content-Type-Options": {"nosniff"},
		"Location":               {"/api/jobs/" + id},
		"Retry-After":            {"3"},
	}, w.Header())

	jobs, err := r.jobs.Jobs(t.Context(), queue.JobFilter{})
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	job := jobs[0].Job
	assert.Equal(t, id, job.ID)
	assert.Equal(t, "import", job.Kind)
	assert.Equal(t, "a", job.Group)
	assert.JSONEq(t, `{"rows":3}`, string(job.Payload))
	assert.True(t, job.Track)
	assert.Equal(t, time.Hour, job.StatusFor)
}

func TestSubmissionThatSaysHowLongItsStatusIsKept(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, func(*http.Request) (jobhttp.Submission, error) {
		return jobhttp.Submission{Job: queue.Job{Kind: "import", StatusFor: time.Minute}}, nil
	}, ownShop, jobhttp.Config{})
	r.submit()
	jobs, err := r.jobs.Jobs(t.Context(), queue.JobFilter{})
	require.NoError(t, err)
	assert.Equal(t, time.Minute, jobs[0].Job.StatusFor)
}

// waits is an error that says when to come back, and late one that says that time ran out.
type (
	waits struct{ error }
	late  struct{ error }
)

func (waits) RetryAfter() time.Duration { return 90 * time.Second }
func (late) Timeout() bool              { return true }

func TestWhatAnAcceptFuncsErrorMeans(t *testing.T) {
	t.Parallel()
	inner := errors.New(secretText)
	for _, tt := range []struct {
		name       string
		err        error
		status     int
		body       string
		retryAfter string
	}{
		{"any error", inner, 400, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The request is not valid."}`, ""},
		{"status and detail", &jobhttp.Error{Status: 422, Detail: "sku is missing"}, 422, `{"type":"about:blank","title":"Unprocessable Entity","status":422,"detail":"sku is missing"}`, ""},
		{"wrapped", fmt.Errorf("%s: %w", secretText, &jobhttp.Error{Status: 403}), 403, `{"type":"about:blank","title":"Forbidden","status":403}`, ""},
		{"everything", &jobhttp.Error{Status: 429, Type: "https://example.com/slow-down", Title: "Slow down", Detail: "5 imports an hour", RetryAfter: time.Minute}, 429, `{"type":"https://example.com/slow-down","title":"Slow down","status":429,"detail":"5 imports an hour"}`, "60"},
		{"a status that is none", &jobhttp.Error{Status: 200, Detail: secretText}, 500, `{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"The request could not be handled."}`, ""},
		{"no status", &jobhttp.Error{Detail: secretText}, 500, `{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"The request could not be handled."}`, ""},
		{"come again later", fmt.Errorf("breaker: %w", waits{inner}), 503, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The request can't be taken now. Try again later."}`, "90"},
		{"late", late{inner}, 503, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The request can't be taken now. Try again later."}`, "2"},
		{"a context's end", context.DeadlineExceeded, 503, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The request can't be taken now. Try again later."}`, "2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRigOf(t, func(*http.Request) (jobhttp.Submission, error) {
				return jobhttp.Submission{Job: queue.Job{Kind: "import"}}, tt.err
			}, ownShop, jobhttp.Config{})
			w := r.do("POST", "/jobs", "{}")
			assert.Equal(t, tt.status, w.Code)
			assert.JSONEq(t, tt.body, w.Body.String())
			assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			assert.Equal(t, tt.retryAfter, w.Header().Get("Retry-After"))
			stats, err := r.jobs.Stats(t.Context())
			require.NoError(t, err)
			assert.Zero(t, stats.Jobs)
		})
	}
	assert.EqualError(t, &jobhttp.Error{Status: 422, Detail: "sku is missing"}, "jobhttp: 422 Unprocessable Entity: sku is missing")
}

func TestJSON(t *testing.T) {
	t.Parallel()
	type line struct {
		Qty int `json:"qty"`
	}
	type order struct {
		Lines []line    `json:"lines"`
		At    time.Time `json:"at"`
		Any   any       `json:"any"`
	}
	r := newRigOf(t, jobhttp.JSON(func(_ *http.Request, in order) (jobhttp.Submission, error) {
		return jobhttp.Submission{Job: queue.Job{Kind: "import", Group: "a", Payload: fmt.Append(nil, in)}}, nil
	}), ownShop, jobhttp.Config{MaxBytes: 1000})
	for _, tt := range []struct {
		name, contentType, body string
		status                  int
		detail                  string
	}{
		{"JSON", "application/json", `{"lines":[{"qty":2}],"any":12345678901234567890}`, 202, ""},
		{"with a charset", "application/json; charset=utf-8", `{}`, 202, ""},
		{"a kind of JSON", "application/vnd.example+json", `{}`, 202, ""},
		{"no content type", "", `{}`, 415, "The Content-Type must be application/json."},
		{"what a browser sends unasked", "text/plain", `{}`, 415, "The Content-Type must be application/json."},
		{"a form", "application/x-www-form-urlencoded", `{}`, 415, "The Content-Type must be application/json."},
		{"not a content type", "application/json; =", `{}`, 415, "The Content-Type must be application/json."},
		{"empty", "application/json", ``, 400, "The body is empty, or not all of it came."},
		{"half", "application/json", `{"lines":`, 400, "The body is empty, or not all of it came."},
		{"not JSON", "application/json", `{lines}`, 400, "The body is not JSON, from byte 2 on."},
		{"two values", "application/json", `{} {}`, 400, "The body is more than one JSON value."},
		{"something behind", "application/json", `{}]`, 400, "The body is more than one JSON value."},
		{"wrong type", "application/json", `{"lines":[{"qty":"two"}]}`, 422, `The field "lines.qty" can't be this string.`},
		{"another wrong type", "application/json", `{"lines":{}}`, 422, `The field "lines" can't be an object.`},
		{"a number that does not fit", "application/json", `{"lines":[{"qty":1e99}]}`, 422, `The field "lines.qty" can't be this number.`},
		{"true", "application/json", `{"lines":true}`, 422, `The field "lines" can't be true or false.`},
		{"all of it", "application/json", `[]`, 422, "The body can't be an array."},
		{"a type's own rule", "application/json", `{"at":"yesterday"}`, 422, "A value in the body can't be read."},
		{"too large", "application/json", `{"any":"` + strings.Repeat("x", 1000) + `"}`, 413, "The body has more than 1000 bytes."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := r.do("POST", "/jobs", tt.body, "Content-Type", tt.contentType)
			if tt.status != 202 {
				requireProblem(t, w, tt.status, tt.detail)
				return
			}
			require.Equal(t, 202, w.Code, w.Body)
		})
	}
}

func TestBodyOverTheLimitIs413(t *testing.T) {
	t.Parallel()
	const tooLarge = "The body has more than 10 bytes."
	asked := 0
	for _, tt := range []struct {
		name   string
		accept func(r *http.Request) (jobhttp.Submission, error)
		length int64
		asked  bool
	}{
		{"it says so itself", func(*http.Request) (jobhttp.Submission, error) { asked++; return jobhttp.Submission{}, nil }, 11, false},
		{"it does not say", accept, -1, true},
		{"the func hides why", func(r *http.Request) (jobhttp.Submission, error) {
			_, _ = io.ReadAll(r.Body)
			return jobhttp.Submission{}, &jobhttp.Error{Status: 400}
		}, -1, true},
		{"the func takes half of it for all of it", func(r *http.Request) (jobhttp.Submission, error) {
			half, _ := io.ReadAll(r.Body)
			return jobhttp.Submission{Job: queue.Job{Kind: "import", Payload: half}}, nil
		}, -1, true},
	} {
		r := newRigOf(t, tt.accept, ownShop, jobhttp.Config{MaxBytes: 10})
		for _, at := range []int64{10, 11} {
			req := request(t, "POST", "/jobs", strings.Repeat("x", int(at)))
			if req.ContentLength = at; tt.length < 0 {
				req.ContentLength = -1
			}
			w := serve(r, req)
			if at == 11 {
				requireProblem(t, w, 413, tooLarge)
			} else {
				assert.NotEqual(t, 413, w.Code, tt.name)
			}
		}
		stats, err := r.jobs.Stats(t.Context())
		require.NoError(t, err)
		assert.LessOrEqual(t, stats.Jobs, 1, tt.name)
	}
	assert.Equal(t, 1, asked, "not about the body that was too large")
}

// The caller's request is not changed: a middleware may look at it afterwards.
func TestRequestIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	r := newRig(t, jobhttp.Config{})
	req := request(t, "POST", "/jobs", "{}")
	body := req.Body
	serve(r, req)
	assert.Equal(t, body, req.Body)
}

func TestJobThatTheQueueNeverTakes(t *testing.T) {
	t.Parallel()
	var job queue.Job
	take := func(*http.Request) (jobhttp.Submission, error) { return jobhttp.Submission{Job: job}, nil }
	b := new(broker)
	h, err := jobhttp.New(newQueue(t, b, queue.Config{MaxPayloadBytes: 10}), take, ownShop, jobhttp.Config{})
	require.NoError(t, err)
	for _, tt := range []struct {
		name   string
		job    queue.Job
		status int
		detail string
	}{
		{"payload", queue.Job{Kind: "import", Payload: make([]byte, 11)}, 413, "The job has more bytes than the queue takes."},
		{"dedupe key", queue.Job{Kind: "import", DedupeKey: strings.Repeat("x", 1<<16)}, 422, "A name in the request is too long."},
		{"no kind", queue.Job{}, 500, ours},
		{"the kind of callbacks", queue.Job{Kind: jobhttp.CallbackKind, Payload: []byte(`{"jobId":"someone else's","url":"https://evil.example"}`)}, 500, ours},
	} {
		job = tt.job
		requireProblem(t, serve(h, request(t, "POST", "/jobs", "")), tt.status, tt.detail)
	}
}

func TestDuplicateGetsTheFirstJobsID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		first := r.do("POST", "/jobs", "1", "Idempotency-Key", "k")
		require.Equal(t, 202, first.Code)
		again := r.do("POST", "/jobs", "1", "Idempotency-Key", "k")
		require.Equal(t, 202, again.Code)
		assert.Equal(t, first.Body.String(), again.Body.String())
		assert.Equal(t, first.Header(), again.Header())

		stop := r.work(muxOf(func(context.Context, queue.Job) error { return nil }))
		synctest.Wait()
		stop()
		again = r.do("POST", "/jobs", "1", "Idempotency-Key", "k")
		require.Equal(t, 202, again.Code)
		assert.Equal(t, object(t, first)["jobId"], object(t, again)["jobId"])
		assert.Equal(t, "succeeded", object(t, again)["status"])

		r.broker.failStatus.Store(true)
		again = r.do("POST", "/jobs", "1", "Idempotency-Key", "k")
		require.Equal(t, 202, again.Code, "it is accepted all the same")
		assert.Equal(t, "pending", object(t, again)["status"])

		other := r.do("POST", "/jobs", "1", "Idempotency-Key", "k", "Shop", "b")
		assert.NotEqual(t, object(t, first)["jobId"], object(t, other)["jobId"], "another shop's key is another key")
	})
}

func TestBrokerThatFailsIs503(t *testing.T) {
	t.Parallel()
	r := newRig(t, jobhttp.Config{})
	kind := "import"
	r.broker.failEnqueue.Store(&kind)
	w := r.do("POST", "/jobs", "{}")
	requireProblem(t, w, 503, away)
	assert.Equal(t, "2", w.Header().Get("Retry-After"))
	assert.Empty(t, w.Header().Get("Location"))
	assert.Contains(t, r.log.String(), secretText)
}

// A client that hangs up while its job is on the way leaves nothing half done.
func TestClientThatHangsUp(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, func(r *http.Request) (jobhttp.Submission, error) {
		r.Context().Value(hangUp{}).(context.CancelFunc)()
		return accept(r)
	}, ownShop, jobhttp.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	w := httptest.NewRecorder()
	r.ServeHTTP(w, request(t, "POST", "/jobs", "{}").WithContext(context.WithValue(ctx, hangUp{}, cancel)))
	assert.Equal(t, 202, w.Code)
}

type hangUp struct{}
