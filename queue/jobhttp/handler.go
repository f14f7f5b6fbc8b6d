package jobhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	defaultPath       = "/jobs"
	defaultMaxBytes   = 1 << 20
	defaultTimeout    = 5 * time.Second
	defaultRetryAfter = 2 * time.Second
	defaultStatusFor  = 24 * time.Hour // as queue.Job.StatusFor
	defaultPoll       = 500 * time.Millisecond
	defaultHeartbeat  = 15 * time.Second // proxies give up on an idle connection after 30 to 60 s
	defaultMaxStreams = 1000
)

// Config tunes a Handler. The zero value is valid.
type Config struct {
	// Path is where the jobs are, as clients see it: the Location of a job is Path/{id}. "" means "/jobs".
	Path string
	// ID finds the job's ID in a request for [Handler.Status], [Handler.Cancel] and [Handler.Events], under a router that
	// has its own way to keep it. nil means PathValue("id") or, where that is empty, the last part of the path, before "/events".
	ID func(r *http.Request) string

	MaxBytes   int64         // largest body of a submission; 0 means 1 MiB. Over it the answer is 413, whatever the accept func says
	Timeout    time.Duration // what the broker may take for one answer; 0 means 5 s
	RetryAfter time.Duration // the Retry-After of 202, of a job that has not ended and of 503, in whole seconds, rounded up; 0 means 2 s
	// StatusFor is how long a job's status is kept after its end, if the submission's Job does not say; 0 means 24 h. An
	// unknown ID that is younger can't have ended so long ago, and is 404; an older one is 410.
	StatusFor time.Duration

	// Callbacks call the URL of a submission when its job has ended; they must be of the same queue. nil means that a submission
	// with a URL is refused with 422.
	Callbacks *Callbacks

	Poll       time.Duration // between looks at the job of a stream of events; 0 means 500 ms
	Heartbeat  time.Duration // after which a silent stream gets a comment, for the proxies in between; 0 means 15 s
	MaxStreams int           // open at once; 0 means 1,000. Over it the answer is 503

	// ErrorText makes what clients read about why a job failed, from a Status whose Error is what the handler said; nil shows
	// that as it is. Set it if errors of handlers name what clients should not know.
	ErrorText func(st queue.Status) string

	Logger *slog.Logger // nil discards
}

// Handler is the HTTP side of a queue. As an http.Handler it serves everything under any prefix; Submit, Status,
// Events and Cancel serve one thing each, for those who route themselves. Every problem is application/problem+json, no answer may
// be cached. It is safe for concurrent use. A test that uses it in a synctest bubble must make it there.
type Handler struct {
	jobs    *queue.Queue
	accept  func(r *http.Request) (Submission, error)
	allow   func(r *http.Request, st queue.Status) bool
	cfg     Config
	log     *slog.Logger
	streams atomic.Int64

	closing chan struct{} // closed by EndStreams
	close   sync.Once
}

var _ http.Handler = (*Handler)(nil)

// Anyone is an allow func that lets everybody who can send a request see and cancel every job of whom they know the ID.
func Anyone(*http.Request, queue.Status) bool { return true }

// New makes a Handler over jobs.
//
// accept makes a job out of a request, and so decides who may submit what. It gets the request with a bounded body. An [*Error] of
// it is sent as it is. Any other error is logged and answered without its text: 503 if it has a
// RetryAfter() time.Duration method or a Timeout() bool method that says true, else 400.
//
// allow says whether the sender of a request may see, follow and cancel the job of a Status, most often by its Group, and by its Kind
// where the queue has other tracked jobs as well. One that may not gets the answer of an ID that does not exist. [Anyone] allows everything.
//
// New fails if one of the three is nil, a field of cfg is negative or does not fit, or, with [errors.ErrUnsupported], if
// the queue's broker can't tell a job's status.
func New(jobs *queue.Queue, accept func(r *http.Request) (Submission, error), allow func(r *http.Request, st queue.Status) bool, cfg Config) (*Handler, error) {
	switch {
	case jobs == nil:
		return nil, errors.New("jobhttp: New: jobs is nil")
	case accept == nil:
		return nil, errors.New("jobhttp: New: accept is nil")
	case allow == nil:
		return nil, errors.New("jobhttp: New: allow is nil; use jobhttp.Anyone if everybody may see every job")
	}
	if cfg.Callbacks != nil && cfg.Callbacks.jobs != jobs {
		return nil, errors.New("jobhttp: New: Config.Callbacks is of another queue")
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("jobhttp: New: %w", err)
	}
	if err := canTell(jobs); err != nil {
		return nil, fmt.Errorf("jobhttp: New: %w", err)
	}
	cfg.Path = strings.TrimSuffix(cmp.Or(cfg.Path, defaultPath), "/")
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMaxBytes)
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	cfg.RetryAfter = cmp.Or(cfg.RetryAfter, defaultRetryAfter)
	cfg.StatusFor = cmp.Or(cfg.StatusFor, defaultStatusFor)
	cfg.Poll = cmp.Or(cfg.Poll, defaultPoll)
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, defaultHeartbeat)
	cfg.MaxStreams = cmp.Or(cfg.MaxStreams, defaultMaxStreams)
	return &Handler{jobs: jobs, accept: accept, allow: allow, cfg: cfg, log: orDiscard(cfg.Logger), closing: make(chan struct{})}, nil
}

func (cfg *Config) check() error {
	switch {
	case cfg.Path != "" && (cfg.Path[0] != '/' || path.Clean(cfg.Path) != strings.TrimSuffix(cfg.Path, "/") && cfg.Path != "/" || !plain(cfg.Path)):
		return fmt.Errorf("Config.Path is %q; want a clean path such as /api/jobs, percent-encoded where it must be", cfg.Path)
	case cfg.MaxBytes < 0:
		return fmt.Errorf("Config.MaxBytes is %d; want 0 for the default, or more", cfg.MaxBytes)
	case cfg.MaxStreams < 0:
		return fmt.Errorf("Config.MaxStreams is %d; want 0 for the default, or more", cfg.MaxStreams)
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"Config.Timeout", cfg.Timeout}, {"Config.RetryAfter", cfg.RetryAfter}, {"Config.StatusFor", cfg.StatusFor}, {"Config.Poll", cfg.Poll}, {"Config.Heartbeat", cfg.Heartbeat}} {
		if f.d < 0 {
			return fmt.Errorf("%s is %v; want 0 for the default, or more", f.name, f.d)
		}
	}
	return nil
}

// plain says whether a path can stand in a Location header as it is.
func plain(p string) bool {
	for i := range len(p) {
		if p[i] <= ' ' || p[i] >= 0x7f || strings.IndexByte(`"<>\^{|}?#`+"`", p[i]) >= 0 {
			return false
		}
	}
	return true
}

// canTell says whether a queue's broker can tell a job's status. A call whose context has ended does no I/O.
func canTell(jobs *queue.Queue) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := jobs.Status(ctx, ""); errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// EndStreams ends the streams of events that are open, and those that are asked for later at once. Their clients come again, to
// another process. http.Server.Shutdown would wait for them; register this with RegisterOnShutdown.
func (h *Handler) EndStreams() { h.close.Do(func() { close(h.closing) }) }

// ServeHTTP serves POST at Config.Path, GET and DELETE at Config.Path/{id}, and GET at Config.Path/{id}/events. It finds
// its way too where http.StripPrefix, or a proxy, has cut some of the front parts of Config.Path, or all of it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recovered(w, r)
	id, tail, deep := strings.Cut(strings.TrimPrefix(h.rest(r.URL.Path), "/"), "/")
	switch {
	case id == "" && !deep:
		h.submit(w, r)
	case id != "" && !deep && r.Method == http.MethodDelete:
		h.cancel(w, r, id)
	case id != "" && !deep:
		if h.only(w, r, http.MethodGet, http.MethodHead, http.MethodDelete) {
			h.status(w, r, id)
		}
	case id != "" && tail == "events":
		h.events(w, r, id)
	default:
		h.refuse(w, errPath)
	}
}

// rest cuts Config.Path off, or as much of its end as the path begins with.
func (h *Handler) rest(p string) string {
	for prefix := h.cfg.Path; prefix != ""; {
		if rest, ok := strings.CutPrefix(p, prefix); ok && (rest == "" || rest[0] == '/') {
			return rest
		}
		_, after, more := strings.Cut(prefix[1:], "/")
		if !more {
			break
		}
		prefix = "/" + after
	}
	return p
}

// id finds the ID where the user has routed the request.
func (h *Handler) id(r *http.Request) string {
	if h.cfg.ID != nil {
		return h.cfg.ID(r)
	}
	if id := r.PathValue("id"); id != "" {
		return id
	}
	p := strings.TrimSuffix(r.URL.Path, "/events")
	return p[strings.LastIndexByte(p, '/')+1:]
}
