package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

const sdlOut = "shopify/internal/sdl/sdl.bin"

// builtin are what every GraphQL schema has.
var builtin = []string{"Boolean", "Float", "ID", "Int", "String", "deprecated", "include", "skip", "specifiedBy", "oneOf"}

// sdl is the schemas of all versions in one text: for each definition, its lines in order, and which versions have each.
type sdl struct {
	names []string
	lines map[string][]string        // of a definition
	masks map[string]map[string]byte // definition, line
}

// writeSDL writes the schemas as SDL without descriptions; package sdl has its form.
func writeSDL(schemas []introspection) error {
	s := sdl{lines: map[string][]string{}, masks: map[string]map[string]byte{}}
	for v := range schemas {
		bit := byte(1) << v
		for _, t := range schemas[v].Data.Schema.Types {
			if strings.HasPrefix(t.Name, "__") || slices.Contains(builtin, t.Name) {
				continue
			}
			add := func(line string) { s.add(t.Name, line, bit) }
			oneOf := ""
			if t.IsOneOf {
				oneOf = " @oneOf"
			}
			switch t.Kind {
			case "SCALAR":
				add("scalar " + t.Name)
			case "UNION":
				add("union " + t.Name + " = " + refs(t.PossibleTypes, " | "))
			case "ENUM":
				add("enum " + t.Name + " {")
				for _, e := range t.EnumValues {
					add(e.Name + e.deprecated())
				}
			case "INPUT_OBJECT":
				add("input " + t.Name + oneOf + " {")
				for _, f := range t.InputFields {
					add(f.argument())
				}
			case "OBJECT", "INTERFACE":
				head := strings.ToLower(strings.Replace(t.Kind, "OBJECT", "type", 1)) + " " + t.Name
				if len(t.Interfaces) > 0 {
					head += " implements " + refs(t.Interfaces, " & ")
				}
				add(head + " {")
				for _, f := range t.Fields {
					add(f.Name + arguments(f.Args) + ": " + f.Type.String() + f.deprecated())
				}
			}
		}
		for _, d := range schemas[v].Data.Schema.Directives {
			if !slices.Contains(builtin, d.Name) {
				s.add("@"+d.Name, "directive @"+d.Name+arguments(d.Args)+" on "+strings.Join(d.Locations, " | "), bit)
			}
		}
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, strings.Join(versions, " "))
	for _, name := range slices.Sorted(slices.Values(s.names)) {
		for _, mark := range []byte("@ ") {
			for _, line := range s.lines[name] {
				if opens(line) == (mark == '@') {
					b.Write([]byte{mark, '@' + s.masks[name][line]})
					b.WriteString(line + "\n")
				}
			}
		}
	}
	return pack(sdlOut, b.Bytes())
}

// opens says whether a line begins a definition.
func opens(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	return slices.Contains([]string{"type", "interface", "input", "enum", "scalar", "union", "directive"}, word) && !strings.Contains(word, ":")
}

func (s *sdl) add(name, line string, bit byte) {
	if s.masks[name] == nil {
		s.names = append(s.names, name)
		s.masks[name] = map[string]byte{}
	}
	if s.masks[name][line] == 0 {
		s.lines[name] = append(s.lines[name], line)
	}
	s.masks[name][line] |= bit
}

func refs(types []typeRef, between string) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.Name
	}
	return strings.Join(names, between)
}

func (r *typeRef) String() string {
	switch r.Kind {
	case "NON_NULL":
		return r.OfType.String() + "!"
	case "LIST":
		return "[" + r.OfType.String() + "]"
	default:
		return r.Name
	}
}

func (v *value) argument() string {
	s := v.Name + ": " + v.Type.String()
	if v.DefaultValue != nil {
		s += " = " + *v.DefaultValue
	}
	return s
}

func (v *value) deprecated() string {
	if v.IsDeprecated {
		return " @deprecated"
	}
	return ""
}

func arguments(args []value) string {
	if len(args) == 0 {
		return ""
	}
	all := make([]string, len(args))
	for i, a := range args {
		all[i] = a.argument()
	}
	return "(" + strings.Join(all, ", ") + ")"
}
