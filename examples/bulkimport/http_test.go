package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// head is the least that a CSV must have.
const head = "Handle,Title,Variant SKU,Variant Price,Variant Inventory Qty\n"

// A row is named by the line where it starts, whatever lines the fields before it have.
func TestBadRowsByLine(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.start()
	data := head +
		"hat,\"Hat\nwith a brim\",H1,12.90,3\n" + // 2 and 3
		"hat,,H2,12.9,\n" + // 4
		"\n" +
		"coat,\"Coat\r\n\r\nin blue\",C1,free,1\r\n" + // 6 to 8
		"coat,,C2,80,1\n" + // 9
		"shoe,\"Shoe,S1,99,1\n" + // 10: a quote is missing
		"boot,\"Boot\n\n\",B1,120,x\n" + // 11 to 13
		"boot,Boot \"B\",B1,120,1\n" + // 14
		"boot,Boot,B1,120\n" + // 15
		"boot,Boot,B1,120.00,-5\n" + // 16
		",,,,\n" + // 17
		"boot,Boot,B1,1,1\n" + // 18
		"sock,Sock,,5,1" // 19, without an end
	location, err := r.post(t.Context(), []byte(data), "")
	require.NoError(t, err)
	st, err := r.follow(t.Context(), location, func(status) error { return nil })
	require.NoError(t, err)
	want := []badRow{
		{6, `Variant Price "free" is no price such as 12.90`},
		{9, `Title is empty, and no row before has brought the product "coat"`},
		{10, `a field that begins with " has no end, or something behind it`},
		{11, `Variant Inventory Qty "x" is no whole number`},
		{14, `there is a " in a field that does not begin with one`},
		{15, "it has 4 fields, the header 5"},
		{17, "Handle is empty"},
		{18, `Variant SKU "B1" is on line 16 already`},
		{19, "Variant SKU is empty"},
	}
	require.Equal(t, status{JobID: st.JobID, Status: "succeeded", Progress: 100, Note: "12 rows: 3 imported, 9 bad", Result: &result{12, 3, 9, want}}, st)
	list, err := r.badRows(t.Context(), location)
	require.NoError(t, err)
	require.Equal(t, want, list)
	r.imported(st.JobID, sample{good: []product{
		{2, "hat", "Hat\nwith a brim", "H1", 1290, 3}, {4, "hat", "", "H2", 1290, 0}, {16, "boot", "Boot", "B1", 12000, -5},
	}, bad: want})
}

// What Excel and others make of it is a product CSV as well: a byte order mark, more columns, another order.
func TestOtherShapes(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.start()
	data := "\ufeffVariant Price,Variant Inventory Qty,Variant SKU,Vendor,Title,Handle\r\n 5.5 ,,B,V,Ball,ball\r\n\r\n"
	location, err := r.post(t.Context(), []byte(data), "")
	require.NoError(t, err)
	st, err := r.follow(t.Context(), location, func(status) error { return nil })
	require.NoError(t, err)
	r.imported(st.JobID, sample{good: []product{{2, "ball", "Ball", "B", 550, 0}}})
}

func TestNoProductCSV(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	for _, test := range []struct {
		name, body, contentType string
		code                    int
		detail                  string
	}{
		{"empty", "", "text/csv", 422, "The file is empty."},
		{"header alone", head, "text/csv", 422, "The file has a header and no rows."},
		{"semicolons", strings.ReplaceAll(head, ",", ";") + "a;b;c;d;e\n", "text/csv", 422,
			"The header lacks Handle, Title, Variant SKU, Variant Price, Variant Inventory Qty. It must be the first line, as in Shopify's product CSV, with commas between."},
		{"a column is missing", "Handle,Title,Variant SKU,Variant Price\na,b,c,1\n", "text/csv", 422,
			"The header lacks Variant Inventory Qty. It must be the first line, as in Shopify's product CSV, with commas between."},
		{"broken header", "Handle,\"Title\nx", "text/csv", 422, "The first line is no header: it can't be read as CSV."},
		{"blank lines", "\n\n", "text/csv", 422, "The first line is no header: it can't be read as CSV."},
		{"Latin-1", head + "hat,Hut f\xfcr alle,H,1,1\n", "text/csv; charset=latin1", 422, "Line 2 is not UTF-8. Save the file as CSV UTF-8."},
		{"UTF-16", "\xff\xfeH\x00", "text/csv", 422, "The file is UTF-16. Save it as CSV UTF-8."},
		{"workbook", "PK\x03\x04\x14\x00", "text/csv", 422, "The file is a workbook or an archive. Save it as CSV UTF-8."},
		{"zeros", head + "a\x00", "text/csv", 422, "Line 2 has a zero byte. The file is no text."},
		{"too large", strings.Repeat("x", maxUpload+1), "text/csv", 413, "The body has more than 16777216 bytes."},
		{"JSON", "{}", "application/json", 415, "The Content-Type must be text/csv."},
		{"no type", "{}", "", 415, "The Content-Type must be text/csv."},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := r.do(t.Context(), "POST", path, []byte(test.body), http.Header{"Content-Type": {test.contentType}}, nil)
			require.Equal(t, &refusedError{test.code, test.detail}, err)
		})
	}
}

// The same file sent again with its key is the same import.
func TestPostedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := generate(300, 4)
	first, err := r.post(t.Context(), s.csv, "k")
	require.NoError(t, err)
	r.start()
	st, err := r.follow(t.Context(), first, func(status) error { return nil })
	require.NoError(t, err)
	again, err := r.post(t.Context(), s.csv, "k")
	require.NoError(t, err)
	require.Equal(t, first, again)
	r.imported(st.JobID, s)
	for key, other := range map[string][]byte{"k": generate(300, 5).csv, "l": s.csv, "": s.csv} {
		location, err := r.post(t.Context(), other, key)
		require.NoError(t, err)
		require.NotEqual(t, first, location, "another file, or another key, is another import")
	}
}

// A cancelled import says how far it came, has imported that, and nothing more.
func TestCancel(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{Pace: 100 * time.Millisecond})
	r.start()
	s := generate(20*chunkRows, 5)
	location, err := r.post(t.Context(), s.csv, "")
	require.NoError(t, err)
	asked := false
	st, err := r.follow(t.Context(), location, func(st status) error {
		if asked || st.Progress == 0 {
			return nil
		}
		asked = true
		return r.do(t.Context(), "DELETE", location, nil, nil, func(*http.Response) error { return nil })
	})
	require.NoError(t, err)
	require.Equal(t, "cancelled", st.Status)
	require.Nil(t, st.Result)
	p, err := r.position(t.Context(), st.JobID)
	require.NoError(t, err)
	require.Less(t, p.At, len(s.csv))
	require.Equal(t, p.Imported+p.Bad, (p.Imported+p.Bad)/chunkRows*chunkRows)
	require.Equal(t, fmt.Sprintf("%d rows: %d imported, %d bad", p.Imported+p.Bad, p.Imported, p.Bad), st.Note)
	bad, err := r.badRows(t.Context(), location)
	require.NoError(t, err)
	require.Equal(t, s.bad[:p.Bad], append([]badRow{}, bad...))
	r.imported(st.JobID, sample{good: s.good[:p.Imported], bad: bad})
}

// The server stops in order in mid-import, and starts again: nobody waits for a lease, and nothing has failed.
func TestStopInMidImport(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{Pace: 50 * time.Millisecond})
	stop := r.start()
	s := generate(10*chunkRows, 6)
	location, err := r.post(t.Context(), s.csv, "")
	require.NoError(t, err)
	stopped := false
	st, err := r.follow(t.Context(), location, func(st status) error {
		if !stopped && st.Progress > 0 {
			stopped = true
			stop()
			r.start()
		}
		return nil
	})
	require.NoError(t, err)
	require.True(t, stopped)
	require.Equal(t, "succeeded", st.Status)
	r.imported(st.JobID, s)
}

func TestPagesAndUnknownImports(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	get := func(path string) (text string, err error) {
		err = r.do(t.Context(), "GET", path, nil, nil, func(resp *http.Response) error {
			body, err := io.ReadAll(resp.Body)
			text = string(body)
			return err
		})
		return text, err
	}
	text, err := get("/")
	require.NoError(t, err)
	assert.Contains(t, text, "EventSource")
	assert.NotContains(t, text, "https://", "no assets of others")
	text, err = get("/sample.csv")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(text, strings.Join(header, ",")+"\n"))
	for _, path := range []string{path + "/x", path + "/x/bad", path + "/x/events", "/x"} {
		_, err = get(path)
		refused := new(refusedError)
		require.ErrorAs(t, err, &refused, path)
		assert.Equal(t, 404, refused.code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = client{"http://127.0.0.1:1"}.post(ctx, nil, "")
	require.ErrorIs(t, err, context.DeadlineExceeded, "a server that is away is waited for")
}
