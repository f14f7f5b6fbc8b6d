// Package storetest checks that a store of package idempotency does what [idempotency.Store] and [idempotency.Operator] say. Each check is a subtest named for what it
// proves; the suite's own test has broken stores, each of which it must catch.
//
//	func TestMemory(t *testing.T) {
//		storetest.Run(t, storetest.Config{
//			New:    func(*testing.T) idempotency.Store { return new(idempotency.Memory) },
//			Bubble: synctest.Test,
//		})
//	}
package storetest

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
)

// Config says how to get a store.
type Config struct {
	// New makes a store; several may share one server. It is called for each check.
	New func(t *testing.T) idempotency.Store
	// Bubble runs a check with virtual time; synctest.Test for a store in the process. nil means real time.
	Bubble func(t *testing.T, f func(*testing.T))
	// Short is a lease that ends within the test; 0 means 300 ms. A store that is slow needs more.
	Short time.Duration
}

// Run checks a store.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if cfg.Bubble == nil {
		cfg.Bubble = func(t *testing.T, f func(*testing.T)) { t.Helper(); f(t) }
	}
	cfg.Short = cmp.Or(cfg.Short, 300*time.Millisecond)
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg.Bubble(t, func(t *testing.T) { //nolint:thelper // not one
				if err := c.run(t.Context(), newRig(cfg.New(t), cfg.Short)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

const (
	long  = time.Hour // no test takes so long
	keep  = 48 * time.Hour
	crowd = 32
)

// rig is a store with names that nobody else uses.
type rig struct {
	idempotency.Store

	scope string
	short time.Duration
	n     atomic.Uint64
}

var rigs atomic.Uint64

func newRig(s idempotency.Store, short time.Duration) *rig {
	return &rig{Store: s, scope: fmt.Sprintf("shop%d-%d.example", time.Now().UnixNano(), rigs.Add(1)), short: short}
}

func (r *rig) operator() idempotency.Operator {
	return r.Store.(idempotency.Operator) //nolint:forcetypeassert // the check that it is one comes first
}

// lease is a claim of id by somebody new.
func (r *rig) lease(id string) idempotency.Lease {
	n := r.n.Add(1)
	l := idempotency.Lease{Name: idempotency.Name{Op: "op", Scope: r.scope, ID: id}}
	binary.BigEndian.PutUint64(l.Token[:], n)
	return l
}

func (r *rig) request(id string, lease time.Duration) idempotency.Request {
	return idempotency.Request{Lease: r.lease(id), For: lease, Retention: keep}
}

// claim expects a claim to be answered so.
func (r *rig) claim(ctx context.Context, q idempotency.Request, want idempotency.State) (idempotency.Claim, error) {
	c, err := r.Claim(ctx, q)
	if err == nil && c.State != want {
		err = fmt.Errorf("a claim of %v is answered %v; want %v", q.Name, c.State, want)
	}
	if err == nil && c.TakenOver && want != idempotency.Claimed {
		err = fmt.Errorf("a claim that is %v says that it was taken over", c.State)
	}
	return c, err
}

// claimed claims id for lease.
func (r *rig) claimed(ctx context.Context, id string, lease time.Duration) (idempotency.Lease, error) {
	q := r.request(id, lease)
	_, err := r.claim(ctx, q, idempotency.Claimed)
	return q.Lease, err
}

// done claims and completes id.
func (r *rig) done(ctx context.Context, id string, result []byte, retention time.Duration) error {
	l, err := r.claimed(ctx, id, long)
	if err != nil {
		return err
	}
	return r.Complete(ctx, l, result, retention)
}

func failed(format string, args ...any) error { return fmt.Errorf(format, args...) }

// wants says that err has to be target.
func wants(what string, err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return failed("%s: %w; want %v", what, orNil(err), target)
}

func orNil(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}
