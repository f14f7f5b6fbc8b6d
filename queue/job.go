package queue

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"maps"
	"time"
)

// Job is one unit of work. Kind is required; the zero value of every other field is valid.
type Job struct {
	// ID is set by Enqueue: 26 characters that sort by time.
	ID string

	Kind    string            // picks the handler, e.g. "orders/create"
	Payload []byte            // at most Config.MaxPayloadBytes; a handler must not change it
	Headers map[string]string // whatever travels with the payload; a handler must not change it

	Group string // the tenant: groups take turns, whatever they have waiting
	Class Class  // Live or Bulk; Live by default
	Key   string // jobs of one group, class and key run in order, one at a time; "" runs apart from all others

	// Delay keeps the job out of its lane until it has passed; NotBefore does so until a time of the
	// engine's clock. The later of the two counts. A job that is due enters its lane at the tail.
	Delay     time.Duration
	NotBefore time.Time

	// DedupeKey makes Enqueue drop the job if one of the same group was accepted under this key
	// within that job's DedupeFor. "" asks for no such check.
	DedupeKey string
	DedupeFor time.Duration // how long the key counts; 0 means 48 h

	// Order says what a failed job does to those behind it in its lane; Strict by default.
	Order Order

	MaxAttempts int           // failures after which the job is a dead letter; 0 means Config.MaxAttempts
	MaxCrashes  int           // lost leases after which it is one: it may be what kills its workers; 0 means 5
	Deadline    time.Duration // how long after it was accepted, or due if that is later, it may still be begun; 0 means 72 h

	Attempts int // failures so far; set by the queue
	Crashes  int // leases that ended without a word of their worker; set by the queue
}

// Class keeps work that can wait from delaying work that can't.
type Class uint8

const (
	// Live is for what happens now: webhooks.
	Live Class = iota
	// Bulk is for backfills and sweeps: it gets every 8th turn while live work is ready, and all of them
	// while none is.
	Bulk

	classes = 2
)

func (c Class) String() string {
	switch c {
	case Live:
		return "live"
	case Bulk:
		return "bulk"
	default:
		return fmt.Sprintf("Class(%d)", uint8(c))
	}
}

// Order is what a failed job does to those behind it in its lane.
type Order uint8

const (
	// Strict keeps a failed job at the head of its lane: those behind it wait for it.
	Strict Order = iota
	// Relaxed takes a failed job out of its lane until it is due again, then puts it at the tail: those
	// behind it go on. A snoozed job keeps its place all the same.
	Relaxed

	orders = 2
)

func (o Order) String() string {
	switch o {
	case Strict:
		return "strict"
	case Relaxed:
		return "relaxed"
	default:
		return fmt.Sprintf("Order(%d)", uint8(o))
	}
}

// Receipt says what became of a job that was enqueued.
type Receipt struct {
	ID        string // the job's, or that of the job that came first
	Duplicate bool   // dropped: its DedupeKey was taken
}

// DeadLetter is a job that will not be tried again unless someone asks.
type DeadLetter struct {
	Job   Job
	Error string    // why: the last failure
	At    time.Time // when it died, by the engine's clock
}

// clone makes j independent of the caller's memory.
func (j Job) clone() Job {
	j.Payload = bytes.Clone(j.Payload)
	j.Headers = maps.Clone(j.Headers)
	return j
}

var idEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// newID makes 48 bits of milliseconds and 80 random bits, as a UUIDv7 would, in text that sorts.
func newID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(time.Now().UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // never fails: crypto/rand
	return idEncoding.EncodeToString(b[:])
}
