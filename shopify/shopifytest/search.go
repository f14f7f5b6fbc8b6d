package shopifytest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// term is a part of a search query, in the syntax of shopify.dev/docs/api/usage/search-syntax.
type term struct {
	field, op, value string // op is "", "<", "<=", ">" or ">="
	not              bool
	any              []term // instead: one of them
	all              []term // instead: all of them
}

// search is what a connection's argument query leaves of a type's objects.
func (x *execution) search(typ string, in *input) ([]*object, error) {
	return filter(x.shop, typ, x.shop.lists[typ], in)
}

func filter(s *Shop, typ string, all []*object, in *input) ([]*object, error) {
	q, _ := in.str("query")
	p := searchParser{words: words(q)}
	t, err := p.or()
	if err != nil {
		return nil, err
	}
	if len(p.words) > 0 {
		return nil, coded("BAD_REQUEST", "the search query has a ) too many")
	}
	var found []*object
	for _, o := range all {
		ok, err := s.matches(typ, o, t)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, o)
		}
	}
	return found, s.known(typ, t)
}

// words takes a query apart: parentheses, and what is between spaces, with quotes taken off.
func words(q string) []string {
	var out []string
	var word strings.Builder
	quote := rune(0)
	flush := func() {
		if word.Len() > 0 {
			out = append(out, word.String())
			word.Reset()
		}
	}
	escaped := false
	for _, r := range q {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote = r
			word.WriteRune(0) // quoted: neither an operator nor empty
		case r == '(' || r == ')':
			flush()
			out = append(out, string(r))
		case unicode.IsSpace(r):
			flush()
		default:
			word.WriteRune(r)
		}
	}
	flush()
	return out
}

type searchParser struct {
	words []string
	depth int
}

func (p *searchParser) or() (term, error) {
	if p.depth++; p.depth > 50 {
		return term{}, coded("BAD_REQUEST", "the search query is too deep")
	}
	defer func() { p.depth-- }()
	t, err := p.and()
	if err != nil {
		return t, err
	}
	some := []term{t}
	for len(p.words) > 0 && p.words[0] == "OR" {
		p.words = p.words[1:]
		if t, err = p.and(); err != nil {
			return t, err
		}
		some = append(some, t)
	}
	if len(some) == 1 {
		return t, nil
	}
	return term{any: some}, nil
}

func (p *searchParser) and() (term, error) {
	all := []term{}
	for len(p.words) > 0 && p.words[0] != "OR" && p.words[0] != ")" {
		if p.words[0] == "AND" {
			p.words = p.words[1:]
			continue
		}
		t, err := p.one()
		if err != nil {
			return t, err
		}
		all = append(all, t)
	}
	return term{all: all}, nil
}

func (p *searchParser) one() (term, error) {
	if p.depth++; p.depth > 50 {
		return term{}, coded("BAD_REQUEST", "the search query is too deep")
	}
	defer func() { p.depth-- }()
	word := p.words[0]
	p.words = p.words[1:]
	switch {
	case (word == "NOT" || word == "-") && len(p.words) > 0:
		t, err := p.one()
		t.not = !t.not
		return t, err
	case word == "(":
		t, err := p.or()
		if len(p.words) > 0 && p.words[0] == ")" { // one that is missing is no mistake to Shopify
			p.words = p.words[1:]
		}
		return t, err
	}
	t := term{}
	if rest, ok := strings.CutPrefix(word, "-"); ok {
		t.not, word = true, rest
	}
	field, v, ok := strings.Cut(word, ":")
	if !ok || strings.Contains(field, "\x00") {
		t.value = word
	} else {
		t.field, t.value = field, v
		for _, op := range []string{">=", "<=", ">", "<"} {
			if rest, ok := strings.CutPrefix(t.value, op); ok {
				t.op, t.value = op, rest
				break
			}
		}
		if t.value == "" && len(p.words) > 0 && t.op != "" { // a space between
			t.value, p.words = p.words[0], p.words[1:]
		}
	}
	t.value = strings.ReplaceAll(t.value, "\x00", "")
	return t, nil
}

// searchable says what the fields of a query mean, by type: a field of the object, or a function.
var searchable = map[string]map[string]func(*Shop, *object) any{
	"Product": {
		"title": in("title"), "status": in("status"), "vendor": in("vendor"), "product_type": in("productType"), "handle": in("handle"), "tag": in("tags"),
		"sku":     func(s *Shop, o *object) any { return each(s.variants(o), "sku") },
		"barcode": func(s *Shop, o *object) any { return each(s.variants(o), "barcode") },
	},
	"ProductVariant": {
		"sku": in("sku"), "barcode": in("barcode"), "title": in("title"),
		"product_id":        func(_ *Shop, o *object) any { return number(o.f["product"].(gid)) },
		"inventory_item_id": func(_ *Shop, o *object) any { return number(o.f["inventoryItem"].(gid)) },
	},
	"Order": {
		"name": in("name"), "email": in("email"), "financial_status": in("displayFinancialStatus"), "fulfillment_status": in("displayFulfillmentStatus"), "tag": in("tags"), "processed_at": in("processedAt"), "po_number": in("poNumber"),
		"source_name": in("sourceName"), "test": in("test"),
		"customer_id": func(_ *Shop, o *object) any {
			if c, ok := o.f["customer"].(gid); ok {
				return number(c)
			}
			return nil
		},
		"status": func(_ *Shop, o *object) any {
			switch {
			case !o.time("cancelledAt").IsZero():
				return []string{"any", "cancelled"}
			case o.f["closed"] == true:
				return []string{"any", "closed"}
			}
			return []string{"any", "open"}
		},
	},
	"Customer":       {"email": in("email"), "phone": in("phone"), "first_name": in("firstName"), "last_name": in("lastName"), "tag": in("tags"), "state": in("state")},
	"InventoryItem":  {"sku": in("sku")},
	"InventoryLevel": {"inventory_item_id": func(_ *Shop, o *object) any { return number(o.f["item"].(gid)) }},
	"Location":       {"name": in("name"), "active": in("isActive")},
}

func in(field string) func(*Shop, *object) any {
	return func(_ *Shop, o *object) any { return o.f[field] }
}

func each(all []*object, field string) []string {
	var out []string
	for _, o := range all {
		out = append(out, o.str(field))
	}
	return out
}

// known complains of fields that a query names and the fake does not search.
func (s *Shop) known(typ string, t term) error {
	for _, t := range slices.Concat(t.any, t.all) {
		if err := s.known(typ, t); err != nil {
			return err
		}
	}
	switch t.field {
	case "", "id", "created_at", "updated_at":
		return nil
	}
	if searchable[typ][t.field] == nil {
		return unsupported("the search field %s of %s", t.field, typ)
	}
	return nil
}

func (s *Shop) matches(typ string, o *object, t term) (bool, error) {
	yes, err := s.match(typ, o, t)
	return yes != t.not, err
}

func (s *Shop) match(typ string, o *object, t term) (bool, error) {
	if t.any != nil {
		for _, t := range t.any {
			if ok, err := s.matches(typ, o, t); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	if t.all != nil {
		for _, t := range t.all {
			if ok, err := s.matches(typ, o, t); !ok || err != nil {
				return ok, err
			}
		}
		return true, nil
	}
	switch t.field {
	case "":
		return s.mentions(o, t.value), nil
	case "id":
		n, err := strconv.ParseInt(t.value[strings.LastIndex(t.value, "/")+1:], 10, 64)
		return err == nil && compared(cmp.Compare(o.num, n), t.op), nil
	case "created_at":
		return when(o.time("createdAt"), t)
	case "updated_at":
		return when(o.time("updatedAt"), t)
	}
	f := searchable[typ][t.field]
	if f == nil {
		return false, unsupported("the search field %s of %s", t.field, typ)
	}
	switch v := f(s, o).(type) {
	case time.Time:
		return when(v, t)
	case []string:
		return slices.ContainsFunc(v, func(s string) bool { return likeAny(s, t.value) }), compares(typ, t)
	case nil:
		return t.value == "" && t.op == "", nil
	default:
		have := fmt.Sprint(v)
		if t.op != "" {
			a, aerr := strconv.ParseFloat(have, 64)
			b, berr := strconv.ParseFloat(t.value, 64)
			if aerr != nil || berr != nil {
				return false, compares(typ, t)
			}
			return compared(cmp.Compare(a, b), t.op), nil
		}
		return likeAny(have, t.value), nil
	}
}

// compares complains of a comparison of what is no number or time.
func compares(typ string, t term) error {
	if t.op == "" {
		return nil
	}
	return unsupported("the comparison %s of the search field %s of %s", t.op, t.field, typ)
}

// likeAny is like, for any of a list.
func likeAny(have, list string) bool {
	for want := range strings.SplitSeq(list, ",") {
		if like(have, want) {
			return true
		}
	}
	return false
}

// mentions says whether an object has a word somewhere, as a query without a field asks.
func (s *Shop) mentions(o *object, word string) bool {
	for _, f := range []string{"title", "name", "vendor", "productType", "handle", "sku", "barcode", "email", "firstName", "lastName", "phone", "note"} {
		if strings.Contains(strings.ToLower(o.str(f)), strings.ToLower(strings.TrimSuffix(word, "*"))) {
			return true
		}
	}
	return o.typ == "Product" && slices.ContainsFunc(s.variants(o), func(v *object) bool { return s.mentions(v, word) })
}

// like compares without regard to case; a star at the end stands for anything.
func like(have, want string) bool {
	have, want = strings.ToLower(have), strings.ToLower(want)
	if prefix, ok := strings.CutSuffix(want, "*"); ok {
		return strings.HasPrefix(have, prefix)
	}
	return have == want
}

func compared(d int, op string) bool {
	switch op {
	case "<":
		return d < 0
	case "<=":
		return d <= 0
	case ">":
		return d > 0
	case ">=":
		return d >= 0
	default:
		return d == 0
	}
}

func when(have time.Time, t term) (bool, error) {
	if t.value == "now" {
		return compared(have.Compare(now()), t.op), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
		want, err := time.Parse(layout, t.value)
		if err != nil {
			continue
		}
		if layout == time.DateOnly && t.op == "" { // that day
			return !have.Before(want) && have.Before(want.AddDate(0, 0, 1)), nil
		}
		return compared(have.Compare(want), t.op), nil
	}
	return false, coded("BAD_REQUEST", "the time %q of a search query can't be read", t.value)
}
