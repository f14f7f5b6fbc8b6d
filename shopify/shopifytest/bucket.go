package shopifytest

import (
	"cmp"
	"math"
	"time"
)

// Plan is what a shop's plan allows each app. What is 0 is as in Standard.
type Plan struct {
	// Points and PointsPerSecond are the size and the restore rate of the bucket of GraphQL costs.
	Points, PointsPerSecond float64
	// Calls and CallsPerSecond are those of the bucket of REST calls.
	Calls, CallsPerSecond float64
}

// The plans: restore rates as documented (shopify.dev/docs/api/usage/limits); the bucket of Standard as recorded, those of the others as many times the rate; REST's as
// documented for shopify.dev/docs/api/admin-rest/usage/rate-limits.
var (
	Standard = Plan{Points: 2000, PointsPerSecond: 100, Calls: 40, CallsPerSecond: 2}
	Advanced = Plan{Points: 4000, PointsPerSecond: 200, Calls: 80, CallsPerSecond: 4}
	Plus     = Plan{Points: 20000, PointsPerSecond: 1000, Calls: 400, CallsPerSecond: 20}
)

// filled has Standard's where it has nothing.
func (p Plan) filled() Plan {
	return Plan{
		Points: cmp.Or(p.Points, Standard.Points), PointsPerSecond: cmp.Or(p.PointsPerSecond, Standard.PointsPerSecond),
		Calls: cmp.Or(p.Calls, Standard.Calls), CallsPerSecond: cmp.Or(p.CallsPerSecond, Standard.CallsPerSecond),
	}
}

// bucket holds what is left, and fills up as time goes by. The zero value is full.
type bucket struct {
	used float64
	at   time.Time
}

// left is what is in it now.
func (b *bucket) left(size, rate float64) float64 {
	t := time.Now()
	b.used = min(max(0, b.used-rate*t.Sub(b.at).Seconds()), size)
	b.at = t
	return size - b.used
}

// take takes n out, if it holds as much.
func (b *bucket) take(n, size, rate float64) bool {
	if b.left(size, rate) < n {
		return false
	}
	b.used += n
	return true
}

// level is how many calls count, as REST puts it.
func (b *bucket) level() int { return int(math.Ceil(b.used)) }
