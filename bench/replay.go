package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// exchange is a recording with its answer.
type exchange struct {
	recording

	Data   any      `json:"data"`
	Errors any      `json:"errors"`
	Actual *float64 `json:"actual"`
}

// outcome is what became of an exchange that was sent to the fake.
type outcome int

const (
	matches     outcome = iota
	otherState          // the right shape, but a null or a list's length that depends on what is in the shop
	unsupported         // the fake says that it can't
	noSchema            // the recording's version is not in the tables, and the nearest lacks something
	incomplete          // the recording lacks variables, or its answer is not that of its own query
	mismatch
)

// benchReplay sends recorded requests to the fake shop and compares the answers.
func benchReplay(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: bench replay FILE")
	}
	all, err := readRecordings[exchange](args[0])
	if err != nil {
		return err
	}
	tally := map[string]*[mismatch + 1]int{}
	why := map[outcome]map[string]int{unsupported: {}, noSchema: {}, incomplete: {}, mismatch: {}}
	costs := map[string]*costReplay{}
	for i := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		x := &all[i]
		if tally[x.Version] == nil {
			tally[x.Version], costs[x.Version] = &[mismatch + 1]int{}, &costReplay{}
		}
		o, reason, err := replay(x, costs[x.Version])
		if err != nil {
			return err
		}
		tally[x.Version][o]++
		if why[o] != nil {
			why[o][reason]++
		}
	}
	return printReplay(out, tally, costs, why)
}

// costReplay compares the costs in the fake's answers with recorded ones, of what it supports.
type costReplay struct{ n, requested, actuals, actual int }

// replay sends one request to a shop of its own, which has objects with the IDs that are in the recording.
func replay(x *exchange, costs *costReplay) (outcome, string, error) {
	fake, err := shopifytest.New(shopifytest.Config{Plan: shopifytest.Plus})
	if err != nil {
		return 0, "", err
	}
	shop := fake.Shop("example.myshopify.com")
	seed(shop, x)
	body, err := json.Marshal(map[string]any{"query": x.Query, "variables": x.Variables})
	if err != nil {
		return 0, "", err
	}
	r, err := http.NewRequest(http.MethodPost, "https://example.myshopify.com/admin/api/"+x.Version+"/graphql.json", bytes.NewReader(body)) //nolint:gosec,noctx // no network
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("X-Shopify-Access-Token", "replay")
	resp, err := fake.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var a answered
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return 0, "", err
	}
	if code := a.code("FAKE_UNSUPPORTED"); code != "" {
		return unsupported, code, nil
	}
	if a.Data == nil && a.Errors != nil && x.Data != nil {
		reason := fmt.Sprint(a.Errors[0].Message, a.Errors[0].Extensions["problems"])
		if a.lacksVariables() {
			return incomplete, reason, nil
		}
		if resp.Header.Get("X-Shopify-Api-Version") != x.Version {
			return noSchema, reason, nil
		}
		return mismatch, reason, nil
	}
	if c := a.Extensions.Cost; c != nil {
		costs.n++
		if c.Requested == x.Requested {
			costs.requested++
		}
		if x.Actual != nil && c.Actual != nil {
			costs.actuals++
			if *c.Actual == *x.Actual {
				costs.actual++
			}
		}
	}
	same, reason := sameShape(x.Data, a.Data, "")
	switch {
	case reason != "" && notItsOwn(x.Query, reason):
		return incomplete, reason, nil
	case reason != "":
		return mismatch, reason, nil
	case !same || (x.Errors == nil) != (a.Errors == nil):
		return otherState, "", nil
	}
	return matches, "", nil
}

// answered is an answer of the fake.
type answered struct {
	Data   any `json:"data"`
	Errors []struct {
		Message    string         `json:"message"`
		Extensions map[string]any `json:"extensions"`
	} `json:"errors"`
	Extensions struct {
		Cost *struct {
			Requested float64  `json:"requestedQueryCost"`
			Actual    *float64 `json:"actualQueryCost"`
		} `json:"cost"`
	} `json:"extensions"`
}

// code finds an error with a code, and returns its message.
func (a *answered) code(code string) string {
	for _, e := range a.Errors {
		if e.Extensions["code"] == code {
			return e.Message
		}
	}
	return ""
}

// lacksVariables says whether the request was without variables that it needs, or without a name of its operation.
func (a *answered) lacksVariables() bool {
	e := a.Errors[0]
	problems, _ := e.Extensions["problems"].([]any)
	for _, p := range problems {
		if m, ok := p.(map[string]any); ok && m["explanation"] == "must be defined" {
			return true
		}
	}
	return e.Message == "An operation name is required"
}

// notItsOwn says whether a recorded answer has a key that its query does not have, or lacks one that the query has without any condition.
func notItsOwn(query, reason string) bool {
	path, missing := strings.CutSuffix(reason, " is missing")
	path, _ = strings.CutSuffix(path, " is too much")
	key := path[strings.LastIndex(path, ".")+1:]
	if missing {
		return !slices.Contains(fieldsOf(query), key)
	}
	return strings.HasSuffix(reason, " is too much") && !strings.Contains(query, "...") && !strings.Contains(query, "@")
}

var gids = regexp.MustCompile(`gid://shopify/(Product|ProductVariant|InventoryItem|Customer|Order|Location)/\d+`)

// seed makes objects with the IDs that a request names.
func seed(shop *shopifytest.Shop, x *exchange) {
	vars, err := json.Marshal(x.Variables)
	if err != nil {
		panic(err) // it was JSON
	}
	for _, id := range gids.FindAllString(x.Query+string(vars), -1) {
		_ = shop.Ensure(id) // what it can't make is not there
	}
}

// sameShape compares two answers: a reason says how their shapes differ, and same is false where only what was in the shop did.
func sameShape(want, got any, path string) (same bool, reason string) {
	if want == nil || got == nil {
		return want == nil && got == nil, ""
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return false, fmt.Sprintf("%s is %T", path, got)
		}
		if w["__typename"] != nil && g["__typename"] != nil && w["__typename"] != g["__typename"] {
			return false, "" // another object of an interface
		}
		same = true
		for _, k := range slices.Sorted(maps.Keys(w)) {
			v, ok := g[k]
			if !ok {
				return false, path + "." + k + " is missing"
			}
			s, reason := sameShape(w[k], v, path+"."+k)
			if reason != "" {
				return false, reason
			}
			same = same && s
		}
		for k := range g {
			if _, ok := w[k]; !ok {
				return false, path + "." + k + " is too much"
			}
		}
		return same, ""
	case []any:
		g, ok := got.([]any)
		if !ok {
			return false, fmt.Sprintf("%s is %T", path, got)
		}
		same = len(w) == len(g)
		for i := range min(len(w), len(g)) {
			s, reason := sameShape(w[i], g[i], path+"[]")
			if reason != "" {
				return false, reason
			}
			same = same && s
		}
		return same, ""
	default:
		if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
			return false, fmt.Sprintf("%s is %T and not %T", path, got, want)
		}
		return true, ""
	}
}

func printReplay(out io.Writer, tally map[string]*[mismatch + 1]int, costs map[string]*costReplay, why map[outcome]map[string]int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "version\trecordings\tmatch\tmatch, other data\tunsupported\tno schema\tincomplete\twrong\trequested cost\tof\tactual cost\tof\t")
	for _, v := range slices.Sorted(maps.Keys(tally)) {
		t, c := tally[v], costs[v]
		n := 0
		for _, k := range t {
			n += k
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", v, n, t[matches], t[otherState], t[unsupported], t[noSchema], t[incomplete], t[mismatch], c.requested, c.n, c.actual, c.actuals)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, o := range []outcome{mismatch, noSchema, incomplete, unsupported} {
		reasons := slices.SortedFunc(maps.Keys(why[o]), func(a, b string) int {
			if d := why[o][b] - why[o][a]; d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
		fmt.Fprintf(out, "\n%s:\n", map[outcome]string{mismatch: "wrong", noSchema: "no schema", incomplete: "incomplete recording", unsupported: "unsupported"}[o])
		for _, r := range reasons[:min(len(reasons), 15)] {
			fmt.Fprintf(out, "%6d  %s\n", why[o][r], r)
		}
	}
	return nil
}
