package storetest_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/storetest"
)

// broken is a store with something taken out.
type broken struct {
	*idempotency.Memory

	claim    func(context.Context, idempotency.Request) (idempotency.Claim, error)
	extend   func(context.Context, []idempotency.Lease, time.Duration) (idempotency.Extended, error)
	complete func(context.Context, idempotency.Lease, []byte, time.Duration) error
	release  func(context.Context, idempotency.Lease, time.Duration) error
	purge    func(context.Context, string) (int, error)
	resolve  func(context.Context, idempotency.Record, idempotency.Resolution) error
	inspect  func(context.Context, idempotency.Name) (idempotency.Record, error)
}

func (b *broken) Claim(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
	if b.claim != nil {
		return b.claim(ctx, r)
	}
	return b.Memory.Claim(ctx, r)
}

func (b *broken) Extend(ctx context.Context, l []idempotency.Lease, d time.Duration) (idempotency.Extended, error) {
	if b.extend != nil {
		return b.extend(ctx, l, d)
	}
	return b.Memory.Extend(ctx, l, d)
}

func (b *broken) Complete(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
	if b.complete != nil {
		return b.complete(ctx, l, result, d)
	}
	return b.Memory.Complete(ctx, l, result, d)
}

func (b *broken) Release(ctx context.Context, l idempotency.Lease, d time.Duration) error {
	if b.release != nil {
		return b.release(ctx, l, d)
	}
	return b.Memory.Release(ctx, l, d)
}

func (b *broken) Purge(ctx context.Context, scope string) (int, error) {
	if b.purge != nil {
		return b.purge(ctx, scope)
	}
	return b.Memory.Purge(ctx, scope)
}

func (b *broken) Resolve(ctx context.Context, seen idempotency.Record, as idempotency.Resolution) error {
	if b.resolve != nil {
		return b.resolve(ctx, seen, as)
	}
	return b.Memory.Resolve(ctx, seen, as)
}

func (b *broken) Inspect(ctx context.Context, name idempotency.Name) (idempotency.Record, error) {
	if b.inspect != nil {
		return b.inspect(ctx, name)
	}
	return b.Memory.Inspect(ctx, name)
}

// unfenced gives every lease of a name the token of the first, so that nobody can tell them apart.
func unfenced(l idempotency.Lease) idempotency.Lease {
	l.Token = idempotency.Token{}
	return l
}

// stores are broken stores, by what is wrong with them.
var stores = map[string]func() *broken{
	"get, work, set: two see nothing": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			if _, err := b.Memory.Inspect(ctx, r.Name); errors.Is(err, idempotency.ErrNoRecord) {
				time.Sleep(time.Millisecond)
				_, _ = b.Memory.Claim(ctx, r)
				return idempotency.Claim{State: idempotency.Claimed}, nil
			}
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"no fence": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.complete = func(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
			rec, err := b.Memory.Inspect(ctx, l.Name)
			if err != nil {
				return idempotency.ErrLeaseLost
			}
			l.Token = rec.Token
			return b.Memory.Complete(ctx, l, result, d)
		}
		return b
	},
	"a late holder completes": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.complete = func(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
			if rec, err := b.Memory.Inspect(ctx, l.Name); err == nil && rec.State == idempotency.Unknown && rec.Token == l.Token {
				return b.Memory.Resolve(ctx, rec, idempotency.Resolution{Result: result, Retention: d})
			}
			return b.Memory.Complete(ctx, l, result, d)
		}
		return b
	},
	"anybody may release": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.release = func(ctx context.Context, l idempotency.Lease, d time.Duration) error {
			if ctx.Err() == nil {
				if rec, err := b.Memory.Inspect(ctx, l.Name); err == nil {
					l.Token = rec.Token
				}
			}
			return b.Memory.Release(ctx, l, d)
		}
		return b
	},
	"a late release frees the key": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.release = func(ctx context.Context, l idempotency.Lease, d time.Duration) error {
			if rec, err := b.Memory.Inspect(ctx, l.Name); err == nil && rec.State == idempotency.Unknown {
				return b.Memory.Resolve(ctx, rec, idempotency.Resolution{Forget: true})
			}
			return b.Memory.Release(ctx, l, d)
		}
		return b
	},
	"a lost lease is revived": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.extend = func(ctx context.Context, l []idempotency.Lease, d time.Duration) (idempotency.Extended, error) {
			_, err := b.Memory.Extend(ctx, l, d)
			return idempotency.Extended{}, err
		}
		return b
	},
	"extend names one lost lease only": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.extend = func(ctx context.Context, l []idempotency.Lease, d time.Duration) (idempotency.Extended, error) {
			e, err := b.Memory.Extend(ctx, l, d)
			e.Lost = e.Lost[:min(1, len(e.Lost))]
			return e, err
		}
		return b
	},
	"extend extends nothing": func() *broken {
		return &broken{Memory: new(idempotency.Memory), extend: func(ctx context.Context, _ []idempotency.Lease, _ time.Duration) (idempotency.Extended, error) {
			return idempotency.Extended{}, ctx.Err()
		}}
	},
	"a crash holds the key for the retention": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.For += r.Retention
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"a crash is forgotten with its lease": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.Retention = 0
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"a crash is kept for ever": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.Retention = 100 * time.Hour
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"what is done is kept for ever": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.complete = func(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
			return b.Memory.Complete(ctx, l, result, d+100*time.Hour)
		}
		return b
	},
	"what is done is forgotten": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.complete = func(ctx context.Context, l idempotency.Lease, _ []byte, d time.Duration) error {
			return b.Memory.Release(ctx, l, d)
		}
		return b
	},
	"results end at a zero byte": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.complete = func(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
			text, _, _ := strings.Cut(string(result), "\x00")
			return b.Memory.Complete(ctx, l, []byte(text), d)
		}
		return b
	},
	"the last completion wins": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.complete = func(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
			if rec, err := b.Memory.Inspect(ctx, l.Name); err == nil && rec.State == idempotency.Done && rec.Token == l.Token {
				return b.Memory.Resolve(ctx, rec, idempotency.Resolution{Result: result, Retention: d})
			}
			return b.Memory.Complete(ctx, l, result, d)
		}
		return b
	},
	"payloads are not compared while in progress": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			if rec, err := b.Memory.Inspect(ctx, r.Name); err == nil && rec.State == idempotency.InProgress {
				r.Fingerprint = ""
			}
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"payloads are not compared": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.Fingerprint = ""
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"a claim sent again finds itself": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		var mu sync.Mutex
		seen := map[idempotency.Token]bool{}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			mu.Lock()
			again := seen[r.Token]
			seen[r.Token] = true
			mu.Unlock()
			if again {
				r.Token[0]++
			}
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"asked first, it takes over": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.AskFirst = false
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"nobody is told of a takeover": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			c, err := b.Memory.Claim(ctx, r)
			c.TakenOver = false
			return c, err
		}
		return b
	},
	"versions are not compared": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.Version = ""
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"versions are compared without case": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.Version = idempotency.Version(strings.ToLower(string(r.Version)))
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"a version that failed is forgotten": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.release = func(ctx context.Context, l idempotency.Lease, d time.Duration) error {
			if err := b.Memory.Release(ctx, l, d); err != nil {
				return err
			}
			if rec, err := b.Memory.Inspect(ctx, l.Name); err == nil && rec.State == idempotency.Released {
				return b.Memory.Resolve(ctx, rec, idempotency.Resolution{Forget: true})
			}
			return nil
		}
		return b
	},
	"a newer version does not wait": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			if rec, err := b.Memory.Inspect(ctx, r.Name); err == nil && rec.State == idempotency.InProgress && r.Version > rec.Version {
				_ = b.Memory.Release(ctx, idempotency.Lease{Name: r.Name, Token: rec.Token}, r.Retention)
			}
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"names are joined with a colon": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.ID, r.Op = r.Op+":"+r.ID, ""
			return b.Memory.Claim(ctx, r)
		}
		return b
	},
	"a purge leaves what is in progress": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		var mu sync.Mutex
		names := map[idempotency.Name]bool{}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			mu.Lock()
			defer mu.Unlock()
			names[r.Name] = true
			return b.Memory.Claim(ctx, r)
		}
		b.purge = func(ctx context.Context, scope string) (n int, err error) {
			mu.Lock()
			defer mu.Unlock()
			for name := range names {
				if rec, err := b.Memory.Inspect(ctx, name); err == nil && name.Scope == scope && rec.State != idempotency.InProgress {
					n++
					_ = b.Memory.Resolve(ctx, rec, idempotency.Resolution{Forget: true})
				}
			}
			return n, nil
		}
		return b
	},
	"a purge takes neighbours": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.purge = func(ctx context.Context, scope string) (int, error) {
			n, err := b.Memory.Purge(ctx, scope)
			_, _ = b.Memory.Purge(ctx, scope+"2")
			return n, err
		}
		return b
	},
	"resolve does not look": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.resolve = func(ctx context.Context, seen idempotency.Record, as idempotency.Resolution) error {
			rec, err := b.Memory.Inspect(ctx, seen.Name)
			if err != nil {
				return err
			}
			return b.Memory.Resolve(ctx, rec, as)
		}
		return b
	},
	"inspect shows ended leases as held": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.inspect = func(ctx context.Context, name idempotency.Name) (idempotency.Record, error) {
			rec, err := b.Memory.Inspect(ctx, name)
			if rec.State == idempotency.Unknown {
				rec.State = idempotency.InProgress
			}
			return rec, err
		}
		return b
	},
	"tokens are not compared": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.claim = func(ctx context.Context, r idempotency.Request) (idempotency.Claim, error) {
			r.Lease = unfenced(r.Lease)
			return b.Memory.Claim(ctx, r)
		}
		b.extend = func(ctx context.Context, l []idempotency.Lease, d time.Duration) (e idempotency.Extended, err error) {
			for _, l := range l {
				one, err := b.Memory.Extend(ctx, []idempotency.Lease{unfenced(l)}, d)
				if err != nil {
					return e, err
				}
				if len(one.Lost) > 0 {
					e.Lost = append(e.Lost, l)
				}
			}
			return e, nil
		}
		b.complete = func(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
			return b.Memory.Complete(ctx, unfenced(l), result, d)
		}
		b.release = func(ctx context.Context, l idempotency.Lease, d time.Duration) error {
			return b.Memory.Release(ctx, unfenced(l), d)
		}
		return b
	},
	"context is not looked at": func() *broken {
		b := &broken{Memory: new(idempotency.Memory)}
		b.complete = func(ctx context.Context, l idempotency.Lease, result []byte, d time.Duration) error {
			return b.Memory.Complete(context.WithoutCancel(ctx), l, result, d)
		}
		return b
	},
}

func TestBrokenStoresAreCaught(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var caught []string
			synctest.Test(t, func(t *testing.T) {
				caught = storetest.Failures(t.Context(), func() idempotency.Store { return stores[name]() }, 300*time.Millisecond)
			})
			require.NotEmpty(t, caught)
			t.Log("caught by", caught)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		require.Empty(t, storetest.Failures(t.Context(), func() idempotency.Store { return new(idempotency.Memory) }, 300*time.Millisecond))
	})
}
