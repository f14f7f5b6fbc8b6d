package jobhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
	"github.com/breakwater-go/breakwater/queue/queuetest"
)

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"
	url     = "https://shop.example/done?token=hush"
)

// posted is one request to a receiver.
type posted struct {
	url  string
	head http.Header
	body string
	at   time.Time
}

// answer is what a receiver answers.
type answer struct {
	code       int
	retryAfter string
	location   string
	body       io.Reader
	err        error
}

// receiver is an http.RoundTripper that is where callbacks go. It gives the answers that it has been given, then 200.
type receiver struct {
	mu      sync.Mutex
	answers []answer
	got     []posted
}

func (rc *receiver) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.got = append(rc.got, posted{r.URL.String(), r.Header.Clone(), string(body), time.Now()})
	a := answer{code: 200}
	if len(rc.answers) > 0 {
		a, rc.answers = rc.answers[0], rc.answers[1:]
	}
	if a.err != nil {
		return nil, a.err
	}
	if a.body == nil {
		a.body = strings.NewReader("hello")
	}
	return &http.Response{StatusCode: a.code, Header: http.Header{"Retry-After": {a.retryAfter}, "Location": {a.location}}, Body: io.NopCloser(a.body), Request: r}, nil
}

func (rc *receiver) take() []posted {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	got := rc.got
	rc.got = nil
	return got
}

// callRig is an API with callbacks over a Kit.
type callRig struct {
	*jobhttp.Handler
	*queuetest.Kit
	t        *testing.T
	mux      *queue.Mux
	receiver *receiver
	log      *logged
}

func newCallRig(t *testing.T, cfg jobhttp.CallbackConfig, run queue.Handler) *callRig {
	t.Helper()
	r := &callRig{Kit: queuetest.New(t), t: t, mux: muxOf(run), receiver: new(receiver), log: new(logged)}
	cfg.Transport, cfg.Logger = r.receiver, slog.New(slog.NewTextHandler(r.log, nil))
	secrets, err := jobhttp.Secrets(secretA, secretB)
	require.NoError(t, err)
	callbacks, err := jobhttp.NewCallbacks(r.Queue, secrets, cfg)
	require.NoError(t, err)
	callbacks.Handle(r.mux)
	r.Handler, err = jobhttp.New(r.Queue, accept, ownShop, jobhttp.Config{Callbacks: callbacks, Logger: cfg.Logger})
	require.NoError(t, err)
	return r
}

func (r *callRig) submit(headers ...string) string {
	r.t.Helper()
	w := serve(r.Handler, request(r.t, "POST", "/jobs", "{}", append([]string{"Callback", url}, headers...)...))
	require.Equal(r.t, 202, w.Code, w.Body)
	return object(r.t, w)["jobId"].(string)
}

func succeed(context.Context, queue.Job) error { return nil }

func TestCallback(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		run  queue.Handler
		then func(r *callRig, id string)
		want string
	}{
		{"succeeded", func(ctx context.Context, _ queue.Job) error { return queue.SetResult(ctx, []byte(`{"rows":10}`)) }, nil,
			`{"type":"job.succeeded","timestamp":"2000-01-01T00:00:00Z","data":{"jobId":"ID","kind":"import","status":"succeeded","attempts":0,"progress":100,"result":{"rows":10},"createdAt":"2000-01-01T00:00:00Z","dueAt":"2000-01-01T00:00:00Z","endedAt":"2000-01-01T00:00:00Z"}}`},
		{"dead", func(context.Context, queue.Job) error { return queue.Permanent(errors.New("no such file")) }, nil,
			`{"type":"job.dead","timestamp":"2000-01-01T00:00:00Z","data":{"jobId":"ID","kind":"import","status":"dead","attempts":0,"progress":0,"error":"no such file","createdAt":"2000-01-01T00:00:00Z","dueAt":"2000-01-01T00:00:00Z","endedAt":"2000-01-01T00:00:00Z"}}`},
		{"cancelled", succeed, func(r *callRig, id string) {
			require.Equal(r.t, 200, serve(r.Handler, request(r.t, "DELETE", "/jobs/"+id, "")).Code)
		},
			`{"type":"job.cancelled","timestamp":"2000-01-01T00:00:00Z","data":{"jobId":"ID","kind":"import","status":"cancelled","attempts":0,"progress":0,"createdAt":"2000-01-01T00:00:00Z","dueAt":"2000-01-01T00:00:00Z","endedAt":"2000-01-01T00:00:00Z"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newCallRig(t, jobhttp.CallbackConfig{}, tt.run)
				id := r.submit()
				if tt.then != nil {
					tt.then(r, id)
				}
				r.Drain(t.Context(), r.mux)
				got := r.receiver.take()
				require.Len(t, got, 1)
				call := got[0]
				assert.Equal(t, url, call.url)
				assert.Equal(t, strings.ReplaceAll(tt.want, "ID", id), call.body)
				assert.Equal(t, "application/json", call.head.Get("Content-Type"))
				assert.Equal(t, "Breakwater-Callback/1", call.head.Get("User-Agent"))
				assert.Equal(t, strconv.FormatInt(call.at.Unix(), 10), call.head.Get("webhook-timestamp"))
				assert.Len(t, call.head.Get("webhook-id"), 26)
				want, err := jobhttp.Sign([]string{secretA, secretB}, call.head.Get("webhook-id"), call.at, []byte(call.body))
				require.NoError(t, err)
				assert.Equal(t, want, call.head.Get("webhook-signature"))
			})
		})
	}
}

// A job that takes long is looked at less and less often, and without spending the callback's attempts.
func TestWatcherWaitsAsLongAsItTakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		r := newCallRig(t, jobhttp.CallbackConfig{MaxAttempts: 1}, func(context.Context, queue.Job) error {
			time.Sleep(4 * time.Hour)
			return nil
		})
		r.submit()
		r.mux.Use(func(next queue.Handler) queue.Handler {
			return func(ctx context.Context, job queue.Job) error {
				if job.Kind == jobhttp.CallbackKind {
					looks.Add(1)
				}
				return next(ctx, job)
			}
		})
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, r.Run(ctx, r.mux, queue.WorkerConfig{})) })
		time.Sleep(time.Minute)
		assert.InDelta(t, 15, looks.Swap(0), 5)
		time.Sleep(3 * time.Hour)
		assert.Empty(t, r.receiver.take())
		assert.InDelta(t, 390, looks.Load(), 30, "every 26 to 30 s")
		time.Sleep(time.Hour - 30*time.Second)
		got := r.receiver.take()
		require.Len(t, got, 1)
		assert.WithinDuration(t, time.Date(2000, 1, 1, 4, 0, 0, 0, time.UTC), got[0].at, 30*time.Second)
		stop()
		wg.Wait()
	})
}

func TestReceiverThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{}, succeed)
		r.receiver.answers = []answer{{code: 500}, {code: 404}, {code: 302, location: "https://other.example/"}, {code: 304}, {err: errors.New("connection reset")}}
		id := r.submit()
		result := r.Drain(t.Context(), r.mux)
		got := r.receiver.take()
		require.Len(t, got, 6)
		assert.Len(t, result.Retried, 5)
		assert.Empty(t, result.Died)
		for _, call := range got {
			assert.Equal(t, url, call.url, "a 302 would turn the POST into a GET")
			assert.Equal(t, got[0].body, call.body)
			assert.Equal(t, got[0].head.Get("webhook-id"), call.head.Get("webhook-id"), "so that the receiver can tell that it is the same")
			assert.Equal(t, strconv.FormatInt(call.at.Unix(), 10), call.head.Get("webhook-timestamp"))
		}
		for i, want := range []string{"shop.example answered 500", "shop.example answered 404", "shop.example answered 302", "shop.example answered 304", "shop.example: connection reset"} {
			assert.EqualError(t, result.Retried[i].Err, "jobhttp: callback of job "+id+": "+want, "without the URL: it holds a secret")
		}
	})
}

func TestReceiverThatNeverTakesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{MaxAttempts: 3}, succeed)
		for range 10 {
			r.receiver.answers = append(r.receiver.answers, answer{code: 500})
		}
		id := r.submit()
		result := r.Drain(t.Context(), r.mux)
		assert.Len(t, r.receiver.take(), 3)
		require.Len(t, result.Died, 1, "and can be replayed")
		assert.Equal(t, jobhttp.CallbackKind, result.Died[0].Job.Kind)
		assert.Equal(t, "jobhttp: callback of job "+id+": shop.example answered 500", result.Died[0].Error)
		first := result.Died[0].Job.ID

		time.Sleep(1000 * time.Hour) // the job's status is long gone
		n, err := r.Replay(t.Context(), queue.DeadFilter{Kind: jobhttp.CallbackKind})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		r.receiver.answers = nil
		r.Drain(t.Context(), r.mux)
		got := r.receiver.take()
		require.Len(t, got, 1)
		assert.Equal(t, first, got[0].head.Get("webhook-id"))
		assert.Contains(t, got[0].body, `"status":"succeeded"`)
	})
}

func TestReceiverThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{}, succeed)
		r.receiver.answers = []answer{{code: 410}}
		r.submit()
		result := r.Drain(t.Context(), r.mux)
		assert.Len(t, r.receiver.take(), 1)
		assert.Len(t, result.Died, 1)
	})
}

func TestReceiverThatSaysWhen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{MaxAttempts: 1}, succeed)
		r.receiver.answers = []answer{
			{code: 429, retryAfter: "600"},
			{code: 503, retryAfter: "Sat, 01 Jan 2000 02:00:00 GMT"},
			{code: 429, retryAfter: "99999999999999999999"},
		}
		r.submit()
		result := r.Drain(t.Context(), r.mux)
		assert.Empty(t, result.Died, "it spends no attempt")
		got := r.receiver.take()
		require.Len(t, got, 4)
		assert.InDelta(t, 600, got[1].at.Sub(got[0].at).Seconds(), 10)
		assert.InDelta(t, 2*3600, float64(got[2].at.Unix()-946684800), 10)
		assert.InDelta(t, 24*3600, got[3].at.Sub(got[2].at).Seconds(), 10, "no longer than a day")
	})
}

func TestReceiverThatPutsUsOffForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{}, succeed)
		for range 1000 {
			r.receiver.answers = append(r.receiver.answers, answer{code: 429, retryAfter: "86400"})
		}
		r.submit()
		result := r.Drain(t.Context(), r.mux)
		require.Len(t, result.Died, 1)
		assert.InDelta(t, 8, len(r.receiver.take()), 1, "a week")
	})
}

// slow never answers.
type slow struct{}

func (slow) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestReceiverThatNeverAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := queuetest.New(t)
		secrets, err := jobhttp.Secrets(secretA)
		require.NoError(t, err)
		callbacks, err := jobhttp.NewCallbacks(kit.Queue, secrets, jobhttp.CallbackConfig{Transport: slow{}, MaxAttempts: 1})
		require.NoError(t, err)
		mux := muxOf(succeed)
		callbacks.Handle(mux)
		api, err := jobhttp.New(kit.Queue, accept, ownShop, jobhttp.Config{Callbacks: callbacks})
		require.NoError(t, err)
		require.Equal(t, 202, serve(api, request(t, "POST", "/jobs", "", "Callback", url)).Code)
		var took time.Duration
		mux.Use(func(next queue.Handler) queue.Handler {
			return func(ctx context.Context, job queue.Job) error {
				start := time.Now()
				defer func() { took = max(took, time.Since(start)) }()
				return next(ctx, job)
			}
		})
		result := kit.Drain(t.Context(), mux)
		require.Len(t, result.Died, 1)
		assert.Contains(t, result.Died[0].Error, "shop.example: context deadline exceeded")
		assert.Equal(t, 15*time.Second, took)
	})
}

// The second of two equal requests asks about the first job, and wants to be told of that.
func TestCallbacksOfDuplicates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{}, succeed)
		id := r.submit("Idempotency-Key", "k")
		assert.Equal(t, id, r.submit("Idempotency-Key", "k"), "sent again")
		const second = "https://erp.example/done"
		assert.Equal(t, id, r.submit("Idempotency-Key", "k", "Callback", second), "by another caller")
		r.Drain(t.Context(), r.mux)
		got := r.receiver.take()
		require.Len(t, got, 2)
		assert.ElementsMatch(t, []string{url, second}, []string{got[0].url, got[1].url}, "each URL once")
		for _, call := range got {
			assert.Contains(t, call.body, `"jobId":"`+id+`"`)
		}
		assert.NotEqual(t, got[0].head.Get("webhook-id"), got[1].head.Get("webhook-id"))

		const third = "https://late.example/done"
		assert.Equal(t, id, r.submit("Idempotency-Key", "k", "Callback", third), "after the job's end")
		r.submit("Idempotency-Key", "k")
		r.Drain(t.Context(), r.mux)
		got = r.receiver.take()
		require.Len(t, got, 1, "the first URL has been told")
		assert.Equal(t, third, got[0].url)
		for _, job := range r.Enqueued() {
			assert.NotContains(t, job.DedupeKey, "example", "dedupe keys are stored as they are; the URL may hold a secret")
		}
	})
}

func TestJobWhoseStatusIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{}, succeed)
		// The first job came another way, and is not tracked.
		_, err := r.Enqueue(t.Context(), queue.Job{Kind: "import", Group: "a", DedupeKey: "k"})
		require.NoError(t, err)
		id := r.submit("Idempotency-Key", "k")
		result := r.Drain(t.Context(), r.mux)
		assert.Empty(t, result.Died)
		assert.Empty(t, result.Retried)
		assert.Empty(t, r.receiver.take())
		assert.Contains(t, r.log.String(), "no callback")
		assert.Contains(t, r.log.String(), id)
		assert.NotContains(t, r.log.String(), "hush")
	})
}

// A forged watcher must not tell one shop of another's job.
func TestWatcherOfAnotherGroupsJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{}, succeed)
		receipts, err := r.Enqueue(t.Context(), queue.Job{Kind: "import", Group: "b", Track: true})
		require.NoError(t, err)
		payload, err := json.Marshal(map[string]string{"jobId": receipts[0].ID, "url": url})
		require.NoError(t, err)
		_, err = r.Enqueue(t.Context(), queue.Job{Kind: jobhttp.CallbackKind, Group: "a", Payload: payload})
		require.NoError(t, err)
		result := r.Drain(t.Context(), r.mux)
		assert.Empty(t, r.receiver.take())
		require.Len(t, result.Died, 1)
		assert.Contains(t, result.Died[0].Error, "it is of another group")
	})
}

// What is stored of a callback is its own job, in the same group and class, and never holds anything up.
func TestWatcherIsAJobOfTheSameGroupAndClass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := queuetest.New(t)
		secrets, err := jobhttp.Secrets(secretA)
		require.NoError(t, err)
		callbacks, err := jobhttp.NewCallbacks(kit.Queue, secrets, jobhttp.CallbackConfig{MaxAttempts: 7})
		require.NoError(t, err)
		api, err := jobhttp.New(kit.Queue, func(*http.Request) (jobhttp.Submission, error) {
			return jobhttp.Submission{Job: queue.Job{Kind: "import", Group: "a", Key: "k", Class: queue.Bulk}, Callback: url}, nil
		}, ownShop, jobhttp.Config{Callbacks: callbacks})
		require.NoError(t, err)
		require.Equal(t, 202, serve(api, request(t, "POST", "/jobs", "")).Code)
		w := kit.RequireEnqueued(jobhttp.CallbackKind, nil)
		assert.Equal(t, "a", w.Group)
		assert.Equal(t, queue.Bulk, w.Class)
		assert.Empty(t, w.Key)
		assert.False(t, w.Track)
		assert.Equal(t, time.Second, w.Delay, "hardly any job ends sooner")
		assert.Equal(t, 7, w.MaxAttempts)
		assert.Greater(t, w.Deadline, 9*365*24*time.Hour)
	})
}

// 202 means that the callback is stored too. If it can't be, the job must not run beside the one that the client's next try makes.
func TestCallbackThatCantBeStored(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		headers []string
		want    queue.State
	}{
		{"without a key the job is cancelled", nil, queue.Cancelled},
		{"with one the next try finds it", []string{"Idempotency-Key", "k"}, queue.Pending},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &rig{t: t, broker: new(broker), log: new(logged)}
			r.jobs = newQueue(t, r.broker, queue.Config{})
			secrets, err := jobhttp.Secrets(secretA)
			require.NoError(t, err)
			callbacks, err := jobhttp.NewCallbacks(r.jobs, secrets, jobhttp.CallbackConfig{})
			require.NoError(t, err)
			r.Handler, err = jobhttp.New(r.jobs, accept, ownShop, jobhttp.Config{Callbacks: callbacks, Logger: slog.New(slog.NewTextHandler(r.log, nil))})
			require.NoError(t, err)
			kind := jobhttp.CallbackKind
			r.broker.failEnqueue.Store(&kind)
			w := r.do("POST", "/jobs", "{}", append(tt.headers, "Callback", url)...)
			requireProblem(t, w, 503, away)
			assert.NotContains(t, r.log.String(), "hush")
			kind = ""
			jobs, err := r.jobs.Jobs(t.Context(), queue.JobFilter{})
			require.NoError(t, err)
			if tt.want == queue.Cancelled {
				assert.Empty(t, jobs)
				return
			}
			require.Len(t, jobs, 1)
			first := jobs[0].Job.ID
			w = r.do("POST", "/jobs", "{}", append(tt.headers, "Callback", url)...)
			require.Equal(t, 202, w.Code)
			assert.Equal(t, first, object(t, w)["jobId"])
			jobs, err = r.jobs.Jobs(t.Context(), queue.JobFilter{Kind: jobhttp.CallbackKind})
			require.NoError(t, err)
			assert.Len(t, jobs, 1, "and the callback with it")
		})
	}
}

func TestCallbackURLThatIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{}, succeed)
		w := serve(r.Handler, request(t, "POST", "/jobs", "{}", "Callback", "http://169.254.169.254/latest/meta-data?hush"))
		requireProblem(t, w, 422, "The callback URL can't be used: it is http, not https.")
		w = serve(r.Handler, request(t, "POST", "/jobs", "{}", "Callback", "https://[::ffff:10.0.0.1]/"))
		requireProblem(t, w, 422, "The callback URL can't be used: its host is not public.")
		assert.Empty(t, r.Enqueued())
	})
	none := newRig(t, jobhttp.Config{})
	requireProblem(t, none.do("POST", "/jobs", "{}", "Callback", url), 422, "Callbacks are not offered here.")
	stats, err := none.jobs.Stats(t.Context())
	require.NoError(t, err)
	assert.Zero(t, stats.Jobs)
}

func TestErrorTextOfCallbacks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newCallRig(t, jobhttp.CallbackConfig{ErrorText: func(queue.Status) string { return "it failed" }},
			func(context.Context, queue.Job) error { return queue.Permanent(errors.New(secretText)) })
		r.submit()
		r.Drain(t.Context(), r.mux)
		got := r.receiver.take()
		require.Len(t, got, 1)
		assert.Contains(t, got[0].body, `"error":"it failed"`)
		assert.NotContains(t, got[0].body, secretText)
	})
}

// The secrets are asked for on each try: one that is missing today may be there tomorrow.
func TestSecretsPerGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := queuetest.New(t)
		rc := new(receiver)
		var asked []string
		callbacks, err := jobhttp.NewCallbacks(kit.Queue, func(_ context.Context, group, url string) ([]string, error) {
			asked = append(asked, group+" "+url)
			switch len(asked) {
			case 1:
				return nil, errors.New("vault is away")
			case 2:
				return nil, nil
			case 3:
				return []string{"whsec_short"}, nil
			}
			return []string{secretB}, nil
		}, jobhttp.CallbackConfig{Transport: rc})
		require.NoError(t, err)
		mux := muxOf(succeed)
		callbacks.Handle(mux)
		api, err := jobhttp.New(kit.Queue, accept, ownShop, jobhttp.Config{Callbacks: callbacks})
		require.NoError(t, err)
		require.Equal(t, 202, serve(api, request(t, "POST", "/jobs", "", "Callback", url)).Code)
		result := kit.Drain(t.Context(), mux)
		require.Len(t, result.Retried, 3)
		assert.Contains(t, result.Retried[0].Err.Error(), "vault is away")
		assert.Contains(t, result.Retried[1].Err.Error(), "there is no secret to sign callbacks with")
		assert.NotContains(t, result.Retried[2].Err.Error(), "whsec_short")
		assert.Equal(t, "a "+url, asked[0])
		got := rc.take()
		require.Len(t, got, 1)
		want, err := jobhttp.Sign([]string{secretB}, got[0].head.Get("webhook-id"), got[0].at, []byte(got[0].body))
		require.NoError(t, err)
		assert.Equal(t, want, got[0].head.Get("webhook-signature"))
	})
}

func TestNewCallbacksSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	q := newQueue(t, new(queue.Memory), queue.Config{})
	secrets, err := jobhttp.Secrets(secretA)
	require.NoError(t, err)
	for _, tt := range []struct {
		jobs    *queue.Queue
		secrets jobhttp.SecretFunc
		cfg     jobhttp.CallbackConfig
		want    string
	}{
		{nil, secrets, jobhttp.CallbackConfig{}, "jobhttp: NewCallbacks: jobs is nil"},
		{q, nil, jobhttp.CallbackConfig{}, "jobhttp: NewCallbacks: secrets is nil; use jobhttp.Secrets(secret)"},
		{q, secrets, jobhttp.CallbackConfig{Timeout: -1}, "jobhttp: NewCallbacks: CallbackConfig.Timeout is -1ns; want 0 for the default, or more"},
		{q, secrets, jobhttp.CallbackConfig{MaxAttempts: -1}, "jobhttp: NewCallbacks: CallbackConfig.MaxAttempts is -1; want 0 for the default, or more"},
		{newQueue(t, dumb{new(queue.Memory)}, queue.Config{}), secrets, jobhttp.CallbackConfig{}, "jobhttp: NewCallbacks: queue: Status: the memory broker: unsupported operation"},
	} {
		c, err := jobhttp.NewCallbacks(tt.jobs, tt.secrets, tt.cfg)
		assert.Nil(t, c)
		assert.EqualError(t, err, tt.want)
	}
}

// The queue may be away when the watcher looks: it looks again, and loses no attempt by it.
func TestBrokerIsAwayWhenTheWatcherLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(broker)
		q := newQueue(t, b, queue.Config{})
		rc := new(receiver)
		secrets, err := jobhttp.Secrets(secretA)
		require.NoError(t, err)
		callbacks, err := jobhttp.NewCallbacks(q, secrets, jobhttp.CallbackConfig{Transport: rc, MaxAttempts: 1})
		require.NoError(t, err)
		mux := muxOf(succeed)
		callbacks.Handle(mux)
		api, err := jobhttp.New(q, accept, ownShop, jobhttp.Config{Callbacks: callbacks})
		require.NoError(t, err)
		require.Equal(t, 202, serve(api, request(t, "POST", "/jobs", "", "Callback", url)).Code)
		b.failStatus.Store(true)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, q.Run(ctx, mux, queue.WorkerConfig{})) })
		time.Sleep(time.Hour)
		b.failStatus.Store(false)
		time.Sleep(time.Minute)
		assert.Len(t, rc.take(), 1)
		stop()
		wg.Wait()
	})
}

func ExampleSecrets() {
	_, err := jobhttp.Secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "hush")
	fmt.Println(err)
	// Output: jobhttp: callback secret 2 of 2 does not begin with whsec_
}
