package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// maxNameBytes bounds each part of a [Name]. An Idempotency-Key of Stripe has at most 255 characters as well.
const maxNameBytes = 255

// Key says what must happen once. Operations have names of their own, so that two handlers of one order do not collide.
type Key struct {
	Scope string // whose it is: the shop. Purge removes all of one; may be empty
	ID    string // what it is about, e.g. "order/820982911946154508"; must not be empty

	// Payload is what is done with it, where that matters: other bytes under the same key are [ErrMismatch]. nil compares nothing, and is right for
	// webhooks, whose redelivery may come from another subscription. What counts is what it is when the call begins. See [CanonicalJSON].
	Payload []byte
}

// name checks the parts of a name: valid UTF-8 without NUL, at most 255 bytes each.
func (k *Key) name(op string) (Name, error) {
	for _, part := range [...]struct{ what, text string }{{"operation", op}, {"Key.Scope", k.Scope}, {"Key.ID", k.ID}} {
		switch {
		case part.text == "" && part.what != "Key.Scope":
			return Name{}, &keyError{part.what + " is empty"}
		case len(part.text) > maxNameBytes:
			return Name{}, &keyError{fmt.Sprintf("%s has %d bytes; at most %d are possible", part.what, len(part.text), maxNameBytes)}
		case !utf8.ValidString(part.text) || strings.IndexByte(part.text, 0) >= 0:
			return Name{}, &keyError{fmt.Sprintf("%s is not UTF-8 without NUL: %.300q", part.what, part.text)}
		}
	}
	return Name{Op: op, Scope: k.Scope, ID: k.ID}, nil
}

func (k *Key) fingerprint() string {
	if k.Payload == nil {
		return ""
	}
	sum := sha256.Sum256(k.Payload)
	return string(sum[:])
}

// Version orders the states of a resource: byte by byte, a longer one after its beginning. [Updated] and [Number] make them. At most 64 bytes; empty is none.
type Version string

const maxVersionBytes = 64

// Updated is the version of a state that was changed and sent when these say: the later change is the newer one, and of equal changes (Shopify's updated_at counts
// whole seconds) the later sent. A zero time is taken for the other: a deletion has no updated_at. Both zero is no version.
//
//	idempotency.Updated(e.UpdatedAt, e.TriggeredAt)
func Updated(updatedAt, triggeredAt time.Time) Version {
	if updatedAt.IsZero() {
		updatedAt = triggeredAt
	}
	if triggeredAt.IsZero() {
		triggeredAt = updatedAt
	}
	if updatedAt.IsZero() {
		return ""
	}
	var b [24]byte
	for i, t := range [...]time.Time{updatedAt, triggeredAt} {
		binary.BigEndian.PutUint64(b[12*i:], uint64(t.Unix())^1<<63)   //nolint:gosec // the sign turned, so that bytes have the order of numbers
		binary.BigEndian.PutUint32(b[12*i+8:], uint32(t.Nanosecond())) //nolint:gosec // under a thousand million
	}
	return Version(b[:])
}

// Number is the version of a state that has a number, e.g. of an inventory level's revision.
func Number(n uint64) Version {
	return Version(binary.BigEndian.AppendUint64(nil, n))
}

// ChildKey is the key to pass on to a dependency in a call within an operation: the Idempotency-Key of Stripe and others, the key of Shopify's @idempotent. It is the same
// in every run of the operation on its key (and, under Latest, its version), and another one for each name; so that a dependency which remembers keys makes up for what a lease can't do. It
// has the form of a UUID (version 8, RFC 9562). It fails with [ErrNoOperation] where ctx is not one that Do, Once, OnceValue, Latest or
// the HTTP middleware has given to the work.
//
// Dependencies remember for a time: Shopify and Stripe say 24 hours. A run after that is a new one to them.
func ChildKey(ctx context.Context, name string) (string, error) {
	h, ok := ctx.Value(holdKey{}).(*hold)
	if !ok {
		return "", ErrNoOperation
	}
	return childKey(h.lease.Name, h.version, name), nil
}

func childKey(n Name, version Version, name string) string {
	sum := sha256.New()
	for _, part := range [...]string{n.Op, n.Scope, n.ID, string(version), name} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		sum.Write(size[:])
		sum.Write([]byte(part))
	}
	b := sum.Sum(nil)[:16]
	b[6] = b[6]&0x0f | 0x80 // version 8: made as an application likes
	b[8] = b[8]&0x3f | 0x80 // variant of RFC 9562
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// TakenOver says whether the work's record was taken from a holder whose lease ended without a word: it may have done all, some or nothing. Work that can look,
// looks. ctx is the work's.
func TakenOver(ctx context.Context) bool {
	h, ok := ctx.Value(holdKey{}).(*hold)
	return ok && h.takenOver
}
