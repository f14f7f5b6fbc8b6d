package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

func TestJobs(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	_, notes, err := d.run("jobs", "-queue", "order")
	require.NoError(t, err)
	assert.Contains(t, notes, `queue "order" has no such jobs`)

	d.settle("JOB1", queue.Job{Kind: "ship", Group: "a", Key: "1", Payload: []byte("{\"n\":1}\n"), Headers: map[string]string{"Topic": "x\x1b"}},
		queue.Settlement{Action: queue.Retry, After: time.Hour, Error: "timeout\x1b[2J"})
	d.enqueue("JOB2", queue.Job{Kind: "ship", Group: "a", Key: "1", Payload: []byte("\xff\x00")})
	d.enqueue("JOB3", queue.Job{Kind: "sw\u009beep", Class: queue.Bulk, Order: queue.Relaxed, DedupeKey: "d"})
	d.enqueue("JOB4", queue.Job{Kind: "mail", Group: "b", Delay: time.Hour})

	d.equal(`
ID    STATE     KIND          GROUP  CLASS  KEY  ATTEMPTS  CRASHES  SINCE  DUE  LAST ERROR
JOB1  retrying  ship          a      live   1    1         0        T      T    "timeout\x1b[2J"
JOB2  pending   ship          a      live   1    0         0        T      -    -
JOB3  pending   "sw\u009beep"  -      bulk   -    0         0        T      -    -
JOB4  pending   mail          b      live   -    0         0        T      T    -
`, d.must("jobs", "-queue", orders))
	d.equal(`
ID    STATE     KIND  GROUP  CLASS  KEY  ATTEMPTS  CRASHES  SINCE  DUE  LAST ERROR  HEADERS  PAYLOAD
JOB1  retrying  ship  a  live  1  1  0  T  T  "timeout\x1b[2J"  {"Topic":"x\u001b"}  "{\"n\":1}\n"
JOB2  pending   ship  a  live  1  0  0  T  -  -  -  /wA=
`, d.must("jobs", "-queue", orders, "-payload", "-key", "1"))
	d.equal(`
{"id":"JOB1","state":"retrying","kind":"ship","group":"a","class":"live","key":"1","order":"strict","attempts":1,"maxAttempts":30,"crashes":0,"maxCrashes":5,"since":"T","expires":"T","due":"T","error":"timeout\u001b[2J","history":[{"number":1,"at":"T","error":"timeout\u001b[2J"}],"payloadBytes":8}
{"id":"JOB2","state":"pending","kind":"ship","group":"a","class":"live","key":"1","order":"strict","attempts":0,"maxAttempts":30,"crashes":0,"maxCrashes":5,"since":"T","expires":"T","payloadBytes":2}
`, d.must("jobs", "-json", "-queue", orders, "-group", "a"))
	out := d.must("jobs", "-json", "-payload", "-queue", orders, "-group", "a")
	assert.Contains(t, out, `"payloadBytes":8,"headers":{"Topic":"x\u001b"},"payload":"{\"n\":1}\n"}`)
	assert.Contains(t, out, `"payloadBytes":2,"payloadBase64":"/wA="}`)
	d.equal(`
{"id":"JOB3","state":"pending","kind":"sw\u009beep","group":"","class":"bulk","key":"","order":"relaxed","dedupeKey":"d","attempts":0,"maxAttempts":30,"crashes":0,"maxCrashes":5,"since":"T","expires":"T","payloadBytes":0}
`, d.must("jobs", "-json", "-queue", orders, "-kind", "sw\u009beep"))

	d.claim(queue.Call{Max: 1})
	out, notes, err = d.run("jobs", "-queue", orders, "-limit", "1", "-after", d.id("JOB2"))
	require.NoError(t, err)
	assert.Contains(t, out, "JOB3  processing ")
	d.equal("there are more: add -after JOB3\n", notes)
}
