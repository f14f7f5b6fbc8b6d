package integration_test

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
)

// What one record may do, for histories of calls by many to be held against. When a lease ends is known as far as it can be: no sooner than its span after the claim
// was called, no later than its span after the answer. What is answered later narrows it: who still holds it proves that it had not ended, who takes it over that it had. So a claim is
// legal only if the lease could have ended, and a completion only if it may not have.

// clockSlack is by how much a store's clock may round a lease's end down: Redis counts milliseconds.
const clockSlack = 2 * time.Millisecond

// never is when a call returns whose answer is not known: it may have happened, or happen yet.
const never = math.MaxInt64

type verb string

const (
	doClaim    verb = "claim"
	doExtend   verb = "extend"
	doComplete verb = "complete"
	doRelease  verb = "release"
	doInspect  verb = "inspect"
	doForget   verb = "forget"
)

// question is a call, and when it was made. Times are ns since the history began.
type question struct {
	verb      verb
	key       string
	token     idempotency.Token // of the claim; forget: that was seen
	lease     time.Duration     // claim, extend
	askFirst  bool
	seen      idempotency.State // forget
	call, ret int64
	again     bool // calls may be sent more than once: then a claim does not know whether it took over, nor others when its lease began last
}

// reply is what a call was answered.
type reply struct {
	unknown   bool              // no answer came
	ok        bool              // extend, complete, forget
	state     idempotency.State // claim, inspect; 0: no record
	takenOver bool
	rest      time.Duration
	token     idempotency.Token // inspect
	result    string
}

func (q question) String() string { return fmt.Sprintf("%s %x", q.verb, q.token[:3]) }

func (r reply) String() string {
	switch {
	case r.unknown:
		return "?"
	case r.state != 0 && r.takenOver:
		return "taken over"
	case r.state == idempotency.InProgress:
		return fmt.Sprintf("in progress for %v", r.rest)
	case r.state != 0:
		return r.state.String() + " " + r.result
	default:
		return fmt.Sprint(r.ok)
	}
}

// recordState is one record, at a time.
type recordState struct {
	state  idempotency.State // 0, InProgress or Done
	token  idempotency.Token
	result string
	lease  int64
	lo, hi int64 // within which the lease ends
	ended  bool  // somebody has seen that it had
	at     int64 // it is this late at least
}

// alive is the state if its lease has not ended.
func (s recordState) alive() (recordState, bool) {
	s.lo = max(s.lo, s.at)
	return s, s.state == idempotency.InProgress && !s.ended && s.at <= s.hi
}

// over is the state if its lease has ended.
func (s recordState) over(ret int64) (recordState, bool) {
	s.hi, s.at, s.ended = min(s.hi, ret), max(s.at, s.lo), true
	return s, s.state == idempotency.InProgress && s.lo <= s.hi
}

// holding is the state after q got a lease, or got it again.
func (s recordState) holding(q question) recordState {
	s.state, s.token, s.result, s.lease, s.ended = idempotency.InProgress, q.token, "", int64(q.lease), false
	s.lo, s.hi = q.call+s.lease-int64(clockSlack), after(q.ret, s.lease)
	return s
}

func (s recordState) free() recordState { return recordState{at: s.at} }

func after(at, span int64) int64 {
	if at > never-span {
		return never
	}
	return at + span
}

// steps are the states in which q may have left s and been answered a; none if it can't.
func (s recordState) steps(q question, a reply) (next []recordState) {
	s.at = max(s.at, q.call)
	if s.state == idempotency.InProgress && !q.again { // it was claimed by now
		s.hi = min(s.hi, after(q.ret, s.lease))
		if s.lo > s.hi {
			return nil
		}
	}
	if s.at > q.ret {
		return nil
	}
	if a.unknown {
		return append(s.effects(q), s)
	}
	own := s.token == q.token
	alive, isAlive := s.alive()
	over, isOver := s.over(q.ret)
	may := func(can bool, to recordState) {
		if can {
			next = append(next, to)
		}
	}
	switch q.verb {
	case doClaim:
		switch a.state { //nolint:exhaustive // the others can't be
		case idempotency.Claimed:
			may(s.state == 0 && (!a.takenOver || q.again), s.holding(q))
			may(isAlive && own && !a.takenOver, s.holding(q))
			may(isOver && !q.askFirst && (a.takenOver || q.again), over.holding(q))
		case idempotency.InProgress:
			may(isAlive && !own && alive.rests(q, a), alive.resting(q, a))
		case idempotency.Unknown:
			may(isOver && q.askFirst, over)
		case idempotency.Done:
			may(s.state == idempotency.Done && s.result == a.result, s)
		}
	case doExtend:
		may(a.ok && isAlive && own, alive.holding(q))
		may(!a.ok && (s.state != idempotency.InProgress || !own), s)
		may(!a.ok && isOver && own, over)
	case doComplete:
		may(a.ok && isAlive && own, alive.done(a.result))
		may(own && s.state == idempotency.Done && a.ok, s)
		may(!own && !a.ok || s.state == 0 && !a.ok, s)
		may(!a.ok && isOver && own, over)
	case doRelease:
		may(isAlive && own, alive.free())
		may(isOver && own, over)
		may(s.state != idempotency.InProgress || !own, s)
	case doInspect:
		switch a.state { //nolint:exhaustive // the others can't be
		case 0:
			may(s.state == 0, s)
		case idempotency.Done:
			may(s.state == idempotency.Done && s.token == a.token && s.result == a.result, s)
		case idempotency.InProgress:
			may(isAlive && s.token == a.token && alive.rests(q, a), alive.resting(q, a))
		case idempotency.Unknown:
			may(isOver && s.token == a.token, over)
		}
	case doForget:
		isDone := q.seen == idempotency.Done && s.state == idempotency.Done && own
		wasEnded := q.seen == idempotency.Unknown && isOver && own
		may(a.ok && isDone, s.free())
		may(a.ok && wasEnded, over.free())
		still := isDone || q.seen == idempotency.Unknown && own && s.state == idempotency.InProgress
		may(!a.ok && !still && s.state != 0, s)
		may(a.ok && s.state == 0, s) // it is as asked
	}
	return next
}

// effects are what a call may have done whose answer is not known.
func (s recordState) effects(q question) (next []recordState) {
	own := s.token == q.token
	alive, isAlive := s.alive()
	over, isOver := s.over(q.ret)
	switch q.verb {
	case doClaim:
		if s.state == 0 || isAlive && own {
			next = append(next, s.holding(q))
		}
		if isOver && !q.askFirst {
			next = append(next, over.holding(q))
		}
	case doExtend:
		if isAlive && own {
			next = append(next, alive.holding(q))
		}
	case doComplete:
		if isAlive && own {
			next = append(next, alive.done(hex.EncodeToString(q.token[:])))
		}
	case doRelease:
		if isAlive && own {
			next = append(next, alive.free())
		}
	case doInspect, doForget:
	}
	return next
}

func (s recordState) done(result string) recordState {
	return recordState{state: idempotency.Done, token: s.token, result: result, at: s.at}
}

// resting is the state after an answer of how long the lease lasts yet, which rests says can be.
func (s recordState) resting(q question, a reply) recordState {
	if q.again { // the claim may be sent again and begin its lease anew
		return s
	}
	s.lo = max(s.lo, q.call+int64(a.rest-clockSlack))
	s.hi = min(s.hi, after(q.ret, int64(a.rest+clockSlack)))
	return s
}

func (s recordState) rests(q question, a reply) bool {
	s = s.resting(q, a)
	return s.lo <= s.hi
}

func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{recordState{}} },
		Step: func(s, in, out any) (next []any) {
			for _, n := range s.(recordState).steps(in.(question), out.(reply)) { //nolint:forcetypeassert // ours
				next = append(next, n)
			}
			return next
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%v: %v", in, out) },
		DescribeState: func(s any) string {
			r := s.(recordState) //nolint:forcetypeassert // ours
			return fmt.Sprintf("%v %x, ends %v to %v", r.state, r.token[:3], time.Duration(r.lo), time.Duration(r.hi))
		},
	}
	return m.ToModel()
}

// refuted is a key whose history no record can have.
type refuted struct {
	key     string
	history []porcupine.Operation
}

// byKey splits a history.
func byKey(history []porcupine.Operation) map[string][]porcupine.Operation {
	keys := map[string][]porcupine.Operation{}
	for _, o := range history {
		key := o.Input.(question).key //nolint:forcetypeassert // ours
		keys[key] = append(keys[key], o)
	}
	return keys
}

// check looks for a key whose history is not that of a record, for so long each. It answers how many there are of which it could not be told in time.
func check(history []porcupine.Operation, each time.Duration) (r refuted, wrong bool, open int) {
	m := model()
	for key, ops := range byKey(history) {
		switch porcupine.CheckOperationsTimeout(m, ops, each) {
		case porcupine.Illegal:
			return refuted{key, ops}, true, open
		case porcupine.Unknown:
			open++
		case porcupine.Ok:
		}
	}
	return refuted{}, false, open
}

// until is a history as it was known at a time: what had not returned may or may not have happened.
func until(history []porcupine.Operation, at int64) (known []porcupine.Operation) {
	for _, o := range history {
		q := o.Input.(question) //nolint:forcetypeassert // ours
		switch {
		case o.Call > at:
			continue
		case o.Return > at:
			q.ret = never
			o.Input, o.Output, o.Return = q, reply{unknown: true}, never
		}
		known = append(known, o)
	}
	return known
}

// shortest is the history until the first answer that can't be.
func (r refuted) shortest() []porcupine.Operation {
	m := model()
	slices.SortFunc(r.history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	n := sort.Search(len(r.history)-1, func(i int) bool {
		return porcupine.CheckOperationsTimeout(m, until(r.history, r.history[i].Return), 2*time.Second) == porcupine.Illegal
	})
	return until(r.history, r.history[n].Return)
}

// report says what is wrong, in as few calls as show it, and draws it.
func (r refuted) report(t testing.TB) string {
	t.Helper()
	m := model()
	r.history = r.shortest()
	_, info := porcupine.CheckOperationsVerbose(m, r.history, 10*time.Second)
	file, err := os.CreateTemp("", "history-*.html") //nolint:usetesting // who reads it comes after the test
	require.NoError(t, err)
	require.NoError(t, porcupine.Visualize(m, info, file))
	require.NoError(t, file.Close())
	var b strings.Builder
	fmt.Fprintf(&b, "%s: not what a record does, after %d calls (drawn in %s); the last of them:\n", r.key, len(r.history), file.Name())
	for _, o := range r.history[max(0, len(r.history)-20):] {
		ret := "…"
		if o.Return != never {
			ret = time.Duration(o.Return).String()
		}
		fmt.Fprintf(&b, "%14v to %14s  client %2d  %v: %v\n", time.Duration(o.Call), ret, o.ClientId, o.Input, o.Output)
	}
	return b.String()
}
