package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// perfect is a side on which everything went right: every event sent and acknowledged, one after the
// other, and each effect a moment later.
func perfect() *side {
	truth := generate(options{Orders: 50, Shops: 5, Seed: 1, Scale: 1})
	s := &side{name: "test", truth: truth, acked: map[string]bool{}, systems: &systems{}, sent: webhooktest.Ledger{Sent: len(truth)}}
	at := stormDay
	for _, e := range truth {
		s.attempts = append(s.attempts, attempt{Event: e.ID, Start: at, End: at.Add(time.Millisecond), Status: 200})
		s.acked[e.ID] = true
		for _, system := range steps[e.Topic] {
			at = at.Add(10 * time.Millisecond)
			s.systems.effects = append(s.systems.effects, effect{System: system, call: call{Event: e.ID, Shop: e.Shop, Topic: e.Topic, Subject: e.Subject, Stock: e.Stock},
				Came: at, Done: at.Add(time.Millisecond)})
		}
		at = at.Add(10 * time.Millisecond)
	}
	return s
}

// An order of which at least two events exist: the places of its first two effects in the database.
func twoOfOneSubject(t *testing.T, s *side) (first, second int) {
	t.Helper()
	seen := map[string]int{}
	for i, e := range s.systems.effects {
		if e.System != "database" {
			continue
		}
		k := e.Shop + e.Subject
		if before, ok := seen[k]; ok {
			return before, i
		}
		seen[k] = i
	}
	t.Fatal("no subject has two events")
	return 0, 0
}

// olderState is an event of a product that changed again afterwards.
func olderState(s *side) string {
	for _, e := range s.truth {
		if e.Topic == "products/update" {
			return e.ID
		}
	}
	return ""
}

// The ledger must see each kind of harm: a check that can't fail proves nothing.
func TestLedgerSeesHarm(t *testing.T) {
	t.Parallel()
	clean := perfect().ledger()
	assert.Zero(t, clean.Lost+clean.Twice+clean.OutOfOrder+clean.AckedLost)
	assert.Equal(t, clean.Events, clean.Acknowledged)
	broken, _ := judge(clean, clean)
	assert.Empty(t, broken)
	classic := clean
	classic.Down = map[string]int{"erp": 90, "database": 10}

	for name, tt := range map[string]struct {
		harm   func(s *side)
		broken string
	}{
		"an effect is missing": {func(s *side) { s.systems.effects = s.systems.effects[:len(s.systems.effects)-1] },
			"P1: 1 acknowledged events are lost"},
		"an effect happens twice": {func(s *side) {
			s.systems.effects = append(s.systems.effects, s.systems.effects[len(s.systems.effects)-1])
		},
			"P2 or P3: 1 effects happened twice"},
		"two effects change places": {func(s *side) {
			i, j := twoOfOneSubject(t, s)
			e := s.systems.effects
			e[i], e[j] = e[j], e[i]
		}, "P4: 1 effects out of order"},
		"two effects change places under a wrong name": {func(s *side) {
			i, j := twoOfOneSubject(t, s)
			e := s.systems.effects
			e[i], e[j] = e[j], e[i]
			e[i].Subject = "order/6000000000000000000"
		}, "P4: 1 effects out of order; 1 effects name another resource than their event's"},
		"an older state after a newer one": {func(s *side) {
			for _, e := range s.systems.effects { // it comes back when all is over
				if e.Topic == "inventory_levels/update" && e.System == "erp" {
					e.Event += "-late"
					s.truth = append([]event{{ID: e.Event, Shop: e.Shop, Topic: e.Topic, Subject: e.Subject, At: -1}}, s.truth...)
					s.acked[e.Event] = true
					s.systems.effects = append(s.systems.effects, e)
					return
				}
			}
		}, "P5: 1 older states took effect after newer ones; P5: 1 stocks differ from the shops'"},
		"a stock is another's": {func(s *side) {
			for i := len(s.systems.effects) - 1; ; i-- {
				if e := &s.systems.effects[i]; e.Topic == "inventory_levels/update" {
					e.Stock++
					return
				}
			}
		}, "P5: 1 stocks differ from the shops'"},
		"a system that is down is not left alone": {func(s *side) { s.systems.down = map[string]int{"erp": 40, "carrier": 11} },
			"P8: 51 calls reached systems that were down; 100 of the classic side"},
		"a system that is down is left alone": {func(s *side) { s.systems.down = map[string]int{"erp": 40, "carrier": 10} }, ""},
		"an older state is missing": {func(s *side) { // a newer one has taken its place
			s.systems.effects = slices.DeleteFunc(s.systems.effects, func(e effect) bool { return e.Event == olderState(s) })
		}, ""},
		"keys in Redis contradict each other": {func(s *side) { s.problems = []string{"a job is in two places", "1 jobs are left in the queue"} },
			"2 things are wrong in Redis: a job is in two places; 1 jobs are left in the queue"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := perfect()
			tt.harm(s)
			broken, _ := judge(classic, s.ledger())
			assert.Equal(t, tt.broken, broken)
		})
	}
}

// A storm that harms nobody, or without duplicates and disorder, is called weak.
func TestWeakStormIsCalledWeak(t *testing.T) {
	t.Parallel()
	clean := perfect().ledger()
	_, weak := judge(clean, clean)
	assert.Contains(t, weak, "classic: only 0 of")
	assert.Contains(t, weak, "no repeated delivery met its first run")
	assert.Contains(t, weak, "the classic side lost 0, did 0 twice and 0 out of order")
	assert.Contains(t, weak, "breakwater: no worker was abandoned in the midst of a job that another took over")

	s := perfect()
	delete(s.acked, s.truth[0].ID)
	_, weak = judge(clean, s.ledger())
	assert.Contains(t, weak, "breakwater: 1 events were never acknowledged")
}

// A worker counts as abandoned mid-job only if the systems saw both: a step from before its death, and one from
// after it by a worker that had the job because a lease had ended.
func TestAbandonedWorkersAreSeenAtTheSystems(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		harm func(s *side, second *effect)
		want int
	}{
		"as it should be":         {func(*side, *effect) {}, 1},
		"it died twice":           {func(s *side, _ *effect) { s.systems.deaths = append(s.systems.deaths, s.systems.deaths...) }, 1},
		"nobody died":             {func(s *side, _ *effect) { s.systems.deaths = nil }, 0},
		"its job was given back":  {func(_ *side, second *effect) { second.Crashes = 0 }, 0},
		"it went on itself":       {func(_ *side, second *effect) { second.Worker = 1 }, 0},
		"the rest is lost":        {func(s *side, second *effect) { second.Event = s.truth[len(s.truth)-1].ID }, 0},
		"it had done nothing yet": {func(s *side, _ *effect) { s.systems.effects[0].Crashes = 1 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := perfect()
			e := s.systems.effects
			require.Equal(t, "orders/create", s.truth[0].Topic) // has a step in the database and one in the ERP
			require.Equal(t, e[0].Event, e[1].Event)
			e[0].Worker, e[1].Worker, e[1].Crashes, e[2].Worker, e[2].Crashes = 1, 2, 1, 2, 1
			e[2].Event = s.truth[len(s.truth)-1].ID // two steps are enough
			s.systems.deaths = []call{{Event: e[0].Event, Worker: 1}}
			tt.harm(s, &e[1])
			l := s.ledger()
			assert.Equal(t, tt.want, l.Abandoned)
			_, weak := judge(l, l)
			assert.Equal(t, tt.want == 0, strings.Contains(weak, "no worker was abandoned"), weak)
		})
	}
}

// A call that was made again is excused only by the death of the worker that made it before.
func TestRepeatsAreExcusedByKillsAlone(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return stormDay.Add(time.Duration(s) * time.Second) }
	made := func(worker, came, ended int, done bool) *keyed {
		k := &keyed{call: call{Worker: worker}, key: "k", came: at(came), done: done}
		if ended > 0 {
			k.ended = at(ended)
		}
		return k
	}
	noted := made(2, 5, 6, true)
	noted.noted = true
	for name, tt := range map[string]struct {
		calls          []*keyed
		killed         map[int]time.Time
		excused, twice int
	}{
		"one call":                         {calls: []*keyed{made(1, 1, 2, true)}},
		"again after it had failed":        {calls: []*keyed{made(1, 1, 2, false), made(1, 3, 4, true)}},
		"killed after the call":            {[]*keyed{made(1, 1, 2, true), made(2, 5, 6, true)}, map[int]time.Time{1: at(3)}, 1, 0},
		"killed within the call":           {[]*keyed{made(1, 1, 4, true), made(2, 5, 6, true)}, map[int]time.Time{1: at(3)}, 1, 0},
		"sent before its death, in after":  {[]*keyed{made(1, 4, 5, true), made(2, 6, 7, true)}, map[int]time.Time{1: at(3)}, 1, 0},
		"each caller was killed":           {[]*keyed{made(1, 1, 2, true), made(2, 4, 5, true), made(3, 7, 8, true)}, map[int]time.Time{1: at(3), 2: at(6)}, 2, 0},
		"killed, then refused":             {[]*keyed{made(1, 1, 2, true), made(2, 4, 5, false), made(2, 7, 8, true)}, map[int]time.Time{1: at(3)}, 1, 0},
		"nobody was killed":                {[]*keyed{made(1, 1, 2, true), made(2, 5, 6, true)}, nil, 0, 1},
		"the same worker did it":           {[]*keyed{made(1, 1, 2, true), made(1, 5, 6, true)}, nil, 0, 1},
		"another was killed":               {[]*keyed{made(1, 1, 2, true), made(2, 5, 6, true)}, map[int]time.Time{2: at(7), 3: at(3)}, 0, 1},
		"killed when it was repeated":      {[]*keyed{made(1, 1, 2, true), made(2, 5, 6, true)}, map[int]time.Time{1: at(6)}, 0, 1},
		"only the first caller was killed": {[]*keyed{made(1, 1, 2, true), made(2, 4, 5, true), made(3, 7, 8, true)}, map[int]time.Time{1: at(3)}, 1, 1},
		"at once, and the first failed":    {[]*keyed{made(1, 1, 4, false), made(2, 3, 6, true)}, nil, 0, 1},
		"at once, the first still runs":    {[]*keyed{made(1, 1, 0, false), made(2, 3, 6, true)}, nil, 0, 1},
		"killed, but it had been noted":    {[]*keyed{made(1, 1, 2, true), noted}, map[int]time.Time{1: at(3)}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &systems{keyed: map[string][]*keyed{"k": tt.calls}, killed: tt.killed}
			excused, twice := s.repeats()
			assert.Equal(t, tt.excused, excused, "excused")
			assert.Equal(t, tt.twice, twice, "twice")
		})
	}
}

// What the kills did is in the ledger, a repeat without an excuse as a second effect; a storm without them is weak.
func TestLedgerUnderKill(t *testing.T) {
	t.Parallel()
	s := perfect()
	s.crew = new(crew)
	l := s.ledger()
	_, weak := judge(l, l)
	assert.Contains(t, weak, "breakwater: no server was killed while requests were under way")

	a := &s.attempts[3]
	s.crew.killed.servers = []time.Time{a.Start.Add(time.Microsecond)}
	assert.Zero(t, s.ledger().ServersCut, "the request was answered")
	a.Status = 0
	s.systems.keyed = map[string][]*keyed{"k": {{done: true}, {done: true}}}
	s.letters = map[string]string{"e": "it crashed its worker 5 times"}
	l = s.ledger()
	assert.Equal(t, 1, l.ServersCut)
	broken, weak := judge(l, l)
	assert.Equal(t, "P2 or P3: 1 effects happened twice", broken)
	assert.NotContains(t, weak, "no server was killed")
	assert.Contains(t, weak, "1 events are dead letters (it crashed its worker 5 times)")
}

// A kill of Redis counts if a request or a job's call was under way; one that is not ours need not be killed.
func TestLedgerUnderKillOfRedis(t *testing.T) {
	t.Parallel()
	const want = "breakwater: Redis was never killed while requests or jobs were under way"
	s := perfect()
	s.crew = new(crew)
	l := s.ledger()
	_, weak := judge(l, l)
	assert.NotContains(t, weak, want)

	s.o.server = new(redisserver.Server)
	l = s.ledger()
	_, weak = judge(l, l)
	assert.Contains(t, weak, want)

	at := func(ms int) time.Time { return s.attempts[0].Start.Add(time.Duration(ms) * time.Millisecond) }
	s.attempts = s.attempts[:1] // from 0 to 1 ms
	s.systems.keyed = map[string][]*keyed{"k": {{came: at(20), ended: at(30)}}, "l": {{came: at(50)}}}
	for ms, cut := range map[int]int{-1: 0, 10: 0, 25: 1, 40: 0, 60: 1} {
		s.crew.killed.redis = []time.Time{at(ms)}
		l = s.ledger()
		assert.Equal(t, 1, l.RedisKills)
		assert.Equal(t, cut, l.RedisCut, "at %d ms", ms)
	}
	s.crew.killed.redis = []time.Time{s.attempts[0].Start.Add(500 * time.Microsecond), at(10)}
	l = s.ledger()
	assert.Equal(t, 1, l.RedisCut)
	_, weak = judge(l, l)
	assert.NotContains(t, weak, want)

	s.attempts[0].Cut = true // Shopify hung up by itself
	s.systems.keyed = nil
	assert.Zero(t, s.ledger().RedisCut)
}

// A system that is asked to do the same thing again answers, and does nothing.
func TestSystemsKeepKeys(t *testing.T) {
	t.Parallel()
	s, err := newSystems(100, nil)
	require.NoError(t, err)
	defer s.stop()
	s.start(time.Now())
	c := newClient(s.url)
	for _, key := range []string{"a", "a", "b", ""} {
		require.NoError(t, c.do(t.Context(), "erp", call{Event: "e"}, key))
	}
	require.NoError(t, c.do(t.Context(), "erp", call{Event: "e"}, ""))
	assert.Len(t, s.done(), 4, "a, b, and each of those without a key")
	_, twice := s.repeats()
	assert.Equal(t, 1, twice)
}

// Events that were offered at the same time may take effect either way.
func TestOverlappingOffersHaveNoOrder(t *testing.T) {
	t.Parallel()
	s := perfect()
	i, j := twoOfOneSubject(t, s)
	e := s.systems.effects
	for k := range s.attempts {
		if s.attempts[k].Event == e[j].Event {
			s.attempts[k].Start = stormDay // sent before the other was answered
		}
	}
	e[i], e[j] = e[j], e[i]
	assert.Zero(t, s.ledger().OutOfOrder)
}

func TestGenerateIsTheSeeds(t *testing.T) {
	t.Parallel()
	o := options{Orders: 300, Shops: 20, Seed: 7, Scale: 1}
	again := generate(o)
	assert.Equal(t, again, generate(o))
	other := o
	other.Seed = 8
	assert.NotEqual(t, generate(o), generate(other))
	topics, shops, noise := map[string]bool{}, map[string]bool{}, 0
	for _, e := range generate(o) {
		topics[e.Topic] = true
		shops[e.Shop] = true
		if e.Shop == noisy {
			noise++
		}
	}
	assert.Len(t, topics, len(steps))
	assert.Len(t, shops, 20)
	assert.Greater(t, noise, 300)
}

// The subjects that the classic side reads off the bodies are the generator's.
func TestBodiesCarryTheirSubject(t *testing.T) {
	t.Parallel()
	for _, e := range generate(options{Orders: 50, Shops: 5, Seed: 1, Scale: 1}) {
		require.Equal(t, e.Subject, subjectOf(e.body), e.Topic)
	}
}
