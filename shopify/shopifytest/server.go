package shopifytest

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/shopify/internal/sdl"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// Config tunes a Server. The zero value is valid: one shop by default, any token, no faults, and webhooks sent to nobody.
type Config struct {
	Shop   string   // the domain of requests that name none; "" means example.myshopify.com
	Token  string   // the only access token that is accepted; "" means any but the empty one
	Scopes []string // the app's access scopes, such as read_products; nil means all
	Plan   Plan     // of new shops; zero means Standard

	// App names the app that a token belongs to: tokens of one app share its buckets. nil means that every token is an app of its own.
	App func(token string) string

	// Latency is how long a request takes; nil means no time at all. It is spent after the bucket was charged, and before the request has any effect.
	Latency func() time.Duration
	// Fault is asked before each request what is to go wrong with it; nil means nothing. See RandomFaults.
	Fault func(*http.Request) Fault

	// OnWebhook gets every webhook that a request causes, before the request is answered; nil means nobody. It may make requests itself.
	OnWebhook func(webhook.Delivery)
	// WebhookURL is where webhooks are sent, signed with WebhookSecret, as Webhooks says; "" means nowhere.
	WebhookURL, WebhookSecret string
	Webhooks                  webhooktest.Config
	WebhookVersion            string // that webhooks name; "" means 2026-04
}

// Server is a fake Admin API: an http.Handler, and an http.RoundTripper that needs no network. It is safe for concurrent use.
type Server struct {
	cfg    Config
	sender *webhooktest.Sender
	ctx    context.Context //nolint:containedctx // the life of what is sent
	cancel context.CancelFunc

	mu    sync.Mutex
	shops map[string]*Shop
	sends int           // of webhooks that are under way
	idle  chan struct{} // closed when there are none
}

var (
	_ http.Handler      = (*Server)(nil)
	_ http.RoundTripper = (*Server)(nil)
)

// New makes a Server.
//
// It fails if a name of a shop is none, or if Webhooks is not valid.
func New(cfg Config) (*Server, error) {
	cfg.Shop = cmp.Or(cfg.Shop, "example.myshopify.com")
	cfg.WebhookVersion = cmp.Or(cfg.WebhookVersion, "2026-04")
	cfg.Plan = cfg.Plan.filled()
	if cfg.App == nil {
		cfg.App = func(token string) string { return token }
	}
	if !domain.MatchString(cfg.Shop) {
		return nil, fmt.Errorf("shopifytest: New: Config.Shop is %q; want a name such as example.myshopify.com", cfg.Shop)
	}
	s := &Server{cfg: cfg, shops: map[string]*Shop{}, idle: make(chan struct{})}
	close(s.idle)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if cfg.WebhookURL != "" {
		sender, err := webhooktest.NewSender(cfg.WebhookURL, cfg.WebhookSecret, cfg.Webhooks)
		if err != nil {
			return nil, fmt.Errorf("shopifytest: New: %w", err)
		}
		s.sender = sender
	}
	return s, nil
}

var domain = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*\.myshopify\.com$`)

// Shop is the shop of a domain. It is made if there is none yet. Shop panics if the domain is not like example.myshopify.com.
func (s *Server) Shop(name string) *Shop {
	if !domain.MatchString(name) {
		panic(fmt.Sprintf("shopifytest: Shop: %q is no domain such as example.myshopify.com", name))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shops[name] == nil {
		s.shops[name] = newShop(s, name)
	}
	return s.shops[name]
}

// SetPlan changes what the shop's plan allows, for all apps and from now on. What is used of a bucket stays used.
func (s *Shop) SetPlan(p Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = p.filled()
}

// Plan is what the shop's plan allows.
func (s *Shop) Plan() Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan
}

// Stats says what the shop has seen.
func (s *Shop) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Use takes points out of the bucket of a token's app, as another process of that app would that nobody knows of. It reports whether there were as many.
func (s *Shop) Use(token string, points float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.app(token).points.take(points, s.plan.Points, s.plan.PointsPerSecond)
}

// Left is how many points are in the bucket of a token's app.
func (s *Shop) Left(token string) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.app(token).points.left(s.plan.Points, s.plan.PointsPerSecond)
}

// app is what is kept for a token's app.
func (s *Shop) app(token string) *app {
	name := s.server.cfg.App(token)
	a := s.apps[name]
	if a == nil {
		sum := sha256.Sum256([]byte(name))
		a = &app{id: fmt.Sprint(uint32(sum[0])<<16 | uint32(sum[1])<<8 | uint32(sum[2])), keys: map[string]keyed{}}
		s.apps[name] = a
	}
	return a
}

// Fault is something that goes wrong with a request.
type Fault int

// Faults. All but CutAfter and NoExtensions come before the request has any effect.
const (
	NoFault         Fault = iota
	TooManyRequests       // 429 with Retry-After: 2.0, as from Shopify's edge
	ServerError           // 500
	BadGateway            // 502 with a page of HTML
	Unavailable           // 503
	InternalError         // 200 with the error INTERNAL_SERVER_ERROR, and no extensions
	CutBefore             // the connection breaks
	CutAfter              // the connection breaks when the request has taken effect: its answer is lost
	NoExtensions          // the answer lacks extensions
)

// RandomFaults has each fault happen with a probability: shares are from 0 to 1, and 1 at most together. The same seed gives the same faults to the same sequence of requests.
func RandomFaults(seed uint64, shares map[Fault]float64) func(*http.Request) Fault {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(*http.Request) Fault {
		mu.Lock()
		defer mu.Unlock()
		x := rng.Float64()
		for f := TooManyRequests; f <= NoExtensions; f++ {
			if x -= shares[f]; x < 0 {
				return f
			}
		}
		return NoFault
	}
}

// RoundTrip answers a request without a network. It works within a synctest bubble.
func (s *Server) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer func() {
		if v := recover(); v != nil {
			if e, ok := v.(error); !ok || !errors.Is(e, http.ErrAbortHandler) {
				panic(v)
			}
			resp, err = nil, fmt.Errorf("shopifytest: %w", io.ErrUnexpectedEOF)
		}
	}()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, in)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	resp = w.Result()
	resp.Request = r
	return resp, nil
}

// where splits a path into the shop that it may begin with, the version and what follows.
var where = regexp.MustCompile(`^(?:/([a-z0-9][a-z0-9-]*\.myshopify\.com))?/admin/api/([0-9]{4}-[0-9]{2}|unstable)/(.+)\.json$`)

// ServeHTTP answers a request of the Admin API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Request-Id", newRequestID())
	m := where.FindStringSubmatch(r.URL.Path)
	if m == nil {
		answer(w, http.StatusNotFound, map[string]any{"errors": "Not Found"})
		return
	}
	name := s.cfg.Shop
	if host, _, _ := strings.Cut(r.Host, ":"); domain.MatchString(host) {
		name = host
	}
	shop := s.Shop(cmp.Or(m[1], name))
	version := served(m[2])
	h.Set("X-Shopify-API-Version", version)
	token := r.Header.Get("X-Shopify-Access-Token")
	if token == "" || s.cfg.Token != "" && token != s.cfg.Token {
		answer(w, http.StatusUnauthorized, map[string]any{"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"})
		return
	}
	fault := NoFault
	if s.cfg.Fault != nil {
		fault = s.cfg.Fault(r)
	}
	if failed(w, fault) {
		return
	}
	c := &call{server: s, shop: shop, token: token, version: version, fault: fault, w: w, r: r}
	if m[3] == "graphql" {
		c.graphql()
	} else {
		c.rest(m[3])
	}
}

// served is the version that answers for another: what is older than all falls forward to the oldest.
func served(version string) string {
	all := sdl.Versions()
	if slices.Contains(all, version) {
		return version
	}
	if version < all[0] {
		return all[0]
	}
	return all[len(all)-2] // there is no such version: the newest
}

// call is a request to a shop.
type call struct {
	server  *Server
	shop    *Shop
	token   string
	version string
	fault   Fault
	w       http.ResponseWriter
	r       *http.Request
}

// wait lets the request take its time, and says false if the client has gone.
func (c *call) wait() bool {
	if c.server.cfg.Latency == nil {
		return true
	}
	t := time.NewTimer(c.server.cfg.Latency())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.r.Context().Done():
		return false
	}
}

// finish sends what the request has caused, and answers.
func (c *call) finish(status int, body any, events []event) {
	c.server.send(c.shop, events)
	if c.fault == CutAfter {
		panic(http.ErrAbortHandler)
	}
	answer(c.w, status, body)
}

// failed answers a request with a fault, if it comes before everything else.
func failed(w http.ResponseWriter, f Fault) bool {
	page := func(status int) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "<!DOCTYPE html>\n<html><head><title>%d %s</title></head><body><h1>Something went wrong</h1></body></html>\n", status, http.StatusText(status))
	}
	switch f {
	case TooManyRequests:
		w.Header().Set("Retry-After", "2.0")
		answer(w, http.StatusTooManyRequests, map[string]any{"errors": "Exceeded 2 calls per second for api client. Reduce request rates to resume uninterrupted service."})
	case ServerError:
		answer(w, http.StatusInternalServerError, map[string]any{"errors": "Internal Server Error"})
	case BadGateway:
		page(http.StatusBadGateway)
	case Unavailable:
		page(http.StatusServiceUnavailable)
	case InternalError:
		e := coded("INTERNAL_SERVER_ERROR", "Internal error. Looks like something went wrong on our end.\nRequest ID: %s (include this in support requests).", w.Header().Get("X-Request-Id"))
		e.Extensions["requestId"] = w.Header().Get("X-Request-Id")
		answer(w, http.StatusOK, map[string]any{"errors": []*gqlError{e}})
	case CutBefore:
		panic(http.ErrAbortHandler)
	case NoFault, CutAfter, NoExtensions:
		return false
	}
	return true
}

func answer(w http.ResponseWriter, status int, body any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		panic(err) // it is made of what JSON can hold
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

func newRequestID() string {
	var b [16]byte
	_, _ = crand.Read(b[:]) // never fails
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
