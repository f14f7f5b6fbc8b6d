package jobhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

// An import over HTTP: 202, then ask.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	mux := queue.NewMux()
	mux.Handle("import", func(ctx context.Context, _ queue.Job) error {
		defer stop()
		return queue.SetResult(ctx, []byte(`{"rows":2}`))
	})

	type products struct{ SKUs []string }
	accept := jobhttp.JSON(func(r *http.Request, in products) (jobhttp.Submission, error) {
		if len(in.SKUs) == 0 {
			return jobhttp.Submission{}, &jobhttp.Error{Status: 422, Detail: "There are no SKUs."}
		}
		return jobhttp.Submission{Job: queue.Job{
			Kind:      "import",
			Group:     r.Header.Get("Shop"), // as your middleware has authenticated it
			Payload:   []byte(strings.Join(in.SKUs, "\n")),
			DedupeKey: r.Header.Get("Idempotency-Key"), // sent again, it is the same job
		}}, nil
	})
	ownShop := func(r *http.Request, st queue.Status) bool { return st.Group == r.Header.Get("Shop") }
	api, err := jobhttp.New(jobs, accept, ownShop, jobhttp.Config{})
	if err != nil {
		panic(err)
	}

	ask := func(method, target, shop, body string) (location string) {
		r := httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
		r.Header.Set("Shop", shop)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "1")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Code, varies.ReplaceAllString(w.Body.String(), "…"))
		return w.Header().Get("Location")
	}
	ask("POST", "/jobs", "a", `{"skus":[]}`)
	at := ask("POST", "/jobs", "a", `{"skus":["hat","coat"]}`)
	if err := jobs.Run(ctx, mux, queue.WorkerConfig{}); err != nil {
		panic(err)
	}
	ctx = context.Background()
	ask("GET", at, "a", "")
	ask("GET", at, "b", "")
	// Output:
	// 422 {"type":"about:blank","title":"Unprocessable Entity","status":422,"detail":"There are no SKUs."}
	// 202 {"jobId":"…","status":"pending"}
	// 200 {"jobId":"…","kind":"import","status":"succeeded","attempts":0,"progress":100,"result":{"rows":2},"createdAt":"…","dueAt":"…","endedAt":"…"}
	// 404 {"type":"about:blank","title":"Not Found","status":404,"detail":"There is no job of this ID, or none that you may see."}
}

// varies is what differs from run to run.
var varies = regexp.MustCompile(`[0-9A-V]{26}|\d{4}-[^"]+Z`)

// A callback is a signed POST to the URL of the submission, once the job has ended.
func ExampleCallbacks() {
	ctx, stop := context.WithCancel(context.Background())
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path, len(strings.Fields(r.Header.Get("webhook-signature"))), "signatures")
		stop()
	}))
	defer receiver.Close()

	secrets, err := jobhttp.Secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MTExMTExMTExMTExMTExMTExMTExMTEx") // new, old
	if err != nil {
		panic(err)
	}
	callbacks, err := jobhttp.NewCallbacks(jobs, secrets, jobhttp.CallbackConfig{AllowHTTP: true, AllowPrivate: true}) // for this example only
	if err != nil {
		panic(err)
	}
	mux := queue.NewMux()
	mux.Handle("import", func(context.Context, queue.Job) error { return nil })
	callbacks.Handle(mux)

	accept := func(r *http.Request) (jobhttp.Submission, error) {
		return jobhttp.Submission{Job: queue.Job{Kind: "import"}, Callback: r.URL.Query().Get("callback")}, nil
	}
	api, err := jobhttp.New(jobs, accept, jobhttp.Anyone, jobhttp.Config{Callbacks: callbacks})
	if err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/jobs?callback="+receiver.URL+"/done", http.NoBody))
	fmt.Println(w.Code)
	fmt.Println(jobs.Run(ctx, mux, queue.WorkerConfig{}))
	// Output:
	// 202
	// POST /done 2 signatures
	// <nil>
}
