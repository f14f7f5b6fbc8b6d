package main

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// event is one thing that happened in a shop, and so one delivery: the truth that the ledgers are
// compared with.
type event struct {
	ID      string // the webhook ID
	Shop    string
	Topic   string
	Subject string        // the resource, as the generator knows it
	At      time.Duration // when it happened, in Shopify's time
	Stock   int           // of an inventory level, from then on
	body    []byte
}

// steps says what an integration does for an event of each topic, in order.
var steps = map[string][]string{
	"orders/create":           {"database", "erp", "carrier"},
	"orders/paid":             {"database", "erp"},
	"orders/updated":          {"database"},
	"orders/cancelled":        {"database", "erp", "carrier"},
	"fulfillments/create":     {"database", "carrier"},
	"refunds/create":          {"database", "erp"},
	"products/update":         {"database"},
	"inventory_levels/update": {"database", "erp"},
}

// replaces are the topics whose events say how a resource is now: of two the newer one counts, and the older one need not be worked on any more.
var replaces = map[string]bool{"products/update": true, "inventory_levels/update": true}

func shopName(i int) string { return fmt.Sprintf("shop-%02d.myshopify.com", i) }

// noisy is the shop that has a spike of its own.
var noisy = shopName(0)

// The samples' IDs, as they stand in the bodies of orders, fulfillments and refunds (rounded, where
// the samples' source rounded them), products and inventory levels.
var (
	orderIDs     = []string{"820982911946154508", "820982911946154500"}
	productIDs   = []string{"788032119674292922", "788032119674292900"}
	inventoryIDs = []string{"271878346596884015", "271878346596884000"}
)

// generate makes the storm of a seed, in the order in which things happened.
func generate(o options) []event {
	rng := rand.New(rand.NewPCG(o.Seed, 0))
	var events []event
	number := 0
	add := func(at time.Duration, shop, topic, subject string, sampleIDs []string, id int64) {
		body := webhooktest.Payload(topic)
		for _, s := range sampleIDs {
			body = bytes.ReplaceAll(body, []byte(s), strconv.AppendInt(nil, id, 10))
		}
		stamp := stormDay.Add(at).Format(time.RFC3339)
		body = bytes.ReplaceAll(body, []byte("2021-12-31T19:00:00-05:00"), []byte(stamp))
		number++
		stock := 0
		if topic == "inventory_levels/update" {
			stock = number
			body = bytes.ReplaceAll(body, []byte(`"available": null`), fmt.Appendf(nil, `"available": %d`, stock))
		}
		events = append(events, event{
			ID:   fmt.Sprintf("%08x-0000-4000-8000-%012x", o.Seed&0xffffffff, number),
			Shop: shop, Topic: topic, Subject: subject, At: at, Stock: stock, body: body,
		})
	}
	span := func(from, to float64) time.Duration { // a moment between two shares of the storm
		return time.Duration((from + rng.Float64()*(to-from)) * float64(stormLength))
	}
	later := func(at time.Duration, least, most time.Duration) time.Duration {
		return at + least + time.Duration(rng.Int64N(int64(most-least)))
	}

	for i := range o.Orders {
		shop, at := shopName(rng.IntN(o.Shops)), span(0, 0.8)
		if rng.Float64() < 0.4 { // the noisy shop's spike
			shop, at = noisy, span(0.3, 0.45)
		}
		id := 6_000_000_000_000_000_000 + int64(i) // above 2^53: digits must survive
		subject := fmt.Sprintf("order/%d", id)
		order := func(topic string) { add(at, shop, topic, subject, orderIDs, id) }
		order("orders/create")
		at = later(at, 2*time.Second, 10*time.Second)
		order("orders/paid")
		if rng.Float64() < 0.5 {
			at = later(at, time.Second, 10*time.Second)
			order("orders/updated")
		}
		switch p := rng.Float64(); {
		case p < 0.1:
			at = later(at, time.Second, 20*time.Second)
			order("orders/cancelled")
		case p < 0.8:
			at = later(at, time.Second, 20*time.Second)
			order("fulfillments/create")
			if p < 0.2 {
				at = later(at, time.Second, 20*time.Second)
				order("refunds/create")
			}
		}
	}
	// Products and stock change several times within seconds, as they do when a sale sells them.
	for i := range o.Orders / 20 {
		for _, kind := range []struct {
			topic, subject string
			samples        []string
			id             int64
		}{
			{"products/update", "product/%d", productIDs, 7_000_000_000_000_000_000 + int64(i)},
			{"inventory_levels/update", "inventory_level/%d/24826418", inventoryIDs, 8_000_000_000_000_000_000 + int64(i)},
		} {
			shop, at := shopName(rng.IntN(o.Shops)), span(0, 0.95)
			for range 4 {
				add(at, shop, kind.topic, fmt.Sprintf(kind.subject, kind.id), kind.samples, kind.id)
				at = later(at, 200*time.Millisecond, 3*time.Second)
			}
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.At, b.At) })
	return events
}

// stormDay is the day of the storm.
var stormDay = time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)

// outgoing makes the events into deliveries.
func outgoing(events []event) []webhooktest.Outgoing {
	out := make([]webhooktest.Outgoing, len(events))
	for i, e := range events {
		out[i] = webhooktest.Outgoing{At: e.At, Delivery: webhook.Delivery{
			Meta: webhook.Meta{Shop: e.Shop, Topic: e.Topic, WebhookID: e.ID, TriggeredAt: stormDay.Add(e.At)},
			Body: e.body,
		}}
	}
	return out
}
