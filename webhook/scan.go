package webhook

import (
	"bytes"
	"encoding/json"
	"strings"
)

// lookup finds the value at a path of object keys in a JSON body, without decoding the rest, and
// returns its bytes as they stand. Of a repeated key the first counts. A body that is not JSON gives
// false or some of its own bytes, never a panic: what Shopify signed is well-formed, and the full
// decode in the handler is what judges it.
func lookup(body []byte, path ...string) ([]byte, bool) {
	s := scanner{b: body}
	for _, key := range path {
		if !s.enter(key) {
			return nil, false
		}
	}
	start := s.space()
	if !s.skip() {
		return nil, false
	}
	return body[start:s.i], true
}

// scanner walks a JSON text. Each method leaves i behind what it read, and says false where the text
// is not what it should be.
type scanner struct {
	b []byte
	i int
}

// space passes white space and returns where the next token starts.
func (s *scanner) space() int {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return s.i
		}
	}
	return s.i
}

// next passes white space and the byte c.
func (s *scanner) next(c byte) bool {
	if s.space(); s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// enter goes into an object, to the value of key.
func (s *scanner) enter(key string) bool {
	if !s.next('{') {
		return false
	}
	for {
		start := s.space()
		if !s.str() {
			return false
		}
		name := s.b[start:s.i]
		if !s.next(':') {
			return false
		}
		if keyIs(name, key) {
			return true
		}
		if !s.skip() || !s.next(',') {
			return false
		}
	}
}

// keyIs compares a quoted key with a plain one.
func keyIs(quoted []byte, key string) bool {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == key
	}
	var plain string
	return json.Unmarshal(quoted, &plain) == nil && plain == key
}

// str passes a string.
func (s *scanner) str() bool {
	if !s.next('"') {
		return false
	}
	for s.i < len(s.b) {
		n := bytes.IndexByte(s.b[s.i:], '"')
		if n < 0 {
			break
		}
		end := s.i + n
		// The quote ends the string unless an odd number of backslashes stands before it.
		slashes := 0
		for k := end - 1; k >= s.i && s.b[k] == '\\'; k-- {
			slashes++
		}
		s.i = end + 1
		if slashes%2 == 0 {
			return true
		}
	}
	s.i = len(s.b)
	return false
}

// skip passes one value. An object or array is skipped by counting brackets outside strings: no
// recursion, so depth costs nothing.
func (s *scanner) skip() bool {
	if s.space(); s.i == len(s.b) {
		return false
	}
	switch s.b[s.i] {
	case '"':
		return s.str()
	case '{', '[':
		depth := 0
		for s.i < len(s.b) {
			switch s.b[s.i] {
			case '"':
				if !s.str() {
					return false
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			s.i++
			if depth == 0 {
				return true
			}
		}
		return false
	}
	start := s.i
	for s.i < len(s.b) && !strings.ContainsRune(",}] \t\r\n", rune(s.b[s.i])) {
		s.i++
	}
	return s.i > start
}
