package shopifytest

import (
	"maps"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/breakwater-go/breakwater/shopify/internal/sdl"
)

// apiVersions are the versions of the schema tables, as publicApiVersions has them.
func apiVersions() []*object {
	var all []*object
	for _, v := range sdl.Versions() {
		all = append(all, value("ApiVersion", map[string]any{"handle": v, "displayName": v, "supported": v != "unstable"}))
	}
	return all
}

// introspect answers __schema and __type, without descriptions and reasons, which the table has not got.
func (x *execution) introspect(f *ast.Field) (any, error) {
	if f.Name == "__type" {
		name, _ := x.input(f).str("name")
		if def := x.schema.Types[name]; def != nil {
			return x.typeObject(ast.NamedType(def.Name, nil)), nil
		}
		return nil, nil
	}
	var types, directives []*object
	for _, name := range slices.Sorted(maps.Keys(x.schema.Types)) {
		types = append(types, x.typeObject(ast.NamedType(name, nil)))
	}
	for _, name := range slices.Sorted(maps.Keys(x.schema.Directives)) {
		d := x.schema.Directives[name]
		var at []string
		for _, l := range d.Locations {
			at = append(at, string(l))
		}
		directives = append(directives, value("__Directive", map[string]any{"name": name, "description": nil, "locations": at, "args": x.arguments(d.Arguments), "isRepeatable": d.IsRepeatable}))
	}
	return value("__Schema", map[string]any{
		"description": nil, "types": types, "directives": directives, "queryType": x.typeObject(ast.NamedType("QueryRoot", nil)), "mutationType": x.typeObject(ast.NamedType("Mutation", nil)), "subscriptionType": nil,
	}), nil
}

func (x *execution) arguments(all ast.ArgumentDefinitionList) []*object {
	out := []*object{}
	for _, a := range all {
		out = append(out, x.inputValue(a.Name, a.Type, a.DefaultValue, a.Directives))
	}
	return out
}

func (x *execution) inputValue(name string, t *ast.Type, d *ast.Value, directives ast.DirectiveList) *object {
	var def any
	if d != nil {
		def = d.String()
	}
	return value("__InputValue", map[string]any{"name": name, "description": nil, "type": x.typeObject(t), "defaultValue": def, "isDeprecated": directives.ForName("deprecated") != nil, "deprecationReason": nil})
}

// typeObject is a type. Its fields are computed when they are asked for.
func (x *execution) typeObject(t *ast.Type) *object {
	o := value("__Type", map[string]any{"description": nil, "specifiedByURL": nil, "isOneOf": nil, "name": nil, "ofType": nil, "fields": nil, "inputFields": nil, "interfaces": nil, "enumValues": nil, "possibleTypes": nil})
	switch {
	case t.NonNull:
		inner := *t
		inner.NonNull = false
		o.f["kind"], o.f["ofType"] = "NON_NULL", lazy(func(bool) any { return x.typeObject(&inner) })
	case t.Elem != nil:
		o.f["kind"], o.f["ofType"] = "LIST", lazy(func(bool) any { return x.typeObject(t.Elem) })
	default:
		def := x.schema.Types[t.NamedType]
		o.f["kind"], o.f["name"] = string(def.Kind), def.Name
		x.members(o, def)
	}
	return o
}

// lazy is a field that is computed when it is asked for; all includes what is deprecated.
type lazy func(all bool) any

func (x *execution) members(o *object, def *ast.Definition) {
	named := func(names []string) []*object {
		out := []*object{}
		for _, n := range names {
			out = append(out, x.typeObject(ast.NamedType(n, nil)))
		}
		return out
	}
	switch def.Kind {
	case ast.Object, ast.Interface:
		o.f["fields"] = lazy(func(all bool) any {
			out := []*object{}
			for _, f := range def.Fields {
				if deprecated := f.Directives.ForName("deprecated") != nil; !strings.HasPrefix(f.Name, "__") && (all || !deprecated) {
					out = append(out, value("__Field", map[string]any{"name": f.Name, "description": nil, "args": x.arguments(f.Arguments), "type": x.typeObject(f.Type), "isDeprecated": deprecated, "deprecationReason": nil}))
				}
			}
			return out
		})
		o.f["interfaces"] = lazy(func(bool) any { return named(def.Interfaces) })
	case ast.InputObject:
		o.f["isOneOf"] = def.Directives.ForName("oneOf") != nil
		o.f["inputFields"] = lazy(func(bool) any {
			out := []*object{}
			for _, f := range def.Fields {
				out = append(out, x.inputValue(f.Name, f.Type, f.DefaultValue, f.Directives))
			}
			return out
		})
	case ast.Enum:
		o.f["enumValues"] = lazy(func(all bool) any {
			out := []*object{}
			for _, e := range def.EnumValues {
				if deprecated := e.Directives.ForName("deprecated") != nil; all || !deprecated {
					out = append(out, value("__EnumValue", map[string]any{"name": e.Name, "description": nil, "isDeprecated": deprecated, "deprecationReason": nil}))
				}
			}
			return out
		})
	case ast.Scalar, ast.Union:
	}
	if def.Kind == ast.Interface || def.Kind == ast.Union {
		o.f["possibleTypes"] = lazy(func(bool) any {
			var names []string
			for _, p := range x.schema.PossibleTypes[def.Name] {
				if p.Kind == ast.Object {
					names = append(names, p.Name)
				}
			}
			return named(names)
		})
	}
}
