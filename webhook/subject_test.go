package webhook_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

var update = flag.Bool("update", false, "write testdata/subjects.txt anew; read the difference before you commit it")

// testdata/subjects.txt holds, for each of the 211 topics that have a sample, the subject and the
// updated_at read off it, checked by hand against the samples.
func TestSubjectOfEveryTopic(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, topic := range webhooktest.Topics() {
		body := webhooktest.Payload(topic)
		at := "-"
		if updated, ok := webhook.UpdatedAt(topic, body); ok {
			at = updated.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(&got, "%-62s %-62s %s\n", topic, webhook.Subject(topic, body), at)
	}
	if *update {
		require.NoError(t, os.WriteFile("testdata/subjects.txt", []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile("testdata/subjects.txt")
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String())
	assert.Len(t, webhooktest.Topics(), 211)
}

// What a delivery says of itself must not depend on white space, on the order of keys or on how deep
// into the body the ID stands.
func TestSubjectDoesNotDependOnTheFormOfTheBody(t *testing.T) {
	t.Parallel()
	for _, topic := range webhooktest.Topics() {
		body := webhooktest.Payload(topic)
		var compact bytes.Buffer
		require.NoError(t, json.Compact(&compact, body))
		sorted := new(any)
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		require.NoError(t, dec.Decode(sorted))
		again, err := json.Marshal(sorted)
		require.NoError(t, err)
		want := webhook.Subject(topic, body)
		assert.Equal(t, want, webhook.Subject(topic, compact.Bytes()), topic)
		assert.Equal(t, want, webhook.Subject(topic, again), topic)
	}
}

// Captured deliveries have every key that real ones have.
func TestSubjectOfCapturedDeliveries(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("webhooktest/payloads/exemplars/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	noID := map[string]bool{}
	for _, file := range files {
		body, err := os.ReadFile(file)
		require.NoError(t, err)
		word, _, _ := strings.Cut(filepath.Base(file), "-")
		subject := webhook.Subject(word+"/update", body)
		if noID[strings.TrimSuffix(filepath.Base(file), ".json")] {
			assert.NotContains(t, subject, "/", file)
			continue
		}
		kind, id, _ := strings.Cut(subject, "/")
		assert.NotEmpty(t, kind, file)
		assert.NotEmpty(t, id, file)
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ topic, body, want string }{
		{"orders/create", `{"id":820982911946154508}`, "order/820982911946154508"},
		{"orders/create", `{"i\u0064":820982911946154508}`, "order/820982911946154508"},
		{"orders/create", ` { "line_items" : [ { "id" : 1 , "x" : "}\"]" } ] , "id" : 2 } `, "order/2"},
		{"refunds/create", `{"id":1,"order_id":2}`, "order/2"},
		{"refunds/create", `{"id":1,"order_id":null}`, "refund/1"},
		{"inventory_levels/update", `{"location_id":2,"inventory_item_id":1}`, "inventory_level/1/2"},
		{"inventory_levels/update", `{"location_id":2}`, "inventory_level"},
		{"metaobjects/update", `{"id":"gid://shopify/Metaobject/5?x=1"}`, "metaobject/5"},
		{"new_things/create", `{"id":7}`, "new_thing/7"},
		{"new_things/create", `{"admin_graphql_api_id":"gid://shopify/NewThing/8"}`, "new_thing/8"},
		{"orders/create", ``, "order"},
		{"orders/create", `{"id"`, "order"},
		{"orders/create", `{"id":`, "order"},
		{"orders/create", `[1,2]`, "order"},
		{"orders/create", `"id"`, "order"},
		{"orders/create", `{"id":true}`, "order"},
		{"", `{}`, ""},
	} {
		assert.Equal(t, tt.want, webhook.Subject(tt.topic, []byte(tt.body)), "%s %s", tt.topic, tt.body)
	}
}

func TestDecodeKeepsDigits(t *testing.T) {
	t.Parallel()
	d := webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create", Shop: "s"}, Body: []byte(`{"id":820982911946154508,"updated_at":"2021-12-31T19:00:00-05:00"}`)}
	generic, err := webhook.Decode[map[string]any](d)
	require.NoError(t, err)
	assert.Equal(t, json.Number("820982911946154508"), generic.Body["id"])
	assert.Equal(t, "order/820982911946154508", generic.Subject)
	assert.Equal(t, time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC), generic.UpdatedAt.UTC())
	typed, err := webhook.Decode[struct{ ID int64 }](d)
	require.NoError(t, err)
	assert.EqualValues(t, 820982911946154508, typed.Body.ID)
	assert.Equal(t, "s", typed.Shop)
}

func TestDecodeRefusesWhatIsNotOneValue(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "{", `{"id":"x"}`, "{} {}"} {
		_, err := webhook.Decode[struct{ ID int64 }](webhook.Delivery{Body: []byte(body)})
		require.ErrorIs(t, err, webhook.ErrBody, body)
		var permanent interface{ Permanent() bool }
		require.ErrorAs(t, err, &permanent)
		assert.True(t, permanent.Permanent())
	}
}

func TestTypedPayloads(t *testing.T) {
	t.Parallel()
	request, err := webhook.Decode[webhook.DataRequest](sample("customers/data_request"))
	require.NoError(t, err)
	assert.EqualValues(t, 954889, request.Body.ShopID)
	assert.EqualValues(t, 9999, request.Body.DataRequest.ID)
	assert.Equal(t, []int64{299938, 280263, 220458}, request.Body.OrdersRequested)
	assert.Equal(t, webhook.Customer{ID: 191167, Email: "john@example.com", Phone: "555-625-1199"}, request.Body.Customer)
	customer, err := webhook.Decode[webhook.CustomerRedact](sample("customers/redact"))
	require.NoError(t, err)
	assert.Equal(t, []int64{299938, 280263, 220458}, customer.Body.OrdersToRedact)
	shop, err := webhook.Decode[webhook.ShopRedact](sample("shop/redact"))
	require.NoError(t, err)
	assert.EqualValues(t, 954889, shop.Body.ShopID)
	gone, err := webhook.Decode[webhook.AppUninstalled](sample("app/uninstalled"))
	require.NoError(t, err)
	assert.Equal(t, "Super Toys", gone.Body.Name)
	assert.Equal(t, "655441491", gone.Body.PrimaryLocation.String())
}

func sample(topic string) webhook.Delivery {
	return webhook.Delivery{Meta: webhook.Meta{Topic: topic}, Body: webhooktest.Payload(topic)}
}

// On well-formed JSON the scanner agrees with encoding/json; on anything else it must not panic.
func FuzzSubject(f *testing.F) {
	for _, topic := range webhooktest.Topics() {
		f.Add(topic, webhooktest.Payload(topic))
	}
	f.Add("orders/create", []byte(`{"a":"\\\"","id":1e5}`))
	f.Fuzz(func(t *testing.T, topic string, body []byte) {
		subject := webhook.Subject(topic, body)
		_, _ = webhook.UpdatedAt(topic, body)
		if topic != "draft_orders/create" { // the plain rule
			return
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil {
			return
		}
		keys := json.NewDecoder(bytes.NewReader(body))
		seen := map[string]int{}
		for keys.More() { // a repeated key counts differently
			tok, err := keys.Token()
			if err != nil {
				break
			}
			if s, ok := tok.(string); ok {
				seen[s]++
			}
		}
		if seen["id"] != 1 {
			return
		}
		if raw, ok := object["id"]; ok && len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9') {
			if want := "draft_order/" + string(raw); subject != want {
				t.Errorf("Subject of %q is %q; want %q", body, subject, want)
			}
		}
	})
}
