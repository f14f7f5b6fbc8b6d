// Package javascript_test tries Shopify's official JavaScript packages on the fake shop and on signed webhooks: what they accept there, they accept from us.
package javascript_test

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

//go:embed check.mjs package.json package-lock.json
var files embed.FS

// given is what check.mjs reads from its standard input.
type given struct {
	URL             string   `json:"url"`
	Token           string   `json:"token"`
	Shop            string   `json:"shop"` // has products, with these titles
	Titles          []string `json:"titles"`
	Page            int      `json:"page"`
	Points          float64  `json:"points"`
	PointsPerSecond float64  `json:"pointsPerSecond"`
	Empty           string   `json:"empty"` // a shop to make products in, of this vendor
	Vendor          string   `json:"vendor"`
	Drained         string   `json:"drained"` // a shop whose bucket is empty, but for one call over REST
	Flaky           string   `json:"flaky"`   // what the names of shops begin with that answer their first request with 429

	Secret      string    `json:"secret"`
	OtherSecret string    `json:"otherSecret"`
	Webhooks    []request `json:"webhooks"` // signed with Secret
	Forged      []request `json:"forged"`   // signed with OtherSecret
	Pair        []request `json:"pair"`     // one body in both families, as in Forged
}

// request is a webhook, and what shopify-api is to make of its headers.
type request struct {
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Want    fields            `json:"want"`
}

type fields struct {
	WebhookType string `json:"webhookType"`
	Topic       string `json:"topic"`
	Domain      string `json:"domain"`
	APIVersion  string `json:"apiVersion"`
	WebhookID   string `json:"webhookId"`
	EventID     string `json:"eventId,omitempty"`
	TriggeredAt string `json:"triggeredAt,omitempty"`
	Name        string `json:"name,omitempty"`
	SubTopic    string `json:"subTopic,omitempty"`
	Handle      string `json:"handle,omitempty"`
	Action      string `json:"action,omitempty"`
	ResourceID  string `json:"resourceId,omitempty"`
}

func sign(secret string, d webhook.Delivery) request {
	d = webhooktest.Fill(d)
	r := webhooktest.NewRequest(secret, d)
	out := request{Headers: map[string]string{}, Body: string(d.Body), Want: fields{
		WebhookType: "webhooks", Topic: d.Topic, Domain: d.Shop, APIVersion: d.APIVersion, WebhookID: d.WebhookID, EventID: d.EventID, TriggeredAt: d.TriggeredAt.UTC().Format(time.RFC3339Nano),
		Name: d.Name, SubTopic: d.SubTopic, Handle: d.Handle, Action: d.Action, ResourceID: d.ResourceID,
	}}
	if d.Family == webhook.Events {
		out.Want.WebhookType = "events"
	}
	for name, values := range r.Header {
		out.Headers[name] = strings.Join(values, ", ")
	}
	return out
}

func TestOfficialPackages(t *testing.T) {
	t.Parallel()
	need(t)
	in := given{
		Token: "shpat_token", Shop: "example.myshopify.com", Page: 3, Points: shopifytest.Standard.Points, PointsPerSecond: shopifytest.Standard.PointsPerSecond,
		Empty: "empty.myshopify.com", Vendor: "Made by JavaScript", Drained: "drained.myshopify.com", Flaky: "flaky", Secret: "hush", OtherSecret: "other",
	}
	var flaky sync.Map
	var sent []webhook.Delivery
	var mu sync.Mutex
	fake, err := shopifytest.New(shopifytest.Config{
		Token: in.Token,
		Fault: func(r *http.Request) shopifytest.Fault {
			if strings.HasPrefix(r.URL.Path, "/"+in.Flaky) {
				if _, again := flaky.LoadOrStore(r.URL.Path, true); !again {
					return shopifytest.TooManyRequests
				}
			}
			return shopifytest.NoFault
		},
		OnWebhook: func(d webhook.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, d)
		},
	})
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	in.URL = server.URL
	for i := range 8 { // the last page is not full
		in.Titles = append(in.Titles, fmt.Sprintf("Product %d", i+1))
		_, err := fake.Shop(in.Shop).Exec(`mutation($title: String!) { productCreate(product: {title: $title}) { userErrors { message } } }`, map[string]any{"title": in.Titles[i]})
		require.NoError(t, err)
	}
	// Nothing comes back into these buckets while the test runs.
	fake.Shop(in.Drained).SetPlan(shopifytest.Plan{Points: 100, PointsPerSecond: 0.01, Calls: 1, CallsPerSecond: 0.01})
	require.True(t, fake.Shop(in.Drained).Use(in.Token, 100))
	in.Webhooks, in.Forged, in.Pair = deliveries(sent, in.Secret, in.OtherSecret)
	require.NotEmpty(t, sent)

	dir := install(t)
	b, err := json.Marshal(in) //nolint:gosec // made-up secrets, which check.mjs needs
	require.NoError(t, err)
	t.Log(run(t, dir, b, "node", "check.mjs"))

	made, err := fake.Shop(in.Empty).Exec(`{ products(first: 10) { nodes { vendor } } }`, nil)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(made), in.Vendor), "one product of each package: %s", made)
}

// deliveries are webhooks of all kinds: every topic's sample, what the fake has sent, and the next generation; and one body in both families, forged and not.
func deliveries(sent []webhook.Delivery, secret, other string) (signed, forged, pair []request) {
	for _, topic := range webhooktest.Topics() {
		signed = append(signed, sign(secret, webhook.Delivery{Meta: webhook.Meta{Topic: topic}}))
	}
	for _, d := range sent {
		signed = append(signed, sign(secret, d))
	}
	body := []byte(`{"topic":"Product","action":"update","handle":"changes","title":"Grüner “Tee” 茶 \u00e9","id":9007199254740993,"fields_changed":{"added":[],"updated":["title"],"removed":[]}}` + "\n")
	for _, m := range []webhook.Meta{
		{Topic: "metaobjects/create", SubTopic: "type:lookbook", Name: "my-subscription", Test: true},
		{Family: webhook.Events, Topic: "Product", Action: "update", Handle: "changes", ResourceID: "gid://shopify/Product/1", APIVersion: "unstable"},
	} {
		d := webhook.Delivery{Meta: m, Body: body}
		signed, forged, pair = append(signed, sign(secret, d)), append(forged, sign(other, d)), append(pair, sign(secret, d))
	}
	return signed, forged, pair
}

// need skips the test where there is no Node.js that the packages run on, but for CI, where that fails.
func need(t *testing.T) {
	t.Helper()
	missing := func(why string) {
		if why += " (apt-get install nodejs npm, brew install node)"; os.Getenv("CI") == "" {
			t.Skip(why)
		}
		require.Fail(t, why)
	}
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			missing(name + " is not installed")
		}
	}
	version := strings.TrimSpace(run(t, "", nil, "node", "--version"))
	var major int
	if _, err := fmt.Sscanf(version, "v%d.", &major); err != nil || major < 20 {
		missing("node is " + version + "; the packages need 20")
	}
}

// install puts check.mjs and what it needs into a directory of the test, so that nothing stays behind.
func install(t *testing.T) string {
	t.Helper()
	var lock struct {
		Packages map[string]struct {
			Version string `json:"version"`
		} `json:"packages"`
	}
	b, err := files.ReadFile("package-lock.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &lock))
	for path, p := range lock.Packages {
		if _, name, ok := strings.Cut(path, "node_modules/"); ok {
			t.Logf("npm installs %s %s into a temporary directory", name, p.Version)
		}
	}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, files))
	run(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline")
	return dir
}

// run runs a command, and fails the test with its output if it fails.
func run(t *testing.T, dir string, stdin []byte, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin, cmd.WaitDelay = dir, bytes.NewReader(stdin), 5*time.Second
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	return string(out)
}
