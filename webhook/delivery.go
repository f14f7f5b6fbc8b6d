package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Family is the style of the headers that a delivery came with.
type Family uint8

const (
	// Classic is a webhook subscription; its headers start with X-Shopify-.
	Classic Family = iota
	// Events is Shopify's next generation of subscriptions (developer preview in 2026); its headers
	// start with shopify- and its topic is a resource name such as "Product".
	Events
)

// Meta is what the headers of a delivery say. None of it is covered by the signature, which is over
// the body alone; it is as trustworthy as TLS and the secrecy of your endpoint.
type Meta struct {
	Family      Family    // which headers it came with
	App         string    // the app whose secret matched: [Secret.App]
	Shop        string    // X-Shopify-Shop-Domain, e.g. "example.myshopify.com"
	Topic       string    // X-Shopify-Topic, e.g. "orders/create"; for Events the resource, e.g. "Product"
	WebhookID   string    // X-Shopify-Webhook-Id: the same on every redelivery
	EventID     string    // X-Shopify-Event-Id: the merchant's action, shared by all topics it triggers; may be empty
	APIVersion  string    // X-Shopify-API-Version, e.g. "2026-04"
	TriggeredAt time.Time // X-Shopify-Triggered-At; zero where absent or unreadable
	Name        string    // X-Shopify-Name: the subscription's name, if it has one
	SubTopic    string    // X-Shopify-Sub-Topic; sent with metaobject topics
	Test        bool      // X-Shopify-Test is "true"

	OrderID    string // X-Shopify-Order-Id, with topics about an order
	ProductID  string // X-Shopify-Product-Id, with products/*
	CustomerID string // X-Shopify-Customer-Id, with topics about a customer

	Handle     string // shopify-handle (Events): the subscription's handle
	Action     string // shopify-action (Events): create, update or delete
	ResourceID string // shopify-resource-id (Events)
}

// Delivery is one authentic request from Shopify, as a sink sees it.
type Delivery struct {
	Meta

	// Body is the raw body. It is valid until the sink returns, and must not be changed: copy it to
	// keep it.
	Body []byte
}

// Subject names the resource that the delivery is about, such as "order/820982911946154508"; see
// [Subject].
func (d Delivery) Subject() string {
	if d.Family == Events && d.ResourceID != "" {
		return strings.ToLower(d.Topic) + "/" + plainID(d.ResourceID)
	}
	return Subject(d.Topic, d.Body)
}

// UpdatedAt is when the resource last changed by the body's own word; see [UpdatedAt].
func (d Delivery) UpdatedAt() (time.Time, bool) { return UpdatedAt(d.Topic, d.Body) }

// Event is a delivery whose body was decoded into a T, as a handler sees it.
type Event[T any] struct {
	Meta

	Subject   string    // the resource that the event is about; see [Subject]
	UpdatedAt time.Time // when the resource last changed by the body's own word; zero where it has none
	Body      T
}

// ErrBody is wrapped by the errors of [Decode]: the body is not JSON of the expected shape. A
// later try can't change that, so the error's Permanent method says true.
var ErrBody = errors.New("webhook: body does not decode")

// Decode decodes d's body into a T. Numbers decoded into an any keep their digits, as [json.Number]:
// Shopify's IDs go past 2^53. Its error wraps [ErrBody] and the cause. The event keeps nothing of
// d.Body, unless T does so itself.
func Decode[T any](d Delivery) (Event[T], error) {
	e := Event[T]{Meta: d.Meta, Subject: d.Subject()}
	e.UpdatedAt, _ = d.UpdatedAt()
	dec := json.NewDecoder(bytes.NewReader(d.Body))
	dec.UseNumber()
	if err := dec.Decode(&e.Body); err != nil {
		return e, &bodyError{topic: d.Topic, cause: err}
	}
	if _, err := dec.Token(); err != io.EOF {
		return e, &bodyError{topic: d.Topic, cause: errors.New("more than one JSON value")}
	}
	return e, nil
}

type bodyError struct {
	topic string
	cause error
}

func (e *bodyError) Error() string {
	return fmt.Sprintf("webhook: body of %s does not decode: %v", e.topic, e.cause)
}
func (e *bodyError) Unwrap() []error { return []error{ErrBody, e.cause} }
func (e *bodyError) Permanent() bool { return true }

// The names of one family's headers, in the canonical form in which net/http keeps them.
type family struct {
	kind                                   Family
	hmac, topic, shop, version, webhook    string
	event, triggered, name, subTopic, test string
	order, product, customer               string
	handle, action, resource               string
}

var (
	classic = newFamily(Classic, "X-Shopify-")
	events  = newFamily(Events, "Shopify-")
)

func newFamily(kind Family, prefix string) *family {
	h := func(s string) string { return http.CanonicalHeaderKey(prefix + s) }
	return &family{
		kind: kind,
		hmac: h("Hmac-Sha256"), topic: h("Topic"), shop: h("Shop-Domain"),
		version: h("API-Version"), webhook: h("Webhook-Id"),
		event: h("Event-Id"), triggered: h("Triggered-At"), name: h("Name"),
		subTopic: h("Sub-Topic"), test: h("Test"),
		order: h("Order-Id"), product: h("Product-Id"), customer: h("Customer-Id"),
		handle: h("Handle"), action: h("Action"), resource: h("Resource-Id"),
	}
}

// read reads f's headers out of h, each once: the lookups are a good part of a small delivery's cost.
// repeated names a header that stands twice and must not. No value is copied: they are strings already.
func (f *family) read(h http.Header) (m Meta, signature, repeated string) {
	one := func(name string) string {
		v := h[name]
		if len(v) == 0 {
			return ""
		}
		if len(v) > 1 {
			repeated = name
		}
		return v[0]
	}
	signature = one(f.hmac)
	m = Meta{
		Family:     f.kind,
		Shop:       strings.ToLower(one(f.shop)),
		Topic:      one(f.topic),
		WebhookID:  one(f.webhook),
		EventID:    one(f.event),
		APIVersion: one(f.version),
	}
	// Shopify writes RFC 3339 with nanoseconds in UTC.
	m.TriggeredAt, _ = time.Parse(time.RFC3339Nano, one(f.triggered))
	if f.kind == Events {
		m.Handle, m.Action, m.ResourceID = first(h, f.handle), first(h, f.action), first(h, f.resource)
		return m, signature, repeated
	}
	m.Name, m.SubTopic, m.Test = first(h, f.name), first(h, f.subTopic), first(h, f.test) == "true"
	m.OrderID, m.ProductID, m.CustomerID = first(h, f.order), first(h, f.product), first(h, f.customer)
	return m, signature, repeated
}

// missing names a header that a delivery of f needs and m lacks. Shopify's own JavaScript library answers
// 400 where one of these is missing; its Ruby library asks for topic and shop alone. We ask for what
// dedupe needs as well.
func (f *family) missing(m *Meta) string {
	switch {
	case m.Topic == "":
		return f.topic
	case m.Shop == "":
		return f.shop
	case m.WebhookID == "":
		return f.webhook
	case m.APIVersion == "":
		return f.version
	case f.kind == Events && m.EventID == "":
		return f.event
	}
	return ""
}

// anyOf says whether h has a header of f that says what a delivery is or vouches for it.
func (f *family) anyOf(h http.Header) bool {
	return len(h[f.hmac])+len(h[f.topic])+len(h[f.shop])+len(h[f.webhook]) > 0
}

// SetHeader writes m's headers into h in m's family, the way Shopify sends them: what [Handler]
// reads back. It is for senders in tests and for storing a delivery's headers; it signs nothing.
func (m Meta) SetHeader(h http.Header) {
	f := classic
	if m.Family == Events {
		f = events
	}
	set := func(key, value string) {
		if value != "" {
			h[key] = []string{value}
		}
	}
	set(f.shop, m.Shop)
	set(f.topic, m.Topic)
	set(f.webhook, m.WebhookID)
	set(f.event, m.EventID)
	set(f.version, m.APIVersion)
	if !m.TriggeredAt.IsZero() {
		set(f.triggered, m.TriggeredAt.UTC().Format(time.RFC3339Nano))
	}
	if m.Family == Events {
		set(f.handle, m.Handle)
		set(f.action, m.Action)
		set(f.resource, m.ResourceID)
		return
	}
	set(f.name, m.Name)
	set(f.subTopic, m.SubTopic)
	if m.Test {
		set(f.test, "true")
	}
	set(f.order, m.OrderID)
	set(f.product, m.ProductID)
	set(f.customer, m.CustomerID)
}

// ParseMeta reads the headers of one family back into a Meta: Events where h has shopify-topic,
// else Classic. It verifies nothing: it is for headers that were stored by [Meta.SetHeader].
func ParseMeta(h http.Header) Meta {
	f := classic
	if first(h, events.topic) != "" {
		f = events
	}
	m, _, _ := f.read(h)
	return m
}

func first(h http.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}
