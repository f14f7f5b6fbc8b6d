package sqlqueue

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// What operators read. It does not wait for the writer.

const pageLimit = 100 // of a listing that names none

// statusRow is a status, and when it is forgotten.
type statusRow struct {
	queue.Status
	ends int64
}

func scanStatus(row scanner) (st statusRow, err error) {
	var state string
	var since, ended int64
	err = row.Scan(&st.Kind, &st.Group, &st.Percent, &st.Note, &st.Result, &st.Error, &state, &st.Attempts, &st.Crashes, &since, &ended, &st.ends)
	st.State, st.Since = queue.State(state), timeOf(since)
	if ended > 0 {
		st.Ended = timeOf(ended)
	}
	return st, err
}

func (st *statusRow) over(now int64) bool { return st.ends > 0 && st.ends <= now }

// look is ready to read a queue: what is in its intake has been moved on. id is 0 if there is no such queue.
func (b *Broker) look(ctx context.Context, name string) (id, now int64, err error) {
	if err := b.ready(ctx); err != nil {
		return 0, 0, err
	}
	for {
		var seq, ahead, last int64
		var waits bool
		err := b.reader(ctx).QueryRowContext(ctx, "SELECT s.seq, s.ahead, s.last, coalesce(q.id, 0), EXISTS (SELECT 1 FROM breakwater_intake i WHERE i.queue = q.id) "+
			"FROM breakwater_space s LEFT JOIN breakwater_queues q ON q.name = ?", name).Scan(&seq, &ahead, &last, &id, &waits)
		if err != nil {
			return 0, 0, wrap(name, err)
		}
		if _, in := txFrom(ctx); in || !waits { // what a transaction would wait for is not shown to it
			now, _ = b.clock.read(ahead, last)
			return id, now, nil
		}
		if err := b.change(ctx, name, func(*step, *queueRow) error { return nil }); err != nil {
			return 0, 0, err
		}
	}
}

// Queues implements [queue.Operator].
func (b *Broker) Queues(ctx context.Context) ([]string, error) {
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	rows, err := b.reader(ctx).QueryContext(ctx, "SELECT name FROM breakwater_queues q WHERE paused OR EXISTS (SELECT 1 FROM breakwater_groups g WHERE g.queue = q.id) "+
		"OR EXISTS (SELECT 1 FROM breakwater_jobs j WHERE j.queue = q.id) OR EXISTS (SELECT 1 FROM breakwater_intake i WHERE i.queue = q.id) ORDER BY name")
	if err != nil {
		return nil, wrap("", err)
	}
	return collect(rows, scanName)
}

// Stats implements [queue.Operator].
func (b *Broker) Stats(ctx context.Context, name string) (queue.Stats, error) {
	id, now, err := b.look(ctx, name)
	st := queue.Stats{Now: timeOf(now)}
	if err != nil || id == 0 {
		return st, err
	}
	count := func(where string) string {
		return "(SELECT count(*) FROM breakwater_jobs WHERE queue = ?1 AND " + where + ")"
	}
	err = b.reader(ctx).QueryRowContext(ctx, "SELECT (SELECT coalesce(sum(jobs), 0) FROM breakwater_groups WHERE queue = ?1) - "+count("cancelled = 1 AND state < 4")+
		", "+count("state = 2 AND state > 1")+", "+count("state = 3 AND state > 1")+", "+count("state = 4 AND state > 1")+", "+count("state = 5 AND state > 1")+
		", (SELECT count(*) FROM breakwater_groups WHERE queue = ?1 AND parked > 0), paused FROM breakwater_queues WHERE id = ?1", id).
		Scan(&st.Jobs, &st.Held, &st.Waiting, &st.Scheduled, &st.Dead, &st.Parked, &st.Paused)
	st.Jobs -= st.Scheduled
	return st, wrap(name, err)
}

// query builds a statement with conditions that apply where a value is asked for.
type query struct {
	text strings.Builder
	args []any
}

func (q *query) and(wanted bool, condition string, args ...any) {
	if wanted {
		q.text.WriteString(" AND " + condition)
		q.args = append(q.args, args...)
	}
}

func list(ctx context.Context, b *Broker, q *query) ([]*jobRow, [][]byte, error) {
	rows, err := b.reader(ctx).QueryContext(ctx, "SELECT "+jobColumns+", (SELECT record FROM breakwater_records r WHERE r.n = j.n) FROM breakwater_jobs j WHERE "+q.text.String(), q.args...)
	if err != nil {
		return nil, nil, err
	}
	var records [][]byte
	jobs, err := collect(rows, func(row scanner) (*jobRow, error) {
		j, record := &jobRow{}, []byte(nil)
		err := j.scan(row, &record)
		records = append(records, record)
		return j, err
	})
	return jobs, records, err
}

// Jobs implements [queue.Operator].
func (b *Broker) Jobs(ctx context.Context, name string, f queue.JobFilter) ([]queue.JobInfo, error) {
	id, _, err := b.look(ctx, name)
	if err != nil || id == 0 {
		return nil, err
	}
	q := &query{}
	q.text.WriteString("queue = ? AND state < 5 AND cancelled = 0")
	q.args = []any{id}
	q.and(f.Group != "", "grp = ?", f.Group)
	q.and(f.Key != "", "key = ?", f.Key)
	q.and(f.Kind != "", "kind = ?", f.Kind)
	q.and(f.After != "", "id > ?", f.After)
	q.text.WriteString(" ORDER BY id LIMIT ?")
	q.args = append(q.args, cmp.Or(f.Limit, pageLimit))
	jobs, records, err := list(ctx, b, q)
	found := make([]queue.JobInfo, len(jobs))
	for i, j := range jobs {
		found[i] = queue.JobInfo{Job: j.shown(records[i]), State: j.stateOf()}
		if j.state == waiting || j.state == scheduled {
			found[i].Due = timeOf(j.at)
		}
	}
	return found, wrap(name, err)
}

// Dead implements [queue.Operator].
func (b *Broker) Dead(ctx context.Context, name string, f queue.DeadFilter) ([]queue.DeadLetter, error) {
	id, _, err := b.look(ctx, name)
	if err != nil || id == 0 {
		return nil, err
	}
	q := &query{}
	q.text.WriteString("queue = ? AND state = 5 AND state > 1")
	q.args = []any{id}
	q.and(f.Group != "", "grp = ?", f.Group)
	q.and(f.Kind != "", "kind = ?", f.Kind)
	q.and(f.Error != "", "instr(error, ?) > 0", f.Error)
	q.and(!f.From.IsZero(), "at >= ?", upMicros(f.From))
	q.and(!f.Until.IsZero(), "at < ?", upMicros(f.Until))
	if len(f.IDs) > 0 {
		q.and(true, "id IN (?"+strings.Repeat(", ?", len(f.IDs)-1)+")", anys(f.IDs)...)
	}
	if !f.AfterTime.IsZero() {
		at := f.AfterTime.UnixMicro()
		q.and(true, "(at > ? OR at = ? AND id > ?)", at, at, f.After)
	}
	q.text.WriteString(" ORDER BY at, id LIMIT ?")
	q.args = append(q.args, cmp.Or(f.Limit, pageLimit))
	jobs, records, err := list(ctx, b, q)
	found := make([]queue.DeadLetter, len(jobs))
	for i, j := range jobs {
		found[i] = queue.DeadLetter{Job: j.shown(records[i]), Error: j.error, At: timeOf(j.at)}
	}
	return found, wrap(name, err)
}

// upMicros is the first whole microsecond that is not before t.
func upMicros(t time.Time) int64 {
	us := t.UnixMicro()
	if t.Sub(time.UnixMicro(us)) > 0 {
		us++
	}
	return us
}

func anys(list []string) []any {
	all := make([]any, len(list))
	for i, v := range list {
		all[i] = v
	}
	return all
}

// Status implements [queue.Operator].
func (b *Broker) Status(ctx context.Context, name, job string) (queue.Status, error) {
	id, now, err := b.look(ctx, name)
	if err != nil {
		return queue.Status{}, err
	}
	for try := 1; ; try++ { // a job that is not there has ended since its status was read, or is in the intake
		st, err := scanStatus(b.reader(ctx).QueryRowContext(ctx, texts[statusByID], id, job))
		if errors.Is(err, sql.ErrNoRows) || err == nil && st.over(now) {
			return queue.Status{}, fmt.Errorf("%w: %s", queue.ErrUnknownJob, job)
		}
		if err != nil {
			return queue.Status{}, wrap(name, err)
		}
		st.ID = job
		if st.State != "" {
			return st.Status, nil
		}
		j, err := scanJob(b.reader(ctx).QueryRowContext(ctx, texts[jobByID], id, job))
		if err == nil {
			st.State, st.Since, st.Attempts, st.Crashes = j.stateOf(), timeOf(j.since), int(j.attempts), int(j.crashes)
			return st.Status, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return queue.Status{}, wrap(name, err)
		}
		if _, in := txFrom(ctx); in || try == 3 {
			st.State = queue.Pending
			return st.Status, nil
		}
		if id, now, err = b.look(ctx, name); err != nil {
			return queue.Status{}, err
		}
	}
}
