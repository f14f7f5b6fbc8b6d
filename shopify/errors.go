package shopify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// What an answer's errors are, for errors.Is.
var (
	ErrThrottled    = errors.New("shopify: throttled")     // code THROTTLED, or status 429: there was less in the bucket than thought, and it did not come back in time
	ErrAccessDenied = errors.New("shopify: access denied") // code ACCESS_DENIED, or status 403: the app lacks a scope
	ErrUnauthorized = errors.New("shopify: unauthorized")  // status 401: the token is not valid, or no longer
	ErrNotFound     = errors.New("shopify: not found")     // status 404, or code RESOURCE_NOT_FOUND or NOT_FOUND
	ErrUserErrors   = errors.New("shopify: user errors")   // the error is a *UserErrorsError
)

// GraphError is an entry of an answer's errors.
type GraphError struct {
	Message    string
	Path       []any // response keys, and indexes as float64
	Code       string
	Extensions map[string]any
}

// UnmarshalJSON takes the code out of the extensions.
func (e *GraphError) UnmarshalJSON(b []byte) error {
	var in struct {
		Message    string
		Path       []any
		Extensions map[string]any
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	code, _ := in.Extensions["code"].(string)
	*e = GraphError{in.Message, in.Path, code, in.Extensions}
	return nil
}

// ResponseError is a GraphQL answer with errors. What there is of data was decoded all the same.
type ResponseError struct {
	Shop      string
	Errors    []GraphError // at least one
	RequestID string       // for Shopify's support
	Partial   bool         // there was data beside the errors
}

func (e *ResponseError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "shopify: %s answered", e.Shop)
	for i, g := range e.Errors[:min(3, len(e.Errors))] {
		if i > 0 {
			b.WriteString(";")
		}
		b.WriteString(" " + g.Message)
		if g.Code != "" {
			fmt.Fprintf(&b, " (%s)", g.Code)
		}
		if len(g.Path) > 0 {
			fmt.Fprintf(&b, " at %s", path(g.Path))
		}
	}
	if n := len(e.Errors) - 3; n > 0 {
		fmt.Fprintf(&b, "; and %d more", n)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, ", request %s", e.RequestID)
	}
	return b.String()
}

func path(parts []any) string {
	words := make([]string, len(parts))
	for i, p := range parts {
		words[i] = fmt.Sprint(p)
	}
	return strings.Join(words, ".")
}

// has says whether an error has one of some codes.
func (e *ResponseError) has(codes ...string) bool {
	return slices.ContainsFunc(e.Errors, func(g GraphError) bool { return slices.Contains(codes, g.Code) })
}

// Is says what kind of error it is.
func (e *ResponseError) Is(target error) bool {
	switch target {
	case ErrThrottled:
		return e.has("THROTTLED")
	case ErrAccessDenied:
		return e.has("ACCESS_DENIED")
	case ErrNotFound:
		return e.has("RESOURCE_NOT_FOUND", "NOT_FOUND")
	case ErrTooExpensive:
		return e.has("MAX_COST_EXCEEDED")
	}
	return false
}

// StatusCode is what an HTTP answer with this error would have: 429 for THROTTLED, 500 for INTERNAL_SERVER_ERROR, 400 for everything else.
func (e *ResponseError) StatusCode() int {
	switch {
	case e.has("THROTTLED"):
		return http.StatusTooManyRequests
	case e.has("INTERNAL_SERVER_ERROR"):
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// Permanent says whether the same request will fail again whenever it is sent: all but THROTTLED, INTERNAL_SERVER_ERROR and TIMEOUT.
func (e *ResponseError) Permanent() bool {
	return !e.has("THROTTLED", "INTERNAL_SERVER_ERROR", "TIMEOUT")
}

// StatusError is an answer with a status other than 2xx.
type StatusError struct {
	Shop      string
	Status    int
	RequestID string // for Shopify's support
	Body      string // its first kilobyte
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("shopify: %s answered %d %s", e.Shop, e.Status, statusText(e.Status))
	if e.RequestID != "" {
		s += ", request " + e.RequestID
	}
	if e.Body != "" && !strings.HasPrefix(e.Body, "<") { // a page of HTML says nothing
		s += ": " + e.Body
	}
	return s
}

// statusText says what Shopify means by a status (shopify.dev/docs/api/usage/response-codes).
func statusText(status int) string {
	switch status {
	case http.StatusPaymentRequired:
		return "(the shop is frozen: its owner has to pay)"
	case http.StatusLocked:
		return "(the shop is locked for breaking limits, or fraud: contact Shopify's support, do not try again)"
	case 430:
		return "(Shopify's security has rejected the request: do not try again)"
	}
	return http.StatusText(status)
}

// Is says what kind of error it is.
func (e *StatusError) Is(target error) bool {
	switch target {
	case ErrThrottled:
		return e.Status == http.StatusTooManyRequests
	case ErrAccessDenied:
		return e.Status == http.StatusForbidden
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized
	case ErrNotFound:
		return e.Status == http.StatusNotFound
	}
	return false
}

// StatusCode is Status.
func (e *StatusError) StatusCode() int { return e.Status }

// Permanent says whether the same request will fail again whenever it is sent: 3xx and 4xx but 408, 425 and 429, and 501.
func (e *StatusError) Permanent() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	case http.StatusNotImplemented:
		return true
	}
	return e.Status < http.StatusInternalServerError
}

// ThrottledError is a *ResponseError or *StatusError that says to come later. It is an ErrThrottled. A queue puts the job off, and its group with it: the shop's other jobs would get the
// same.
type ThrottledError struct {
	Err   error
	After time.Duration
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("%v; again in %s", e.Err, e.After.Round(time.Millisecond))
}

// Unwrap returns Err.
func (e *ThrottledError) Unwrap() error { return e.Err }

// RetryAfter is After.
func (e *ThrottledError) RetryAfter() time.Duration { return e.After }

// ParkGroup says true.
func (e *ThrottledError) ParkGroup() bool { return true }

// UserErrorsError is the user errors of a mutation: what it was asked for is not possible. It is an ErrUserErrors. The mutation's payload was decoded all the same.
type UserErrorsError struct {
	Shop   string
	Errors []UserError // at least one
}

// UserError is one of a mutation's user errors.
type UserError struct {
	Mutation string   `json:"-"`     // the response key of the mutation
	Field    []string `json:"field"` // the path of the input that it is about; nil if it is about nothing of it
	Message  string   `json:"message"`
	Code     string   `json:"code"` // "" where the API has none, or it was not asked for
}

func (e *UserErrorsError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "shopify: %s refused", e.Shop)
	for i, u := range e.Errors[:min(3, len(e.Errors))] {
		if i > 0 {
			b.WriteString(";")
		}
		fmt.Fprintf(&b, " %s", strings.Join(append([]string{u.Mutation}, u.Field...), "."))
		fmt.Fprintf(&b, ": %s", u.Message)
		if u.Code != "" {
			fmt.Fprintf(&b, " (%s)", u.Code)
		}
	}
	if n := len(e.Errors) - 3; n > 0 {
		fmt.Fprintf(&b, "; and %d more", n)
	}
	return b.String()
}

// Unwrap returns ErrUserErrors.
func (e *UserErrorsError) Unwrap() error { return ErrUserErrors }

// Has says whether one has a code.
func (e *UserErrorsError) Has(code string) bool {
	return slices.ContainsFunc(e.Errors, func(u UserError) bool { return u.Code == code })
}
