package webhooktest

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/webhook"
)

// The samples' licences and sources are in payloads/SOURCES.md.
//
//go:embed payloads/*.json
var payloads embed.FS

// Topics lists the topics that have a sample body, in the order of their samples' names.
func Topics() []string {
	entries, err := payloads.ReadDir("payloads")
	if err != nil {
		panic(err) // the directory is part of the program
	}
	topics := make([]string, 0, len(entries))
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".json")
		word, action, _ := strings.Cut(name, "-")
		separator := "/"
		if word == "customer" { // customer.tags_added and its kind are the only topics with a dot
			separator = "."
		}
		topics = append(topics, word+separator+action)
	}
	return topics
}

// Payload returns a copy of the sample body of a topic such as "orders/create", as Shopify's reference
// of API version 2026-04 prints it. It panics if the topic has none; see [Topics].
func Payload(topic string) []byte {
	b, err := payloads.ReadFile("payloads/" + strings.NewReplacer("/", "-", ".", "-").Replace(topic) + ".json")
	if err != nil {
		panic(fmt.Sprintf("webhooktest: no sample body of topic %q", topic))
	}
	return b
}

// NewRequest makes a request as Shopify would send d, signed with secret, for a handler's ServeHTTP.
// What d leaves empty is filled in: the sample body of its topic, a shop, fresh IDs, an API version and the
// time. It panics as [Fill] does.
func NewRequest(secret string, d webhook.Delivery) *http.Request {
	d = Fill(d)
	r := httptest.NewRequest(http.MethodPost, "/webhooks", bytes.NewReader(d.Body))
	sign(r.Header, secret, d)
	return r
}

// Fill returns d with what it leaves empty filled in, as [NewRequest] does. It panics if d has no body and
// its topic no sample; see [Topics].
func Fill(d webhook.Delivery) webhook.Delivery {
	if d.Body == nil {
		d.Body = Payload(d.Topic)
	}
	for field, value := range map[*string]string{
		&d.Shop: "example.myshopify.com", &d.APIVersion: "2026-04", &d.WebhookID: newID(), &d.EventID: newID(),
	} {
		if *field == "" {
			*field = value
		}
	}
	if d.TriggeredAt.IsZero() {
		d.TriggeredAt = time.Now()
	}
	return d
}

func sign(h http.Header, secret string, d webhook.Delivery) {
	d.SetHeader(h)
	h.Set("Content-Type", "application/json")
	name := "X-Shopify-Hmac-Sha256"
	if d.Family == webhook.Events {
		name = "Shopify-Hmac-Sha256"
	}
	h.Set(name, webhook.Sign(d.Body, secret))
}

// newID makes an ID of the form of Shopify's, a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
