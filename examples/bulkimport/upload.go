package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"mime"
	"net/http"
	"unicode/utf8"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

const (
	kind = "products/import"
	shop = "demo.myshopify.com"
)

// accept makes a job of an upload. What is wrong with the file as a whole is said here, while somebody is there to read it; what is wrong with a
// row is found by the import.
func accept(r *http.Request) (jobhttp.Submission, error) {
	// No page of another site can make a browser send this type without asking.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "text/csv" {
		return jobhttp.Submission{}, &jobhttp.Error{Status: http.StatusUnsupportedMediaType, Detail: "The Content-Type must be text/csv."}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return jobhttp.Submission{}, err
	}
	if problem := look(body); problem != "" {
		return jobhttp.Submission{}, &jobhttp.Error{Status: http.StatusUnprocessableEntity, Detail: problem}
	}
	key := r.Header.Get("Idempotency-Key")
	if key != "" { // sent again it is the same import; with another file it is another one, and not that file lost
		key = fmt.Sprintf("%s %x", key, sha256.Sum256(body))
	}
	return jobhttp.Submission{Job: queue.Job{
		Kind:      kind,
		Payload:   body, // the file is stored with the job, in the same step, or there is no 202
		Group:     shop,
		Class:     queue.Bulk, // never in the way of the shop's live orders
		Key:       "products", // a shop's imports run one after the other, in the order of their uploads
		DedupeKey: key,

		// A process that is killed in mid-import has crashed this job, also if it is a deploy that kills it. There is nothing in a CSV that
		// could be what kills it: let it go on.
		MaxCrashes: 1000,
	}}, nil
}

// look says what is wrong with a file as a whole.
func look(body []byte) string {
	switch {
	case len(body) == 0:
		return "The file is empty."
	case bytes.HasPrefix(body, []byte{0xff, 0xfe}), bytes.HasPrefix(body, []byte{0xfe, 0xff}):
		return "The file is UTF-16. Save it as CSV UTF-8."
	case bytes.HasPrefix(body, []byte("PK\x03\x04")):
		return "The file is a workbook or an archive. Save it as CSV UTF-8."
	case bytes.IndexByte(body, 0) >= 0:
		return fmt.Sprintf("Line %d has a zero byte. The file is no text.", lineOf(body, bytes.IndexByte(body, 0)))
	}
	if !utf8.Valid(body) {
		return fmt.Sprintf("Line %d is not UTF-8. Save the file as CSV UTF-8.", lineOf(body, invalid(body)))
	}
	f, err := newFile(body)
	if err != nil {
		return err.Error()
	}
	if _, ok := f.read(); !ok {
		return "The file has a header and no rows."
	}
	return ""
}

// invalid is where a text stops being UTF-8.
func invalid(body []byte) (at int) {
	for at < len(body) {
		r, n := utf8.DecodeRune(body[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return at
}

func lineOf(body []byte, at int) int { return 1 + bytes.Count(body[:at], []byte("\n")) }
