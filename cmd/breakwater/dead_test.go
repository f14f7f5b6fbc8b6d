package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

func TestDead(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	_, notes, err := d.run("dead", "ls", "-queue", orders)
	require.NoError(t, err)
	assert.Contains(t, notes, `queue "orders" has no such dead letters`)

	d.bury("DEAD1", queue.Job{Kind: "ship", Group: "a", Key: "1", Payload: []byte("{\"n\":1}\n\x1b"), Headers: map[string]string{"Topic": "x"}}, "carrier: 400\x1b[2J\nbad address")
	d.bury("DEAD2", queue.Job{Kind: "mail", Group: "b\u202e", DedupeKey: "d", Payload: []byte("\xff\x00")}, "smtp: "+strings.Repeat("x", 100))
	d.equal(`
ID     DIED  KIND  GROUP      KEY  ATTEMPTS  CRASHES  ERROR
DEAD1  T     ship  a          1    0         0        "carrier: 400\x1b[2J\nbad address"
DEAD2  T     mail  "b\u202e"  -    0         0        smtp: `+strings.Repeat("x", 74)+`…
`, d.must("dead", "ls", "-queue", orders))
	d.equal(`
{"id":"DEAD1","state":"dead","kind":"ship","group":"a","class":"live","key":"1","order":"strict","attempts":0,"maxAttempts":30,"crashes":0,"maxCrashes":5,"since":"T","expires":"T","died":"T","error":"carrier: 400\u001b[2J\nbad address","history":[{"number":1,"at":"T","error":"carrier: 400\u001b[2J\nbad address"}],"payloadBytes":9}
`, d.must("dead", "ls", "-json", "-queue", orders, "-group", "a"))
	assert.Contains(t, d.must("dead", "ls", "-queue", orders, "-payload", "-kind", "mail"), "  -        /wA=\n")
	assert.Contains(t, d.must("dead", "ls", "-queue", orders, "-payload", "-error", "400"), `  {"Topic":"x"}  "{\"n\":1}\n\x1b"`+"\n")
	assert.Equal(t, 3, strings.Count(d.must("dead", "ls", "-queue", orders, "-from", "1h"), "\n"))
	assert.Equal(t, 3, strings.Count(d.must("dead", "ls", "-queue", orders, "-until", "2200-01-01T00:00:00Z", "-from", "2026-01-01"), "\n"))
	out, notes, err := d.run("dead", "ls", "-queue", orders, "-until", "1h")
	require.NoError(t, err)
	assert.Empty(t, out)
	d.equal("queue \"orders\" has no such dead letters\n", notes)
	out, notes, err = d.run("dead", "ls", "-queue", orders, "-limit", "1")
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(out, "\n"))
	assert.Equal(t, "there are more: add -from T, or a higher -limit\n", notes)
}

func TestDeadShow(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	text := d.bury("DEAD1", queue.Job{Kind: "ship", Group: "a", Key: "1", Payload: []byte("{\n\t\"n\":1}\x1b"), Headers: map[string]string{"Topic": "x"}}, "carrier: 400\x1b[2J\nbad address")
	binary := d.bury("DEAD2", queue.Job{Kind: "mail", DedupeKey: "d\a", Payload: []byte("\xff\x00")}, "no")
	d.equal(`
id          DEAD1
kind        ship
group       a
class       live
key         1
order       strict
dedupe key  -
attempts    0 of 30
crashes     0 of 5
since       T
died        T
payload     10 bytes
error       carrier: 400\x1b[2J
            bad address
   1.  T  carrier: 400\x1b[2J
            bad address

{"Topic":"x"}

{
	"n":1}\x1b
`, d.must("dead", "show", text, "-queue", orders, "-payload"))
	out := d.must("dead", "show", "-queue", orders, binary, "-payload")
	assert.Contains(t, out, "dedupe key  \"d\\a\"\n")
	assert.True(t, strings.HasSuffix(out, "\n\n-\n\n/wA=\n"))
	assert.NotContains(t, d.must("dead", "show", "-queue", orders, binary), "/wA=")
	out = d.must("dead", "show", "-queue", orders, binary, "-json", "-payload")
	assert.Contains(t, out, `"dedupeKey":"d\u0007"`)
	assert.Contains(t, out, `"payloadBase64":"/wA="`)

	_, notes, err := d.run("dead", "show", "-queue", "typo", "x\x1b")
	require.EqualError(t, err, `dead show: queue "typo" has no dead letter "x\x1b"`)
	d.equal("queue \"typo\" is empty, or there is none of that name; queues that hold something: \"orders\"\n", notes)
}

func TestDeadReplayAndDrop(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for i := range 25 {
		d.bury("DEAD"+strconv.Itoa(10+i), queue.Job{Kind: "ship", Group: strconv.Itoa(i % 5)}, "no")
	}
	dead := func() int {
		s, err := d.queue.Stats(t.Context())
		require.NoError(t, err)
		return s.Dead
	}

	d.equal(`
ID      DIED  KIND  GROUP  KEY  ATTEMPTS  CRASHES  ERROR
DEAD12  T     ship  2      -    0         0        no
would drop 1 dead letter of queue "orders"; nothing was changed: add -yes to do it
`, d.must("dead", "drop", "-queue", orders, d.id("DEAD12")))
	out := d.must("dead", "replay", "-queue", orders, "-all")
	assert.Equal(t, 1+planRows+2, strings.Count(out, "\n"))
	assert.True(t, strings.HasSuffix(out, "… and 5 more\nwould replay 25 dead letters of queue \"orders\"; nothing was changed: add -yes to do it\n"))
	d.equal(`{"action":"replay","queue":"orders","dryRun":true,"count":5,"ids":["DEAD11","DEAD16","DEAD21","DEAD26","DEAD31"]}`+"\n",
		d.must("dead", "replay", "-queue", orders, "-group", "1", "-json"))
	out, notes, err := d.run("dead", "drop", "-queue", orders, "X", d.id("DEAD11"))
	require.NoError(t, err)
	d.equal("queue \"orders\" has no dead letter [\"X\"]\n", notes)
	assert.Contains(t, out, "would drop 1 dead letter of")
	assert.Equal(t, 25, dead(), "a dry run changes nothing")

	out, _, err = d.run("dead", "drop", "-queue", orders, "X", d.id("DEAD11"), d.id("DEAD12"), "-yes")
	require.EqualError(t, err, "dead drop: 1 of the IDs are of no dead letter")
	d.equal("dropped 2 dead letters of queue \"orders\"\n", out)
	d.equal("replayed 4 dead letters of queue \"orders\"\n", d.must("dead", "replay", "-queue", orders, "-group", "2", "-yes"))
	assert.Equal(t, 19, dead())
	d.equal(`{"action":"drop","queue":"orders","dryRun":false,"count":19}`+"\n", d.must("dead", "drop", "-queue", orders, "-all", "-yes", "-json"))
	s, err := d.queue.Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 4, s.Jobs)
	assert.Zero(t, s.Dead)

	out, notes, err = d.run("dead", "drop", "-queue", "typo", "-all")
	require.NoError(t, err)
	d.equal("would drop 0 dead letters of queue \"typo\"; nothing was changed: add -yes to do it\n", out)
	assert.Contains(t, notes, "none of that name")
}

func TestPurge(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.bury("DEAD1", queue.Job{Kind: "ship", Group: "a", Key: "1"}, "no")
	d.bury("DEAD2", queue.Job{Kind: "ship", Group: "a", Key: "2"}, "no")
	d.enqueue("JOB1", queue.Job{Kind: "ship", Group: "a", Key: "1"})
	d.claim(queue.Call{Max: 1})
	d.enqueue("JOB2", queue.Job{Kind: "sh\x1bip", Group: "a", Key: "1"})
	d.enqueue("JOB3", queue.Job{Kind: "ship", Group: "b", Key: "1"})

	d.equal(`
ID     STATE       KIND        GROUP  KEY
JOB1   processing  ship        a      1
JOB2   pending     "sh\x1bip"  a      1
DEAD1  dead        ship        a      1
would erase 2 jobs (workers have 1, which are cancelled) and 1 dead letter of queue "orders", with their status and dedupe keys, and with those of jobs that have ended; nothing was changed: add -yes to do it
`, d.must("purge", "-queue", orders, "-group", "a", "-key", "1"))
	d.equal(`{"action":"purge","queue":"orders","dryRun":true,"count":4,"ids":["JOB1","JOB3","DEAD1","DEAD2"]}`+"\n", d.must("purge", "-queue", orders, "-kind", "ship", "-json"))
	d.equal("erased 3 jobs of queue \"orders\", dead letters among them, with status and dedupe keys\n", d.must("purge", "-queue", orders, "-group", "a", "-key", "1", "-yes"))
	d.equal(`{"action":"purge","queue":"orders","dryRun":false,"count":1}`+"\n", d.must("purge", "-queue", orders, "-group", "a", "-yes", "-json"))

	jobs := slices.Repeat([]queue.Job{{Kind: "sweep", Group: "c", Key: "1"}}, purgeLook+1)
	_, err := d.queue.Enqueue(t.Context(), jobs...)
	require.NoError(t, err)
	assert.Contains(t, d.must("purge", "-queue", orders, "-group", "c"), "\n… and 980 more\nwould erase more than 1000 jobs (")
	assert.Contains(t, d.must("purge", "-queue", orders, "-group", "c", "-json"), `"count":1000,"more":true,`)
}
