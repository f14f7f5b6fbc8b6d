package main

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

// app ships orders:
//
//	POST /orders/{id}/ship?carrier=tortoise
//
// answers 200 {"status":"shipped","label":"…"} or, when the carrier can't sell a label now, 202 {"status":"queued"}: the order is in a file then, and ships as
// soon as the carrier is back. Asking again is safe, whatever the answer was, or if there was none; by another carrier it is refused (409).
type app struct {
	db       *sql.DB
	jobs     *queue.Queue
	work     *queue.Mux
	client   *http.Client
	carriers map[string]*remote
	book     book
	counts   counts
}

// remote is a carrier as the app sees it.
type remote struct {
	name    string
	url     string
	breaker *breaker.Breaker
	client  *http.Client
}

// order is the payload of a job.
type order struct {
	ID string `json:"id"`
}

// answer is the body of an answer to a shopper.
type answer struct {
	Status string `json:"status"`
	Label  string `json:"label,omitempty"`
}

// counts are of the queue's jobs.
type counts struct {
	putOff      atomic.Int64 // by an open breaker, or a limit: no attempt was spent
	throttled   atomic.Int64 // by the carrier's 429: none was spent either
	failed      atomic.Int64 // attempts that were spent
	spentOnOpen atomic.Int64 // of these, on a call that the breaker did not let through
}

// newApp opens the file of the queue. Without carriers it has nothing to do; see add.
func newApp(file string, log *slog.Logger) (*app, error) {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return nil, err
	}
	a := &app{db: db, work: queue.NewMux(), carriers: map[string]*remote{}, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	a.book.orders = map[string]*entry{}
	a.jobs, err = queue.New(sqlqueue.New(db, sqlqueue.Config{Logger: log}), queue.Config{Hooks: a.hooks(), Logger: log})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return a, nil
}

// add gives the app a carrier: a breaker of its own, and a handler for the jobs that wait for it.
//
// Each path to the carrier goes through its breaker once: through CallOr for a request, through Guard for a job. A client with the breaker's Transport inside of that
// would count every call twice.
//
// What comes of a job that has not shipped: while the breaker is open Guard's error says when to come back, and the queue puts the job off for that long; so does a 429 with
// its Retry-After. Any other failure of the carrier is one of the job's attempts.
func (a *app) add(name, url string, cfg breaker.Config) error {
	b, err := breaker.New(name, cfg)
	if err != nil {
		return err
	}
	c := &remote{name, url, b, a.client}
	a.carriers[name] = c
	queue.Handle(a.work, c.kind(), breaker.Guard(b, func(ctx context.Context, o order) error {
		label, err := c.buy(ctx, o.ID)
		if err != nil {
			return err
		}
		a.book.shipped(o.ID, label)
		return nil
	}))
	return nil
}

func (c *remote) kind() string { return "ship/" + c.name }

// buy buys the label of an order. The key makes it safe to do so again: after an answer that came too late or was lost, for a request that is sent twice, and for
// a job whose first run was cut off.
func (c *remote) buy(ctx context.Context, order string) (label string, err error) {
	body, err := json.Marshal(map[string]string{"order": order})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/labels", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", "label/"+order)
	resp, err := c.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if err := breaker.CheckStatus(resp); err != nil {
		return "", err
	}
	var out struct{ Label string }
	err = json.NewDecoder(resp.Body).Decode(&out)
	return out.Label, err
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders/{id}/ship", a.ship)
	return mux
}

// ship answers a shopper, who does not wait for a carrier that is down.
func (a *app) ship(w http.ResponseWriter, r *http.Request) {
	c, id := a.carriers[r.URL.Query().Get("carrier")], r.PathValue("id")
	if c == nil {
		http.Error(w, "no such carrier", http.StatusNotFound)
		return
	}
	if !a.book.assign(id, c.name) { // the keys of two carriers know nothing of each other
		http.Error(w, "the order goes by another carrier", http.StatusConflict)
		return
	}
	// Idempotent, because the carrier knows the call by its key: while somebody waits a quick second try is worth it. Jobs have no need of that, the queue tries again.
	got, err := breaker.CallOr(r.Context(), c.breaker.Idempotent(),
		func(ctx context.Context) (answer, error) {
			label, err := c.buy(ctx, id)
			return answer{"shipped", label}, err
		},
		func(ctx context.Context, _ error) (answer, error) {
			return answer{Status: "queued"}, a.enqueue(ctx, c, id)
		})
	switch {
	case err != nil: // the queue could not take it: nothing was promised. (Or the carrier refuses this very order; a real app tells that apart by the status.)
		http.Error(w, "not shipped: ask again", http.StatusServiceUnavailable)
	case got.Label == "":
		writeJSON(w, http.StatusAccepted, got)
	default:
		a.book.shipped(id, got.Label)
		writeJSON(w, http.StatusOK, got)
	}
}

// enqueue has an order shipped later. One that waits already is not queued twice.
func (a *app) enqueue(ctx context.Context, c *remote, id string) error {
	payload, err := json.Marshal(order{id})
	if err != nil {
		return err
	}
	if _, err = a.jobs.Enqueue(ctx, queue.Job{Kind: c.kind(), Payload: payload, Key: "order/" + id, DedupeKey: "ship/" + id}); err != nil {
		return err
	}
	a.book.queued(id) // a worker may have shipped it by now
	return nil
}

// run works off what is queued, until ctx ends.
func (a *app) run(ctx context.Context) error {
	return a.jobs.Run(ctx, a.work, queue.WorkerConfig{
		Concurrency: 16,
		// Of a job whose own call has failed. What an open breaker or a 429 says about when to come back needs none. Real apps leave the default.
		Backoff: queue.Exponential(500*time.Millisecond, 2*time.Second),
	})
}

// settle waits until nothing is queued any more, for a minute at most.
func (a *app) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if s, err := a.jobs.Stats(ctx); err != nil || s.Jobs+s.Scheduled == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// close is for when run has returned.
func (a *app) close() error {
	a.client.CloseIdleConnections()
	return a.db.Close()
}

// hooks count what becomes of jobs.
func (a *app) hooks() queue.Hooks {
	return queue.Hooks{
		Ended: func(_ context.Context, _ queue.Job, err error, _ time.Duration) {
			switch s, ok := errors.AsType[*breaker.StatusError](err); {
			case errors.Is(err, breaker.ErrOpen), errors.Is(err, breaker.ErrLimited):
				a.counts.putOff.Add(1)
			case ok && s.Code == http.StatusTooManyRequests:
				a.counts.throttled.Add(1)
			}
		},
		Retried: func(_ context.Context, _ queue.Job, err error, _ time.Duration) {
			a.counts.failed.Add(1)
			if errors.Is(err, breaker.ErrOpen) {
				a.counts.spentOnOpen.Add(1)
			}
		},
	}
}

// book is what the app knows of its orders. It stands for your database.
type book struct {
	mu     sync.Mutex
	orders map[string]*entry
}

type entry struct {
	carrier string // that was asked for it first
	queued  bool
	labels  []string // one, if all is well
}

// assign has an order go by a carrier. It fails if it goes by another.
func (b *book) assign(id, carrier string) (ok bool) {
	b.change(id, func(e *entry) {
		e.carrier = cmp.Or(e.carrier, carrier)
		ok = e.carrier == carrier
	})
	return ok
}

func (b *book) shipped(id, label string) {
	b.change(id, func(e *entry) {
		if !slices.Contains(e.labels, label) {
			e.labels = append(e.labels, label)
		}
	})
}

func (b *book) queued(id string) { b.change(id, func(e *entry) { e.queued = true }) }

func (b *book) change(id string, f func(e *entry)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.orders[id]
	if e == nil {
		e = &entry{}
		b.orders[id] = e
	}
	f(e)
}

func (b *book) entry(id string) (e entry) {
	b.change(id, func(kept *entry) { e = *kept })
	return e
}

// count says how many orders have shipped, and how many wait.
func (b *book) count() (shipped, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.orders {
		switch {
		case len(e.labels) > 0:
			shipped++
		case e.queued:
			waiting++
		}
	}
	return shipped, waiting
}
