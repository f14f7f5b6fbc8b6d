package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// at is a moment of the tests' day.
func at(ms int) time.Time {
	return time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}

// lived is the history of product 1: three versions, the webhook of 2 acknowledged by the first server, that of 3 lost, and its end acknowledged by the second.
func lived() *history {
	h := newHistory()
	h.committed("1", at(0))
	h.committed("1", at(1000))
	h.acknowledged("1", 2, 0, at(1100))
	h.acknowledged("1", 2, 0, at(1900)) // a redelivery
	h.committed("1", at(2000))
	h.ending("1", at(5000))
	h.acknowledged("1", 4, 1, at(5200))
	return h
}

// The judge finds each answer that is older than it may be, by each of the three clocks, and no other.
func TestJudge(t *testing.T) {
	t.Parallel()
	b := bounds{Other: 200 * time.Millisecond, Commit: 3 * time.Second}
	for _, c := range []struct {
		name    string
		a       answer
		stale   int
		same    time.Duration
		other   time.Duration
		commit  time.Duration
		unknown int
		broken  string
	}{
		{name: "the newest", a: answer{version: 2, start: at(1500)}},
		{name: "newer than what was committed", a: answer{version: 2, start: at(900)}},
		{name: "old, and nobody was told", a: answer{version: 1, start: at(1050)}, commit: 50 * time.Millisecond},
		{name: "asked at the moment of the acknowledgement", a: answer{version: 1, start: at(1100), end: at(1300)}, commit: 100 * time.Millisecond},
		{name: "old in the process that was told", a: answer{version: 1, start: at(1101)}, stale: 1, same: time.Millisecond, commit: 101 * time.Millisecond, broken: "the process that had acknowledged a webhook: an answer was 1ms old (product 1, version 1, of server 1); the bound is 0s"},
		{name: "old in the other one, not for long", a: answer{version: 1, server: 1, start: at(1300)}, stale: 1, other: 200 * time.Millisecond, commit: 300 * time.Millisecond},
		{name: "old in the other one, for too long", a: answer{version: 1, server: 1, start: at(1301)}, stale: 1, other: 201 * time.Millisecond, commit: 301 * time.Millisecond, broken: "another process"},
		{name: "a webhook that was lost", a: answer{version: 2, start: at(4999)}, commit: 2999 * time.Millisecond},
		{name: "a webhook that was lost, and the TTL is over", a: answer{version: 2, start: at(5001)}, commit: 3001 * time.Millisecond, broken: "since the change: an answer was 3.001s old"},
		{name: "what is older than two webhooks counts from the first", a: answer{version: 1, start: at(2200)}, stale: 1, same: 1100 * time.Millisecond, commit: 1200 * time.Millisecond, broken: "the process that had"},
		{name: "gone while it was being deleted", a: answer{version: gone, start: at(4990), end: at(5001)}},
		{name: "gone", a: answer{version: gone, server: 1, start: at(6000), end: at(6001)}},
		{name: "still there in the process that knows that it is gone", a: answer{version: 3, server: 1, start: at(5201)}, stale: 1, same: time.Millisecond, broken: "the process that had"},
		{name: "not there yet", a: answer{version: gone, start: at(400), end: at(401)}, commit: 400 * time.Millisecond},
		{name: "not there yet, in the process that knows better", a: answer{version: gone, start: at(1200), end: at(1201)}, stale: 1, same: 100 * time.Millisecond, commit: 1200 * time.Millisecond, broken: "the process that had"},
		{name: "a version that there never was", a: answer{version: 5, start: at(6000)}, unknown: 1, broken: "versions that there never were"},
		{name: "a product that was announced, and never made", a: answer{product: "2", version: gone, start: at(1)}},
		{name: "a product that there never was", a: answer{product: "2", version: 1, start: at(1)}, unknown: 1, broken: "versions that there never were"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.a.product == "" {
				c.a.product = "1"
			}
			v := lived().judge([]answer{c.a}, b)
			assert.Equal(t, c.stale, v.Stale)
			assert.Equal(t, c.same, v.Same.Age, "same")
			assert.Equal(t, c.other, v.Other.Age, "other")
			assert.Equal(t, c.commit, v.Commit.Age, "commit")
			assert.Equal(t, c.unknown, v.Unknown)
			if c.broken == "" {
				require.NoError(t, v.broken())
			} else {
				require.ErrorContains(t, v.broken(), c.broken)
			}
		})
	}
}

// Of many answers the worst is named.
func TestJudgeNamesTheWorst(t *testing.T) {
	t.Parallel()
	v := lived().judge([]answer{{"1", 1, 0, at(1110), at(1111)}, {"1", 1, 0, at(1190), at(1191)}, {"1", 1, 0, at(1150), at(1151)}}, bounds{})
	assert.Equal(t, 3, v.Stale)
	assert.Equal(t, measure{Stale: 3, Age: 90 * time.Millisecond, Worst: "product 1, version 1, of server 1"}, v.Same)
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		title, price string
		want         int
	}{
		{titled("Lamp 1", 1), "0.0", 1},
		{titled("Lamp 1", 7), "0.57", 64}, // 0.57 × 100 is not quite 57
		{titled("Lamp, edition 3", 2), priced(1207), 0},
		{titled("Lamp 2", 3), priced(1207), 1210},
		{"Lamp", "1.0", 0},
		{titled("Lamp", 1), "", 0},
	} {
		got, err := versionOf(c.title, c.price)
		assert.Equal(t, c.want, got)
		assert.Equal(t, c.want == 0, err != nil)
	}
}
