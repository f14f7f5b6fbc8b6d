package brokertest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// The invariants of QUEUE-MODEL that a random sequence can break, as a failure quotes them.
const (
	onePlace    = "1. Each accepted job is in exactly one place: a lane, scheduled, Dead, or gone."
	oneLease    = "2. Per lane at most one lease."
	inOrder     = "3. Strict jobs of a lane are claimed for the first time in the order they entered it, and no two jobs of a lane are ever held at once."
	inRing      = "4. A ready lane is in its group's list exactly once; a group is in a ring exactly once if and only if the ring's condition holds. 6. Groups take turns."
	underCap    = "5. A group's count in flight is its leased lanes; it never passes the cap, through crashes and expiry too."
	counts      = "7. attempts rises only by Retry; crashes only by an expired lease."
	holdsNone   = "9. An empty queue holds nothing but settings and keys that end by themselves."
	fenced      = "An operation with a token that is not the lane's current one changes nothing and returns ErrLeaseLost."
	repeatable  = "Lost replies: a call sent again gets the same answer and changes nothing."
	dedupes     = "Enqueue: dedupe key live, then the first job's id and Duplicate, nothing else."
	deadLetters = "What fails for good is a dead letter with its history, until it is replayed or dropped."
	tracks      = "Status tells of each tracked job what became of it; progress never goes back within an attempt."
	dueTimes    = "8. dueIn tells how long until something else is due."
	operators   = "Cancel, Purge, Replay and Drop answer what they have done."
)

// world is an engine, the model beside it, and what a client of both knows.
type world struct {
	engine Engine
	models *space
	sleep  func(time.Duration)
	name   string // of the queue under test
	other  string // of a second one in the same space

	start   time.Time // by the engine's clock
	nextID  int
	ids     []string      // of all jobs, ever
	held    []queue.Token // that some process believes to hold
	owner   map[queue.Token]int
	lost    []queue.Token   // that nobody holds any more
	batches []queue.Batch   // all of them
	sent    []time.Duration // when
	calls   [processes]queue.Call
	called  [processes]time.Duration // when
	purged  [processes]bool          // something was, since
	replies [processes]queue.Claimed
	log     []string
}

const (
	processes = 3

	batchMemory = 2*time.Minute - unit  // for so long a batch sent again takes effect once
	callMemory  = 10*time.Minute - unit // and a Claim

	unit = 10 * time.Second // time passes in these; what is due is due between two of them
)

var (
	groups = []string{"a", "b", "c", ""}
	keys   = []string{"x", "y", "z", ""}
	kinds  = []string{"k1", "k2"}
	leases = []time.Duration{3*unit - unit/2, 6*unit - unit/4, 30*unit - 3*unit/4} // no two end at one moment; two thirds of each fall between two steps
)

func newWorld(engine Engine, name string, sleep func(time.Duration)) *world {
	return &world{engine: engine, models: newSpace(), sleep: sleep, name: name, other: name + "-other", owner: map[queue.Token]int{}}
}

// step is one random operation. What it does is drawn from its seed and the state that it meets, so that
// a sequence stays one when steps are taken out of it.
type step uint64

// play runs steps on the engine and on the model, and compares after each. The error quotes the
// invariant and lists what was done.
func (w *world) play(ctx context.Context, steps []step) error {
	stats, err := w.engine.Stats(ctx, w.name)
	if err != nil {
		return err
	}
	w.start = stats.Now
	for _, s := range steps {
		rng := rand.New(rand.NewPCG(uint64(s), 1))
		err := w.do(ctx, rng)
		if err == nil {
			err = w.compare(ctx)
		}
		if err != nil {
			return fmt.Errorf("%w\nafter these steps:\n  %s", err, strings.Join(w.log, "\n  "))
		}
	}
	if err := w.empty(ctx); err != nil {
		return fmt.Errorf("%w\nafter these steps:\n  %s", err, strings.Join(w.log, "\n  "))
	}
	return nil
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

// broken quotes an invariant.
func broken(invariant, format string, args ...any) error {
	return fmt.Errorf("%s\n  %s", invariant, fmt.Sprintf(format, args...))
}

func one[T any](rng *rand.Rand, list []T) (zero T) {
	if len(list) == 0 {
		return zero
	}
	return list[rng.IntN(len(list))]
}

func (w *world) do(ctx context.Context, rng *rand.Rand) error {
	m := w.models.queue(w.name)
	switch n := rng.IntN(100); {
	case n < 28:
		return w.enqueue(ctx, rng)
	case n < 30:
		return w.enqueueAgain(ctx, rng)
	case n < 65:
		return w.claim(ctx, rng)
	case n < 68:
		return w.claimAgain(ctx, rng.IntN(processes))
	case n < 73:
		return w.extend(ctx, rng)
	case n < 85:
		d := time.Duration(1+rng.IntN(4)) * unit
		if rng.IntN(10) == 0 {
			d *= 20
		}
		w.note("%v pass", d)
		w.sleep(d)
		w.models.now += d
		return nil
	case n < 88:
		return w.redo(ctx, rng)
	case n < 91:
		return w.cancel(ctx, rng)
	case n < 92:
		f := one(rng, []queue.PurgeFilter{{Group: "a"}, {Group: "b", Key: "x"}, {Kind: "k1"}, {Group: "c", Kind: "k2"}, {Key: "z"}})
		return w.purge(ctx, f)
	case n < 94:
		m.paused = rng.IntN(2) == 0
		if m.paused {
			w.note("pause")
			return w.engine.Pause(ctx, w.name)
		}
		w.note("resume")
		return w.engine.Resume(ctx, w.name)
	case n < 97:
		group, d := one(rng, groups), time.Duration(rng.IntN(5))*unit
		if d > 0 {
			d = w.off(d)
		}
		w.note("park %q for %v", group, d)
		m.park(group, d)
		return w.engine.Park(ctx, w.name, group, d)
	default:
		group, l := one(rng, groups), queue.Limits{Cap: rng.IntN(3), Weight: rng.IntN(3)}
		w.note("limit %q to %+v", group, l)
		m.limit(group, l)
		return w.engine.Limit(ctx, w.name, group, l)
	}
}

// off makes a time that ends between two steps, and at the same moment as no other.
func (w *world) off(d time.Duration) time.Duration {
	w.nextID++
	return d - unit/2 + time.Duration(w.nextID)*time.Millisecond
}

// lease is a length of leases, so that those of a later call end later.
func (w *world) lease(rng *rand.Rand) time.Duration {
	w.nextID++
	return one(rng, leases) + time.Duration(w.nextID)*time.Millisecond
}

func (w *world) job(rng *rand.Rand) queue.Entry {
	w.nextID++
	j := queue.Job{
		ID: fmt.Sprintf("j%05d", w.nextID), Kind: one(rng, kinds), Group: one(rng, groups), Key: one(rng, keys), Payload: []byte(strconv.Itoa(w.nextID)),
		MaxAttempts: 1 + rng.IntN(3), MaxCrashes: 1 + rng.IntN(3), Deadline: 72 * time.Hour, DedupeFor: 48 * time.Hour, StatusFor: w.off(4 * unit), Track: rng.IntN(3) == 0,
	}
	if rng.IntN(4) == 0 {
		j.Class = queue.Bulk
	}
	if rng.IntN(3) == 0 {
		j.Order = queue.Relaxed
	}
	if rng.IntN(3) == 0 {
		j.DedupeKey = one(rng, []string{"d1", "d2", "d3"})
		j.DedupeFor = w.off(time.Duration(1+rng.IntN(6)) * unit)
	}
	if rng.IntN(5) == 0 {
		j.Delay = w.off(time.Duration(1+rng.IntN(5)) * unit)
	}
	if rng.IntN(5) == 0 {
		j.Deadline = w.off(time.Duration(1+rng.IntN(8))*unit) + unit/4 // it may be counted from a time that is off itself
	}
	if rng.IntN(4) == 0 {
		j.Headers = map[string]string{"shop": j.Group}
	}
	e := queue.Entry{Job: j}
	if rng.IntN(30) == 0 {
		e.Dead = "buried"
		e.Job.Payload = nil
	}
	return e
}

func describe(e queue.Entry) string {
	j := e.Job
	s := fmt.Sprintf("%s(%q/%q %v %v", j.ID, j.Group, j.Key, j.Class, j.Order)
	if j.DedupeKey != "" {
		s += fmt.Sprintf(" dedupe %s for %v", j.DedupeKey, j.DedupeFor)
	}
	if j.Delay > 0 {
		s += fmt.Sprintf(" in %v", j.Delay)
	}
	if j.Deadline < time.Hour {
		s += fmt.Sprintf(" deadline %v", j.Deadline)
	}
	if j.Track {
		s += " tracked"
	}
	if e.Dead != "" {
		s += " dead"
	}
	return s + fmt.Sprintf(" tries %d, crashes %d)", j.MaxAttempts, j.MaxCrashes)
}

func (w *world) enqueue(ctx context.Context, rng *rand.Rand) error {
	batch := &queue.Batch{}
	var said []string
	for range 1 + rng.IntN(4) {
		e := w.job(rng)
		w.ids = append(w.ids, e.Job.ID)
		batch.Jobs = append(batch.Jobs, e)
		said = append(said, describe(e))
	}
	batch.ID = fmt.Sprintf("batch%d", w.nextID)
	w.batches, w.sent = append(w.batches, *batch), append(w.sent, w.models.now)
	w.note("enqueue %s", strings.Join(said, " "))
	return w.sameReceipts(ctx, *batch, rng.IntN(2) == 0, dedupes)
}

func (w *world) enqueueAgain(ctx context.Context, rng *rand.Rand) error {
	for len(w.sent) > 0 && w.models.now-w.sent[0] > batchMemory {
		w.sent, w.batches = w.sent[1:], w.batches[1:]
	}
	if len(w.batches) == 0 {
		return nil
	}
	batch := one(rng, w.batches)
	w.note("enqueue batch %s again", batch.ID)
	return w.sameReceipts(ctx, batch, false, repeatable)
}

func (w *world) sameReceipts(ctx context.Context, batch queue.Batch, absolute bool, invariant string) error {
	// The engine gets copies: it may keep nothing of the caller's.
	mine := queue.Batch{ID: batch.ID}
	for _, e := range batch.Jobs {
		e.Job.Payload, e.Job.Headers = bytes.Clone(e.Job.Payload), maps.Clone(e.Job.Headers)
		if e.Job.Delay > 0 && absolute {
			stats, err := w.engine.Stats(ctx, w.name)
			if err != nil {
				return err
			}
			e.Job.NotBefore, e.Job.Delay = stats.Now.Add(e.Job.Delay), 0
		}
		mine.Jobs = append(mine.Jobs, e)
	}
	got, err := w.engine.Enqueue(ctx, w.name, mine)
	if err != nil {
		return err
	}
	for _, e := range mine.Jobs {
		for i := range e.Job.Payload {
			e.Job.Payload[i] = '?'
		}
		for k := range e.Job.Headers {
			e.Job.Headers[k] = "?"
		}
	}
	if want := w.models.queue(w.name).enqueue(batch); !slices.Equal(got, want) {
		return broken(invariant, "the receipts are %v; want %v", got, want)
	}
	return nil
}

// settlement draws what a process says of a job that it has.
func (w *world) settlement(rng *rand.Rand, t queue.Token) queue.Settlement {
	s := queue.Settlement{Token: t, Action: one(rng, []queue.Action{queue.Ack, queue.Ack, queue.Ack, queue.Retry, queue.Retry, queue.Snooze, queue.Kill, queue.Release})}
	w.nextID++
	switch s.Action {
	case queue.Ack:
		s.Result = []byte("result" + strconv.Itoa(w.nextID))
		if l := w.models.queue(w.name).byToken(t); l != nil && rng.IntN(4) == 0 {
			e := w.job(rng)
			e.Dead, e.Job.Group, e.Queue = "", l.group, one(rng, []string{"", w.other})
			s.Enqueue = append(s.Enqueue, e)
			if e.Queue == "" {
				w.ids = append(w.ids, e.Job.ID)
			}
		}
	case queue.Retry, queue.Kill:
		s.Error = "error" + strconv.Itoa(w.nextID)
	case queue.Snooze:
		s.Park = rng.IntN(3) == 0
		if rng.IntN(2) == 0 {
			s.Error = "error" + strconv.Itoa(w.nextID)
		}
	case queue.Release:
	}
	if (s.Action == queue.Retry || s.Action == queue.Snooze) && rng.IntN(4) > 0 {
		s.After = w.off(time.Duration(1+rng.IntN(5)) * unit)
	}
	if rng.IntN(5) == 0 {
		s.Progress = &queue.Progress{Percent: rng.IntN(101), Note: "note" + strconv.Itoa(w.nextID)}
	}
	return s
}

func (w *world) claim(ctx context.Context, rng *rand.Rand) error {
	p := rng.IntN(processes)
	last := w.calls[p]
	call := queue.Call{Process: "process" + strconv.Itoa(p), Number: last.Number + 1, Max: rng.IntN(6), Lease: w.lease(rng), BulkEvery: one(rng, []int{0, 0, 3})}
	var said []string
	keep := w.held[:0:0]
	for _, t := range w.held {
		if w.owner[t] != p || rng.IntN(2) > 0 {
			keep = append(keep, t)
			continue
		}
		s := w.settlement(rng, t)
		call.Settle = append(call.Settle, s)
		said = append(said, w.describeSettlement(s))
	}
	if len(w.lost) > 0 && rng.IntN(6) == 0 { // a late one
		s := w.settlement(rng, one(rng, w.lost))
		s.Enqueue = nil
		call.Settle = append(call.Settle, s)
		said = append(said, "late "+w.describeSettlement(s))
	}
	rng.Shuffle(len(call.Settle), func(i, j int) { call.Settle[i], call.Settle[j] = call.Settle[j], call.Settle[i] })
	if last.Number > 0 && rng.IntN(12) == 0 { // as after a call whose fate is unknown
		call.Again = true
		for _, t := range keep {
			if w.owner[t] == p && rng.IntN(3) > 0 {
				call.Held = append(call.Held, t)
			}
		}
		said = append(said, fmt.Sprintf("holding only %v", call.Held))
	}
	w.note("claim %d as process %d, lease %v, bulk every %d, settling %s", call.Max, p, call.Lease, call.BulkEvery, strings.Join(said, ", "))
	w.held = keep
	for _, s := range call.Settle {
		w.lost = append(w.lost, s.Token)
	}
	w.calls[p], w.called[p], w.purged[p] = call, w.models.now, false
	return w.sameClaim(ctx, p, false)
}

func (w *world) describeSettlement(s queue.Settlement) string {
	name := map[queue.Action]string{queue.Ack: "ack", queue.Retry: "retry", queue.Snooze: "snooze", queue.Kill: "kill", queue.Release: "release"}[s.Action]
	id := "?"
	if l := w.models.queue(w.name).byToken(s.Token); l != nil {
		id = l.jobs[0].ID
	}
	said := []string{name, id}
	if s.After > 0 {
		said = append(said, "for "+s.After.String())
	}
	if s.Park {
		said = append(said, "and park")
	}
	for _, e := range s.Enqueue {
		said = append(said, "enqueueing "+describe(e)+" in "+strconv.Quote(e.Queue))
	}
	return strings.Join(said, " ")
}

func (w *world) claimAgain(ctx context.Context, p int) error {
	if w.calls[p].Number == 0 || w.models.now-w.called[p] > callMemory {
		return nil
	}
	w.note("process %d sends its last claim again", p)
	w.calls[p].Again = true
	w.calls[p].Held = nil
	for _, t := range w.held {
		if w.owner[t] == p {
			w.calls[p].Held = append(w.calls[p].Held, t)
		}
	}
	return w.sameClaim(ctx, p, true)
}

// sameClaim makes a call to the engine and to the model, and compares the answers.
func (w *world) sameClaim(ctx context.Context, p int, again bool) error {
	call, m := w.calls[p], w.models.queue(w.name)
	// The engine gets copies: it may keep nothing of the caller's.
	mine := call
	mine.Settle = slices.Clone(call.Settle)
	for i := range mine.Settle {
		mine.Settle[i].Result = bytes.Clone(mine.Settle[i].Result)
	}
	got, err := w.engine.Claim(ctx, w.name, mine)
	if err != nil {
		return err
	}
	for _, s := range mine.Settle {
		for i := range s.Result {
			s.Result[i] = '?'
		}
	}
	clear(mine.Settle)
	if again {
		got = m.completed(got, w.replies[p])
	}
	if again && !w.purged[p] {
		if a, b := brief(got), brief(w.replies[p]); a != b {
			return broken(repeatable, "the second answer is %s; the first was %s", a, b)
		}
	}
	for i, l := range got.Jobs {
		if l.Err != nil {
			return broken(onePlace, "job %d can't be read: %v", i, l.Err)
		}
		for _, other := range append(slices.Clone(w.held), w.lost...) {
			if other == l.Token && !again {
				return broken(fenced, "the token %s was issued before", l.Token)
			}
		}
	}
	want := m.claim(call, func(i int) queue.Token {
		if i < len(got.Jobs) {
			return got.Jobs[i].Token
		}
		return queue.Token("missing" + strconv.Itoa(i))
	})
	if !slices.Equal(got.Lost, want.Lost) {
		return broken(fenced, "the lost tokens are %v; want %v", got.Lost, want.Lost)
	}
	if err := sameDeaths(got.Died, want.Died); err != nil && (!again || !w.purged[p]) {
		return err
	}
	if !slices.Equal(got.Enqueued, want.Enqueued) {
		return broken(dedupes, "the receipts of what Acks brought are %v; want %v", got.Enqueued, want.Enqueued)
	}
	for i := range min(len(got.Jobs), len(want.Jobs)) {
		g, x := got.Jobs[i].Job, want.Jobs[i].Job
		if g.ID != x.ID {
			return w.wrongClaim(got, want)
		}
		if g.Attempts != x.Attempts || g.Crashes != x.Crashes {
			if !again { // an answer that was kept may be shown as it was
				return broken(counts, "%s has %d attempts and %d crashes; want %d and %d", g.ID, g.Attempts, g.Crashes, x.Attempts, x.Crashes)
			}
		}
		if again && w.purged[p] { // what was purged may be gone from the answer
			g.Payload, g.Headers = x.Payload, x.Headers
		}
		if a, b := describeJob(g), describeJob(x); a != b {
			return broken(onePlace, "%s came back as another job:\n  %s; want\n  %s", g.ID, a, b)
		}
		if j := m.headOf(got.Jobs[i].Token); j != nil && !again {
			if err := w.sameHistory(g, j); err != nil {
				return err
			}
		}
		if age := got.Jobs[i].Age; !near(age, want.Jobs[i].Age) {
			return broken(dueTimes, "the age of %s is %v; want %v", g.ID, age, want.Jobs[i].Age)
		}
	}
	if len(got.Jobs) != len(want.Jobs) {
		return w.wrongClaim(got, want)
	}
	if want.DueIn == 1 && got.DueIn != 1 || want.DueIn != 1 && !again && !near(got.DueIn, want.DueIn) || (got.DueIn == 0) != (want.DueIn == 0) {
		return broken(dueTimes, "dueIn is %v; want %v", got.DueIn, want.DueIn)
	}
	if !again {
		for _, l := range got.Jobs {
			w.held = append(w.held, l.Token)
			w.owner[l.Token] = p
		}
		w.replies[p] = got
	}
	return nil
}

// completed is a repeated answer with what an engine may leave out of it: leases that are lost by now, and dead letters that
// somebody has replayed or dropped, even if they have died again.
func (m *model) completed(again, first queue.Claimed) queue.Claimed {
	var jobs []queue.Lease
	rest := again.Jobs
	for _, l := range first.Jobs {
		switch {
		case len(rest) > 0 && rest[0].Token == l.Token:
			jobs = append(jobs, rest[0])
			rest = rest[1:]
		case m.headOf(l.Token) == nil:
			jobs = append(jobs, l)
		}
	}
	jobs = append(jobs, rest...)
	again.Jobs = jobs
	again.Died = slices.Clone(again.Died)
	for i, d := range first.Died {
		there := func(l *letter) bool { return l.job.ID == d.Job.ID && m.deathOf(l.job).Equal(d.At) }
		if !slices.ContainsFunc(again.Died, func(a queue.DeadLetter) bool { return a.Job.ID == d.Job.ID }) && !slices.ContainsFunc(m.dead, there) {
			again.Died = slices.Insert(again.Died, min(i, len(again.Died)), d)
		}
	}
	return again
}

// describeJob is all of a job that never changes.
func describeJob(j queue.Job) string {
	return fmt.Sprintf("%s %s %q %v %q %v %q dedupe %q %v %d %d %v %v %v", j.ID, j.Kind, j.Group, j.Class, j.Key, j.Order, j.Payload, j.DedupeKey, j.Headers,
		j.MaxAttempts, j.MaxCrashes, j.Deadline, j.Track, j.StatusFor)
}

// sameHistory compares what went wrong with a job so far, and since when it is there.
func (w *world) sameHistory(got queue.Job, want *job) error {
	if len(got.History) != min(len(want.errors), 20) {
		return broken(deadLetters, "%s has a history of %d failures; want %d", got.ID, len(got.History), min(len(want.errors), 20))
	}
	for _, a := range got.History {
		if a.Number < 1 || a.Number > len(want.errors) {
			return broken(deadLetters, "the history of %s has a failure %d of %d", got.ID, a.Number, len(want.errors))
		}
		if x := want.errors[a.Number-1]; x != "" && a.Error != x || a.Error == "" || a.At.IsZero() {
			return broken(deadLetters, "failure %d of %s is %+v; want %q", a.Number, got.ID, a, x)
		}
	}
	if !near(got.Since.Sub(w.start), want.since) {
		return broken(dueTimes, "%s is there since %v; want %v", got.ID, got.Since.Sub(w.start), want.since)
	}
	return nil
}

// near compares times of two clocks, of which the engine's runs on while the test works.
func near(a, b time.Duration) bool { return a-b < unit/2 && b-a < unit/2 }

func brief(c queue.Claimed) string {
	var s strings.Builder
	fmt.Fprintf(&s, "lost %v, jobs", c.Lost)
	for _, l := range c.Jobs {
		fmt.Fprintf(&s, " %s by %s", l.Job.ID, l.Token)
	}
	return s.String()
}

// wrongClaim finds the invariant that a claim of other jobs than the model's breaks.
func (w *world) wrongClaim(got, want queue.Claimed) error {
	ids := func(c queue.Claimed) (list []string) {
		for _, l := range c.Jobs {
			list = append(list, l.Job.ID)
		}
		return list
	}
	invariant := inRing
	lanes, perGroup := map[string]int{}, map[string]int{}
	m := w.models.queue(w.name)
	for _, l := range got.Jobs {
		j := l.Job
		perGroup[j.Group]++
		if j.Key != "" {
			lane := fmt.Sprintf("%q %v %q", j.Group, j.Class, j.Key)
			if lanes[lane]++; lanes[lane] > 1 {
				invariant = oneLease
			}
		}
		for _, o := range m.lanes {
			if i := slices.IndexFunc(o.jobs, func(x *job) bool { return x.ID == j.ID }); i > 0 {
				invariant = inOrder
			}
		}
		if m.limits[j.Group].Cap > 0 && m.held(j.Group) > 0 && perGroup[j.Group] > m.limits[j.Group].Cap {
			invariant = underCap
		}
	}
	return broken(invariant, "claimed %v; want %v", ids(got), ids(want))
}

func sameDeaths(got, want []queue.DeadLetter) error {
	list := func(letters []queue.DeadLetter) (s []string) {
		for _, d := range letters {
			d.Job.Payload = nil // which is left out
			s = append(s, describeJob(d.Job)+": "+d.Error)
		}
		return s
	}
	if g, x := list(got), list(want); !slices.Equal(g, x) {
		return broken(deadLetters, "there died %q; want %q", g, x)
	}
	return nil
}

func (w *world) extend(ctx context.Context, rng *rand.Rand) error {
	beat := queue.Heartbeat{Lease: w.lease(rng), Progress: map[queue.Token]queue.Progress{}}
	for _, t := range w.held {
		if rng.IntN(3) > 0 {
			beat.Tokens = append(beat.Tokens, t)
		}
	}
	if len(w.lost) > 0 {
		beat.Tokens = append(beat.Tokens, one(rng, w.lost))
	}
	for _, t := range beat.Tokens {
		if rng.IntN(2) == 0 {
			w.nextID++
			beat.Progress[t] = queue.Progress{Percent: rng.IntN(101), Note: "note" + strconv.Itoa(w.nextID)}
		}
	}
	w.note("extend %d leases by %v", len(beat.Tokens), beat.Lease)
	got, err := w.engine.Extend(ctx, w.name, beat)
	if err != nil {
		return err
	}
	want := w.models.queue(w.name).extend(beat)
	if !sameSet(got.Lost, want.Lost) || !sameSet(got.Cancelled, want.Cancelled) {
		return broken(fenced, "extend answers %+v; want %+v", got, want)
	}
	for _, t := range got.Lost {
		if i := slices.Index(w.held, t); i >= 0 {
			w.held = slices.Delete(w.held, i, i+1)
			w.lost = append(w.lost, t)
		}
	}
	return nil
}

func sameSet(a, b []queue.Token) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// redo replays or drops dead letters, and some that are none.
func (w *world) redo(ctx context.Context, rng *rand.Rand) error {
	m := w.models.queue(w.name)
	var ids []string
	for _, d := range m.dead {
		if rng.IntN(2) == 0 {
			ids = append(ids, d.job.ID)
		}
	}
	if len(w.ids) > 0 {
		if id := one(rng, w.ids); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	var got, want int
	var err error
	if rng.IntN(2) == 0 {
		w.note("replay %v", ids)
		got, err = w.engine.Replay(ctx, w.name, ids)
		want = m.replay(ids)
	} else {
		w.note("drop %v", ids)
		got, err = w.engine.Drop(ctx, w.name, ids)
		want = m.drop(ids)
	}
	if err == nil && got != want {
		err = broken(operators, "it answers %d; want %d", got, want)
	}
	return err
}

func (w *world) cancel(ctx context.Context, rng *rand.Rand) error {
	id := one(rng, w.ids)
	w.note("cancel %s", id)
	got, err := w.engine.Cancel(ctx, w.name, id)
	want, known := w.models.queue(w.name).cancel(id)
	switch {
	case !known && errors.Is(err, queue.ErrUnknownJob):
		return nil
	case err != nil && known || !known:
		return broken(operators, "cancel of %s answers %q and %v; want %q, known %v", id, got, err, want, known)
	case got != want:
		return broken(operators, "cancel of %s answers %q; want %q", id, got, want)
	}
	return nil
}

func (w *world) purge(ctx context.Context, f queue.PurgeFilter) error {
	w.note("purge %+v", f)
	for p := range w.purged {
		w.purged[p] = true
	}
	n := 0
	for {
		p, err := w.engine.Purge(ctx, w.name, f)
		if err != nil {
			return err
		}
		n += p.Jobs
		if f.Cursor = p.Cursor; p.Cursor == "" {
			break
		}
	}
	if want := w.models.queue(w.name).purge(f); n != want {
		return broken(operators, "purge answers %d jobs; want %d", n, want)
	}
	return nil
}

// compare holds all that the engine shows against the model.
func (w *world) compare(ctx context.Context) error {
	for _, name := range []string{w.name, w.other} {
		if err := w.compareQueue(ctx, name); err != nil {
			return err
		}
	}
	m := w.models.queue(w.name)
	for _, id := range w.ids {
		got, err := w.engine.Status(ctx, w.name, id)
		s := m.known(id)
		if s == nil {
			if !errors.Is(err, queue.ErrUnknownJob) {
				return broken(tracks, "the status of %s is %+v, %v; want none", id, got, err)
			}
			continue
		}
		if err != nil {
			return broken(tracks, "the status of %s is missing: %v", id, err)
		}
		result := ""
		if s.job.ended == queue.Succeeded {
			result = s.result
		}
		want := queue.Status{ID: id, Kind: s.job.Kind, Group: s.job.Group, State: m.stateOf(s.job), Attempts: s.job.Attempts, Crashes: s.job.Crashes,
			Percent: s.percent, Note: s.note, Error: s.error}
		if !near(got.Since.Sub(w.start), s.job.since) || want.State.Ended() && !near(got.Ended.Sub(w.start), s.end-s.job.StatusFor) {
			return broken(tracks, "the status of %s is there since %v and ended at %v; want %v and %v", id, got.Since, got.Ended, s.job.since, s.end-s.job.StatusFor)
		}
		if string(got.Result) != result || got.Ended.IsZero() == want.State.Ended() {
			return broken(tracks, "the status of %s has result %q and ended at %v; want %q and %v", id, got.Result, got.Ended, result, want.State)
		}
		got.Result, got.Since, got.Ended = nil, time.Time{}, time.Time{}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return broken(tracks, "the status of %s is %+v; want %+v", id, got, want)
		}
	}
	return nil
}

func (w *world) compareQueue(ctx context.Context, name string) error {
	m := w.models.queue(name)
	jobs, err := w.engine.Jobs(ctx, name, queue.JobFilter{Limit: 1 << 20})
	if err != nil {
		return err
	}
	var got, want []string
	for _, i := range jobs {
		due := "at once"
		if !i.Due.IsZero() {
			due = near10(i.Due.Sub(w.start))
		}
		got = append(got, fmt.Sprintf("%s %s %d/%d due %s", describeJob(i.Job), i.State, i.Job.Attempts, i.Job.Crashes, due))
	}
	for _, j := range m.jobs() {
		due := "at once"
		if slices.Contains(m.later, j) {
			due = near10(j.due)
		}
		for _, l := range m.in(waiting) {
			if l.jobs[0] == j {
				due = near10(l.at)
			}
		}
		want = append(want, fmt.Sprintf("%s %s %d/%d due %s", describeJob(j.Job), m.stateOf(j), j.Attempts, j.Crashes, due))
	}
	if !slices.Equal(got, want) {
		return broken(onePlace, "%s holds (job, state, attempts/crashes, due)\n  %q; want\n  %q", name, got, want)
	}
	letters, err := w.engine.Dead(ctx, name, queue.DeadFilter{Limit: 1 << 20})
	if err != nil {
		return err
	}
	got, want = nil, nil
	slices.SortFunc(letters, func(a, b queue.DeadLetter) int { // what dies within one step of the model need not in the engine's time
		return cmp.Or(strings.Compare(near10(a.At.Sub(w.start)), near10(b.At.Sub(w.start))), strings.Compare(a.Job.ID, b.Job.ID))
	})
	for _, d := range letters {
		got = append(got, fmt.Sprintf("%s: %s, %s", describeJob(d.Job), d.Error, near10(d.At.Sub(w.start))))
		if i := slices.IndexFunc(m.dead, func(x *letter) bool { return x.job.ID == d.Job.ID }); i >= 0 {
			if err := w.sameHistory(d.Job, m.dead[i].job); err != nil {
				return err
			}
		}
	}
	for _, d := range slices.SortedFunc(slices.Values(m.dead), func(a, b *letter) int {
		return cmp.Or(strings.Compare(near10(a.at), near10(b.at)), strings.Compare(a.job.ID, b.job.ID))
	}) {
		want = append(want, fmt.Sprintf("%s: %s, %s", describeJob(d.job.Job), d.error, near10(d.at)))
	}
	if !slices.Equal(got, want) {
		return broken(deadLetters, "the dead letters of %s (job, error, time) are %q; want %q", name, got, want)
	}
	stats, err := w.engine.Stats(ctx, name)
	if err != nil {
		return err
	}
	if !near(stats.Now.Sub(w.start), w.models.now) {
		return broken(dueTimes, "the engine's clock says that %v have passed; want %v", stats.Now.Sub(w.start), w.models.now)
	}
	stats.Now = time.Time{}
	if x := m.stats(); stats != x {
		return broken(onePlace, "the stats of %s are %+v; want %+v", name, stats, x)
	}
	names, err := w.engine.Queues(ctx)
	if holds := stats.Jobs+stats.Scheduled+stats.Dead > 0; err == nil && holds && !slices.Contains(names, name) {
		return broken(onePlace, "the engine lists %q, but %s holds %+v", names, name, stats)
	}
	return err
}

// near10 is a time of which the engine's clock, which runs on while the test works, may be a little off.
func near10(d time.Duration) string { return (d + unit/4).Truncate(unit / 2).String() }

// empty works off all that is left and looks at what remains.
func (w *world) empty(ctx context.Context) error {
	for _, name := range []string{w.name, w.other} {
		m := w.models.queue(name)
		if err := w.engine.Resume(ctx, name); err != nil {
			return err
		}
		m.paused = false
		for _, g := range groups {
			if err := errors.Join(w.engine.Park(ctx, name, g, 0), w.engine.Limit(ctx, name, g, queue.Limits{})); err != nil {
				return err
			}
		}
		var settle []queue.Settlement
		for round := uint64(1); ; round++ {
			c, err := w.engine.Claim(ctx, name, queue.Call{Process: "last", Number: round, Max: 32, Lease: time.Hour, Settle: settle})
			if err != nil {
				return err
			}
			settle = nil
			for _, l := range c.Jobs {
				settle = append(settle, queue.Settlement{Token: l.Token, Action: queue.Ack})
			}
			stats, err := w.engine.Stats(ctx, name)
			if err != nil {
				return err
			}
			if round > 1000 {
				return broken(onePlace, "it never comes to an end: %+v", stats)
			}
			if len(c.Jobs) > 0 || c.DueIn == 1 {
				continue
			}
			if stats.Jobs+stats.Scheduled == 0 && stats.Held == 0 {
				break
			}
			w.sleep(10 * unit) // leases end, what is due comes up
		}
		for {
			letters, err := w.engine.Dead(ctx, name, queue.DeadFilter{Limit: bound})
			if err != nil {
				return err
			}
			if len(letters) == 0 {
				break
			}
			var ids []string
			for _, d := range letters {
				ids = append(ids, d.Job.ID)
			}
			if n, err := w.engine.Drop(ctx, name, ids); err != nil || n != len(ids) {
				return broken(operators, "of %d dead letters %d could be dropped: %v", len(ids), n, err)
			}
		}
		names, err := w.engine.Queues(ctx)
		if err != nil {
			return err
		}
		if slices.Contains(names, name) {
			return broken(holdsNone, "the engine lists %q among %q", name, names)
		}
	}
	return nil
}

// shrink takes steps out of a sequence for as long as it still fails.
func shrink(steps []step, fails func([]step) error) ([]step, error) {
	err := fails(steps)
	if err == nil {
		return nil, nil
	}
	for size := len(steps) / 2; size > 0; {
		removed := false
		for at := 0; at+size <= len(steps); {
			fewer := slices.Concat(steps[:at], steps[at+size:])
			if e := fails(fewer); e != nil {
				steps, err, removed = fewer, e, true
				continue
			}
			at += size
		}
		if !removed || size > len(steps) {
			size /= 2
		}
	}
	return steps, err
}
