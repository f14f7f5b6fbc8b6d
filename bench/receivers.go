package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/go-github/v88/github"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

const (
	secret          = "hush, this one is known to everybody"
	signatureHeader = "X-Shopify-Hmac-Sha256"
)

// receiver is one way to receive a signed webhook: verify it, hand the body to a sink, answer 200.
type receiver struct {
	name    string
	handler func(take func(body []byte)) (http.Handler, error)
	headers func(body []byte) (http.Header, error) // signed as the receiver's sender would
}

// receivers lists ours and, after it, those that it is compared with in process. Every one of them
// that lets its caller read the body is given a buffer that is used again.
func receivers() []receiver {
	return []receiver{
		breakwater(),
		{name: "by hand", handler: newByHand, headers: shopifyHeaders},
		{name: "go-github ValidatePayload", handler: newGitHubPayload, headers: gitHubHeaders},
		{name: "go-github ValidateSignature", handler: newGitHubSignature, headers: gitHubHeaders},
		{name: "standard-webhooks Verify", handler: newStandard, headers: standardHeaders},
	}
}

func breakwater() receiver {
	return receiver{name: "breakwater", headers: shopifyHeaders, handler: func(take func([]byte)) (http.Handler, error) {
		sink := func(_ context.Context, d webhook.Delivery) error {
			take(d.Body)
			return nil
		}
		return webhook.New(webhook.Secrets(secret), sink, webhook.Config{})
	}}
}

// plain is the handler that most apps start with, and the peer over the network.
func plain() receiver {
	return receiver{name: "plain handler", headers: shopifyHeaders, handler: func(take func([]byte)) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			given, err := base64.StdEncoding.DecodeString(r.Header.Get(signatureHeader))
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write(body)
			if err != nil || !hmac.Equal(given, mac.Sum(nil)) {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			take(body)
			w.WriteHeader(http.StatusOK)
		}), nil
	}}
}

func shopifyHeaders(body []byte) (http.Header, error) {
	d := webhook.Delivery{Meta: webhook.Meta{Topic: topic, OrderID: "820982911946154508"}, Body: body}
	return webhooktest.NewRequest(secret, d).Header, nil
}

// byHand is the floor: what a receiver of Shopify's webhooks cannot leave out, with everything used
// again that can be. It serves one request at a time, which a real one could not afford.
type byHand struct {
	take    func([]byte)
	mac     hash.Hash
	body    bytes.Buffer
	encoded []byte
	given   []byte
	sum     []byte
}

func newByHand(take func([]byte)) (http.Handler, error) {
	return &byHand{take: take, mac: hmac.New(sha256.New, []byte(secret))}, nil
}

func (h *byHand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.body.Reset()
	if _, err := h.body.ReadFrom(r.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mac.Reset()
	h.mac.Write(h.body.Bytes())
	h.sum = h.mac.Sum(h.sum[:0])
	h.encoded = append(h.encoded[:0], r.Header.Get(signatureHeader)...)
	given, err := base64.StdEncoding.AppendDecode(h.given[:0], h.encoded)
	h.given = given
	if err != nil || !hmac.Equal(given, h.sum) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	h.take(h.body.Bytes())
	w.WriteHeader(http.StatusOK)
}

// newGitHubPayload uses go-github as its documentation shows.
func newGitHubPayload(take func([]byte)) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := github.ValidatePayload(r, []byte(secret))
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		take(body)
		w.WriteHeader(http.StatusOK)
	}), nil
}

// newGitHubSignature uses the part of go-github that leaves reading to its caller.
func newGitHubSignature(take func([]byte)) (http.Handler, error) {
	return verifying(take, func(body []byte, h http.Header) error {
		return github.ValidateSignature(h.Get(github.SHA256SignatureHeader), body, []byte(secret))
	}), nil
}

func gitHubHeaders(body []byte) (http.Header, error) {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set(github.EventTypeHeader, "push")
	h.Set(github.DeliveryIDHeader, "72d3162e-cc78-11e3-81ab-4c9367dc0958")
	h.Set(github.SHA256SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	return h, nil
}

func newStandard(take func([]byte)) (http.Handler, error) {
	wh, err := newStandardWebhook()
	if err != nil {
		return nil, err
	}
	return verifying(take, wh.Verify), nil
}

// standardHeaders signs for now: Verify refuses what is older than 5 minutes.
func standardHeaders(body []byte) (http.Header, error) {
	wh, err := newStandardWebhook()
	if err != nil {
		return nil, err
	}
	const id = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	now := time.Now()
	signature, err := wh.Sign(id, now, body)
	if err != nil {
		return nil, err
	}
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return h, nil
}

func newStandardWebhook() (*standardwebhooks.Webhook, error) {
	return standardwebhooks.NewWebhook(base64.StdEncoding.EncodeToString([]byte(secret)))
}

// verifying is a handler around a library that takes a body and headers. It serves one request at a
// time, because it has one buffer.
func verifying(take func([]byte), verify func([]byte, http.Header) error) http.Handler {
	var body bytes.Buffer
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body.Reset()
		if _, err := body.ReadFrom(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if err := verify(body.Bytes(), r.Header); err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		take(body.Bytes())
		w.WriteHeader(http.StatusOK)
	})
}
