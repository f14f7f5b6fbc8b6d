package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
)

type check struct {
	name string
	run  func(ctx context.Context, r *rig) error
}

var checks = []check{
	{"TwoConcurrentClaimsExactlyOneRuns", oneWins},
	{"TakeoverIsCompareAndSwapOnTheObservedRecord", oneTakesOver},
	{"ReplayIsByteForByte", replay},
	{"OtherPayloadIsMismatchInProgressAndAfter", mismatch},
	{"ReleasedKeyRunsAgain", released},
	{"CrashBetweenClaimAndEffectFreesTheKeyAfterTheLeaseNotTheRetention", crash},
	{"HolderThatOutlivesItsLeaseCannotCompleteReleaseOrRenew", outlived},
	{"CompletedRecordIsNeverOverwrittenByRecovery", takenOver},
	{"ExtendedLeaseLasts", extended},
	{"ExtendNamesEachLostLease", extendMany},
	{"RetentionIsOverAndTheKeyRunsAgain", retention},
	{"RecordOfACrashIsKeptForItsRetention", crashRetention},
	{"RecordExpiredDuringRequestIsConsistent", expiring},
	{"CallsSentAgainAnswerTheSameAndChangeNothing", sentAgain},
	{"AskFirstDoesNotTakeOver", askFirst},
	{"OlderVersionsNeverRun", older},
	{"EqualVersionsRunOnlyIfTheEarlierFailed", equal},
	{"VersionsAreComparedAsBytes", versionBytes},
	{"NewerVersionWaitsForTheOlderAndFollowsIt", newer},
	{"NamesDoNotCollide", names},
	{"InspectTellsEachState", inspect},
	{"ResolveSettlesWhatItHasSeen", resolve},
	{"PurgeTakesAllOfAScopeAndNothingElse", purge},
	{"CancelledCallsFail", cancelled},
}

func oneWins(ctx context.Context, r *rig) error {
	for i := range 10 {
		states, err := race(ctx, r, fmt.Sprint(i))
		if err != nil {
			return err
		}
		if states[idempotency.Claimed] != 1 || states[idempotency.InProgress] != crowd-1 {
			return failed("%d concurrent claims are answered %v; want 1 claimed and the rest in progress", crowd, states)
		}
	}
	return nil
}

// race claims id by many at once.
func race(ctx context.Context, r *rig, id string) (map[idempotency.State]int, error) {
	var mu sync.Mutex
	states := map[idempotency.State]int{}
	var failures []error
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range crowd {
		wg.Go(func() {
			<-start
			c, err := r.Claim(ctx, r.request(id, long))
			mu.Lock()
			defer mu.Unlock()
			states[c.State]++
			failures = append(failures, err)
			if c.State == idempotency.InProgress && (c.Rest <= 0 || c.Rest > long) {
				failures = append(failures, failed("in progress, with %v left of a lease of %v", c.Rest, long))
			}
		})
	}
	close(start)
	wg.Wait()
	return states, errors.Join(failures...)
}

func oneTakesOver(ctx context.Context, r *rig) error {
	if _, err := r.claimed(ctx, "k", r.short); err != nil {
		return err
	}
	time.Sleep(2 * r.short)
	states, err := race(ctx, r, "k")
	if err == nil && (states[idempotency.Claimed] != 1 || states[idempotency.InProgress] != crowd-1) {
		err = failed("%d concurrent claims of an ended lease are answered %v; want 1 claimed and the rest in progress", crowd, states)
	}
	return err
}

func replay(ctx context.Context, r *rig) error {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for i, result := range [][]byte{nil, {0}, every, []byte("null"), bytes.Repeat(every, 1000)} {
		id := fmt.Sprint(i)
		if err := r.done(ctx, id, result, keep); err != nil {
			return err
		}
		for range 2 {
			c, err := r.claim(ctx, r.request(id, long), idempotency.Done)
			if err != nil {
				return err
			}
			if !bytes.Equal(c.Result, result) {
				return failed("a result of %d bytes comes back as %d, or others", len(result), len(c.Result))
			}
		}
	}
	return nil
}

func mismatch(ctx context.Context, r *rig) error {
	with := func(fingerprint string) idempotency.Request {
		q := r.request("k", long)
		q.Fingerprint = fingerprint
		return q
	}
	a, b := strings.Repeat("a", 32), strings.Repeat("a", 31)+"\x00"
	first := with(a)
	steps := []struct {
		q    idempotency.Request
		want idempotency.State
	}{
		{first, idempotency.Claimed},
		{with(b), idempotency.Mismatch},
		{with(a), idempotency.InProgress},
		{with(""), idempotency.InProgress},
	}
	for _, s := range steps {
		if _, err := r.claim(ctx, s.q, s.want); err != nil {
			return fmt.Errorf("in progress: %w", err)
		}
	}
	if err := r.Complete(ctx, first.Lease, []byte("r"), keep); err != nil {
		return err
	}
	for _, s := range []struct {
		print string
		want  idempotency.State
	}{{b, idempotency.Mismatch}, {a, idempotency.Done}, {"", idempotency.Done}} {
		if _, err := r.claim(ctx, with(s.print), s.want); err != nil {
			return fmt.Errorf("done: %w", err)
		}
	}
	return nil
}

func released(ctx context.Context, r *rig) error {
	l, err := r.claimed(ctx, "k", long)
	if err != nil {
		return err
	}
	if err := r.Release(ctx, l, keep); err != nil {
		return err
	}
	q := r.request("k", long)
	q.Fingerprint = "other" // nothing is known any more
	c, err := r.claim(ctx, q, idempotency.Claimed)
	if err == nil && c.TakenOver {
		err = failed("a key that was given back counts as taken over")
	}
	return err
}

func crash(ctx context.Context, r *rig) error {
	if _, err := r.claimed(ctx, "k", r.short); err != nil {
		return err
	}
	c, err := r.claim(ctx, r.request("k", long), idempotency.InProgress)
	if err != nil {
		return err
	}
	if c.Rest <= 0 || c.Rest > r.short {
		return failed("%v are left of a lease of %v", c.Rest, r.short)
	}
	time.Sleep(c.Rest + r.short)
	c, err = r.claim(ctx, r.request("k", long), idempotency.Claimed)
	if err == nil && !c.TakenOver {
		err = failed("who claims after a lease that ended is not told so")
	}
	return err
}

// powerless checks that a lease that was lost can change nothing.
func (r *rig) powerless(ctx context.Context, l idempotency.Lease) error {
	e, err := r.Extend(ctx, []idempotency.Lease{l}, long)
	if err != nil || !slices.Equal(e.Lost, []idempotency.Lease{l}) {
		return failed("Extend of a lost lease answers %v, %w; want it named", e, orNil(err))
	}
	if err := wants("Complete of a lost lease", r.Complete(ctx, l, []byte("late"), keep), idempotency.ErrLeaseLost); err != nil {
		return err
	}
	if err := r.Release(ctx, l, keep); err != nil {
		return failed("Release of a lost lease: %w", err)
	}
	return nil
}

func outlived(ctx context.Context, r *rig) error {
	l, err := r.claimed(ctx, "k", r.short)
	if err != nil {
		return err
	}
	time.Sleep(2 * r.short) // nobody else asks
	if err := r.powerless(ctx, l); err != nil {
		return err
	}
	q := r.request("k", long)
	for range 2 { // sent again, it is told so again
		c, err := r.claim(ctx, q, idempotency.Claimed)
		if err != nil || !c.TakenOver {
			return failed("a lost lease was released all the same: %+v, %w", c, orNil(err))
		}
	}
	return nil
}

func takenOver(ctx context.Context, r *rig) error {
	l, err := r.claimed(ctx, "k", r.short)
	if err != nil {
		return err
	}
	time.Sleep(2 * r.short)
	second, err := r.claimed(ctx, "k", long)
	if err != nil {
		return err
	}
	if err := r.powerless(ctx, l); err != nil {
		return err
	}
	if _, err := r.claim(ctx, r.request("k", long), idempotency.InProgress); err != nil {
		return err
	}
	if err := r.Complete(ctx, second, []byte("second"), keep); err != nil {
		return err
	}
	if err := r.powerless(ctx, l); err != nil {
		return err
	}
	c, err := r.claim(ctx, r.request("k", long), idempotency.Done)
	if err == nil && string(c.Result) != "second" {
		err = failed("the result is %q; want that of the holder", c.Result)
	}
	return err
}

func extended(ctx context.Context, r *rig) error {
	l, err := r.claimed(ctx, "k", r.short)
	if err != nil {
		return err
	}
	if e, err := r.Extend(ctx, []idempotency.Lease{l}, long); err != nil || len(e.Lost)+len(e.Unknown) != 0 {
		return failed("Extend answers %v, %w", e, orNil(err))
	}
	time.Sleep(2 * r.short)
	if _, err := r.claim(ctx, r.request("k", long), idempotency.InProgress); err != nil {
		return err
	}
	if e, err := r.Extend(ctx, []idempotency.Lease{l}, r.short); err != nil || len(e.Lost)+len(e.Unknown) != 0 {
		return failed("the second Extend answers %v, %w", e, orNil(err))
	}
	time.Sleep(2 * r.short)
	_, err = r.claim(ctx, r.request("k", long), idempotency.Claimed)
	return err
}

func extendMany(ctx context.Context, r *rig) error {
	var leases, want []idempotency.Lease
	for i := range 256 {
		l := r.lease(fmt.Sprint(i)) // never claimed
		if i%3 != 0 {
			var err error
			if l, err = r.claimed(ctx, fmt.Sprint(i), long); err != nil {
				return err
			}
			if i%3 == 1 {
				if err := r.Release(ctx, l, keep); err != nil {
					return err
				}
			}
		}
		if leases = append(leases, l); i%3 != 2 {
			want = append(want, l)
		}
	}
	e, err := r.Extend(ctx, leases, long)
	if err != nil || !slices.Equal(e.Lost, want) {
		return failed("Extend names %d of %d leases as lost, %w; want %d", len(e.Lost), len(leases), orNil(err), len(want))
	}
	return nil
}

func retention(ctx context.Context, r *rig) error {
	if err := r.done(ctx, "k", []byte("r"), 2*r.short); err != nil {
		return err
	}
	if _, err := r.claim(ctx, r.request("k", long), idempotency.Done); err != nil {
		return err
	}
	time.Sleep(4 * r.short)
	c, err := r.claim(ctx, r.request("k", long), idempotency.Claimed)
	if err == nil && c.TakenOver {
		err = failed("what was done long ago counts as taken over")
	}
	return err
}

func crashRetention(ctx context.Context, r *rig) error {
	q := r.request("k", r.short)
	q.Retention = 2 * r.short
	if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
		return err
	}
	time.Sleep(5 * r.short)
	ask := r.request("k", long)
	ask.AskFirst = true
	_, err := r.claim(ctx, ask, idempotency.Claimed)
	return err
}

// expiring has work that takes longer than the lease and the retention that it began with.
func expiring(ctx context.Context, r *rig) error {
	q := r.request("k", r.short)
	q.Retention = r.short
	if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
		return err
	}
	if e, err := r.Extend(ctx, []idempotency.Lease{q.Lease}, long); err != nil || len(e.Lost) != 0 {
		return failed("Extend answers %v, %w", e, orNil(err))
	}
	time.Sleep(4 * r.short)
	if _, err := r.claim(ctx, r.request("k", long), idempotency.InProgress); err != nil {
		return err
	}
	if err := r.Complete(ctx, q.Lease, []byte("r"), keep); err != nil {
		return err
	}
	_, err := r.claim(ctx, r.request("k", long), idempotency.Done)
	return err
}

func sentAgain(ctx context.Context, r *rig) error {
	q := r.request("k", long)
	for range 2 {
		c, err := r.claim(ctx, q, idempotency.Claimed)
		if err != nil || c.TakenOver {
			return failed("a claim sent again: %+v, %w", c, orNil(err))
		}
	}
	for _, result := range []string{"first", "second"} {
		if err := r.Complete(ctx, q.Lease, []byte(result), keep); err != nil {
			return failed("a completion sent again: %w", err)
		}
	}
	for range 2 {
		if err := r.Release(ctx, q.Lease, keep); err != nil {
			return failed("a release of what is done: %w", err)
		}
	}
	c, err := r.claim(ctx, r.request("k", long), idempotency.Done)
	if err != nil || string(c.Result) != "first" {
		return failed("the result is %q, %w; want that of the first completion", c.Result, orNil(err))
	}
	if e, err := r.Extend(ctx, []idempotency.Lease{q.Lease}, long); err != nil || len(e.Lost) != 1 {
		return failed("a lease that has completed is extended: %w", orNil(err))
	}
	l, err := r.claimed(ctx, "other", long)
	if err != nil {
		return err
	}
	for range 2 {
		if err := r.Release(ctx, l, keep); err != nil {
			return failed("a release sent again: %w", err)
		}
	}
	return wants("Complete after Release", r.Complete(ctx, l, nil, keep), idempotency.ErrLeaseLost)
}

func askFirst(ctx context.Context, r *rig) error {
	ask := func() idempotency.Request {
		q := r.request("k", long)
		q.AskFirst = true
		return q
	}
	l, err := r.claimed(ctx, "k", r.short)
	if err != nil {
		return err
	}
	if _, err := r.claim(ctx, ask(), idempotency.InProgress); err != nil {
		return err
	}
	time.Sleep(2 * r.short)
	for range 2 {
		if _, err := r.claim(ctx, ask(), idempotency.Unknown); err != nil {
			return err
		}
	}
	if err := r.powerless(ctx, l); err != nil {
		return err
	}
	_, err = r.claim(ctx, ask(), idempotency.Unknown)
	return err
}

func (r *rig) versioned(id, version string, lease time.Duration) idempotency.Request {
	q := r.request(id, lease)
	q.Version = idempotency.Version(version)
	return q
}

// begun has a record of version 5 in a state.
func (r *rig) begun(ctx context.Context, state string) error {
	q := r.versioned(state, "5", long)
	q.Fingerprint = "first"
	if state == "ended" {
		q.For = r.short
	}
	if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
		return err
	}
	switch state {
	case "done":
		return r.Complete(ctx, q.Lease, nil, keep)
	case "released":
		return r.Release(ctx, q.Lease, keep)
	case "ended":
		time.Sleep(2 * r.short)
	}
	return nil
}

func older(ctx context.Context, r *rig) error {
	for _, state := range []string{"in progress", "done", "released", "ended"} {
		if err := r.begun(ctx, state); err != nil {
			return err
		}
		if _, err := r.claim(ctx, r.versioned(state, "4", long), idempotency.Superseded); err != nil {
			return fmt.Errorf("%s: %w", state, err)
		}
	}
	return nil
}

func equal(ctx context.Context, r *rig) error {
	for state, want := range map[string]idempotency.State{
		"in progress": idempotency.InProgress, "done": idempotency.Done, "released": idempotency.Claimed, "ended": idempotency.Claimed,
	} {
		if err := r.begun(ctx, state); err != nil {
			return err
		}
		q := r.versioned(state, "5", long)
		if state == "released" {
			q.Fingerprint = "other" // nothing was done with the first
		}
		c, err := r.claim(ctx, q, want)
		if err != nil {
			return fmt.Errorf("%s: %w", state, err)
		}
		if c.TakenOver != (state == "ended") {
			return failed("%s: taken over is %v", state, c.TakenOver)
		}
	}
	return nil
}

func versionBytes(ctx context.Context, r *rig) error {
	order := []string{"\x00", "\x00\x00", "\x01", "A", "B", "Z", "a", "a\x00", "a\x00b", "aa", "z", "\x7f", "\x80", "\xc3\xa4", "\xff", "\xff\xff"}
	for i, v := range order {
		q := r.versioned("k", v, long)
		if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
			return fmt.Errorf("%q after %q: %w", v, order[:i], err)
		}
		if err := r.Complete(ctx, q.Lease, nil, keep); err != nil {
			return err
		}
		for _, before := range order[:i] {
			if _, err := r.claim(ctx, r.versioned("k", before, long), idempotency.Superseded); err != nil {
				return fmt.Errorf("%q after %q: %w", before, v, err)
			}
		}
	}
	return nil
}

func newer(ctx context.Context, r *rig) error {
	first := r.versioned("k", "5", long)
	if _, err := r.claim(ctx, first, idempotency.Claimed); err != nil {
		return err
	}
	c, err := r.claim(ctx, r.versioned("k", "6", long), idempotency.InProgress)
	if err != nil || c.Rest <= 0 {
		return failed("a newer version is answered %+v, %w", c, orNil(err))
	}
	if err := r.Complete(ctx, first.Lease, []byte("5"), keep); err != nil {
		return err
	}
	second := r.versioned("k", "6", long)
	if _, err := r.claim(ctx, second, idempotency.Claimed); err != nil {
		return err
	}
	if err := r.powerless(ctx, first.Lease); err != nil {
		return err
	}
	if err := r.Release(ctx, second.Lease, keep); err != nil {
		return err
	}
	if _, err := r.claim(ctx, r.versioned("k", "5", long), idempotency.Superseded); err != nil {
		return err // it would overwrite what the failed one may have begun
	}
	_, err = r.claim(ctx, r.versioned("k", "7", long), idempotency.Claimed)
	return err
}

func names(ctx context.Context, r *rig) error {
	parts := []string{"a", "b", "a:b", "a%3Ab", ":", "a:", ":a", "*", "a*", "ü", "{a}", "a b", "A"}
	for _, op := range parts {
		for _, scope := range parts {
			for _, id := range parts {
				q := r.request(id, long)
				q.Op, q.Scope = op, r.scope+scope
				if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func inspect(ctx context.Context, r *rig) error {
	o := r.operator()
	if _, err := o.Inspect(ctx, r.lease("none").Name); !errors.Is(err, idempotency.ErrNoRecord) {
		return failed("Inspect of nothing: %w; want ErrNoRecord", orNil(err))
	}
	q := r.versioned("k", "v1", r.short)
	q.Fingerprint = "print"
	if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
		return err
	}
	look := func(want idempotency.State) (idempotency.Record, error) {
		rec, err := o.Inspect(ctx, q.Name)
		if err == nil && (rec.State != want || rec.Name != q.Name || rec.Version != "v1" || rec.Fingerprint != "print" || rec.Kept <= 0 || rec.Token != q.Token) {
			err = failed("Inspect shows %+v; want it %v", rec, want)
		}
		return rec, err
	}
	if rec, err := look(idempotency.InProgress); err != nil || rec.Rest <= 0 || rec.Rest > r.short {
		return failed("in progress: %v left, %w", rec.Rest, orNil(err))
	}
	time.Sleep(2 * r.short)
	if rec, err := look(idempotency.Unknown); err != nil || rec.Rest != 0 {
		return failed("ended: %v left, %w", rec.Rest, orNil(err))
	}
	again := q
	again.Token, again.For = r.lease("k").Token, long
	q = again
	if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
		return err
	}
	if err := r.Release(ctx, q.Lease, keep); err != nil {
		return err
	}
	if _, err := look(idempotency.Released); err != nil {
		return err
	}
	q.Token = r.lease("k").Token
	if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
		return err
	}
	if err := r.Complete(ctx, q.Lease, []byte("result"), keep); err != nil {
		return err
	}
	rec, err := look(idempotency.Done)
	if err == nil && (string(rec.Result) != "result" || rec.Kept > keep) {
		err = failed("done: %+v", rec)
	}
	return err
}

func resolve(ctx context.Context, r *rig) error {
	o := r.operator()
	ended := func(id string) (idempotency.Record, error) {
		if _, err := r.claimed(ctx, id, r.short); err != nil {
			return idempotency.Record{}, err
		}
		held, err := o.Inspect(ctx, r.lease(id).Name)
		if err != nil {
			return held, err
		}
		if err := wants("Resolve of what is held", o.Resolve(ctx, held, idempotency.Resolution{Forget: true}), idempotency.ErrInProgress); err != nil {
			return held, err
		}
		time.Sleep(2 * r.short)
		if err := wants("Resolve of what was held when it was seen", o.Resolve(ctx, held, idempotency.Resolution{Forget: true}), idempotency.ErrChanged); err != nil {
			return held, err
		}
		return o.Inspect(ctx, held.Name)
	}
	a, err := ended("a")
	if err != nil {
		return err
	}
	for range 2 { // sent again, it finds it settled
		if err := o.Resolve(ctx, a, idempotency.Resolution{Result: []byte("by hand"), Retention: keep}); err != nil {
			return err
		}
	}
	if err := r.powerless(ctx, idempotency.Lease{Name: a.Name, Token: a.Token}); err != nil {
		return fmt.Errorf("after a Resolve: %w", err)
	}
	if c, err := r.claim(ctx, r.request("a", long), idempotency.Done); err != nil || string(c.Result) != "by hand" {
		return failed("resolved as done: %q, %w", c.Result, orNil(err))
	}
	if err := wants("Resolve of another state", o.Resolve(ctx, a, idempotency.Resolution{Forget: true}), idempotency.ErrChanged); err != nil {
		return err
	}
	if a, err = o.Inspect(ctx, a.Name); err != nil {
		return err
	}
	for range 2 {
		if err := o.Resolve(ctx, a, idempotency.Resolution{Forget: true}); err != nil {
			return failed("what is done can't be forgotten: %w", err)
		}
	}
	if _, err := r.claim(ctx, r.request("a", long), idempotency.Claimed); err != nil {
		return err
	}
	b, err := ended("b")
	if err != nil {
		return err
	}
	if _, err := r.claimed(ctx, "b", long); err != nil {
		return err
	}
	return wants("Resolve after a takeover", o.Resolve(ctx, b, idempotency.Resolution{Forget: true}), idempotency.ErrChanged)
}

func purge(ctx context.Context, r *rig) error {
	o := r.operator()
	in := func(scope, op, id string) idempotency.Request {
		q := r.request(id, long)
		q.Scope, q.Op = scope, op
		return q
	}
	near := []string{r.scope + "2", r.scope + ":op", "x" + r.scope, r.scope[:len(r.scope)-1], r.scope + "*", r.scope + "[a]"}
	for _, scope := range near {
		if _, err := r.claim(ctx, in(scope, "op", "k"), idempotency.Claimed); err != nil {
			return err
		}
	}
	const n = 300
	var held idempotency.Lease
	for i := range n {
		q := in(r.scope, fmt.Sprintf("op%d", i%3), fmt.Sprint(i))
		if _, err := r.claim(ctx, q, idempotency.Claimed); err != nil {
			return err
		}
		if held = q.Lease; i < n-1 {
			if err := r.Complete(ctx, q.Lease, nil, keep); err != nil {
				return err
			}
		}
	}
	if got, err := o.Purge(ctx, r.scope); err != nil || got != n {
		return failed("Purge answers %d, %w; want %d", got, orNil(err), n)
	}
	if err := r.powerless(ctx, held); err != nil {
		return err
	}
	for i := range n {
		if _, err := r.claim(ctx, in(r.scope, fmt.Sprintf("op%d", i%3), fmt.Sprint(i)), idempotency.Claimed); err != nil {
			return err
		}
	}
	for _, scope := range near {
		if _, err := r.claim(ctx, in(scope, "op", "k"), idempotency.InProgress); err != nil {
			return fmt.Errorf("after a purge of %q: %w", r.scope, err)
		}
	}
	for _, scope := range []string{r.scope + "*", r.scope + "[a]"} {
		if got, err := o.Purge(ctx, scope); err != nil || got != 1 {
			return failed("Purge of %q answers %d, %w; want 1", scope, got, orNil(err))
		}
	}
	got, err := o.Purge(ctx, "nobody of "+r.scope)
	if err != nil || got != 0 {
		return failed("Purge of nothing answers %d, %w", got, orNil(err))
	}
	return nil
}

func cancelled(ctx context.Context, r *rig) error {
	l, err := r.claimed(ctx, "k", long)
	if err != nil {
		return err
	}
	gone, cancel := context.WithCancelCause(ctx)
	why := errors.New("gone")
	cancel(why)
	_, extend := r.Extend(gone, []idempotency.Lease{l}, long)
	_, claim := r.Claim(gone, r.request("other", long))
	for what, err := range map[string]error{
		"Claim": claim, "Extend": extend, "Complete": r.Complete(gone, l, nil, keep), "Release": r.Release(gone, l, keep),
	} {
		if !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
			return failed("%s of a caller who has left: %w", what, orNil(err))
		}
	}
	_, err = r.claim(ctx, r.request("k", long), idempotency.InProgress)
	return err
}
