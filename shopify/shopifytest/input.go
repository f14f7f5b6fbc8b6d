package shopifytest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
)

// input is the arguments of a field, or an object in them. It notes what was read: what the fake doesn't read it doesn't support, and says so.
type input struct {
	at       string
	m        map[string]any
	read     map[string]bool
	children []*input
}

func newInput(at string, m map[string]any) *input {
	return &input{at: at, m: m, read: map[string]bool{}}
}

// input is a field's arguments, with variables and defaults.
func (x *execution) input(f *ast.Field) *input {
	m := f.ArgumentMap(x.vars)
	for _, d := range f.Definition.Arguments { // a default that nobody gave needs no support
		if d.DefaultValue != nil && f.Arguments.ForName(d.Name) == nil {
			delete(m, d.Name)
		}
	}
	return newInput("", m)
}

// unread names the first thing that has not been read and is not null; "" if there is none.
func (in *input) unread() string {
	if in == nil {
		return ""
	}
	for _, k := range slices.Sorted(maps.Keys(in.m)) {
		if !in.read[k] && in.m[k] != nil {
			return in.at + k
		}
	}
	for _, c := range in.children {
		if u := c.unread(); u != "" {
			return u
		}
	}
	return ""
}

func (in *input) get(name string) (any, bool) {
	if in == nil {
		return nil, false
	}
	in.read[name] = true
	v, ok := in.m[name]
	return v, ok && v != nil
}

// has says whether something was given, be it null.
func (in *input) has(name string) bool {
	if in == nil {
		return false
	}
	in.read[name] = true
	_, ok := in.m[name]
	return ok
}

func (in *input) str(name string) (string, bool) {
	v, ok := in.get(name)
	if !ok {
		return "", false
	}
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	default:
		return fmt.Sprint(v), true
	}
}

func (in *input) id(name string) gid { s, _ := in.str(name); return gid(s) }

func (in *input) bool(name string) (v, ok bool) {
	a, _ := in.get(name)
	v, ok = a.(bool)
	return v, ok
}

func (in *input) int(name string) (int, bool) {
	v, ok := in.get(name)
	if !ok {
		return 0, false
	}
	switch v := v.(type) {
	case int64:
		return int(v), true
	case float64:
		return int(v), true
	case json.Number:
		n, err := v.Int64()
		return int(n), err == nil
	case string:
		n, err := strconv.Atoi(v)
		return n, err == nil
	}
	return 0, false
}

func (in *input) float(name string) (float64, bool) {
	s, ok := in.str(name)
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !math.IsNaN(f)
}

// object is an object among the arguments; nil if there is none.
func (in *input) object(name string) *input {
	m, ok := in.get(name)
	o, isMap := m.(map[string]any)
	if !ok || !isMap {
		return nil
	}
	return in.child(name+".", o)
}

func (in *input) child(name string, m map[string]any) *input {
	c := newInput(in.at+name, m)
	in.children = append(in.children, c)
	return c
}

// list is a list of objects; one alone is a list of it.
func (in *input) list(name string) []*input {
	v, ok := in.get(name)
	if !ok {
		return nil
	}
	all, ok := v.([]any)
	if !ok {
		all = []any{v}
	}
	var out []*input
	for i, v := range all {
		if m, ok := v.(map[string]any); ok {
			out = append(out, in.child(name+"."+strconv.Itoa(i)+".", m))
		}
	}
	return out
}

func (in *input) strs(name string) []string {
	v, ok := in.get(name)
	if !ok {
		return nil
	}
	all, ok := v.([]any)
	if !ok {
		all = []any{v}
	}
	out := make([]string, 0, len(all))
	for _, v := range all {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

// tags are the words of a list, sorted and each once, as Shopify keeps them.
func tags(list []string) []string {
	var out []string
	for _, t := range list {
		for word := range strings.SplitSeq(t, ",") {
			if word = strings.TrimSpace(word); word != "" {
				out = append(out, word)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
