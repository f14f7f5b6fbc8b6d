package integration_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
)

// TestP3AnswerIsLostOfEveryStep cuts the connection between request and answer: what is sent again is answered as it was, or would have been, and changes nothing.
//
// P3: "A job takes effect once."
func TestP3AnswerIsLostOfEveryStep(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	ctx := t.Context()
	s, direct := redisstore.New(p.client, redisstore.Config{NoMemo: true}), redisstore.New(p.direct, redisstore.Config{NoMemo: true})
	request := func(id string) idempotency.Request {
		r, err := idempotency.NewRequest("ship", idempotency.Key{Scope: "shop", ID: id})
		require.NoError(t, err)
		r.For, r.Retention = time.Hour, 48*time.Hour
		return r
	}
	claim := func(store idempotency.Store, r idempotency.Request, want idempotency.State) {
		t.Helper()
		c, err := store.Claim(ctx, r)
		require.NoError(t, err)
		require.Equal(t, want, c.State)
	}
	record := func(id string) idempotency.Record {
		t.Helper()
		rec, err := direct.Inspect(ctx, request(id).Name)
		require.NoError(t, err)
		return rec
	}
	claim(direct, request("warm"), idempotency.Claimed) // the server knows the script
	claim(s, request("warm"), idempotency.InProgress)   // and the store has looked at the server

	r := request("k")
	p.lose(t, func() error {
		c, err := s.Claim(ctx, r)
		require.True(t, err != nil || c.State == idempotency.Claimed, "it is its own: %+v", c)
		return err
	})
	held := record("k")
	require.Equal(t, r.Token, held.Token)
	require.Equal(t, idempotency.InProgress, held.State)
	claim(direct, request("k"), idempotency.InProgress)

	p.lose(t, func() error {
		e, err := s.Extend(ctx, []idempotency.Lease{r.Lease}, 3*time.Hour)
		require.Empty(t, e.Lost)
		return err
	})
	require.InDelta(t, 3*time.Hour, record("k").Rest, float64(time.Minute))

	p.lose(t, func() error {
		rec, err := s.Inspect(ctx, r.Name)
		require.True(t, err != nil || rec.Token == r.Token)
		return err
	})

	p.lose(t, func() error { return s.Complete(ctx, r.Lease, []byte("first"), 48*time.Hour) })
	require.NoError(t, s.Complete(ctx, r.Lease, []byte("second"), 48*time.Hour))
	done := record("k")
	require.Equal(t, "first", string(done.Result))
	require.Equal(t, r.Token, done.Token)
	late := request("k")
	p.lose(t, func() error {
		c, err := s.Claim(ctx, late)
		require.True(t, err != nil || c.State == idempotency.Done && string(c.Result) == "first", "%+v", c)
		return err
	})
	p.lose(t, func() error { // of who does not have it
		err := s.Complete(ctx, late.Lease, []byte("third"), 48*time.Hour)
		if errors.Is(err, idempotency.ErrLeaseLost) {
			return nil
		}
		require.Error(t, err)
		return err
	})
	require.Equal(t, "first", string(record("k").Result))

	given := request("given")
	claim(direct, given, idempotency.Claimed)
	p.lose(t, func() error { return s.Release(ctx, given.Lease, time.Hour) })
	_, err := direct.Inspect(ctx, given.Name)
	require.ErrorIs(t, err, idempotency.ErrNoRecord)
	next := request("given")
	claim(direct, next, idempotency.Claimed)
	p.lose(t, func() error { return s.Release(ctx, given.Lease, time.Hour) }) // it is another's by now
	require.Equal(t, next.Token, record("given").Token)

	versioned := request("versioned")
	versioned.Version = idempotency.Number(7)
	claim(direct, versioned, idempotency.Claimed)
	p.lose(t, func() error { return s.Release(ctx, versioned.Lease, time.Hour) })
	require.Equal(t, idempotency.Released, record("versioned").State)
	older := request("versioned")
	older.Version = idempotency.Number(6)
	claim(direct, older, idempotency.Superseded)

	resolve := func(seen idempotency.Record, as idempotency.Resolution) {
		t.Helper()
		p.lose(t, func() error { return s.Resolve(ctx, seen, as) })
	}
	gone := request("gone")
	gone.For = time.Millisecond
	claim(direct, gone, idempotency.Claimed)
	require.Eventually(t, func() bool { return record("gone").State == idempotency.Unknown }, 10*time.Second, time.Millisecond)
	resolve(record("gone"), idempotency.Resolution{Result: []byte("it had"), Retention: time.Hour})
	settled := record("gone")
	require.Equal(t, idempotency.Done, settled.State)
	require.Equal(t, "it had", string(settled.Result))
	require.Equal(t, gone.Token.Resolved(), settled.Token)
	resolve(settled, idempotency.Resolution{Forget: true})
	_, err = direct.Inspect(ctx, gone.Name)
	require.ErrorIs(t, err, idempotency.ErrNoRecord)
	again := request("gone")
	claim(direct, again, idempotency.Claimed)
	require.ErrorIs(t, direct.Resolve(ctx, settled, idempotency.Resolution{Forget: true}), idempotency.ErrChanged) // it is another by now
	require.Equal(t, again.Token, record("gone").Token)
}
