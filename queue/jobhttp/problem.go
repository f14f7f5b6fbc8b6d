package jobhttp

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/internal/problem"
)

// Error is an answer other than success, sent as application/problem+json (RFC 9457). An accept func returns one,
// alone or wrapped, to say what the client gets to read; nothing else of an error's text is ever sent.
type Error struct {
	Status     int           // 400 to 599; any other becomes 500
	Type       string        // a URI that names the kind of problem; "" means about:blank
	Title      string        // the kind in words, the same every time; "" means the status's text
	Detail     string        // what is wrong with this request
	RetryAfter time.Duration // the Retry-After header, in whole seconds, rounded up; 0 means none
}

func (e *Error) Error() string {
	return fmt.Sprintf("jobhttp: %d %s: %s", e.Status, e.title(), e.Detail)
}

func (e *Error) title() string {
	if e.Title != "" {
		return e.Title
	}
	return http.StatusText(e.Status)
}

var (
	errNoJob = &Error{Status: http.StatusNotFound, Detail: "There is no job of this ID, or none that you may see."}
	errEnded = &Error{Status: http.StatusGone, Detail: "The status of this job is no longer kept."}
	errPath  = &Error{Status: http.StatusNotFound, Detail: "There is nothing at this path."}
	errOurs  = &Error{Status: http.StatusInternalServerError, Detail: "The request could not be handled."}
)

// unavailable is the answer when the broker fails.
func (h *Handler) unavailable() *Error {
	return &Error{Status: http.StatusServiceUnavailable, Detail: "The queue is not available. Try again later.", RetryAfter: h.cfg.RetryAfter}
}

// refuse answers with a problem.
func (h *Handler) refuse(w http.ResponseWriter, e *Error) {
	if e.Status < 400 || e.Status > 599 {
		e = errOurs
	}
	problem.Write(w, problem.Details{Status: e.Status, Type: e.Type, Title: e.Title, Detail: e.Detail, RetryAfter: e.RetryAfter})
}

// only says whether the method is one of those that are possible here, and answers if it is not.
func (h *Handler) only(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	allow := strings.Join(methods, ", ")
	w.Header().Set("Allow", allow)
	h.refuse(w, &Error{Status: http.StatusMethodNotAllowed, Detail: "Possible here: " + allow + "."})
	return false
}

// write sends a JSON answer. No answer may be kept by a cache: 404 and 410 would be, by default.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	head := w.Header()
	head.Set("Content-Type", contentType)
	head.Set("Content-Length", strconv.Itoa(len(body)))
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff") // a result is whatever the job made of its input
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // JSON, and named so; a client that is gone asks again
}

func setRetryAfter(w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Retry-After", problem.Seconds(d))
}

// recovered, deferred, answers 500 if one of the user's funcs has panicked. Nothing is written before they are called.
func (h *Handler) recovered(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	h.panicked(r, v)
	h.refuse(w, errOurs)
}

func (h *Handler) panicked(r *http.Request, v any) {
	if v == http.ErrAbortHandler { //nolint:errorlint // it is a sentinel of panics, and compared as net/http does
		panic(v)
	}
	h.log.LogAttrs(r.Context(), slog.LevelError, "jobhttp: panic", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
}
