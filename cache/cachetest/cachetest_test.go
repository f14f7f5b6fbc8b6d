package cachetest_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/cache/cachetest"
)

// broken is a tier with something taken out.
type broken struct {
	*cache.Memory

	shared     *shared
	watch      func(b *broken, name string, lag time.Duration, told func(cache.Notice)) error
	get        func(ctx context.Context, b *broken, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error)
	fill       func(ctx context.Context, b *broken, name string, fills []cache.Fill) ([]bool, error)
	invalidate func(ctx context.Context, b *broken, name string, what []cache.Invalidation) error
	purge      func(ctx context.Context, b *broken, name, scope string) error
}

// shared is what the processes of a broken tier have in common.
type shared struct {
	mu       sync.Mutex
	versions map[string]cache.Version
	old      map[string]cache.Fill
}

func (b *broken) Watch(name string, lag time.Duration, told func(cache.Notice)) error {
	if b.watch != nil {
		return b.watch(b, name, lag, told)
	}
	return b.Memory.Watch(name, lag, told)
}

func (b *broken) Get(ctx context.Context, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	if b.get != nil {
		return b.get(ctx, b, name, keys, claim)
	}
	return b.Memory.Get(ctx, name, keys, claim)
}

func (b *broken) Fill(ctx context.Context, name string, fills []cache.Fill) ([]bool, error) {
	if b.fill != nil {
		return b.fill(ctx, b, name, fills)
	}
	return b.Memory.Fill(ctx, name, fills)
}

func (b *broken) Invalidate(ctx context.Context, name string, what []cache.Invalidation) error {
	if b.invalidate != nil {
		return b.invalidate(ctx, b, name, what)
	}
	return b.Memory.Invalidate(ctx, name, what)
}

func (b *broken) Purge(ctx context.Context, name, scope string) error {
	if b.purge != nil {
		return b.purge(ctx, b, name, scope)
	}
	return b.Memory.Purge(ctx, name, scope)
}

// without changes each fill before it is made.
func without(change func(b *broken, f *cache.Fill)) *broken {
	return &broken{fill: func(ctx context.Context, b *broken, name string, fills []cache.Fill) ([]bool, error) {
		fills = slices.Clone(fills)
		for i := range fills {
			change(b, &fills[i])
		}
		return b.Memory.Fill(ctx, name, fills)
	}}
}

// dropping leaves some invalidations out, and tells of them all the same.
func dropping(is func(inv cache.Invalidation) bool) *broken {
	var tell map[string][]func(cache.Notice)
	return &broken{
		watch: func(b *broken, name string, lag time.Duration, told func(cache.Notice)) error {
			if tell == nil {
				tell = map[string][]func(cache.Notice){}
			}
			tell[name] = append(tell[name], told)
			return b.Memory.Watch(name, lag, told)
		},
		invalidate: func(ctx context.Context, b *broken, name string, what []cache.Invalidation) error {
			for _, told := range tell[name] {
				for _, inv := range what {
					if is(inv) {
						told(cache.Notice{Invalidation: inv})
					}
				}
			}
			return b.Memory.Invalidate(ctx, name, slices.DeleteFunc(slices.Clone(what), is))
		},
	}
}

// changing changes each answer.
func changing(change func(b *broken, key cache.Key, a *cache.Answer)) *broken {
	return &broken{get: func(ctx context.Context, b *broken, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
		answers, err := b.Memory.Get(ctx, name, keys, claim)
		for i := range answers {
			change(b, keys[i], &answers[i])
		}
		return answers, err
	}}
}

func kind(k cache.Kind) func(cache.Invalidation) bool {
	return func(inv cache.Invalidation) bool { return inv.Kind == k }
}

func TestBrokenTiersAreCaught(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tier *broken
		by   string // a check that must catch it
	}{
		"keeps void fills": {without(func(b *broken, f *cache.Fill) {
			if a, err := b.Memory.Get(t.Context(), "x", []cache.Key{f.Key}, 0); err == nil {
				f.Mark = a[0].Mark // as if it had begun now
			}
		}), "FillThatBeganBeforeAnInvalidationIsNotKept"},
		"forgets tags":           {without(func(_ *broken, f *cache.Fill) { f.Tags = nil }), "WhatIsInvalidIsNotFound"},
		"forgets versions":       {without(func(_ *broken, f *cache.Fill) { f.Version = 1<<64 - 1 }), "OlderVersionsAreNotKept"},
		"forgets claims' ends":   {without(func(_ *broken, f *cache.Fill) { f.Claim = 0 }), "ClaimEndsWithItsFill"},
		"keeps for ever":         {without(func(_ *broken, f *cache.Fill) { f.Fresh, f.Keep = 24*time.Hour, 24*time.Hour }), "EntriesGrowStaleAndEnd"},
		"begins when it comes":   {without(func(_ *broken, f *cache.Fill) { f.Stamp = uint64(time.Now().UnixNano()) }), "FillThatComesLateEndsWhenItWouldHave"},
		"keeps nothing stale":    {without(func(_ *broken, f *cache.Fill) { f.Keep = f.Fresh }), "StaleEntryIsClaimed"},
		"forgets what is absent": {without(func(_ *broken, f *cache.Fill) { f.NotFound = false }), "WhatIsFilledIsFoundByAll"},
		"cuts values at a NUL": {without(func(_ *broken, f *cache.Fill) {
			f.Value, _, _ = bytesCut(f.Value)
		}), "WhatIsFilledIsFoundByAll"},
		"ignores keys":               {dropping(kind(cache.OfKey)), "WhatIsInvalidIsNotFound"},
		"ignores tags":               {dropping(kind(cache.OfTag)), "WhatIsInvalidIsNotFound"},
		"ignores scopes":             {dropping(kind(cache.OfScope)), "WhatIsInvalidIsNotFound"},
		"ignores all":                {dropping(kind(cache.OfAll)), "WhatIsInvalidIsNotFound"},
		"purges nothing":             {&broken{purge: func(context.Context, *broken, string, string) error { return nil }}, "PurgeTakesAllOfAScopeAndNothingElse"},
		"purges everything":          {&broken{purge: func(_ context.Context, b *broken, _, _ string) error { b.Flush(); return nil }}, "PurgeTakesAllOfAScopeAndNothingElse"},
		"a tag is a scope":           {&broken{invalidate: widen(cache.OfTag, cache.OfScope)}, "InvalidationsLeaveOthersAlone"},
		"a key is everything":        {&broken{invalidate: widen(cache.OfKey, cache.OfAll)}, "FillOfAnotherKeyIsKept"},
		"tells nobody":               {&broken{watch: func(*broken, string, time.Duration, func(cache.Notice)) error { return nil }}, "OtherProcessesAreTold"},
		"lets two caches be one":     {&broken{watch: func(*broken, string, time.Duration, func(cache.Notice)) error { return nil }}, "WatchingANameTwiceIsRefused"},
		"gives everybody the claim":  {changing(func(_ *broken, _ cache.Key, a *cache.Answer) { a.Claim, a.Busy = 1, 0 }), "OneOfManyClaims"},
		"gives nobody the claim":     {changing(func(_ *broken, _ cache.Key, a *cache.Answer) { a.Claim, a.Busy = 0, time.Minute }), "ClaimOfACrashEndsByItself"},
		"has no leases":              {changing(func(_ *broken, _ cache.Key, a *cache.Answer) { a.Lease = nil }), "LeasesHold"},
		"has leases that never hold": {changing(func(_ *broken, _ cache.Key, a *cache.Answer) { a.Lease = &cache.Lease{} }), "LeasesHold"},
		"has one mark for all":       {changing(func(_ *broken, _ cache.Key, a *cache.Answer) { a.Mark.Seq = 1 << 60 }), "MarksOrderAnswersAndNotices"},
		"has marks that go back":     {changing(func(_ *broken, _ cache.Key, a *cache.Answer) { a.Mark.Seq = 0 }), "MarksOrderAnswersAndNotices"},
		"is fresh for ever":          {changing(func(_ *broken, _ cache.Key, a *cache.Answer) { a.Fresh = max(a.Fresh, time.Nanosecond) }), "EntriesGrowStaleAndEnd"},
		"answers in another order":   {&broken{get: reversed}, "AnswersStandInTheOrderOfKeys"},
		"forgets what it is sent": {&broken{fill: func(_ context.Context, _ *broken, _ string, fills []cache.Fill) ([]bool, error) {
			return kept(fills), nil
		}}, "WhatIsFilledIsFoundByAll"},
		"does not look at contexts": {&broken{invalidate: func(ctx context.Context, b *broken, name string, what []cache.Invalidation) error {
			return b.Memory.Invalidate(context.WithoutCancel(ctx), name, what)
		}}, "CancelledCallsFail"},
		"collides":                    {&broken{get: colliding, fill: collidingFill}, "KeyWithAnyBytesAndTwoCachesOnOneRemoteDoNotCollide"},
		"brings back forgotten tags":  {forgetfulTags(), "TagMarkerExpiryNeverResurrects"},
		"replaces newer by older":     {overwriting(), "OlderLoadDoesNotReplaceANewerOne"},
		"refills validate the old":    {perKeyToken(), "RefillDoesNotValidateTheOlderFill"},
		"a claim outlives its key":    {&broken{invalidate: keepClaims}, "ClaimIsFreedByAnInvalidation"},
		"takes the claim of another":  {&broken{fill: anyClaim}, "ClaimOfAnotherIsLeftAlone"},
		"refuses what began after":    {without(func(_ *broken, f *cache.Fill) { f.Mark.Seq = 1 }), "FillThatBeganAfterAnInvalidationIsKept"},
		"tells its own process late":  {&broken{watch: lateWatch}, "InvalidateTellsItsOwnProcessBeforeItReturns"},
		"tells of the wrong versions": {&broken{watch: versionless}, "OtherProcessesAreTold"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				failed := cachetest.Failures(t.Context(), func() func() cache.Remote {
					store, common := new(cache.Memory), &shared{versions: map[string]cache.Version{}, old: map[string]cache.Fill{}}
					return func() cache.Remote {
						b := *c.tier
						b.Memory, b.shared = store.Peer(), common
						return &b
					}
				}, 300*time.Millisecond)
				time.Sleep(time.Minute) // what comes late has come
				require.True(t, slices.ContainsFunc(failed, func(f string) bool { return strings.HasPrefix(f, c.by+":") }), "%s has to catch it: %v", c.by, failed)
			})
		})
	}
}

func TestMemoryPassesBesides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		require.Empty(t, cachetest.Failures(t.Context(), func() func() cache.Remote {
			store := new(cache.Memory)
			return func() cache.Remote { return &broken{Memory: store.Peer()} }
		}, 300*time.Millisecond))
	})
}

func bytesCut(b []byte) (before []byte, after []byte, found bool) {
	i := slices.Index(b, 0)
	if i < 0 {
		return b, nil, false
	}
	return b[:i], b[i+1:], true
}

func kept(fills []cache.Fill) []bool {
	out := make([]bool, len(fills))
	for i := range out {
		out[i] = !fills[i].Drop
	}
	return out
}

func widen(from, to cache.Kind) func(ctx context.Context, b *broken, name string, what []cache.Invalidation) error {
	return func(ctx context.Context, b *broken, name string, what []cache.Invalidation) error {
		wide := slices.Clone(what)
		for _, inv := range what {
			if inv.Kind == from {
				wide = append(wide, cache.Invalidation{Kind: to, Scope: inv.Scope})
			}
		}
		return b.Memory.Invalidate(ctx, name, wide)
	}
}

func reversed(ctx context.Context, b *broken, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	answers, err := b.Memory.Get(ctx, name, keys, claim)
	slices.Reverse(answers)
	return answers, err
}

// joined is a key as one who joins names with colons has it.
func joined(name string, keys []cache.Key) []cache.Key {
	out := make([]cache.Key, len(keys))
	for i, k := range keys {
		out[i] = cache.Key{ID: name + ":" + k.Scope + ":" + k.ID}
	}
	return out
}

func colliding(ctx context.Context, b *broken, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	return b.Memory.Get(ctx, "", joined(name, keys), claim)
}

func collidingFill(ctx context.Context, b *broken, name string, fills []cache.Fill) ([]bool, error) {
	fills = slices.Clone(fills)
	for i, f := range fills {
		fills[i].Key = joined(name, []cache.Key{f.Key})[0]
	}
	return b.Memory.Fill(ctx, "", fills)
}

// forgetfulTags forgets that a tag was invalidated when something new is filled under it: its marker has ended.
func forgetfulTags() *broken {
	return &broken{fill: func(ctx context.Context, b *broken, name string, fills []cache.Fill) ([]bool, error) {
		b.shared.mu.Lock()
		defer b.shared.mu.Unlock()
		for _, f := range fills {
			if old, ok := b.shared.old["k"]; ok && f.Key.ID == "brief" {
				if a, err := b.Memory.Get(ctx, name, []cache.Key{old.Key}, 0); err == nil {
					old.Mark = a[0].Mark
					_, _ = b.Memory.Fill(ctx, name, []cache.Fill{old})
				}
			}
			b.shared.old[f.Key.ID] = f
		}
		return b.Memory.Fill(ctx, name, fills)
	}}
}

// overwriting invalidates a key before it fills it, so that nothing newer is there.
func overwriting() *broken {
	return &broken{fill: func(ctx context.Context, b *broken, name string, fills []cache.Fill) ([]bool, error) {
		fills = slices.Clone(fills)
		for i, f := range fills {
			if f.Drop || f.Version == 0 {
				continue
			}
			before, _ := b.Memory.Get(ctx, name, []cache.Key{f.Key}, 0)
			if before[0].Mark != f.Mark {
				continue
			}
			_ = b.Memory.Invalidate(ctx, name, []cache.Invalidation{{Kind: cache.OfKey, Scope: f.Key.Scope, ID: f.Key.ID}})
			after, _ := b.Memory.Get(ctx, name, []cache.Key{f.Key}, 0)
			fills[i].Mark = after[0].Mark
		}
		return b.Memory.Fill(ctx, name, fills)
	}}
}

// perKeyToken has one token for each key, that the last answer has set.
func perKeyToken() *broken {
	return without(func(b *broken, f *cache.Fill) {
		a, err := b.Memory.Get(context.Background(), "x", []cache.Key{f.Key}, 0)
		if err != nil {
			return
		}
		b.shared.mu.Lock()
		defer b.shared.mu.Unlock()
		if b.shared.versions[f.Key.ID] == 1 { // it has been filled since
			f.Mark = a[0].Mark
		}
		b.shared.versions[f.Key.ID] = 1
	})
}

func keepClaims(ctx context.Context, b *broken, name string, what []cache.Invalidation) error {
	for i, inv := range what {
		if inv.Kind == cache.OfKey {
			what = slices.Clone(what)
			what[i] = cache.Invalidation{Kind: cache.OfScope, Scope: inv.Scope}
		}
	}
	return b.Memory.Invalidate(ctx, name, what)
}

func anyClaim(ctx context.Context, b *broken, name string, fills []cache.Fill) ([]bool, error) {
	for _, f := range fills {
		if f.Drop {
			_ = b.Memory.Invalidate(ctx, name, []cache.Invalidation{{Kind: cache.OfKey, Scope: f.Key.Scope, ID: f.Key.ID}})
		}
	}
	return b.Memory.Fill(ctx, name, fills)
}

func lateWatch(b *broken, name string, lag time.Duration, told func(cache.Notice)) error {
	return b.Memory.Watch(name, lag, func(n cache.Notice) {
		go func() { // ends in a second
			time.Sleep(time.Second)
			told(n)
		}()
	})
}

func versionless(b *broken, name string, lag time.Duration, told func(cache.Notice)) error {
	return b.Memory.Watch(name, lag, func(n cache.Notice) {
		n.Version = 0
		told(n)
	})
}
