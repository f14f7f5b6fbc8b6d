package queue

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"
)

// Hooks tell of what happens to jobs, for metrics, traces and alarms. They are called synchronously, from many
// goroutines at once: what happens waits for them, so a slow hook slows that down; a panic in one is logged and
// changes nothing. A process that dies between an event and its hook does not call it: what must not be
// missed is read from the broker. A job that is cancelled while its failure is on its way may still be told of as retried.
type Hooks struct {
	Enqueued func(ctx context.Context, job Job, receipt Receipt)                // accepted or dropped as a duplicate; the payload is as the Codec made it
	Started  func(ctx context.Context, job Job)                                 // its handler is about to be called
	Ended    func(ctx context.Context, job Job, err error, took time.Duration)  // its handler has returned err
	Retried  func(ctx context.Context, job Job, err error, after time.Duration) // a failed attempt was taken note of; it comes again
	Died     func(ctx context.Context, letter DeadLetter)                       // without payload
	Trimmed  func(ctx context.Context, letter DeadLetter)                       // about to be dropped because of Config.MaxDead; may be told by several processes
	Zombie   func(ctx context.Context, job Job)                                 // its handler ignores the end of its context, and has lost its slot and lease
}

// hook calls a user's hook.
func (q *Queue) hook(ctx context.Context, name string, call func()) {
	defer func() {
		if v := recover(); v != nil {
			q.log.LogAttrs(ctx, slog.LevelError, "queue: a hook panicked", slog.String("hook", name), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
	}()
	call()
}

// hookApart calls a hook where the goroutine must live on, whatever the hook does: runtime.Goexit, as a failed
// assertion of a test does, would end it.
func (q *Queue) hookApart(ctx context.Context, name string, call func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.hook(ctx, name, call)
	}()
	<-done
}

// The names of the fields in the logs of this package.
const (
	logQueue   = "queue"
	logJob     = "job"
	logKind    = "kind"
	logGroup   = "group"
	logKey     = "key"
	logAttempt = "attempt"
	logError   = "error"
	logToken   = "token"
)

func jobAttrs(j *Job) []slog.Attr {
	return []slog.Attr{slog.String(logJob, j.ID), slog.String(logKind, j.Kind), slog.String(logGroup, j.Group), slog.String(logKey, j.Key), slog.Int(logAttempt, j.Attempts+1)}
}
