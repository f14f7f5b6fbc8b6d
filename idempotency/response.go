package idempotency

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
)

// recorder keeps an answer back until it is recorded, or lets it through if that can't be.
type recorder struct {
	w      http.ResponseWriter
	header http.Header // what the handler sees; what it was when the status was written is in sent
	sent   http.Header
	code   int // 0 before the status is written
	body   bytes.Buffer
	most   int

	through bool // it goes out as it comes
}

func (rec *recorder) Header() http.Header {
	if rec.through {
		return rec.w.Header() // for trailers
	}
	return rec.header
}

func (rec *recorder) WriteHeader(code int) {
	switch {
	case rec.code != 0:
	case code >= 100 && code < 200 && code != http.StatusSwitchingProtocols: // hints, of which there may be several, before the answer
		for k, v := range rec.header {
			rec.w.Header()[k] = slices.Clone(v)
		}
		rec.w.WriteHeader(code)
	default:
		rec.code, rec.sent = code, rec.header.Clone()
		if rec.header.Get("Trailer") != "" { // what comes after the body is not kept
			rec.pass()
		}
	}
}

func (rec *recorder) Write(p []byte) (int, error) {
	if rec.code == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	if !rec.through && rec.body.Len()+len(p) > rec.most {
		rec.pass()
	}
	if rec.through {
		return rec.w.Write(p)
	}
	if rec.code == http.StatusNoContent || rec.code == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	return rec.body.Write(p)
}

// pass lets through what was kept back, and all that comes.
func (rec *recorder) pass() {
	if !rec.through {
		rec.send()
		rec.through = true
	}
}

// send sends what was kept back.
func (rec *recorder) send() {
	if rec.code == 0 {
		rec.code, rec.sent = http.StatusOK, rec.header
	}
	maps.Copy(rec.w.Header(), rec.sent)
	rec.w.WriteHeader(rec.code)
	_, _ = rec.w.Write(rec.body.Bytes()) // a client that is gone asks again
	rec.body.Reset()
}

func (rec *recorder) status() int {
	if rec.code == 0 {
		return http.StatusOK
	}
	return rec.code
}

// FlushError is for http.ResponseController; Flush for those who ask for an http.Flusher.
func (rec *recorder) FlushError() error {
	if rec.code == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	rec.pass()
	return http.NewResponseController(rec.w).Flush()
}

func (rec *recorder) Flush() { _ = rec.FlushError() }

// Hijack hands the connection over.
func (rec *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(rec.w).Hijack()
	if err == nil {
		rec.through = true
		if rec.code == 0 {
			rec.code = http.StatusSwitchingProtocols
		}
	}
	return conn, rw, err
}

// Unwrap is for the deadlines of http.ResponseController.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.w }

// responseFormat begins a response that is kept: status, the number of headers, each name and value, the body; lengths before texts, all in varints.
const responseFormat = 1

// response is the answer as it is kept, with the headers that a replay has.
func (rec *recorder) response(headers []string) []byte {
	b := binary.AppendUvarint([]byte{responseFormat}, uint64(rec.status())) //nolint:gosec // three digits
	sent := rec.sent
	if sent == nil {
		sent = rec.header
	}
	var fields []string
	for _, name := range headers {
		for _, v := range sent[name] {
			fields = append(fields, name, v)
		}
	}
	if len(sent["Content-Type"]) == 0 && rec.body.Len() > 0 {
		fields = append(fields, "Content-Type", http.DetectContentType(rec.body.Bytes())) // as net/http does for the first
	}
	b = binary.AppendUvarint(b, uint64(len(fields)/2))
	for _, f := range fields {
		b = append(binary.AppendUvarint(b, uint64(len(f))), f...)
	}
	return append(b, rec.body.Bytes()...)
}

var errResponse = errors.New("not a response")

// kept is a response that was kept.
type kept struct {
	status int
	header http.Header
	body   []byte
}

func parseResponse(b []byte) (k kept, err error) {
	if len(b) == 0 {
		return k, errResponse
	}
	if b[0] != responseFormat {
		return k, fmt.Errorf("%w: response of format %d", ErrNewerFormat, b[0])
	}
	b = b[1:]
	number := func() int {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > 1<<31 {
			err = errResponse
			return 0
		}
		b = b[size:]
		return int(n)
	}
	text := func() string {
		n := number()
		if n > len(b) {
			err = errResponse
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	k.status, k.header = number(), http.Header{}
	for n := number(); n > 0 && err == nil; n-- {
		name, v := text(), text()
		k.header[name] = append(k.header[name], v)
	}
	if err == nil && (k.status < 200 || k.status > 999) {
		err = errResponse
	}
	k.body = b
	return k, err
}

// replay answers as the first request was answered.
func (m *Middleware) replay(w http.ResponseWriter, name Name, response []byte) {
	k, err := parseResponse(response)
	if err != nil {
		m.refuse(w, about(name, fmt.Errorf("what is kept under the key can't be replayed: %w", err)))
		return
	}
	maps.Copy(w.Header(), k.header)
	w.Header().Set(replayedHeader, "true")
	if len(k.body) > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(k.body)))
	}
	w.WriteHeader(k.status)
	_, _ = w.Write(k.body)
}
