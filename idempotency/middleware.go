package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/internal/problem"
)

const (
	// keyHeader is draft-ietf-httpapi-idempotency-key-header-07's, section 2.1.
	keyHeader = "Idempotency-Key"
	// replayedHeader marks an answer that was given before; Stripe's is Idempotent-Replayed, others have this one.
	replayedHeader = "Idempotency-Replayed"
	defaultMaxBody = 1 << 20
)

// HTTPConfig tunes the middleware. The zero value is valid.
type HTTPConfig struct {
	// Methods are those that the header is looked at for; nil means POST and PATCH. Others pass: GET, PUT and DELETE are idempotent as they are (RFC 9110, section 9.2.2).
	Methods []string
	// Optional lets requests without a key pass, unguarded. Without it they get 400.
	Optional bool
	// MaxBodyBytes bounds the request's body, which is read before the handler runs; 0 means 1 MiB. A larger one gets 413.
	MaxBodyBytes int64
	// Headers of the response that a replay has too, beside Cache-Control, Content-Disposition, Content-Encoding, Content-Language, Content-Location, Content-Type, ETag, Last-Modified, Link,
	// Location and Vary. Set-Cookie, Date and those that belong to a connection are refused: they were for one client at one time.
	Headers []string
	// Record says whether an answer with this status is kept. nil means all but those after which the work did not begin, or may go otherwise next time: 401, 403, 408, 409, 423, 425, 429 and from
	// 500 on. After an answer that is not kept the key is free.
	Record func(r *http.Request, status int) bool
	// Detach lets the handler go on when its client has gone, so that the answer is there when it asks again. Without it the request's context ends, as always in net/http.
	Detach bool
}

// replayable are the headers that say what an answer is, and not who got it when.
var replayable = []string{
	"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Location", "Content-Type", "Etag", "Last-Modified", "Link", "Location", "Vary",
}

// neverReplayed are headers that no replay may have: those of RFC 9110, section 7.6.1, which belong to a connection, and those that were for one client, or one time.
var neverReplayed = []string{
	"Connection", "Content-Length", "Date", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Set-Cookie", "Set-Cookie2", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Www-Authenticate",
}

// Middleware guards HTTP handlers by the Idempotency-Key header.
type Middleware struct {
	keeper *Keeper
	caller func(*http.Request) string
	cfg    HTTPConfig
}

// NewMiddleware makes a Middleware, by draft-ietf-httpapi-idempotency-key-header-07. caller says whose a request is: keys of two callers never meet, and so nobody gets the answer to another. It is
// where the authentication before it left that (a shop, an account), and must not be what the client can choose; "" is refused with 403. A key belongs to one method and path; with another query
// or body it is refused with 422. JSON is compared by what it says, a multipart form by its parts.
//
// Answers: 400 for a key that is missing, empty, longer than 255 characters, not printable ASCII or there twice; 409 with Retry-After while the first request runs (see Config.Wait); 422 for another request under the key;
// 503 with Retry-After when the store is away. All are application/problem+json (RFC 9457). A replay has the first answer's status, body and
// headers (see HTTPConfig.Headers), and Idempotency-Replayed: true.
//
// The answer goes out after it was recorded. One that the handler flushes, takes the connection for, or that is larger than Config.MaxResultBytes goes out as it comes, and is recorded without
// its body: who asks again gets 409 without Retry-After, and is told that the request was carried out.
func NewMiddleware(k *Keeper, caller func(r *http.Request) string, cfg HTTPConfig) (*Middleware, error) {
	if k == nil || caller == nil {
		return nil, errors.New("idempotency: NewMiddleware: want a Keeper and a caller func")
	}
	if cfg.Methods == nil {
		cfg.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	if cfg.MaxBodyBytes == 0 {
		cfg.MaxBodyBytes = defaultMaxBody
	}
	if cfg.MaxBodyBytes < 0 {
		return nil, fmt.Errorf("idempotency: HTTPConfig.MaxBodyBytes is %d; want 0 for the default, or more", cfg.MaxBodyBytes)
	}
	headers := slices.Clone(replayable)
	for _, h := range cfg.Headers {
		h = textproto.CanonicalMIMEHeaderKey(h)
		if slices.Contains(neverReplayed, h) {
			return nil, fmt.Errorf("idempotency: HTTPConfig.Headers has %s, which can't be replayed", h)
		}
		headers = append(headers, h)
	}
	cfg.Headers = headers
	if cfg.Record == nil {
		cfg.Record = recorded
	}
	return &Middleware{k, caller, cfg}, nil
}

func recorded(_ *http.Request, status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusConflict, http.StatusLocked, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	default:
		return status < http.StatusInternalServerError
	}
}

// errNotRecorded frees the key of an answer that is not kept.
var errNotRecorded = errors.New("idempotency: the answer is not kept")

// Wrap guards next. It may be used for any number of handlers, under any router.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
}

func (m *Middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if !slices.Contains(m.cfg.Methods, r.Method) {
		next.ServeHTTP(w, r)
		return
	}
	id, detail := readKey(r.Header)
	if detail != "" {
		if m.cfg.Optional && len(r.Header.Values(keyHeader)) == 0 {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, http.StatusBadRequest, "key", detail, 0)
		return
	}
	caller := m.caller(r)
	if caller == "" {
		refuse(w, http.StatusForbidden, "caller", "It is not known whose request this is.", 0)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, m.cfg.MaxBodyBytes))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			refuse(w, http.StatusRequestEntityTooLarge, "too-large", fmt.Sprintf("The body has more than %d bytes.", m.cfg.MaxBodyBytes), 0)
			return
		}
		refuse(w, http.StatusBadRequest, "body", "The body could not be read.", 0)
		return
	}
	request, err := NewRequest(operation(r), Key{Scope: caller, ID: id, Payload: payload(r, body)})
	if err != nil {
		refuse(w, http.StatusBadRequest, "key", "The key, or whose it is, can't be one.", 0)
		return
	}
	if within(r.Context(), m.keeper, request.Name) { // wrapped twice: it is guarded
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
		return
	}
	ctx := r.Context()
	if m.cfg.Detach {
		ctx = context.WithoutCancel(ctx)
	}
	ran := false
	rec := &recorder{w: w, header: http.Header{}, most: m.keeper.cfg.MaxResultBytes}
	result, err := m.keeper.do(ctx, request, func(ctx context.Context) (outcome, error) {
		r := r.WithContext(ctx)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(rec, r)
		ran = true
		if !m.cfg.Record(r, rec.status()) {
			return outcome{}, errNotRecorded
		}
		if rec.through {
			return outcome{kind: notKept}, nil
		}
		return outcome{kind: value, bytes: rec.response(m.cfg.Headers)}, nil
	})
	switch {
	case rec.through: // it is out already
	case err == nil && result.Replayed:
		m.replay(w, request.Name, result.Value)
	case err == nil, errors.Is(err, errNotRecorded), errors.Is(err, ErrUnknownOutcome) && ran: // the answer is true, whatever became of its record
		rec.send()
	default:
		m.refuse(w, err)
	}
}

// refuse says what keeps a request from being carried out, or from being answered.
func (m *Middleware) refuse(w http.ResponseWriter, err error) {
	var after time.Duration
	if d, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		after = d.RetryAfter()
	}
	switch {
	case errors.Is(err, ErrInProgress):
		refuse(w, http.StatusConflict, "in-progress", "A request with this key is being carried out.", after)
	case errors.Is(err, ErrMismatch):
		refuse(w, http.StatusUnprocessableEntity, "mismatch", "This key was used with another request.", 0)
	case errors.Is(err, ErrNoResult):
		refuse(w, http.StatusConflict, "not-kept", "The request was carried out; its answer was not kept.", 0)
	case errors.Is(err, ErrUnknownOutcome):
		refuse(w, http.StatusConflict, "unknown", "It is not known whether the request was carried out. Somebody has to look.", 0)
	case errors.Is(err, context.Canceled): // nobody is there to read it
		refuse(w, http.StatusServiceUnavailable, "unavailable", "The request was given up.", comeBack)
	default:
		m.keeper.log.Error("idempotency: http", "error", err)
		refuse(w, http.StatusServiceUnavailable, "unavailable", "Whether the request was carried out before can't be told now. Send it again, with the same key.", max(after, time.Second))
	}
}

// refuse answers with a problem, whose type names what is wrong for programs.
func refuse(w http.ResponseWriter, status int, kind, detail string, after time.Duration) {
	problem.Write(w, problem.Details{Status: status, Type: "urn:breakwater:idempotency:" + kind, Detail: detail, RetryAfter: after})
}

// readKey reads the key: a quoted string of a structured field (RFC 9651, section 3.3.3), as the draft has it, or bare, as Stripe and others do. detail says what is wrong with it.
func readKey(h http.Header) (key, detail string) {
	values := h.Values(keyHeader)
	switch len(values) {
	case 0:
		return "", "The Idempotency-Key header is missing."
	case 1:
	default:
		return "", "There is more than one Idempotency-Key header."
	}
	key = strings.Trim(values[0], " \t")
	if strings.HasPrefix(key, `"`) {
		var ok bool
		if key, ok = unquote(key); !ok {
			return "", "The Idempotency-Key is not a quoted string."
		}
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return "", "The Idempotency-Key is not printable ASCII."
		}
	}
	switch {
	case key == "":
		return "", "The Idempotency-Key is empty."
	case len(key) > maxNameBytes:
		return "", fmt.Sprintf("The Idempotency-Key has more than %d characters.", maxNameBytes)
	}
	return key, ""
}

// unquote reads a quoted string, after which nothing may come: the draft defines no parameters.
func unquote(s string) (string, bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), i == len(s)-1
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", false
}

// operation is what a request asks for: the path as it was sent, whatever a router has taken off it since. It may be longer than a name.
func operation(r *http.Request) string {
	path := r.URL.EscapedPath()
	if sent, err := url.ParseRequestURI(r.RequestURI); err == nil {
		path = sent.EscapedPath()
	}
	op := r.Method + " " + path
	if len(op) > maxNameBytes {
		sum := sha256.Sum256([]byte(op))
		op = r.Method + " " + hex.EncodeToString(sum[:])
	}
	return op
}

// payload is what a request is compared by.
func payload(r *http.Request, body []byte) []byte {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = r.Header.Get("Content-Type")
	}
	switch {
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		body = CanonicalJSON(body)
	case kind == "multipart/form-data":
		body = canonicalForm(body, params["boundary"])
	}
	return slices.Concat([]byte(r.URL.RawQuery), []byte{0}, []byte(kind), []byte{0}, body)
}
