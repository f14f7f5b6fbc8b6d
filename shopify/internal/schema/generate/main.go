// Command generate makes the tables of package schema from introspection results of the Admin API.
//
//	go run ./shopify/internal/schema/generate DIRECTORY
//
// The results are in the npm package @shopify/dev-mcp (ISC licence, see NOTICE), version 1.16.0: npm pack @shopify/dev-mcp@1.16.0, unpacked, has them in
// package/dist/data/ as admin_VERSION.json.gz.
package main

import (
	"bytes"
	"cmp"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// versions are those that the package has, oldest first; unstable is the newest. Each has a bit in masks.
var versions = []string{"2025-10", "2026-01", "2026-04", "2026-07", "2026-10", "unstable"}

const out = "shopify/internal/schema/cost.bin"

// typeRef is a type as introspection nests it.
type typeRef struct {
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	OfType *typeRef `json:"ofType"`
}

func (r *typeRef) named() *typeRef {
	for r.OfType != nil {
		r = r.OfType
	}
	return r
}

type introspection struct {
	Data struct {
		Schema struct {
			Types []struct {
				Kind          string    `json:"kind"`
				Name          string    `json:"name"`
				Fields        []value   `json:"fields"`
				InputFields   []value   `json:"inputFields"`
				EnumValues    []value   `json:"enumValues"`
				Interfaces    []typeRef `json:"interfaces"`
				PossibleTypes []typeRef `json:"possibleTypes"`
				IsOneOf       bool      `json:"isOneOf"`
			} `json:"types"`
			Directives []struct {
				Name      string   `json:"name"`
				Args      []value  `json:"args"`
				Locations []string `json:"locations"`
			} `json:"directives"`
		} `json:"__schema"`
	} `json:"data"`
}

// value is a field, an argument or an enum's value.
type value struct {
	Name         string  `json:"name"`
	Type         typeRef `json:"type"`
	Args         []value `json:"args"`
	DefaultValue *string `json:"defaultValue"`
	IsDeprecated bool    `json:"isDeprecated"`
}

// typeOf is an object, interface or union of all versions. Scalars and enums cost nothing, and are left out.
type typeOf struct {
	masks    [3]byte                 // by kind
	fields   map[string]map[int]byte // name, type (0: leaf), in which versions
	possible map[int]byte
}

var kinds = map[string]int{"OBJECT": 0, "INTERFACE": 1, "UNION": 2}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate DIRECTORY")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(dir string) error {
	schemas := make([]introspection, len(versions))
	names := map[string]bool{}
	for i, v := range versions {
		if err := read(filepath.Join(dir, "admin_"+v+".json.gz"), &schemas[i]); err != nil {
			return err
		}
		for _, t := range schemas[i].Data.Schema.Types {
			if _, ok := kinds[t.Kind]; ok {
				names[t.Name] = true
			}
		}
	}
	order := append([]string{""}, slices.Sorted(maps.Keys(names))...) // type 0 is every leaf
	index := map[string]int{}
	for i, name := range order {
		index[name] = i
	}
	types := make([]typeOf, len(order))
	for v, s := range schemas {
		bit := byte(1) << v
		for _, t := range s.Data.Schema.Types {
			kind, ok := kinds[t.Kind]
			if !ok {
				continue
			}
			to := &types[index[t.Name]]
			to.masks[kind] |= bit
			if to.fields == nil {
				to.fields, to.possible = map[string]map[int]byte{}, map[int]byte{}
			}
			for _, f := range t.Fields {
				target := index[f.Type.named().Name] // 0 for a scalar or enum
				if to.fields[f.Name] == nil {
					to.fields[f.Name] = map[int]byte{}
				}
				to.fields[f.Name][target] |= bit
			}
			for _, p := range t.PossibleTypes {
				if i := index[p.Name]; i > 0 { // some are named here and are nowhere
					to.possible[i] |= bit
				}
			}
		}
	}
	if err := write(order, types); err != nil {
		return err
	}
	return writeSDL(schemas)
}

func read(file string, into *introspection) error {
	f, err := os.Open(file) //nolint:gosec // the one that it is told to read
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := json.NewDecoder(z).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(into.Data.Schema.Types) == 0 {
		return fmt.Errorf("%s has no types", file)
	}
	return nil
}

// write writes the table; package schema has its form.
func write(order []string, types []typeOf) error {
	words := map[string]bool{}
	for _, t := range types {
		for name := range t.fields {
			words[name] = true
		}
	}
	fieldNames := slices.Sorted(maps.Keys(words))
	fieldIndex := map[string]uint64{}
	for i, name := range fieldNames {
		fieldIndex[name] = uint64(i)
	}
	var b []byte
	u := func(n uint64) { b = binary.AppendUvarint(b, n) }
	list := func(words []string) {
		u(uint64(len(words)))
		b = append(append(b, strings.Join(words, "\n")...), '\n')
	}
	list(versions)
	list(order[1:])
	list(fieldNames)
	for _, t := range types[1:] {
		b = append(b, t.masks[:]...)
		u(uint64(len(t.fields)))
		last := uint64(0)
		for _, name := range slices.Sorted(maps.Keys(t.fields)) {
			u(fieldIndex[name] - last)
			last = fieldIndex[name]
			u(uint64(len(t.fields[name])))
			for _, target := range slices.Sorted(maps.Keys(t.fields[name])) {
				u(uint64(target)) //nolint:gosec // an index
				b = append(b, t.fields[name][target])
			}
		}
		u(uint64(len(t.possible)))
		for _, p := range slices.SortedFunc(maps.Keys(t.possible), cmp.Compare) {
			u(uint64(p)) //nolint:gosec // an index
			b = append(b, t.possible[p])
		}
	}
	fmt.Fprintf(os.Stdout, "%d types, %d field names\n", len(order)-1, len(fieldNames))
	return pack(out, b)
}

// pack compresses a table into its file.
func pack(file string, b []byte) error {
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, flate.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s: %d bytes, %d packed\n", file, len(b), z.Len())
	return os.WriteFile(file, z.Bytes(), 0o644) //nolint:gosec // for everybody to read
}
