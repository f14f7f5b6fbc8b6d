package shopifytest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// resource is something that the REST API lists.
type resource struct {
	typ    string
	parent string                          // the field of an object that a nested path filters by
	filter map[string]func(*object) string // query parameters that it can be filtered by
}

// resources are those that apps still read over REST.
var resources = map[string]resource{
	"products": {typ: "Product", filter: map[string]func(*object) string{
		"vendor": text("vendor"), "handle": text("handle"), "product_type": text("productType"), "title": text("title"), "status": func(o *object) string { return strings.ToLower(o.str("status")) },
	}},
	"variants": {typ: "ProductVariant", parent: "product"},
	"orders": {typ: "Order", filter: map[string]func(*object) string{
		"financial_status": func(o *object) string { return strings.ToLower(o.str("displayFinancialStatus")) }, "name": text("name"),
		"status": func(o *object) string {
			switch {
			case !o.time("cancelledAt").IsZero():
				return "cancelled"
			case o.f["closed"] == true:
				return "closed"
			}
			return "open"
		},
	}},
	"customers":        {typ: "Customer", filter: map[string]func(*object) string{"email": text("email")}},
	"locations":        {typ: "Location"},
	"inventory_items":  {typ: "InventoryItem"},
	"inventory_levels": {typ: "InventoryLevel"},
}

func text(field string) func(*object) string { return func(o *object) string { return o.str(field) } }

// rest answers a REST request: lists with Link paging, single resources and counts.
func (c *call) rest(path string) {
	s := c.shop
	s.mu.Lock()
	s.stats.Requests++
	a := s.app(c.token)
	ok := a.calls.take(1, s.plan.Calls, s.plan.CallsPerSecond)
	c.w.Header().Set("X-Shopify-Shop-Api-Call-Limit", fmt.Sprintf("%d/%.0f", a.calls.level(), s.plan.Calls))
	wait := 1.0
	if !ok {
		s.stats.Throttled++
		wait = (1 - (s.plan.Calls - a.calls.used)) / s.plan.CallsPerSecond
	}
	rate := s.plan.CallsPerSecond
	s.mu.Unlock()
	if !c.wait() { // a refusal takes its time too
		return
	}
	if !ok {
		c.w.Header().Set("Retry-After", strconv.FormatFloat(max(1, wait), 'f', 1, 64))
		c.finish(http.StatusTooManyRequests, map[string]any{"errors": fmt.Sprintf("Exceeded %.0f calls per second for api client. Reduce request rates to resume uninterrupted service.", rate)}, nil)
		return
	}
	status, body := c.locked(strings.Split(path, "/"))
	c.finish(status, body, nil)
}

func (c *call) locked(parts []string) (int, any) {
	c.shop.mu.Lock()
	defer c.shop.mu.Unlock()
	return c.read(parts)
}

var notFound = map[string]any{"errors": "Not Found"}

func (c *call) read(parts []string) (int, any) {
	s := c.shop
	if c.r.Method != http.MethodGet {
		return http.StatusNotImplemented, map[string]any{"errors": "shopifytest does not support changes over REST: use GraphQL"}
	}
	if len(parts) == 1 && parts[0] == "shop" {
		return http.StatusOK, map[string]any{"shop": s.rest(s.lists["Shop"][0])}
	}
	var parent *object
	if len(parts) == 3 && parts[0] == "products" && parts[2] == "variants" {
		if parent = c.byNumber("Product", parts[1]); parent == nil {
			return http.StatusNotFound, notFound
		}
		parts = parts[2:]
	}
	res, ok := resources[parts[0]]
	if !ok || len(parts) > 2 || parts[0] == "variants" && len(parts) == 1 && parent == nil {
		return http.StatusNotImplemented, map[string]any{"errors": "shopifytest does not support " + strings.Join(parts, "/") + ".json"}
	}
	if scope := scopeOf[res.typ]; scope != "" && !granted(c.server.cfg.Scopes, "read_", scope) {
		return http.StatusForbidden, map[string]any{"errors": fmt.Sprintf("[API] This action requires merchant approval for read_%s scope.", scope)}
	}
	if len(parts) == 2 && parts[1] != "count" {
		o := c.byNumber(res.typ, parts[1])
		if o == nil {
			return http.StatusNotFound, notFound
		}
		return http.StatusOK, map[string]any{strings.TrimSuffix(parts[0], "s"): pick(s.rest(o), c.r.URL.Query().Get("fields"))}
	}
	q := c.r.URL.Query()
	items, err := c.filtered(res, parent, q)
	if err != "" {
		return http.StatusBadRequest, map[string]any{"errors": err}
	}
	if len(parts) == 2 {
		return http.StatusOK, map[string]any{"count": len(items)}
	}
	return c.list(parts[0], items, q)
}

func (c *call) byNumber(typ, number string) *object {
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil
	}
	return c.shop.find(newGID(typ, n))
}

// pick leaves what the parameter fields names.
func pick(m map[string]any, names string) map[string]any {
	if names == "" {
		return m
	}
	out := map[string]any{}
	for n := range strings.SplitSeq(names, ",") {
		if v, ok := m[strings.TrimSpace(n)]; ok {
			out[strings.TrimSpace(n)] = v
		}
	}
	return out
}

// filtered are a resource's objects that the parameters leave.
func (c *call) filtered(res resource, parent *object, q url.Values) (items []*object, problem string) {
	items = slices.Clone(c.shop.lists[res.typ])
	keep := func(f func(*object) bool) { items = slices.DeleteFunc(items, func(o *object) bool { return !f(o) }) }
	if parent != nil {
		keep(func(o *object) bool { return o.f[res.parent] == parent.id })
	}
	if res.typ == "Order" && !q.Has("status") && !q.Has("page_info") {
		q.Set("status", "open") // REST's default
	}
	if info := q.Get("page_info"); info != "" { // it holds the filters of the first page
		var p pageInfo
		if b, err := base64.RawURLEncoding.DecodeString(info); err != nil || json.Unmarshal(b, &p) != nil {
			return nil, "page_info is not valid"
		}
		for k := range q {
			if k != "page_info" && k != "limit" && k != "fields" {
				return nil, k + " can't be passed together with page_info"
			}
		}
		old, err := url.ParseQuery(p.Filters)
		if err != nil {
			return nil, "page_info is not valid"
		}
		for k := range old {
			q[k] = old[k]
		}
	}
	for k, values := range q {
		v := values[0]
		switch k {
		case "limit", "fields", "page_info":
		case "since_id":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return nil, k + " is no number"
			}
			keep(func(o *object) bool { return o.num > n })
		case "ids":
			keep(func(o *object) bool { return slices.Contains(strings.Split(v, ","), strconv.FormatInt(o.num, 10)) })
		case "created_at_min", "created_at_max", "updated_at_min", "updated_at_max":
			t, err := time.Parse(time.RFC3339, v)
			if err != nil {
				return nil, k + " is no time"
			}
			field := map[string]string{"created": "createdAt", "updated": "updatedAt"}[k[:7]]
			keep(func(o *object) bool {
				d := o.time(field).Compare(t)
				return d >= 0 && strings.HasSuffix(k, "min") || d <= 0 && strings.HasSuffix(k, "max")
			})
		case "inventory_item_ids", "location_ids":
			field := map[string]string{"inventory_item_ids": "item", "location_ids": "location"}[k]
			if res.typ != "InventoryLevel" {
				return nil, "shopifytest does not support the parameter " + k
			}
			keep(func(o *object) bool { return slices.Contains(strings.Split(v, ","), number(o.f[field].(gid))) })
		default:
			f := res.filter[k]
			if f == nil {
				return nil, "shopifytest does not support the parameter " + k
			}
			keep(func(o *object) bool { return v == "any" && strings.HasSuffix(k, "status") || f(o) == v })
		}
	}
	return items, ""
}

// pageInfo is what a page_info holds.
type pageInfo struct {
	Last    int64  `json:"last_id"`
	Back    bool   `json:"back,omitempty"`
	Filters string `json:"filters,omitempty"`
}

func (c *call) list(name string, items []*object, q url.Values) (int, any) {
	limit := 50
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxPage {
			return http.StatusBadRequest, map[string]any{"errors": "limit must be from 1 to 250"}
		}
		limit = n
	}
	start, end := 0, min(limit, len(items))
	if info := q.Get("page_info"); info != "" {
		var p pageInfo
		b, _ := base64.RawURLEncoding.DecodeString(info) // filtered has read it
		_ = json.Unmarshal(b, &p)
		if p.Back {
			end, _ = slices.BinarySearchFunc(items, p.Last, func(o *object, n int64) int { return cmp.Compare(o.num, n) })
			start = max(0, end-limit)
		} else {
			start, _ = slices.BinarySearchFunc(items, p.Last+1, func(o *object, n int64) int { return cmp.Compare(o.num, n) })
			end = min(start+limit, len(items))
		}
	}
	page := items[start:end]
	filters := url.Values{}
	for k, v := range q {
		if k != "limit" && k != "fields" && k != "page_info" {
			filters[k] = v
		}
	}
	link := func(last int64, back bool, rel string) string {
		b, err := json.Marshal(pageInfo{last, back, filters.Encode()})
		if err != nil {
			panic(err) // numbers and texts
		}
		v := url.Values{"limit": {strconv.Itoa(limit)}, "page_info": {base64.RawURLEncoding.EncodeToString(b)}}
		if f := q.Get("fields"); f != "" {
			v.Set("fields", f)
		}
		path := strings.TrimPrefix(c.r.URL.Path, "/"+c.shop.Domain) // Shopify's has no shop in it
		return fmt.Sprintf("<https://%s%s?%s>; rel=%q", c.shop.Domain, path, v.Encode(), rel)
	}
	var links []string
	if start > 0 && len(page) > 0 {
		links = append(links, link(page[0].num, true, "previous"))
	}
	if end < len(items) && len(page) > 0 {
		links = append(links, link(page[len(page)-1].num, false, "next"))
	}
	if links != nil {
		c.w.Header().Set("Link", strings.Join(links, ", "))
	}
	out := make([]any, len(page))
	for i, o := range page {
		out[i] = pick(c.shop.rest(o), q.Get("fields"))
	}
	return http.StatusOK, map[string]any{name: out}
}
