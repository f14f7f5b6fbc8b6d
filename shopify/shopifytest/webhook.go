package shopifytest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// event is a webhook that is to be sent when the request is done.
type event struct {
	topic string
	about gid
	body  []byte
	at    time.Time
}

// topicOf is the topic that tells of a change.
var topicOf = map[string]string{"Product": "products/update", "Order": "orders/updated", "Customer": "customers/update", "Shop": "shop/update", "Location": "locations/update"}

// changed notes that an object has changed, and tells of it. A variant's change is its product's.
func (x *execution) changed(o *object) {
	x.shop.touch(o)
	if o.typ == "ProductVariant" {
		o = x.shop.find(o.f["product"].(gid))
		x.shop.touch(o)
	}
	if topic := topicOf[o.typ]; topic != "" {
		x.emit(topic, o)
	}
}

// emit puts a webhook into the outbox, once for each object and topic in a request.
func (x *execution) emit(topic string, o *object) {
	body, err := json.Marshal(x.shop.body(topic, o))
	if err != nil {
		panic(err) // it is made of what JSON can hold
	}
	e := event{topic: topic, about: o.id, body: body, at: time.Now().UTC()}
	if i := slices.IndexFunc(x.shop.outbox, func(old event) bool { return old.topic == topic && old.about == o.id }); i >= 0 {
		x.shop.outbox[i] = e
		return
	}
	x.shop.outbox = append(x.shop.outbox, e)
}

// body is a webhook's.
func (s *Shop) body(topic string, o *object) map[string]any {
	switch topic {
	case "products/delete", "orders/delete":
		return map[string]any{"id": o.num}
	case "customers/delete":
		return map[string]any{"id": o.num, "tax_exemptions": []any{}, "admin_graphql_api_id": o.id}
	}
	return s.rest(o)
}

// send delivers what a request has caused.
func (s *Server) send(shop *Shop, events []event) {
	if len(events) == 0 || s.cfg.OnWebhook == nil && s.sender == nil {
		return
	}
	var out []webhooktest.Outgoing
	for _, e := range events {
		d := webhook.Delivery{Meta: webhook.Meta{Shop: shop.Domain, Topic: e.topic, TriggeredAt: e.at, APIVersion: s.cfg.WebhookVersion}, Body: e.body}
		typ, n, _ := e.about.parse()
		switch typ {
		case "Product":
			d.ProductID = fmt.Sprint(n)
		case "Order":
			d.OrderID = fmt.Sprint(n)
		case "Customer":
			d.CustomerID = fmt.Sprint(n)
		}
		d = webhooktest.Fill(d)
		out = append(out, webhooktest.Outgoing{Delivery: d})
		if s.cfg.OnWebhook != nil {
			s.cfg.OnWebhook(d)
		}
	}
	if s.sender != nil {
		s.deliver(out)
	}
}

// deliver sends webhooks, while the requests that follow are answered.
func (s *Server) deliver(out []webhooktest.Outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sends++; s.sends == 1 {
		s.idle = make(chan struct{})
	}
	go func() {
		_, _ = s.sender.Send(s.ctx, out) // what fails there is the receiver's to find out, as with Shopify
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.sends--; s.sends == 0 {
			close(s.idle)
		}
	}()
}

// Close ends the deliveries of webhooks that are under way, and waits for them. A Server without WebhookURL need not be closed.
func (s *Server) Close() {
	s.cancel()
	_ = s.WaitWebhooks(context.Background())
}

// WaitWebhooks waits until no webhook is under way: each is delivered, or given up. It fails with ctx's error if that ends first.
func (s *Server) WaitWebhooks(ctx context.Context) error {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
