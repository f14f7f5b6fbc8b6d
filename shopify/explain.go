package shopify

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/breakwater-go/breakwater/shopify/internal/schema"
)

// Node is a field in the tree of what a query costs.
type Node struct {
	Key, Field string // the response key; the field's name
	Type       string // the type behind lists; "" for a scalar
	Own        float64
	Page       int // of a connection: how many elements it is asked for
	Times      int // how often the children count
	Total      float64
	Children   []*Node
}

// Explanation is the tree of what a query costs.
type Explanation struct {
	Requested int     // as Shopify would put it in requestedQueryCost
	Sum       float64 // before it is rounded
	Nodes     []*Node
	Unknown   []string // types and fields that the schema does not have: guessed
}

// Explain says what a request costs, field by field, in a version of the Admin API (or the nearest of those that are known).
//
// Errors: ErrQuery.
func Explain(version string, r Request) (Explanation, error) {
	s, err := schema.Open(version)
	if err != nil {
		return Explanation{}, err
	}
	op, err := parse(r)
	if err != nil {
		return Explanation{}, err
	}
	return explain(s, op, r.Variables, true)
}

func explain(s *schema.Version, op operation, vars map[string]any, tree bool) (Explanation, error) {
	w := walk{operation: op, schema: s, vars: vars, explain: tree}
	sum, nodes := w.root()
	return Explanation{Requested: round(sum), Sum: sum, Nodes: nodes, Unknown: w.unknown}, w.err
}

func round(sum float64) int { return max(1, int(math.Floor(sum+0.5))) }

// String is the tree, a field a line, with what each costs.
func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", e.Requested)
	for _, n := range e.Nodes {
		n.print(&b, 1)
	}
	for _, u := range e.Unknown {
		fmt.Fprintf(&b, "not in the schema: %s\n", u)
	}
	return b.String()
}

func (n *Node) print(b *strings.Builder, depth int) {
	if n.Total == 0 && len(n.Children) == 0 {
		return // a scalar
	}
	fmt.Fprintf(b, "%s%s", strings.Repeat("  ", depth), n.Key)
	if n.Key != n.Field {
		fmt.Fprintf(b, ": %s", n.Field)
	}
	fmt.Fprintf(b, "  %s", strconv.FormatFloat(n.Total, 'g', -1, 64))
	if n.Page > 0 {
		fmt.Fprintf(b, " = %g + %d × …, %d asked for", n.Own, n.Times, n.Page)
	} else if n.Own != n.Total {
		fmt.Fprintf(b, " = %g + …", n.Own)
	}
	b.WriteByte('\n')
	for _, c := range n.Children {
		c.print(b, depth+1)
	}
}

// Dearest is the path, by response keys, to what makes a query dear: down to where no child has more than half of its parent's cost, and back to the connection there, if there is one.
func (e Explanation) Dearest() (path string, cost float64) {
	var at string
	nodes, times, total := e.Nodes, 1.0, e.Sum
	cost = total
	for connected := false; ; {
		i := slices.IndexFunc(nodes, func(n *Node) bool { return times*n.Total*2 > total })
		if i < 0 {
			return path, cost
		}
		n := nodes[i]
		at, total = strings.TrimPrefix(at+"."+n.Key, "."), times*n.Total
		if n.Page > 0 || !connected {
			path, cost, connected = at, total, connected || n.Page > 0
		}
		nodes, times = n.Children, times*float64(n.Times)
	}
}
