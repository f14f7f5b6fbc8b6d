package idempotency

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"slices"
	"strings"
	"unicode/utf8"
)

// CanonicalJSON writes JSON so that texts which say the same become the same: without white space, members sorted by name. Numbers stay as they were written, to the last digit. What is
// not one JSON value, or not UTF-8, or has a member twice (which parsers read in different ways), half of a surrogate pair, or more than 100 levels, comes back as it is.
func CanonicalJSON(text []byte) []byte {
	if !utf8.Valid(text) {
		return text
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	out, err := canonical(d, make([]byte, 0, len(text)), maxLevels)
	if err != nil {
		return text
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return text
	}
	return out
}

// maxLevels bounds what a text can cost: each level is a call on the stack, and copies what is in it.
const maxLevels = 100

var (
	errTwice = errors.New("a member is there twice")
	errDeep  = errors.New("too many levels")
	errHalf  = errors.New("half of a character")
)

// canonical appends the next value, which may have so many levels.
func canonical(d *json.Decoder, out []byte, levels int) ([]byte, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if levels == 0 {
			return nil, errDeep
		}
		if t == '[' {
			return canonicalArray(d, out, levels-1)
		}
		return canonicalObject(d, out, levels-1)
	case json.Number:
		return append(out, t...), nil
	case string:
		if strings.ContainsRune(t, utf8.RuneError) { // half of a surrogate pair, which could be any
			return nil, errHalf
		}
		b, err := json.Marshal(t)
		return append(out, b...), err
	default: // true, false, null
		b, err := json.Marshal(t)
		return append(out, b...), err
	}
}

func canonicalArray(d *json.Decoder, out []byte, levels int) (_ []byte, err error) {
	out = append(out, '[')
	for first := true; d.More(); first = false {
		if !first {
			out = append(out, ',')
		}
		if out, err = canonical(d, out, levels); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return append(out, ']'), err
}

func canonicalObject(d *json.Decoder, out []byte, levels int) ([]byte, error) {
	type member struct {
		name  string
		value []byte
	}
	var members []member
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string) // nothing else comes here
		if strings.ContainsRune(name, utf8.RuneError) {
			return nil, errHalf
		}
		v, err := canonical(d, nil, levels)
		if err != nil {
			return nil, err
		}
		members = append(members, member{name, v})
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	out = append(out, '{')
	for i, m := range members {
		if i > 0 {
			if m.name == members[i-1].name {
				return nil, errTwice
			}
			out = append(out, ',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, name...), ':'), m.value...)
	}
	return append(out, '}'), nil
}

// canonicalForm writes a multipart form without its boundary, which is another one each time: each part's headers and bytes, in their order. What is no form comes back as
// it is.
func canonicalForm(body []byte, boundary string) []byte {
	if boundary == "" {
		return body
	}
	var out []byte
	add := func(b []byte) { out = append(binary.AppendUvarint(out, uint64(len(b))), b...) }
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		p, err := r.NextRawPart()
		if err == io.EOF { //nolint:errorlint // the form's end; where it is missing, the error wraps io.EOF
			return out
		}
		if err != nil {
			return body
		}
		names := make([]string, 0, len(p.Header))
		for name := range p.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		out = binary.AppendUvarint(out, uint64(len(names)))
		for _, name := range names {
			add([]byte(name))
			out = binary.AppendUvarint(out, uint64(len(p.Header[name])))
			for _, v := range p.Header[name] {
				add([]byte(v))
			}
		}
		content, err := io.ReadAll(p)
		if err != nil {
			return body
		}
		add(content)
	}
}
