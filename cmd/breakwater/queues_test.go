package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

func TestQueues(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	out, notes, err := d.run("queues")
	require.NoError(t, err)
	assert.Empty(t, out)
	assert.Equal(t, "no queue holds anything in this space at SERVER; others are named by -space and -partitions\n", notes)

	d.bury("DEAD", queue.Job{Kind: "ship"}, "no")
	d.settle("RETRY", queue.Job{Kind: "ship", Group: "a"}, queue.Settlement{Action: queue.Retry, After: time.Hour, Error: "no"})
	d.enqueue("HELD", queue.Job{Kind: "ship", Group: "b"})
	d.claim(queue.Call{Max: 1})
	d.enqueue("LATER", queue.Job{Kind: "ship", Delay: time.Hour})
	d.must("park", "-queue", orders, "-group", "c", "-for", "1h")
	d.must("pause", "-queue", orders)
	other, err := queue.New(d.broker, queue.Config{Name: "mail\x1b[1m"})
	require.NoError(t, err)
	_, err = other.Enqueue(t.Context(), queue.Job{Kind: "mail"})
	require.NoError(t, err)

	d.equal(`
QUEUE          JOBS  HELD  WAITING  SCHEDULED  DEAD  PARKED  PAUSED
"mail\x1b[1m"  1     0     0        0          0     0       -
orders         2     1     1        1          1     1       paused
`, d.must("queues"))
	d.equal(`
{"queue":"mail\u001b[1m","jobs":1,"held":0,"waiting":0,"scheduled":0,"dead":0,"parked":0,"paused":false,"now":"T"}
{"queue":"orders","jobs":2,"held":1,"waiting":1,"scheduled":1,"dead":1,"parked":1,"paused":true,"now":"T"}
`, d.must("queues", "-json"))
}

func TestPauseResumePark(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	_, notes, err := d.run("pause", "-queue", "typo")
	require.NoError(t, err)
	assert.Equal(t, "queue \"typo\" is empty, or there is none of that name; no queue holds anything in this space at SERVER; others are named by -space and -partitions\n", notes)

	d.enqueue("ID", queue.Job{Kind: "ship", Group: "a"})
	d.equal("paused queue \"orders\": workers finish what they have and claim no more; resume ends that\n", d.must("pause", "-queue", orders))
	assert.Empty(t, d.claim(queue.Call{Max: 1}).Jobs)
	d.equal("resumed queue \"orders\"\n", d.must("resume", "-queue", orders))
	_, notes, err = d.run("resume", "-queue", orders)
	require.NoError(t, err)
	d.equal("queue \"orders\" was not paused\n", notes)

	d.equal("parked group \"a\" of queue \"orders\" for 10m0s; -for 0 ends that\n", d.must("park", "-queue", orders, "-group", "a", "-for", "10m"))
	assert.Empty(t, d.claim(queue.Call{Max: 1}).Jobs)
	d.equal("unparked group \"a\" of queue \"orders\"\n", d.must("park", "-queue", orders, "-group", "a", "-for", "0"))
	d.equal(`{"action":"park","queue":"orders","group":"","seconds":1.5}`+"\n", d.must("park", "-json", "-queue", orders, "-group", "", "-for", "1500ms"))
	d.equal(`{"action":"pause","queue":"orders"}`+"\n", d.must("pause", "-json", "-queue", orders))
	d.equal(`{"action":"resume","queue":"orders"}`+"\n", d.must("resume", "-json", "-queue", orders))
	assert.Len(t, d.claim(queue.Call{Max: 1}).Jobs, 1)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	id := d.enqueue("ID", queue.Job{Kind: "ship", Group: "a", Key: "1"})
	out, notes, err := d.run("check")
	require.NoError(t, err)
	assert.Empty(t, out)
	d.equal("nothing contradicts the invariants; queues that hold something: \"orders\"\n", notes)

	require.NoError(t, d.client.Del(t.Context(), "{breakwater:0}:orders:l:1la1").Err(), id)
	require.NoError(t, d.client.Set(t.Context(), "{breakwater:0}:orders:x\x1b[2J", "", 0).Err())
	out, _, err = d.run("check")
	require.EqualError(t, err, "check: 3 findings; docs/queue.md says what should hold")
	require.NotErrorIs(t, err, errUsage)
	d.equal(`
partition 0, queue "orders": its meta record counts 1 jobs; there are 0
partition 0, queue "orders": key "x\x1b[2J" is none of ours
partition 0, queue "orders": lane "1la1" is ready and empty
`, out)
	out, _, err = d.run("check", "-json")
	require.Error(t, err)
	assert.Contains(t, out, `{"problem":"partition 0, queue \"orders\": key \"x\\x1b[2J\" is none of ours"}`+"\n")
}

var _ engine = (*redisqueue.Broker)(nil)
