package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// receiver is somebody's handler.
func receiver(t *testing.T) (url string, seen func() []webhook.Delivery) {
	t.Helper()
	var mu sync.Mutex
	var all []webhook.Delivery
	h, err := webhook.New(webhook.Secrets("hush"), func(_ context.Context, d webhook.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		d.Body = bytes.Clone(d.Body)
		all = append(all, d)
		return nil
	}, webhook.Config{})
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL, func() []webhook.Delivery {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	url, seen := receiver(t)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), strings.Fields("send orders/create -to "+url+" -secret hush -n 5 -dup -shuffle -seed 3"), &out, &out))
	ids, subjects := map[string]int{}, map[string]int{}
	var order []string
	for _, d := range seen() {
		if ids[d.WebhookID] == 0 {
			order = append(order, d.Subject())
		}
		assert.Equal(t, "orders/create", d.Topic)
		ids[d.WebhookID]++
		subjects[d.Subject()]++
	}
	assert.Len(t, ids, 5)
	assert.Equal(t, map[string]int{
		"order/820982911946154508": 2, "order/820982911946154509": 2, "order/820982911946154510": 2,
		"order/820982911946154511": 2, "order/820982911946154512": 2,
	}, subjects)
	assert.False(t, slices.IsSorted(order), "shuffled")
	assert.Contains(t, out.String(), "sent 5, acknowledged 5, redelivered 0, duplicated 5\n")
	assert.Equal(t, 11, strings.Count(out.String(), "\n"))
}

func TestSendKeepsOrder(t *testing.T) {
	t.Parallel()
	url, seen := receiver(t)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), strings.Fields("send -to "+url+" orders/create -secret hush -n 20"), &out, &out))
	var order []string
	for _, d := range seen() {
		order = append(order, d.Subject())
	}
	assert.Len(t, order, 20)
	assert.True(t, slices.IsSorted(order), "%v", order)
}

// Short IDs stand for other things too: such a body stays as it is.
func TestSendLeavesShortIDsAlone(t *testing.T) {
	t.Parallel()
	url, seen := receiver(t)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), strings.Fields("send customer.tags_added -to "+url+" -secret hush -n 3"), &out, &out))
	for _, d := range seen() {
		assert.Equal(t, webhooktest.Payload("customer.tags_added"), d.Body)
	}
}

func TestSecretFromTheEnvironmentIsNotPrinted(t *testing.T) {
	t.Setenv("SHOPIFY_API_SECRET", "shpss_secret")
	url, _ := receiver(t)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"send", "-h"}, &out, &out))
	assert.Contains(t, out.String(), "usage: breakwater send")
	require.ErrorIs(t, run(t.Context(), []string{"send", "-nonsense"}, &out, &out), errUsage)
	require.Error(t, run(t.Context(), strings.Fields("send orders/create -to "+url), &out, &out), "signed with another secret")
	assert.NotContains(t, out.String(), "shpss_secret")
	t.Setenv("SHOPIFY_API_SECRET", "")
	require.ErrorContains(t, run(t.Context(), strings.Fields("send orders/create -to "+url), &out, &out), "-secret is empty")
}

func TestSendAFile(t *testing.T) {
	t.Parallel()
	url, seen := receiver(t)
	file := filepath.Join(t.TempDir(), "body.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"id":1}`), 0o600))
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"send", "-to", url, "-secret", "hush", "-body", file, "-shop", "b.myshopify.com", "new/topic"}, &out, &out))
	require.Len(t, seen(), 1)
	assert.Equal(t, "new/topic", seen()[0].Topic)
	assert.Equal(t, "b.myshopify.com", seen()[0].Shop)
	assert.JSONEq(t, `{"id":1}`, string(seen()[0].Body))
}

func TestSendFailsWhenNotAcknowledged(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	var out bytes.Buffer
	err := run(t.Context(), strings.Fields("send orders/create -to "+srv.URL+" -secret hush -n 2"), &out, &out)
	require.EqualError(t, err, "2 of 2 deliveries were not acknowledged")
	assert.Contains(t, out.String(), "404 ")
	out.Reset()
	require.Error(t, run(t.Context(), strings.Fields("send orders/create -to "+srv.URL+" -secret hush -retry 1000000"), &out, &out))
	assert.Contains(t, out.String(), "redelivery 7")
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string]string{
		"no command given":         "",
		`no command "x"`:           "x",
		"no topic given":           "send -to http://x -secret s",
		"is not a URL":             "send orders/create -to x -secret s",
		"has no sample body":       "send no/such -to http://x -secret s",
		"-n and -c must be":        "send orders/create -to http://x -secret s -n 0",
		"want a share from 0 to 1": "send orders/create -to http://x -secret s -dup=1.5",
		"one topic at a time":      "send orders/create orders/paid -to http://x -secret s",
		"not defined: -nonsense":   "send orders/create -nonsense",
	} {
		var out bytes.Buffer
		err := run(t.Context(), strings.Fields(args), &out, &out)
		require.ErrorIs(t, err, errUsage)
		require.ErrorContains(t, err, want)
	}
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"send", "topics"}, &out, &out))
	assert.Equal(t, 211, strings.Count(out.String(), "\n"))
	require.NoError(t, run(t.Context(), []string{"help"}, &out, &out))
}
