package queue

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Codec encodes payloads for storage. Headers, keys and kinds are stored as they are, for the engine and
// those who look after it. A Codec must be safe for concurrent use, and keep and change nothing of what it is given.
type Codec interface {
	// Name is stored with each job, so that the right codec decodes it. It never changes.
	Name() string
	// Encode makes what is stored. id is the job's: a codec may bind the payload to it.
	Encode(id string, payload []byte) ([]byte, error)
	// Decode is the reverse. It fails with [ErrNewerFormat] or [ErrNoCodec] if another worker may be able to decode
	// it: then the job waits for that one; any other error kills the job.
	Decode(id string, stored []byte) ([]byte, error)
}

// encode replaces a job's payload by what is stored of it.
func (q *Queue) encode(j *Job) error {
	j.codec = ""
	if len(q.cfg.Codecs) == 0 || j.Payload == nil {
		return nil
	}
	stored, err := q.cfg.Codecs[0].Encode(j.ID, j.Payload)
	if err != nil {
		return err
	}
	j.Payload, j.codec = stored, q.cfg.Codecs[0].Name()
	return nil
}

// decode is the reverse.
func (q *Queue) decode(j *Job) error {
	if j.codec == "" {
		return nil
	}
	i := slices.IndexFunc(q.cfg.Codecs, func(c Codec) bool { return c.Name() == j.codec })
	if i < 0 {
		return fmt.Errorf("%w: it was encoded by %q, which is not in Config.Codecs", ErrNoCodec, j.codec)
	}
	payload, err := q.cfg.Codecs[i].Decode(j.ID, j.Payload)
	if err != nil {
		return fmt.Errorf("queue: decode payload: %w", err)
	}
	j.Payload, j.codec = payload, ""
	return nil
}

// decodeIfPossible leaves a payload as it is stored if no codec can read it, or one panics.
func (q *Queue) decodeIfPossible(j *Job) {
	defer func() { _ = recover() }()
	_ = q.decode(j)
}

// Plain stores payloads as they are. It has its place before others in Config.Codecs, to stop using them.
func Plain() Codec { return plain{} }

type plain struct{}

func (plain) Name() string                                    { return "" }
func (plain) Encode(_ string, payload []byte) ([]byte, error) { return payload, nil }
func (plain) Decode(_ string, stored []byte) ([]byte, error)  { return stored, nil }

// Deflate compresses payloads (RFC 1951) where that makes them smaller.
func Deflate() Codec { return deflate{} }

type deflate struct{}

// The first byte of what Deflate stores.
const (
	deflateRaw    = 1
	deflatePacked = 2
)

func (deflate) Name() string { return "deflate" }

func (deflate) Encode(_ string, payload []byte) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(len(payload)/2 + 64)
	b.WriteByte(deflatePacked)
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(payload)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, err
	}
	if b.Len() > len(payload) {
		return append([]byte{deflateRaw}, payload...), nil
	}
	return b.Bytes(), nil
}

func (deflate) Decode(_ string, stored []byte) ([]byte, error) {
	switch {
	case len(stored) == 0:
		return nil, errors.New("deflate: nothing is stored")
	case stored[0] == deflateRaw:
		return stored[1:], nil
	case stored[0] > deflatePacked:
		return nil, fmt.Errorf("deflate: %w: %d", ErrNewerFormat, stored[0])
	case stored[0] != deflatePacked:
		return nil, fmt.Errorf("deflate: format %d", stored[0])
	}
	payload, err := io.ReadAll(flate.NewReader(bytes.NewReader(stored[1:])))
	if err != nil {
		return nil, fmt.Errorf("deflate: %w", err)
	}
	return payload, nil
}

// Key is one key of AESGCM.
type Key struct {
	ID     string // 1 to 255 bytes, stored with each payload; never reused for another secret
	Secret []byte // 16, 24 or 32 random bytes
}

// AESGCM encrypts payloads with AES-GCM (NIST SP 800-38D) under the first key, with a random nonce, bound to
// the job's ID. All keys decrypt: to rotate, put the new key second in all processes, then first, and drop the
// old one when no job or dead letter has it any more. One key is good for 2^32 payloads. It fails for keys of a
// wrong length and for an ID that is empty, too long or there twice.
func AESGCM(keys ...Key) (Codec, error) {
	if len(keys) == 0 {
		return nil, errors.New("queue: AESGCM: there is no key")
	}
	c := &aesGCM{first: keys[0].ID, keys: map[string]cipher.AEAD{}}
	for _, k := range keys {
		if k.ID == "" || len(k.ID) > 255 || c.keys[k.ID] != nil {
			return nil, fmt.Errorf("queue: AESGCM: key ID %q is empty, over 255 bytes, or there twice", k.ID)
		}
		block, err := aes.NewCipher(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("queue: AESGCM: key %s: %w", k.ID, err)
		}
		if c.keys[k.ID], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("queue: AESGCM: key %s: %w", k.ID, err)
		}
	}
	return c, nil
}

type aesGCM struct {
	first string
	keys  map[string]cipher.AEAD
}

const aesFormat = 1 // then a byte of the key ID's length, the ID, the nonce, the sealed payload

func (c *aesGCM) Name() string { return "aes-gcm" }

func (c *aesGCM) Encode(id string, payload []byte) ([]byte, error) {
	gcm := c.keys[c.first]
	out := make([]byte, 0, 2+len(c.first)+gcm.NonceSize()+len(payload)+gcm.Overhead())
	out = append(out, aesFormat, byte(len(c.first))) //nolint:gosec // AESGCM has checked it
	out = append(out, c.first...)
	nonce := out[len(out) : len(out)+gcm.NonceSize()]
	_, _ = rand.Read(nonce) // never fails: crypto/rand
	return gcm.Seal(out[:len(out)+len(nonce)], nonce, payload, []byte(id)), nil
}

func (c *aesGCM) Decode(id string, stored []byte) ([]byte, error) {
	switch {
	case len(stored) < 2:
		return nil, fmt.Errorf("aes-gcm: only %d bytes are stored", len(stored))
	case stored[0] > aesFormat:
		return nil, fmt.Errorf("aes-gcm: %w: %d", ErrNewerFormat, stored[0])
	case stored[0] != aesFormat:
		return nil, fmt.Errorf("aes-gcm: format %d", stored[0])
	}
	rest, n := stored[2:], int(stored[1])
	if len(rest) < n {
		return nil, errors.New("aes-gcm: the key's ID is cut off")
	}
	key, rest := string(rest[:n]), rest[n:]
	gcm := c.keys[key]
	switch {
	case gcm == nil:
		return nil, fmt.Errorf("aes-gcm: %w: key %q is not here", ErrNoCodec, key)
	case len(rest) < gcm.NonceSize():
		return nil, errors.New("aes-gcm: the nonce is cut off")
	}
	payload, err := gcm.Open(nil, rest[:gcm.NonceSize()], rest[gcm.NonceSize():], []byte(id))
	if err != nil {
		return nil, fmt.Errorf("aes-gcm: key %q: %w", key, err)
	}
	return payload, nil
}

// Chain encodes with each codec in turn and decodes in reverse, as in Chain(Deflate(), encrypted).
func Chain(codecs ...Codec) Codec { return chain(slices.Clone(codecs)) }

type chain []Codec

func (c chain) Name() string {
	names := make([]string, len(c))
	for i, codec := range c {
		names[i] = codec.Name()
	}
	return strings.Join(names, "+")
}

func (c chain) Encode(id string, payload []byte) (_ []byte, err error) {
	for _, codec := range c {
		if payload, err = codec.Encode(id, payload); err != nil {
			return nil, err
		}
	}
	return payload, nil
}

func (c chain) Decode(id string, stored []byte) (_ []byte, err error) {
	for _, codec := range slices.Backward(c) {
		if stored, err = codec.Decode(id, stored); err != nil {
			return nil, err
		}
	}
	return stored, nil
}
