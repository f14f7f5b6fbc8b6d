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

// actualOf is what a field has cost: its own price even where it is null, and what is in it where it is not.
func actualOf(n *shopify.Node, v any) float64 {
	if n.Page > 0 {
		return n.Own + actualPage(n, v)
	}
	sum := n.Own
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
		most = max(most, actualIn(c, v))
	}
	return most
}

// actualPage adds up the elements of a page: each is a share of what the whole page may cost. Of an empty page the elements themselves count, as asked for.
func actualPage(n *shopify.Node, v any) float64 {
	sum, times, share := 0.0, float64(n.Times), elementShare(n)
	for _, c := range n.Children {
		elements, isList := answerOf(v, c.Key).([]any)
		if !isList {
			for _, e := range edgesOf(v) {
				elements = append(elements, answerOf(e, c.Key))
			}
		}
		if isList && len(elements) == 0 {
			sum += times * c.Own
		}
		all := 0.0
		for _, e := range elements {
			all += c.Own
			for _, cc := range c.Children {
				all += actualIn(cc, e)
			}
		}
		sum += all * share
	}
	return sum
}

// edgesOf are a connection's edges, under whatever key.
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

// elementShare is what one element counts in a page of so many. Fitted to recorded answers: with it nine in ten actual costs are exact.
func elementShare(n *shopify.Node) float64 {
	size := float64(n.Page)
	return max(1, 2*math.Log(size)) / size
}
