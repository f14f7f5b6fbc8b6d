package shopify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
)

// The sizes of pages that Each may ask for. A page of 250, the most there may be (shopify.dev/docs/api/usage/pagination-graphql), costs little more than one of 50.
var pageSizes = [...]int{250, 150, 100, 50, 25, 10, 5, 2, 1}

// Each goes through all elements of a connection, page by page, and decodes each into a T. The query takes the page's size as $first: Int! and where it begins as $after: String, and asks for nodes, or
// edges { node }, and pageInfo { hasNextPage endCursor }. path is where the connection is in the answer, by response keys with dots between: "products", or "product.variants".
//
//	for p, err := range shopify.Each[Product](ctx, shop, `query($first: Int!, $after: String) {
//		products(first: $first, after: $after) { nodes { id title } pageInfo { hasNextPage endCursor } }
//	}`, nil, "products") {
//
// The size of each page is the largest whose cost suits what is left in the bucket, so that a long walk leaves room for others; "first" among the variables is the most that it may be. An error ends the
// walk; it is one of Query's, and comes with a zero T. Shopify ends pagination at 25,000 elements.
func Each[T any](ctx context.Context, s *Shop, query string, variables map[string]any, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		vars := maps.Clone(variables)
		if vars == nil {
			vars = map[string]any{}
		}
		most, err := mostOf(vars)
		if err != nil {
			yield(none, err)
			return
		}
		for {
			first, err := s.pageSize(query, vars, most)
			if err != nil {
				yield(none, err)
				return
			}
			vars["first"] = first
			data, err := s.graphql(ctx, Request{Query: query, Variables: vars}, nil)
			if err != nil {
				yield(none, err)
				return
			}
			page, err := readPage(data, path)
			if err != nil {
				yield(none, err)
				return
			}
			for _, raw := range page.elements() {
				var v T
				if err := json.Unmarshal(raw, &v); err != nil {
					yield(none, fmt.Errorf("shopify: an element of %s does not fit %T: %w", path, none, err))
					return
				}
				if !yield(v, nil) {
					return
				}
			}
			if !page.PageInfo.HasNextPage {
				return
			}
			if page.PageInfo.EndCursor == vars["after"] || page.PageInfo.EndCursor == "" {
				yield(none, fmt.Errorf("shopify: %s has a next page and no cursor to it: does the query use $after, and ask for pageInfo { hasNextPage endCursor }?", path))
				return
			}
			vars["after"] = page.PageInfo.EndCursor
		}
	}
}

// mostOf is the most that a page may have, 0 where nobody says.
func mostOf(vars map[string]any) (int, error) {
	if vars["first"] == nil {
		return 0, nil
	}
	p, err := plain(map[string]any{"first": vars["first"]})
	if err != nil {
		return 0, err
	}
	most := number(p["first"])
	if most < 1 {
		return 0, fmt.Errorf("shopify: Each: the variable first is %v; want the most that a page may have, 1 or more", vars["first"])
	}
	return most, nil
}

// pageSize is the largest page that costs no more than is left in the bucket, within a tenth and a half of its size: it is one of several calls, of several processes.
func (s *Shop) pageSize(query string, vars map[string]any, most int) (int, error) {
	costs, err := s.client.transport.costsOf(s.client.transport.cfg.Version)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	q := s.left
	s.mu.Unlock()
	budget := float64(MaxCost)
	if q.size > 0 {
		budget = min(budget, max(min(q.left, q.size/2), q.size/10))
	}
	vars = maps.Clone(vars)
	n := 1
	for _, size := range pageSizes {
		if n = size; most > 0 {
			n = min(size, most)
		}
		vars["first"] = n
		cost, err := costs.Of(Request{Query: query, Variables: vars})
		if err == nil && float64(cost) <= budget || err != nil && !errors.Is(err, ErrTooExpensive) {
			break // what can't be computed is Shopify's to say
		}
	}
	return n, nil // if even that is too much, it waits, or is refused
}

// connectionPage is a page of a connection.
type connectionPage struct {
	Nodes []json.RawMessage
	Edges []struct{ Node json.RawMessage }

	PageInfo *struct {
		HasNextPage bool
		EndCursor   string
	}
}

func (p *connectionPage) elements() []json.RawMessage {
	if p.Nodes != nil {
		return p.Nodes
	}
	out := make([]json.RawMessage, len(p.Edges))
	for i, e := range p.Edges {
		out[i] = e.Node
	}
	return out
}

// readPage finds a connection in an answer's data.
func readPage(data json.RawMessage, path string) (*connectionPage, error) {
	at := data
	for key := range strings.SplitSeq(path, ".") {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(at, &m); err != nil || m == nil {
			return nil, fmt.Errorf("shopify: the answer has nothing at %s of %s", key, path)
		}
		next, ok := m[key]
		if !ok {
			return nil, fmt.Errorf("shopify: the answer has no %s of %s", key, path)
		}
		at = next
	}
	var p connectionPage
	if err := json.Unmarshal(at, &p); err != nil {
		return nil, fmt.Errorf("shopify: %s is no connection: %w", path, err)
	}
	if p.PageInfo == nil || p.Nodes == nil && p.Edges == nil {
		return nil, fmt.Errorf("shopify: %s lacks nodes (or edges), or pageInfo { hasNextPage endCursor }", path)
	}
	return &p, nil
}
