package shopify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/breaker"
)

// Config tunes a Transport, and a Client over it. The zero value is valid.
type Config struct {
	// Version of the Admin API that a Client calls, and by whose schema costs are computed for requests that name none that is known; "" means 2026-04.
	Version string
	// App names the buckets, with the shop: processes that share a Limiter's Buckets and are not the same app need names of their own.
	App string
	// Limiter keeps to the quota; nil means one of the Transport's own, by the LimiterConfig's defaults.
	Limiter *Limiter
	// Base sends requests; nil means an http.Transport of its own, which keeps 64 connections to a host alive.
	Base http.RoundTripper
	// Breakers has a Breaker for each host; nil means one with the defaults of package breaker, for the 1000 hosts that were used last. It has to have breaker.NoTimeout and no SlowCall: a call waits for quota
	// within it, which is no fault of the host's. Timeout is for the host.
	Breakers *breaker.Group
	// Timeout is how long one attempt may take, from its being sent to its answer's end, without the wait for quota; 0 means 30 s.
	Timeout time.Duration
	// MaxThrottled is how often a call that was throttled all the same is sent again before its answer is returned; 0 means 3.
	MaxThrottled int
	// MaxAnswer is the longest answer in bytes that is read; 0 means 64 MiB. A longer one is an error that is Permanent: it would come again as long.
	MaxAnswer int64
	// OnNotice is told of answers that another version gave than was asked for, and of calls that Shopify calls deprecated; nil for none. It is called from many goroutines.
	OnNotice func(Notice)
	// OnAnswer is told of every answer; nil for none. It is called from many goroutines.
	OnAnswer func(Answered)
}

// Notice is what an answer says beside the answer.
type Notice struct {
	Shop       string
	Path       string // of the request
	Operation  string // the name of the GraphQL operation; "" if it has none
	Version    string // asked for
	Served     string // of the answer: not Version if that is gone, and Shopify fell forward to the oldest that it has
	Deprecated string // why the call is deprecated, a URL; "" if it is not
}

// Answered is what became of one request that was sent.
type Answered struct {
	Shop      string
	Operation string // the name of the GraphQL operation; "" for REST
	Status    int
	Requested float64 // what was reserved: points, or one call of REST
	Actual    float64 // what it took; less than 0 where the answer does not say
	Left      float64 // in the bucket
	Throttled bool
	Waited    time.Duration // for quota
	Took      time.Duration // from its being sent to its answer's end
}

// Transport is an http.RoundTripper that keeps to the quota of each shop, sends again what may be, and leaves a shop alone that is down. It is for any client of the Admin API, GraphQL or REST; other requests
// pass through untouched. It is safe for concurrent use.
//
// Of GraphQL requests the cost is computed and waited for; a query that costs more than Shopify takes fails before it is sent: ErrTooExpensive. A request that gets no quota in time fails with ErrQuota;
// one to a host whose breaker is open with breaker.ErrOpen. All of these come wrapped in a *url.Error from an http.Client, and errors.Is and As see them.
//
// A throttled call whose answer says what is left, so that it is Shopify's and had no effect, is sent again when there is quota. Queries, mutations that have @idempotent at each of their fields, and REST
// requests other than POST and PATCH are also sent again after other 429s, 5xx, INTERNAL_SERVER_ERROR and broken connections, as the Breakers' Retry says; other mutations never are: they may have taken effect.
type Transport struct {
	cfg      Config
	base     http.RoundTripper
	breakers *breaker.Group

	mu    sync.Mutex
	costs map[string]*Costs // by version
}

var _ http.RoundTripper = (*Transport)(nil)

// defaultVersion is what a zero Config means.
const defaultVersion = "2026-04"

// manyShops is for how many hosts breakers are kept.
const manyShops = 1000

// NewTransport makes a Transport.
//
// It fails if a number is negative, or Version is none.
func NewTransport(cfg Config) (*Transport, error) {
	if cfg.Timeout < 0 || cfg.MaxThrottled < 0 || cfg.MaxAnswer < 0 {
		return nil, errors.New("shopify: Config.Timeout, MaxThrottled and MaxAnswer must not be negative")
	}
	cfg.Version = cmp.Or(cfg.Version, defaultVersion)
	if !version.MatchString(cfg.Version) {
		return nil, fmt.Errorf("shopify: Config.Version is %q; want one such as 2026-04, or unstable", cfg.Version)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.MaxThrottled = cmp.Or(cfg.MaxThrottled, 3)
	cfg.MaxAnswer = cmp.Or(cfg.MaxAnswer, 64<<20)
	if cfg.Limiter == nil {
		l, err := NewLimiter(LimiterConfig{})
		if err != nil {
			return nil, err
		}
		cfg.Limiter = l
	}
	t := &Transport{cfg: cfg, base: cfg.Base, breakers: cfg.Breakers, costs: map[string]*Costs{}}
	if t.base == nil {
		t.base = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	}
	if t.breakers == nil {
		group, err := breaker.NewGroup("shopify", manyShops, breaker.Config{Timeout: breaker.NoTimeout})
		if err != nil {
			return nil, err
		}
		t.breakers = group
	}
	if _, err := t.costsOf(cfg.Version); err != nil {
		return nil, err
	}
	return t, nil
}

var version = regexp.MustCompile(`^([0-9]{4}-(01|04|07|10)|unstable)$`)

// costsOf are the costs of a version; of one that is none, of the Config's.
func (t *Transport) costsOf(v string) (*Costs, error) {
	if !version.MatchString(v) {
		v = t.cfg.Version
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.costs[v]; c != nil {
		return c, nil
	}
	c, err := NewCosts(v)
	if err == nil {
		t.costs[v] = c
	}
	return c, err
}

// exchange is a request to the Admin API, and what is known of it.
type exchange struct {
	shop       string // the host
	path       string
	version    string
	isGraphQL  bool
	graphql    *Request // nil for REST, and for GraphQL that can't be read
	operation  string
	cost       float64
	costs      *Costs
	repeatable bool
	body       []byte // of the request
}

// requestKey is the context's key of a *Request whose text is the request's body: a Client's.
type requestKey struct{}

// RoundTrip implements http.RoundTripper. The answer's body has been read: it costs no more to leave it.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x, err := t.open(req)
	if err != nil {
		return nil, err
	}
	if x == nil {
		return t.base.RoundTrip(req)
	}
	r, err := t.do(req, x)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(r.body))
	r.Request = req
	return r.Response, nil
}

// CloseIdleConnections is for http.Client.CloseIdleConnections.
func (t *Transport) CloseIdleConnections() {
	if next, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}

// open reads a request. It is nil if it is none to the Admin API.
func (t *Transport) open(req *http.Request) (*exchange, error) {
	_, rest, versioned := strings.Cut(req.URL.Path, "/admin/api/")
	v, resource, _ := strings.Cut(rest, "/")
	// Without a version it is REST as it once was; Shopify serves it by the oldest version that it has.
	if !versioned && (!strings.HasPrefix(req.URL.Path, "/admin/") || !strings.HasSuffix(req.URL.Path, ".json")) {
		return nil, nil //nolint:nilnil // no request of ours
	}
	if rest == "graphql.json" {
		v, resource = "", rest
	}
	x := &exchange{shop: hostOf(req), path: req.URL.Path, version: v, cost: 1}
	switch req.Method {
	case http.MethodPost, http.MethodPatch:
	default:
		x.repeatable = true
	}
	if req.Body != nil && req.Body != http.NoBody {
		b, err := io.ReadAll(req.Body)
		if cerr := req.Body.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return nil, fmt.Errorf("shopify: reading the request's body: %w", err)
		}
		x.body = b
	}
	if resource != "graphql.json" || req.Method != http.MethodPost {
		return x, nil
	}
	return x, t.openGraphQL(req, x)
}

// hostOf is a request's host, in one form.
func hostOf(req *http.Request) string {
	return strings.TrimSuffix(strings.ToLower(cmp.Or(req.Host, req.URL.Host)), ":443")
}

// openGraphQL reads a GraphQL request, and finds what it costs. What can't be read or computed is sent as it is, for Shopify to say what is wrong: it counts as one point.
func (t *Transport) openGraphQL(req *http.Request, x *exchange) error {
	x.isGraphQL = true
	if r, ok := req.Context().Value(requestKey{}).(*Request); ok {
		x.graphql = r
	} else {
		var r Request
		if err := json.Unmarshal(x.body, &r); err != nil {
			return nil //nolint:nilerr // Shopify's to say
		}
		x.graphql = &r
	}
	costs, err := t.costsOf(x.version)
	if err != nil {
		return err
	}
	x.costs = costs
	cost, facts, err := costs.of(*x.graphql)
	if errors.Is(err, ErrTooExpensive) {
		return err
	}
	if err != nil {
		return nil //nolint:nilerr // Shopify's to say
	}
	x.cost, x.operation, x.repeatable = float64(cost), facts.operationName(), facts.repeatable
	return nil
}

// do sends a request until there is an answer that is one. The error is of what was never answered.
func (t *Transport) do(req *http.Request, x *exchange) (*reply, error) {
	b := t.breakers.Get(x.shop)
	if x.repeatable {
		b = b.Idempotent()
	}
	r, err := breaker.Call(req.Context(), b, func(ctx context.Context) (*reply, error) {
		r, err := t.attempt(ctx, req, x)
		switch {
		case err != nil:
			return nil, err
		case r.throttled && r.answer.Size > 0: // MaxThrottled times: it is what there is
			return r, nil
		case r.throttled, r.after > 0 && r.StatusCode >= http.StatusInternalServerError:
			return nil, &delayedError{&answerError{r}}
		case r.StatusCode >= http.StatusInternalServerError || r.extracts.has("INTERNAL_SERVER_ERROR"):
			return nil, &answerError{r}
		}
		return r, nil
	})
	if failed, ok := errors.AsType[*answerError](err); ok {
		return failed.reply, nil
	}
	if none, ok := errors.AsType[*noQuotaError](err); ok {
		return nil, none.error
	}
	return r, err
}

// noQuotaError carries an error of the Limiter through the breaker. It says nothing about the shop: to the breaker it is one of its own limits.
type noQuotaError struct{ error }

func (e *noQuotaError) Unwrap() error { return e.error }

func (e *noQuotaError) Is(target error) bool { return target == breaker.ErrLimited }

// tooLongError is of an answer above MaxAnswer. It is none of the host's failures, and sending the request again would only fetch as much again.
type tooLongError struct{ error }

func (e *tooLongError) Permanent() bool { return true }

// bucket names the shop's bucket: of points, or of REST calls.
func (t *Transport) bucket(x *exchange) string {
	name := x.shop
	if t.cfg.App != "" {
		name = t.cfg.App + "/" + name
	}
	if !x.isGraphQL {
		name += "/rest"
	}
	return name
}

// attempt sends a request when there is quota for it, and again when it was throttled all the same: that had no effect, and says how much is left.
func (t *Transport) attempt(ctx context.Context, req *http.Request, x *exchange) (*reply, error) {
	for n := 1; ; n++ {
		begun := time.Now()
		reservation, err := t.cfg.Limiter.Reserve(ctx, t.bucket(x), x.cost)
		if err != nil {
			return nil, &noQuotaError{err}
		}
		waited := time.Since(begun)
		r, err := t.send(ctx, req, x, waited, reservation)
		// One that does not say what is left is not waited out by the bucket: it may have come from anywhere on the way.
		if err != nil || !r.throttled || n > t.cfg.MaxThrottled || r.answer.Size == 0 {
			return r, err
		}
	}
}

// send sends a request once, and tells the quota what came of it.
func (t *Transport) send(ctx context.Context, req *http.Request, x *exchange, waited time.Duration, reservation *Reservation) (*reply, error) {
	sctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	defer reservation.Lost(ctx) //nolint:errcheck // of a panic beneath; it does nothing after what follows
	begun := time.Now()
	r, err := t.exchange(sctx, req, x)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			_ = reservation.Cancel(ctx) // nothing was sent
		}
		_ = reservation.Lost(ctx) // Buckets that can't be told find out by themselves
		if sctx.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("shopify: no answer of %s within %s: %w", x.shop, t.cfg.Timeout, err)
		}
		return nil, err
	}
	_ = reservation.Settle(ctx, r.answer)
	t.tell(x, r, waited, time.Since(begun))
	if c := r.extracts.Extensions.Cost; c != nil && x.costs != nil && c.RequestedQueryCost != x.cost {
		_ = x.costs.Learn(*x.graphql, c.RequestedQueryCost) // what can't be learned says nothing
		if c.RequestedQueryCost > 0 {
			x.cost = c.RequestedQueryCost // that is what has to be there if it is sent again
		}
	}
	return r, nil
}

// exchange sends a request and reads its answer.
func (t *Transport) exchange(ctx context.Context, req *http.Request, x *exchange) (*reply, error) {
	out := req.Clone(ctx)
	out.Body, out.GetBody = nil, nil
	if x.body != nil {
		// net/http asks for it anew where a connection that was kept alive turns out to be closed before anything was written.
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.body)), nil }
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(x.body)), int64(len(x.body))
	}
	resp, err := t.base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	r := &reply{Response: resp}
	r.body, err = io.ReadAll(io.LimitReader(resp.Body, t.cfg.MaxAnswer+1))
	if cerr := resp.Body.Close(); err == nil && cerr != nil {
		err = cerr
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("shopify: reading the answer of %s: %w", x.shop, err)
	case int64(len(r.body)) > t.cfg.MaxAnswer:
		return nil, &tooLongError{fmt.Errorf("shopify: the answer of %s is longer than Config.MaxAnswer, %d bytes", x.shop, t.cfg.MaxAnswer)}
	}
	if x.isGraphQL && resp.StatusCode == http.StatusOK {
		_ = json.Unmarshal(r.body, &r.extracts) // what is no JSON has none
	}
	r.throttled = resp.StatusCode == http.StatusTooManyRequests || r.extracts.throttled()
	r.answer = r.quota(x)
	if r.throttled || resp.Header.Get("Retry-After") != "" {
		r.after = r.retryAfter(x)
	}
	return r, nil
}

// tell tells the hooks.
func (t *Transport) tell(x *exchange, r *reply, waited, took time.Duration) {
	if t.cfg.OnAnswer != nil {
		t.cfg.OnAnswer(Answered{Shop: x.shop, Operation: x.operation, Status: r.StatusCode, Requested: x.cost, Actual: r.answer.Actual, Left: r.answer.Left, Throttled: r.throttled, Waited: waited, Took: took})
	}
	if t.cfg.OnNotice == nil {
		return
	}
	n := Notice{Shop: x.shop, Path: x.path, Operation: x.operation, Version: x.version, Served: r.Header.Get("X-Shopify-Api-Version"), Deprecated: r.Header.Get("X-Shopify-Api-Deprecated-Reason")}
	if n.Deprecated != "" || n.Served != "" && n.Served != n.Version {
		t.cfg.OnNotice(n)
	}
}
