package cachetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

type check struct {
	name  string
	run   func(ctx context.Context, r *rig) error
	alone bool // it may have a tier refuse fills of others
}

var checks = []check{
	{name: "WhatIsFilledIsFoundByAll", run: filled},
	{name: "AnswersStandInTheOrderOfKeys", run: order},
	{name: "EntriesGrowStaleAndEnd", run: ends},
	{name: "FillThatComesLateEndsWhenItWouldHave", run: late},
	{name: "WhatIsInvalidIsNotFound", run: invalid},
	{name: "InvalidationsLeaveOthersAlone", run: others},
	{name: "FillThatBeganBeforeAnInvalidationIsNotKept", run: void},
	{name: "FillThatBeganAfterAnInvalidationIsKept", run: after},
	{name: "FillOfAnotherKeyIsKept", run: unrelated},
	{name: "RefillDoesNotValidateTheOlderFill", run: aba},
	{name: "TagMarkerExpiryNeverResurrects", run: resurrect},
	{name: "OlderVersionsAreNotKept", run: versions},
	{name: "OlderLoadDoesNotReplaceANewerOne", run: newer},
	{name: "OneOfManyClaims", run: oneClaims},
	{name: "ClaimEndsWithItsFill", run: claimFill},
	{name: "ClaimOfAnotherIsLeftAlone", run: claimOther},
	{name: "ClaimOfACrashEndsByItself", run: claimCrash},
	{name: "ClaimIsFreedByAnInvalidation", run: claimFreed},
	{name: "StaleEntryIsClaimed", run: claimStale},
	{name: "InvalidateTellsItsOwnProcessBeforeItReturns", run: tellsOwn},
	{name: "OtherProcessesAreTold", run: tellsOthers},
	{name: "MarksOrderAnswersAndNotices", run: marks},
	{name: "LeasesHold", run: leases},
	{name: "KeyWithAnyBytesAndTwoCachesOnOneRemoteDoNotCollide", run: collide},
	{name: "PurgeTakesAllOfAScopeAndNothingElse", run: purge, alone: true},
	{name: "WatchingANameTwiceIsRefused", run: watchTwice},
	{name: "CancelledCallsFail", run: cancelled},
}

func filled(ctx context.Context, r *rig) error {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for i, value := range [][]byte{{}, {0}, every, bytes.Repeat(every, 1000)} {
		id := fmt.Sprint(i)
		if err := all(r.missing(ctx, r.a, id), r.put(ctx, r.a, id, string(value)), r.found(ctx, r.a, id, string(value)), r.found(ctx, r.b, id, string(value))); err != nil {
			return err
		}
	}
	f, err := r.fill(ctx, r.a, "none", "")
	if err != nil {
		return err
	}
	f.NotFound = true
	if err := r.land(ctx, r.a, f, true); err != nil {
		return err
	}
	a, err := r.ask(ctx, r.b, "none", 0)
	if err == nil && (!a.Found || !a.NotFound) {
		err = failed("what does not exist is answered %+v", a)
	}
	return err
}

func order(ctx context.Context, r *rig) error {
	var keys []cache.Key
	var want []string
	for i := range 300 {
		key := cache.Key{Scope: fmt.Sprint(r.scope, i%7), ID: fmt.Sprint("k", i)}
		keys, want = append(keys, key), append(want, fmt.Sprint("v", i))
	}
	answers, err := r.a.Get(ctx, r.name, keys, 0)
	if err != nil {
		return failed("Get: %w", err)
	}
	var fills []cache.Fill
	for i, a := range answers {
		if i%3 == 0 {
			want[i] = ""
			continue
		}
		fills = append(fills, cache.Fill{Key: keys[i], Mark: a.Mark, Stamp: a.Stamp, Value: []byte(want[i]), Tags: []string{"a", "b"}[:i%3], Fresh: long, Keep: long})
	}
	kept, err := r.a.Fill(ctx, r.name, fills)
	if err != nil || len(kept) != len(fills) || slices.Contains(kept, false) {
		return failed("Fill of %d: %v, %w", len(fills), kept, orNil(err))
	}
	answers, err = r.b.Get(ctx, r.name, keys, 0)
	if err != nil || len(answers) != len(keys) {
		return failed("Get of %d keys gives %d answers, %w", len(keys), len(answers), orNil(err))
	}
	for i, a := range answers {
		if a.Found != (want[i] != "") || string(a.Value) != want[i] {
			return failed("key %d is answered %v, %q; want %q", i, a.Found, a.Value, want[i])
		}
	}
	if answers, err = r.a.Get(ctx, r.name, nil, 0); err != nil || len(answers) != 0 {
		return failed("Get of no keys: %v, %w", answers, orNil(err))
	}
	if kept, err = r.a.Fill(ctx, r.name, nil); err != nil || len(kept) != 0 {
		return failed("Fill of nothing: %v, %w", kept, orNil(err))
	}
	return nil
}

func ends(ctx context.Context, r *rig) error {
	f, err := r.fill(ctx, r.a, "k", "v")
	if err != nil {
		return err
	}
	f.Fresh, f.Keep = r.short, 3*r.short
	if err := r.land(ctx, r.a, f, true); err != nil {
		return err
	}
	a, err := r.ask(ctx, r.b, "k", 0)
	if err != nil || !a.Found || a.Fresh <= 0 || a.Fresh > r.short || a.Rest <= a.Fresh || a.Rest > 3*r.short {
		return failed("fresh for %v and kept for %v: %+v, %w", r.short, 3*r.short, a, orNil(err))
	}
	time.Sleep(r.short + r.short/2)
	a, err = r.ask(ctx, r.b, "k", 0)
	if err != nil || !a.Found || a.Fresh > 0 || a.Rest <= 0 || a.Rest > 2*r.short {
		return failed("stale: %+v, %w", a, orNil(err))
	}
	time.Sleep(2 * r.short)
	return r.missing(ctx, r.b, "k")
}

func late(ctx context.Context, r *rig) error {
	f, err := r.fill(ctx, r.a, "k", "v")
	if err != nil {
		return err
	}
	f.Fresh, f.Keep = 3*r.short, 4*r.short
	tooLate := f
	tooLate.Key = r.key("other")
	time.Sleep(2 * r.short)
	if err := r.land(ctx, r.a, f, true); err != nil {
		return err
	}
	a, err := r.ask(ctx, r.b, "k", 0)
	if err != nil || !a.Found || a.Fresh > r.short || a.Rest > 2*r.short {
		return failed("half of its time after its load began: %+v, %w", a, orNil(err))
	}
	time.Sleep(r.short + r.short/2)
	return all(r.land(ctx, r.a, tooLate, false), r.missing(ctx, r.b, "other"))
}

func invalid(ctx context.Context, r *rig) error {
	for i, inv := range r.kinds() {
		err := all(r.put(ctx, r.a, "k", "v", "other", "tag"), r.found(ctx, r.b, "k", "v"), r.invalidate(ctx, r.b, inv), r.missing(ctx, r.a, "k"), r.missing(ctx, r.b, "k"))
		if err != nil {
			return failed("kind %d: %w", i+1, err)
		}
	}
	return nil
}

func others(ctx context.Context, r *rig) error {
	if err := all(r.put(ctx, r.a, "k", "v", "tag"), r.put(ctx, r.a, "none", "v")); err != nil {
		return err
	}
	for _, inv := range []cache.Invalidation{
		{Kind: cache.OfKey, Scope: r.scope, ID: "tag"},
		{Kind: cache.OfKey, Scope: r.scope + "x", ID: "k"},
		{Kind: cache.OfTag, Scope: r.scope, ID: "k"},
		{Kind: cache.OfTag, Scope: r.scope + "x", ID: "tag"},
		{Kind: cache.OfTag, Scope: r.scope, ID: "ta"},
		{Kind: cache.OfScope, Scope: r.scope + "x"},
		{Kind: cache.OfScope, Scope: ""},
	} {
		if err := all(r.invalidate(ctx, r.a, inv), r.found(ctx, r.a, "k", "v")); err != nil {
			return failed("after %+v: %w", inv, err)
		}
	}
	if err := all(r.a.Invalidate(ctx, r.name+"x", []cache.Invalidation{{Kind: cache.OfAll}}), r.found(ctx, r.a, "k", "v")); err != nil {
		return err
	}
	return all(r.invalidate(ctx, r.a, cache.Invalidation{Kind: cache.OfTag, Scope: r.scope, ID: "tag"}), r.missing(ctx, r.a, "k"), r.found(ctx, r.a, "none", "v"))
}

func void(ctx context.Context, r *rig) error {
	for i, inv := range r.kinds() {
		for _, by := range []*process{r.a, r.b} {
			f, err := r.fill(ctx, r.a, "k", "old", "other", "tag")
			if err != nil {
				return err
			}
			if err := all(r.invalidate(ctx, by, inv), r.land(ctx, r.a, f, false), r.missing(ctx, r.a, "k"), r.missing(ctx, r.b, "k")); err != nil {
				return failed("kind %d: %w", i+1, err)
			}
		}
	}
	return nil
}

func after(ctx context.Context, r *rig) error {
	for i, inv := range r.kinds() {
		if err := all(r.invalidate(ctx, r.b, inv), r.put(ctx, r.a, "k", fmt.Sprint(i), "tag"), r.found(ctx, r.b, "k", fmt.Sprint(i))); err != nil {
			return failed("kind %d: %w", i+1, err)
		}
	}
	return nil
}

func unrelated(ctx context.Context, r *rig) error {
	f, err := r.fill(ctx, r.a, "k", "v", "tag")
	if err != nil {
		return err
	}
	for i := range 50 {
		if err := r.invalidate(ctx, r.b, cache.Invalidation{Kind: cache.OfKey, Scope: r.scope, ID: fmt.Sprint("x", i)}, cache.Invalidation{Kind: cache.OfTag, Scope: r.scope, ID: fmt.Sprint("x", i)}); err != nil {
			return err
		}
	}
	return all(r.land(ctx, r.a, f, true), r.found(ctx, r.b, "k", "v"))
}

func aba(ctx context.Context, r *rig) error {
	for i, inv := range r.kinds() {
		old, err := r.fill(ctx, r.a, "k", "old", "tag")
		if err != nil {
			return err
		}
		err = all(r.invalidate(ctx, r.a, inv), r.put(ctx, r.a, "k", "new", "tag"), r.land(ctx, r.a, old, false), r.found(ctx, r.b, "k", "new"))
		if err != nil {
			return failed("kind %d: %w", i+1, err)
		}
	}
	return nil
}

// resurrect has the tag's other entries end before one that was invalidated by it would.
func resurrect(ctx context.Context, r *rig) error {
	if err := r.put(ctx, r.a, "k", "v", "tag"); err != nil {
		return err
	}
	for range 3 {
		if err := r.invalidate(ctx, r.a, cache.Invalidation{Kind: cache.OfTag, Scope: r.scope, ID: "tag"}); err != nil {
			return err
		}
		f, err := r.fill(ctx, r.a, "brief", "v", "tag")
		if err != nil {
			return err
		}
		f.Fresh, f.Keep = r.short, r.short
		if err := all(r.land(ctx, r.a, f, true), r.missing(ctx, r.a, "k")); err != nil {
			return err
		}
		time.Sleep(2 * r.short)
		if err := all(r.missing(ctx, r.a, "brief"), r.missing(ctx, r.a, "k")); err != nil {
			return err
		}
	}
	return nil
}

func versions(ctx context.Context, r *rig) error {
	fill := func(v cache.Version, notFound, want bool) error {
		f, err := r.fill(ctx, r.a, "k", "v")
		if err != nil {
			return err
		}
		f.Version, f.NotFound = v, notFound
		return r.land(ctx, r.a, f, want)
	}
	at := func(v cache.Version) error {
		return r.invalidate(ctx, r.b, cache.Invalidation{Kind: cache.OfKey, Scope: r.scope, ID: "k", Version: v})
	}
	const big = cache.Version(1) << 63
	err := all(
		at(big+20), fill(big+19, false, false), fill(0, true, false), r.missing(ctx, r.a, "k"), fill(big+20, false, true), r.found(ctx, r.b, "k", "v"),
		at(big+10), fill(big+19, false, false), fill(big+21, false, true),
		at(0), fill(big+19, false, true), fill(0, true, true),
	)
	if err != nil {
		return err
	}
	f, err := r.fill(ctx, r.a, "other", "v")
	return all(err, r.land(ctx, r.a, f, true))
}

func newer(ctx context.Context, r *rig) error {
	fill := func(v cache.Version, value string, notFound, want bool) error {
		f, err := r.fill(ctx, r.a, "k", value)
		if err != nil {
			return err
		}
		f.Version, f.NotFound = v, notFound
		return r.land(ctx, r.a, f, want)
	}
	err := all(
		fill(5, "five", false, true), fill(4, "four", false, false), r.found(ctx, r.b, "k", "five"), fill(5, "same", false, true), r.found(ctx, r.b, "k", "same"),
		fill(0, "", true, true), fill(1, "one", false, true), r.found(ctx, r.b, "k", "one"), fill(6, "six", false, true),
	)
	if err != nil {
		return err
	}
	if err := all(r.invalidate(ctx, r.a, cache.Invalidation{Kind: cache.OfScope, Scope: r.scope}), fill(2, "two", false, true), r.found(ctx, r.b, "k", "two")); err != nil {
		return err
	}
	// Nor is a newer one in its way that is not valid any more.
	f, err := r.fill(ctx, r.a, "tagged", "nine", "tag")
	if err != nil {
		return err
	}
	f.Version = 9
	if err := all(r.land(ctx, r.a, f, true), r.invalidate(ctx, r.a, cache.Invalidation{Kind: cache.OfTag, Scope: r.scope, ID: "tag"})); err != nil {
		return err
	}
	if f, err = r.fill(ctx, r.a, "tagged", "eight", "tag"); err != nil {
		return err
	}
	f.Version = 8
	return all(r.land(ctx, r.a, f, true), r.found(ctx, r.b, "tagged", "eight"))
}

func tellsOwn(ctx context.Context, r *rig) error {
	if err := r.watch(); err != nil {
		return err
	}
	for i, inv := range r.kinds() {
		if err := r.invalidate(ctx, r.a, inv); err != nil {
			return err
		}
		if _, ok := r.a.has(inv); !ok {
			return failed("kind %d: its own process was not told", i+1)
		}
	}
	return nil
}

func tellsOthers(ctx context.Context, r *rig) error {
	if err := r.watch(); err != nil {
		return err
	}
	if _, err := r.ask(ctx, r.b, "k", 0); err != nil { // from now on
		return err
	}
	for i, inv := range r.kinds() {
		if inv.Kind == cache.OfKey {
			inv.Version = 1<<63 + 7
		}
		if err := r.invalidate(ctx, r.a, inv); err != nil {
			return err
		}
		if err := until(fmt.Sprintf("kind %d: the other process is told", i+1), func() bool { _, ok := r.b.has(inv); return ok }); err != nil {
			return err
		}
	}
	if _, ok := r.b.has(cache.Invalidation{Kind: cache.OfKey, Scope: "nobody", ID: "k"}); ok {
		return failed("it is told of what did not happen")
	}
	return nil
}

func marks(ctx context.Context, r *rig) error {
	if err := r.watch(); err != nil {
		return err
	}
	var notices []cache.Notice
	var answers []cache.Answer
	for i := range 4 {
		a, err := r.ask(ctx, r.b, "k", 0)
		if err != nil {
			return err
		}
		inv := cache.Invalidation{Kind: cache.OfKey, Scope: r.scope, ID: fmt.Sprint("k", i)}
		if err := r.invalidate(ctx, r.a, inv); err != nil {
			return err
		}
		n, _ := r.a.has(inv)
		answers, notices = append(answers, a), append(notices, n)
	}
	for i, a := range answers {
		for j, n := range notices {
			if a.Mark.Covers(n.Mark) != (j < i) {
				return failed("answer %d has the mark %v, invalidation %d the mark %v", i, a.Mark, j, n.Mark)
			}
		}
	}
	return nil
}

func leases(ctx context.Context, r *rig) error {
	if err := r.watch(); err != nil {
		return err
	}
	return until("a lease that holds", func() bool {
		a, err := r.ask(ctx, r.a, "k", 0)
		return err == nil && a.Lease != nil && a.Lease.Holds(lag)
	})
}

func collide(ctx context.Context, r *rig) error {
	odd := []string{"", "a", "a:b", "a:", ":a", "%3A", "a%3Ab", "{a}", "}", "é\x00\n", " a", "a ", "*", "?", `\`, strings.Repeat("x", 300)}
	type place struct{ name, scope, id string }
	var places []place
	for i, o := range odd {
		places = append(places, place{r.name, r.scope + "1", o}, place{r.name, r.scope + o, "id"}, place{r.name + o, r.scope, "id"}, place{r.name, r.scope + odd[(i+1)%len(odd)], o + "/"})
	}
	places = append(places, place{r.name, r.scope + ":x", "y"}, place{r.name, r.scope, "x:y"}, place{r.name + ":" + r.scope, "x", "y"}, place{r.name, r.scope + "x", ""}, place{r.name, r.scope, "x"})
	seen := map[place]bool{}
	for i, p := range places {
		if seen[p] {
			continue
		}
		seen[p] = true
		key := []cache.Key{{Scope: p.scope, ID: p.id}}
		answers, err := r.a.Get(ctx, p.name, key, 0)
		if err != nil {
			return err
		}
		if answers[0].Found {
			return failed("%q has the entry of another, %q", p, answers[0].Value)
		}
		if kept, err := r.a.Fill(ctx, p.name, []cache.Fill{{Key: key[0], Mark: answers[0].Mark, Stamp: answers[0].Stamp, Value: []byte(fmt.Sprint(i)), Tags: []string{p.id}, Fresh: long, Keep: long}}); err != nil || !kept[0] {
			return failed("Fill of %q: %w", p, orNil(err))
		}
		if answers, err = r.b.Get(ctx, p.name, key, 0); err != nil || string(answers[0].Value) != fmt.Sprint(i) {
			return failed("%q is answered %q, %w", p, answers[0].Value, orNil(err))
		}
	}
	return nil
}

func purge(ctx context.Context, r *rig) error {
	for i := range 20 {
		if err := r.put(ctx, r.a, fmt.Sprint(i), "v", "tag"); err != nil {
			return err
		}
	}
	other := &rig{a: r.a, b: r.b, short: r.short, name: r.name, scope: r.scope + "x"}
	if err := other.put(ctx, r.a, "k", "v"); err != nil {
		return err
	}
	f, err := r.fill(ctx, r.a, "late", "v")
	if err != nil {
		return err
	}
	if err := r.b.Purge(ctx, r.name, r.scope); err != nil {
		return failed("Purge: %w", err)
	}
	for i := range 20 {
		if err := r.missing(ctx, r.a, fmt.Sprint(i)); err != nil {
			return err
		}
	}
	return all(r.land(ctx, r.a, f, false), other.found(ctx, r.a, "k", "v"), r.put(ctx, r.a, "k", "new"), r.found(ctx, r.b, "k", "new"))
}

func watchTwice(_ context.Context, r *rig) error {
	if err := r.watch(); err != nil {
		return err
	}
	if err := r.a.Watch(r.name, lag, func(cache.Notice) {}); err == nil {
		return failed("two caches of one process may have one name")
	}
	if err := r.a.Watch(r.name+"x", lag, func(cache.Notice) {}); err != nil {
		return failed("Watch of another name: %w", err)
	}
	return nil
}

func cancelled(ctx context.Context, r *rig) error {
	f, err := r.fill(ctx, r.a, "k", "v")
	if err != nil {
		return err
	}
	dead, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.a.Get(dead, r.name, []cache.Key{r.key("k")}, 0); err == nil {
		return failed("Get with a dead context succeeds")
	}
	if _, err := r.a.Fill(dead, r.name, []cache.Fill{f}); err == nil {
		return failed("Fill with a dead context succeeds")
	}
	if err := r.a.Invalidate(dead, r.name, r.kinds()); err == nil {
		return failed("Invalidate with a dead context succeeds")
	}
	if err := r.a.Purge(dead, r.name, r.scope); err == nil {
		return failed("Purge with a dead context succeeds")
	}
	// Those may have been done or not: with another call they are.
	return all(r.invalidate(ctx, r.a, r.kinds()...), r.put(ctx, r.a, "k", "v"), r.found(ctx, r.b, "k", "v"))
}

func orNil(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}
