package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

// follow starts a tail of the desk's queue; out and notes wait for its next line that begins so; end interrupts it.
func (d *desk) follow(args ...string) (out, notes lines, end func() error) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	out, notes = make(lines, 1<<16), make(lines, 1<<16)
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"tail", "-queue", orders, "-redis", d.server.Addr, "-every", "10ms"}, args...), out, notes)
		close(out)
		close(notes)
		done <- err
	}()
	return out, notes, func() error {
		cancel()
		return <-done
	}
}

// lines are what was written, a line a time.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// next is the next line that begins so, cleaned.
func (l lines) next(d *desk, prefix string) string {
	d.t.Helper()
	for line := range l {
		if strings.HasPrefix(line, prefix) {
			return d.clean(line)
		}
	}
	require.Fail(d.t, "tail has ended")
	return ""
}

// nextMillisecond waits until what dies from now on has died later than what has died so far.
func (d *desk) nextMillisecond() {
	d.t.Helper()
	var begin time.Time
	for {
		s, err := d.queue.Stats(d.t.Context())
		require.NoError(d.t, err)
		switch now := s.Now.Truncate(time.Millisecond); {
		case begin.IsZero():
			begin = now
		case now.After(begin):
			return
		}
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.bury("OLD", queue.Job{Kind: "ship"}, "before it began")
	d.nextMillisecond()
	out, _, end := d.follow()
	assert.Equal(t, "TIME JOBS HELD WAITING SCHEDULED DEAD PARKED PAUSED", strings.Join(strings.Fields(out.next(d, "")), " "))
	assert.Equal(t, "T 0 0 0 0 1 0 -", strings.Join(strings.Fields(out.next(d, "2")), " "))
	id := d.bury("NEW", queue.Job{Kind: "ship", Group: "a"}, "no\x1b[2J")
	assert.Equal(t, "dead  NEW  T  ship  a  -  0  0  \"no\\x1b[2J\"\n", out.next(d, "dead"))
	_, err := d.queue.Replay(t.Context(), queue.DeadFilter{IDs: []string{id}})
	require.NoError(t, err)
	d.claim(queue.Call{Settle: []queue.Settlement{{Token: d.claim(queue.Call{Max: 1}).Jobs[0].Token, Action: queue.Kill, Error: "again"}}})
	assert.Contains(t, out.next(d, "dead"), "again", "a job that dies once more, and none twice")
	require.NoError(t, end())
}

func TestTailJSON(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	out, _, end := d.follow("-json", "-payload")
	assert.JSONEq(t, `{"event":"stats","queue":"orders","jobs":0,"held":0,"waiting":0,"scheduled":0,"dead":0,"parked":0,"paused":false,"now":"T"}`, out.next(d, ""))
	d.bury("NEW", queue.Job{Kind: "ship", Group: "a", Payload: []byte("p")}, "no")
	assert.JSONEq(t, `{"event":"dead","id":"NEW","state":"dead","kind":"ship","group":"a","class":"live","key":"","order":"strict","attempts":0,"maxAttempts":30,
		"crashes":0,"maxCrashes":5,"since":"T","expires":"T","died":"T","error":"no","history":[{"number":1,"at":"T","error":"no"}],"payloadBytes":1,"payload":"p"}`,
		out.next(d, `{"event":"dead"`))
	require.NoError(t, end())
}

// A server that is away is said, and followed again when it is back.
func TestTailGoesOn(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	out, notes, end := d.follow("-json")
	out.next(d, "")
	out.next(d, "") // the first look is over
	require.NoError(t, d.server.Kill())
	notes.next(d, "can't reach Redis at "+d.server.Addr)
	require.NoError(t, d.server.Start())
	d.bury("NEW", queue.Job{Kind: "ship"}, "no")
	assert.Contains(t, out.next(d, `{"event":"dead"`), `"id":"NEW"`)
	require.NoError(t, end())
}
