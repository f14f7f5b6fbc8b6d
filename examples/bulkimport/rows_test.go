package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Broken quoting costs the line where its row begins. What follows is read as it is, whatever the quote would have made of it.
func TestBrokenQuotes(t *testing.T) {
	t.Parallel()
	const noEnd, bare = `a field that begins with " has no end, or something behind it`, `there is a " in a field that does not begin with one`
	type got struct {
		line int
		bad  string
	}
	for _, test := range []struct {
		name, text string
		want       []got
	}{
		{"good", "a,b,c,1,\n", []got{{2, ""}}},
		{"no end", "a,\"b,c,1,\na,b,c,1,\na,b,c,1,", []got{{2, noEnd}, {3, ""}, {4, ""}}},
		{"no end, and a good quote", "a,\"b,c,1,\na,\"b\",c,1,\n", []got{{2, noEnd}, {3, ""}}},
		{"no end, and none again", "a,\"b,c,1,\na,\"b,c,1,\n\na,b,c,1,\n", []got{{2, noEnd}, {3, noEnd}, {5, ""}}},
		{"no end at the end", "a,b,c,1,\na,\"b", []got{{2, ""}, {3, noEnd}}},
		{"blank lines before", "\n\r\n\na,\"b,c\n", []got{{5, noEnd}}},
		{"in the second line of a row", "a,\"b\nb\"b,c,1,\na,b,c,1,\n", []got{{2, noEnd}, {3, bare}, {4, ""}}},
		{"bare", "a,b\",c,1,\r\na,b,c,1,\r\n", []got{{2, bare}, {3, ""}}},
		{"too few and too many", "a,b\na,b,c,d,e,f\na,b,c,1,", []got{{2, "it has 2 fields, the header 5"}, {3, "it has 6 fields, the header 5"}, {4, ""}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, err := newFile([]byte(head + test.text))
			require.NoError(t, err)
			var all []got
			for _, r := range f.chunk(100) {
				all = append(all, got{r.line, r.bad})
			}
			assert.Equal(t, test.want, all)
		})
	}
}

func TestPrices(t *testing.T) {
	t.Parallel()
	c := &columns{0, 1, 2, 3, 4, 5}
	for text, cents := range map[string]int64{"0": 0, "5": 500, "5.5": 550, "05.05": 505, "999999999.99": 99999999999} {
		p, reason := c.product(row{fields: []string{"h", "t", "s", text, ""}})
		assert.Empty(t, reason)
		assert.Equal(t, cents, p.Cents, text)
	}
	for _, text := range []string{"", "-1", "+1", "1.", ".5", "1,50", "1.505", "1e3", "$5", "9999999999", "NaN", "٣"} {
		_, reason := c.product(row{fields: []string{"h", "t", "s", text, ""}})
		assert.NotEmpty(t, reason, text)
	}
	_, reason := c.product(row{fields: []string{"h", "t", "s", strings.Repeat("ü", 1000), ""}})
	assert.Less(t, len(reason), 200, "a reason does not repeat a whole field")
}

// Reading may begin anew behind any row, and so in any process: what is read is the same. It comes to an end, and rows
// are in the order of their lines.
func FuzzFile(f *testing.F) {
	s := generate(60, 1)
	f.Add(s.csv[bytes.IndexByte(s.csv, '\n')+1:])
	for _, text := range []string{"a,\"b,c,1,\na,b,c,1,\na,b,c,1,", "\"\n\"\"\n\"\"\"\n", "\r\n\r\r\n,,,,\r", "a,\"b\nb\"b,c,1,\na,b,c,1,\n", "\"\",\"\n\",\"\n", "\"0"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		once, err := newFile(append([]byte(head), body...))
		if err != nil {
			return
		}
		anew := *once
		last := 1
		for {
			anew.seek(anew.place)
			a, okA := anew.read()
			b, okB := once.read()
			require.Equal(t, b, a)
			require.Equal(t, okB, okA)
			require.Equal(t, once.place, anew.place)
			if !okA {
				break
			}
			require.Greater(t, a.line, last)
			last = a.line
			require.LessOrEqual(t, anew.At, len(anew.data))
			require.Equal(t, lineOf(anew.data, anew.At), anew.Line)
			require.Equal(t, a.bad == "", len(a.fields) == 5 && a.fields != nil)
		}
		require.Equal(t, len(anew.data), anew.At)
	})
}
