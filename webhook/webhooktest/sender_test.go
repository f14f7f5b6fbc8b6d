package webhooktest_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

const secret = "hush"

// server answers requests in the process, which works in a bubble, and notes them.
type server struct {
	answer func(r *http.Request, body []byte) int // 0 hangs until the client gives up

	mu   sync.Mutex
	seen []string // webhook IDs in order of arrival
	at   []time.Duration
	from time.Time
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := webhook.VerifyBody(r.Header.Get("X-Shopify-Hmac-Sha256"), body, secret); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.seen = append(s.seen, r.Header.Get("X-Shopify-Webhook-Id"))
	s.at = append(s.at, time.Since(s.from))
	s.mu.Unlock()
	status := s.answer(r, body)
	if status == 0 {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	w := httptest.NewRecorder()
	w.WriteHeader(status)
	return w.Result(), nil
}

func always(status int) func(*http.Request, []byte) int {
	return func(*http.Request, []byte) int { return status }
}

func delivery(at time.Duration, id, subject string) webhooktest.Outgoing {
	return webhooktest.Outgoing{At: at, Delivery: webhook.Delivery{
		Meta: webhook.Meta{Topic: "orders/create", Shop: "a.myshopify.com", WebhookID: id},
		Body: []byte(`{"id":` + subject + `}`),
	}}
}

func send(t *testing.T, s *server, cfg webhooktest.Config, deliveries ...webhooktest.Outgoing) webhooktest.Ledger {
	t.Helper()
	cfg.Transport = s
	s.from = time.Now()
	sender, err := webhooktest.NewSender("http://shop.test/webhooks", secret, cfg)
	require.NoError(t, err)
	ledger, err := sender.Send(t.Context(), deliveries)
	require.NoError(t, err)
	return ledger
}

func TestRedeliversEightTimesInFourHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: always(500)}
		ledger := send(t, s, webhooktest.Config{KeepSubscriptions: true}, delivery(0, "w", "1"))
		assert.Equal(t, webhooktest.Ledger{Sent: 1, GivenUp: 1, Attempts: 9, Redelivered: 8}, ledger)
		assert.Equal(t, slices.Repeat([]string{"w"}, 9), s.seen, "the same webhook ID")
		for i, minutes := range []float64{0, 1, 3, 7, 15, 31, 60, 120, 240} {
			assert.InDelta(t, minutes, s.at[i].Minutes(), minutes/10+0.001)
		}
	})
}

func TestNoRetryGivesUpAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ledger := send(t, &server{answer: always(500)}, webhooktest.Config{NoRetry: true}, delivery(0, "w", "1"))
		assert.Equal(t, webhooktest.Ledger{Sent: 1, GivenUp: 1, Attempts: 1}, ledger)
	})
}

func TestSubscriptionIsDeletedAfterEightFailuresInARow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: always(500)}
		// Twenty at the same moment are one failure each time round; one that comes later finds it gone.
		var ds []webhooktest.Outgoing
		for i := range 20 {
			ds = append(ds, delivery(0, fmt.Sprint(i), fmt.Sprint(i)))
		}
		ds = append(ds, delivery(3*time.Hour, "late", "9"))
		ledger := send(t, s, webhooktest.Config{}, ds...)
		assert.Equal(t, 1, ledger.Deleted)
		assert.Equal(t, 20, ledger.Sent)
		assert.Equal(t, 21, ledger.Dropped)
		assert.NotContains(t, s.seen, "late")
		assert.GreaterOrEqual(t, ledger.Attempts, 20*7)
	})
}

func TestSuccessEndsTheRowOfFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *http.Request, _ []byte) int {
			if strings.HasPrefix(r.Header.Get("X-Shopify-Webhook-Id"), "bad") {
				return 500
			}
			return 200
		}}
		ledger := send(t, s, webhooktest.Config{}, delivery(0, "bad", "1"), delivery(time.Hour, "good", "2"))
		assert.Equal(t, webhooktest.Ledger{Sent: 2, Acknowledged: 1, GivenUp: 1, Attempts: 10, Redelivered: 8}, ledger)
	})
}

// Success is any 2xx; a redirect is a failure; five seconds are all there is.
func TestWhatCountsAsDelivered(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]webhooktest.Ledger{
		200: {Sent: 1, Acknowledged: 1, Attempts: 1},
		204: {Sent: 1, Acknowledged: 1, Attempts: 1},
		302: {Sent: 1, Acknowledged: 1, Attempts: 2, Redelivered: 1},
		401: {Sent: 1, Acknowledged: 1, Attempts: 2, Redelivered: 1},
		0:   {Sent: 1, Acknowledged: 1, Attempts: 2, Redelivered: 1},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				first := true
				var took time.Duration
				s := &server{answer: func(*http.Request, []byte) int {
					if first {
						first = false
						return status
					}
					return 200
				}}
				cfg := webhooktest.Config{OnAttempt: func(a webhooktest.Attempt) {
					if a.Number == 0 {
						took = a.End.Sub(a.Start)
						assert.Equal(t, status, a.Status)
					}
				}}
				assert.Equal(t, want, send(t, s, cfg, delivery(0, "w", "1")))
				if status == 0 {
					assert.Equal(t, 5*time.Second, took)
				}
			})
		})
	}
}

func TestSpeedDividesTimesAndRetrySpeedTheWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := &server{answer: func(*http.Request, []byte) int {
			if n++; n == 1 {
				return 0
			}
			return 200
		}}
		send(t, s, webhooktest.Config{Speed: 10, RetrySpeed: 60}, delivery(time.Minute, "w", "1"))
		assert.Equal(t, 6*time.Second, s.at[0])
		assert.InDelta(t, 7, s.at[1].Seconds(), 0.1, "one minute later, at 60 times the speed")
	})
}

func TestFaultsAreDrawnFromTheSeed(t *testing.T) {
	t.Parallel()
	storm := func(seed uint64) (webhooktest.Ledger, []webhooktest.Attempt) {
		var ledger webhooktest.Ledger
		var mu sync.Mutex
		var attempts []webhooktest.Attempt
		synctest.Test(t, func(t *testing.T) {
			var ds []webhooktest.Outgoing
			for i := range 1000 {
				ds = append(ds, delivery(time.Duration(i)*10*time.Second, fmt.Sprintf("w%04d", i), fmt.Sprint(i%100)))
			}
			ledger = send(t, &server{answer: always(200)}, webhooktest.Config{
				Seed: seed, Duplicate: 0.1, Reorder: 0.2, Slow: 0.05, Cut: 0.05,
				OnAttempt: func(a webhooktest.Attempt) {
					mu.Lock()
					defer mu.Unlock()
					attempts = append(attempts, a)
				},
			}, ds...)
		})
		return ledger, attempts
	}
	ledger, attempts := storm(1)
	assert.Equal(t, 1000, ledger.Sent)
	assert.Equal(t, 1000, ledger.Acknowledged)
	assert.InDelta(t, 100, ledger.Duplicated, 30)
	assert.Equal(t, 200, ledger.Reordered)
	assert.InDelta(t, 50, ledger.Redelivered, 25, "what was cut comes again")
	cut, slow, instant := 0, 0, 0
	firsts := map[string]time.Time{}
	for _, a := range attempts {
		if a.Cut {
			cut++
			assert.Zero(t, a.Status)
			require.Error(t, a.Err)
		}
		if took := a.End.Sub(a.Start); took > 0 {
			slow++
			assert.Less(t, took, 4*time.Second)
		}
		if a.Number == 0 && !a.Duplicate {
			firsts[a.WebhookID] = a.Start
		}
	}
	for _, a := range attempts {
		if a.Duplicate && a.Start.Equal(firsts[a.WebhookID]) {
			instant++
		}
	}
	assert.InDelta(t, 50, cut, 25)
	assert.InDelta(t, 50, slow, 25)
	assert.Greater(t, instant, 20, "half the duplicates come at the same instant")
	again, _ := storm(1)
	assert.Equal(t, ledger, again, "the same seed, the same storm")
	other, _ := storm(2)
	assert.NotEqual(t, ledger, other)
}

func TestReorderSwapsNeighboursOfOneSubject(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: always(200)}
		send(t, s, webhooktest.Config{Reorder: 1}, delivery(0, "a1", "1"), delivery(time.Minute, "b1", "2"), delivery(2*time.Minute, "a2", "1"), delivery(3*time.Minute, "b2", "2"))
		assert.Equal(t, []string{"a2", "b2", "a1", "b1"}, s.seen)
	})
}

func TestFirstTriesBeginInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: always(200)}
		var ds []webhooktest.Outgoing
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprint(i))
			ds = append(ds, delivery(0, fmt.Sprint(i), fmt.Sprint(i/2)))
		}
		send(t, s, webhooktest.Config{MaxInFlight: 1}, ds...)
		assert.Equal(t, want, s.seen)
		s.seen = nil
		ledger := send(t, s, webhooktest.Config{MaxInFlight: 1, Reorder: 0.5}, ds...)
		assert.Equal(t, 50, ledger.Reordered)
		for i := range 50 {
			assert.Equal(t, []string{want[2*i+1], want[2*i]}, s.seen[2*i:2*i+2])
		}
	})
}

func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sender, err := webhooktest.NewSender("http://shop.test", secret, webhooktest.Config{Transport: &server{answer: always(500)}})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		ledger, err := sender.Send(ctx, []webhooktest.Outgoing{delivery(0, "w", "1"), delivery(time.Hour, "x", "2")})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, webhooktest.Ledger{Sent: 1, Dropped: 2, Attempts: 4, Redelivered: 3}, ledger)
	})
}

// Over real connections: the default transport, a body cut in the middle, a body that dribbles.
func TestSenderOverHTTP(t *testing.T) {
	t.Parallel()
	var bodies sync.Map
	h, err := webhook.New(webhook.Secrets(secret), func(_ context.Context, d webhook.Delivery) error {
		bodies.Store(d.WebhookID, string(d.Body))
		return nil
	}, webhook.Config{})
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	defer srv.Close()
	for name, cfg := range map[string]webhooktest.Config{"cut": {Cut: 1}, "slow": {Slow: 1}, "plain": {}} {
		cfg.Speed, cfg.RetrySpeed = 3, 10_000
		sender, err := webhooktest.NewSender(srv.URL, secret, cfg)
		require.NoError(t, err)
		d := webhooktest.Outgoing{Delivery: webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", WebhookID: name}}}
		ledger, err := sender.Send(t.Context(), []webhooktest.Outgoing{d})
		require.NoError(t, err)
		assert.Equal(t, 1, ledger.Acknowledged, name)
		if cfg.Cut == 1 {
			assert.Positive(t, ledger.Redelivered, name)
		}
		got, _ := bodies.Load(name)
		assert.Equal(t, string(webhooktest.Payload("orders/create")), got, name)
	}
}

func TestNewSenderRefuses(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]webhooktest.Config{
		"Config.Duplicate is 1.1": {Duplicate: 1.1},
		"Config.Reorder is -1":    {Reorder: -1},
		"Config.Cut is NaN":       {Cut: math.NaN()},
		"must not be negative":    {Speed: -1},
	} {
		_, err := webhooktest.NewSender("http://x", secret, cfg)
		require.ErrorContains(t, err, want)
	}
}

func TestPayload(t *testing.T) {
	t.Parallel()
	assert.Len(t, webhooktest.Topics(), 211)
	assert.Contains(t, webhooktest.Topics(), "customer.tags_added")
	b := webhooktest.Payload("orders/create")
	b[0] = 'x'
	assert.NotEqual(t, b, webhooktest.Payload("orders/create"), "a copy")
	assert.Panics(t, func() { webhooktest.Payload("no/such") })
}
