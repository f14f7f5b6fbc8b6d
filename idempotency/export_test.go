package idempotency

import "net/http"

// ParseResponse reads a response that was kept.
func ParseResponse(b []byte) (status int, header http.Header, body []byte, err error) {
	k, err := parseResponse(b)
	return k.status, k.header, k.body, err
}

var CanonicalForm = canonicalForm

// ReadKey reads an Idempotency-Key header.
func ReadKey(value string) (string, bool) {
	key, detail := readKey(http.Header{keyHeader: {value}})
	return key, detail == ""
}
