package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// ledger is what became of the storm on one side. Every figure is counted from what reached the systems
// and from the sender's attempts, and compared with the generator's events.
type ledger struct {
	Events       int `json:"events"`       // that happened in the shops
	Sent         int `json:"sent"`         // of these, offered to the integration at least once
	Acknowledged int `json:"acknowledged"` // answered 2xx in the end
	Redelivered  int `json:"redelivered"`  // requests after a failed one
	Duplicated   int `json:"duplicated"`   // requests that Shopify made twice of its own accord
	Reordered    int `json:"reordered"`    // events that Shopify first sent after a later one of their subject
	GivenUp      int `json:"given_up"`     // deliveries that Shopify gave up, or dropped with their subscription
	Deleted      int `json:"subscriptions_deleted"`

	Lost       int `json:"lost"`              // events of which an effect is missing in the end
	AckedLost  int `json:"acknowledged_lost"` // of these, acknowledged ones
	Twice      int `json:"twice"`             // effects that happened more than once
	OutOfOrder int `json:"out_of_order"`      // effects after one of an event that was sent when this one had been taken
	Stale      int `json:"stale_overwrites"`  // effects of an older state of a product or stock after a newer one's
	StockWrong int `json:"stock_wrong"`       // stocks that end, in a system, other than in the shops
	Superseded int `json:"superseded"`        // events whose effect nobody needs any more: a newer state had its own
	Garbled    int `json:"garbled"`           // effects that name another shop, topic or resource than the event's
	Overlaps   int `json:"overlaps"`          // repeated requests that met the event's first run
	Abandoned  int `json:"workers_abandoned"` // workers that died between two steps of a job, which another took over

	Down map[string]int `json:"calls_while_down"` // calls that reached a system while it failed

	AdminCalls  int     `json:"admin_calls"`     // requests to the shops' Admin API
	AdminPoints float64 `json:"admin_points"`    // of quota that they have used
	Throttled   int     `json:"admin_throttled"` // of them, those that found too little of it
	Strangers   bool    `json:"admin_strangers"` // the workers are processes that can't share the quota: no Redis

	// Under -kill:
	Kill        bool   `json:"kill,omitempty"`
	ServerKills int    `json:"server_kills,omitempty"`
	ServersCut  int    `json:"servers_cut,omitempty"` // of these, while requests were under way
	WorkerKills int    `json:"worker_kills,omitempty"`
	RedisKill   bool   `json:"redis_kill,omitempty"`      // Redis is the storm's own, and killed as well
	RedisKills  int    `json:"redis_kills,omitempty"`     // how often it was
	RedisCut    int    `json:"redis_cut,omitempty"`       // of these, while requests or jobs were under way
	Excused     int    `json:"repeats_excused,omitempty"` // calls made again because the worker that made them first was killed
	Dead        int    `json:"dead,omitempty"`            // events that are dead letters
	DeadOf      string `json:"dead_of,omitempty"`         // what one of them died of

	Redis    bool     `json:"redis,omitempty"`    // the queue is in Redis
	Problems []string `json:"problems,omitempty"` // keys there that contradict each other, and jobs that are left

	AckP50    float64 `json:"ack_p50_ms"` // of the acknowledgement, in real time
	AckP99    float64 `json:"ack_p99_ms"`
	QuietP50  float64 `json:"quiet_wait_p50_ms"` // quiet shops: from first offered to all done
	QuietP99  float64 `json:"quiet_wait_p99_ms"`
	QuietDone int     `json:"quiet_done"`
}

// span is when something was under way.
type span struct{ from, to time.Time }

// offer is what the integration could know of an event's place in the order.
type offer struct {
	sent  time.Time // when its first whole request began
	taken time.Time // when the integration had it for certain: it answered, or a system heard of it; zero if never
}

func (s *side) ledger() ledger {
	l := ledger{
		Events: len(s.truth), Sent: s.sent.Sent, Acknowledged: len(s.acked), Redelivered: s.sent.Redelivered,
		Duplicated: s.sent.Duplicated, GivenUp: s.sent.GivenUp + s.sent.Dropped, Deleted: s.sent.Deleted,
	}
	effects := s.systems.done()
	offers, began := s.offers(effects, &l)

	// Who did what: how often each effect happened, and when each event was first worked on.
	type key struct{ event, system string }
	times := map[key]int{}
	work := map[string]span{}
	for _, e := range effects {
		k := key{e.Event, e.System}
		times[k]++
		if times[k] > 1 {
			l.Twice++
			continue
		}
		w, ok := work[e.Event]
		if !ok || e.Came.Before(w.from) {
			w.from = e.Came
		}
		if e.Done.After(w.to) {
			w.to = e.Done
		}
		work[e.Event] = w
	}

	var twice int
	l.Excused, twice = s.systems.repeats()
	l.Twice += twice // only the key kept it from being one
	s.underKill(&l)
	l.Redis, l.Problems = s.o.Redis != "" && s.name != "classic", s.problems

	states := s.states(effects)
	l.Stale, l.StockWrong = states.stale, s.stockWrong(states)
	var quiet []float64
	for _, e := range s.truth {
		missing, superseded := false, false
		for _, system := range steps[e.Topic] {
			if times[key{e.ID, system}] == 0 {
				newer := states.supersede(system, e)
				superseded, missing = superseded || newer, missing || !newer
			}
		}
		if superseded {
			l.Superseded++
		}
		switch {
		case missing:
			l.Lost++
			if _, kept := s.letters[e.ID]; s.acked[e.ID] && !kept {
				l.AckedLost++
			}
		case e.Shop != noisy && !superseded:
			quiet = append(quiet, ms(work[e.ID].to.Sub(began[e.ID])))
		}
	}
	l.QuietDone = len(quiet)
	l.QuietP50, l.QuietP99 = quantile(quiet, 0.5), quantile(quiet, 0.99)
	l.OutOfOrder, l.Garbled = s.outOfOrder(effects, offers)
	for _, a := range s.attempts {
		if w, ok := work[a.Event]; ok && (a.Duplicate || a.Number > 0) && a.Start.Before(w.to) && a.End.After(w.from) {
			l.Overlaps++
		}
	}
	l.Reordered = s.reordered(began)
	l.Abandoned = s.abandoned(effects)
	l.Down = s.systems.reached()
	admin := s.systems.asked(s.truth)
	l.AdminCalls, l.AdminPoints, l.Throttled, l.Strangers = admin.Requests, admin.Points, admin.Throttled, s.o.Kill && s.o.Redis == ""
	return l
}

// resource is a product or a stock as a system has it.
type resource struct{ system, shop, subject string }

func (e *event) in(system string) resource { return resource{system, e.Shop, e.Subject} }

// states are the products and stocks in the systems.
type states struct {
	newest map[resource]time.Duration // of which moment the newest is that ever took effect
	last   map[resource]int           // the stock that took effect last
	stale  int                        // how often an older one took effect after a newer one
}

// states follows them. What a resource is, and which of two states is the newer one, is the generator's word.
func (s *side) states(effects []effect) states {
	truth := map[string]*event{}
	for i := range s.truth {
		truth[s.truth[i].ID] = &s.truth[i]
	}
	st := states{newest: map[resource]time.Duration{}, last: map[resource]int{}}
	for _, e := range effects {
		t := truth[e.Event]
		if t == nil || !replaces[t.Topic] {
			continue
		}
		r := t.in(e.System)
		if newest, ok := st.newest[r]; ok && t.At < newest {
			st.stale++
		} else {
			st.newest[r] = t.At
		}
		st.last[r] = e.Stock
	}
	return st
}

// supersede says whether an event needs no effect in a system any more: a newer state of its resource had one.
func (st *states) supersede(system string, e event) bool {
	newest, ok := st.newest[e.in(system)]
	return ok && replaces[e.Topic] && newest > e.At
}

// stockWrong counts the stocks that end other than in the shops.
func (s *side) stockWrong(st states) (wrong int) {
	want := map[resource]int{}
	for _, e := range s.truth { // in the order in which things happened
		if e.Topic == "inventory_levels/update" {
			for _, system := range steps[e.Topic] {
				want[e.in(system)] = e.Stock
			}
		}
	}
	for r, stock := range want {
		if st.last[r] != stock {
			wrong++
		}
	}
	return wrong
}

// underKill counts what the kills did.
func (s *side) underKill(l *ledger) {
	if s.crew == nil {
		return
	}
	k := s.crew.kills()
	l.Kill, l.ServerKills, l.WorkerKills = true, len(k.servers), k.workers
	l.RedisKill, l.RedisKills = s.o.server != nil, len(k.redis)
	for _, at := range k.redis {
		waiting := func(a attempt) bool { return !a.Cut && a.Start.Before(at) && a.End.After(at) }
		if slices.ContainsFunc(s.attempts, waiting) || s.systems.busy(at) {
			l.RedisCut++
		}
	}
	for _, at := range k.servers {
		if slices.ContainsFunc(s.attempts, func(a attempt) bool { return a.Status == 0 && !a.Cut && a.Start.Before(at) && a.End.After(at) }) {
			l.ServersCut++
		}
	}
	if l.Dead = len(s.letters); l.Dead > 0 {
		l.DeadOf = slices.Sorted(maps.Values(s.letters))[0]
	}
}

// abandoned counts the workers that died between two steps of a job, if the systems bear that out: an effect of
// the event from before, and one from after by another worker, which had the job because the dead one's lease
// had ended. A job that was given back, failed or done by a dead worker does not count.
func (s *side) abandoned(effects []effect) int {
	byEvent := map[string][]effect{}
	for _, e := range effects {
		byEvent[e.Event] = append(byEvent[e.Event], e)
	}
	workers := map[int]bool{}
	for _, d := range s.systems.dead() {
		before, after := false, false
		for _, e := range byEvent[d.Event] {
			before = before || e.Crashes <= d.Crashes
			after = after || before && e.Crashes > d.Crashes && e.Worker != d.Worker
		}
		if after {
			workers[d.Worker] = true
		}
	}
	return len(workers)
}

// down is how many calls reached systems that were down.
func (l *ledger) down() (n int) {
	for _, calls := range l.Down {
		n += calls
	}
	return n
}

// offers finds, for each event, when its first whole request began and when the integration had it for
// certain: it answered, other than with the open refusal of a 503, or one of the systems heard of it. It
// also finds when the event was first sent at all, and the times of the acknowledgements.
func (s *side) offers(effects []effect, l *ledger) (offers map[string]offer, began map[string]time.Time) {
	offers, began = map[string]offer{}, map[string]time.Time{}
	var acks []float64
	slices.SortStableFunc(s.attempts, func(a, b attempt) int { return a.Start.Compare(b.Start) })
	for _, a := range s.attempts {
		if _, ok := began[a.Event]; !ok {
			began[a.Event] = a.Start
		}
		if a.Status/100 == 2 && !a.Slow { // a body that dribbles in is the sender's time, not ours
			acks = append(acks, ms(a.End.Sub(a.Start)))
		}
		if a.Cut {
			continue
		}
		o, known := offers[a.Event]
		if !known {
			o.sent = a.Start
		}
		if answered := a.Status != 0 && a.Status != 503; answered && (o.taken.IsZero() || a.End.Before(o.taken)) {
			o.taken = a.End
		}
		offers[a.Event] = o
	}
	for _, e := range effects {
		if o, known := offers[e.Event]; known && (o.taken.IsZero() || e.Came.Before(o.taken)) {
			o.taken = e.Came
			offers[e.Event] = o
		}
	}
	l.AckP50, l.AckP99 = quantile(acks, 0.5), quantile(acks, 0.99)
	return offers, began
}

// outOfOrder counts effects in a system that came after an effect of an event of the same resource
// that was not even sent when the integration had this one. Events that it was offered at the same time
// may go either way: nobody could tell their order. What is one resource is the generator's word, not the
// integration's; what that said of an event is compared, and counted as garbled where it differs.
func (s *side) outOfOrder(effects []effect, offers map[string]offer) (count, garbled int) {
	type lane struct{ system, shop, subject string }
	truth := map[string]event{}
	for _, e := range s.truth {
		truth[e.ID] = e
	}
	seen := map[lane][]string{}
	for _, e := range effects {
		t, ok := truth[e.Event]
		if !ok || e.Shop != t.Shop || e.Topic != t.Topic || e.Subject != t.Subject {
			garbled++
		}
		k := lane{e.System, t.Shop, t.Subject}
		taken := offers[e.Event].taken
		for _, before := range seen[k] {
			if before != e.Event && !taken.IsZero() && taken.Before(offers[before].sent) {
				count++
				break
			}
		}
		seen[k] = append(seen[k], e.Event)
	}
	return count, garbled
}

// reordered counts events that were first sent after a later one of their subject.
func (s *side) reordered(began map[string]time.Time) int {
	type subject struct{ shop, subject string }
	earliest := map[subject]time.Time{} // first start of any later event
	count := 0
	for _, e := range slices.Backward(s.truth) {
		at, ok := began[e.ID]
		if !ok {
			continue
		}
		k := subject{e.Shop, e.Subject}
		if first, later := earliest[k]; later && first.Before(at) {
			count++
		}
		if first, later := earliest[k]; !later || at.Before(first) {
			earliest[k] = at
		}
	}
	return count
}

func ms(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/10) / 100 }

// quantile is the q-th value of list; 0 of an empty one.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

// report prints both ledgers side by side.
func report(out io.Writer, classic, breakwater ledger) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(what string, of func(l ledger) string) {
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", what, of(classic), of(breakwater))
	}
	count := func(of func(l ledger) int) func(ledger) string {
		return func(l ledger) string { return fmt.Sprint(of(l)) }
	}
	fmt.Fprintln(w, "\nledger\tclassic\tBreakwater\t")
	row("events in the shops", count(func(l ledger) int { return l.Events }))
	row("sent", count(func(l ledger) int { return l.Sent }))
	row("acknowledged", count(func(l ledger) int { return l.Acknowledged }))
	row("redelivered", count(func(l ledger) int { return l.Redelivered }))
	row("given up by Shopify", count(func(l ledger) int { return l.GivenUp }))
	row("subscriptions deleted", count(func(l ledger) int { return l.Deleted }))
	if breakwater.Kill {
		row("servers killed", count(func(l ledger) int { return l.ServerKills }))
		row("of these with requests under way", count(func(l ledger) int { return l.ServersCut }))
		row("workers killed", count(func(l ledger) int { return l.WorkerKills }))
		row("of these mid-job", count(func(l ledger) int { return l.Abandoned }))
		row("calls repeated for that, by key", count(func(l ledger) int { return l.Excused }))
		if breakwater.RedisKill {
			row("Redis killed", count(func(l ledger) int { return l.RedisKills }))
			row("of these with requests or jobs under way", count(func(l ledger) int { return l.RedisCut }))
		}
		row("dead letters", count(func(l ledger) int { return l.Dead }))
	} else {
		row("workers abandoned mid-job", count(func(l ledger) int { return l.Abandoned }))
		row("calls repeated for that, by key", count(func(l ledger) int { return l.Excused }))
	}
	row("acknowledgement p50 / p99", func(l ledger) string { return fmt.Sprintf("%.1f / %.1f ms", l.AckP50, l.AckP99) })
	row("quiet shops wait p50 / p99", func(l ledger) string { return fmt.Sprintf("%.0f / %.0f ms", l.QuietP50, l.QuietP99) })
	row("for so many of their events", count(func(l ledger) int { return l.QuietDone }))
	for _, system := range slices.Sorted(maps.Keys(forecast)) {
		row("calls to the "+system+" while it was down", count(func(l ledger) int { return l.Down[system] }))
	}
	row("requests to the Admin API", count(func(l ledger) int { return l.AdminCalls }))
	row("points of quota used", func(l ledger) string { return fmt.Sprintf("%.0f", l.AdminPoints) })
	row("throttled answers", count(func(l ledger) int { return l.Throttled }))
	row("lost events", count(func(l ledger) int { return l.Lost }))
	row("effects done twice", count(func(l ledger) int { return l.Twice }))
	row("effects out of order", count(func(l ledger) int { return l.OutOfOrder }))
	row("stale overwrites", count(func(l ledger) int { return l.Stale }))
	row("stocks that differ from the shops'", count(func(l ledger) int { return l.StockWrong }))
	if breakwater.Redis {
		row("found wrong in Redis", count(func(l ledger) int { return len(l.Problems) }))
	}
	_ = w.Flush() // out is the terminal
}

// judge says which promise the right side broke, and why the storm proved nothing.
func judge(classic, breakwater ledger) (broken, weak string) {
	var breaks, weaknesses []string
	check := func(list *[]string, ok bool, format string, args ...any) {
		if !ok {
			*list = append(*list, fmt.Sprintf(format, args...))
		}
	}
	b := breakwater
	check(&breaks, b.AckedLost == 0, "P1: %d acknowledged events are lost", b.AckedLost)
	check(&breaks, b.Twice == 0, "P2 or P3: %d effects happened twice", b.Twice)
	check(&breaks, b.OutOfOrder == 0, "P4: %d effects out of order", b.OutOfOrder)
	check(&breaks, b.Stale == 0, "P5: %d older states took effect after newer ones", b.Stale)
	check(&breaks, b.StockWrong == 0 || b.Acknowledged < b.Events, "P5: %d stocks differ from the shops'", b.StockWrong)
	// The classic side loses most of its subscriptions, and with them the calls that it would have made; still it makes many times as many.
	check(&breaks, b.down()*2 <= classic.down(), "P8: %d calls reached systems that were down; %d of the classic side", b.down(), classic.down())
	check(&breaks, b.Throttled == 0 || b.Strangers, "P9: %d answers of the Admin API were throttled", b.Throttled)
	check(&breaks, b.Garbled == 0, "%d effects name another resource than their event's", b.Garbled)
	check(&breaks, len(b.Problems) == 0, "%d things are wrong in Redis: %s", len(b.Problems), strings.Join(b.Problems, "; "))

	for name, l := range map[string]ledger{"classic": classic, "breakwater": breakwater} {
		check(&weaknesses, l.Duplicated*20 >= l.Sent, "%s: only %d of %d deliveries were duplicated; want 5 %%", name, l.Duplicated, l.Sent)
		check(&weaknesses, l.Reordered*20 >= l.Sent, "%s: only %d of %d deliveries were reordered; want 5 %%", name, l.Reordered, l.Sent)
		check(&weaknesses, l.Overlaps > 0, "%s: no repeated delivery met its first run", name)
	}
	// Not a broken promise, if all that was acknowledged is there, but a storm that this machine could not play.
	check(&weaknesses, b.Acknowledged == b.Events, "breakwater: %d events were never acknowledged", b.Events-b.Acknowledged)
	check(&weaknesses, b.Abandoned > 0, "breakwater: no worker was abandoned in the midst of a job that another took over")
	check(&weaknesses, !b.Kill || b.ServersCut > 0, "breakwater: no server was killed while requests were under way")
	check(&weaknesses, !b.RedisKill || b.RedisCut > 0, "breakwater: Redis was never killed while requests or jobs were under way")
	check(&weaknesses, b.Dead == 0, "breakwater: %d events are dead letters (%s): too many kills for this machine", b.Dead, b.DeadOf)
	c := classic
	check(&weaknesses, c.Throttled > 0, "the classic side was never throttled")
	check(&weaknesses, c.Lost > 0 && c.Twice > 0 && c.OutOfOrder > 0,
		"the classic side lost %d, did %d twice and %d out of order; want some of each", c.Lost, c.Twice, c.OutOfOrder)
	slices.SortFunc(weaknesses, cmp.Compare)
	return strings.Join(breaks, "; "), strings.Join(weaknesses, "; ")
}
