package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// target checks where webhooks go.
func target(name, to, secret string) (string, string, error) {
	secret = cmp.Or(secret, os.Getenv("SHOPIFY_API_SECRET"))
	u, err := url.Parse(to)
	switch {
	case err != nil || u.Host == "":
		return "", "", fmt.Errorf("%w: %s %q is not a URL such as http://localhost:8080/webhooks", errUsage, name, to)
	case secret == "":
		return "", "", fmt.Errorf("%w: -secret is empty and $SHOPIFY_API_SECRET is not set", errUsage)
	}
	return to, secret, nil
}

// storm plays a sale: orders come ever faster and then fewer, some are changed a moment later, and the webhooks come as Shopify's do on a bad day.
func storm(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("fakeshop storm", flag.ContinueOnError)
	var f shopFlags
	f.register(flags)
	to := flags.String("to", "", "`URL` of the app's handler of webhooks")
	secret := flags.String("secret", "", "`secret` that webhooks are signed with; $SHOPIFY_API_SECRET by default")
	orders := flags.Int("orders", 1000, "how many orders there are")
	last := flags.Duration("for", time.Minute, "how `long` the sale lasts")
	retry := flags.Float64("retry", 60, "how many `times` faster than Shopify failed webhooks are sent again")
	if err := parse(flags, args, stdout); err != nil {
		return helped(err)
	}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	switch {
	case *to == "":
		return fmt.Errorf("%w: storm: no -to given, the URL of the app's handler", errUsage)
	case *orders < 1 || *last <= 0 || !(*retry > 0):
		return fmt.Errorf("%w: storm: -orders, -for and -retry must be more than 0", errUsage)
	}
	url, key, err := target("-to", *to, *secret)
	if err != nil {
		return err
	}
	var happened []webhook.Delivery
	hear := func(d webhook.Delivery) { happened = append(happened, d) }
	cfg.OnWebhook = func(d webhook.Delivery) { hear(d) }
	fake, err := shopifytest.New(cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	shop := fake.Shop(f.shop)
	variants, err := stock(shop, max(1, f.products))
	if err != nil {
		return err
	}
	happened = nil
	rng := rand.New(rand.NewPCG(f.seed, 1))
	deliveries, err := sale(shop, rng, variants, *orders, *last, &happened)
	if err != nil {
		return err
	}
	// What the app changes itself from here on it hears of too, from a sender that plays no tricks.
	plain, err := webhooktest.NewSender(url, key, webhooktest.Config{RetrySpeed: *retry})
	if err != nil {
		return err
	}
	hear = func(d webhook.Delivery) { go plain.Send(ctx, []webhooktest.Outgoing{{Delivery: d}}) } //nolint:errcheck // what fails there is the app's to find out
	var slow latencies
	sender, err := webhooktest.NewSender(url, key, webhooktest.Config{
		Seed: f.seed, Duplicate: 0.1, Reorder: 0.05, Slow: 0.02, Cut: 0.01, RetrySpeed: *retry, OnAttempt: slow.note,
	})
	if err != nil {
		return err
	}
	return listen(ctx, f.addr, fake, func(addr string) error {
		fmt.Fprintf(stdout, "Admin API: http://%s/admin/api/2026-04/graphql.json, shop %s\n%d webhooks of %d orders to %s, in %s\n", addr, f.shop, len(deliveries), *orders, url, *last)
		ledger, err := sender.Send(ctx, deliveries)
		if err != nil {
			return err
		}
		s := shop.Stats()
		fmt.Fprintf(stdout, "webhooks: sent %d, acknowledged %d, given up %d, dropped %d; sent again %d, twice %d, out of order %d; answered in %s (median), %s (99 of 100)\n",
			ledger.Sent, ledger.Acknowledged, ledger.GivenUp, ledger.Dropped, ledger.Redelivered, ledger.Duplicated, ledger.Reordered, slow.share(0.5), slow.share(0.99))
		fmt.Fprintf(stdout, "Admin API: requests %d, throttled %d, points used %.0f\n", s.Requests, s.Throttled, s.Points)
		if ledger.Acknowledged < len(deliveries) {
			return fmt.Errorf("%d of %d webhooks were not acknowledged", len(deliveries)-ledger.Acknowledged, len(deliveries))
		}
		return nil
	})
}

// latencies are how long the answers took.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) note(a webhooktest.Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.OK() && !a.Slow {
		l.all = append(l.all, a.End.Sub(a.Start))
	}
}

func (l *latencies) share(of float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[int(of*float64(len(l.all)-1))].Round(100 * time.Microsecond)
}

// made is what the storm reads of answers.
type made struct {
	ProductCreate struct {
		Product struct {
			ID       string
			Variants struct {
				Nodes []struct {
					ID            string
					InventoryItem struct{ ID string }
				}
			}
		}
	}
	OrderCreate struct{ Order struct{ ID string } }
	Locations   struct{ Nodes []struct{ ID string } }
}

func exec(shop *shopifytest.Shop, query string, vars map[string]any) (made, error) {
	var m made
	b, err := shop.Exec(query, vars)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// stock makes products, and returns their variants.
func stock(shop *shopifytest.Shop, products int) (variants []string, err error) {
	location, err := exec(shop, `{ locations(first: 1) { nodes { id } } }`, nil)
	if err != nil {
		return nil, err
	}
	for i := range products {
		m, err := exec(shop, `mutation($title: String!) { productCreate(product: {title: $title, vendor: "Fakeshop", status: ACTIVE}) { product { id variants(first: 1) { nodes { id inventoryItem { id } } } } userErrors { field message } } }`, map[string]any{"title": fmt.Sprintf("Product %d", i+1)})
		if err != nil {
			return nil, err
		}
		v := m.ProductCreate.Product.Variants.Nodes[0]
		variants = append(variants, v.ID)
		if _, err := shop.Exec(`mutation($p: ID!, $v: ID!, $price: Money!, $sku: String!) { productVariantsBulkUpdate(productId: $p, variants: [{id: $v, price: $price, inventoryItem: {tracked: true, sku: $sku}}]) { userErrors { field message } } }`,
			map[string]any{"p": m.ProductCreate.Product.ID, "v": v.ID, "price": fmt.Sprintf("%d.99", 5+i%90), "sku": fmt.Sprintf("SKU-%d", i+1)}); err != nil {
			return nil, err
		}
		if _, err := shop.Exec(`mutation($i: ID!, $l: ID!, $key: String!) { inventorySetQuantities(input: {name: "available", reason: "received", quantities: [{inventoryItemId: $i, locationId: $l, quantity: 100, changeFromQuantity: 0}]}) @idempotent(key: $key) { userErrors { field message } } }`,
			map[string]any{"i": v.InventoryItem.ID, "l": location.Locations.Nodes[0].ID, "key": v.ID}); err != nil {
			return nil, err
		}
	}
	return variants, nil
}

// sale makes the orders, and says when the webhooks of each are due: most of them in the middle of the sale, those of a change up to three seconds after the order's own.
func sale(shop *shopifytest.Shop, rng *rand.Rand, variants []string, orders int, last time.Duration, happened *[]webhook.Delivery) ([]webhooktest.Outgoing, error) {
	var all []webhooktest.Outgoing
	take := func(at time.Duration) {
		for _, d := range *happened {
			all = append(all, webhooktest.Outgoing{At: at, Delivery: d})
		}
		*happened = nil
	}
	for i := range orders {
		at := time.Duration((rng.Float64() + rng.Float64()) / 2 * float64(last))
		order := map[string]any{
			"email": fmt.Sprintf("buyer%d@example.com", i), "financialStatus": "PENDING", "customer": map[string]any{"toUpsert": map[string]any{"email": fmt.Sprintf("buyer%d@example.com", i%max(1, orders*2/3)), "firstName": "Buyer"}},
			"lineItems": []any{map[string]any{"variantId": variants[rng.IntN(len(variants))], "quantity": 1 + rng.IntN(3)}},
		}
		m, err := exec(shop, `mutation($order: OrderCreateOrderInput!) { orderCreate(order: $order, options: {inventoryBehaviour: DECREMENT_IGNORING_POLICY}) { order { id } userErrors { field message } } }`, map[string]any{"order": order})
		if err != nil {
			return nil, err
		}
		take(at)
		if rng.Float64() < 0.3 {
			if _, err := shop.Exec(`mutation($id: ID!) { orderMarkAsPaid(input: {id: $id}) { userErrors { field message } } }`, map[string]any{"id": m.OrderCreate.Order.ID}); err != nil {
				return nil, err
			}
			take(at + time.Duration(rng.Float64()*3*float64(time.Second)))
		}
	}
	return all, nil
}
