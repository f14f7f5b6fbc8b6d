package shopify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/breakwater-go/breakwater/shopify/internal/schema"
)

// MaxCost is what one query may cost on any plan; Shopify refuses a dearer one before it runs it (shopify.dev/docs/api/usage/limits).
const MaxCost = 1000

// ErrTooExpensive says that a query costs more than MaxCost, or than the shop's bucket holds: it can't be sent, now or later. The error is a *CostError.
var ErrTooExpensive = errors.New("shopify: query too expensive")

// CostError is an ErrTooExpensive, and Permanent.
type CostError struct {
	Requested int    // what the query costs
	Most      int    // what it may cost: MaxCost, or the size of a smaller bucket
	Path      string // the field that costs most of it, by response keys: products.nodes.variants; "" where that was not looked for
	Cost      int    // of that field
}

func (e *CostError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("shopify: the call costs %d and may cost %d: ask for less, or in several calls", e.Requested, e.Most)
	}
	return fmt.Sprintf("shopify: the query costs %d and may cost %d; %s is %d of it: ask for fewer elements there, or in several queries", e.Requested, e.Most, e.Path, e.Cost)
}

// Unwrap returns ErrTooExpensive.
func (e *CostError) Unwrap() error { return ErrTooExpensive }

// Permanent says true: a queue gives up.
func (e *CostError) Permanent() bool { return true }

const (
	// manyQueries and manyVariants bound what is remembered: query texts, and for each of them variables that make a difference.
	manyQueries  = 1024
	manyVariants = 64
)

// Costs says what requests cost before they are sent, and learns from the answers. It is safe for concurrent use. It remembers about a thousand query texts, those that were
// used last, and for each of them some dozens of the values of variables that bear on the cost; what it forgets it computes again.
type Costs struct {
	schema *schema.Version

	mu         sync.Mutex
	young, old map[string]*plan // by query text and operation; what is used in the old half moves to the young one
}

// plan is what is known of a query text.
type plan struct {
	operation

	bearing  []string             // the variables that bear on the cost
	lists    []string             // of these, those in which the length of some list does
	variants map[string]int       // by those
	refused  map[string]time.Time // of these, when an answer said that they cost more than MaxCost

	repeatable bool // a query, or a mutation that is idempotent in each of its fields
}

// payloadErrors are the response keys of a mutation's user errors, by those of its fields.
func (p *plan) payloadErrors() map[string][]string {
	out := map[string][]string{}
	p.fields(p.op.SelectionSet, 0, func(root *ast.Field) {
		p.fields(root.SelectionSet, 0, func(f *ast.Field) {
			if f.Name == "userErrors" || strings.HasSuffix(f.Name, "UserErrors") {
				out[root.Alias] = append(out[root.Alias], f.Alias)
			}
		})
	})
	return out
}

// fields goes through the fields of a selection, and of the fragments in it.
func (p *plan) fields(set ast.SelectionSet, depth int, each func(*ast.Field)) {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			each(s)
		case *ast.InlineFragment:
			p.fields(s.SelectionSet, depth+1, each)
		case *ast.FragmentSpread:
			if f := p.doc.Fragments.ForName(s.Name); f != nil && depth < maxDepth {
				p.fields(f.SelectionSet, depth+1, each)
			}
		}
	}
}

// what is what a mutation does: its fields with their arguments, without what is selected of them.
func (p *plan) what() string {
	var b strings.Builder
	p.fields(p.op.SelectionSet, 0, func(f *ast.Field) {
		b.WriteString(f.Name)
		for _, a := range f.Arguments {
			fmt.Fprintf(&b, " %s:%s", a.Name, a.Value)
		}
		b.WriteByte(0)
	})
	return b.String()
}

// operationName is the operation's, "" if it has none.
func (p *plan) operationName() string { return p.op.Name }

// isRepeatable says whether a set's fields may all be asked for again: those of a query, and of a mutation those that have a key. A fragment may hide others.
func isRepeatable(op *ast.OperationDefinition) bool {
	if op.Operation == ast.Query {
		return true
	}
	return !slices.ContainsFunc(op.SelectionSet, func(s ast.Selection) bool {
		f, ok := s.(*ast.Field)
		return !ok || f.Directives.ForName("idempotent") == nil
	})
}

// NewCosts makes Costs for a version of the Admin API, such as 2026-04. Of one that it does not know it takes the next older one.
func NewCosts(version string) (*Costs, error) {
	s, err := schema.Open(version)
	if err != nil {
		return nil, err
	}
	return &Costs{schema: s, young: map[string]*plan{}}, nil
}

// Of is the requestedQueryCost of a request: what an answer has said of the same one, or what is computed.
//
// Errors: ErrQuery; ErrTooExpensive, which names the path that costs most.
func (c *Costs) Of(r Request) (int, error) {
	cost, _, err := c.of(r)
	return cost, err
}

func (c *Costs) of(r Request) (int, *plan, error) {
	var room [128]byte
	p, err := c.plan(r)
	if err != nil {
		return 0, nil, err
	}
	if r.Variables, err = plain(r.Variables); err != nil {
		return 0, p, err
	}
	key := p.key(room[:0], r.Variables)
	c.mu.Lock()
	cost, ok := p.variants[string(key)]
	if at, dear := p.refused[string(key)]; dear && time.Since(at) > refusedFor {
		delete(p.refused, string(key))
		ok = false
	}
	c.mu.Unlock()
	if !ok {
		e, err := explain(c.schema, p.operation, r.Variables, false)
		if err != nil {
			return 0, nil, err
		}
		cost = e.Requested
		c.remember(p, key, cost)
	}
	if cost > MaxCost {
		return cost, p, c.tooExpensive(p, r, cost)
	}
	return cost, p, nil
}

// Learn notes the requestedQueryCost of an answer: from then on it is the cost of that request, and of those that differ in no variable that bears on it.
func (c *Costs) Learn(r Request, requested float64) error {
	if !(requested >= 0 && requested <= 1e9) {
		return fmt.Errorf("shopify: a requestedQueryCost of %v", requested)
	}
	p, err := c.plan(r)
	if err != nil {
		return err
	}
	vars, err := plain(r.Variables)
	if err != nil {
		return err
	}
	key := p.key(nil, vars)
	c.remember(p, key, round(requested))
	if requested > MaxCost {
		c.mu.Lock()
		defer c.mu.Unlock()
		if p.refused == nil || len(p.refused) > manyVariants {
			p.refused = map[string]time.Time{}
		}
		p.refused[string(key)] = time.Now()
	}
	return nil
}

// refusedFor is how long a query is not sent whose cost was above MaxCost by an answer: prices change.
const refusedFor = 10 * time.Minute

// plain makes variables what they are in JSON, where some are not: a number of another kind, a struct, a pointer.
func plain(vars map[string]any) (map[string]any, error) {
	if isPlain(vars) {
		return vars, nil
	}
	b, err := json.Marshal(vars)
	if err != nil {
		return nil, fmt.Errorf("%w: its variables: %w", ErrQuery, err)
	}
	var out map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("%w: its variables: %w", ErrQuery, err)
	}
	return out, nil
}

func isPlain(v any) bool {
	switch v := v.(type) {
	case nil, bool, string, int, int32, int64, float64, json.Number:
		return true
	case map[string]any:
		for _, e := range v {
			if !isPlain(e) {
				return false
			}
		}
		return true
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !isPlain(e) })
	}
	return false
}

func (c *Costs) tooExpensive(p *plan, r Request, cost int) error {
	e, err := explain(c.schema, p.operation, r.Variables, true)
	if err != nil {
		return err
	}
	path, most := e.Dearest()
	return &CostError{Requested: cost, Most: MaxCost, Path: path, Cost: round(most)}
}

// plan finds or makes the plan of a query.
func (c *Costs) plan(r Request) (*plan, error) {
	id := r.Query
	if r.OperationName != "" {
		id = r.OperationName + "\x00" + r.Query
	}
	c.mu.Lock()
	p := c.young[id]
	if p == nil {
		if p = c.old[id]; p != nil {
			c.put(id, p)
		}
	}
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	op, err := parse(r)
	if err != nil {
		return nil, err
	}
	p = &plan{operation: op, variants: map[string]int{}, repeatable: isRepeatable(op.op)}
	p.scan(op.op.SelectionSet)
	for _, f := range op.doc.Fragments {
		p.scan(f.SelectionSet)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.young[id]; other != nil {
		return other, nil // another was first
	}
	c.put(id, p)
	return p, nil
}

func (c *Costs) put(id string, p *plan) {
	if len(c.young) >= manyQueries/2 {
		c.old, c.young = c.young, make(map[string]*plan, manyQueries/2)
	}
	c.young[id] = p
}

func (c *Costs) remember(p *plan, key []byte, cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := p.variants[string(key)]; !ok && len(p.variants) >= manyVariants {
		for k := range p.variants { // any
			delete(p.variants, k)
			break
		}
	}
	p.variants[string(key)] = cost
}

// scan finds the variables that bear on the cost: sizes of pages, conditions, and lists whose elements cost.
func (p *plan) scan(set ast.SelectionSet) {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			p.conditions(s.Directives)
			for _, arg := range s.Arguments {
				if arg.Name == "first" || arg.Name == "last" {
					p.note(&p.bearing, arg.Value)
				}
				if itemPrices[s.Name] != nil {
					p.note(&p.lists, arg.Value)
				}
			}
			p.scan(s.SelectionSet)
		case *ast.InlineFragment:
			p.conditions(s.Directives)
			p.scan(s.SelectionSet)
		case *ast.FragmentSpread:
			p.conditions(s.Directives)
		}
	}
}

func (p *plan) conditions(directives ast.DirectiveList) {
	for _, d := range directives {
		if d.Name == "skip" || d.Name == "include" {
			for _, arg := range d.Arguments {
				p.note(&p.bearing, arg.Value)
			}
		}
	}
}

func (p *plan) note(into *[]string, v *ast.Value) {
	if v.Kind == ast.Variable && !slices.Contains(*into, v.Raw) {
		*into = append(*into, v.Raw)
	}
	for _, c := range v.Children {
		p.note(into, c.Value)
	}
}

// key is what the variables are that bear on the cost.
func (p *plan) key(b []byte, vars map[string]any) []byte {
	for _, name := range p.bearing {
		switch v := vars[name].(type) {
		case bool:
			b = strconv.AppendBool(b, v)
		default:
			if _, there := vars[name]; there {
				b = strconv.AppendInt(b, int64(number(v)), 10)
			}
		}
		b = append(b, ' ')
	}
	for _, name := range p.lists {
		b = lengths(b, vars[name], 2)
	}
	return b
}

// lengths appends how long the lists in a value are.
func lengths(b []byte, v any, depth int) []byte {
	object, ok := v.(map[string]any)
	if !ok {
		return append(strconv.AppendInt(append(b, '['), int64(length(v)), 10), ']')
	}
	if depth > 0 {
		for _, k := range slices.Sorted(maps.Keys(object)) {
			b = lengths(append(append(b, '.'), k...), object[k], depth-1)
		}
	}
	return b
}
