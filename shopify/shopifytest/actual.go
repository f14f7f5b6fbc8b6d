package shopifytest

import (
	"math"
	"slices"

	"github.com/breakwater-go/breakwater/shopify"
)

// actual is what a request has cost in the end: as the requested cost, of what is in the answer.
func actual(e shopify.Explanation, data any) float64 {
	sum := 0.0
	for _, n := range e.Nodes {
		sum += actualOf(n, answerOf(data, n.Key))
	}
	return max(1, min(math.Floor(sum+0.5), float64(e.Requested)))
}

func answerOf(v any, key string) any {
	f, ok := v.(fields)
	if !ok {
		return nil
	}
	if i := slices.IndexFunc(f, func(e struct {
		key   string
		value any
	}) bool {
		return e.key == key
	}); i >= 0 {
		return f[i].value
	}
	return nil
}

func actualOf(n *shopify.Node, v any) float64 {
	sum := n.Own
	if n.Page > 0 {
		return sum + actualPage(n, v)
	}
	for _, c := range n.Children {
		sum += actualIn(c, v)
	}
	return sum
}

// actualIn is what a field costs in an object, or in the dearest of a list of them.
func actualIn(c *shopify.Node, v any) float64 {
	list, ok := v.([]any)
	if !ok {
		if v == nil {
			return 0
		}
		return actualOf(c, answerOf(v, c.Key))
	}
	most := 0.0
	for _, v := range list {
		if v != nil {
			most = max(most, actualOf(c, answerOf(v, c.Key)))
		}
	}
	return most
}

// actualPage adds up the elements of a page.
func actualPage(n *shopify.Node, v any) float64 {
	sum := 0.0
	for _, c := range n.Children {
		elements, ok := answerOf(v, c.Key).([]any)
		if !ok { // within edges, or no list
			for _, e := range edgesOf(v) {
				elements = append(elements, answerOf(e, c.Key))
			}
		}
		if len(elements) == 0 {
			continue
		}
		each := 0.0
		for _, e := range elements {
			one := c.Own
			for _, cc := range c.Children {
				one += actualIn(cc, e)
			}
			each += one
		}
		each /= float64(len(elements))
		sum += each * max(1, math.Floor(2*math.Log(float64(len(elements)))))
	}
	return sum
}

func edgesOf(v any) []any {
	f, _ := v.(fields)
	for _, e := range f {
		if list, ok := e.value.([]any); ok && len(list) > 0 {
			if _, isObject := list[0].(fields); isObject {
				return list
			}
		}
	}
	return nil
}
