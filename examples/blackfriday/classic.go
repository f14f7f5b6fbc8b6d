package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
)

// newClassic is the integration that everybody writes first: it verifies the signature, does all the
// work inside the handler, and answers 200 when it is done, 500 when something failed.
func newClassic(ctx context.Context, set settings) (http.Handler, func() error, error) {
	systems := newClient(set.URL)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "read", http.StatusBadRequest)
			return
		}
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		got, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Shopify-Hmac-Sha256"))
		if err != nil || !hmac.Equal(got, mac.Sum(nil)) {
			http.Error(w, "signature", http.StatusUnauthorized)
			return
		}
		topic := r.Header.Get("X-Shopify-Topic")
		in := call{
			Event: r.Header.Get("X-Shopify-Webhook-Id"), Topic: topic,
			Shop: r.Header.Get("X-Shopify-Shop-Domain"), Subject: subjectOf(body),
			Stock: stockOf(body),
		}
		if topic == "orders/create" {
			if err := systems.ask(context.WithoutCancel(r.Context()), set.Scale, in.Shop, in.Subject); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		for _, system := range steps[topic] {
			// Shopify hanging up does not undo what was begun: the work goes on, as it does in most handlers.
			if err := systems.do(context.WithoutCancel(r.Context()), system, in, ""); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.WriteHeader(http.StatusOK)
	})
	return handler, func() error { <-ctx.Done(); return nil }, nil
}

// subjectOf finds the resource of a body by its fields, as a handler of its own would.
func subjectOf(body []byte) string {
	var ids struct {
		ID       json.Number `json:"id"`
		OrderID  json.Number `json:"order_id"`
		Item     json.Number `json:"inventory_item_id"`
		Location json.Number `json:"location_id"`
		Title    string      `json:"title"`
	}
	if err := json.Unmarshal(body, &ids); err != nil {
		return ""
	}
	switch {
	case ids.OrderID != "":
		return "order/" + ids.OrderID.String()
	case ids.Item != "":
		return "inventory_level/" + ids.Item.String() + "/" + ids.Location.String()
	case ids.Title != "":
		return "product/" + ids.ID.String()
	default:
		return "order/" + ids.ID.String()
	}
}

// stockOf reads how many there are of an inventory item.
func stockOf(body []byte) int {
	var s stock
	_ = json.Unmarshal(body, &s) // others have none
	return s.Available
}
