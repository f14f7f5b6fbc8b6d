package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// What comes out of a queue may hold anything. Nothing of it reaches a terminal that could drive it: escape sequences, and
// characters that turn the direction of the text.

// cell is s for a table: as it stands if all of it can be printed, else quoted.
func cell(s string) string {
	switch {
	case s == "":
		return "-"
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable):
		return strconv.Quote(s)
	default:
		return s
	}
}

// brief is a cell with the beginning of a long text.
func brief(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return cell(s)
}

// text is s of several lines, with what can't be printed escaped.
func text(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || r == '\t' || !unprintable(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !strconv.IsPrint(r) }

// count is n and what there are so many of.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// row is something to print: an object for scripts, or cells for people.
type row struct {
	object any
	cells  []string
}

// print prints rows; header names the cells, with commas between.
func (c *call) print(header string, rows []row) error {
	if c.json {
		for _, r := range rows {
			if err := c.line(r.object); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(header, ",", "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r.cells, "\t"))
	}
	return w.Flush()
}

// say prints a sentence for people, or an object for scripts.
func (c *call) say(object any, format string, args ...any) error {
	if c.json {
		return c.line(object)
	}
	_, err := fmt.Fprintf(c.out, format+"\n", args...)
	return err
}

func (c *call) line(object any) error {
	s, err := oneLine(object)
	if err == nil {
		_, err = fmt.Fprintln(c.out, s)
	}
	return err
}

// oneLine is v as JSON that can be printed: encoding/json leaves DEL, C1 controls and marks of direction as they are.
func oneLine(v any) (string, error) {
	plain, err := json.Marshal(v)
	var b strings.Builder
	for _, r := range string(plain) {
		if !unprintable(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String(), err
}
