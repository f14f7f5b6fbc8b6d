package genqlient_test

import (
	"os"
	"testing"

	"github.com/Khan/genqlient/graphql"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// typeRef is a type as introspection has it.
type typeRef struct {
	Kind, Name string
	OfType     *typeRef
}

func (r *typeRef) String() string {
	switch r.Kind {
	case "NON_NULL":
		return r.OfType.String() + "!"
	case "LIST":
		return "[" + r.OfType.String() + "]"
	}
	return r.Name
}

type member struct {
	Name string
	Type *typeRef
	Args []member
}

const introspection = `query Type($name: String!) {
  __type(name: $name) { kind fields { ...member args { name type { ...ref } } } inputFields { name type { ...ref } } }
}
fragment member on __Field { name type { ...ref } }
fragment ref on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }`

// The schema is cut down by hand: nothing in it is otherwise than in the Admin API's.
func TestSchema(t *testing.T) {
	t.Parallel()
	sdl, err := os.ReadFile("schema.graphql")
	require.NoError(t, err)
	doc, err := parser.ParseSchema(&ast.Source{Name: "schema.graphql", Input: string(sdl)})
	require.NoError(t, err)
	client := newClient(newFake(t, shopifytest.Config{}))
	for _, def := range doc.Definitions {
		var api struct {
			Type *struct {
				Kind                ast.DefinitionKind
				Fields, InputFields []member
			} `json:"__type"`
		}
		err := client.MakeRequest(t.Context(), &graphql.Request{OpName: "Type", Query: introspection, Variables: map[string]any{"name": def.Name}}, &graphql.Response{Data: &api})
		require.NoError(t, err)
		require.NotNil(t, api.Type, def.Name)
		require.Equal(t, api.Type.Kind, def.Kind, def.Name)
		types := map[string]string{}
		for _, f := range append(api.Type.Fields, api.Type.InputFields...) {
			types[f.Name] = f.Type.String()
			for _, a := range f.Args {
				types[f.Name+"."+a.Name] = a.Type.String()
			}
		}
		for _, f := range def.Fields {
			require.Equal(t, types[f.Name], f.Type.String(), "%s.%s", def.Name, f.Name)
			for _, a := range f.Arguments {
				require.Equal(t, types[f.Name+"."+a.Name], a.Type.String(), "%s.%s(%s)", def.Name, f.Name, a.Name)
			}
		}
	}
}
