package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

const (
	topic = "orders/create"

	// turnTime is how long one receiver runs before the next one's turn: so short that the noise of a
	// shared machine hits all of them alike.
	turnTime = 10 * time.Millisecond
	// sampleEvery is how often a sink compares the whole body and not only its length.
	sampleEvery = 512
	// memoryRuns is over how many deliveries memory is averaged.
	memoryRuns = 1000

	// liveHeap is kept alive through the run, as a server's own data would be. Without it the collector
	// runs hundreds of times a second and bills the peers, which allocate more, too much.
	liveHeap = 64 << 20

	maxBytes  = 400 // a delivery's allocations beyond its body
	maxAllocs = 6
)

// benchWebhook compares webhook.Handler with code by hand and peer libraries, first in process, then
// over loopback.
func benchWebhook(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object per case and line")
	rounds := flags.Int("rounds", 20, "`rounds` over which medians are taken")
	length := flags.Duration("time", 500*time.Millisecond, "`length` of a round")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *length <= 0 {
		return errors.New("bench: -rounds and -time must be positive")
	}
	live := make([]byte, liveHeap)
	defer runtime.KeepAlive(live)
	rep := &report{out: out, json: *asJSON}
	rep.head()
	for _, size := range []struct {
		bytes int
		hand  want // against the code by hand, whose fixed cost weighs more in a small body
	}{
		{1 << 10, want{"<=", 1.5}},
		{10 << 10, want{"<=", 1.15}},
		{100 << 10, want{"<=", 1.15}},
	} {
		err := benchHandlers(ctx, rep, receivers(), payload(size.bytes), time.Duration(*rounds)**length, size.hand)
		if err != nil {
			return err
		}
	}
	if err := benchLoopback(ctx, rep, payload(10<<10), *rounds, *length); err != nil {
		return err
	}
	return rep.finish()
}

// payload is an order cut or repeated to a size: nothing here decodes it.
func payload(size int) []byte {
	order := webhooktest.Payload(topic)
	return bytes.Repeat(order, size/len(order)+1)[:size]
}

// benchHandlers calls each receiver's ServeHTTP by turns for total altogether, and reports the first
// of them against the others.
func benchHandlers(ctx context.Context, rep *report, list []receiver, body []byte, total time.Duration, hand want) error {
	trials := make([]*trial, len(list))
	for i, rc := range list {
		var err error
		if trials[i], err = newTrial(rc, body); err != nil {
			return fmt.Errorf("bench: %s: %w", rc.name, err)
		}
		trials[i].measureMemory()
		trials[i].calibrate()
	}
	turns := max(1, int(total/turnTime)/len(trials))
	order := slices.Clone(trials)
	for range turns {
		// Who follows a receiver that fills the caches with garbage is a percent or two slower.
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, t := range order {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.turn(); err != nil {
				return fmt.Errorf("bench: %s: %w", t.name, err)
			}
		}
	}

	ours := trials[0]
	name := fmt.Sprintf("handler %d KB ", len(body)>>10)
	for i, peer := range trials[1:] {
		w := want{"<", 1}
		if i == 0 {
			w = hand
		}
		rep.add(name+"vs "+peer.name, "ns", median(ours.turns), median(peer.turns), w, errors.Join(ours.problem(), peer.problem()))
	}
	rep.add(name+"bytes vs limit", "B", ours.bytes, maxBytes, want{"<", 1}, ours.problem())
	rep.add(name+"allocations vs limit", "allocs", ours.allocs, maxAllocs, want{"<=", 1}, ours.problem())
	return nil
}

// trial is one receiver at work on one body.
type trial struct {
	receiver
	handler http.Handler
	sink    *sink
	reader  *bytes.Reader
	req     *http.Request
	w       discard

	refuses  error // nil if it refused a wrong signature
	requests int64
	failures int64 // answers other than 200
	batch    int   // deliveries that fill a turn
	turns    []float64
	bytes    float64 // a delivery
	allocs   float64
}

func newTrial(rc receiver, body []byte) (*trial, error) {
	t := &trial{receiver: rc, sink: &sink{want: body}, reader: bytes.NewReader(body), w: discard{header: http.Header{}}}
	t.req = httptest.NewRequest(http.MethodPost, "/webhooks", t.reader)
	var err error
	if t.handler, err = rc.handler(t.sink.take); err != nil {
		return nil, err
	}
	if err := t.sign(); err != nil {
		return nil, err
	}
	t.refuses = checkRefusal(t.handler, t.sink, t.req.Header, body)
	return t, nil
}

// sign makes the headers anew, since a signature may be good for some minutes only.
func (t *trial) sign() error {
	h, err := t.headers(t.sink.want)
	t.req.Header = h
	return err
}

// serve makes n requests.
func (t *trial) serve(n int) {
	for range n {
		t.reader.Reset(t.sink.want)
		t.w.status = 0
		t.handler.ServeHTTP(&t.w, t.req)
		if t.w.status != http.StatusOK {
			t.failures++
		}
	}
	t.requests += int64(n)
}

// calibrate finds out how many deliveries fill a turn.
func (t *trial) calibrate() {
	for n := 1; ; n *= 2 {
		start := time.Now()
		t.serve(n)
		if took := time.Since(start); took > turnTime/4 {
			t.batch = max(1, int(int64(n)*int64(turnTime)/int64(took)))
			return
		}
	}
}

// turn takes one measurement. It starts with the garbage of the others collected, and with a few
// requests that fill pools again.
func (t *trial) turn() error {
	if err := t.sign(); err != nil {
		return err
	}
	runtime.GC()
	t.serve(4)
	start := time.Now()
	t.serve(t.batch)
	t.turns = append(t.turns, float64(time.Since(start))/float64(t.batch))
	return nil
}

func (t *trial) measureMemory() {
	runtime.GC()
	t.serve(4)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	t.serve(memoryRuns)
	runtime.ReadMemStats(&after)
	t.bytes = float64(after.TotalAlloc-before.TotalAlloc) / memoryRuns
	t.allocs = float64(after.Mallocs-before.Mallocs) / memoryRuns
}

// problem says why the trial's figures mean nothing, if they don't.
func (t *trial) problem() error {
	switch {
	case t.refuses != nil:
		return fmt.Errorf("%s %w", t.name, t.refuses)
	case t.failures > 0:
		return fmt.Errorf("%s answered %d of %d requests other than 200", t.name, t.failures, t.requests)
	}
	if err := t.sink.check(t.requests); err != nil {
		return fmt.Errorf("%s %w", t.name, err)
	}
	return nil
}

// sink stands in for a queue: it counts the deliveries and compares them with what was sent.
type sink struct {
	want  []byte
	calls atomic.Int64
	wrong atomic.Int64
}

func (s *sink) take(body []byte) {
	n := s.calls.Add(1)
	if len(body) != len(s.want) || n%sampleEvery == 0 && !bytes.Equal(body, s.want) {
		s.wrong.Add(1)
	}
}

// check says whether the sink saw as many deliveries as there were requests, and the right ones.
func (s *sink) check(requests int64) error {
	if n := s.calls.Load(); n != requests {
		return fmt.Errorf("gave its sink %d deliveries for %d requests", n, requests)
	}
	if n := s.wrong.Load(); n > 0 {
		return fmt.Errorf("gave its sink a wrong body %d times", n)
	}
	return nil
}

// checkRefusal sends body with one bit changed: a handler that takes that measures nothing.
func checkRefusal(h http.Handler, s *sink, header http.Header, body []byte) error {
	forged := bytes.Clone(body)
	forged[len(forged)/2] ^= 1
	r := httptest.NewRequest(http.MethodPost, "/webhooks", bytes.NewReader(forged))
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code/100 == 2 || s.calls.Load() != 0 {
		return fmt.Errorf("took a body with a wrong signature (answer %d)", w.Code)
	}
	return nil
}

// discard is a ResponseWriter that keeps the status alone and can be used again.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
