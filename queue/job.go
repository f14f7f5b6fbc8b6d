package queue

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/internal/text"
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
	// engine's clock. The later of the two counts. A job that is due enters its lane at the tail. Both are
	// instructions to Enqueue and not kept.
	Delay     time.Duration
	NotBefore time.Time

	// DedupeKey makes Enqueue drop the job if one of the same group was accepted under this key
	// within that job's DedupeFor. "" asks for no such check.
	DedupeKey string
	DedupeFor time.Duration // how long the key counts; 0 means 48 h. Not kept

	// Order says what a failed job does to those behind it in its lane; Strict by default.
	Order Order

	MaxAttempts int           // failures after which the job is a dead letter; 0 means Config.MaxAttempts
	MaxCrashes  int           // lost leases after which it is one: it may be what kills its workers; 0 means 5
	Deadline    time.Duration // how long after Since it may still be begun; 0 means 72 h

	// Track keeps the job's [Status] while it is in the queue and for StatusFor after its end, so that
	// it can be asked for, cancelled and told apart from a job that never was.
	Track     bool
	StatusFor time.Duration // 0 means 24 h

	// The rest is set by the queue.

	Attempts int       // failures so far
	Crashes  int       // leases that ended without a word of their worker
	Since    time.Time // when it was accepted or due, whichever is later, by the engine's clock
	History  []Attempt // what went wrong so far: the first and the last 10 times; it outlives a replay

	codec string // the Codec that encoded Payload; "" means that it stands as it is
}

// Attempt is one failure of a job.
type Attempt struct {
	Number int       // from 1, over the job's whole life
	At     time.Time // by the engine's clock
	Error  string    // at most 360 bytes of it
}

// Class keeps work that can wait from delaying work that can't.
type Class uint8

const (
	// Live is for what happens now: webhooks.
	Live Class = iota
	// Bulk is for backfills and sweeps: it gets every 8th turn (Config.BulkEvery) while live work is
	// ready, and all of them while none is.
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

// State is where a job stands.
type State string

// The states. The last three are final.
const (
	Pending    State = "pending"    // waits for its first run
	Processing State = "processing" // a worker has it
	Retrying   State = "retrying"   // has failed, or crashed its worker, and waits for its next run
	Succeeded  State = "succeeded"
	Dead       State = "dead"      // a dead letter
	Cancelled  State = "cancelled" // by Cancel, before or while it ran
)

// Ended says whether s is final. A dead letter that is replayed is pending again.
func (s State) Ended() bool { return s == Succeeded || s == Dead || s == Cancelled }

// Status is what is known of a tracked job.
type Status struct {
	ID    string
	Kind  string
	Group string
	State State

	Attempts int // failures so far
	Crashes  int

	Percent int    // 0 to 100, as the handler said; 100 of a job that succeeded
	Note    string // as the handler said

	Result []byte    // of a job that succeeded, as its handler said; at most 64 KiB
	Error  string    // the last failure
	Since  time.Time // when it was accepted or due, whichever is later, by the engine's clock
	Ended  time.Time // when it ended, by the engine's clock; zero before
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
	At    time.Time // when it died, by the engine's clock, to the millisecond
}

const (
	historyEnds  = 10      // attempts kept of the first and of the last
	historyText  = 360     // bytes of each one's error, so that all stay under 8 KiB
	maxErrorLen  = 2 << 10 // bytes kept of the failure that killed a job
	maxNoteLen   = 1 << 10
	maxResultLen = 64 << 10
)

// Fail adds a failure to the history, which keeps its first and its last 10. It is for engines.
func (j *Job) Fail(at time.Time, reason string) { j.History = remember(j.History, at, reason) }

// remember appends a failure to a history, which keeps its first and its last 10.
func remember(history []Attempt, at time.Time, text string) []Attempt {
	number := 1
	if n := len(history); n > 0 {
		number = history[n-1].Number + 1
	}
	kept := make([]Attempt, 0, min(len(history)+1, 2*historyEnds)) // what was handed out is not touched
	kept = append(kept, history...)
	if len(kept) == 2*historyEnds {
		kept = append(kept[:historyEnds], kept[historyEnds+1:]...)
	}
	return append(kept, Attempt{Number: number, At: at.Truncate(time.Millisecond), Error: cut(text, historyText)})
}

// cut is text.Cut.
func cut(s string, n int) string { return text.Cut(s, n) }

var idEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// newID makes 48 bits of milliseconds and 80 random bits, as a UUIDv7 would, in text that sorts.
func newID() string {
	var ids idSource
	return ids.next()
}

// idSource makes IDs of which each sorts behind the one before.
type idSource struct {
	mu   sync.Mutex
	last [16]byte
}

func (s *idSource) next() string {
	s.mu.Lock()
	now := uint64(time.Now().UnixMilli()) << 16
	if be := binary.BigEndian; now > be.Uint64(s.last[:]) {
		be.PutUint64(s.last[:], now)
		_, _ = rand.Read(s.last[6:]) // never fails: crypto/rand
	} else { // in the same millisecond, or a clock was set back: a random step further
		var step [8]byte
		_, _ = rand.Read(step[3:])
		low := be.Uint64(s.last[8:])
		be.PutUint64(s.last[8:], low+be.Uint64(step[:])+1)
		if be.Uint64(s.last[8:]) <= low { // it has wrapped
			be.PutUint64(s.last[:], be.Uint64(s.last[:])+1)
		}
	}
	b := s.last
	s.mu.Unlock()
	var text [26]byte
	idEncoding.Encode(text[:], b[:])
	return string(text[:])
}
