package shopify

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/breakwater-go/breakwater/shopify/internal/schema"
)

// Request is a GraphQL request to the Admin API.
type Request struct {
	Query string `json:"query"`
	// Variables are as encoding/json has them: numbers of any kind, bools, strings, slices, and objects as map[string]any.
	Variables map[string]any `json:"variables,omitempty"`
	// OperationName names the operation that is executed, where Query has several.
	OperationName string `json:"operationName,omitempty"`
}

// ErrQuery says that a query can't be read, or names no operation.
var ErrQuery = errors.New("shopify: bad query")

const (
	// maxTokens and maxDepth bound what a query may be: more is a mistake, or meant to hurt.
	maxTokens = 100_000
	maxDepth  = 100
	maxSteps  = 1_000_000 // of the walk: fragments within fragments double with each level
)

// operation is a request's, parsed.
type operation struct {
	doc *ast.QueryDocument
	op  *ast.OperationDefinition
}

func parse(r Request) (operation, error) {
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: r.Query}, maxTokens)
	if err != nil {
		return operation{}, fmt.Errorf("%w: %w", ErrQuery, err)
	}
	op := doc.Operations.ForName(r.OperationName)
	switch {
	case r.OperationName == "" && len(doc.Operations) == 1:
		op = doc.Operations[0]
	case r.OperationName == "" && len(doc.Operations) > 1:
		return operation{}, fmt.Errorf("%w: it has %d operations, and Request.OperationName is empty", ErrQuery, len(doc.Operations))
	}
	if op == nil {
		return operation{}, fmt.Errorf("%w: it has no operation %q", ErrQuery, r.OperationName)
	}
	return operation{doc, op}, nil
}

// walk goes through an operation and adds up what it costs.
type walk struct {
	operation

	schema  *schema.Version
	vars    map[string]any
	unknown []string // what the schema does not have
	depth   int
	steps   int
	err     error
	explain bool
}

// group is the fields of one response key, which are merged.
type group struct {
	field *ast.Field
	sets  []ast.SelectionSet
}

// root adds up the whole operation.
func (w *walk) root() (total float64, nodes []*Node) {
	name := "QueryRoot"
	if w.op.Operation == ast.Mutation {
		name = "Mutation"
	}
	id, ok := w.schema.Type(name)
	if !ok || w.op.Operation == ast.Subscription {
		w.err = fmt.Errorf("%w: %ss are not for the Admin API", ErrQuery, w.op.Operation)
		return 0, nil
	}
	for _, g := range w.collect(id, []ast.SelectionSet{w.op.SelectionSet}) {
		n := w.field(id, g)
		total += n.Total
		nodes = w.keep(nodes, n)
	}
	return total, nodes
}

// keep keeps the nodes of a tree, if somebody wants it.
func (w *walk) keep(nodes []*Node, n Node) []*Node {
	if !w.explain {
		return nil
	}
	return append(nodes, &n)
}

// collect finds the fields that an object of a type gets: those of the fragments that apply to it too.
func (w *walk) collect(of schema.TypeID, sets []ast.SelectionSet) []group {
	var groups []group
	for _, set := range sets {
		groups = w.into(groups, of, set, 0)
	}
	return groups
}

func (w *walk) into(groups []group, of schema.TypeID, set ast.SelectionSet, depth int) []group {
	if depth > maxDepth {
		w.err = fmt.Errorf("%w: its fragments go round in a circle, or too deep", ErrQuery)
		return groups
	}
	for _, s := range set {
		if !w.step() {
			return groups
		}
		switch s := s.(type) {
		case *ast.Field:
			if !w.included(s.Directives) {
				continue
			}
			i := slices.IndexFunc(groups, func(g group) bool { return g.field.Alias == s.Alias })
			if i < 0 {
				groups = append(groups, group{field: s, sets: []ast.SelectionSet{s.SelectionSet}})
			} else {
				groups[i].sets = append(groups[i].sets, s.SelectionSet)
			}
		case *ast.InlineFragment:
			if w.included(s.Directives) && w.applies(of, s.TypeCondition) {
				groups = w.into(groups, of, s.SelectionSet, depth+1)
			}
		case *ast.FragmentSpread:
			f := w.doc.Fragments.ForName(s.Name)
			switch {
			case f == nil:
				w.err = fmt.Errorf("%w: it has no fragment %q", ErrQuery, s.Name)
			case w.included(s.Directives) && w.applies(of, f.TypeCondition):
				groups = w.into(groups, of, f.SelectionSet, depth+1)
			}
		}
	}
	return groups
}

// step says whether to go on.
func (w *walk) step() bool {
	if w.steps++; w.steps > maxSteps && w.err == nil {
		w.err = fmt.Errorf("%w: it has too many fragments within fragments", ErrQuery)
	}
	return w.err == nil
}

// applies says whether an object gets a fragment on a type.
func (w *walk) applies(of schema.TypeID, condition string) bool {
	if condition == "" || of == 0 {
		return true
	}
	id, ok := w.schema.Type(condition)
	if !ok {
		w.miss("... on " + condition)
		return false
	}
	return w.schema.Is(of, id)
}

// included says what @skip and @include come to.
func (w *walk) included(directives ast.DirectiveList) bool {
	for _, d := range directives {
		if d.Name != "skip" && d.Name != "include" {
			continue
		}
		if arg := d.Arguments.ForName("if"); arg != nil {
			if yes, ok := w.value(arg.Value).(bool); ok && yes == (d.Name == "skip") {
				return false
			}
		}
	}
	return true
}

// miss notes what the schema does not have.
func (w *walk) miss(what string) {
	if !slices.Contains(w.unknown, what) {
		w.unknown = append(w.unknown, what)
	}
}

// children adds up what is selected of a type. Of an interface or union it is the dearest of the objects that it can be.
func (w *walk) children(of schema.TypeID, sets []ast.SelectionSet) (total float64, nodes []*Node) {
	if w.depth++; w.depth > maxDepth {
		w.err = fmt.Errorf("%w: it is more than %d levels deep", ErrQuery, maxDepth)
	}
	defer func() { w.depth-- }()
	if w.err != nil {
		return 0, nil
	}
	conditions := w.conditions(nil, sets, 0)
	if t := w.schema.Of(of); len(conditions) == 0 || t.Kind != schema.Interface && t.Kind != schema.Union {
		return w.object(of, sets)
	}
	// Objects that get the same fragments cost the same: one of each kind is enough.
	seen := map[string]bool{}
	for _, p := range w.schema.Possible(of) {
		key := make([]byte, len(conditions))
		for i, c := range conditions {
			if w.schema.Is(p, c) {
				key[i] = 1
			}
		}
		if seen[string(key)] {
			continue
		}
		seen[string(key)] = true
		if sum, of := w.object(p, sets); sum > total || nodes == nil {
			total, nodes = max(sum, total), of
		}
	}
	return total, nodes
}

// conditions are the types that fragments are on.
func (w *walk) conditions(all []schema.TypeID, sets []ast.SelectionSet, depth int) []schema.TypeID {
	if depth > maxDepth {
		return all // collect says so
	}
	add := func(name string, set ast.SelectionSet) {
		if id, ok := w.schema.Type(name); ok && !slices.Contains(all, id) {
			all = append(all, id)
		}
		all = w.conditions(all, []ast.SelectionSet{set}, depth+1)
	}
	for _, set := range sets {
		for _, s := range set {
			if !w.step() {
				return all
			}
			switch s := s.(type) {
			case *ast.InlineFragment:
				add(s.TypeCondition, s.SelectionSet)
			case *ast.FragmentSpread:
				if f := w.doc.Fragments.ForName(s.Name); f != nil {
					add(f.TypeCondition, f.SelectionSet)
				}
			}
		}
	}
	return all
}

func (w *walk) object(of schema.TypeID, sets []ast.SelectionSet) (total float64, nodes []*Node) {
	for _, g := range w.collect(of, sets) {
		n := w.field(of, g)
		total += n.Total
		nodes = w.keep(nodes, n)
	}
	return total, nodes
}

// field adds up a field of a type and what is selected of it.
func (w *walk) field(of schema.TypeID, g group) Node {
	name := g.field.Name
	n := Node{Key: g.field.Alias, Field: name, Times: 1}
	parent := w.schema.Of(of).Name
	target, ok := w.target(of, name)
	if !ok {
		w.miss(parent + "." + name)
	}
	t := w.schema.Of(target)
	n.Type = t.Name
	switch price, fixed := fieldPrices[parent][name]; {
	case fixed:
		n.Own = price
	case name == "__typename":
		return n
	case parent == "Mutation":
		return w.mutation(n, target, g)
	case t.Connection:
		return w.connection(n, target, g)
	case t.Name == "Count" && parent == "QueryRoot":
		n.Own = countPrice
	case ok:
		n.Own = basePrice(t)
	case hasFields(g.sets): // not in the schema: as an object would
		n.Own = objectPrice
	}
	if !hasFields(g.sets) {
		n.Total = n.Own
		return n
	}
	var sum float64
	sum, n.Children = w.children(target, g.sets)
	n.Total = n.Own + sum
	return n
}

// target finds a field's type. What every type has the schema does not say.
func (w *walk) target(of schema.TypeID, name string) (schema.TypeID, bool) {
	switch name {
	case "__typename":
		return 0, true
	case "__schema":
		return w.schema.Type("__Schema")
	case "__type":
		return w.schema.Type("__Type")
	}
	return w.schema.Field(of, name)
}

// basePrice is what one object, or whatever is in an interface's place, costs without what is in it.
func basePrice(t *schema.Type) float64 {
	switch t.Kind {
	case schema.Object:
		if price, ok := typePrices[t.Name]; ok {
			return price
		}
		return objectPrice
	case schema.Interface, schema.Union:
		return objectPrice
	default:
		return 0
	}
}

func hasFields(sets []ast.SelectionSet) bool {
	return slices.ContainsFunc(sets, func(s ast.SelectionSet) bool { return len(s) > 0 })
}

// mutation adds up a mutation: its payload's own objects are free, what lies beneath them is not.
func (w *walk) mutation(n Node, payload schema.TypeID, g group) Node {
	n.Own = mutationPrice
	if price, ok := mutationPrices[n.Field]; ok {
		n.Own = price
	}
	for list, price := range itemPrices[n.Field] {
		n.Own += price * float64(w.items(g.field, list))
	}
	n.Total = n.Own
	for _, g := range w.collect(payload, g.sets) {
		c := w.field(payload, g)
		if target, ok := w.target(payload, c.Field); ok && !w.schema.Of(target).Connection {
			c.Total -= c.Own
			c.Own = 0
		}
		n.Total += c.Total
		n.Children = w.keep(n.Children, c)
	}
	return n
}

// items counts the elements of a list among a field's arguments, or in an object among them.
func (w *walk) items(f *ast.Field, list string) (count int) {
	for _, arg := range f.Arguments {
		v := w.value(arg.Value)
		if arg.Name == list {
			count += length(v)
		} else if object, ok := v.(map[string]any); ok {
			count += length(object[list])
		}
	}
	return count
}

// length is that of a list, of whatever.
func length(v any) int {
	if v := reflect.ValueOf(v); v.Kind() == reflect.Slice || v.Kind() == reflect.Array {
		return v.Len()
	}
	return 0
}

// connection adds up a connection: what an element costs counts as often as its page's size says, which is less than proportional.
func (w *walk) connection(n Node, of schema.TypeID, g group) Node {
	n.Own, n.Page = connectionPrice, w.page(g.field)
	n.Times = pages(n.Page)
	n.Total = n.Own
	element := func(of schema.TypeID, g group) {
		target, ok := w.target(of, g.field.Name)
		if !ok {
			w.miss(w.schema.Of(of).Name + "." + g.field.Name)
			return
		}
		c := Node{Key: g.field.Alias, Field: g.field.Name, Times: 1, Type: w.schema.Of(target).Name, Own: basePrice(w.schema.Of(target))}
		var sum float64
		sum, c.Children = w.children(target, g.sets)
		c.Total = c.Own + sum
		n.Total += float64(n.Times) * c.Total
		n.Children = w.keep(n.Children, c)
	}
	for _, g := range w.collect(of, g.sets) {
		switch g.field.Name {
		case "nodes":
			element(of, g)
		case "edges":
			edge, ok := w.target(of, "edges")
			if !ok {
				continue
			}
			for _, g := range w.collect(edge, g.sets) {
				if g.field.Name == "node" {
					element(edge, g)
				}
			}
		case "pageInfo":
		default:
			c := w.field(of, g)
			n.Total += c.Total
			n.Children = w.keep(n.Children, c)
		}
	}
	return n
}

// pages is how often an element counts in a page of n.
func pages(n int) int {
	if n <= 0 {
		return 0
	}
	return max(1, int(2*math.Log(float64(n))))
}

// page is how many elements a connection is asked for; 0 if it does not say.
func (w *walk) page(f *ast.Field) int {
	most := 0
	for _, name := range [...]string{"first", "last"} {
		if arg := f.Arguments.ForName(name); arg != nil {
			most = max(most, number(w.value(arg.Value)))
		}
	}
	return most
}

// value is what an argument comes to, with variables and their defaults.
func (w *walk) value(v *ast.Value) any {
	switch v.Kind {
	case ast.Variable:
		if got, ok := w.vars[v.Raw]; ok {
			return got
		}
		if d := w.op.VariableDefinitions.ForName(v.Raw); d != nil && d.DefaultValue != nil && d.DefaultValue.Kind != ast.Variable {
			return w.value(d.DefaultValue)
		}
		return nil
	case ast.IntValue, ast.FloatValue:
		return json.Number(v.Raw)
	case ast.BooleanValue:
		return v.Raw == "true"
	case ast.ListValue:
		list := make([]any, len(v.Children))
		for i, c := range v.Children {
			list[i] = w.value(c.Value)
		}
		return list
	case ast.ObjectValue:
		object := make(map[string]any, len(v.Children))
		for _, c := range v.Children {
			object[c.Name] = w.value(c.Value)
		}
		return object
	default:
		return v.Raw
	}
}

// number reads a whole number, in whatever form a variable has it; 0 if it is none.
func number(v any) int {
	const most = math.MaxInt32 // GraphQL's Int
	switch v := v.(type) {
	case int:
		return min(max(v, -most), most)
	case int32:
		return int(v)
	case int64:
		return int(min(max(v, -most), most))
	case float64:
		if v == v { // it is one
			return int(min(max(v, -most), most))
		}
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return number(f)
		}
	}
	return 0
}
