package redislimit_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/redislimit"
)

// TestTheScriptIsTheMachineOfTheLimiter compares the script with the in-process buckets over random courses of events, at a rate so low that time plays no part.
func TestTheScriptIsTheMachineOfTheLimiter(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redistest.Dial(t, redistest.Start(t).Addr)
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 0))
		ours, model := redislimit.New(rdb, redislimit.Config{Prefix: "p" + string(rune('a'+seed%26)) + string(rune('a'+seed/26))}).Trust(), shopify.NewLocal()
		type flying struct {
			call        shopify.Call
			ours, model shopify.Grant
		}
		var waiting []shopify.Call
		var flight []flying
		next := uint64(0)
		size := 1000.0
		left := size // at the imagined Shopify's
		for step := range 300 {
			switch n := rng.IntN(10); {
			case n < 4: // a new call, or one that asks again
				c := shopify.Call{ID: next, Cost: float64(1 + rng.IntN(200)), Interactive: rng.IntN(2) == 0, Keep: 0.1, Lease: time.Hour}
				if n == 3 && len(waiting) > 0 {
					c = waiting[rng.IntN(len(waiting))]
				} else {
					next++
				}
				a, err := ours.Take(ctx, "shop", c)
				require.NoError(t, err)
				b, err := model.Take(ctx, "shop", c)
				require.NoError(t, err)
				require.Equal(t, b.Granted, a.Granted, "seed %d step %d: %+v %+v", seed, step, a, b)
				require.InDelta(t, b.Size, a.Size, 0)
				isWaiting := -1
				for i, w := range waiting {
					if w.ID == c.ID {
						isWaiting = i
					}
				}
				switch {
				case a.Granted:
					flight = append(flight, flying{c, a.Grant, b.Grant})
					if isWaiting >= 0 {
						waiting = append(waiting[:isWaiting], waiting[isWaiting+1:]...)
					}
					left -= c.Cost
				default:
					require.InEpsilon(t, 1+b.After.Seconds(), 1+a.After.Seconds(), 0.01, "seed %d step %d", seed, step)
					if isWaiting < 0 {
						waiting = append(waiting, c)
					}
				}
			case n < 8 && len(flight) > 0:
				i := rng.IntN(len(flight))
				f := flight[i]
				flight = append(flight[:i], flight[i+1:]...)
				actual := float64(rng.IntN(int(f.call.Cost) + 1))
				left += f.call.Cost - actual
				if rng.IntN(10) == 0 { // a stranger
					left -= float64(rng.IntN(50))
				}
				if rng.IntN(20) == 0 {
					size += 500
					left += 500
				}
				answer := shopify.Answer{Actual: actual, Left: max(0, left), Size: size, Rate: 1e-6}
				switch rng.IntN(10) {
				case 0:
					answer.Actual = -1
				case 1:
					answer = shopify.Answer{Actual: -1}
				}
				require.NoError(t, ours.Settle(ctx, "shop", f.call, f.ours, answer))
				require.NoError(t, model.Settle(ctx, "shop", f.call, f.model, answer))
			case n == 8 && len(waiting) > 0:
				i := rng.IntN(len(waiting))
				require.NoError(t, ours.Leave(ctx, "shop", waiting[i]))
				require.NoError(t, model.Leave(ctx, "shop", waiting[i]))
				waiting = append(waiting[:i], waiting[i+1:]...)
			}
		}
	}
}

func call(id uint64, cost float64) shopify.Call {
	return shopify.Call{ID: id, Cost: cost, Keep: 0.1, Lease: time.Minute}
}

// known makes a bucket known, with nothing under way.
func known(t *testing.T, s *redislimit.Store, left, rate float64) {
	t.Helper()
	c := call(1<<40, 1)
	turn, err := s.Take(t.Context(), "shop", c)
	require.NoError(t, err)
	require.True(t, turn.Granted)
	require.NoError(t, s.Settle(t.Context(), "shop", c, turn.Grant, shopify.Answer{Actual: 1, Left: left, Size: 1000, Rate: rate}))
}

func newStore(t *testing.T, rdb redis.UniversalClient) *redislimit.Store {
	t.Helper()
	return redislimit.New(rdb, redislimit.Config{}).Trust()
}

func TestALostAnswerOfTheScriptIsGivenAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t, redistest.Dial(t, redistest.Start(t).Addr))
	known(t, s, 1000, 1e-6)
	first, err := s.Take(t.Context(), "shop", call(1, 600))
	require.NoError(t, err)
	require.True(t, first.Granted)
	again, err := s.Take(t.Context(), "shop", call(1, 600))
	require.NoError(t, err)
	require.Equal(t, first, again)
	other, err := s.Take(t.Context(), "shop", call(2, 600))
	require.NoError(t, err)
	require.False(t, other.Granted, "it was taken once")
	// One that was let go when nobody waited any more gives its part back.
	require.NoError(t, s.Leave(t.Context(), "shop", call(1, 600)))
	other, err = s.Take(t.Context(), "shop", call(2, 600))
	require.NoError(t, err)
	require.True(t, other.Granted)
}

func TestABucketThatWasForgottenIsNotTrustedAtOnce(t *testing.T) {
	t.Parallel()
	rdb := redistest.Dial(t, redistest.Start(t).Addr)
	s := redislimit.New(rdb, redislimit.Config{})
	known(t, s, 500, 1) // half of it is gone: others are at it
	turn, err := s.Take(t.Context(), "shop", call(1, 10))
	require.NoError(t, err)
	require.False(t, turn.Granted)
	require.InDelta(t, 1, turn.Again.Seconds(), 0.5)
	require.NoError(t, s.Leave(t.Context(), "shop", call(1, 10)))
	// A full one has nobody else.
	require.NoError(t, rdb.FlushAll(t.Context()).Err())
	known(t, s, 999, 1)
	turn, err = s.Take(t.Context(), "shop", call(2, 10))
	require.NoError(t, err)
	require.True(t, turn.Granted)
	// An answer to a call of the time before says what is left, and gives nothing back.
	require.NoError(t, rdb.FlushAll(t.Context()).Err())
	known(t, s, 999, 1e-6)
	require.NoError(t, s.Settle(t.Context(), "shop", call(2, 10), turn.Grant, shopify.Answer{Actual: 0, Left: 100, Size: 1000, Rate: 1e-6}))
	turn, err = s.Take(t.Context(), "shop", call(3, 200))
	require.NoError(t, err)
	require.False(t, turn.Granted)
}

func TestAHintComesWhenItIsACallsTurn(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	a, b := newStore(t, redistest.Dial(t, srv.Addr)), newStore(t, redistest.Dial(t, srv.Addr))
	known(t, a, 1000, 1e-6)
	first, err := a.Take(t.Context(), "shop", call(1, 900))
	require.NoError(t, err)
	require.True(t, first.Granted)
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: b, MaxWait: -1})
	require.NoError(t, err)
	got := make(chan error, 1)
	go func() {
		r, err := limiter.Reserve(t.Context(), "shop", 800)
		if err == nil {
			err = r.Cancel(t.Context())
		}
		got <- err
	}()
	line := "quota:{shop}:line0"
	rdb := redistest.Dial(t, srv.Addr)
	require.Eventually(t, func() bool { return rdb.ZCard(t.Context(), line).Val() == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, a.Settle(t.Context(), "shop", call(1, 900), first.Grant, shopify.Answer{Actual: 1, Left: 999, Size: 1000, Rate: 1e-6}))
	select {
	case err := <-got:
		require.NoError(t, err)
	case <-time.After(4 * time.Second): // by itself it would ask after 5
		t.Fatal("no hint")
	}
}

func TestRedisAwayIsAnErrorThatParks(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := redistest.Dial(t, srv.Addr)
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: redislimit.New(rdb, redislimit.Config{}), MaxWait: 300 * time.Millisecond})
	require.NoError(t, err)
	require.NoError(t, srv.Kill())
	_, err = limiter.Reserve(t.Context(), "shop", 10)
	var full *shopify.QuotaError
	require.ErrorAs(t, err, &full)
	require.Error(t, full.Cause)
	require.True(t, full.ParkGroup())
	require.Positive(t, full.RetryAfter())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = limiter.Reserve(ctx, "shop", 10)
	require.Error(t, err)
	require.NoError(t, srv.Start())
	require.Eventually(t, func() bool {
		r, err := limiter.Reserve(t.Context(), "shop", 10)
		return err == nil && r.Cancel(t.Context()) == nil
	}, 10*time.Second, time.Millisecond)
	limiter, err = shopify.NewLimiter(shopify.LimiterConfig{Buckets: redislimit.New(nil, redislimit.Config{}), MaxWait: time.Millisecond})
	require.NoError(t, err)
	_, err = limiter.Reserve(t.Context(), "shop", 1)
	require.ErrorContains(t, err, "nil")
}

func TestCluster(t *testing.T) {
	t.Parallel()
	_, client := redistest.StartCluster(t)
	s := newStore(t, client)
	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: s})
	require.NoError(t, err)
	for range 20 {
		r, err := limiter.Reserve(t.Context(), "a.myshopify.com", 10)
		require.NoError(t, err)
		require.NoError(t, r.Settle(t.Context(), shopify.Answer{Actual: 5, Left: 995, Size: 1000, Rate: 100}))
	}
}
