package shopifytest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/validator"
	"github.com/vektah/gqlparser/v2/validator/core"
	"github.com/vektah/gqlparser/v2/validator/rules"
)

// extension adds to an error's extensions.
func extension(pairs ...string) core.ErrorOption {
	return func(err *gqlerror.Error) {
		err.Extensions = map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			err.Extensions[pairs[i]] = pairs[i+1]
		}
	}
}

// validate checks a document against a schema. The mistakes that are made most often are worded as Shopify's (graphql-ruby's) are; the others are gqlparser's, with a code.
func validate(schema *ast.Schema, doc *ast.QueryDocument) []*gqlError {
	r := rules.NewDefaultRules()
	r.ReplaceRule("FieldsOnCorrectType", func(on *validator.Events, add validator.AddErrFunc) {
		on.OnField(func(_ *validator.Walker, f *ast.Field) {
			if f.ObjectDefinition != nil && !f.ObjectDefinition.IsLeafType() && f.Definition == nil {
				typ := f.ObjectDefinition.Name
				add(core.Message("Field '%s' doesn't exist on type '%s'", f.Name, typ), core.At(f.Position), extension("code", "undefinedField", "typeName", typ, "fieldName", f.Name))
			}
		})
	})
	r.ReplaceRule("KnownArgumentNames", func(on *validator.Events, add validator.AddErrFunc) {
		unknown := func(kind, name string, known ast.ArgumentDefinitionList, given ast.ArgumentList, at *ast.Position) {
			for _, a := range given {
				if known.ForName(a.Name) == nil {
					add(core.Message("%s '%s' doesn't accept argument '%s'", kind, name, a.Name), core.At(at), extension("code", "argumentNotAccepted", "name", name, "typeName", kind, "argumentName", a.Name))
				}
			}
		}
		on.OnField(func(_ *validator.Walker, f *ast.Field) {
			if f.Definition != nil {
				unknown("Field", f.Name, f.Definition.Arguments, f.Arguments, f.Position)
			}
		})
		on.OnDirective(func(_ *validator.Walker, d *ast.Directive) {
			if d.Definition != nil {
				unknown("Directive", d.Name, d.Definition.Arguments, d.Arguments, d.Position)
			}
		})
	})
	r.ReplaceRule("ProvidedRequiredArguments", func(on *validator.Events, add validator.AddErrFunc) {
		missing := func(kind, name string, known ast.ArgumentDefinitionList, given ast.ArgumentList, at *ast.Position) {
			var names []string
			for _, a := range known {
				if a.Type.NonNull && a.DefaultValue == nil && given.ForName(a.Name) == nil {
					names = append(names, a.Name)
				}
			}
			if names != nil {
				list := strings.Join(names, ", ")
				add(core.Message("%s '%s' is missing required arguments: %s", kind, name, list), core.At(at), extension("code", "missingRequiredArguments", "className", kind, "name", name, "arguments", list))
			}
		}
		on.OnField(func(_ *validator.Walker, f *ast.Field) {
			if f.Definition != nil {
				missing("Field", f.Name, f.Definition.Arguments, f.Arguments, f.Position)
			}
		})
		on.OnDirective(func(_ *validator.Walker, d *ast.Directive) {
			if d.Definition != nil {
				missing("Directive", d.Name, d.Definition.Arguments, d.Arguments, d.Position)
			}
		})
	})
	r.ReplaceRule("ScalarLeafs", func(on *validator.Events, add validator.AddErrFunc) {
		on.OnField(func(w *validator.Walker, f *ast.Field) {
			if f.Definition == nil || w.Schema.Types[f.Definition.Type.Name()] == nil {
				return
			}
			typ := f.Definition.Type.Name()
			node := fmt.Sprintf("field '%s'", f.Name)
			if w.Schema.Types[typ].Kind == ast.Union && len(f.SelectionSet) == 0 {
				return // Shopify lets it pass, and answers null
			}
			switch leaf := w.Schema.Types[typ].IsLeafType(); {
			case leaf && len(f.SelectionSet) > 0:
				add(core.Message("Selections can't be made on scalars (%s returns %s but has selections)", node, typ), core.At(f.Position), extension("code", "selectionMismatch", "nodeName", node, "typeName", typ))
			case !leaf && len(f.SelectionSet) == 0:
				add(core.Message("Field must have selections (%s returns %s but has no selections. Did you mean '%s { ... }'?)", node, typ, f.Name), core.At(f.Position), extension("code", "selectionMismatch", "nodeName", node, "typeName", typ))
			}
		})
	})
	r.ReplaceRule("KnownDirectives", func(on *validator.Events, add validator.AddErrFunc) {
		on.OnDirective(func(_ *validator.Walker, d *ast.Directive) {
			switch {
			case d.Definition == nil:
				add(core.Message("Directive @%s is not defined", d.Name), core.At(d.Position), extension("code", "undefinedDirective", "directiveName", d.Name))
			case !slices.Contains(d.Definition.Locations, d.Location):
				add(core.Message("'@%s' can't be applied to %s", d.Name, strings.ToLower(string(d.Location))), core.At(d.Position), extension("code", "directiveCannotBeApplied", "targetName", strings.ToLower(string(d.Location)), "name", d.Name))
			}
		})
	})
	r.RemoveRule("MaxIntrospectionDepth")
	var out []*gqlError
	paths := pathsOf(doc)
	for _, e := range validator.ValidateWithRules(schema, doc, r) {
		if e.Rule == "OverlappingFieldsCanBeMerged" && strings.Contains(e.Message, "conflicting types") {
			continue // which graphql-ruby does not look at
		}
		g := fromParser(e)
		if len(g.Locations) > 0 {
			g.Path = paths[g.Locations[0]]
		}
		// gqlparser looks into a fragment wherever it is spread.
		if !slices.ContainsFunc(out, func(o *gqlError) bool { return o.Message == g.Message && slices.Equal(o.Locations, g.Locations) }) {
			out = append(out, g)
		}
	}
	return out
}

// pathsOf are the paths of all fields of a document by their places, as graphql-ruby gives them: from the operation or the fragment that the field is in.
func pathsOf(doc *ast.QueryDocument) map[location][]any {
	out := map[location][]any{}
	var walk func(path []any, set ast.SelectionSet)
	walk = func(path []any, set ast.SelectionSet) {
		for _, s := range set {
			switch s := s.(type) {
			case *ast.Field:
				at := append(slices.Clip(path), s.Alias)
				out[location{s.Position.Line, s.Position.Column}] = at
				walk(at, s.SelectionSet)
			case *ast.InlineFragment:
				at := "..."
				if s.TypeCondition != "" {
					at += " on " + s.TypeCondition
				}
				walk(append(slices.Clip(path), at), s.SelectionSet)
			}
		}
	}
	for _, op := range doc.Operations {
		walk([]any{strings.TrimSpace(string(op.Operation) + " " + op.Name)}, op.SelectionSet)
	}
	for _, f := range doc.Fragments {
		walk([]any{"fragment " + f.Name}, f.SelectionSet)
	}
	return out
}

// fromParser takes over an error of gqlparser's.
func fromParser(e *gqlerror.Error) *gqlError {
	out := &gqlError{Message: e.Message, Extensions: e.Extensions}
	for _, l := range e.Locations {
		out.Locations = append(out.Locations, location{l.Line, l.Column})
	}
	delete(out.Extensions, "file")
	if len(out.Extensions) == 0 && e.Rule != "" {
		rule := []rune(e.Rule)
		rule[0] = unicode.ToLower(rule[0])
		out.Extensions = map[string]any{"code": string(rule)}
	}
	return out
}

// badVariable says what is wrong with a request's variables.
func badVariable(op *ast.OperationDefinition, vars map[string]any, err error) *gqlError {
	e, ok := errors.AsType[*gqlerror.Error](err)
	if !ok || len(e.Path) < 2 {
		return coded("INVALID_VARIABLE", "%s", err)
	}
	name := fmt.Sprint(e.Path[1])
	path := make([]any, 0, len(e.Path))
	for _, p := range e.Path[2:] {
		path = append(path, p)
	}
	out := coded("INVALID_VARIABLE", "Variable $%s was provided invalid value", name)
	if d := op.VariableDefinitions.ForName(name); d != nil {
		out.Message = fmt.Sprintf("Variable $%s of type %s was provided invalid value", name, d.Type)
		if len(path) > 0 {
			out.Message += fmt.Sprintf(" for %s (%s)", dotted(path), e.Message)
		}
		out.Locations = at(d.Position)
	}
	out.Extensions["value"] = vars[name]
	out.Extensions["problems"] = []any{map[string]any{"path": path, "explanation": e.Message}}
	return out
}

// strictVariables refuses what gqlparser lets pass and Shopify does not: an enum's value in other letters, and an Int as a text.
func strictVariables(schema *ast.Schema, op *ast.OperationDefinition, vars map[string]any) error {
	for _, d := range op.VariableDefinitions {
		if e := strict(schema, d.Type, vars[d.Variable], ast.Path{ast.PathName("variable"), ast.PathName(d.Variable)}); e != nil {
			return e
		}
	}
	return nil
}

func strict(schema *ast.Schema, t *ast.Type, v any, path ast.Path) *gqlerror.Error {
	if v == nil {
		return nil
	}
	if t.Elem != nil {
		list, ok := v.([]any)
		if !ok {
			return strict(schema, t.Elem, v, path)
		}
		for i, e := range list {
			if err := strict(schema, t.Elem, e, append(slices.Clip(path), ast.PathIndex(i))); err != nil {
				return err
			}
		}
		return nil
	}
	def := schema.Types[t.NamedType]
	if def == nil {
		return nil // validation has said so
	}
	switch def.Kind {
	case ast.Enum:
		if s, ok := v.(string); !ok || def.EnumValues.ForName(s) == nil {
			return gqlerror.ErrorPathf(path, "Expected %q to be one of: %s", fmt.Sprint(v), enumNames(def))
		}
	case ast.Scalar:
		if def.Name == "Int" {
			if _, ok := v.(int64); !ok { // one beyond 32 bits gets through, by the recordings, and is a user error
				return gqlerror.ErrorPathf(path, "Could not coerce value %s to Int", fmt.Sprint(v))
			}
		}
	case ast.InputObject:
		m, _ := v.(map[string]any)
		for _, f := range def.Fields {
			if err := strict(schema, f.Type, m[f.Name], append(slices.Clip(path), ast.PathName(f.Name))); err != nil {
				return err
			}
		}
	case ast.Object, ast.Interface, ast.Union:
	}
	return nil
}

func enumNames(def *ast.Definition) string {
	names := make([]string, len(def.EnumValues))
	for i, v := range def.EnumValues {
		names[i] = v.Name
	}
	return strings.Join(names, ", ")
}

func dotted(path []any) string {
	words := make([]string, len(path))
	for i, p := range path {
		words[i] = fmt.Sprint(p)
	}
	return strings.Join(words, ".")
}

// How many elements a list of an input may have: 250, and for the variants of a product 2048 (shopify.dev/docs/api/usage/limits; the second as recorded).
const maxInput, maxVariants = 250, 2048

// tooMany finds a list among a field's arguments that is too long.
func tooMany(v any, path []any) *gqlError {
	switch v := v.(type) {
	case []any:
		most := maxInput
		if path[len(path)-1] == "variants" {
			most = maxVariants
		}
		if len(v) > most {
			e := coded("MAX_INPUT_SIZE_EXCEEDED", "The input array size of %d is greater than the maximum allowed of %d.", len(v), most)
			e.Path = path
			return e
		}
		for i, c := range v {
			if e := tooMany(c, append(slices.Clip(path), strconv.Itoa(i))); e != nil {
				return e
			}
		}
	case map[string]any:
		for k, c := range v {
			if e := tooMany(c, append(slices.Clip(path), k)); e != nil {
				return e
			}
		}
	}
	return nil
}

// support finds what an operation selects that the fake has not got, before anything happens.
func (x *execution) support(def *ast.Definition, set ast.SelectionSet) *gqlError {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			if e := x.supportField(def, s); e != nil {
				e.Locations = at(s.Position)
				return e
			}
		case *ast.InlineFragment:
			if e := x.supportFragment(def, s.TypeCondition, s.SelectionSet); e != nil {
				return e
			}
		case *ast.FragmentSpread:
			if e := x.supportFragment(def, s.Definition.TypeCondition, s.Definition.SelectionSet); e != nil {
				return e
			}
		}
	}
	return nil
}

// supportFragment leaves out fragments on types that the fake has no objects of: they apply to nothing here.
func (x *execution) supportFragment(def *ast.Definition, condition string, set ast.SelectionSet) *gqlError {
	on := def
	if condition != "" {
		on = x.schema.Types[condition]
	}
	if on.Kind == ast.Object && !knownType(on) {
		return nil
	}
	return x.support(on, set)
}

// knownType says whether the fake has objects of a type.
func knownType(def *ast.Definition) bool {
	if _, ok := kinds()[def.Name]; ok {
		return true
	}
	return strings.HasPrefix(def.Name, "__") || strings.HasSuffix(def.Name, "Connection") || strings.HasSuffix(def.Name, "Edge") || strings.HasSuffix(def.Name, "Payload") || strings.HasSuffix(def.Name, "UserError") ||
		def.Name == "Mutation" || def.Name == "MetafieldIdentifier"
}

func (x *execution) supportField(def *ast.Definition, f *ast.Field) *gqlError {
	target := x.schema.Types[f.Definition.Type.Name()]
	switch {
	case f.Name == "__typename":
		return nil
	case def.Name == "Mutation":
		if mutations()[f.Name] == nil {
			return unsupported("the mutation %s", f.Name)
		}
	case def.Kind != ast.Object: // what is selected of each object that it can be
		for _, p := range x.schema.PossibleTypes[def.Name] {
			if _, known := kinds()[p.Name]; known && !supported(p.Name, f.Name) {
				return unsupported("%s.%s", p.Name, f.Name)
			}
		}
	case strings.HasSuffix(def.Name, "Connection"):
		if !slices.Contains([]string{"nodes", "edges", "pageInfo"}, f.Name) {
			return unsupported("%s.%s", def.Name, f.Name)
		}
	default:
		if _, known := kinds()[def.Name]; known && !supported(def.Name, f.Name) {
			return unsupported("%s.%s", def.Name, f.Name)
		}
	}
	if target.Kind == ast.Object && !knownType(target) && !alwaysNull(def.Name, f.Name) {
		return unsupported("%s.%s, of type %s", def.Name, f.Name, target.Name)
	}
	if !x.alwaysEmpty(def.Name, f, target) {
		return x.support(target, f.SelectionSet)
	}
	return nil
}

func supported(typ, field string) bool {
	if field == "id" || strings.HasPrefix(field, "__") {
		return true
	}
	_, plain := kinds()[typ].plain[field]
	return plain || kinds()[typ].computed[field] != nil
}

// alwaysNull says whether a field never has anything in it here, so that what is selected of it does not matter.
func alwaysNull(typ, field string) bool {
	_, plain := kinds()[typ].plain[field]
	return plain && kinds()[typ].computed[field] == nil
}

// alwaysEmpty is alwaysNull for a connection of, or a field of, what the fake has no objects of.
func (x *execution) alwaysEmpty(typ string, f *ast.Field, target *ast.Definition) bool {
	if alwaysNull(typ, f.Name) && !knownType(target) {
		return true
	}
	if !strings.HasSuffix(target.Name, "Connection") {
		return false
	}
	nodes := target.Fields.ForName("nodes")
	if nodes == nil {
		return false
	}
	of := x.schema.Types[nodes.Type.Name()]
	return of.Kind == ast.Object && !knownType(of)
}
