package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/internal/redislua"
)

// Inspect implements [idempotency.Operator].
func (s *Store) Inspect(ctx context.Context, name idempotency.Name) (idempotency.Record, error) {
	v, err := s.run(ctx, name, "inspect")
	if err != nil {
		return idempotency.Record{}, err
	}
	if list, ok := v.([]any); ok && len(list) == 0 {
		return idempotency.Record{}, fmt.Errorf("redisstore: %v: %w", name, idempotency.ErrNoRecord)
	}
	a := answer{v: v}
	rec := idempotency.Record{
		Name: name, Kept: time.Duration(a.int(3)) * time.Millisecond, Fingerprint: a.text(4), Version: idempotency.Version(a.text(5)), Result: a.bytes(6),
	}
	copy(rec.Token[:], a.text(1))
	rec.TakenOver = a.int(7) == 1
	switch rest := a.int(2); a.int(0) {
	case recordProgress:
		rec.State, rec.Rest = idempotency.InProgress, time.Duration(rest)*time.Millisecond
		if rest <= 0 {
			rec.State, rec.Rest = idempotency.Unknown, 0
		}
	case recordDone:
		rec.State = idempotency.Done
	case recordReleased:
		rec.State = idempotency.Released
	default:
		a.bad = true
	}
	return rec, a.err(name)
}

// States of a record, as store.lua has them; 0 is said of a lease that has ended.
const (
	recordEnded    = 0
	recordProgress = 1
	recordDone     = 2
	recordReleased = 3
)

// Resolve implements [idempotency.Operator].
func (s *Store) Resolve(ctx context.Context, seen idempotency.Record, as idempotency.Resolution) error {
	state, forget := -1, ""
	switch seen.State {
	case idempotency.InProgress:
		state = recordProgress
	case idempotency.Unknown:
		state = recordEnded
	case idempotency.Done:
		state = recordDone
	case idempotency.Released:
		state = recordReleased
	case idempotency.Claimed, idempotency.Superseded, idempotency.Mismatch:
	}
	if as.Forget {
		forget = "1"
	}
	resolved := seen.Token.Resolved()
	if s.memo != nil {
		defer s.memo.forget(seen.Name) // whatever is answered: the answer may be lost
	}
	v, err := s.run(ctx, seen.Name, "resolve", seen.Token[:], strconv.Itoa(state), forget, ms(as.Retention), as.Result, resolved[:])
	if err != nil {
		return err
	}
	switch v {
	case "settled":
		return nil
	case "progress":
		return fmt.Errorf("redisstore: %v: %w", seen.Name, idempotency.ErrInProgress)
	default:
		return fmt.Errorf("redisstore: %v: %w", seen.Name, idempotency.ErrChanged)
	}
}

// Purge implements [idempotency.Operator]. It looks through the names of all keys of the server (SCAN), a thousand at a time: on a large one it takes seconds, and holds nobody up.
func (s *Store) Purge(ctx context.Context, scope string) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.memo != nil {
		defer s.memo.purge(scope) // afterwards: until then there is something to remember
	}
	return redislua.Within(ctx, "redisstore: purge", func(ctx context.Context) (int, error) {
		c, ok := s.client.(*redis.ClusterClient)
		if !ok {
			return s.purge(ctx, s.client, scope)
		}
		var mu sync.Mutex
		n := 0
		err := c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			of, err := s.purge(ctx, node, scope)
			mu.Lock()
			defer mu.Unlock()
			n += of
			return err
		})
		return n, err
	})
}

func (s *Store) purge(ctx context.Context, node redis.UniversalClient, scope string) (int, error) {
	n, err := redislua.Purge(ctx, s.client, node, redislua.Glob(s.prefix+escape.Replace(scope)+":")+"*")
	return n, wrap(fmt.Sprintf("purge of %q", scope), err)
}
