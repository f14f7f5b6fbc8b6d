package jobhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// Submission is what a request asks for.
type Submission struct {
	// Job is tracked in any case, and its StatusFor is Config's if it has none. A DedupeKey makes a second request safe: it
	// is answered with the first job's ID, for as long as Job.DedupeFor says.
	Job queue.Job
	// Callback is a URL that is told when the job ends; see [Callbacks]. A bad one is answered 422. "" means none.
	Callback string
}

// JSON makes an accept func out of one that gets the body decoded: one JSON value; numbers decoded into an any keep
// their digits, as [json.Number]. Another Content-Type than JSON is answered 415, also none at all, so that no page of another
// site can make a browser send one without asking; a body that does not decode 400, a value of a wrong type 422.
func JSON[T any](accept func(r *http.Request, in T) (Submission, error)) func(r *http.Request) (Submission, error) {
	return func(r *http.Request) (Submission, error) {
		if !isJSON(r.Header.Get("Content-Type")) {
			return Submission{}, &Error{Status: http.StatusUnsupportedMediaType, Detail: "The Content-Type must be application/json."}
		}
		var in T
		dec := json.NewDecoder(r.Body)
		dec.UseNumber()
		if err := dec.Decode(&in); err != nil {
			return Submission{}, undecodable(err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return Submission{}, &Error{Status: http.StatusBadRequest, Detail: "The body is more than one JSON value."}
		}
		return accept(r, in)
	}
}

func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json"))
}

// undecodable says what is wrong with a body in the client's words: the error's own text names Go types.
func undecodable(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		where := "The body"
		if wrong.Field != "" {
			where = fmt.Sprintf("The field %q", wrong.Field)
		}
		return &Error{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf("%s can't be %s.", where, article(wrong.Value))}
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return &Error{Status: http.StatusBadRequest, Detail: fmt.Sprintf("The body is not JSON, from byte %d on.", syntax.Offset)}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Status: http.StatusBadRequest, Detail: "The body is empty, or not all of it came."}
	}
	return &Error{Status: http.StatusUnprocessableEntity, Detail: "A value in the body can't be read."}
}

func article(value string) string {
	switch value, _, _ = strings.Cut(value, " "); value { // "number 1e9" quotes the client
	case "array", "object":
		return "an " + value
	case "bool":
		return "true or false"
	default:
		return "this " + value
	}
}

// Submit makes a job of a request: 202 with the job's ID and status, its address as Location, and Retry-After, once the queue
// has it. 413 is for a body over Config.MaxBytes or a payload over the queue's limit, 503 for a queue that fails; then the job
// may or may not have been accepted, and a DedupeKey makes a second try safe. The rest is the accept func's.
func (h *Handler) Submit(w http.ResponseWriter, r *http.Request) {
	defer h.recovered(w, r)
	h.submit(w, r)
}

func (h *Handler) submit(w http.ResponseWriter, r *http.Request) {
	if !h.only(w, r, http.MethodPost) {
		return
	}
	sub, no := h.accepted(w, r)
	if no == nil {
		no = h.fits(r, &sub)
	}
	var receipt queue.Receipt
	if no == nil {
		receipt, no = h.enqueue(r, sub)
	}
	if no != nil {
		h.refuse(w, no)
		return
	}
	state := queue.Pending
	if receipt.Duplicate { // the first job may be far ahead
		if st, no := h.find(r, receipt.ID); no == nil {
			state = st.State
		}
	}
	body, err := json.Marshal(struct {
		JobID  string      `json:"jobId"`
		Status queue.State `json:"status"`
	}{receipt.ID, state})
	if err != nil { // two strings: it can't be
		h.refuse(w, errOurs)
		return
	}
	w.Header().Set("Location", h.cfg.Path+"/"+receipt.ID)
	setRetryAfter(w, h.cfg.RetryAfter)
	write(w, http.StatusAccepted, "application/json", body)
}

// accepted asks the user's func what to do about a request.
func (h *Handler) accepted(w http.ResponseWriter, r *http.Request) (Submission, *Error) {
	tooLarge := &Error{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("The body has more than %d bytes.", h.cfg.MaxBytes)}
	if r.ContentLength > h.cfg.MaxBytes {
		return Submission{}, tooLarge
	}
	r = r.WithContext(r.Context()) // a copy: the caller's keeps its body
	body := &bounded{ReadCloser: http.MaxBytesReader(w, r.Body, h.cfg.MaxBytes)}
	r.Body = body
	sub, err := h.accept(r)
	switch {
	case body.over: // also where the func took what it got of the body for all of it
		return Submission{}, tooLarge
	case err != nil:
		return Submission{}, h.badInput(r, err)
	}
	return sub, nil
}

// bounded remembers that a body was larger than it may be.
type bounded struct {
	io.ReadCloser
	over bool
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			b.over = true
		}
	}
	return n, err
}

// What the errors of an accept func may say by their methods.
type (
	delayer interface {
		error
		RetryAfter() time.Duration
	}
	timeouter interface {
		error
		Timeout() bool
	}
)

// badInput is the answer to an accept func's error.
func (h *Handler) badInput(r *http.Request, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok && e != nil {
		if e.Status < 400 || e.Status > 599 {
			h.log.LogAttrs(r.Context(), slog.LevelError, "jobhttp: the accept func's error has a status that is none", slog.Int("status", e.Status), slog.Any("error", err))
		}
		return e
	}
	h.log.LogAttrs(r.Context(), slog.LevelWarn, "jobhttp: refused", slog.Any("error", err))
	no := h.unavailable()
	no.Detail = "The request can't be taken now. Try again later."
	if d, ok := errors.AsType[delayer](err); ok {
		no.RetryAfter = max(d.RetryAfter(), time.Second)
		return no
	}
	if t, ok := errors.AsType[timeouter](err); ok && t.Timeout() {
		return no
	}
	return &Error{Status: http.StatusBadRequest, Detail: "The request is not valid."}
}

// fits completes a submission and says what is wrong with it.
func (h *Handler) fits(r *http.Request, sub *Submission) *Error {
	switch kind := sub.Job.Kind; {
	case kind == "" || kind == CallbackKind: // the latter could be made to tell one tenant of another's job
		h.log.LogAttrs(r.Context(), slog.LevelError, "jobhttp: the accept func made a job of a kind that can't be", slog.String("kind", kind))
		return errOurs
	case sub.Callback == "":
	case h.cfg.Callbacks == nil:
		return &Error{Status: http.StatusUnprocessableEntity, Detail: "Callbacks are not offered here."}
	default:
		if _, err := h.cfg.Callbacks.check(sub.Callback); err != nil {
			return &Error{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf("The callback URL can't be used: %v.", err)}
		}
	}
	sub.Job.Track = true
	if sub.Job.StatusFor == 0 {
		sub.Job.StatusFor = h.cfg.StatusFor
	}
	return nil
}

// enqueue stores the job and then, if there is a callback, what will call it: that needs the job's ID, which Enqueue gives, and
// of a duplicate the first job's. So the two are not stored in one step. What lies between them:
//
//   - If the process dies there, the job runs and nobody is called. But the client has no 202 either, and nothing was promised: it
//     sends the request again. With a DedupeKey it then gets the first job's ID, and the callback is stored for that.
//   - If the callback can't be stored, the answer is 503. A job without a DedupeKey is cancelled then, as far as
//     that is possible, because the second request will be a second job. One with a key stays: the second request finds it.
//
// A client that hangs up does not end this: what is half done would stay so.
func (h *Handler) enqueue(r *http.Request, sub Submission) (queue.Receipt, *Error) {
	base := context.WithoutCancel(r.Context())
	ctx, done := context.WithTimeout(base, h.cfg.Timeout)
	defer done()
	receipts, err := h.jobs.Enqueue(ctx, sub.Job)
	if err != nil {
		return queue.Receipt{}, h.notTaken(r, err)
	}
	receipt := receipts[0]
	if sub.Callback == "" {
		return receipt, nil
	}
	if err := h.cfg.Callbacks.watch(ctx, sub, receipt); err != nil {
		if !receipt.Duplicate && sub.Job.DedupeKey == "" {
			undo, done := context.WithTimeout(base, h.cfg.Timeout)
			defer done()
			_, cancelErr := h.jobs.Cancel(undo, receipt.ID)
			err = errors.Join(err, cancelErr)
		}
		return queue.Receipt{}, h.notTaken(r, err)
	}
	return receipt, nil
}

// notTaken is the answer when the queue has not taken a job.
func (h *Handler) notTaken(r *http.Request, err error) *Error {
	h.log.LogAttrs(r.Context(), slog.LevelError, "jobhttp: the queue has not taken a job", slog.Any("error", err))
	switch {
	case errors.Is(err, queue.ErrPayloadTooLarge):
		return &Error{Status: http.StatusRequestEntityTooLarge, Detail: "The job has more bytes than the queue takes."}
	case errors.Is(err, queue.ErrNameTooLong):
		return &Error{Status: http.StatusUnprocessableEntity, Detail: "A name in the request is too long."}
	}
	return h.unavailable()
}
