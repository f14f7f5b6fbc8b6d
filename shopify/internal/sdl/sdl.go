// Package sdl has the whole schema of the Admin API's versions, without descriptions: to check requests against it. It is for the fake shop; a program that only calls Shopify
// does not link it.
//
// The table is made by schema/generate from Shopify's own schemas (ISC licence, see NOTICE): 130 KB packed. A version takes some megabytes once somebody asks for it.
package sdl

import (
	"bytes"
	"compress/flate"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

//go:embed sdl.bin
var packed []byte

// unpacked is the table's text: a line with the versions, oldest first, and the lines of the definitions. Each line begins with a mark, '@' for a definition and ' ' for what
// is in it, and a byte that says in which versions it is: '@' and a bit for each.
var unpacked = sync.OnceValues(func() ([]byte, error) {
	return io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
})

var loaded struct {
	sync.Mutex
	schemas map[string]*ast.Schema
}

// Versions are those that the table has, oldest first; the last is "unstable".
func Versions() []string {
	text, err := unpacked()
	if err != nil {
		panic(err) // it is part of the program
	}
	head, _, _ := bytes.Cut(text, []byte("\n"))
	return strings.Fields(string(head))
}

// Load returns the schema of one of the Versions. It is shared, and read only.
func Load(version string) (*ast.Schema, error) {
	bit := slices.Index(Versions(), version)
	if bit < 0 {
		return nil, fmt.Errorf("sdl: no schema of version %q; there are %s", version, strings.Join(Versions(), ", "))
	}
	loaded.Lock()
	defer loaded.Unlock()
	if s := loaded.schemas[version]; s != nil {
		return s, nil
	}
	s, err := gqlparser.LoadSchema(&ast.Source{Name: version, Input: text(bit)})
	if err != nil {
		return nil, fmt.Errorf("sdl: version %s: %w", version, err)
	}
	s.Query, s.Mutation = s.Types["QueryRoot"], s.Types["Mutation"]
	if loaded.schemas == nil {
		loaded.schemas = map[string]*ast.Schema{}
	}
	loaded.schemas[version] = s
	return s, nil
}

// text picks out the lines of one version.
func text(bit int) string {
	all, err := unpacked()
	if err != nil {
		panic(err) // Versions would have
	}
	_, all, _ = bytes.Cut(all, []byte("\n"))
	var b strings.Builder
	b.WriteString("schema { query: QueryRoot mutation: Mutation }\n")
	open := false
	for line := range bytes.Lines(all) {
		if line[1]&(1<<bit) == 0 {
			continue
		}
		if line[0] == '@' && open {
			b.WriteString("}\n")
		}
		b.Write(line[2:])
		if line[0] == '@' {
			open = bytes.HasSuffix(line, []byte("{\n"))
		}
	}
	if open {
		b.WriteString("}\n")
	}
	return b.String()
}
