package shopifytest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
)

// maxPage is how many elements a page may have (shopify.dev/docs/api/usage/pagination-graphql).
const maxPage = 250

// conn is a connection: all that is in it, and what it is ordered by.
type conn struct {
	items []*object
	by    func(*object) string // sorts as text; nil: the ID
	in    *input               // its arguments: first, last, after, before and reverse
	more  map[string]any       // the connection's other fields
}

// cursor is where a page ends: the element's ID, and what it is ordered by.
type cursor struct {
	LastID    int64  `json:"last_id"`
	LastValue string `json:"last_value"`
}

func (c *conn) key(o *object) cursor {
	if c.by == nil {
		return cursor{o.num, fmt.Sprint(o.num)}
	}
	return cursor{o.num, c.by(o)}
}

func (c *conn) compare(a, b cursor) int {
	if c.by != nil {
		if d := strings.Compare(a.LastValue, b.LastValue); d != 0 {
			return d
		}
	}
	return cmp.Compare(a.LastID, b.LastID)
}

func (c cursor) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // a number and a text
	}
	return base64.StdEncoding.EncodeToString(b)
}

func parseCursor(s string) (c cursor, err error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	return c, err
}

// page is what a connection's arguments pick from it.
func (c *conn) page() (items []*object, before, after bool, err error) {
	first, hasFirst := c.in.int("first")
	last, hasLast := c.in.int("last")
	reverse, _ := c.in.bool("reverse")
	from, hasFrom := c.in.str("after")
	to, hasTo := c.in.str("before")
	switch {
	case hasFirst && hasLast:
		return nil, false, false, coded("BAD_REQUEST", "providing both first and last is not supported")
	case !hasFirst && !hasLast:
		return nil, false, false, coded("BAD_REQUEST", "you must provide one of first or last")
	case first < 0 || last < 0:
		return nil, false, false, coded("BAD_REQUEST", "first and last must not be negative")
	case first > maxPage || last > maxPage:
		return nil, false, false, coded("BAD_REQUEST", "a page has at most %d elements, and %d are asked for", maxPage, max(first, last))
	}
	items = slices.Clone(c.items)
	order := func(a, b cursor) int {
		if reverse {
			return c.compare(b, a)
		}
		return c.compare(a, b)
	}
	slices.SortStableFunc(items, func(a, b *object) int { return order(c.key(a), c.key(b)) })
	// cut drops what the cursor says, and says whether that was something.
	cut := func(s string, keep func(int) bool) (bool, error) {
		at, err := parseCursor(s)
		if err != nil {
			return false, coded("BAD_REQUEST", "Invalid cursor for current pagination sort.")
		}
		n := len(items)
		items = slices.DeleteFunc(items, func(o *object) bool { return !keep(order(c.key(o), at)) })
		return len(items) < n, nil
	}
	if hasFrom {
		if before, err = cut(from, func(d int) bool { return d > 0 }); err != nil {
			return nil, false, false, err
		}
	}
	if hasTo {
		if after, err = cut(to, func(d int) bool { return d < 0 }); err != nil {
			return nil, false, false, err
		}
	}
	if hasFirst && first < len(items) {
		items, after = items[:first], true
	}
	if hasLast && last < len(items) {
		items, before = items[len(items)-last:], true
	}
	return items, before, after, nil
}

// connection answers what is selected of a connection.
func (x *execution) connection(def *ast.Definition, c *conn, s selected, path []any) (any, error) {
	items, before, after, err := c.page()
	if unread := c.in.unread(); err == nil && unread != "" {
		err = unsupported("the argument %s of %s", unread, s.field.Name)
	}
	if err != nil {
		x.fail(err, s.field, path)
		return nil, errNull
	}
	info := map[string]any{"hasPreviousPage": before, "hasNextPage": after, "startCursor": nil, "endCursor": nil}
	if len(items) > 0 {
		info["startCursor"], info["endCursor"] = c.key(items[0]).String(), c.key(items[len(items)-1]).String()
	}
	edges := make([]*object, len(items))
	edge := def.Fields.ForName("edges").Type.Name()
	for i, o := range items {
		edges[i] = value(edge, map[string]any{"node": o, "cursor": c.key(o).String()})
	}
	f := map[string]any{"nodes": items, "edges": edges, "pageInfo": value("PageInfo", info)}
	maps.Copy(f, c.more)
	return x.object(def, value(def.Name, f), s.sets, path)
}
