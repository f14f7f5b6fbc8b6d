package queue

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/time/rate"
)

// Backoff says how long a job waits after its n-th failure, n from 1. It is called from many goroutines.
type Backoff func(n int) time.Duration

// defaultBackoff sums up to about 48 h over 30 attempts.
var defaultBackoff = Exponential(2*time.Second, 6*time.Hour)

// Exponential makes a Backoff with full jitter: after the n-th failure a random time between 0 and a bound that
// begins at first and doubles up to most. What failed together so does not come back together.
func Exponential(first, most time.Duration) Backoff {
	return func(n int) time.Duration {
		// The library spreads evenly around an interval; around half the bound, all the way, is full jitter.
		b := backoff.NewExponentialBackOff(backoff.WithInitialInterval(first/2), backoff.WithMaxInterval(most/2),
			backoff.WithMultiplier(2), backoff.WithRandomizationFactor(1), backoff.WithMaxElapsedTime(0))
		d := b.NextBackOff()
		for range min(n-1, 62) {
			d = b.NextBackOff()
		}
		return d
	}
}

// pacer spreads the jobs of a kind that is over its rate: each gets a time of its own to come back at, so that
// they do not all come at once and are snoozed again.
type pacer struct {
	limiter *rate.Limiter

	mu   sync.Mutex
	next time.Time // when the last job that was put off may come back
}

// wait takes a place, and answers 0, or says how long to stay away.
func (p *pacer) wait() time.Duration {
	if p.limiter.Allow() {
		return 0
	}
	limit := p.limiter.Limit()
	if limit <= 0 {
		return maxRateSleep
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(min(float64(time.Second)/float64(limit), float64(2*maxRateSleep))))
	if after := p.next.Sub(now); after <= maxRateSleep {
		return max(after, minSnooze)
	}
	// So many wait already that their places reach further than is wise to plan: a restart forgets them.
	p.next = now.Add(maxRateSleep)
	return maxRateSleep/2 + rand.N(maxRateSleep/2)
}
