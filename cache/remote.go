package cache

import (
	"context"
	"sync/atomic"
	"time"
)

// Remote is a second tier: one that processes share. It keeps entries with their tags, orders invalidations, and tells the processes of them. Many caches use one, each under its name. It must be safe for
// concurrent use, pass cachetest.Run, and answer within a bounded time whatever its server does: an error means that it did not, and that nothing is known.
//
// Keys, scopes and tags are any bytes, and those of different names or scopes never collide.
type Remote interface {
	// Watch has told called with each invalidation under name, by whatever process, from the first Get on; in the order of their Marks, save that the process's own may come early, and some twice. told does not
	// block. Watch does no I/O; its error says that the Remote was made wrongly, or that name is watched already. maxLag is how long the cache trusts a Lease without a Renew: the Remote renews well within it.
	Watch(name string, maxLag time.Duration, told func(Notice)) error

	// Get answers for each key, in their order, in one round trip where it can. An entry is found only if nothing has invalidated it. With claim > 0, one caller in the fleet
	// gets the Claim of a key that is not found, or no longer fresh; for others it is Busy until that is filled, given up, or invalidated by its key, or claim is over.
	Get(ctx context.Context, name string, keys []Key, claim time.Duration) ([]Answer, error)

	// Fill keeps what was loaded after its Answer was given, and says for each fill whether it is kept. It is not if an invalidation of its key, scope, tags or name came after the Mark, or if that can't be told
	// any more; nor if its Version is older than an invalidation of its key, or the entry that is there, has. A claim is over with its Fill, kept or not.
	Fill(ctx context.Context, name string, fills []Fill) ([]bool, error)

	// Invalidate makes the entries unfindable, and fills that began before void, in every process. Before it returns nil it has called the name's told in this process. After an error all or some may have been
	// done: until a later call has, this Remote does not answer Get with what may be invalid.
	Invalidate(ctx context.Context, name string, what []Invalidation) error

	// Purge is an invalidation of a scope after which nothing of it is stored. What else was invalidated may not be told apart any more from what it has erased: fills of others that began before may be void too.
	Purge(ctx context.Context, name, scope string) error
}

// Mark is a place in the order of invalidations: those that came before are in what it marks. Marks of different epochs have no order. The zero Mark is before all.
type Mark struct{ Epoch, Seq uint64 }

// Covers says whether what has the mark m knows of the invalidation that has the mark n.
func (m Mark) Covers(n Mark) bool { return m.Epoch == n.Epoch && m.Seq >= n.Seq && n != Mark{} }

// Answer is what a Remote knows of a key.
type Answer struct {
	Found    bool   // Value or NotFound, Fresh and Rest are those of an entry
	Value    []byte // not to be changed
	NotFound bool   // it is known not to exist

	Fresh time.Duration // how long the entry stays fresh; 0 or less if it is stale
	Rest  time.Duration // how long it is kept

	Mark  Mark   // where the answer stands in the order of invalidations
	Lease *Lease // what the first tier's trust in it rests on; nil if the Remote can't tell of invalidations

	Stamp uint64        // when it was given, by the Remote's clock and in its unit; passed on to Fill
	Claim uint64        // not 0: the caller has it, and passes it on to Fill
	Busy  time.Duration // > 0: another loads it, for at most so long
}

// Fill is what was loaded for a key.
type Fill struct {
	Key   Key
	Mark  Mark   // of the Answer before the load
	Stamp uint64 // of that Answer
	Claim uint64 // of that Answer
	Drop  bool   // there is nothing to keep: only the claim ends

	Value    []byte
	NotFound bool
	Tags     []string // in the key's scope
	Version  Version
	Fresh    time.Duration // from when the Answer was given
	Keep     time.Duration // the same; at least Fresh
}

// Kind is what an Invalidation is of.
type Kind uint8

const (
	// OfKey is one entry.
	OfKey Kind = iota + 1
	// OfTag is all entries of a scope with a tag.
	OfTag
	// OfScope is all entries of a scope.
	OfScope
	// OfAll is all entries under a name.
	OfAll
)

// Invalidation says that entries are no longer true.
type Invalidation struct {
	Kind    Kind
	Scope   string
	ID      string  // the key's ID, or the tag
	Version Version // OfKey: fills that are older are not kept either; 0 allows any again
}

// Notice tells of an invalidation.
type Notice struct {
	Invalidation

	Mark Mark // entries and fills whose mark covers this one are not concerned
}

// Version is when a value was last changed, by the word of its source: nanoseconds since 1970, turned so that no version (0) is the oldest.
type Version uint64

func version(t time.Time) Version {
	if t.Year() < 1700 || t.Year() > 2200 { // the zero time, and what nanoseconds can't say
		return 0
	}
	return Version(t.UnixNano()) ^ 1<<63 // the sign turned, so that unsigned numbers have the order of times
}

// Lease is a Remote's promise that a process is told of invalidations: what stands in the first tier may be served while it holds. It is safe for concurrent use.
type Lease struct{ at atomic.Int64 }

// began is what times are counted from: a difference of monotonic times costs half of what a time costs.
var began = time.Now()

// offset keeps times positive, in a synctest bubble too: its clock begins in 2000. 0 is before all of them.
const offset = 1 << 62

func sinceBegan() int64 { return offset + int64(time.Since(began)) }

// Renew says that by at, a time that this process's clock has read, all invalidations had been told.
func (l *Lease) Renew(at time.Time) { l.at.Store(offset + int64(at.Sub(began))) }

// End says that invalidations may be missed from now on, until it is renewed.
func (l *Lease) End() { l.at.Store(0) }

// Holds says whether the lease was renewed within lag.
func (l *Lease) Holds(lag time.Duration) bool { return l.holds(sinceBegan(), int64(lag)) }

// holds is Holds by a time that was read before.
func (l *Lease) holds(now, lag int64) bool {
	at := l.at.Load()
	return at != 0 && now-at < lag
}
