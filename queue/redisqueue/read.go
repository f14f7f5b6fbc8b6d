package redisqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/internal/redislua"
	"github.com/breakwater-go/breakwater/queue"
)

const (
	pageLimit = 100 // of a listing that names none
	scanCount = 1000
	readJobs  = 256 // elements of a lane in one command: two a job
)

// Queues implements [queue.Operator].
func (b *Broker) Queues(ctx context.Context) ([]string, error) { return within(ctx, b.queues) }

func (b *Broker) queues(ctx context.Context) ([]string, error) {
	if b.err != nil {
		return nil, b.err
	}
	found := map[string]bool{}
	for p := range b.parts {
		names, err := b.names(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if found[name] {
				continue
			}
			s, limits, err := b.stats(ctx, name, p)
			if err != nil {
				return nil, err
			}
			if s.Jobs+s.Held+s.Scheduled+s.Dead+s.Parked+limits > 0 || s.Paused {
				found[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// names are the queues that a partition has ever had.
func (b *Broker) names(ctx context.Context, p int) ([]string, error) {
	if err := b.ready(ctx, p); err != nil {
		return nil, err
	}
	names, err := b.client.SMembers(ctx, b.parts[p].prefix+"queues").Result()
	if err != nil {
		return nil, fmt.Errorf("redisqueue: list the queues: %w", err)
	}
	for i := range names {
		names[i] = unescape.Replace(names[i])
	}
	return names, nil
}

// Stats implements [queue.Operator].
func (b *Broker) Stats(ctx context.Context, name string) (queue.Stats, error) {
	var all queue.Stats
	for p := range b.parts {
		s, _, err := b.stats(ctx, name, p)
		if err != nil {
			return queue.Stats{}, err
		}
		all.Jobs += s.Jobs
		all.Held += s.Held
		all.Waiting += s.Waiting
		all.Scheduled += s.Scheduled
		all.Dead += s.Dead
		all.Parked += s.Parked
		all.Paused = all.Paused || s.Paused
		if s.Now.After(all.Now) {
			all.Now = s.Now
		}
	}
	return all, nil
}

func (b *Broker) stats(ctx context.Context, name string, p int) (s queue.Stats, limits int, err error) {
	v, err := b.run(ctx, statsScript, p, name)
	if err != nil {
		return s, 0, err
	}
	r := reply{v: v}
	s = queue.Stats{
		Jobs: r.at(0).int(), Held: r.at(1).int(), Waiting: r.at(2).int(), Scheduled: r.at(3).int(), Dead: r.at(4).int(),
		Parked: r.at(5).int(), Paused: r.at(6).int() == 1, Now: timeOf(r.at(7).int64()),
	}
	return s, r.at(8).int(), r.err(name)
}

// keys lists keys of a queue that begin with what, a page of what the server looks at; next is 0 at the end.
func (b *Broker) keys(ctx context.Context, name string, p int, what string, cursor uint64) (found []string, next uint64, err error) {
	node, err := b.node(ctx, p)
	if err != nil {
		return nil, 0, wrap(name, err)
	}
	prefix := b.key(name, p, what)
	found, next, err = node.Scan(ctx, cursor, redislua.Glob(prefix)+"*", scanCount).Result()
	for i := range found {
		found[i] = found[i][len(prefix):]
	}
	return found, next, wrap(name, err)
}

func (b *Broker) key(name string, p int, what string) string {
	return b.parts[p].prefix + escape.Replace(name) + ":" + what
}

// Jobs implements [queue.Operator]. It reads all that the queue holds.
func (b *Broker) Jobs(ctx context.Context, name string, filter queue.JobFilter) ([]queue.JobInfo, error) {
	return within(ctx, func(ctx context.Context) ([]queue.JobInfo, error) { return b.list(ctx, name, filter) })
}

func (b *Broker) list(ctx context.Context, name string, filter queue.JobFilter) ([]queue.JobInfo, error) {
	if b.err != nil {
		return nil, b.err
	}
	page := page{filter: filter, limit: cmp.Or(filter.Limit, pageLimit)}
	for p := range b.parts {
		if filter.Group != "" && p != b.partitionOf(filter.Group) {
			continue
		}
		if err := b.jobs(ctx, name, p, &page); err != nil {
			return nil, wrap(name, err)
		}
	}
	return page.sorted(), nil
}

// page collects the first jobs by ID.
type page struct {
	filter queue.JobFilter
	limit  int
	found  []queue.JobInfo
}

func (g *page) add(head, record string, held bool, due float64) {
	job, _, err := parseJob(head, record)
	if err != nil {
		return // a record of a newer format, or a damaged one: its worker reports it, and Check
	}
	f := g.filter
	if f.Group != "" && f.Group != job.Group || f.Key != "" && f.Key != job.Key || f.Kind != "" && f.Kind != job.Kind || job.ID <= f.After {
		return
	}
	info := queue.JobInfo{Job: job, State: queue.Pending}
	switch {
	case held:
		info.State = queue.Processing
	case job.Attempts+job.Crashes > 0:
		info.State = queue.Retrying
	}
	if due > 0 {
		info.Due = timeOf(int64(due))
	}
	if g.found = append(g.found, info); len(g.found) >= 4*g.limit+1000 {
		g.found = g.sorted()
	}
}

func (g *page) sorted() []queue.JobInfo {
	slices.SortFunc(g.found, func(a, b queue.JobInfo) int { return strings.Compare(a.Job.ID, b.Job.ID) })
	return slices.Clip(g.found[:min(len(g.found), g.limit)])
}

func (b *Broker) jobs(ctx context.Context, name string, p int, page *page) error {
	if err := b.ready(ctx, p); err != nil {
		return err
	}
	held, err := b.set(ctx, b.key(name, p, "tok"))
	if err != nil {
		return err
	}
	gone, err := b.set(ctx, b.key(name, p, "gone"))
	if err != nil {
		return err
	}
	due := map[string]float64{}
	var cursor uint64
	for {
		pairs, next, err := b.client.ZScan(ctx, b.key(name, p, "due"), cursor, "", scanCount).Result()
		if err != nil {
			return err
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			if due[pairs[i]], err = strconv.ParseFloat(pairs[i+1], 64); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	prefix := "l:"
	if page.filter.Group != "" {
		prefix += strconv.Itoa(len(page.filter.Group))
	}
	for {
		lanes, next, err := b.keys(ctx, name, p, prefix, cursor)
		if err != nil {
			return err
		}
		for _, lane := range lanes {
			lane = prefix[2:] + lane
			if page.filter.Group != "" && groupOf(lane) != page.filter.Group {
				continue
			}
			for from := int64(0); ; from += readJobs {
				jobs, err := b.client.LRange(ctx, b.key(name, p, "l:"+lane), from, from+readJobs-1).Result()
				if err != nil {
					return err
				}
				for i := 0; i+1 < len(jobs); i += 2 {
					if len(gone) > 0 && gone[idOf(jobs[i+1])] {
						continue
					}
					head := from == 0 && i == 0
					at := 0.0
					if head {
						at = due["l"+lane]
					}
					page.add(jobs[i], jobs[i+1], head && held[lane], at)
				}
				if len(jobs) < readJobs {
					break
				}
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	for {
		pairs, next, err := b.client.HScan(ctx, b.key(name, p, "sched"), cursor, "", scanCount).Result()
		if err != nil {
			return err
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			if head, record, err := cleave(pairs[i+1]); err == nil {
				page.add(head, record, false, due["s"+pairs[i]])
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (b *Broker) set(ctx context.Context, key string) (map[string]bool, error) {
	names, err := b.client.HKeys(ctx, key).Result()
	return setOf(names), err
}

// idOf reads a job's ID off its record.
func idOf(record string) string {
	var j queue.Job
	if j.UnmarshalBinary([]byte(record)) != nil {
		return ""
	}
	return j.ID
}

// Dead implements [queue.Operator].
func (b *Broker) Dead(ctx context.Context, name string, filter queue.DeadFilter) ([]queue.DeadLetter, error) {
	return within(ctx, func(ctx context.Context) ([]queue.DeadLetter, error) { return b.dead(ctx, name, filter) })
}

func (b *Broker) dead(ctx context.Context, name string, filter queue.DeadFilter) ([]queue.DeadLetter, error) {
	if b.err != nil {
		return nil, b.err
	}
	n := cmp.Or(filter.Limit, pageLimit)
	var found []queue.DeadLetter
	for p := range b.parts {
		letters, err := b.letters(ctx, name, p, filter, n)
		if err != nil {
			return nil, wrap(name, err)
		}
		found = append(found, letters...)
	}
	slices.SortFunc(found, func(a, b queue.DeadLetter) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Job.ID, b.Job.ID))
	})
	return found[:min(len(found), n)], nil
}

// letters are the first dead letters of a partition that a filter picks, at least n if there are so many.
func (b *Broker) letters(ctx context.Context, name string, p int, f queue.DeadFilter, n int) (found []queue.DeadLetter, err error) {
	if err := b.ready(ctx, p); err != nil {
		return nil, err
	}
	from, until := "-inf", "+inf"
	if first := later(f.From, f.AfterTime); !first.IsZero() {
		from = strconv.FormatInt(first.UnixMilli(), 10)
	}
	if !f.Until.IsZero() {
		until = strconv.FormatInt(f.Until.UnixMilli(), 10)
	}
	key := b.key(name, p, "dead")
	if len(f.IDs) > 0 {
		for ids := range slices.Chunk(f.IDs, readJobs) {
			scores, err := b.client.ZMScore(ctx, key, ids...).Result()
			if err != nil {
				return nil, err
			}
			page := make([]redis.Z, len(ids))
			for i := range ids {
				page[i] = redis.Z{Score: scores[i], Member: ids[i]}
			}
			if found, err = b.readLetters(ctx, name, p, f, page, found); err != nil {
				return nil, err
			}
		}
		return found, nil
	}
	for offset := int64(0); len(found) < n; offset += readJobs {
		page, err := b.client.ZRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: from, Max: until, Offset: offset, Count: readJobs}).Result()
		if err != nil || len(page) == 0 {
			return found, err
		}
		if found, err = b.readLetters(ctx, name, p, f, page, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// readLetters reads the dead letters of IDs and times, and appends those that a filter picks.
func (b *Broker) readLetters(ctx context.Context, name string, p int, f queue.DeadFilter, page []redis.Z, found []queue.DeadLetter) ([]queue.DeadLetter, error) {
	fields := make([]string, len(page))
	for i, z := range page {
		fields[i] = fmt.Sprint(z.Member)
	}
	records, err := b.client.HMGet(ctx, b.key(name, p, "deadrec"), fields...).Result()
	for i, r := range records {
		s, ok := r.(string)
		if !ok {
			continue // it is not there, or was dropped meanwhile
		}
		if d, _ := parseLetter(fields[i], s, int64(page[i].Score)); picks(f, d) { // Check says what is wrong with one
			found = append(found, d)
		}
	}
	return found, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// parseLetter reads a dead letter, with its payload. What can't be read can still be seen, and dropped.
func parseLetter(id, s string, at int64) (d queue.DeadLetter, err error) {
	d = queue.DeadLetter{Job: queue.Job{ID: id}, At: time.UnixMilli(at).UTC()}
	n := 0
	if len(s) >= 4 {
		n = int(number([]byte(s[:4])))
	}
	if len(s) < 4 || n > len(s)-4 {
		d.Error = "the record of this dead letter is damaged"
		return d, errors.New(d.Error)
	}
	d.Error = s[4 : 4+n]
	head, record, err := cleave(s[4+n:])
	if err != nil {
		return d, err
	}
	job, _, err := parseJob(head, record)
	if err == nil {
		d.Job = job
	}
	return d, err
}

func picks(f queue.DeadFilter, d queue.DeadLetter) bool {
	if f.Group != "" && f.Group != d.Job.Group || f.Kind != "" && f.Kind != d.Job.Kind || f.Error != "" && !strings.Contains(d.Error, f.Error) ||
		!f.From.IsZero() && d.At.Before(f.From) || !f.Until.IsZero() && !d.At.Before(f.Until) ||
		len(f.IDs) > 0 && !slices.Contains(f.IDs, d.Job.ID) {
		return false
	}
	return f.AfterTime.IsZero() || d.At.After(f.AfterTime) || d.At.Equal(f.AfterTime) && d.Job.ID > f.After
}

// Status implements [queue.Operator].
func (b *Broker) Status(ctx context.Context, name, id string) (queue.Status, error) {
	return within(ctx, func(ctx context.Context) (queue.Status, error) { return b.status(ctx, name, id) })
}

func (b *Broker) status(ctx context.Context, name, id string) (queue.Status, error) {
	if b.err != nil {
		return queue.Status{}, b.err
	}
	for p := range b.parts {
		if err := b.ready(ctx, p); err != nil {
			return queue.Status{}, err
		}
		h, err := b.client.HGetAll(ctx, b.key(name, p, "st:"+id)).Result()
		if err != nil {
			return queue.Status{}, wrap(name, err)
		}
		if len(h) > 0 {
			s, err := parseStatus(id, h)
			return s, wrap(name, err)
		}
	}
	return queue.Status{}, fmt.Errorf("%w: %s", queue.ErrUnknownJob, id)
}

func parseStatus(id string, h map[string]string) (queue.Status, error) {
	var failed error
	number := func(field string) int64 {
		if h[field] == "" {
			return 0
		}
		n, err := strconv.ParseFloat(h[field], 64)
		failed = errors.Join(failed, err)
		return int64(n)
	}
	s := queue.Status{
		ID: id, Kind: h["k"], Group: h["g"], State: queue.State(h["s"]), Attempts: int(number("a")), Crashes: int(number("c")),
		Percent: int(number("p")), Note: h["t"], Error: h["e"], Since: timeOf(number("i")),
	}
	switch {
	case s.State != "":
		s.Ended = timeOf(number("x"))
		if r, ok := h["r"]; ok && s.State == queue.Succeeded {
			s.Result = []byte(r)
		}
	case h["run"] == "1":
		s.State = queue.Processing
	case s.Attempts+s.Crashes > 0:
		s.State = queue.Retrying
	default:
		s.State = queue.Pending
	}
	if failed != nil {
		return s, fmt.Errorf("the status of job %s is damaged: %w", id, failed)
	}
	return s, nil
}
