package webhook

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Sink takes a verified delivery. nil means that it is done with: durably stored, or handled. Any
// other error but [ErrDuplicate], [ErrUnhandled] and [ErrBuried] means that Shopify must send it
// again. ctx carries the request's values and ends at the deadline; a client that hangs up does not
// cancel it, because an authentic delivery is worth storing either way. A sink that does not return
// in time is answered for: Shopify gets 503 while it still runs.
type Sink = func(ctx context.Context, d Delivery) error

const (
	defaultMaxBytes    = 32 << 20
	defaultSinkTimeout = 3 * time.Second
	defaultRetryAfter  = 10 * time.Second
	defaultSecretTTL   = time.Minute

	// maxTotal is what reading and sink may take together: Shopify gives up on a request after 5 s
	// (shopify.dev, "Deliver webhooks through HTTPS"), and the answer has to travel back.
	maxTotal = 4500 * time.Millisecond

	// A buffer starts at what the client announced, but not over maxPresize: a Content-Length costs
	// its sender nothing. Larger ones have a pool of their own, up to maxPooled; those over it are left to
	// the garbage collector.
	minBuffer  = 4 << 10
	maxPresize = 256 << 10
	maxPooled  = 8 << 20
)

// Config tunes a Handler. The zero value is valid.
type Config struct {
	MaxBytes    int64         // largest body taken; 0 means 32 MiB
	SinkTimeout time.Duration // what the sink may take; 0 means 3 s; cut so that reading and sink end within 4.5 s
	RetryAfter  time.Duration // the Retry-After of a 503, in whole seconds; 0 means 10 s
	SecretTTL   time.Duration // how long a shop's secrets are cached; 0 means 1 min. An unknown shop: 10 s at most
	Logger      *slog.Logger  // nil discards
}

// Stats counts a Handler's answers since it was made. The fields are exclusive: their sum is the
// number of requests.
type Stats struct {
	Accepted     uint64 // 200: the sink took it
	Duplicates   uint64 // 200: ErrDuplicate
	Unhandled    uint64 // 200: ErrUnhandled
	Buried       uint64 // 200: ErrBuried
	Malformed    uint64 // 400 and 405: headers or body missing, repeated, mixed; not POST
	Unauthorized uint64 // 401: no signature, or one that no secret of the shop made
	TooLarge     uint64 // 413: body over MaxBytes
	Failed       uint64 // 503: the sink or the SecretFunc failed or panicked
	Late         uint64 // 503: reading, the SecretFunc or the sink missed the deadline
}

// Handler is an http.Handler for Shopify's webhooks, for use under any path and router. Its answers:
//
//	200  accepted, or done with (duplicate, no handler for the topic, kept as a dead letter)
//	400  headers or body missing, repeated, or of both families; 405 not POST; 413 body too large
//	401  signature missing or wrong; the log says which check failed, with lengths and no values
//	503  the sink failed or was late: Shopify will send the delivery again
//
// It is safe for concurrent use. It keeps timers, so a test that uses it in a synctest bubble must make it
// there.
type Handler struct {
	sink  Sink
	keys  *keyring
	cfg   Config
	log   *slog.Logger
	stats struct {
		accepted, duplicates, unhandled, buried, malformed, unauthorized, tooLarge, failed, late atomic.Uint64
	}
	calls sync.Pool // of *call
	large sync.Pool // of *[]byte, for bodies over maxPresize
}

var _ http.Handler = (*Handler)(nil)

// New makes a Handler that verifies with secrets and hands deliveries to sink. It fails if one is
// nil or a field of cfg is negative.
func New(secrets SecretFunc, sink Sink, cfg Config) (*Handler, error) {
	switch {
	case secrets == nil:
		return nil, errors.New("webhook: New: secrets is nil; use webhook.Secrets(key)")
	case sink == nil:
		return nil, errors.New("webhook: New: sink is nil")
	case cfg.MaxBytes < 0:
		return nil, fmt.Errorf("webhook: New: Config.MaxBytes is %d; want 0 for the default, or more", cfg.MaxBytes)
	case cfg.SinkTimeout < 0:
		return nil, fmt.Errorf("webhook: New: Config.SinkTimeout is %v; want 0 for the default, or more", cfg.SinkTimeout)
	case cfg.RetryAfter < 0:
		return nil, fmt.Errorf("webhook: New: Config.RetryAfter is %v; want 0 for the default, or more", cfg.RetryAfter)
	case cfg.SecretTTL < 0:
		return nil, fmt.Errorf("webhook: New: Config.SecretTTL is %v; want 0 for the default, or more", cfg.SecretTTL)
	}
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMaxBytes)
	cfg.SinkTimeout = cmp.Or(cfg.SinkTimeout, defaultSinkTimeout)
	cfg.RetryAfter = cmp.Or(cfg.RetryAfter, defaultRetryAfter)
	cfg.SecretTTL = cmp.Or(cfg.SecretTTL, defaultSecretTTL)
	h := &Handler{sink: sink, keys: newKeyring(secrets, cfg.SecretTTL), cfg: cfg, log: cfg.Logger}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.calls.New = func() any { return newCall(h) }
	return h, nil
}

// Stats returns the counts so far.
func (h *Handler) Stats() Stats {
	s := &h.stats
	return Stats{
		Accepted: s.accepted.Load(), Duplicates: s.duplicates.Load(), Unhandled: s.unhandled.Load(),
		Buried: s.buried.Load(), Malformed: s.malformed.Load(), Unauthorized: s.unauthorized.Load(),
		TooLarge: s.tooLarge.Load(), Failed: s.failed.Load(), Late: s.late.Load(),
	}
}

// ServeHTTP verifies one delivery, runs the sink and answers.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	meta, signature, problem := headersOf(r)
	if problem != nil {
		h.refuse(w, r, problem)
		return
	}

	c, _ := h.calls.Get().(*call)
	if problem = c.read(w, r, h.cfg.MaxBytes, arrived.Add(maxTotal)); problem != nil {
		c.free()
		h.refuse(w, r, problem)
		return
	}
	now := time.Now()
	left := maxTotal - now.Sub(arrived)
	if left <= 0 { // only where the connection knows no deadlines
		c.free()
		h.refuse(w, r, errSlow)
		return
	}

	ctx := c.begin(w, r, now.Add(min(h.cfg.SinkTimeout, left)))
	err := errGone // stands if the sink ends its goroutine
	defer func() {
		if !c.finish() {
			h.stats.late.Add(1)
			h.log.LogAttrs(r.Context(), slog.LevelError, "webhook: answered 503 at the deadline; the sink ended later",
				slog.String("shop", meta.Shop), slog.String("topic", meta.Topic), slog.String("webhook_id", meta.WebhookID),
				slog.Duration("took", time.Since(arrived)), slog.Any("error", cmp.Or(problem.unwrap(), err)))
			return
		}
		if problem != nil {
			h.refuse(w, r, problem)
			return
		}
		h.answer(w, r, &meta, err)
	}()
	if problem = h.verify(ctx, now, c, r, signature, &meta); problem == nil {
		err = h.run(ctx, Delivery{Meta: meta, Body: c.body})
	}
}

// answer turns the sink's error into a status.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, m *Meta, err error) {
	count := &h.stats.accepted
	switch {
	case err == nil:
	case errors.Is(err, ErrDuplicate):
		count = &h.stats.duplicates
	case errors.Is(err, ErrUnhandled):
		count = &h.stats.unhandled
	case errors.Is(err, ErrBuried):
		count = &h.stats.buried
	default:
		count = &h.stats.failed
		count.Add(1)
		h.log.LogAttrs(r.Context(), slog.LevelError, "webhook: answered 503; Shopify will send it again",
			slog.String("shop", m.Shop), slog.String("topic", m.Topic), slog.String("webhook_id", m.WebhookID), slog.Any("error", err))
		unavailable(w, h.cfg.RetryAfter)
		return
	}
	count.Add(1)
	w.WriteHeader(http.StatusOK)
}

// verify finds the secret that signed the body and names its app in meta.
func (h *Handler) verify(ctx context.Context, now time.Time, c *call, r *http.Request, signature string, meta *Meta) *refusal {
	var sum [sha256.Size]byte
	if base64.StdEncoding.EncodedLen(len(sum)) != len(signature) || !decodeSum(signature, &sum) {
		return &refusal{status: http.StatusUnauthorized, text: "signature does not match",
			reason: "signature is not base64 of 32 bytes", signature: len(signature), body: len(c.body)}
	}
	signers, err := h.keys.of(ctx, now, meta.Shop)
	if err != nil {
		late := errors.Is(err, context.DeadlineExceeded)
		return &refusal{status: http.StatusServiceUnavailable, reason: "the shop's secrets are not to be had", cause: err, late: late}
	}
	for _, s := range signers {
		if s.matches(c.body, &sum, c.sum[:]) {
			meta.App = s.app
			return nil
		}
	}
	no := &refusal{status: http.StatusUnauthorized, text: "signature does not match",
		signature: len(signature), body: len(c.body), secrets: len(signers)}
	switch {
	case len(signers) == 0:
		no.reason = "no secret is known for this shop"
	case r.ContentLength >= 0 && r.ContentLength != int64(len(c.body)):
		no.reason = "body was changed before it got here: its length is not the Content-Length"
	default:
		no.reason = "no secret of this shop made this signature: it is another app's, a shop's own (webhooks made in the admin), a rotated one, or the body was changed on its way"
	}
	return no
}

// run calls the sink; a panic in it is an error.
func (h *Handler) run(ctx context.Context, d Delivery) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, what: "sink", stack: debug.Stack()}
		}
	}()
	return h.sink(ctx, d)
}

// decodeSum decodes a base64 SHA-256 sum without allocating.
func decodeSum(signature string, sum *[sha256.Size]byte) bool {
	var in [44]byte
	var out [33]byte
	copy(in[:], signature)
	n, err := base64.StdEncoding.Decode(out[:], in[:])
	copy(sum[:], out[:])
	return err == nil && n == len(sum)
}

// refusal is an answer other than the sink's.
type refusal struct {
	status int
	text   string // for the client
	reason string // for the log: which check failed
	cause  error
	late   bool

	signature, body, secrets int // lengths, for the log of a 401
}

// unwrap is the cause of a refusal, if there is a refusal.
func (no *refusal) unwrap() error {
	if no == nil {
		return nil
	}
	return no.cause
}

var (
	errMethod     = &refusal{status: http.StatusMethodNotAllowed, text: "use POST"}
	errMixed      = &refusal{status: http.StatusBadRequest, text: "headers of both families, X-Shopify- and Shopify-"}
	errNoHMAC     = &refusal{status: http.StatusUnauthorized, text: "signature is missing", reason: "no signature header"}
	errEmpty      = &refusal{status: http.StatusBadRequest, text: "body is empty"}
	errTooLarge   = &refusal{status: http.StatusRequestEntityTooLarge, text: "body is too large"}
	errIncomplete = &refusal{status: http.StatusBadRequest, text: "body is incomplete"}
	errSlow       = &refusal{status: http.StatusServiceUnavailable, reason: "the body came too slowly", late: true}
	errRead       = &refusal{status: http.StatusUnauthorized, text: "signature does not match",
		reason: "body is empty but Content-Length is not: something before this handler has read it"}
)

// headersOf reads a request's headers and says what is wrong with them. Values of one family are
// never judged by the signature of the other.
func headersOf(r *http.Request) (m Meta, signature string, no *refusal) {
	if r.Method != http.MethodPost {
		return m, "", errMethod
	}
	f, other := classic, events
	if len(r.Header[events.hmac]) > 0 {
		f, other = events, classic
	}
	if len(r.Header[f.hmac]) == 0 {
		return m, "", errNoHMAC
	}
	if other.anyOf(r.Header) {
		return m, "", errMixed
	}
	m, signature, repeated := f.read(r.Header)
	if name := f.missing(&m); name != "" {
		return m, "", &refusal{status: http.StatusBadRequest, text: "header " + name + " is missing"}
	}
	if repeated != "" {
		return m, "", &refusal{status: http.StatusBadRequest, text: "header " + repeated + " is repeated"}
	}
	if !validShop(m.Shop) {
		return m, "", &refusal{status: http.StatusBadRequest, text: f.shop + " is not a name.myshopify.com"}
	}
	return m, signature, nil
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	level := slog.LevelWarn
	switch no.status {
	case http.StatusUnauthorized:
		h.stats.unauthorized.Add(1)
	case http.StatusRequestEntityTooLarge:
		h.stats.tooLarge.Add(1)
	case http.StatusServiceUnavailable:
		level = slog.LevelError
		if no.late {
			h.stats.late.Add(1)
		} else {
			h.stats.failed.Add(1)
		}
	default:
		h.stats.malformed.Add(1)
	}
	h.log.LogAttrs(r.Context(), level, "webhook: refused", slog.Int("status", no.status), slog.String("answer", no.text),
		slog.String("reason", no.reason), slog.Int("signature_chars", no.signature), slog.Int("body_bytes", no.body),
		slog.Int64("content_length", r.ContentLength), slog.Int("secrets_tried", no.secrets), slog.Any("error", no.cause))
	switch no.status {
	case http.StatusServiceUnavailable:
		unavailable(w, h.cfg.RetryAfter)
		return
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusRequestEntityTooLarge:
		w.Header().Set("Connection", "close") // the rest of the body is not worth reading
	}
	http.Error(w, no.text, no.status)
}

const unavailableText = "not taken; send it again\n"

func unavailable(w http.ResponseWriter, retryAfter time.Duration) {
	head := w.Header()
	head.Set("Retry-After", strconv.FormatInt(int64((retryAfter+time.Second-1)/time.Second), 10))
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("Content-Length", strconv.Itoa(len(unavailableText)))
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, unavailableText) // a client that is gone sends it again anyway
}
