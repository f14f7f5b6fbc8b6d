package idempotency

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"
)

// Store keeps records of what was begun and finished. It must be safe for concurrent use by any number of processes, judge time by a
// clock of its own, and pass storetest.Run. Each method is one atomic step, and may be called again with the same arguments when its
// answer was lost: it then answers as it did, or would have.
//
// A record is in one of these states:
//
//   - absent: never begun, released, or over;
//   - in progress: a claim's token, and when its lease ends;
//   - ended: in progress, and past the lease's end. Its holder can do nothing more, whoever asks next;
//   - done: a result, until the retention is over;
//   - released: only of claims with a version, which it remembers until the retention is over.
type Store interface {
	// Claim takes a record for r.Lease, or says why not.
	Claim(ctx context.Context, r Request) (Claim, error)
	// Extend gives leases so long from now on, and answers of which it did not. At most 256. An error means that nothing is known of any.
	Extend(ctx context.Context, leases []Lease, lease time.Duration) (Extended, error)
	// Complete records a result, which may be empty, for as long as retention. It fails with [ErrLeaseLost] if the lease has ended,
	// and then changes nothing. A lease that has completed its record already is no error, and changes nothing.
	Complete(ctx context.Context, l Lease, result []byte, retention time.Duration) error
	// Release gives the record up, so that the next Claim gets it. A lease that was lost, or has completed, changes nothing and is no error.
	// What is remembered of a version is kept for retention.
	Release(ctx context.Context, l Lease, retention time.Duration) error
}

// Operator is what a store offers to people who look after it. All stores of this module have it.
type Operator interface {
	// Inspect reads a record. It fails with [ErrNoRecord].
	Inspect(ctx context.Context, name Name) (Record, error)
	// Resolve settles a record that is done or ended, as long as it still is what Inspect answered: as done with result, or, if forget is set, as
	// if it had never been. A record that is as it asks already is no error. It fails with [ErrChanged] if the record is another by now, and with [ErrInProgress] if a lease holds it.
	Resolve(ctx context.Context, seen Record, as Resolution) error
	// Purge removes all records of a scope, those in progress too: their holders lose their leases. It answers how many there were.
	Purge(ctx context.Context, scope string) (int, error)
}

// Name is a record's name: an operation on a key.
type Name struct {
	Op    string // what is done, e.g. "ship"
	Scope string // whose it is: the shop
	ID    string // what it is done to, e.g. "order/820982911946154508"
}

func (n Name) String() string { return fmt.Sprintf("%q of %q in %q", n.Op, n.ID, n.Scope) }

// Token tells a claim from all others of its key. The claimer draws it, so that a claim whose answer was lost can be repeated: 64 bits from
// the runtime's generator, which nobody who makes claims can steer.
type Token [8]byte

func newToken() (t Token) {
	binary.NativeEndian.PutUint64(t[:], rand.Uint64())
	return t
}

// Resolved is the token of a record that an operator has settled: that of the claim can do nothing any more, and a Resolve sent again sees what it did.
func (t Token) Resolved() Token {
	for i := range t {
		t[i] = ^t[i]
	}
	return t
}

// Lease is a claim's hold on a record.
type Lease struct {
	Name

	Token Token
}

// Extended is what became of leases that were to be extended; those that are in neither list are.
type Extended struct {
	Lost    []Lease // ended, taken over, completed, released or purged
	Unknown []Lease // whose server did not answer, where a store has several
}

// Request asks for a record.
type Request struct {
	Lease

	Fingerprint string        // of what is done with it; "" compares nothing. At most 64 bytes
	Version     Version       // "" for what is done once
	For         time.Duration // the lease, > 0
	Retention   time.Duration // for how long after the lease's end it is known that there was one
	AskFirst    bool          // a lease that has ended is not taken over: the answer is Unknown
}

// NewRequest makes a request of a new token for an operation on a key, and a version where one is given. It fails with [ErrKey]. The lease and what belongs to it are the caller's to
// set. It is for stores that offer more than [Store]; a [Keeper] makes its own.
func NewRequest(op string, key Key, version ...Version) (Request, error) {
	name, err := key.name(op)
	if err != nil {
		return Request{}, err
	}
	r := Request{Lease: Lease{name, newToken()}, Fingerprint: key.fingerprint()}
	for _, v := range version {
		if v == "" || len(v) > maxVersionBytes {
			return Request{}, &keyError{fmt.Sprintf("the version of %v has %d bytes; want 1 to %d", name, len(v), maxVersionBytes)}
		}
		r.Version = v
	}
	return r, nil
}

// State is what became of a Request. The zero State is none.
type State int

const (
	// Claimed means that the record is the claimer's until its lease ends.
	Claimed State = iota + 1
	// InProgress means that another holds it. A request with a newer version waits too.
	InProgress
	// Done means that it was completed, with this version.
	Done
	// Superseded means that a newer version was begun.
	Superseded
	// Mismatch means that it was claimed, or completed, with another fingerprint.
	Mismatch
	// Unknown means that a lease has ended without a word, and that the request asks first.
	Unknown
	// Released is the state of a [Record] whose version alone is remembered; no Claim answers it.
	Released
)

var states = [...]string{"none", "claimed", "in progress", "done", "superseded", "mismatch", "unknown", "released"}

func (s State) String() string {
	if s < 0 || int(s) >= len(states) {
		return fmt.Sprintf("state %d", int(s))
	}
	return states[s]
}

// Claim is the answer to a Request.
type Claim struct {
	State     State
	Rest      time.Duration // InProgress: of the other's lease
	Result    []byte        // Done: as it was given to Complete; the caller's to keep, not to change
	TakenOver bool          // Claimed: from a lease that ended without a word
}

// Record is what a store knows under a name.
type Record struct {
	Name

	State       State         // InProgress, Unknown (its lease has ended), Done or Released
	Token       Token         // of the claim that is or was the last
	Rest        time.Duration // InProgress: of the lease
	TakenOver   bool          // InProgress: from a lease that ended without a word
	Kept        time.Duration // for how long the record is kept yet, if nothing happens
	Fingerprint string
	Version     Version
	Result      []byte // Done; see [Outcome] for what it says
}

// Resolution is how an operator settles a record.
type Resolution struct {
	Forget    bool          // as if it had never been: the next claim runs
	Result    []byte        // else it is done, with this result; nil is none
	Retention time.Duration // for so long
}

// Judge says what a Claim has to answer where rec is there, and so whether to take it. Stores that can read and write in one step share it.
func (rec *Record) Judge(r *Request) Claim {
	if rec.State == InProgress && rec.Token == r.Token { // sent again
		return Claim{State: Claimed, TakenOver: rec.TakenOver}
	}
	switch {
	case r.Version < rec.Version:
		return Claim{State: Superseded}
	case r.Version == rec.Version && rec.State != Released && r.Fingerprint != "" && rec.Fingerprint != "" && r.Fingerprint != rec.Fingerprint:
		return Claim{State: Mismatch}
	case rec.State == InProgress:
		return Claim{State: InProgress, Rest: rec.Rest}
	case rec.State == Unknown && r.AskFirst:
		return Claim{State: Unknown}
	case rec.State == Done && r.Version == rec.Version:
		return Claim{State: Done, Result: rec.Result}
	default:
		return Claim{State: Claimed, TakenOver: rec.State == Unknown}
	}
}

// JudgeResolve says whether a Resolve changes rec, which is nil if there is none, and what it fails with if not. It is for stores, as Judge is.
func (rec *Record) JudgeResolve(seen *Record, as *Resolution) (change bool, err error) {
	switch {
	case rec == nil && as.Forget: // it is as asked
		return false, nil
	case rec != nil && !as.Forget && rec.State == Done && rec.Token == seen.Token.Resolved() && bytes.Equal(rec.Result, as.Result):
		return false, nil
	case rec == nil || rec.Token != seen.Token || rec.State != seen.State:
		return false, about(seen.Name, ErrChanged)
	case rec.State == InProgress:
		return false, about(seen.Name, ErrInProgress)
	default:
		return true, nil
	}
}
