package jobhttp

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// CallbackKind is the kind of the jobs that watch for a job's end and then call its URL: for WorkerConfig.Backoffs, and to
// find those that are dead.
const CallbackKind = "breakwater/callback"

const (
	defaultCallbackTimeout  = 15 * time.Second
	defaultCallbackAttempts = 30

	// A watcher looks again after a quarter of the time that it has waited, so that a callback comes late by that much at
	// most, between firstLook and lastLook.
	firstLook = time.Second
	lastLook  = 30 * time.Second

	// watchFor is a watcher's deadline. It must outlive any job: one may be scheduled for next year, be snoozed for weeks, and
	// die or be cancelled then. The watcher ends with the job, or with the job's status, so that this is never waited out.
	watchFor = 10 * 365 * 24 * time.Hour
	// callFor is a callback's deadline: it ends a receiver's "429, come again later", which spends no attempt.
	callFor = 7 * 24 * time.Hour
)

// CallbackConfig tunes Callbacks. The zero value is valid.
type CallbackConfig struct {
	Timeout time.Duration // of one POST, redirects and answer included; 0 means 15 s
	// MaxAttempts is after how many failures a callback is a dead letter; 0 means 30: about 48 h with the worker's
	// default Backoff. WorkerConfig.Backoffs may have one for [CallbackKind]. No try begins later than 7 days after the job's end.
	MaxAttempts int

	AllowHTTP    bool // also call http URLs: whoever is on the way can read them
	AllowPrivate bool // also call addresses that are not public: for tests, and receivers inside your own network

	// Transport sends the requests, for instance through a proxy that guards the way out. nil means one that dials nothing but public
	// addresses and uses no proxy. One of yours must see to that itself: what is left here is the check of the URL.
	Transport http.RoundTripper

	// ErrorText is as in [Config].
	ErrorText func(st queue.Status) string

	Logger *slog.Logger // nil discards
}

// Callbacks tells callers when their jobs have ended: succeeded, dead or cancelled. Each URL of a submission gets one POST, sent
// again until it is answered 2xx, in the form that standardwebhooks.com describes:
//
//	webhook-id: 06GRO2VHC6HKE5Q71SKG5N1PK0                  the same on every try
//	webhook-timestamp: 1764028800                           of this try
//	webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2…=   one for each secret
//
//	{"type":"job.succeeded","timestamp":"2026-11-25T00:00:00Z","data":{…}}   data is what Status answers
//
// A URL must be https, without a user name, and not of a private address; the address is looked at when it is dialed, after DNS and on
// each redirect. Redirects of status 307 and 308 are followed, three at most, never from https to http; others
// would turn the POST into a GET and are failures. 410 makes the callback a dead letter at once, and so does a private address. A Retry-After of
// 429 and 503 is obeyed, up to a day.
//
// A callback is a job itself, of [CallbackKind] in the group and class of the job that it is about. First it watches: it is snoozed, for 1
// to 30 s, until the job has ended. Then what it has to say is fixed in a second job, in the same step in which the first
// is done, so that it can be told long after the job's status is gone. If the status is gone before it was seen (StatusFor is too
// short, the job was purged), nobody is called, and the log says so. A job that is replayed after its end is not told of again.
//
// What is to be told is in the callback's payload, result included. A Purge by group or by [CallbackKind] erases it; one by the job's key does not, for a
// callback has none.
//
// A process that serves HTTP needs it in its [Config], one that runs workers needs its Handle; a queue that no worker with
// Handle runs keeps callbacks for 24 h and then as dead letters, as it does with every kind.
//
// It is safe for concurrent use.
type Callbacks struct {
	jobs    *queue.Queue
	secrets SecretFunc
	cfg     CallbackConfig
	log     *slog.Logger
	client  *http.Client
}

// NewCallbacks makes Callbacks that sign with secrets. jobs is the queue that holds the jobs. It fails if one of the two is nil,
// a field of cfg is negative, or, with [errors.ErrUnsupported], if the queue's broker can't tell a job's status.
func NewCallbacks(jobs *queue.Queue, secrets SecretFunc, cfg CallbackConfig) (*Callbacks, error) {
	switch {
	case jobs == nil:
		return nil, errors.New("jobhttp: NewCallbacks: jobs is nil")
	case secrets == nil:
		return nil, errors.New("jobhttp: NewCallbacks: secrets is nil; use jobhttp.Secrets(secret)")
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("jobhttp: NewCallbacks: CallbackConfig.Timeout is %v; want 0 for the default, or more", cfg.Timeout)
	case cfg.MaxAttempts < 0:
		return nil, fmt.Errorf("jobhttp: NewCallbacks: CallbackConfig.MaxAttempts is %d; want 0 for the default, or more", cfg.MaxAttempts)
	}
	if err := canTell(jobs); err != nil {
		return nil, fmt.Errorf("jobhttp: NewCallbacks: %w", err)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultCallbackTimeout)
	cfg.MaxAttempts = cmp.Or(cfg.MaxAttempts, defaultCallbackAttempts)
	c := &Callbacks{jobs: jobs, secrets: secrets, cfg: cfg, log: orDiscard(cfg.Logger)}
	c.client = c.newClient()
	return c, nil
}

// Handle registers the handler of [CallbackKind]. The mux's worker must run the queue that NewCallbacks got, or one over the
// same broker. It panics as [queue.Mux.Handle] does.
func (c *Callbacks) Handle(mux *queue.Mux) { queue.Handle(mux, CallbackKind, c.handle) }

// note is the payload of a job of CallbackKind. While it watches it has no body.
type note struct {
	JobID string          `json:"jobId"`
	URL   string          `json:"url"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// watch enqueues the watcher of a job.
func (c *Callbacks) watch(ctx context.Context, sub Submission, receipt queue.Receipt) error {
	payload, err := json.Marshal(note{JobID: receipt.ID, URL: sub.Callback})
	if err != nil {
		return fmt.Errorf("jobhttp: callback of job %s: %w", receipt.ID, err)
	}
	w := c.job(sub.Job.Group, sub.Job.Class, payload)
	w.Deadline = watchFor
	// A request that is sent again is one callback, as it is one job. A hash: the URL may hold a secret, and dedupe keys are
	// stored as they are.
	sum := sha256.Sum256([]byte(receipt.ID + " " + sub.Callback))
	w.DedupeKey, w.DedupeFor = CallbackKind+" "+hex.EncodeToString(sum[:]), sub.Job.DedupeFor
	if !receipt.Duplicate {
		w.Delay = firstLook // hardly any job ends sooner
	}
	if _, err := c.jobs.Enqueue(ctx, w); err != nil {
		return fmt.Errorf("jobhttp: callback of job %s: %w", receipt.ID, err)
	}
	return nil
}

// job is one of CallbackKind. It is in no order with others: nothing waits for it.
func (c *Callbacks) job(group string, class queue.Class, payload []byte) queue.Job {
	return queue.Job{Kind: CallbackKind, Group: group, Class: class, Payload: payload, MaxAttempts: c.cfg.MaxAttempts}
}

func (c *Callbacks) handle(ctx context.Context, n note) error {
	job, ok := queue.JobFrom(ctx)
	switch {
	case !ok:
		return queue.ErrNoJob
	case len(n.Body) > 0:
		return c.call(ctx, job, n)
	}
	return c.look(ctx, job, n)
}

// look sees whether the job has ended.
func (c *Callbacks) look(ctx context.Context, job queue.Job, n note) error {
	st, err := c.jobs.Status(ctx, n.JobID)
	switch {
	case errors.Is(err, queue.ErrUnknownJob):
		c.log.LogAttrs(ctx, slog.LevelWarn, "jobhttp: no callback: the job's status is gone, or it is not tracked", slog.String("job", n.JobID), slog.String("group", job.Group))
		return nil
	case err != nil:
		return &later{fmt.Errorf("jobhttp: callback of job %s: %w", n.JobID, err), lastLook}
	case st.Group != job.Group: // no submission makes one
		return queue.Permanent(fmt.Errorf("jobhttp: callback of job %s: it is of another group", n.JobID))
	case !st.State.Ended():
		return &later{fmt.Errorf("jobhttp: callback of job %s: it is %s", n.JobID, st.State), nextLook(job)}
	}
	return c.settle(ctx, job, n, st)
}

// nextLook is a bit less than it might be, at random: what was submitted together need not come together.
func nextLook(job queue.Job) time.Duration {
	d := min(max(time.Since(job.Since)/4, firstLook), lastLook)
	return d - rand.N(d/8)
}

// settle fixes what is to be told, in the step in which the watcher is done.
func (c *Callbacks) settle(ctx context.Context, job queue.Job, n note, st queue.Status) error {
	body, err := json.Marshal(struct {
		Type      string          `json:"type"`
		Timestamp time.Time       `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
	}{"job." + string(st.State), stamp(st.Ended), describe(st, c.cfg.ErrorText)})
	if err == nil {
		n.Body = body
		body, err = json.Marshal(n)
	}
	if err != nil {
		return queue.Permanent(fmt.Errorf("jobhttp: callback of job %s: %w", n.JobID, err))
	}
	call := c.job(job.Group, job.Class, body)
	call.Deadline = callFor
	_, err = c.jobs.EnqueueOnAck(ctx, call)
	return err
}

// later is an error that snoozes its job.
type later struct {
	error
	after time.Duration
}

func (l *later) Unwrap() error             { return l.error }
func (l *later) RetryAfter() time.Duration { return l.after }
