package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
)

// header is that of Shopify's product export.
var header = strings.Split("Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Option3 Name,Option3 Value,"+
	"Variant SKU,Variant Grams,Variant Inventory Tracker,Variant Inventory Qty,Variant Inventory Policy,Variant Fulfillment Service,Variant Price,Variant Compare At Price,"+
	"Variant Requires Shipping,Variant Taxable,Variant Barcode,Image Src,Image Position,Image Alt Text,Gift Card,SEO Title,SEO Description,Variant Image,Variant Weight Unit,"+
	"Variant Tax Code,Cost per item,Status", ",")

// sample is a CSV, and what is to come of it.
type sample struct {
	csv  []byte
	good []product
	bad  []badRow
}

// generator makes a sample.
type generator struct {
	rand *rand.Rand
	out  bytes.Buffer
	line int
	sample
	bads int // so far, of those that were made so
}

// generate makes a CSV of so many rows. One in a hundred is bad, in one of nine ways.
func generate(rows int, seed uint64) sample {
	g := &generator{rand: rand.New(rand.NewPCG(seed, 0))}
	g.write(header)
	for n, number := 0, 1; n < rows; number++ {
		n += g.product(number, rows-n)
	}
	g.csv = g.out.Bytes()
	return g.sample
}

func pick[T any](g *generator, from ...T) T { return from[g.rand.IntN(len(from))] }

// product writes a product of one to four variants, most rows at most, and answers how many rows it has.
func (g *generator) product(number, most int) int {
	color, thing := pick(g, "Black", "Oak", "Indigo", "Sand", "Olive"), pick(g, "Backpack", "Desk Lamp", "Rain Jacket", "Teapot", "Notebook", "Wool Blanket")
	title := fmt.Sprintf("%s %s No. %d", color, thing, number)
	handle := strings.ToLower(strings.NewReplacer(" ", "-", ".", "").Replace(title))
	about := fmt.Sprintf("<p class=\"lead\">The %s, made to last. Weighs little, holds much, and looks better every year.</p>\n"+
		"<ul>\n<li>Made in small runs</li>\n<li>Repaired for free, for as long as you have it</li>\n</ul>", strings.ToLower(thing))
	sizes := []string{"S", "M", "L", "XL"}[:min(most, 1+g.rand.IntN(4))]
	orphans := false // the row that brings the product is bad
	for i, size := range sizes {
		p := product{Handle: handle, SKU: fmt.Sprintf("BW-%05d-%s", number, size), Cents: 99 * int64(5+g.rand.IntN(200)), Quantity: int64(g.rand.IntN(500))}
		r := map[string]string{"Handle": handle, "Option1 Value": size, "Variant SKU": p.SKU, "Variant Grams": strconv.Itoa(100 + g.rand.IntN(2000)),
			"Variant Inventory Tracker": "shopify", "Variant Inventory Qty": strconv.FormatInt(p.Quantity, 10), "Variant Inventory Policy": "deny", "Variant Fulfillment Service": "manual",
			"Variant Price": fmt.Sprintf("%d.%02d", p.Cents/100, p.Cents%100), "Variant Requires Shipping": "true", "Variant Taxable": "true", "Variant Weight Unit": "g"}
		if i == 0 {
			p.Title = title
			maps.Copy(r, map[string]string{"Title": title, "Body (HTML)": about, "Vendor": "Breakwater Supply", "Type": thing, "Tags": strings.ToLower(color) + ", sample", "Published": "true",
				"Option1 Name": "Size", "Image Src": "https://cdn.example.com/" + handle + ".jpg", "Image Position": "1", "Image Alt Text": title, "Gift Card": "false", "Status": "active"})
		}
		switch {
		case orphans:
			g.row(r, p, fmt.Sprintf("Title is empty, and no row before has brought the product %q", handle))
		case g.rand.IntN(100) == 0 && len(g.good) > 0:
			g.spoil(r, p)
			orphans = i == 0
		default:
			g.row(r, p, "")
		}
	}
	return len(sizes)
}

// spoil writes a bad row.
func (g *generator) spoil(r map[string]string, p product) {
	g.bads++
	switch g.bads % 9 {
	case 0:
		before := g.good[len(g.good)-1]
		r["Variant SKU"] = before.SKU
		g.row(r, p, fmt.Sprintf("Variant SKU %q is on line %d already", before.SKU, before.Line))
	case 1:
		r["Variant Price"] = pick(g, "12,90", "free", "-1.00", "€ 12.90", "")
		g.row(r, p, fmt.Sprintf("Variant Price %q is no price such as 12.90", r["Variant Price"]))
	case 2:
		r["Handle"], r["Title"] = "no-"+p.Handle, ""
		g.row(r, p, fmt.Sprintf("Title is empty, and no row before has brought the product %q", r["Handle"]))
	case 3:
		r["Handle"] = ""
		g.row(r, p, "Handle is empty")
	case 4:
		r["Variant SKU"] = ""
		g.row(r, p, "Variant SKU is empty")
	case 5:
		r["Variant Inventory Qty"] = "many"
		g.row(r, p, `Variant Inventory Qty "many" is no whole number`)
	case 6: // somebody has joined two columns by hand
		fields := fieldsOf(r)
		g.spoiled(fields[:len(fields)-1], fmt.Sprintf("it has %d fields, the header %d", len(header)-1, len(header)))
	case 7: // 27 inches, not quoted
		g.broken(r, `Screen 27", black`, `there is a " in a field that does not begin with one`)
	case 8: // a field that goes on until the next quote
		g.broken(r, `"Screen, black`, `a field that begins with " has no end, or something behind it`)
	}
}

// row writes a row that is bad for a reason, or good for none.
func (g *generator) row(r map[string]string, p product, reason string) {
	if reason != "" {
		g.spoiled(fieldsOf(r), reason)
		return
	}
	p.Line = g.line + 1
	g.good = append(g.good, p)
	g.write(fieldsOf(r))
}

func (g *generator) spoiled(fields []string, reason string) {
	g.bad = append(g.bad, badRow{g.line + 1, reason})
	g.write(fields)
}

// broken writes a row of a single line whose title is no field of a CSV.
func (g *generator) broken(r map[string]string, title, reason string) {
	r["Title"], r["Body (HTML)"], r["Tags"] = "TITLE", "", ""
	g.bad = append(g.bad, badRow{g.line + 1, reason})
	g.line++
	g.out.WriteString(strings.Replace(encode(fieldsOf(r)), "TITLE", title, 1))
}

func (g *generator) write(fields []string) {
	text := encode(fields)
	g.line += strings.Count(text, "\n")
	g.out.WriteString(text)
}

func encode(fields []string) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(fields) // into memory
	w.Flush()
	return b.String()
}

func fieldsOf(r map[string]string) []string {
	fields := make([]string, len(header))
	for i, name := range header {
		fields[i] = r[name]
	}
	return fields
}
