package redisqueue

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const bulkTurn = 8 // which turn goes to bulk work although live work is ready

// Claim implements [queue.Broker].
func (b *Broker) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	if err := b.part(call.Partition); err != nil {
		return queue.Claimed{}, err
	}
	if call.Max > 0 {
		b.asked(place{name, call.Partition})
	}
	again := "0"
	if call.Again {
		again = "1"
	}
	args := make([]any, 0, 9+len(call.Held)+10*len(call.Settle))
	args = append(args, call.Process, strconv.FormatUint(call.Number, 10), strconv.FormatUint(call.Number, 36), again,
		micros(call.Lease), max(0, call.Max), cmp.Or(max(0, call.BulkEvery), bulkTurn), len(call.Held))
	for _, t := range call.Held {
		args = append(args, string(t))
	}
	args = append(args, len(call.Settle))
	for i := range call.Settle {
		if a := call.Settle[i].Action; a < queue.Ack || a > queue.Release {
			return queue.Claimed{}, fmt.Errorf("redisqueue: there is no action %d", a)
		}
		args = settlement(args, name, &call.Settle[i])
	}
	v, err := b.run(ctx, claimScript, call.Partition, name, args...)
	if err != nil {
		return queue.Claimed{}, err
	}
	r := reply{v: v}
	c := claimed(&r, &call)
	return c, r.err(name)
}

func settlement(args []any, name string, s *queue.Settlement) []any {
	if s.Action == queue.Ack && s.Progress == nil && s.Result == nil && len(s.Enqueue) == 0 && !s.Park {
		return append(args, string(s.Token), 0)
	}
	park, percent, note, result := "0", "", "", ""
	if s.Park {
		park = "1"
	}
	if s.Progress != nil {
		percent, note = strconv.Itoa(s.Progress.Percent), cut(s.Progress.Note, maxNoteLen)
	}
	if s.Result != nil {
		result = "1" + string(s.Result)
	}
	args = append(args, string(s.Token), int(s.Action), micros(s.After), park, cut(s.Error, maxErrorLen), cut(s.Error, historyText), percent, note, result)
	follow := len(args)
	args = append(args, 0)
	n := 0
	for i := range s.Enqueue {
		record, err := s.Enqueue[i].Job.MarshalBinary()
		if err != nil {
			continue // a name too long, which Queue does not let through
		}
		n++
		args = accept(append(args, escape.Replace(cmp.Or(s.Enqueue[i].Queue, name))), &s.Enqueue[i], record)
	}
	args[follow] = n
	return args
}

// claimed reads the answer to a call.
func claimed(r *reply, call *queue.Call) (c queue.Claimed) {
	now := r.at(0).int64()
	if c.DueIn = time.Duration(min(r.at(1).int64(), 1<<52)) * time.Microsecond; c.DueIn == time.Microsecond {
		c.DueIn = 1 // at once
	}
	for _, i := range r.at(2).list() {
		c.Lost = append(c.Lost, call.Settle[i.int()].Token)
	}
	for _, d := range r.at(3).list() {
		c.Died = append(c.Died, letter(d.at(0).text(), d.at(1).text(), d.at(2).int64(), d.at(3).text(), d.at(4).text()))
	}
	for _, e := range r.at(4).list() {
		c.Enqueued = append(c.Enqueued, queue.Receipt{ID: e.at(0).text(), Duplicate: e.at(1).int() == 1})
	}
	jobs := r.at(5).list() // of each: lane, head, record, and its place in the token
	if len(jobs) > 0 {
		c.Jobs = make([]queue.Lease, 0, len(jobs)/4)
	}
	prefix := call.Process + "." + strconv.FormatUint(call.Number, 36) + "."
	for ; len(jobs) >= 4; jobs = jobs[4:] {
		l := queue.Lease{Token: queue.Token(prefix + strconv.Itoa(jobs[3].int()) + "@" + jobs[0].text())}
		var since int64
		if l.Job, since, l.Err = parseJob(jobs[1].text(), jobs[2].text()); l.Err != nil {
			l.Job = queue.Job{}
		}
		l.Age = time.Duration(now-since) * time.Microsecond
		c.Jobs = append(c.Jobs, l)
	}
	return c
}

// letter is a dead letter without its payload.
func letter(id, reason string, at int64, head, record string) queue.DeadLetter {
	job, _, err := parseJob(head, record)
	if err != nil {
		job = queue.Job{ID: id}
	}
	job.Payload = nil
	return queue.DeadLetter{Job: job, Error: reason, At: time.UnixMilli(at).UTC()}
}
