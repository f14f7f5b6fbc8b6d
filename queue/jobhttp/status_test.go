package jobhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

func TestStatusOverAJobsLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		stop := r.work(muxOf(func(ctx context.Context, job queue.Job) error {
			if job.Attempts == 0 {
				return errors.New("carrier is away")
			}
			assert.NoError(t, queue.ReportProgress(ctx, 40, "row <4>"))
			time.Sleep(time.Minute)
			return queue.SetResult(ctx, []byte(` {"rows": 10, "html": "</script>"} `))
		}))
		defer stop()
		id := r.enqueue(queue.Job{Kind: "import", Group: "a", Track: true, Delay: time.Minute})
		get := func() (*map[string]any, http.Header) {
			w := r.do("GET", "/jobs/"+id, "")
			require.Equal(t, 200, w.Code, w.Body)
			m := object(t, w)
			return &m, w.Header()
		}
		m, head := get()
		assert.Equal(t, &map[string]any{
			"jobId": id, "kind": "import", "status": "pending", "attempts": 0.0, "progress": 0.0,
			"createdAt": "2000-01-01T00:00:00Z", "dueAt": "2000-01-01T00:01:00Z",
		}, m)
		assert.Equal(t, "2", head.Get("Retry-After"))
		assert.Equal(t, "no-store", head.Get("Cache-Control"))
		assert.Equal(t, "application/json", head.Get("Content-Type"))
		assert.Equal(t, "nosniff", head.Get("X-Content-Type-Options"))

		time.Sleep(time.Minute)
		synctest.Wait()
		m, _ = get()
		assert.Equal(t, "retrying", (*m)["status"])
		assert.EqualValues(t, 1, (*m)["attempts"])

		time.Sleep(90 * time.Second)
		m, _ = get()
		assert.Equal(t, "processing", (*m)["status"])
		assert.EqualValues(t, 40, (*m)["progress"])
		assert.Equal(t, "row <4>", (*m)["note"])

		time.Sleep(time.Minute)
		m, head = get()
		assert.Equal(t, &map[string]any{
			"jobId": id, "kind": "import", "status": "succeeded", "attempts": 1.0, "progress": 100.0, "note": "row <4>",
			"result":    map[string]any{"rows": 10.0, "html": "</script>"},
			"createdAt": "2000-01-01T00:00:00Z", "dueAt": "2000-01-01T00:01:00Z", "endedAt": "2000-01-01T00:03:00Z",
		}, m)
		assert.Empty(t, head.Get("Retry-After"), "there is nothing to come back for")

		w := r.do("HEAD", "/jobs/"+id, "")
		assert.Equal(t, 200, w.Code)
	})
}

func TestResult(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, result, want string }{
		{"none", "", ""},
		{"an object", `{"a":1}`, `"result":{"a":1}`},
		{"a number with all its digits", `12345678901234567890.10`, `"result":12345678901234567890.10`},
		{"a text", `"1"`, `"result":"1"`},
		{"null", `null`, `"result":null`},
		{"over several lines", "{\n\"a\":\r\n1}", `"result":{"a":1}`},
		{"not JSON", `rows: 10`, `"resultBase64":"cm93czogMTA="`},
		{"two values", `1 2`, `"resultBase64":"MSAy"`},
		{"JSON in no Unicode", "\"\xff\"", `"resultBase64":"Iv8i"`},
		{"bytes", "\x00\xff", `"resultBase64":"AP8="`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, jobhttp.Config{})
				id := r.submit()
				stop := r.work(muxOf(func(ctx context.Context, _ queue.Job) error { return queue.SetResult(ctx, []byte(tt.result)) }))
				synctest.Wait()
				stop()
				body := r.do("GET", "/jobs/"+id, "").Body.String()
				assert.NotContains(t, body, "\n", "events rely on it")
				if tt.want == "" {
					assert.NotContains(t, body, "result")
					return
				}
				assert.Contains(t, body, tt.want+",")
			})
		})
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	as := func(cfg jobhttp.Config) map[string]any {
		r := newRig(t, cfg)
		receipt, err := r.jobs.Bury(t.Context(), queue.Job{Kind: "import", Group: "a", Track: true}, errors.New("dial 10.0.0.7: refused"))
		require.NoError(t, err)
		return object(t, r.do("GET", "/jobs/"+receipt.ID, ""))
	}
	m := as(jobhttp.Config{})
	assert.Equal(t, "dead", m["status"])
	assert.Equal(t, "dial 10.0.0.7: refused", m["error"])
	m = as(jobhttp.Config{ErrorText: func(st queue.Status) string { return fmt.Sprintf("the %s failed", st.Kind) }})
	assert.Equal(t, "the import failed", m["error"])
	m = as(jobhttp.Config{ErrorText: func(queue.Status) string { return "" }})
	assert.NotContains(t, m, "error")
}

// 404 for what can't have expired, 410 for what may have, by the time in the ID alone; whatever is not an ID never
// reaches the broker.
func TestUnknownAndExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1000 * time.Hour)
		r := newRig(t, jobhttp.Config{StatusFor: 10 * time.Hour})
		id := r.submit()
		stop := r.work(muxOf(func(context.Context, queue.Job) error { return nil }))
		defer stop()
		time.Sleep(10*time.Hour - time.Millisecond)
		assert.Equal(t, 200, r.do("GET", "/jobs/"+id, "").Code)
		time.Sleep(time.Millisecond)
		other := r.enqueue(queue.Job{Kind: "import", Group: "a"}) // not tracked
		for _, tt := range []struct {
			name, id string
			status   int
			detail   string
		}{
			{"expired", id, 410, ended},
			{"not tracked", other, 404, noJob},
			{"malformed", id[1:], 404, noJob},
			{"lower case", strings.ToLower(id), 404, noJob},
			{"of the future", "VVVVVVVVVVVVVVVVVVVVVVVVVS", 404, noJob},
			{"never was, young", other[:25] + "0", 404, noJob},
			{"never was, old", "00000000000000000000000000", 410, ended},
			{"not ASCII", "%00%ff%0d%0a", 404, noJob},
			{"very long", strings.Repeat("0", 5000), 404, noJob},
		} {
			for _, ask := range []func() (method, target string){
				func() (string, string) { return "GET", "/jobs/" + tt.id },
				func() (string, string) { return "DELETE", "/jobs/" + tt.id },
				func() (string, string) { return "GET", "/jobs/" + tt.id + "/events" },
			} {
				before := r.broker.asked.Load()
				method, target := ask()
				requireProblem(t, r.do(method, target, ""), tt.status, tt.detail)
				if _, ok := queue.IDTime(tt.id); !ok {
					assert.Equal(t, before, r.broker.asked.Load(), tt.name)
				}
			}
		}
		stop()
	})
}

// Who may not see a job gets, to the byte, what they would get if there were none of that ID: also when the job is so
// old that an unknown ID would be 410.
func TestOtherShopsLearnNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		id := r.submit()
		never := id[:25] + map[bool]string{true: "4", false: "0"}[strings.HasSuffix(id, "0")]
		for _, age := range []time.Duration{0, 23 * time.Hour, 2 * time.Hour, 1000 * time.Hour} {
			time.Sleep(age)
			for _, tt := range []struct{ method, tail string }{{"GET", ""}, {"HEAD", ""}, {"DELETE", ""}, {"GET", "/events"}, {"HEAD", "/events"}} {
				theirs := r.do(tt.method, "/jobs/"+id+tt.tail, "", "Shop", "b")
				none := r.do(tt.method, "/jobs/"+never+tt.tail, "", "Shop", "b")
				assert.Contains(t, []int{404, 410}, theirs.Code)
				assert.Equal(t, none.Code, theirs.Code)
				assert.Equal(t, none.Header(), theirs.Header())
				assert.Equal(t, none.Body.String(), theirs.Body.String())
			}
			st, err := r.jobs.Status(t.Context(), id)
			require.NoError(t, err)
			assert.Equal(t, queue.Pending, st.State, "nobody has cancelled it")
		}
		assert.Equal(t, 200, r.do("GET", "/jobs/"+id, "").Code)
	})
}

func TestAllowGetsRequestAndStatus(t *testing.T) {
	t.Parallel()
	var methods []string
	r := newRigOf(t, accept, func(r *http.Request, st queue.Status) bool {
		methods = append(methods, r.Method+" "+st.Group+" "+st.Kind)
		return true
	}, jobhttp.Config{})
	id := r.submit()
	r.do("GET", "/jobs/"+id, "")
	r.do("DELETE", "/jobs/"+id, "")
	r.do("HEAD", "/jobs/"+id+"/events", "")
	assert.Equal(t, []string{"GET a import", "DELETE a import", "HEAD a import"}, methods)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, jobhttp.Config{})
		waiting := r.submit()
		w := r.do("DELETE", "/jobs/"+waiting, "")
		require.Equal(t, 200, w.Code)
		assert.Equal(t, "cancelled", object(t, w)["status"])
		assert.Equal(t, "2000-01-01T00:00:00Z", object(t, w)["endedAt"])
		again := r.do("DELETE", "/jobs/"+waiting, "")
		assert.Equal(t, 200, again.Code, "a DELETE that is sent again")
		assert.Equal(t, w.Body.String(), again.Body.String())

		done := r.submit()
		told := make(chan error, 1)
		stop := r.work(muxOf(func(ctx context.Context, job queue.Job) error {
			if len(job.Payload) > 0 {
				return nil
			}
			<-ctx.Done()
			told <- context.Cause(ctx)
			return ctx.Err()
		}))
		defer stop()
		synctest.Wait()
		w = r.do("DELETE", "/jobs/"+done, "")
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "succeeded", object(t, w)["status"], "it had ended before")

		running := r.enqueue(queue.Job{Kind: "import", Group: "a", Track: true})
		synctest.Wait()
		w = r.do("DELETE", "/jobs/"+running, "")
		require.Equal(t, 202, w.Code, w.Body)
		assert.Equal(t, "processing", object(t, w)["status"])
		assert.Equal(t, "2", w.Header().Get("Retry-After"))
		require.ErrorIs(t, <-told, queue.ErrCancelled)
		synctest.Wait()
		assert.Equal(t, "cancelled", object(t, r.do("GET", "/jobs/"+running, ""))["status"])
	})
}

func TestBrokerThatCantTell(t *testing.T) {
	t.Parallel()
	r := newRig(t, jobhttp.Config{})
	id := r.submit()
	r.broker.failCancel.Store(true)
	requireProblem(t, r.do("DELETE", "/jobs/"+id, ""), 503, away)
	r.broker.failStatus.Store(true)
	for _, tt := range []struct{ method, target string }{{"GET", "/jobs/" + id}, {"DELETE", "/jobs/" + id}, {"GET", "/jobs/" + id + "/events"}} {
		w := r.do(tt.method, tt.target, "")
		requireProblem(t, w, 503, away)
		assert.Equal(t, "2", w.Header().Get("Retry-After"))
	}
	assert.Contains(t, r.log.String(), secretText)
	assert.Contains(t, r.log.String(), id)
}

// A purge between the look and the cancel: the job is unknown then.
func TestJobThatGoesWhileItIsCancelled(t *testing.T) {
	t.Parallel()
	var r *rig
	r = newRigOf(t, accept, func(req *http.Request, st queue.Status) bool {
		_, err := r.jobs.Purge(req.Context(), queue.PurgeFilter{Group: st.Group})
		return err == nil
	}, jobhttp.Config{})
	requireProblem(t, r.do("DELETE", "/jobs/"+r.submit(), ""), 404, noJob)
}
