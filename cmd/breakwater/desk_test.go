package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// desk is an operator's, with a private server and a queue on it.
type desk struct {
	t      *testing.T
	server *redisserver.Server
	client *redis.Client
	broker *redisqueue.Broker
	queue  *queue.Queue
	calls  uint64
	names  []string // of IDs, for clean
}

const orders = "orders"

func newDesk(t *testing.T) *desk {
	t.Helper()
	s := redistest.Start(t)
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	d := &desk{t: t, server: s, client: client}
	d.inSpace("", 0)
	return d
}

// inSpace moves to another space.
func (d *desk) inSpace(space string, partitions int) {
	d.t.Helper()
	d.broker = redisqueue.New(d.client, redisqueue.Config{Space: space, Partitions: partitions})
	var err error
	d.queue, err = queue.New(d.broker, queue.Config{Name: orders, Codecs: []queue.Codec{queue.Deflate()}})
	require.NoError(d.t, err)
}

// run runs a command over the desk's queue.
func (d *desk) run(args ...string) (out, notes string, err error) {
	d.t.Helper()
	var stdout, stderr bytes.Buffer
	err = run(d.t.Context(), append(args, "-redis", d.server.Addr), &stdout, &stderr)
	return d.clean(stdout.String()), d.clean(stderr.String()), err
}

// must is run of what succeeds and has nothing to note.
func (d *desk) must(args ...string) string {
	d.t.Helper()
	out, notes, err := d.run(args...)
	require.NoError(d.t, err)
	require.Empty(d.t, notes)
	return out
}

// clean puts names for IDs, and T for times.
func (d *desk) clean(s string) string {
	s = strings.NewReplacer(d.names...).Replace(s)
	s = strings.ReplaceAll(s, d.server.Addr, "SERVER")
	return times.ReplaceAllString(s, "T")
}

var (
	times  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	spaces = regexp.MustCompile(`  +`)
)

// equal compares tables: names and T are shorter than what they stand for, so that no number of spaces counts that is more than one.
func (d *desk) equal(want, got string) {
	d.t.Helper()
	assert.Equal(d.t, spaces.ReplaceAllString(strings.TrimPrefix(want, "\n"), "  "), spaces.ReplaceAllString(got, "  "))
}

// id is that of a name.
func (d *desk) id(name string) string { return d.names[slices.Index(d.names, name)-1] }

// enqueue enqueues a job whose ID is printed as name.
func (d *desk) enqueue(name string, j queue.Job) string {
	d.t.Helper()
	r, err := d.queue.Enqueue(d.t.Context(), j)
	require.NoError(d.t, err)
	d.names = append(d.names, r[0].ID, name)
	return r[0].ID
}

func (d *desk) claim(call queue.Call) queue.Claimed {
	d.t.Helper()
	d.calls++
	call.Process, call.Number, call.Lease = "worker", d.calls, time.Hour
	got, err := d.broker.Claim(d.t.Context(), orders, call)
	require.NoError(d.t, err)
	return got
}

// settle enqueues a job, claims it and settles it so. No other may be ready.
func (d *desk) settle(name string, j queue.Job, s queue.Settlement) string {
	d.t.Helper()
	id := d.enqueue(name, j)
	got := d.claim(queue.Call{Max: 1})
	require.Len(d.t, got.Jobs, 1)
	require.Equal(d.t, id, got.Jobs[0].Job.ID)
	s.Token = got.Jobs[0].Token
	d.claim(queue.Call{Settle: []queue.Settlement{s}})
	return id
}

func (d *desk) bury(name string, j queue.Job, reason string) string {
	d.t.Helper()
	return d.settle(name, j, queue.Settlement{Action: queue.Kill, Error: reason})
}
