package redisqueue

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

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
	ctx   context.Context //nolint:containedctx // it says until when somebody waits
	id    string
	jobs  int
	bytes int
	args  []any
	done  chan error
	dups  string // the answer: place and ID of each duplicate
}

// line is where callers of one place stand until a script takes them: without a timer, the first goes at once, and those that
// come while it is under way go together.
type line struct {
	b     *Broker
	place place

	mu       sync.Mutex
	waiting  []*batch
	flushing int
}

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
			shares[p] = &batch{ctx: ctx, id: in.ID, done: make(chan error, 1)}
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
			b.line(place{name, p}).join(s)
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
		l = &line{b: b, place: at}
		b.lines[at] = l
	}
	return l
}

func (l *line) join(s *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, s)
	if l.flushing < flushesAtOnce {
		l.flushing++
		go l.flush() // ends when nobody waits
	}
}

// take takes those for the next script, without those who have left.
func (l *line) take() []*batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = slices.DeleteFunc(l.waiting, func(s *batch) bool { return s.ctx.Err() != nil })
	n, jobs, bytes := 0, 0, 0
	for _, s := range l.waiting {
		jobs += s.jobs
		bytes += s.bytes
		if n > 0 && (jobs > batchJobs || bytes > batchBytes) {
			break
		}
		n++
	}
	if n == 0 {
		l.flushing--
		return nil
	}
	taken := slices.Clone(l.waiting[:n])
	clear(l.waiting[:n])
	l.waiting = l.waiting[n:]
	return taken
}

func (l *line) flush() {
	for {
		taken := l.take()
		if taken == nil {
			return
		}
		l.send(taken)
	}
}

// send sends batches in one script, for as long as one of their callers waits.
func (l *line) send(taken []*batch) {
	var args []any
	for _, s := range taken {
		args = append(append(args, s.id, s.jobs), s.args...)
	}
	ctx, cancel := anyOf(taken)
	defer cancel()
	v, err := l.b.try(ctx, enqueueScript, l.place.partition, l.place.queue, args)
	if err == nil {
		r := reply{v: v}
		answers := r.list()
		for i, s := range taken {
			if i < len(answers) {
				s.dups = answers[i].text()
			}
		}
		err = r.err(l.place.queue)
	}
	for _, s := range taken {
		s.done <- err
	}
}

// anyOf is a context that lasts as long as one of those who wait does.
func anyOf(taken []*batch) (context.Context, context.CancelFunc) {
	if len(taken) == 1 {
		return context.WithCancel(taken[0].ctx)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(taken[0].ctx))
	var left atomic.Int64
	left.Store(int64(len(taken)))
	stops := make([]func() bool, len(taken))
	for i, s := range taken {
		stops[i] = context.AfterFunc(s.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
