package redisqueue

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/breakwater-go/breakwater/internal/coalesce"
	"github.com/breakwater-go/breakwater/queue"
)

const (
	// batchJobs is how many jobs one script takes at most, unless they are of one batch: larger ones hold Redis up for others.
	batchJobs = 64
	// batchBytes bounds them by size: scripts see what they are given, and a job may have megabytes.
	batchBytes = 1 << 20
	// flushesAtOnce is how many scripts of a line are under way at once.
	flushesAtOnce = 2
)

// batch is one caller's share of a partition.
type batch struct {
	id    string
	jobs  int
	bytes int
	args  []any
	done  <-chan error
	dups  string // the answer: place and ID of each duplicate
}

// line is where callers of one place stand until a script takes them.
type line = coalesce.Line[*batch]

// Enqueue implements [queue.Broker]. Calls that come while others are under way are sent together. When the connection is lost before
// the answer has come they are sent again, for up to 5 s, and take effect once.
func (b *Broker) Enqueue(ctx context.Context, name string, in queue.Batch) ([]queue.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, wrap(name, err)
	}
	shares := make([]*batch, len(b.parts))
	where := make([]int, len(in.Jobs)) // partition of each job
	for i := range in.Jobs {
		record, err := in.Jobs[i].Job.MarshalBinary() // before it waits: its memory is the caller's
		if err != nil {
			return nil, wrap(name, err)
		}
		p := b.partitionOf(in.Jobs[i].Job.Group)
		where[i] = p
		if shares[p] == nil {
			shares[p] = &batch{id: in.ID}
		}
		s := shares[p]
		s.jobs++
		s.bytes += len(record)
		s.args = accept(s.args, &in.Jobs[i], record)
	}
	if b.err != nil {
		return nil, b.err
	}
	for p, s := range shares {
		if s != nil {
			s.done = b.line(place{name, p}).Join(ctx, s, s.jobs, s.bytes)
		}
	}
	receipts := make([]queue.Receipt, len(in.Jobs))
	var failed []error
	for p, s := range shares {
		if s == nil {
			continue
		}
		select {
		case err := <-s.done:
			if err == nil {
				err = s.receipts(receipts, where, p, &in)
			}
			failed = append(failed, err)
		case <-ctx.Done():
			failed = append(failed, context.Cause(ctx))
		}
	}
	if err := errors.Join(failed...); err != nil {
		if len(b.parts) == 1 {
			receipts = nil
		}
		return receipts, wrap(name, err)
	}
	return receipts, nil
}

// receipts fills in those of a partition.
func (s *batch) receipts(receipts []queue.Receipt, where []int, p int, in *queue.Batch) error {
	var mine []int
	for i := range where {
		if where[i] == p {
			mine = append(mine, i)
			receipts[i] = queue.Receipt{ID: in.Jobs[i].Job.ID}
		}
	}
	words := strings.Fields(s.dups)
	for i := 0; i+1 < len(words); i += 2 {
		n, err := strconv.Atoi(words[i])
		if err != nil || n >= len(mine) {
			return errors.New("an answer of another shape than this version's: " + s.dups)
		}
		receipts[mine[n]] = queue.Receipt{ID: words[i+1], Duplicate: true}
	}
	return nil
}

func (b *Broker) line(at place) *line {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lines[at]
	if l == nil {
		l = &line{
			MaxCount: batchJobs, MaxBytes: batchBytes, AtOnce: flushesAtOnce,
			Send: func(ctx context.Context, taken []*batch) error { return b.sendBatches(ctx, at, taken) },
		}
		b.lines[at] = l
	}
	return l
}

// sendBatches sends batches in one script.
func (b *Broker) sendBatches(ctx context.Context, at place, taken []*batch) error {
	var args []any
	for _, s := range taken {
		args = append(append(args, s.id, s.jobs), s.args...)
	}
	v, err := b.try(ctx, enqueueScript, at.partition, at.queue, args)
	if err != nil {
		return err
	}
	r := reply{v: v}
	answers := r.list()
	for i, s := range taken {
		if i < len(answers) {
			s.dups = answers[i].text()
		}
	}
	return r.err(at.queue)
}
