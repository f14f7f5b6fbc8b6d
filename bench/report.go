package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// errInvalid means that a run's outcome was not what it should be, so that its figures mean nothing.
var errInvalid = errors.New("bench: at least one result is invalid")

// row is the result of one case. Ratio is Ours/Peer; Want says which way is better.
type row struct {
	Case    string  `json:"case"`
	Unit    string  `json:"unit"`
	Ours    float64 `json:"ours"`
	Peer    float64 `json:"peer"`
	Ratio   ratio   `json:"ratio"`
	Want    string  `json:"want"`
	Met     bool    `json:"met"`
	Problem string  `json:"problem,omitempty"` // what makes the run invalid
}

// ratio is "invalid" in print where the run was not verified.
type ratio struct {
	value float64
	valid bool
}

func (r ratio) String() string {
	if !r.valid {
		return "invalid"
	}
	return strconv.FormatFloat(r.value, 'f', 2, 64)
}

// MarshalJSON gives a number, or the string "invalid" or "+Inf": a reader that expects a number then fails
// instead of reading a zero.
func (r ratio) MarshalJSON() ([]byte, error) {
	if !r.valid || math.IsInf(r.value, 1) {
		return []byte(`"` + r.String() + `"`), nil
	}
	return json.Marshal(r.value)
}

// want is the target of a ratio. The zero value is none: the row is there to be read.
type want struct {
	sign  string // "<", "<=" or ">="
	limit float64
}

func (w want) String() string {
	if w == (want{}) {
		return "-"
	}
	return w.sign + " " + strconv.FormatFloat(w.limit, 'f', 2, 64)
}

func (w want) met(ratio float64) bool {
	switch w.sign {
	case "<":
		return ratio < w.limit
	case "<=":
		return ratio <= w.limit
	case ">=":
		return ratio >= w.limit
	default:
		return true
	}
}

// report prints rows as they come: a table, or one JSON object a line.
type report struct {
	out     io.Writer
	json    bool
	invalid bool
	err     error // the first failed write
}

const line = "%-52s %-6s %12s %12s %8s  %s\n"

func (r *report) head() {
	if r.json {
		return
	}
	r.printf("ratio = ours/peer: where want is < or <=, lower is better; where it is >=, higher\n\n")
	r.printf(line, "case", "unit", "ours", "peer", "ratio", "want")
}

// add prints a case. A problem, if there is one, makes it invalid.
func (r *report) add(name, unit string, ours, peer float64, w want, problem error) {
	res := row{Case: name, Unit: unit, Ours: ours, Peer: peer, Want: w.String()}
	if problem != nil {
		res.Problem = strings.ReplaceAll(problem.Error(), "\n", "; ") // one line a case
		r.invalid = true
	} else {
		res.Ratio = ratio{value: ours / peer, valid: true}
		if ours == peer {
			res.Ratio.value = 1 // 0 and 0 too, where there should be none of something
		}
		res.Met = w.met(res.Ratio.value)
	}
	if r.json {
		enc := json.NewEncoder(r.out)
		enc.SetEscapeHTML(false) // "<" as it stands
		if err := enc.Encode(res); err != nil && r.err == nil {
			r.err = err
		}
		return
	}
	verdict := res.Want + " missed"
	switch {
	case problem != nil:
		verdict = res.Problem
	case w == want{}:
		verdict = res.Want
	case res.Met:
		verdict = res.Want + " met"
	}
	r.printf(line, name, unit, number(ours), number(peer), res.Ratio, verdict)
}

func (r *report) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(r.out, format, args...); err != nil && r.err == nil {
		r.err = err
	}
}

// finish says how the whole went.
func (r *report) finish() error {
	if r.err == nil && r.invalid {
		return errInvalid
	}
	return r.err
}

// number prints small values with a digit more than large ones.
func number(v float64) string {
	if v < 1000 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// median sorts values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}
