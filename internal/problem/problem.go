// Package problem writes answers of application/problem+json (RFC 9457).
package problem

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Details is a problem.
type Details struct {
	Status     int
	Type       string        // a URI that names the kind of problem; "" means about:blank
	Title      string        // the kind in words; "" means the status's text
	Detail     string        // what is wrong with this request
	RetryAfter time.Duration // the Retry-After header, in whole seconds, rounded up; 0 means none
}

// Write answers with a problem, which no cache may keep: 404 and 410 would be, by default.
func Write(w http.ResponseWriter, d Details) {
	body := struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{d.Type, d.Title, d.Status, d.Detail}
	if body.Type == "" {
		body.Type = "about:blank"
	}
	if body.Title == "" {
		body.Title = http.StatusText(d.Status)
	}
	b, err := json.Marshal(body)
	if err != nil { // strings and a number: it can't be
		b = []byte("{}")
	}
	head := w.Header()
	if d.RetryAfter > 0 {
		head.Set("Retry-After", Seconds(d.RetryAfter))
	}
	head.Set("Content-Type", "application/problem+json")
	head.Set("Content-Length", strconv.Itoa(len(b)))
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(d.Status)
	_, _ = w.Write(b) // a client that is gone asks again
}

// Seconds is a span as Retry-After has it: whole seconds, rounded up, at least one.
func Seconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}
