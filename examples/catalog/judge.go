package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// servers is how many processes serve the storefront.
const servers = 2

// gone is the version in an answer that says that there is no such product.
const gone = -1

// answer is what a page has said of a product.
type answer struct {
	product    string
	version    int // or gone
	server     int
	start, end time.Time
}

// history is what has happened in the shop, and what the servers have acknowledged of it.
type history struct {
	mu    sync.Mutex
	lives map[string]*life // by the products' IDs
}

// life is that of a product. Its versions are counted from 1, and its end is the last one.
type life struct {
	commits []time.Time                // by when each was committed, but for the end
	acks    [servers]map[int]time.Time // by when each server had first acknowledged the webhook of a version
	end     int                        // its last version, if it was deleted
	ends    time.Time                  // from when on it may be gone
}

func newHistory() *history { return &history{lives: map[string]*life{}} }

func (h *history) life(id string) *life {
	l := h.lives[id]
	if l == nil {
		l = &life{}
		for i := range l.acks {
			l.acks[i] = map[int]time.Time{}
		}
		h.lives[id] = l
	}
	return l
}

// committed says that a product has one more version.
func (h *history) committed(id string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.life(id)
	l.commits = append(l.commits, at)
}

// ending says that a product is about to be deleted.
func (h *history) ending(id string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.life(id)
	l.end, l.ends = len(l.commits)+1, at
}

// endOf is the last version of a product that is deleted, or about to be.
func (h *history) endOf(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.life(id).end
}

// acknowledged says that a server has answered 200 to the webhook of a version.
func (h *history) acknowledged(id string, version, server int, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	acks := h.life(id).acks[server]
	if was, ok := acks[version]; !ok || at.Before(was) {
		acks[version] = at
	}
}

// known is the newest version of a product whose webhook was acknowledged.
func (l *life) known() (version int) {
	for _, acks := range l.acks {
		for v := range acks {
			version = max(version, v)
		}
	}
	return version
}

// measure is how old answers were by one of the clocks that they are held to.
type measure struct {
	Stale int           // how many were older than they should have been without a delay
	Age   time.Duration // of the worst of them: from when it should have known better until it was asked
	Bound time.Duration
	Worst string // which it was
}

func (m *measure) add(since time.Time, a answer) {
	if since.IsZero() || !a.start.After(since) {
		return
	}
	m.Stale++
	if age := a.start.Sub(since); age > m.Age {
		m.Age = age
		m.Worst = fmt.Sprintf("product %s, version %d, of server %d", a.product, a.version, a.server+1)
	}
}

func (m *measure) check(what string) error {
	if m.Age <= m.Bound {
		return nil
	}
	return fmt.Errorf("%s: an answer was %v old (%s); the bound is %v", what, m.Age, m.Worst, m.Bound)
}

// verdict is what the answers of one way to cache are worth.
type verdict struct {
	Answers int
	Stale   int // those that were older than a version whose webhook some server had acknowledged before they were asked for

	Same   measure // since the server that answered had acknowledged the webhook of something newer
	Other  measure // since another server had
	Commit measure // since something newer was there

	Unknown int // answers of versions that there never were
}

// broken says which bound an answer has passed.
func (v *verdict) broken() error {
	var unknown error
	if v.Unknown > 0 {
		unknown = fmt.Errorf("%d answers are of versions that there never were", v.Unknown)
	}
	return errors.Join(v.Same.check("the process that had acknowledged a webhook"), v.Other.check("another process than the one that had acknowledged a webhook"), v.Commit.check("since the change"), unknown)
}

// bounds are how old answers may be by each clock.
type bounds struct{ Same, Other, Commit time.Duration }

// judge holds answers against what has happened. It favours those who answered: a request counts from before it was sent, and what it should have known from after that was certain.
func (h *history) judge(answers []answer, b bounds) verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := verdict{Answers: len(answers), Same: measure{Bound: b.Same}, Other: measure{Bound: b.Other}, Commit: measure{Bound: b.Commit}}
	news := map[string][servers][]time.Time{}
	for id, l := range h.lives {
		var of [servers][]time.Time
		for i, acks := range l.acks {
			of[i] = l.newer(acks)
		}
		news[id] = of
	}
	for _, a := range answers {
		l := h.lives[a.product]
		if l == nil {
			if a.version != gone {
				v.Unknown++
			}
			continue // it was announced, and never made
		}
		if a.version == gone {
			a.version = 0 // it is not there yet
			if l.end > 0 && !a.end.Before(l.ends) {
				a.version = l.end
			}
		}
		if a.version > len(l.commits) && a.version != l.end {
			v.Unknown++
			continue
		}
		if a.version < len(l.commits) {
			v.Commit.add(l.commits[a.version], a)
		}
		same, other := news[a.product][a.server][a.version], time.Time{}
		for i, of := range news[a.product] {
			if i != a.server {
				other = earlier(other, of[a.version])
			}
		}
		v.Same.add(same, a)
		v.Other.add(other, a)
		if first := earlier(same, other); !first.IsZero() && a.start.After(first) {
			v.Stale++
		}
	}
	return v
}

// newer says for each version when the first webhook of a newer one was acknowledged; zero is never.
func (l *life) newer(acks map[int]time.Time) []time.Time {
	out := make([]time.Time, max(len(l.commits), l.end)+1)
	for i := range slices.Backward(out[:len(out)-1]) {
		out[i] = earlier(out[i+1], acks[i+1])
	}
	return out
}

// earlier is the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
