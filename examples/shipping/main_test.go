package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/queue"
)

// What a user runs, in a quarter of the time.
func TestDemo(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l, err := run(t.Context(), options{Orders: 120, Seed: 7, Every: 20 * time.Millisecond, Step: 300 * time.Millisecond}, &out)
	require.NoError(t, err, "%s", &out)
	require.NoError(t, l.check(), "%s", &out)

	assert.Equal(t, 120, l.AtOnce+l.Later)
	assert.Equal(t, 120, l.Labels)
	assert.Positive(t, l.AtOnce)
	assert.Positive(t, l.Queued)
	assert.Equal(t, l.Queued, l.Later)
	assert.Positive(t, l.PutOff)
	assert.Zero(t, l.SpentOnOpen)
	require.Len(t, l.Carriers, 3)
	tortoise, brittle, meter := l.Carriers[0], l.Carriers[1], l.Carriers[2]
	for _, c := range []sold{tortoise, brittle} {
		assert.Positive(t, c.Trips, "%s was bad for longer than it takes to see that", c.Name)
		assert.Positive(t, c.HeldBack, "%s was left alone", c.Name)
		assert.Positive(t, c.Again, "of what %s sold some answers were late or lost", c.Name)
	}
	assert.Zero(t, meter.Trips, "a 429 is no failure")
	assert.Contains(t, out.String(), "orders with two labels         0\n")
	t.Logf("\n%s", &out)
}

// While its breaker is open a carrier gets no call, and shoppers get their answer at once.
func TestOpenBreakerQueues(t *testing.T) {
	t.Parallel()
	p := one(t, "brittle")
	p.cfg.OpenFor, p.cfg.MaxOpenFor = time.Hour, time.Hour
	r := newRig(t, p)
	r.requirePost("1001", http.StatusOK, `{"status":"shipped","label":"brittle-1"}`)
	r.requirePost("1001", http.StatusOK, `{"status":"shipped","label":"brittle-1"}`) // asked again

	r.open()
	_, before := p.look()
	queued := r.queued()
	for range 3 { // who asks again is not queued twice
		r.requirePost("2001", http.StatusAccepted, `{"status":"queued"}`)
		r.requirePost("2002", http.StatusAccepted, `{"status":"queued"}`)
	}
	assert.Len(t, r.queued(), len(queued)+2)
	_, after := p.look()
	assert.Equal(t, before.Calls, after.Calls, "no call has reached the carrier")

	r.work()
	jobs := r.queued()
	r.eventually(func() bool {
		s, err := r.app.jobs.Stats(t.Context())
		return err == nil && s.Waiting == len(jobs)
	})
	assert.GreaterOrEqual(t, r.app.counts.putOff.Load(), int64(len(jobs)))
	_, after = p.look()
	assert.Equal(t, before.Calls, after.Calls, "no job's call either")
	for _, j := range r.queued() {
		assert.Zero(t, j.Job.Attempts)
		assert.Equal(t, queue.Pending, j.State, "no attempt was spent")
		assert.Greater(t, time.Until(j.Due), 50*time.Minute, "it comes again when the breaker lets it try")
	}
	assert.Zero(t, r.app.counts.failed.Load())
}

// Forty jobs wait for a carrier that is down. One at a time tries it; only those spend an attempt. When it is back all ship, each once.
func TestOneTriesAndTheOthersWait(t *testing.T) {
	t.Parallel()
	const openFor = 300 * time.Millisecond
	p := one(t, "brittle")
	p.cfg.OpenFor, p.cfg.MaxOpenFor = openFor, openFor
	r := newRig(t, p)
	p.turn(true)
	for n := range 40 {
		r.requirePost(orderID(n), http.StatusAccepted, `{"status":"queued"}`)
	}
	require.Len(t, r.queued(), 40)
	r.eventually(func() bool { return r.breaker().State() != breaker.Closed })

	_, before := p.look()
	begun := time.Now()
	r.work()
	r.eventually(func() bool { _, n := p.look(); return n.Calls >= before.Calls+3 })
	r.eventually(func() bool { return r.app.counts.putOff.Load() >= 3*40 })
	spent := 0
	for _, j := range r.queued() {
		spent += j.Job.Attempts
	}
	_, n := p.look()
	trials := n.Calls - before.Calls
	assert.LessOrEqual(t, spent, trials)
	assert.LessOrEqual(t, trials, 1+int(time.Since(begun)/openFor), "one for each time that the breaker was open")

	p.turn(false)
	r.settle(40)
	_, n = p.look()
	r.eventually(func() bool { return r.app.counts.failed.Load() == int64(n.WhileBad-before.WhileBad) })
	assert.Zero(t, r.app.counts.spentOnOpen.Load())
	assert.Equal(t, breaker.Closed, r.breaker().State())
}

// A call that timed out has bought its label. The job gets the same one.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	p := one(t, "tortoise")
	r := newRig(t, p)
	p.turn(true)
	r.requirePost("1001", http.StatusAccepted, `{"status":"queued"}`)
	bought := p.labels("1001")
	require.Len(t, bought, 1)

	p.turn(false)
	r.work()
	r.settle(1)
	assert.Equal(t, bought, p.labels("1001"))
	assert.Equal(t, entry{carrier: "tortoise", queued: true, labels: bought}, r.app.book.entry("1001"))
	_, n := p.look()
	assert.Positive(t, n.Again)
}

// A carrier that asks for less is asked again when it says, by a request once, by a job until it sells, which spends no attempt.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	p := one(t, "meter")
	p.limit = rate.NewLimiter(0, 0)
	r := newRig(t, p)
	r.requirePost("1001", http.StatusAccepted, `{"status":"queued"}`)
	_, n := p.look()
	assert.Equal(t, 2, n.Throttled)

	r.work()
	r.eventually(func() bool { return r.app.counts.throttled.Load() > 0 })
	type result struct {
		status int
		body   string
		took   time.Duration
	}
	got := make(chan result, 1)
	_, n = p.look()
	go func() {
		begun := time.Now()
		status, body, _ := post(t.Context(), r.client, r.url, "1002", p.name)
		got <- result{status, body, time.Since(begun)}
	}()
	r.eventually(func() bool { _, now := p.look(); return now.Throttled > n.Throttled })
	p.limit.SetLimit(rate.Inf)
	r.settle(1)
	res := <-got
	assert.Equal(t, http.StatusOK, res.status, res.body)
	assert.GreaterOrEqual(t, res.took, time.Second)
	assert.Zero(t, r.app.counts.failed.Load())
	assert.Equal(t, breaker.Closed, r.breaker().State())
}

// Without a key each call buys, and the ledger shows it.
func TestLedgerFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	p := one(t, "brittle")
	r := newRig(t, p)
	for n := range 3 {
		r.requirePost(orderID(n), http.StatusOK, `"shipped"`)
	}
	report := newReport(io.Discard, r.app, r.all)
	l, err := report.ledger(t.Context(), 3, 0)
	require.NoError(t, err)
	require.NoError(t, l.check())

	l, err = report.ledger(t.Context(), 4, 0)
	require.NoError(t, err)
	require.ErrorContains(t, l.check(), "without a label [1004]")

	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/labels", strings.NewReader(`{"order":"1002"}`)))
	require.Equal(t, http.StatusOK, w.Code)
	l, err = report.ledger(t.Context(), 3, 0)
	require.NoError(t, err)
	require.ErrorContains(t, l.check(), "with two [1002]")

	r.app.book.shipped("1003", "another")
	l, err = report.ledger(t.Context(), 3, 1)
	require.NoError(t, err)
	require.ErrorContains(t, l.check(), "1 refused")
	require.ErrorContains(t, l.check(), "with another one than the app knows [1003]")
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, one(t, "brittle"))
	status, _, err := post(t.Context(), r.client, r.url, "1001", "nobody")
	require.NoError(t, err)
	assert.Equal(t, http.StatusNotFound, status)
	r.requirePost("1001", http.StatusOK, `{"status":"shipped","label":"brittle-1"}`)
	r.app.book.assign("1002", "other")
	r.requirePost("1002", http.StatusConflict, "the order goes by another carrier")
	assert.Empty(t, r.all[0].labels("1002"))
	_, err = run(t.Context(), options{}, io.Discard)
	assert.ErrorContains(t, err, "-orders is 0")
}

// rig is the app with one carrier, and without workers until work is called.
type rig struct {
	t      *testing.T
	app    *app
	all    []party
	url    string
	client *http.Client
}

// one is the party of that name, as the program has it.
func one(t *testing.T, name string) party {
	t.Helper()
	for _, p := range parties() {
		if p.name == name {
			return p
		}
	}
	t.Fatalf("no %s", name)
	return party{}
}

func newRig(t *testing.T, p party) *rig {
	t.Helper()
	a, err := newApp(filepath.Join(t.TempDir(), "jobs.db"), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, a.close()) })
	r := &rig{t: t, app: a, all: []party{p}, client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(r.client.CloseIdleConnections)
	r.url, err = open(t.Context(), a, r.all)
	require.NoError(t, err)
	return r
}

// work starts the workers, until the end of the test.
func (r *rig) work() {
	r.t.Helper()
	ctx, stop := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.app.run(ctx) }()
	r.t.Cleanup(func() {
		stop()
		assert.NoError(r.t, <-done)
	})
}

func (r *rig) breaker() *breaker.Breaker { return r.app.carriers[r.all[0].name].breaker }

// requirePost has an order shipped. body is a part of the answer's, or all of it if it is an object.
func (r *rig) requirePost(order string, wantStatus int, body string) {
	r.t.Helper()
	status, got, err := post(r.t.Context(), r.client, r.url, order, r.all[0].name)
	require.NoError(r.t, err)
	require.Equal(r.t, wantStatus, status, got)
	if strings.HasPrefix(body, "{") {
		require.Equal(r.t, body+"\n", got)
	} else {
		require.Contains(r.t, got, body)
	}
}

// open makes the carrier bad, and sends it orders until its breaker opens.
func (r *rig) open() {
	r.t.Helper()
	r.all[0].turn(true)
	for n := range 20 {
		if r.breaker().State() == breaker.Open {
			return
		}
		r.requirePost(orderID(5000+n), http.StatusAccepted, `{"status":"queued"}`)
	}
	r.t.Fatal("the breaker did not open")
}

func (r *rig) queued() []queue.JobInfo {
	r.t.Helper()
	jobs, err := r.app.jobs.Jobs(r.t.Context(), queue.JobFilter{})
	require.NoError(r.t, err)
	return jobs
}

func (r *rig) eventually(cond func() bool) {
	r.t.Helper()
	require.Eventually(r.t, cond, 30*time.Second, 5*time.Millisecond)
}

// settle waits until all is shipped, and checks that the first orders each have one label.
func (r *rig) settle(orders int) {
	r.t.Helper()
	r.app.settle(r.t.Context())
	l, err := newReport(io.Discard, r.app, r.all).ledger(r.t.Context(), orders, 0)
	require.NoError(r.t, err)
	require.NoError(r.t, l.check())
}
