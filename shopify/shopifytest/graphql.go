package shopifytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"
	"github.com/vektah/gqlparser/v2/validator"

	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/internal/sdl"
)

// maxBody is the most that the fake reads of a request.
const maxBody = 32 << 20

// request is the body of a GraphQL request.
type request struct {
	Query         string         `json:"query"`
	Variables     map[string]any `json:"variables"`
	OperationName string         `json:"operationName"`
}

// cost is an answer's extensions.cost.
type cost struct {
	Requested float64       `json:"requestedQueryCost"`
	Actual    *float64      `json:"actualQueryCost"`
	Throttle  throttle      `json:"throttleStatus"`
	Fields    []costOfField `json:"fields,omitempty"`
}

type throttle struct {
	Maximum   float64 `json:"maximumAvailable"`
	Currently float64 `json:"currentlyAvailable"`
	Restore   float64 `json:"restoreRate"`
}

// costOfField is what the header Shopify-GraphQL-Cost-Debug asks for.
type costOfField struct {
	Path      []string `json:"path"`
	Defined   float64  `json:"definedCost"`
	Requested float64  `json:"requestedTotalCost"`
	Children  *float64 `json:"requestedChildrenCost"`
}

// graphql answers a GraphQL request.
func (c *call) graphql() {
	if c.r.Method != http.MethodPost {
		answer(c.w, http.StatusMethodNotAllowed, map[string]any{"errors": "Method Not Allowed"})
		return
	}
	var req request
	body := http.MaxBytesReader(c.w, c.r.Body, maxBody)
	d := json.NewDecoder(body)
	d.UseNumber()
	if err := d.Decode(&req); err != nil {
		answer(c.w, http.StatusBadRequest, map[string]any{"errors": map[string]any{"query": "Required parameter missing or invalid"}})
		return
	}
	_, _ = io.Copy(io.Discard, body)
	x, errs := c.prepare(req)
	if errs != nil {
		c.finish(http.StatusOK, fields{{"errors", errs}}, nil)
		return
	}
	e, err := shopify.Explain(c.version, shopify.Request{Query: req.Query, Variables: req.Variables, OperationName: req.OperationName})
	if err != nil {
		c.finish(http.StatusOK, fields{{"errors", []*gqlError{coded("BAD_REQUEST", "%s", err)}}}, nil)
		return
	}
	if !c.charge(x, e) || !c.wait() {
		return
	}
	c.execute(x, e)
}

// prepare parses and validates a request.
func (c *call) prepare(req request) (*execution, []*gqlError) {
	schema, err := sdl.Load(c.version)
	if err != nil {
		return nil, []*gqlError{coded("INTERNAL_SERVER_ERROR", "%s", err)}
	}
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: req.Query}, 100_000)
	if err != nil {
		out := coded("parseError", "%s", err)
		if e, ok := errors.AsType[*gqlerror.Error](err); ok {
			out.Message, out.Locations = e.Message, fromParser(e).Locations
		}
		return nil, []*gqlError{out}
	}
	if errs := validate(schema, doc); errs != nil {
		return nil, errs
	}
	op := doc.Operations.ForName(req.OperationName)
	if req.OperationName == "" && len(doc.Operations) == 1 {
		op = doc.Operations[0]
	}
	if op == nil {
		return nil, []*gqlError{{Message: "An operation name is required"}}
	}
	vars := plainNumbers(req.Variables).(map[string]any)
	if e := strictVariables(schema, op, vars); e != nil {
		return nil, []*gqlError{badVariable(op, req.Variables, e)}
	}
	coerced, err := validator.VariableValues(schema, op, vars)
	if err != nil {
		return nil, []*gqlError{badVariable(op, req.Variables, err)}
	}
	coerced, _ = loose(reflect.ValueOf(coerced)).(map[string]any)
	x := &execution{shop: c.shop, version: c.version, schema: schema, op: op, vars: coerced, scopes: c.server.cfg.Scopes}
	root := schema.Query
	if op.Operation == ast.Mutation {
		root = schema.Mutation
	}
	for _, s := range x.collect(nil, root, []ast.SelectionSet{op.SelectionSet}) {
		if e := tooMany(s.field.ArgumentMap(coerced), []any{s.field.Alias}); e != nil {
			e.Locations = at(s.field.Position)
			return nil, []*gqlError{e}
		}
	}
	if e := x.support(root, op.SelectionSet); e != nil {
		return nil, []*gqlError{e}
	}
	if usesDeprecated(op.SelectionSet, 0) {
		c.w.Header().Set("X-Shopify-API-Deprecated-Reason", "https://shopify.dev/api/usage/versioning#deprecation-practices")
	}
	return x, nil
}

// plainNumbers makes numbers what gqlparser expects: whole ones int64, others float64.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plainNumbers(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = plainNumbers(e)
		}
		return out
	default:
		return v
	}
}

// loose makes lists []any: gqlparser makes a list of one element in its own type.
func loose(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return loose(v.Elem())
	case reflect.Map:
		out := make(map[string]any, v.Len())
		for _, k := range v.MapKeys() {
			out[k.String()] = loose(v.MapIndex(k))
		}
		return out
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = loose(v.Index(i))
		}
		return out
	case reflect.Invalid:
		return nil
	default:
		return v.Interface()
	}
}

func usesDeprecated(set ast.SelectionSet, depth int) bool {
	return depth < 100 && slices.ContainsFunc(set, func(s ast.Selection) bool {
		switch s := s.(type) {
		case *ast.Field:
			return s.Definition.Directives.ForName("deprecated") != nil || usesDeprecated(s.SelectionSet, depth+1)
		case *ast.InlineFragment:
			return usesDeprecated(s.SelectionSet, depth+1)
		case *ast.FragmentSpread:
			return usesDeprecated(s.Definition.SelectionSet, depth+1)
		}
		return false
	})
}

// charge takes the requested cost out of the app's bucket. It answers a request that costs too much, at all or now, and says false.
func (c *call) charge(x *execution, e shopify.Explanation) bool {
	s := c.shop
	s.mu.Lock()
	s.stats.Requests++
	x.app = s.app(c.token)
	requested := float64(e.Requested)
	var refusal *gqlError
	switch {
	case e.Requested > shopify.MaxCost:
		refusal = coded("MAX_COST_EXCEEDED", "Query cost is %d, which exceeds the single query max cost limit (%d).\n\nSee https://shopify.dev/concepts/about-apis/rate-limits for more information on how the\ncost of a query is calculated.\n\nTo query larger amounts of data with fewer limits, bulk operations should be used instead.", e.Requested, shopify.MaxCost)
		refusal.Extensions["cost"], refusal.Extensions["maxCost"], refusal.Extensions["documentation"] = e.Requested, shopify.MaxCost, "https://shopify.dev/api/usage/rate-limits"
	case !x.app.points.take(requested, s.plan.Points, s.plan.PointsPerSecond):
		s.stats.Throttled++
		refusal = coded("THROTTLED", "Throttled")
		refusal.Extensions["documentation"] = "https://shopify.dev/api/usage/rate-limits"
	}
	status := s.cost(x.app, e, nil)
	s.mu.Unlock()
	if refusal == nil {
		return true
	}
	if !c.wait() { // a refusal takes its time too
		return false
	}
	out := fields{{"errors", []*gqlError{refusal}}}
	c.finish(http.StatusOK, c.extend(out, status, e), nil)
	return false
}

// cost is what an answer says of it.
func (s *Shop) cost(a *app, e shopify.Explanation, actual *float64) cost {
	left := a.points.left(s.plan.Points, s.plan.PointsPerSecond)
	return cost{Requested: float64(e.Requested), Actual: actual, Throttle: throttle{s.plan.Points, math.Max(0, math.Floor(left)), s.plan.PointsPerSecond}}
}

// extend adds an answer's extensions.
func (c *call) extend(out fields, status cost, e shopify.Explanation) fields {
	if c.fault == NoExtensions {
		return out
	}
	if c.r.Header.Get("Shopify-GraphQL-Cost-Debug") != "" {
		status.Fields = debugFields(nil, nil, e.Nodes)
	}
	out.set("extensions", fields{{"cost", status}})
	return out
}

func debugFields(out []costOfField, path []string, nodes []*shopify.Node) []costOfField {
	for _, n := range nodes {
		at := append(slices.Clip(path), n.Key)
		f := costOfField{Path: at, Defined: n.Own, Requested: n.Total}
		if rest := n.Total - n.Own; n.Children != nil {
			f.Children = &rest
		}
		out = debugFields(append(out, f), at, n.Children)
	}
	return out
}

// execute runs the request, gives back what it has not cost, and answers.
func (c *call) execute(x *execution, e shopify.Explanation) {
	out, status, events := c.shop.execute(x, e)
	c.finish(http.StatusOK, c.extend(out, status, e), events)
}

func (s *Shop) execute(x *execution, e shopify.Explanation) (out fields, status cost, events []event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := x.run()
	spent := actual(e, data)
	x.app.points.used = max(0, x.app.points.used-(float64(e.Requested)-spent))
	s.stats.Points += spent
	status = s.cost(x.app, e, &spent)
	out.set("data", data)
	if len(x.errs) > 0 {
		out = append(out, fields{{"errors", x.errs}}...)
	}
	return out, status, s.take()
}

// take empties the outbox.
func (s *Shop) take() []event {
	events := s.outbox
	s.outbox = nil
	s.stats.Webhooks += len(events)
	return events
}

// Exec runs a GraphQL request of version 2026-04 on the shop, free of quota, faults and latency, to put things there: it returns the answer's data.
//
// It fails if the answer has errors or user errors.
func (s *Shop) Exec(query string, variables map[string]any) (json.RawMessage, error) {
	c := &call{server: s.server, shop: s, version: "2026-04", w: discard{}}
	b, err := json.Marshal(variables)
	if err != nil {
		return nil, fmt.Errorf("shopifytest: Exec: %w", err)
	}
	req := request{Query: query}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&req.Variables); err != nil {
		return nil, fmt.Errorf("shopifytest: Exec: %w", err)
	}
	x, errs := c.prepare(req)
	if errs == nil {
		data, b, events, err := s.exec(x)
		if err != nil {
			return nil, fmt.Errorf("shopifytest: Exec: %w", err)
		}
		s.server.send(s, events)
		errs = x.errs
		if message := userErrors(data); errs == nil && message != "" {
			return b, fmt.Errorf("shopifytest: Exec: %s", message)
		}
		if errs == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("shopifytest: Exec: %w", errs[0])
}

// exec runs a request for nobody's account.
func (s *Shop) exec(x *execution) (data any, b json.RawMessage, events []event, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.app, x.scopes = s.app(s.server.cfg.Token), nil
	data = x.run()
	b, err = json.Marshal(data)
	return data, b, s.take(), err
}

// userErrors are the messages of user errors in an answer.
func userErrors(v any) string {
	var all []string
	f, _ := v.(fields)
	for _, root := range f {
		payload, _ := root.value.(fields)
		for _, e := range payload {
			if list, ok := e.value.([]any); ok && strings.HasSuffix(strings.ToLower(e.key), "usererrors") {
				for _, u := range list {
					all = append(all, fmt.Sprint(answerOf(u, "field"), " ", answerOf(u, "message")))
				}
			}
		}
	}
	return strings.Join(all, "; ")
}

// discard is an http.ResponseWriter for nobody.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}
