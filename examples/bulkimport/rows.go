package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// place is a point between two rows of a file.
type place struct {
	At   int // bytes before it
	Line int // that begins there, from 1
}

// columns are where a file has what is imported. They are found by name, so that others, and another order, do no harm.
type columns struct{ handle, title, sku, price, quantity, all int }

// file is a CSV that is read row by row, from any place on. A row has the line where it starts: quoted fields have line
// breaks, so that rows are not lines.
type file struct {
	data []byte
	columns
	place // of the next row
	first place

	csv  *csv.Reader
	from place // where csv began
}

// row is a row as it was read.
type row struct {
	line   int
	fields []string
	bad    string // why there are no fields to be had
}

// newFile reads the header. Its error is for whoever has sent the file.
func newFile(data []byte) (*file, error) {
	f := &file{data: data}
	f.seek(place{0, 1})
	if bytes.HasPrefix(data, []byte("\ufeff")) { // Excel begins its UTF-8 so
		f.seek(place{3, 1})
	}
	head, err := f.csv.Read()
	if err != nil {
		return nil, errors.New("The first line is no header: it can't be read as CSV.") //nolint:revive,staticcheck // a sentence for people
	}
	var missing []string
	find := func(name string) int {
		i := slices.Index(head, name)
		if i < 0 {
			missing = append(missing, name)
		}
		return i
	}
	f.columns = columns{find("Handle"), find("Title"), find("Variant SKU"), find("Variant Price"), find("Variant Inventory Qty"), len(head)}
	if missing != nil {
		return nil, fmt.Errorf("The header lacks %s. It must be the first line, as in Shopify's product CSV, with commas between.", strings.Join(missing, ", ")) //nolint:revive,staticcheck // a sentence for people
	}
	f.advance()
	f.first = f.place
	f.seek(f.first)
	return f, nil
}

// seek goes on from a place.
func (f *file) seek(p place) {
	f.place, f.from = p, p
	f.csv = csv.NewReader(bytes.NewReader(f.data[p.At:]))
	f.csv.FieldsPerRecord = f.all
}

// advance goes on to behind what csv has read.
func (f *file) advance() {
	end := f.from.At + int(f.csv.InputOffset())
	f.Line += bytes.Count(f.data[f.At:end], []byte("\n"))
	f.At = end
}

// read reads the next row. It says false at the end.
func (f *file) read() (row, bool) {
	fields, err := f.csv.Read()
	if err == nil {
		line, _ := f.csv.FieldPos(0)
		f.advance()
		return row{line: f.from.Line + line - 1, fields: fields}, true
	}
	problem, ok := errors.AsType[*csv.ParseError](err)
	if !ok { // the end
		f.advance()
		return row{}, false
	}
	r := row{line: f.from.Line + problem.StartLine - 1}
	switch {
	case errors.Is(err, csv.ErrFieldCount):
		r.bad = fmt.Sprintf("it has %d fields, the header %d", len(fields), f.all)
		f.advance()
		return r, true
	case errors.Is(err, csv.ErrBareQuote):
		r.bad = `there is a " in a field that does not begin with one`
	default:
		r.bad = `a field that begins with " has no end, or something behind it`
	}
	// Where a quote is missing the rows that follow are taken for more of the field, up to the next quote, or the end of the file. They
	// are not to be lost with it, so reading begins anew at the next line.
	next := f.At
	for range r.line - f.Line + 1 {
		if i := bytes.IndexByte(f.data[next:], '\n'); i >= 0 {
			next += i + 1
		} else {
			next = len(f.data)
		}
	}
	f.seek(place{next, f.Line + bytes.Count(f.data[f.At:next], []byte("\n"))})
	return r, true
}

// chunk reads at most n rows.
func (f *file) chunk(n int) []row {
	rows := make([]row, 0, n)
	for range n {
		r, ok := f.read()
		if !ok {
			break
		}
		rows = append(rows, r)
	}
	return rows
}
