package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

const (
	// lossEvery is which webhooks Shopify never sends. That happens: what they would have told is seen when the TTL is over.
	lossEvery = 50
	// retrySpeed is how many times faster than Shopify's the waits between redeliveries are: the first comes after 100 ms instead of a minute.
	retrySpeed = 600
)

// courier delivers the shop's webhooks, each to the server whose turn it is, and those that fail, or come twice, to the next one. It is the http.RoundTripper of their requests, so that it sees what was acknowledged by whom.
type courier struct {
	history *history
	seed    uint64
	base    *http.Transport
	all     sync.WaitGroup

	mu    sync.Mutex
	urls  []string
	turn  int
	about map[string]*edition // by the webhooks' IDs
	tally tally
	err   error
}

// edition is a version of a product.
type edition struct {
	product string
	version int
	sent    time.Time
	known   bool // it was acknowledged
}

// tally counts webhooks.
type tally struct {
	Sent, Lost   uint64
	Attempts     int
	Acknowledged int // answered 200; a webhook may be so twice
	Longest      time.Duration
}

func newCourier(h *history, seed uint64) *courier {
	return &courier{history: h, seed: seed, base: &http.Transport{MaxIdleConnsPerHost: 64}, about: map[string]*edition{}}
}

// open says where webhooks go. Before that there are none.
func (c *courier) open(all []*child) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range all {
		c.urls = append(c.urls, s.url)
	}
}

// take takes a webhook that the shop sends, and delivers it in the background.
func (c *courier) take(d webhook.Delivery) {
	what, err := c.whatOf(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.urls) == 0 {
		return
	}
	if err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	c.tally.Sent++
	if c.tally.Sent%lossEvery == lossEvery/2 {
		c.tally.Lost++
		return
	}
	what.sent = time.Now()
	c.about[d.WebhookID] = what
	// A Sender makes its choices by the place of a delivery among those of one Send: here each has one of its own.
	sender, err := webhooktest.NewSender(c.urls[0]+"/webhooks", secret, webhooktest.Config{
		Seed: c.seed + c.tally.Sent, Duplicate: 0.1, Slow: 0.03, Cut: 0.03, RetrySpeed: retrySpeed, KeepSubscriptions: true, Transport: c,
	})
	if err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	c.all.Go(func() {
		l, _ := sender.Send(context.Background(), []webhooktest.Outgoing{{Delivery: d}}) // a context that does not end
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.Acknowledged == 0 {
			c.err = errors.Join(c.err, fmt.Errorf("the webhook of %s, version %d, was given up after %v", what.product, what.version, time.Since(what.sent)))
		}
	})
}

// whatOf says of which version a webhook tells.
func (c *courier) whatOf(d webhook.Delivery) (*edition, error) {
	id := strings.TrimPrefix(d.Subject(), "product/")
	if d.Topic == "products/delete" {
		return &edition{product: id, version: c.history.endOf(id)}, nil
	}
	var body struct {
		Title    string
		Variants []struct{ Price string }
	}
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return nil, err
	}
	if len(body.Variants) == 0 {
		return nil, fmt.Errorf("the webhook %s of %s has no variants", d.Topic, id)
	}
	v, err := versionOf(body.Title, body.Variants[0].Price)
	return &edition{product: id, version: v}, err
}

// RoundTrip sends a request to the server whose turn it is.
func (c *courier) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	server := c.turn % len(c.urls)
	to := c.urls[server]
	c.turn++
	c.tally.Attempts++
	c.mu.Unlock()
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Host, r.Host = u.Host, u.Host
	resp, err := c.base.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	now := time.Now()
	c.mu.Lock()
	what := c.about[webhook.ParseMeta(r.Header).WebhookID]
	c.tally.Acknowledged++
	if !what.known {
		what.known = true
		c.tally.Longest = max(c.tally.Longest, now.Sub(what.sent))
	}
	c.mu.Unlock()
	c.history.acknowledged(what.product, what.version, server, now)
	return resp, nil
}

// wait waits until all is delivered.
func (c *courier) wait() (tally, error) {
	c.all.Wait()
	c.base.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally, c.err
}

var _ http.RoundTripper = (*courier)(nil)
