package redisqueue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/queue"
)

// walker looks at a queue's share of a partition.
type walker struct {
	b      *Broker
	node   *redis.Client
	prefix string
	keys   map[string]bool // what the queue has, without the prefix

	problems []string
	meta     map[string]float64

	lanes map[string]int  // jobs
	ids   map[string]bool // of jobs in lanes and scheduled
	ready map[string]int  // how often a lane is in its group's list
	count map[string]int  // ready lanes, by class and group
	due   map[string]bool
	leas  map[string]bool
}

func (w *walker) say(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

const metaFormat = 1 // lua/machine.lua

var metaFields = [...]string{"seq", "turns", "run", "from", "to", "last", "jobs", "gone", "released", "parks", "limits", "paused"}

func (w *walker) walk(ctx context.Context) error {
	w.meta, w.lanes, w.ids, w.ready, w.count = map[string]float64{}, map[string]int{}, map[string]bool{}, map[string]int{}, map[string]int{}
	for _, step := range []func(context.Context) error{w.readMeta, w.readLanes, w.readLists, w.readLeases, w.readDue, w.judgeLanes, w.judgeRings, w.judgeDead, w.judgeRest} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) readMeta(ctx context.Context) error {
	text, err := w.node.Get(ctx, w.prefix+"m").Result()
	if errors.Is(err, redis.Nil) {
		w.say("it has no meta record")
		return nil
	}
	if err != nil {
		return err
	}
	if len(text) != 1+8*len(metaFields) || text[0] != metaFormat {
		w.say("its meta record has %d bytes, and is not of format %d", len(text), metaFormat)
		return nil
	}
	for i, name := range metaFields {
		w.meta[name] = math.Float64frombits(binary.BigEndian.Uint64([]byte(text[1+8*i:])))
	}
	return nil
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
}

func (w *walker) expect(what string, n int) {
	if int(w.meta[what]) != n {
		w.say("its meta record counts %v %s; there are %d", w.meta[what], what, n)
	}
}

// with calls do for each key that begins with what.
func (w *walker) with(what string, do func(name string) error) error {
	for key := range w.keys {
		if name, ok := strings.CutPrefix(key, what); ok {
			if err := do(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walker) readLanes(ctx context.Context) error {
	jobs := 0
	err := w.with("l:", func(lane string) error {
		for from := int64(0); ; from += readJobs {
			elements, err := w.node.LRange(ctx, w.prefix+"l:"+lane, from, from+readJobs-1).Result()
			if err != nil {
				return err
			}
			if len(elements)%2 != 0 {
				w.say("lane %q has a head without a record", lane)
			}
			for i := 0; i+1 < len(elements); i += 2 {
				w.job(elements[i], elements[i+1], "lane "+lane)
			}
			w.lanes[lane] += len(elements) / 2
			jobs += len(elements) / 2
			if len(elements) < readJobs {
				break
			}
		}
		if w.lanes[lane] == 0 {
			delete(w.lanes, lane) // it has gone since
		}
		return nil
	})
	w.expect("jobs", jobs)
	return err
}

// job looks at a job that is stored somewhere.
func (w *walker) job(head, record, where string) {
	h, err := parseHead(head)
	if err != nil {
		w.say("%s: %v", where, err)
		return
	}
	if float64(h.number) > w.meta["seq"] {
		w.say("%s: a job has the number %d, and the last is %v", where, h.number, w.meta["seq"])
	}
	job, _, err := parseJob(head, record)
	if errors.Is(err, queue.ErrNewerFormat) {
		return // its worker says so
	}
	if err != nil {
		w.say("%s: %v", where, err)
		return
	}
	if w.ids[job.ID] {
		w.say("%s: job %s is in two places", where, job.ID)
	}
	w.ids[job.ID] = true
}

// readLists reads the groups' lists of ready lanes.
func (w *walker) readLists(ctx context.Context) error {
	released := 0
	list := func(kind string) func(name string) error {
		return func(name string) error {
			var lanes []string
			var err error
			if kind == "r:" {
				lanes, err = w.node.LRange(ctx, w.prefix+kind+name, 0, -1).Result()
			} else {
				lanes, err = w.node.ZRange(ctx, w.prefix+kind+name, 0, -1).Result()
				released += len(lanes)
			}
			for _, lane := range lanes {
				w.ready[lane]++
				if class := strings.TrimLeft(lane, "0123456789"); class == "" || strings.ToLower(class[:1])+groupOf(lane) != name {
					w.say("lane %q is in the list of %q", lane, name)
				}
			}
			w.count[name] += len(lanes)
			return err
		}
	}
	if err := w.with("r:", list("r:")); err != nil {
		return err
	}
	err := w.with("R:", list("R:"))
	w.expect("released", released)
	return err
}

func (w *walker) readLeases(ctx context.Context) (err error) {
	lease, err := w.node.ZRange(ctx, w.prefix+"lease", 0, -1).Result()
	if err != nil {
		return err
	}
	tokens, err := w.node.HKeys(ctx, w.prefix+"tok").Result()
	if err != nil {
		return err
	}
	w.leas = map[string]bool{}
	held := map[string]int{}
	known := setOf(tokens)
	for _, lane := range lease {
		w.leas[lane] = true
		held[groupOf(lane)]++
		if !known[lane] {
			w.say("lane %q has a lease and no token", lane)
		}
	}
	for _, lane := range tokens {
		if !w.leas[lane] {
			w.say("lane %q has a token and no lease", lane)
		}
	}
	counts, err := w.node.HGetAll(ctx, w.prefix+"held").Result()
	for g, n := range counts {
		if n != strconv.Itoa(held[g]) {
			w.say("group %q counts %s in flight; there are %d", g, n, held[g])
		}
	}
	for g, n := range held {
		if _, ok := counts[g]; !ok {
			w.say("group %q counts none in flight; there are %d", g, n)
		}
	}
	return err
}

func (w *walker) readDue(ctx context.Context) error {
	due, err := w.node.ZRange(ctx, w.prefix+"due", 0, -1).Result()
	if err != nil {
		return err
	}
	sched, err := w.node.HGetAll(ctx, w.prefix+"sched").Result()
	if err != nil {
		return err
	}
	w.due = map[string]bool{}
	parks := 0
	for _, m := range due {
		if m == "" {
			w.say("something without a name is due")
			continue
		}
		w.due[m] = true
		switch m[0] {
		case 'p':
			parks++
		case 's':
			if _, ok := sched[m[1:]]; !ok {
				w.say("job number %s is due and not there", m[1:])
			}
		case 'l':
		default:
			w.say("%q is due", m)
		}
	}
	for n, e := range sched {
		if !w.due["s"+n] {
			w.say("job number %s is scheduled and never due", n)
		}
		head, record, err := cleave(e)
		if err != nil {
			w.say("scheduled: %v", err)
			continue
		}
		w.job(head, record, "scheduled")
	}
	w.expect("parks", parks)
	return nil
}

// judgeLanes sees that each lane is ready, leased or waiting.
func (w *walker) judgeLanes(ctx context.Context) error {
	for lane := range w.lanes {
		states := w.ready[lane]
		if w.leas[lane] {
			states++
		}
		if w.due["l"+lane] {
			states++
		}
		if states != 1 {
			w.say("lane %q is in %d lists of ready lanes, leased: %v, waiting: %v; want exactly one", lane, w.ready[lane], w.leas[lane], w.due["l"+lane])
		}
	}
	for lane := range w.ready {
		if w.lanes[lane] == 0 {
			w.say("lane %q is ready and empty", lane)
		}
	}
	for lane := range w.leas {
		if w.lanes[lane] == 0 {
			w.say("lane %q is leased and empty", lane)
		}
	}
	for m := range w.due {
		if m[0] == 'l' && w.lanes[m[1:]] == 0 {
			w.say("lane %q waits and is empty", m[1:])
		}
	}
	gone, err := w.node.HKeys(ctx, w.prefix+"gone").Result()
	w.expect("gone", len(gone))
	for _, id := range gone {
		if !w.ids[id] {
			w.say("job %s is cancelled and not there", id)
		}
	}
	return err
}

// judgeRings sees that a group is in a ring if and only if it may be.
func (w *walker) judgeRings(ctx context.Context) error {
	lim, err := w.node.HGetAll(ctx, w.prefix+"lim").Result()
	if err != nil {
		return err
	}
	w.expect("limits", len(lim))
	held := map[string]int{}
	for lane := range w.leas {
		held[groupOf(lane)]++
	}
	may := func(class, g string) bool {
		limit, _, _ := strings.Cut(lim[g], " ")
		bound, _ := strconv.Atoi(limit)
		return w.count[class+g] > 0 && !w.due["p"+g] && (bound == 0 || held[g] < bound)
	}
	for _, class := range []string{"l", "b"} {
		ring, err := w.node.ZRange(ctx, w.prefix+"ring:"+class, 0, -1).Result()
		if err != nil {
			return err
		}
		inside := map[string]bool{}
		for _, g := range ring {
			inside[g] = true
			if !may(class, g) {
				w.say("group %q is in ring %s: ready %d, held %d, parked %v, limits %q", g, class, w.count[class+g], held[g], w.due["p"+g], lim[g])
			}
		}
		for name := range w.count {
			if g, ok := strings.CutPrefix(name, class); ok && may(class, g) && !inside[g] {
				w.say("group %q is not in ring %s, with %d ready lanes", g, class, w.count[name])
			}
		}
	}
	return nil
}

func (w *walker) judgeDead(ctx context.Context) error {
	ids, err := w.node.ZRange(ctx, w.prefix+"dead", 0, -1).Result()
	if err != nil {
		return err
	}
	records, err := w.node.HGetAll(ctx, w.prefix+"deadrec").Result()
	if err != nil {
		return err
	}
	placed := setOf(ids)
	for _, id := range ids {
		if _, ok := records[id]; !ok {
			w.say("dead letter %s has no record", id)
		}
		if w.ids[id] {
			w.say("job %s is dead and in its lane", id)
		}
	}
	for id, r := range records {
		if !placed[id] {
			w.say("dead letter %s has a record and no place", id)
		}
		if _, err := parseLetter(id, r, 0); err != nil && !errors.Is(err, queue.ErrNewerFormat) {
			w.say("dead letter %s: %v", id, err)
		}
	}
	return nil
}

// judgeRest sees that what ends by itself does, and that there is nothing else.
func (w *walker) judgeRest(ctx context.Context) error {
	for key := range w.keys {
		what, name, _ := strings.Cut(key, ":")
		switch what {
		case "m", "l", "r", "R", "ring", "lease", "tok", "held", "lim", "used", "due", "sched", "dead", "deadrec", "gone", "wake":
		case "d", "b", "a":
			ttl, err := w.node.PTTL(ctx, w.prefix+key).Result()
			if err != nil {
				return err
			}
			if ttl == -1 {
				w.say("key %q never ends", key)
			}
		case "st":
			if err := w.status(ctx, name); err != nil {
				return err
			}
		default:
			w.say("key %q is none of ours", key)
		}
	}
	return nil
}

func (w *walker) status(ctx context.Context, id string) error {
	h, err := w.node.HGetAll(ctx, w.prefix+"st:"+id).Result()
	if err != nil || len(h) == 0 {
		return err
	}
	ttl, err := w.node.PTTL(ctx, w.prefix+"st:"+id).Result()
	if err != nil {
		return err
	}
	switch ended := h["s"] != ""; {
	case ended && ttl == -1:
		w.say("the status of job %s never ends", id)
	case !ended && ttl >= 0:
		w.say("the status of job %s ends before the job", id)
	case !ended && !w.ids[id]:
		w.say("job %s has a status and is not there", id)
	case !ended && h["w"] != "" && h["w"][0] == 's' && !w.due[h["w"]], !ended && h["w"] != "" && h["w"][0] != 's' && w.lanes[h["w"]] == 0:
		w.say("job %s should be at %q", id, h["w"])
	}
	return nil
}
