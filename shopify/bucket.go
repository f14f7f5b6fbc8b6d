package shopify

import (
	"math"
	"time"
)

// bucket is what is known of a shop's bucket. redislimit's script is the same machine in Lua; both follow these rules:
//
// left is how much a new call may count on: what was there at the last answer, filled up since, less what every call of ours that is under way may still take. An answer says how
// much there was when Shopify made it (reported). Calls that are under way may or may not have been in that, and what others have settled while this call was under way may have
// been taken or given back before or after. So it only bounds left:
//
//	reported - under way - (actual costs settled meanwhile)  ≤  left  ≤  reported + (refunds meanwhile) + (filled up meanwhile)
//
// A left below the lower bound forgot something (a lost answer that cost nothing, a larger plan) and rises to it. A left above the upper bound did not know something: a stranger
// uses the bucket too. It falls to the bound, and what it was wrong by is kept as a margin for a while.
//
// The bucket can't hold more than its size, and calls under way will still be taken from that: left is at most size - under way.
type bucket struct {
	epoch     int64 // of this memory of it: a grant of another tells nothing
	known     bool  // some answer has said size and rate
	size      float64
	rate      float64 // a second
	left      float64
	at        time.Duration // when left was that, by the store's clock
	underWay  float64       // requested by calls that were let go and not settled
	lost      float64       // of these, by those whose answer will not come
	probes    int           // of these, how many were let go while the bucket was not known
	spent     float64       // actual costs settled so far
	refunded  float64       // refunds so far
	margin    float64       // what strangers were seen to take at once
	marginAt  time.Duration
	asked     float64 // the last requested and actual costs, fading: what share of a request is actually taken
	taken     float64
	allowance float64 // what background calls may take before interactive ones have their turn again
}

const (
	// marginFades is the time in which half of the margin goes; minMargin and maxMargin are shares of the size.
	marginFades = 30 * time.Second
	minMargin   = 0.02
	maxMargin   = 0.05
	// almostFull is the share of the size from which any call may go, whatever is kept free.
	almostFull = 0.95
	// fading is what is left of older costs with each answer.
	fading = 0.98
	// turnOf is how many points interactive calls get for each that background calls get, where both wait.
	turnOf = 4
)

// advance fills the bucket up to now.
func (b *bucket) advance(now time.Duration) {
	if d := (now - b.at).Seconds(); d > 0 {
		b.left += d * b.rate
	}
	b.at = max(b.at, now)
	b.left = min(b.left, b.size-b.underWay)
	if least := minMargin * b.size; b.margin > least {
		b.margin = max(b.margin*math.Exp2(-(now-b.marginAt).Seconds()/marginFades.Seconds()), least)
	} else {
		b.margin = least
	}
	b.marginAt = max(b.marginAt, now)
}

// lets says whether a call may go now that has to leave keep.
func (b *bucket) lets(cost, keep float64) bool {
	if !b.known {
		return b.probes == 0
	}
	return b.left-b.margin-keep >= cost || b.left >= max(cost, almostFull*b.size)
}

// let takes a call's requested cost.
func (b *bucket) let(cost float64) {
	b.left -= cost
	b.underWay += cost
	if !b.known {
		b.probes++
	}
}

// wait is how long it takes until there is enough for a call that has to leave keep, with what goes before it.
func (b *bucket) wait(cost, keep, before float64) time.Duration {
	if !b.known {
		return 0
	}
	share := 1.0 // of a request that is taken in the end
	if b.asked > 0 {
		share = b.taken / b.asked
	}
	need := min(cost+keep+b.margin, max(cost, almostFull*b.size))
	lack := need + before*share - b.left - max(0, b.underWay-b.lost)*(1-share)
	return filling(max(0, lack) / b.rate)
}

// longest is what a wait is said to be at most: whoever waits longer asks again.
const longest = time.Hour

// filling makes a wait of seconds.
func filling(seconds float64) time.Duration {
	if !(seconds < longest.Seconds()) {
		return longest
	}
	return time.Duration(math.Ceil(seconds * float64(time.Second)))
}

// soonest is when the bucket has filled up enough for a call that is the next, if nothing comes back.
func (b *bucket) soonest(cost, keep float64) time.Duration {
	if !b.known || b.rate <= 0 {
		return time.Second
	}
	need := min(cost+keep+b.margin, max(cost, almostFull*b.size))
	return filling(max(0, need-b.left) / b.rate)
}

// settle notes a call's answer.
func (b *bucket) settle(g Grant, cost float64, a Answer, now time.Duration) {
	lower, upper := math.Inf(-1), a.Left // nobody knows what was under way with it
	if g.Epoch == b.epoch {
		if a.Actual < 0 { // the answer does not say
			a.Actual = cost
		}
		b.probes = max(0, b.probes-1)
		b.underWay = max(0, b.underWay-cost)
		b.left += cost - a.Actual
		lower = a.Left - b.underWay - (b.spent - g.Spent)
		upper = a.Left + (b.refunded - g.Refunded) + a.Rate*max(0, (now-g.At).Seconds())
		b.spent += a.Actual
		b.refunded += max(0, cost-a.Actual)
		if a.Size > 0 {
			b.asked, b.taken = b.asked*fading+cost, b.taken*fading+min(a.Actual, cost)
		}
	}
	switch {
	case a.Size <= 0:
		return
	case !b.known:
		b.known, b.left = true, a.Left-b.underWay
	case b.left > upper:
		b.margin = min(max(b.margin, b.left-upper), maxMargin*a.Size)
		b.left = upper
	case b.left < lower:
		b.left = lower
	}
	b.size, b.rate = a.Size, a.Rate
	b.left = min(b.left, b.size-b.underWay)
}

// lose gives a call up whose answer will not come: it has cost what it might have.
func (b *bucket) lose(cost float64) {
	b.underWay = max(0, b.underWay-cost)
	b.spent += cost
}
