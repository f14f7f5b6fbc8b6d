package jobhttp

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/breakwater-go/breakwater/queue"
)

// document is a job's status as clients see it.
type document struct {
	JobID    string      `json:"jobId"`
	Kind     string      `json:"kind"`
	Status   queue.State `json:"status"`
	Attempts int         `json:"attempts"` // failures so far
	Progress int         `json:"progress"` // percent
	Note     string      `json:"note,omitempty"`

	// A result that is JSON stands as it is; one that is not has a name of its own, so that the text "1" and the number
	// can be told apart.
	Result       json.RawMessage `json:"result,omitempty"`
	ResultBase64 []byte          `json:"resultBase64,omitempty"`
	Error        string          `json:"error,omitempty"` // of a job that has not succeeded

	CreatedAt time.Time `json:"createdAt"`        // when it was submitted
	DueAt     time.Time `json:"dueAt,omitzero"`   // when it was accepted or due, whichever is later
	EndedAt   time.Time `json:"endedAt,omitzero"` // absent before
}

// describe makes the document. It is one line, which events rely on.
func describe(st queue.Status, errorText func(st queue.Status) string) []byte {
	made, _ := queue.IDTime(st.ID)
	d := document{
		JobID: st.ID, Kind: st.Kind, Status: st.State, Attempts: st.Attempts, Progress: st.Percent, Note: st.Note,
		CreatedAt: made, DueAt: stamp(st.Since), EndedAt: stamp(st.Ended),
	}
	switch {
	case st.State != queue.Succeeded:
		if d.Error = st.Error; errorText != nil && st.Error != "" {
			d.Error = errorText(st)
		}
	case json.Valid(st.Result) && utf8.Valid(st.Result):
		d.Result = st.Result
	default:
		d.ResultBase64 = st.Result
	}
	body, err := json.Marshal(d)
	if err != nil { // a year that JSON can't have
		d.CreatedAt, d.DueAt, d.EndedAt = time.Time{}, time.Time{}, time.Time{}
		body, _ = json.Marshal(d)
	}
	return body
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// Status answers how a job is: 200, whatever its state, with jobId, kind, status, attempts, progress in percent, note, result
// (or resultBase64, if it is not JSON) or error, createdAt, dueAt and endedAt; while the job has not ended, with Retry-After.
// 404 is for an ID that is unknown, and 410 for one so old that its status may have been given up; see Config.StatusFor.
func (h *Handler) Status(w http.ResponseWriter, r *http.Request) {
	defer h.recovered(w, r)
	if h.only(w, r, http.MethodGet, http.MethodHead) {
		h.status(w, r, h.id(r))
	}
}

func (h *Handler) status(w http.ResponseWriter, r *http.Request, id string) {
	st, no := h.find(r, id)
	if no != nil {
		h.refuse(w, no)
		return
	}
	h.tell(w, http.StatusOK, st)
}

// tell answers with a job's status.
func (h *Handler) tell(w http.ResponseWriter, code int, st queue.Status) {
	body := describe(st, h.cfg.ErrorText)
	if !st.State.Ended() {
		setRetryAfter(w, h.cfg.RetryAfter)
	}
	write(w, code, "application/json", body)
}

// Cancel cancels a job: 202 if a worker has it, which is told so and may still succeed; else 200 with the state in which
// the job is now. A job that had ended before keeps its state, and that is 200 too: a DELETE that is sent again gets the same answer.
// 404 and 410 are as for Status.
func (h *Handler) Cancel(w http.ResponseWriter, r *http.Request) {
	defer h.recovered(w, r)
	if h.only(w, r, http.MethodDelete) {
		h.cancel(w, r, h.id(r))
	}
}

func (h *Handler) cancel(w http.ResponseWriter, r *http.Request, id string) {
	st, no := h.find(r, id)
	if no != nil {
		h.refuse(w, no)
		return
	}
	if st.State.Ended() {
		h.tell(w, http.StatusOK, st)
		return
	}
	ctx, done := context.WithTimeout(r.Context(), h.cfg.Timeout)
	defer done()
	state, err := h.jobs.Cancel(ctx, id)
	if err != nil {
		h.refuse(w, h.failed(r, id, err))
		return
	}
	// When it ended, and what came of it, is known to the broker alone.
	if now, err := h.jobs.Status(ctx, id); err == nil && now.State.Ended() == state.Ended() {
		st = now
	}
	st.State = state
	if !state.Ended() {
		h.tell(w, http.StatusAccepted, st)
		return
	}
	h.tell(w, http.StatusOK, st)
}

// find gives the status of a job that the sender of a request may see, or says what to answer instead.
func (h *Handler) find(r *http.Request, id string) (queue.Status, *Error) {
	if _, ok := queue.IDTime(id); !ok { // no broker need see it
		return queue.Status{}, errNoJob
	}
	ctx, done := context.WithTimeout(r.Context(), h.cfg.Timeout)
	defer done()
	st, err := h.jobs.Status(ctx, id)
	if err != nil {
		return queue.Status{}, h.failed(r, id, err)
	}
	if !h.allowed(r, st) {
		return queue.Status{}, h.unknown(id)
	}
	return st, nil
}

// failed says what to answer when the broker has no answer.
func (h *Handler) failed(r *http.Request, id string, err error) *Error {
	if errors.Is(err, queue.ErrUnknownJob) {
		return h.unknown(id)
	}
	if r.Context().Err() == nil { // else the client has hung up
		h.log.LogAttrs(r.Context(), slog.LevelError, "jobhttp: the queue failed", slog.String("job", id), slog.Any("error", err))
	}
	return h.unavailable()
}

// unknown is the answer for an ID that there is no job of, or none that the client may see. It depends on the ID
// and the time alone, so that it tells nothing of which it is.
func (h *Handler) unknown(id string) *Error {
	if made, ok := queue.IDTime(id); ok && time.Since(made) >= h.cfg.StatusFor {
		return errEnded
	}
	return errNoJob
}

// allowed asks the user's func. If that panics the answer is no: 500 would tell that there is such a job.
func (h *Handler) allowed(r *http.Request, st queue.Status) (yes bool) {
	defer func() {
		if v := recover(); v != nil {
			yes = false
			h.panicked(r, v)
		}
	}()
	return h.allow(r, st)
}
