package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
	"github.com/breakwater-go/breakwater/webhook"
)

// admin serves the Admin API of the shop, and counts what each app asks of it.
type admin struct {
	fake *shopifytest.Server
	url  string
	srv  *http.Server
	late func(ctx context.Context) // waits while an answer is on its way back

	mu    sync.Mutex
	spent map[string]spending
}

// spending is what an app has used.
type spending struct {
	Calls     int
	Points    float64
	Throttled int
}

func newAdmin(onWebhook func(webhook.Delivery)) (*admin, error) {
	fake, err := shopifytest.New(shopifytest.Config{
		Shop: shopDomain, Plan: shopifytest.Plus, OnWebhook: onWebhook,
		Latency: func() time.Duration { return rand.N(20 * time.Millisecond) }, // the way there
	})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &admin{fake: fake, url: "http://" + l.Addr().String(), late: back, spent: map[string]spending{}}
	a.srv = &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = a.srv.Serve(l) }() // ends with close
	return a, nil
}

func (a *admin) close() { _ = a.srv.Close() }

// back waits for as long as an answer takes that is made already: mostly little, and now and then so much that the product has changed by the time that it is there. (shopifytest's Latency is spent before a request is looked at: what is
// answered then is what was so a moment ago.)
func back(ctx context.Context) {
	d := 10*time.Millisecond + rand.N(40*time.Millisecond)
	if rand.IntN(12) == 0 {
		d = 200*time.Millisecond + rand.N(700*time.Millisecond)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (a *admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resp, err := a.fake.RoundTrip(r)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	a.count(r.Header.Get("X-Shopify-Access-Token"), body)
	a.late(r.Context())
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, bytes.NewReader(body)) // a client that has gone needs no answer
}

// count notes what an app was charged.
func (a *admin) count(app string, body []byte) {
	var answer struct {
		Errors     []struct{ Extensions struct{ Code string } }
		Extensions struct {
			Cost struct{ ActualQueryCost float64 }
		}
	}
	_ = json.Unmarshal(body, &answer) // what is no answer of GraphQL has cost nothing
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.spent[app]
	s.Calls++
	s.Points += answer.Extensions.Cost.ActualQueryCost
	if len(answer.Errors) > 0 && answer.Errors[0].Extensions.Code == "THROTTLED" {
		s.Throttled++
	}
	a.spent[app] = s
}

func (a *admin) spentBy(app string) spending {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spent[app]
}
