package shopifytest

import (
	"fmt"

	"github.com/vektah/gqlparser/v2/ast"
)

// location is a place in a query.
type location struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// gqlError is an entry of an answer's errors.
type gqlError struct {
	Message    string         `json:"message"`
	Locations  []location     `json:"locations,omitempty"`
	Path       []any          `json:"path,omitempty"`
	Extensions map[string]any `json:"extensions,omitempty"`
}

func (e *gqlError) Error() string { return e.Message }

func coded(code, format string, args ...any) *gqlError {
	return &gqlError{Message: fmt.Sprintf(format, args...), Extensions: map[string]any{"code": code}}
}

// unsupported says that the fake lacks something which Shopify has.
func unsupported(format string, args ...any) *gqlError {
	return coded("FAKE_UNSUPPORTED", "shopifytest does not support "+format, args...)
}

func at(p *ast.Position) []location {
	if p == nil {
		return nil
	}
	return []location{{p.Line, p.Column}}
}
