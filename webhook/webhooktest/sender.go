package webhooktest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/webhook"
)

// What Shopify does with a webhook over HTTPS (shopify.dev, "Deliver webhooks through HTTPS").
const (
	connectTimeout = time.Second     // to connect
	totalTimeout   = 5 * time.Second // for the whole request
	maxFailures    = 8               // failures in a row after which a subscription is deleted
)

// retryAt says when, after the first try, each of the 8 redeliveries comes: "8 times over the next 4
// hours" with exponential backoff. The last is documented, the doubling before it is our reading of
// one observed timeline; each is jittered by up to a tenth.
var retryAt = [8]time.Duration{
	1 * time.Minute, 3 * time.Minute, 7 * time.Minute, 15 * time.Minute,
	31 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour,
}

// Config tunes a Sender. The zero value sends in real time, each delivery once. First tries begin in
// order, and overlap as Shopify's do; with MaxInFlight 1 they come one after the other.
type Config struct {
	// Speed is how many times faster than Shopify's the sender's clock runs: it divides the deliveries'
	// offsets, the time-outs and the pauses within a delivery. 0 means 1.
	Speed float64
	// RetrySpeed does the same for the waits between redeliveries, which span hours. 0 means Speed.
	RetrySpeed float64

	Seed      uint64  // of every random choice below
	Duplicate float64 // share of deliveries sent twice although answered 200, half of them at the same instant
	Reorder   float64 // share of deliveries that change places with the next one of their subject, each once: half at most
	Slow      float64 // share of first tries whose body dribbles in over 1 to 3 s
	Cut       float64 // share of first tries whose connection breaks within the body

	// NoRetry gives a delivery up at its first failure.
	NoRetry bool
	// KeepSubscriptions makes all subscriptions those of a shopify.app.toml, which Shopify never
	// deletes. Otherwise they are made by the Admin API, and deleted after 8 failures in a row.
	KeepSubscriptions bool

	MaxInFlight int               // requests under way at once; 0 means 256
	Transport   http.RoundTripper // nil means one of its own with Shopify's connect time-out and keep-alive
	OnAttempt   func(Attempt)     // called after every request, concurrently; nil for none
}

// Outgoing is a delivery to send, At after the start (divided by the Sender's speed).
type Outgoing struct {
	At       time.Duration
	Delivery webhook.Delivery
}

// Attempt is one request of a Sender and how it ended.
type Attempt struct {
	Shop, Topic, WebhookID string

	Number    int // 0 for the first try, 1 to 8 for redeliveries
	Duplicate bool
	Cut       bool // the Sender broke the connection
	Slow      bool // the Sender let the body dribble in
	Start     time.Time
	End       time.Time
	Status    int   // 0 if no answer came
	Err       error // why no answer came
}

// OK says whether Shopify would count the attempt as delivered: any 2xx in time.
func (a Attempt) OK() bool { return a.Status/100 == 2 }

// Ledger is what became of the deliveries of a Send.
type Ledger struct {
	Sent         int // deliveries tried at least once
	Acknowledged int // of these, answered 2xx in the end
	GivenUp      int // of these, failed 9 times, or once with NoRetry
	Dropped      int // not sent, or not sent again, because their subscription was deleted or ctx ended

	Attempts    int // requests in all
	Redelivered int // requests after a failed one
	Duplicated  int // requests for a delivery that was under way or acknowledged already
	Reordered   int // deliveries that changed places with a later one of their subject
	Deleted     int // subscriptions deleted
}

// Sender sends webhooks to one URL as Shopify would: connect in 1 s, answer in 5 s, 2xx or it failed (a
// redirect is a failure), 8 redeliveries over 4 hours with the same body and webhook ID. Subscriptions
// are per shop and topic. It is safe for concurrent use.
type Sender struct {
	url, secret string
	cfg         Config
	client      *http.Client
	slots       chan struct{}
	planned     atomic.Uint64 // deliveries: choices differ from Send to Send
}

// NewSender makes a Sender. It fails if a share is not within 0 and 1 or a number is negative.
func NewSender(url, secret string, cfg Config) (*Sender, error) {
	for name, share := range map[string]float64{"Duplicate": cfg.Duplicate, "Reorder": cfg.Reorder, "Slow": cfg.Slow, "Cut": cfg.Cut} {
		if !(share >= 0 && share <= 1) {
			return nil, fmt.Errorf("webhooktest: NewSender: Config.%s is %v; want a share from 0 to 1", name, share)
		}
	}
	if !(cfg.Speed >= 0) || !(cfg.RetrySpeed >= 0) || cfg.MaxInFlight < 0 {
		return nil, errors.New("webhooktest: NewSender: Config.Speed, RetrySpeed and MaxInFlight must not be negative")
	}
	cfg.Speed = cmp.Or(cfg.Speed, 1)
	cfg.RetrySpeed = cmp.Or(cfg.RetrySpeed, cfg.Speed)
	cfg.MaxInFlight = cmp.Or(cfg.MaxInFlight, 256)
	s := &Sender{url: url, secret: secret, cfg: cfg, slots: make(chan struct{}, cfg.MaxInFlight)}
	transport := cfg.Transport
	if transport == nil {
		transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: s.scaled(connectTimeout)}).DialContext,
			MaxIdleConnsPerHost: cfg.MaxInFlight,
		}
	}
	s.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

func (s *Sender) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) / s.cfg.Speed)
}

// Send sends deliveries in the order of their At and blocks until each is acknowledged, given up or
// dropped. What a delivery leaves empty is filled in as [NewRequest] does. When ctx ends, Send stops
// and returns what it has with ctx's error. It panics as [Fill] does.
func (s *Sender) Send(ctx context.Context, deliveries []Outgoing) (Ledger, error) {
	run := &run{Sender: s, subs: map[subscription]*subState{}}
	queue := s.plan(deliveries, &run.ledger)
	start := time.Now()
	for i, p := range queue {
		// The slot is taken here, so that what is due at the same time begins in order.
		if !sleep(ctx, time.Until(start.Add(s.scaled(p.at)))) || !run.slot(ctx) {
			run.count(func(l *Ledger) { l.Dropped += len(queue) - i })
			break
		}
		run.wg.Go(func() { run.deliver(ctx, p) })
	}
	run.wg.Wait()
	if t, ok := s.client.Transport.(*http.Transport); ok && s.cfg.Transport == nil {
		t.CloseIdleConnections()
	}
	return run.ledger, ctx.Err()
}

// plan is a delivery with the choices made for it beforehand, so that they depend on the seed alone and
// not on the course of events.
type plan struct {
	at   time.Duration
	d    webhook.Delivery
	rng  *rand.Rand
	dup  bool
	slow bool
	cut  bool
}

func (s *Sender) plan(deliveries []Outgoing, ledger *Ledger) []*plan {
	plans := make([]*plan, len(deliveries))
	first := s.planned.Add(uint64(len(deliveries))) - uint64(len(deliveries))
	for i, o := range deliveries {
		rng := rand.New(rand.NewPCG(s.cfg.Seed, first+uint64(i)))
		plans[i] = &plan{
			at: o.At, d: Fill(o.Delivery), rng: rng,
			dup: rng.Float64() < s.cfg.Duplicate, slow: rng.Float64() < s.cfg.Slow, cut: rng.Float64() < s.cfg.Cut,
		}
	}
	byTime := func(a, b *plan) int { return cmp.Compare(a.at, b.at) }
	slices.SortStableFunc(plans, byTime)

	// Reordering swaps the times of two neighbours of one subject. Only some deliveries have a
	// successor, so the share is taken of all and spread over those.
	previous := map[string]int{}
	var pairs [][2]int
	for i, p := range plans {
		subject := p.d.Shop + " " + p.d.Subject()
		if before, ok := previous[subject]; ok {
			pairs = append(pairs, [2]int{before, i})
			delete(previous, subject) // each delivery in one pair at most
			continue
		}
		previous[subject] = i
	}
	rng := rand.New(rand.NewPCG(s.cfg.Seed, 1<<63))
	rng.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	want := int(s.cfg.Reorder*float64(len(plans)) + 0.5)
	for _, pair := range pairs[:min(want, len(pairs))] {
		a, b := plans[pair[0]], plans[pair[1]]
		a.at, b.at = b.at, a.at
		plans[pair[0]], plans[pair[1]] = b, a
		ledger.Reordered++
	}
	return plans
}

type subscription struct{ shop, topic string }

// subState counts failures in a row. Deliveries overlap, so "in a row" is counted along the tries of
// each delivery since the subscription's last success: twenty deliveries that all fail at the same
// moment are one failure, as they would be with one delivery at a time.
type subState struct {
	successes int
	deleted   bool
}

// run is the state of one Send.
type run struct {
	*Sender
	wg sync.WaitGroup

	mu     sync.Mutex
	ledger Ledger
	subs   map[subscription]*subState
}

// slot waits for one of MaxInFlight, and says false if ctx ended first.
func (r *run) slot(ctx context.Context) bool {
	select {
	case r.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// deliver tries p until it is acknowledged, given up or dropped. The first try has its slot already.
func (r *run) deliver(ctx context.Context, p *plan) {
	sub := r.subscription(p)
	row, since := 0, 0 // failures in a row, since how many successes of the subscription
	var first time.Time
	for n := 0; n <= len(retryAt); n++ {
		if n > 0 {
			at := time.Duration(float64(retryAt[n-1]) * (0.9 + 0.2*p.rng.Float64()) / r.cfg.RetrySpeed)
			if !sleep(ctx, time.Until(first.Add(at))) {
				r.count(func(l *Ledger) { l.Dropped++ })
				return
			}
		}
		if r.isDeleted(sub) {
			if n == 0 {
				<-r.slots
			}
			r.count(func(l *Ledger) { l.Dropped++ })
			return
		}
		if n == 0 {
			first = time.Now()
			r.count(func(l *Ledger) { l.Sent++ })
			if p.dup && p.rng.IntN(2) == 0 {
				p.dup = false
				r.wg.Go(func() { r.attempt(ctx, p, Attempt{Duplicate: true}) })
			}
		} else {
			r.count(func(l *Ledger) { l.Redelivered++ })
		}
		a := r.attempt(ctx, p, Attempt{Number: n})
		if a.OK() {
			r.acknowledged(sub)
			if p.dup {
				r.wg.Go(func() {
					if sleep(ctx, r.scaled(time.Duration((0.2+2*p.rng.Float64())*float64(time.Second)))) {
						r.attempt(ctx, p, Attempt{Duplicate: true})
					}
				})
			}
			return
		}
		if r.failed(sub, &row, &since) {
			r.count(func(l *Ledger) { l.Dropped++ })
			return
		}
		if r.cfg.NoRetry {
			break
		}
	}
	r.count(func(l *Ledger) { l.GivenUp++ })
}

func (r *run) count(f func(*Ledger)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.ledger)
}

func (r *run) subscription(p *plan) *subState {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := subscription{p.d.Shop, p.d.Topic}
	if r.subs[key] == nil {
		r.subs[key] = &subState{}
	}
	return r.subs[key]
}

func (r *run) isDeleted(sub *subState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sub.deleted
}

func (r *run) acknowledged(sub *subState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sub.successes++
	r.ledger.Acknowledged++
}

// failed counts a failure and says whether the subscription is gone.
func (r *run) failed(sub *subState, row, since *int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if *since != sub.successes {
		*since, *row = sub.successes, 0
	}
	*row++
	if *row >= maxFailures && !r.cfg.KeepSubscriptions && !sub.deleted {
		sub.deleted = true
		r.ledger.Deleted++
	}
	return sub.deleted
}

// attempt makes one request.
func (r *run) attempt(ctx context.Context, p *plan, a Attempt) Attempt {
	first := a.Number == 0 && !a.Duplicate
	if !first && !r.slot(ctx) {
		a.Err = ctx.Err()
		return a
	}
	defer func() { <-r.slots }()
	a.Shop, a.Topic, a.WebhookID = p.d.Shop, p.d.Topic, p.d.WebhookID
	a.Cut = first && p.cut
	a.Slow = first && p.slow && !p.cut
	a.Start = time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.scaled(totalTimeout))
	defer cancel()
	whole := bytes.NewReader(p.d.Body)
	var body io.Reader = whole
	switch {
	case a.Cut:
		body = io.MultiReader(io.LimitReader(whole, int64(len(p.d.Body)/2)), cutReader{})
	case a.Slow:
		pause := r.scaled(time.Duration((1 + 2*p.rng.Float64()) * float64(time.Second) / slowParts))
		body = &slowReader{done: ctx.Done(), r: whole, part: len(p.d.Body)/slowParts + 1, pause: pause}
	}
	a.Status, a.Err = r.post(ctx, p.d, body)
	a.End = time.Now()
	r.mu.Lock()
	r.ledger.Attempts++
	if a.Duplicate {
		r.ledger.Duplicated++
	}
	r.mu.Unlock()
	if r.cfg.OnAttempt != nil {
		r.cfg.OnAttempt(a)
	}
	return a
}

func (r *run) post(ctx context.Context, d webhook.Delivery, body io.Reader) (int, error) {
	// A whole body may be sent again by net/http if the kept-alive connection turns out to be closed before
	// anything was written: that is no failure, to Shopify neither.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, body)
	if err != nil {
		return 0, err
	}
	req.ContentLength = int64(len(d.Body))
	sign(req.Header, r.secret, d)
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

var errCut = errors.New("webhooktest: connection cut on purpose")

type cutReader struct{}

func (cutReader) Read([]byte) (int, error) { return 0, errCut }

const slowParts = 8

// slowReader gives its bytes in parts with a pause before each.
type slowReader struct {
	done  <-chan struct{} // the request's end
	r     io.Reader
	part  int
	pause time.Duration
}

func (s *slowReader) Read(p []byte) (int, error) {
	t := time.NewTimer(s.pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.done:
		return 0, context.Canceled // the request's own error is what the client reports
	}
	return s.r.Read(p[:min(len(p), s.part)])
}

// sleep waits for d and says false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
