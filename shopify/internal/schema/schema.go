// Package schema knows the types and fields of the Admin API's versions, as far as their cost goes: what is an object, a list or a leaf, and which types an interface can be.
//
// The table is made by generate from Shopify's own schemas (ISC licence, see NOTICE); 50 KB are linked into programs that use it, and a version takes about 0.5 MB once
// somebody asks for it.
package schema

import (
	"bytes"
	"compress/flate"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

//go:embed cost.bin
var packed []byte

// Kind is what a type is.
type Kind uint8

const (
	// Leaf is a scalar or an enum, or none.
	Leaf Kind = iota
	// Object has fields.
	Object
	// Interface is one of several objects, and has the fields that all of them have.
	Interface
	// Union is one of several objects.
	Union
)

// TypeID is a type of a version; 0 is every leaf.
type TypeID int32

// Type is a type of a version.
type Type struct {
	Name       string
	Kind       Kind
	Connection bool // it has edges or nodes, and pages

	fields   []field  // by name
	possible []TypeID // of an interface or union
}

type field struct {
	name   string
	target TypeID
}

// Version is the schema of one version. It is read only.
type Version struct {
	Name  string
	types []Type // by name, but for the first
}

var versions struct {
	sync.Mutex
	names []string // nil until somebody asks
	open  map[string]*Version
}

// Open returns the schema of a version such as 2026-04 or unstable. For one that there is none of, it is that of the next older one, and of the oldest for what is older
// still; Name says which.
func Open(version string) (*Version, error) {
	versions.Lock()
	defer versions.Unlock()
	if versions.names != nil {
		if v := versions.open[versions.names[nearest(versions.names, version)]]; v != nil {
			return v, nil
		}
	}
	t, err := unpack()
	if err != nil {
		return nil, err
	}
	bit := nearest(t.versions, version)
	v, err := t.decode(bit)
	if err != nil {
		return nil, err
	}
	if versions.open == nil {
		versions.names, versions.open = t.versions, map[string]*Version{}
	}
	versions.open[v.Name] = v
	return v, nil
}

func nearest(all []string, version string) int {
	best := 0
	for i, name := range all {
		if name == version {
			return i
		}
		if name < version && name != "unstable" { // whose name would be the newest as well
			best = i
		}
	}
	return best
}

// Type finds a type by its name.
func (v *Version) Type(name string) (TypeID, bool) {
	i, ok := slices.BinarySearchFunc(v.types[1:], name, func(t Type, name string) int { return strings.Compare(t.Name, name) })
	return TypeID(i + 1), ok //nolint:gosec // a few thousand
}

// Of is what is known of a type.
func (v *Version) Of(id TypeID) *Type { return &v.types[id] }

// Field finds the type of a type's field, behind lists and non-nulls.
func (v *Version) Field(of TypeID, name string) (TypeID, bool) {
	fields := v.types[of].fields
	i, ok := slices.BinarySearchFunc(fields, name, func(f field, name string) int { return strings.Compare(f.name, name) })
	if !ok {
		return 0, false
	}
	return fields[i].target, true
}

// Possible are the objects that an interface or union can be.
func (v *Version) Possible(id TypeID) []TypeID { return v.types[id].possible }

// Is says whether an object is of a type: the same, or one of those that it can be.
func (v *Version) Is(object, of TypeID) bool {
	if object == of {
		return true
	}
	_, ok := slices.BinarySearch(v.types[of].possible, object)
	return ok
}

// table is the unpacked file: lists of names, and then what each type has in which versions.
type table struct {
	versions, types, fields []string
	rest                    []byte
}

var errTable = errors.New("schema: the table is damaged")

func unpack() (*table, error) {
	b, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTable, err)
	}
	r := reader{b: b}
	t := &table{versions: r.list(), types: r.list(), fields: r.list()}
	t.rest = r.b
	return t, r.err
}

// decode picks out what one version has.
func (t *table) decode(bit int) (*Version, error) {
	mask := byte(1) << bit
	r := reader{b: t.rest}
	v := &Version{Name: t.versions[bit]}
	old := make([]Type, len(t.types)+1) // by the file's numbers, which count the types of all versions
	for i := range t.types {
		typ := &old[i+1]
		for kind := range 3 {
			if r.byte()&mask != 0 {
				typ.Name, typ.Kind = t.types[i], Object+Kind(kind)
			}
		}
		last := 0
		for range r.uint() {
			last += r.uint()
			for range r.uint() {
				target := TypeID(r.uint()) //nolint:gosec // a few thousand
				if r.byte()&mask != 0 {
					if last >= len(t.fields) {
						return nil, errTable
					}
					typ.fields = append(typ.fields, field{t.fields[last], target})
				}
			}
		}
		for range r.uint() {
			p := TypeID(r.uint()) //nolint:gosec // a few thousand
			if r.byte()&mask != 0 {
				typ.possible = append(typ.possible, p)
			}
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	err := v.pack(old)
	return v, err
}

// pack renumbers the types, so that those of other versions take no room.
func (v *Version) pack(old []Type) error {
	number := make([]TypeID, len(old))
	v.types = make([]Type, 1, len(old))
	for i, t := range old {
		if t.Kind != Leaf {
			number[i] = TypeID(len(v.types)) //nolint:gosec // a few thousand
			v.types = append(v.types, t)
		}
	}
	for i := range v.types {
		t := &v.types[i]
		for j := range t.fields {
			if int(t.fields[j].target) >= len(number) {
				return errTable
			}
			t.fields[j].target = number[t.fields[j].target]
			if name := t.fields[j].name; t.Kind == Object && strings.HasSuffix(t.Name, "Connection") && (name == "edges" || name == "nodes") {
				t.Connection = true
			}
		}
		for j := range t.possible {
			if int(t.possible[j]) >= len(number) {
				return errTable
			}
			t.possible[j] = number[t.possible[j]]
		}
	}
	return nil
}

// reader reads a table; after an error all is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) uint() int {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > 1<<20 {
		r.b, r.err = nil, errTable
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.err = errTable
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) list() []string {
	words := make([]string, 0, 1<<12)
	for range r.uint() {
		i := bytes.IndexByte(r.b, '\n')
		if i < 0 {
			r.b, r.err = nil, errTable
			return nil
		}
		words = append(words, string(r.b[:i]))
		r.b = r.b[i+1:]
	}
	return words
}
