package shopify

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// reply is an answer that was read to its end.
type reply struct {
	*http.Response

	body      []byte
	extracts  extracts
	throttled bool
	answer    Answer        // to the Limiter
	after     time.Duration // when a throttled call may come again
}

// extracts is what the transport reads of a GraphQL answer.
type extracts struct {
	Data   presence
	Errors []struct {
		Extensions struct{ Code string }
	}
	Extensions struct {
		Cost *struct {
			RequestedQueryCost float64
			ActualQueryCost    *float64
			ThrottleStatus     struct{ MaximumAvailable, CurrentlyAvailable, RestoreRate float64 }
		}
	}
}

// presence is whether there is anything but null, without looking at it.
type presence bool

// UnmarshalJSON implements json.Unmarshaler.
func (p *presence) UnmarshalJSON(b []byte) error {
	*p = presence(!bytes.Equal(b, []byte("null")))
	return nil
}

// throttled says whether a request was refused for want of quota: it had no effect at all. One that has data, or has cost something, is another thing.
func (e *extracts) throttled() bool {
	return e.has("THROTTLED") && !bool(e.Data) && (e.Extensions.Cost == nil || e.Extensions.Cost.ActualQueryCost == nil)
}

func (e *extracts) has(code string) bool {
	for _, g := range e.Errors {
		if g.Extensions.Code == code {
			return true
		}
	}
	return false
}

// answerError carries an answer through the breaker that says that the call failed.
type answerError struct{ *reply }

func (e *answerError) Error() string { return "shopify: answered " + e.Status }

// StatusCode is the answer's; 429 of a THROTTLED and 500 of an INTERNAL_SERVER_ERROR, which come with 200.
func (e *answerError) StatusCode() int {
	switch {
	case e.throttled:
		return http.StatusTooManyRequests
	case e.Response.StatusCode < http.StatusInternalServerError:
		return http.StatusInternalServerError
	}
	return e.Response.StatusCode
}

// delayedError is an answerError that says when to come again.
type delayedError struct{ *answerError }

func (e *delayedError) RetryAfter() time.Duration { return e.after }

func (e *delayedError) Unwrap() error { return e.answerError }

// retryAfter is when a throttled call may come again: computed from what is left, as Retry-After says, or a second.
func (r *reply) retryAfter(x *exchange) time.Duration {
	if c := r.extracts.Extensions.Cost; c != nil && c.ThrottleStatus.RestoreRate > 0 {
		cost := x.cost
		if c.RequestedQueryCost > 0 {
			cost = c.RequestedQueryCost
		}
		lack := min(cost, c.ThrottleStatus.MaximumAvailable) - c.ThrottleStatus.CurrentlyAvailable
		return max(10*time.Millisecond, filling(lack/c.ThrottleStatus.RestoreRate))
	}
	// Shopify's is a number of seconds with a fraction, unlike RFC 9110's.
	if s, err := strconv.ParseFloat(r.Header.Get("Retry-After"), 64); err == nil && s > 0 {
		return time.Duration(min(s, longest.Seconds()) * float64(time.Second))
	}
	return time.Second
}

// restRefill is in how many seconds an empty bucket of REST calls is full: 40 at 2 a second, 80 at 4, 400 at 20 (shopify.dev/docs/api/admin-rest/usage/rate-limits).
const restRefill = 20

// quota is what an answer says of the quota.
func (r *reply) quota(x *exchange) Answer {
	a := Answer{Actual: -1}
	if !x.isGraphQL {
		used, size, ok := strings.Cut(r.Header.Get("X-Shopify-Shop-Api-Call-Limit"), "/")
		u, uerr := strconv.ParseFloat(used, 64)
		s, serr := strconv.ParseFloat(size, 64)
		if ok && uerr == nil && serr == nil && s > 0 {
			a.Left, a.Size, a.Rate = max(0, s-u), s, s/restRefill
		}
		if r.throttled {
			a.Actual = 0
		}
		return a
	}
	c := r.extracts.Extensions.Cost
	if r.throttled || c != nil { // one without an actual cost was refused before it began
		a.Actual = 0
	}
	if c == nil {
		return a
	}
	if c.ActualQueryCost != nil {
		a.Actual = *c.ActualQueryCost
	}
	if s := c.ThrottleStatus; s.MaximumAvailable > 0 && s.RestoreRate > 0 {
		a.Left, a.Size, a.Rate = s.CurrentlyAvailable, s.MaximumAvailable, s.RestoreRate
	}
	return a
}
