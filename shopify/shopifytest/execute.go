package shopifytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vektah/gqlparser/v2/ast"
)

// execution is one operation on a shop, which holds the shop's lock.
type execution struct {
	shop    *Shop
	app     *app
	version string
	schema  *ast.Schema
	op      *ast.OperationDefinition
	vars    map[string]any
	errs    []*gqlError
	scopes  []string // nil: all
}

// fields is an answer's object, in the order of the query.
type fields []struct {
	key   string
	value any
}

func (f *fields) set(key string, v any) {
	*f = append(*f, struct {
		key   string
		value any
	}{key, v})
}

// MarshalJSON keeps the order.
func (f fields) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range f {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", e.key)
		v, err := json.Marshal(e.value)
		if err != nil {
			return nil, err
		}
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// errNull says that a field that may not be null is: the object around it becomes null in its place.
var errNull = errors.New("null in a field that may not be null")

// run executes the operation. Its result is nil where the spec has data be null.
func (x *execution) run() any {
	root := x.schema.Query
	if x.op.Operation == ast.Mutation {
		root = x.schema.Mutation
	}
	data, err := x.object(root, &object{typ: root.Name}, []ast.SelectionSet{x.op.SelectionSet}, nil)
	if err != nil {
		return nil
	}
	return data
}

// selected is the fields of one response key, merged.
type selected struct {
	field *ast.Field
	sets  []ast.SelectionSet
}

// collect finds what an object of a type gets from selections.
func (x *execution) collect(into []selected, def *ast.Definition, sets []ast.SelectionSet) []selected {
	for _, set := range sets {
		for _, s := range set {
			switch s := s.(type) {
			case *ast.Field:
				if !x.included(s.Directives) {
					continue
				}
				if i := slices.IndexFunc(into, func(o selected) bool { return o.field.Alias == s.Alias }); i >= 0 {
					into[i].sets = append(into[i].sets, s.SelectionSet)
				} else {
					into = append(into, selected{s, []ast.SelectionSet{s.SelectionSet}})
				}
			case *ast.InlineFragment:
				if x.included(s.Directives) && x.applies(def, s.TypeCondition) {
					into = x.collect(into, def, []ast.SelectionSet{s.SelectionSet})
				}
			case *ast.FragmentSpread:
				if x.included(s.Directives) && x.applies(def, s.Definition.TypeCondition) {
					into = x.collect(into, def, []ast.SelectionSet{s.Definition.SelectionSet})
				}
			}
		}
	}
	return into
}

func (x *execution) applies(def *ast.Definition, condition string) bool {
	return condition == "" || condition == def.Name || slices.ContainsFunc(x.schema.PossibleTypes[condition], func(d *ast.Definition) bool { return d.Name == def.Name })
}

func (x *execution) included(directives ast.DirectiveList) bool {
	for _, d := range directives {
		if d.Name == "skip" || d.Name == "include" {
			yes, _ := d.ArgumentMap(x.vars)["if"].(bool)
			if yes == (d.Name == "skip") {
				return false
			}
		}
	}
	return true
}

// object answers what is selected of an object.
func (x *execution) object(def *ast.Definition, o *object, sets []ast.SelectionSet, path []any) (any, error) {
	out := fields{}
	for _, s := range x.collect(nil, def, sets) {
		path := append(slices.Clip(path), s.field.Alias)
		v, err := x.field(def, o, s, path)
		if err != nil {
			return nil, err
		}
		out.set(s.field.Alias, v)
	}
	return out, nil
}

func (x *execution) field(def *ast.Definition, o *object, s selected, path []any) (any, error) {
	if s.field.Name == "__typename" {
		return def.Name, nil
	}
	v, err := x.resolve(def, o, s.field)
	if err != nil {
		x.fail(err, s.field, path)
		return x.null(s.field.Definition.Type)
	}
	return x.complete(s.field.Definition.Type, v, s, path)
}

// fail notes an error of a field.
func (x *execution) fail(err error, f *ast.Field, path []any) {
	e, ok := errors.AsType[*gqlError](err)
	if !ok {
		e = coded("INTERNAL_SERVER_ERROR", "%s", err)
	}
	e.Locations, e.Path = at(f.Position), path
	x.errs = append(x.errs, e)
}

// null is null, where it may be.
func (x *execution) null(t *ast.Type) (any, error) {
	if t.NonNull {
		return nil, errNull
	}
	return nil, nil
}

// resolve finds a field's value.
func (x *execution) resolve(def *ast.Definition, o *object, f *ast.Field) (any, error) {
	switch f.Name {
	case "__schema", "__type":
		return x.introspect(f)
	}
	if err := x.access(def.Name, f); err != nil {
		return nil, err
	}
	in := x.input(f)
	if def.Name == "Mutation" {
		return x.mutate(f, in)
	}
	if compute := kinds()[def.Name].computed[f.Name]; compute != nil {
		v, err := compute(x, o, in)
		if err != nil {
			return nil, err
		}
		if unread := in.unread(); !isConn(v) && unread != "" {
			return nil, unsupported("the argument %s of %s.%s", unread, def.Name, f.Name)
		}
		return v, nil
	}
	if f.Name == "id" && o.id != "" {
		return string(o.id), nil
	}
	if v, ok := o.f[f.Name]; ok {
		if l, ok := v.(lazy); ok {
			all, _ := in.bool("includeDeprecated")
			return l(all), nil
		}
		return v, nil
	}
	if v, ok := kinds()[def.Name].plain[f.Name]; ok {
		return v, nil
	}
	return nil, unsupported("%s.%s", def.Name, f.Name)
}

func isConn(v any) bool { _, ok := v.(*conn); return ok }

// complete makes a field's value what its type says.
func (x *execution) complete(t *ast.Type, v any, s selected, path []any) (any, error) {
	if t.NonNull {
		inner := *t
		inner.NonNull = false
		out, err := x.complete(&inner, v, s, path)
		if err == nil && out == nil {
			if len(x.errs) == 0 { // the fake's own mistake
				x.fail(fmt.Errorf("shopifytest: %s is null, and may not be", s.field.Name), s.field, path)
			}
			return nil, errNull
		}
		return out, err
	}
	if v == nil {
		return nil, nil
	}
	if t.Elem != nil {
		return x.list(t, v, s, path)
	}
	def := x.schema.Types[t.NamedType]
	switch def.Kind {
	case ast.Object, ast.Interface, ast.Union:
	default:
		return x.leaf(v), nil
	}
	switch c := v.(type) {
	case *conn:
		return x.orNull(x.connection(def, c, s, path))
	case gid:
		o := x.shop.find(c)
		if o == nil {
			return nil, nil
		}
		return x.orNull(x.object(x.schema.Types[o.typ], o, s.sets, path))
	case *object:
		if c == nil {
			return nil, nil
		}
		return x.orNull(x.object(x.schema.Types[c.typ], c, s.sets, path))
	default:
		return nil, fmt.Errorf("shopifytest: %s is a %T", s.field.Name, v)
	}
}

// orNull puts null in the place of an object that can't be.
func (x *execution) orNull(v any, err error) (any, error) {
	if errors.Is(err, errNull) {
		return nil, nil
	}
	return v, err
}

func (x *execution) list(t *ast.Type, v any, s selected, path []any) (any, error) {
	out := []any{}
	add := func(v any) error {
		c, err := x.complete(t.Elem, v, s, append(slices.Clip(path), len(out)))
		if err != nil {
			return err
		}
		out = append(out, c)
		return nil
	}
	var err error
	switch l := v.(type) {
	case []any:
		for _, v := range l {
			if err = add(v); err != nil {
				break
			}
		}
	case []string:
		for _, v := range l {
			if err = add(v); err != nil {
				break
			}
		}
	case []*object:
		for _, v := range l {
			if err = add(v); err != nil {
				break
			}
		}
	default:
		return nil, fmt.Errorf("shopifytest: %s is a %T, and no list", s.field.Name, v)
	}
	if err != nil {
		return x.orNull(nil, err)
	}
	return out, nil
}

func (x *execution) leaf(v any) any {
	switch v := v.(type) {
	case time.Time:
		if v.IsZero() {
			return nil
		}
		return v.UTC().Format("2006-01-02T15:04:05Z")
	case gid:
		return string(v)
	default:
		return v
	}
}
