package jobhttp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	// writeWithin is what one event may take to be written: a client that does not read loses its stream, so that it does not
	// hold a goroutine and a place among Config.MaxStreams.
	writeWithin = 10 * time.Second
	// maxStream ends a stream whose job takes longer; the client comes again and is asked anew who it is.
	maxStream = time.Hour
)

// Events streams a job's status as Server-Sent Events: "status" events with what Status answers, one at once and one after
// each change, then one "end" event with the final status, and the end of the stream. A client that comes again with the Last-Event-ID
// that it has is not told the same once more; 204 tells an EventSource that has seen the end to stay away. A stream
// ends without an "end" event after an hour, when a write to the client stands for 10 s (one that reads nothing gets that far only when the buffers in between are full), when the job's status is no longer kept, and by
// [Handler.EndStreams]. 404 and 410 are as for Status; 503 is for more streams than Config.MaxStreams; 501 for a ResponseWriter
// that can't flush, because a middleware hides that it can.
func (h *Handler) Events(w http.ResponseWriter, r *http.Request) {
	defer h.recovered(w, r)
	h.events(w, r, h.id(r))
}

func (h *Handler) events(w http.ResponseWriter, r *http.Request, id string) {
	if !h.only(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	st, no := h.find(r, id)
	if no != nil {
		h.refuse(w, no)
		return
	}
	if h.streams.Add(1) > int64(h.cfg.MaxStreams) {
		h.streams.Add(-1)
		h.refuse(w, &Error{Status: http.StatusServiceUnavailable, Detail: "Too many streams are open. Ask for the status instead.", RetryAfter: h.cfg.RetryAfter})
		return
	}
	defer h.streams.Add(-1)
	s := &stream{h: h, w: w, rc: http.NewResponseController(w), seen: r.Header.Get("Last-Event-ID")}
	first := s.event(st)
	head := w.Header()
	if first == nil && st.State.Ended() {
		head.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store, no-transform") // a proxy that compresses waits until it has enough
	head.Set("X-Accel-Buffering", "no")                 // nginx would collect events
	head.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return
	}
	s.deadline()
	defer s.restore(r)
	switch err := s.rc.Flush(); { // sends the head
	case errors.Is(err, http.ErrNotSupported):
		head.Del("X-Accel-Buffering")
		h.refuse(w, &Error{Status: http.StatusNotImplemented, Detail: "This server can't stream. Ask for the status instead."})
	case err == nil:
		s.run(r, st, first)
	}
}

// stream is one open response.
type stream struct {
	h    *Handler
	w    http.ResponseWriter
	rc   *http.ResponseController
	seen string // ID of the last event
}

// run sends events until the job has ended, or nobody reads them any more.
func (s *stream) run(r *http.Request, st queue.Status, first []byte) {
	defer func() { // a func of the user: the answer has begun, so that nothing is left but to end it
		if v := recover(); v != nil {
			s.h.panicked(r, v)
		}
	}()
	end := time.NewTimer(maxStream)
	defer end.Stop()
	poll := time.NewTicker(s.h.cfg.Poll)
	defer poll.Stop()
	silence := time.NewTimer(s.h.cfg.Heartbeat)
	defer silence.Stop()
	event := append(fmt.Appendf(nil, "retry: %d\n\n", s.h.cfg.RetryAfter.Milliseconds()), first...)
	for failing := false; ; {
		if len(event) > 0 {
			if s.send(event) != nil || st.State.Ended() {
				return
			}
			silence.Reset(s.h.cfg.Heartbeat)
			event = nil
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.h.closing:
			return
		case <-end.C:
			return
		case <-silence.C:
			event = []byte(":\n\n")
			continue
		case <-poll.C:
		}
		now, err := s.look(r, st.ID)
		switch {
		case err == nil:
			st, failing = now, false
			if event = s.event(st); event == nil && st.State.Ended() {
				return
			}
		case errors.Is(err, queue.ErrUnknownJob):
			return // purged; or it ended, and its status too, while the broker was away
		case !failing && r.Context().Err() == nil:
			failing = true // said once; the stream stays, and heartbeats go on
			s.h.log.LogAttrs(r.Context(), slog.LevelError, "jobhttp: the queue failed; a stream waits for it", slog.String("job", st.ID), slog.Any("error", err))
		}
	}
}

func (s *stream) look(r *http.Request, id string) (queue.Status, error) {
	ctx, done := context.WithTimeout(r.Context(), s.h.cfg.Timeout)
	defer done()
	return s.h.jobs.Status(ctx, id)
}

// event makes the event of a status, or nothing if the client has it. Its ID is made of what it says, so that any process knows
// whether one who comes again has seen it.
func (s *stream) event(st queue.Status) []byte {
	body := describe(st, s.h.cfg.ErrorText)
	sum := sha256.Sum256(body)
	id := hex.EncodeToString(sum[:8])
	if id == s.seen {
		return nil
	}
	s.seen = id
	name := "status"
	if st.State.Ended() {
		name = "end"
	}
	return fmt.Appendf(nil, "id: %s\nevent: %s\ndata: %s\n\n", id, name, body)
}

func (s *stream) send(b []byte) error {
	s.deadline()
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.rc.Flush()
}

// deadline gives the next write its time, and so takes away that of http.Server's WriteTimeout, which is meant for
// the whole answer. Where there are no deadlines there is nothing to do about it.
func (s *stream) deadline() { _ = s.rc.SetWriteDeadline(time.Now().Add(writeWithin)) }

// restore takes the deadline off again where the server would not, before the connection's next request.
func (s *stream) restore(r *http.Request) {
	if srv, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok && srv.WriteTimeout > 0 {
		return
	}
	_ = s.rc.SetWriteDeadline(time.Time{})
}
