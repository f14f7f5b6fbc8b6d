package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// product is what is imported of a row: one variant of a product. The first row of a product has its title, the rows of its
// other variants have the handle alone.
type product struct {
	Line     int
	Handle   string
	Title    string
	SKU      string
	Cents    int64
	Quantity int64
}

// badRow is a row that is not imported.
type badRow struct {
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

var price = regexp.MustCompile(`^([0-9]{1,9})(?:\.([0-9]{1,2}))?$`)

// product checks what can be known from a row alone. reason says why it is none.
func (c *columns) product(r row) (p product, reason string) {
	if r.bad != "" {
		return p, r.bad
	}
	field := func(i int) string { return strings.TrimSpace(r.fields[i]) }
	p = product{Line: r.line, Handle: field(c.handle), Title: field(c.title), SKU: field(c.sku)}
	if p.Handle == "" {
		return p, "Handle is empty"
	}
	if p.SKU == "" {
		return p, "Variant SKU is empty"
	}
	parts := price.FindStringSubmatch(field(c.price))
	if parts == nil {
		return p, fmt.Sprintf("Variant Price %s is no price such as 12.90", quote(field(c.price)))
	}
	p.Cents, _ = strconv.ParseInt(parts[1]+(parts[2] + "00")[:2], 10, 64) // digits, and not too many
	if q := field(c.quantity); q != "" {
		var err error
		if p.Quantity, err = strconv.ParseInt(q, 10, 32); err != nil {
			return p, fmt.Sprintf("Variant Inventory Qty %s is no whole number", quote(q))
		}
	}
	return p, ""
}

// quote shows a field, of which only the beginning may be needed to find it.
func quote(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}
