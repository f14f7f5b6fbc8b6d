package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// merchant changes the shop's products. He has shelves with one product each, which is how the readers find them: the first shelves are those that most people look at, and he too.
type merchant struct {
	shop    *shopifytest.Shop
	history *history
	rng     *rand.Rand
	pick    *rand.Zipf
	shelves []atomic.Int64 // the products' IDs
	goods   []good         // on them
	changes int
	empty   int // the shelf whose product was deleted; -1 for none
	made    int
	last    int64 // the ID of the product that was made last
	step    int64 // from one product's ID to the next one's
}

// good is a product as the merchant knows it.
type good struct {
	variant string
	name    string
	edition int
	changes int // of its price
}

func newMerchant(shop *shopifytest.Shop, h *history, o options) *merchant {
	rng := rand.New(rand.NewPCG(o.Seed, 1))
	return &merchant{shop: shop, history: h, rng: rng, pick: popular(rng, o.Products), shelves: make([]atomic.Int64, o.Products), goods: make([]good, o.Products), empty: -1}
}

// popular picks shelves: a few are looked at by most.
func popular(rng *rand.Rand, shelves int) *rand.Zipf {
	return rand.NewZipf(rng, 1.1, 3, uint64(shelves-1)) //nolint:gosec // at least one
}

// stock fills the shelves.
func (m *merchant) stock() error {
	for i := range m.shelves {
		if err := m.create(i); err != nil {
			return err
		}
	}
	return nil
}

// run changes something every so often, until ctx ends.
func (m *merchant) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := m.change(); err != nil {
			return fmt.Errorf("the merchant: %w", err)
		}
	}
}

// turnover is how many changes there are from one new product to the next. In between a product is deleted, and people go on looking for it; then its successor is announced, and they look for that before it is there.
const turnover = 36

func (m *merchant) change() error {
	m.changes++
	shelf := int(m.pick.Uint64()) //nolint:gosec // a shelf
	switch m.changes % turnover {
	case turnover / 3:
		m.empty = shelf
		return m.remove(shelf)
	case turnover * 2 / 3:
		m.shelves[m.empty].Store(m.last + m.step)
		return nil
	case 0:
		shelf, m.empty = m.empty, -1
		return m.create(shelf)
	}
	if shelf == m.empty {
		return nil
	}
	if m.rng.IntN(2) == 0 {
		return m.retitle(shelf)
	}
	return m.reprice(shelf)
}

func (m *merchant) id(shelf int) string { return strconv.FormatInt(m.shelves[shelf].Load(), 10) }

func (m *merchant) gid(shelf int) string { return keyOf(m.id(shelf)).GID() }

// exec is free of quota and latency: what the merchant does is done when it returns.
func (m *merchant) exec(query string, variables map[string]any, into any) error {
	data, err := m.shop.Exec(query, variables)
	if err == nil && into != nil {
		err = json.Unmarshal(data, into)
	}
	return err
}

func (m *merchant) create(shelf int) error {
	m.made++
	g := good{name: fmt.Sprintf("Lamp %d", m.made), edition: 1}
	var got struct {
		ProductCreate struct {
			Product struct {
				ID       string
				Variants struct{ Nodes []struct{ ID string } }
			}
		}
	}
	err := m.exec(`mutation($title: String!) { productCreate(product: {title: $title}) { product { id variants(first: 1) { nodes { id } } } userErrors { message } } }`,
		map[string]any{"title": titled(g.name, g.edition)}, &got)
	if err != nil {
		return err
	}
	p := got.ProductCreate.Product
	text := strings.TrimPrefix(shopify.Subject(p.ID), "product/")
	m.history.committed(text, time.Now())
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	g.variant = p.Variants.Nodes[0].ID
	m.goods[shelf] = g
	m.shelves[shelf].Store(id)
	m.step, m.last = id-m.last, id
	return nil
}

func (m *merchant) retitle(shelf int) error {
	g := &m.goods[shelf]
	g.edition++
	err := m.exec(`mutation($id: ID!, $title: String!) { productUpdate(product: {id: $id, title: $title}) { userErrors { message } } }`,
		map[string]any{"id": m.gid(shelf), "title": titled(g.name, g.edition)}, nil)
	m.history.committed(m.id(shelf), time.Now())
	return err
}

func (m *merchant) reprice(shelf int) error {
	g := &m.goods[shelf]
	g.changes++
	err := m.exec(`mutation($id: ID!, $variants: [ProductVariantsBulkInput!]!) { productVariantsBulkUpdate(productId: $id, variants: $variants) { userErrors { message } } }`,
		map[string]any{"id": m.gid(shelf), "variants": []any{map[string]any{"id": g.variant, "price": priced(g.changes)}}}, nil)
	m.history.committed(m.id(shelf), time.Now())
	return err
}

func (m *merchant) remove(shelf int) error {
	m.history.ending(m.id(shelf), time.Now())
	return m.exec(`mutation($id: ID!) { productDelete(input: {id: $id}) { deletedProductId userErrors { message } } }`, map[string]any{"id": m.gid(shelf)}, nil)
}
