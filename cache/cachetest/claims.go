package cachetest

// The checks of claims: of many processes that lack a key, one loads it.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

func oneClaims(ctx context.Context, r *rig) error {
	for i := range 5 {
		var mu sync.Mutex
		var wg sync.WaitGroup
		var errs []error
		claims := 0
		for n := range crowd {
			wg.Go(func() {
				a, err := r.ask(ctx, []*process{r.a, r.b}[n%2], fmt.Sprint(i), long)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
				case a.Claim != 0 && a.Busy == 0:
					claims++
				case a.Claim != 0 || a.Busy <= 0 || a.Busy > long:
					err = failed("neither claimed nor busy: %+v", a)
				}
				errs = append(errs, err)
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if claims != 1 {
			return failed("of %d who claim a key at once %d have it", crowd, claims)
		}
	}
	a, err := r.ask(ctx, r.a, "0", 0)
	if err == nil && (a.Claim != 0 || a.Busy != 0) {
		err = failed("who does not claim is answered %+v", a)
	}
	return err
}

// claim claims a key.
func (r *rig) claim(ctx context.Context, p *process, id string, d time.Duration) (cache.Answer, error) {
	a, err := r.ask(ctx, p, id, d)
	if err == nil && a.Claim == 0 {
		err = failed("%q is not claimed: %+v", id, a)
	}
	return a, err
}

func (r *rig) busy(ctx context.Context, p *process, id string) error {
	a, err := r.ask(ctx, p, id, long)
	if err == nil && (a.Busy <= 0 || a.Claim != 0) {
		err = failed("%q is not busy: %+v", id, a)
	}
	return err
}

func claimFill(ctx context.Context, r *rig) error {
	a, err := r.claim(ctx, r.a, "k", long)
	if err != nil {
		return err
	}
	if err := r.busy(ctx, r.b, "k"); err != nil {
		return err
	}
	if err := r.land(ctx, r.a, cache.Fill{Key: r.key("k"), Mark: a.Mark, Stamp: a.Stamp, Claim: a.Claim, Value: []byte("v"), Fresh: long, Keep: long}, true); err != nil {
		return err
	}
	if got, err := r.ask(ctx, r.b, "k", long); err != nil || !got.Found || got.Claim != 0 || got.Busy != 0 {
		return failed("after the fill: %+v, %w", got, orNil(err))
	}
	// One that is not kept, and one that has nothing to keep, end it too.
	if a, err = r.claim(ctx, r.a, "void", long); err != nil {
		return err
	}
	err = all(r.invalidate(ctx, r.b, cache.Invalidation{Kind: cache.OfScope, Scope: r.scope}), r.busy(ctx, r.b, "void"),
		r.land(ctx, r.a, cache.Fill{Key: r.key("void"), Mark: a.Mark, Stamp: a.Stamp, Claim: a.Claim, Value: []byte("v"), Fresh: long, Keep: long}, false))
	if err != nil {
		return err
	}
	if a, err = r.claim(ctx, r.b, "void", long); err != nil {
		return err
	}
	if err := r.land(ctx, r.b, cache.Fill{Key: r.key("void"), Mark: a.Mark, Claim: a.Claim, Drop: true}, false); err != nil {
		return err
	}
	_, err = r.claim(ctx, r.a, "void", long)
	return all(err, r.missing(ctx, r.a, "void"))
}

func claimOther(ctx context.Context, r *rig) error {
	if _, err := r.claim(ctx, r.a, "k", long); err != nil {
		return err
	}
	return all(
		r.land(ctx, r.b, cache.Fill{Key: r.key("k"), Drop: true}, false), r.busy(ctx, r.b, "k"),
		r.land(ctx, r.b, cache.Fill{Key: r.key("k"), Claim: 1, Drop: true}, false), r.busy(ctx, r.b, "k"),
	)
}

func claimCrash(ctx context.Context, r *rig) error {
	if _, err := r.claim(ctx, r.a, "k", r.short); err != nil {
		return err
	}
	if err := r.busy(ctx, r.b, "k"); err != nil {
		return err
	}
	time.Sleep(2 * r.short)
	_, err := r.claim(ctx, r.b, "k", long)
	return err
}

func claimFreed(ctx context.Context, r *rig) error {
	a, err := r.claim(ctx, r.a, "k", long)
	if err != nil {
		return err
	}
	if err := r.invalidate(ctx, r.b, cache.Invalidation{Kind: cache.OfKey, Scope: r.scope, ID: "k"}); err != nil {
		return err
	}
	if _, err := r.claim(ctx, r.b, "k", long); err != nil {
		return err
	}
	// The first one's end is not the second one's.
	return all(r.land(ctx, r.a, cache.Fill{Key: r.key("k"), Mark: a.Mark, Stamp: a.Stamp, Claim: a.Claim, Value: []byte("v"), Fresh: long, Keep: long}, false), r.busy(ctx, r.a, "k"))
}

func claimStale(ctx context.Context, r *rig) error {
	f, err := r.fill(ctx, r.a, "k", "v")
	if err != nil {
		return err
	}
	f.Fresh, f.Keep = r.short, long
	if err := r.land(ctx, r.a, f, true); err != nil {
		return err
	}
	time.Sleep(2 * r.short)
	a, err := r.claim(ctx, r.a, "k", long)
	if err != nil || !a.Found || string(a.Value) != "v" {
		return failed("who claims what is stale gets %+v, %w", a, orNil(err))
	}
	b, err := r.ask(ctx, r.b, "k", long)
	if err != nil || !b.Found || b.Busy <= 0 || b.Claim != 0 {
		return failed("others get %+v, %w", b, orNil(err))
	}
	return nil
}
