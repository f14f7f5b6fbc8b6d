package shopify

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"
)

// Buckets keeps what is known of shops' buckets, and the lines of calls that wait for them. NewLocal's are a process's own; redislimit's are shared by all. It is safe for concurrent use.
type Buckets interface {
	// Take lets a call go, and takes its cost out; or it keeps the call's place in line, which is by arrival in each of the two classes, and says how long it may take. A call
	// that waits asks again after Turn.Again, or as soon as there is a hint. The same call may ask as often as it likes: one that was let go is told so again.
	Take(ctx context.Context, name string, c Call) (Turn, error)
	// Settle notes the answer of a call that was let go, also if ctx has ended: it bounds itself.
	Settle(ctx context.Context, name string, c Call, g Grant, a Answer) error
	// Leave takes a call out of the line, also if ctx has ended. One that was let go in the moment that nobody waited any more gives its part back.
	Leave(ctx context.Context, name string, c Call) error
	// Hints returns a channel that gets a value when a call that waits had better ask again; stop ends that. A hint may be missing, and there may be one for nothing.
	Hints(c Call) (hints <-chan struct{}, stop func())
}

// Call is a call that wants to go.
type Call struct {
	ID          uint64  // one that no other call has, of this process to these Buckets
	Cost        float64 // requested
	Interactive bool
	Keep        float64 // the share of the bucket that it has to leave to interactive calls
	// Lease is how long a call that was let go and never settled counts as under way: its process may have died.
	Lease time.Duration
}

// Grant is what was so when a call was let go. It goes back with the answer.
type Grant struct {
	Epoch           int64
	At              time.Duration // by the Buckets' clock
	Spent, Refunded float64
}

// Turn is what Take comes to.
type Turn struct {
	Granted bool
	Grant   Grant
	Size    float64       // of the bucket; 0 if it is not known
	After   time.Duration // how long it will probably take
	Again   time.Duration // when to ask again
}

// Answer is what an answer says of the quota.
type Answer struct {
	// Lost says that there is no answer, and that the call may still be on its way: it counts as under way for ten seconds more, and then as if it had cost all that was requested.
	Lost bool
	// Actual is what the call has cost; less than 0 where the answer does not say, and 0 if it was refused.
	Actual float64
	// Left, Size and Rate are the answer's throttleStatus: currentlyAvailable, maximumAvailable and restoreRate. Size is 0 where the answer has none.
	Left, Size, Rate float64
}

// sane leaves out what can't be: an answer comes from outside.
func (a Answer) sane() Answer {
	const most = 1e12 // points, of any bucket
	if math.IsNaN(a.Actual) || a.Actual > most {
		a.Actual = -1
	}
	if !(a.Left >= 0 && a.Left <= most && a.Size > 0 && a.Size <= most && a.Rate > 0 && a.Rate <= most) {
		a.Left, a.Size, a.Rate = 0, 0, 0
	}
	return a
}

// turnAgain is when a call asks again that waits for others, and probeLease how long one is waited for that asks what nobody knows.
const (
	turnAgain  = time.Second
	probeLease = 15 * time.Second
)

// lostAfter is how long a call whose answer was lost may still reach Shopify.
const lostAfter = 10 * time.Second

// maxBuckets is how many buckets a Local keeps; one that nobody waits for or is under way to is full soon, and can be forgotten.
const maxBuckets = 10_000

// Local is Buckets in this process. The zero value is not valid: see NewLocal.
type Local struct {
	start time.Time

	mu      sync.Mutex
	buckets map[string]*localBucket
	epoch   int64
	hints   map[uint64]chan struct{}
}

var _ Buckets = (*Local)(nil)

type localBucket struct {
	bucket

	lines [2][]Call // background, interactive
	way   map[uint64]flight
	ends  time.Duration // when the first of them is given up; 0 if there is none
}

// flight is a call under way, until when it is one, and what it is.
type flight struct {
	cost        float64
	until       time.Duration
	probe, lost bool
}

// keepFlight keeps a call under way.
func (b *localBucket) keepFlight(id uint64, f flight) {
	b.way[id] = f
	if b.ends == 0 || f.until < b.ends {
		b.ends = f.until
	}
}

// expire gives up calls whose answer has not come.
func (b *localBucket) expire(now time.Duration) {
	if b.ends == 0 || now < b.ends {
		return
	}
	b.ends = 0
	for id, f := range b.way {
		if f.until > now {
			b.keepFlight(id, f)
			continue
		}
		delete(b.way, id)
		if f.probe {
			b.probes = max(0, b.probes-1)
		}
		if f.lost {
			b.lost = max(0, b.lost-f.cost)
		}
		b.lose(f.cost)
	}
}

// NewLocal makes a Local. Tests of other Buckets compare with it.
func NewLocal() *Local {
	return &Local{start: time.Now(), buckets: map[string]*localBucket{}, hints: map[uint64]chan struct{}{}}
}

// Take implements Buckets.
func (l *Local) Take(_ context.Context, name string, c Call) (Turn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Since(l.start)
	b := l.get(name, now)
	line := &b.lines[class(c)]
	i := slices.IndexFunc(*line, func(w Call) bool { return w.ID == c.ID })
	if b.may(c, i) {
		if i == 0 {
			*line = (*line)[1:]
		}
		g := Grant{Epoch: b.epoch, At: now, Spent: b.spent, Refunded: b.refunded}
		f := flight{cost: c.Cost, until: now + c.Lease, probe: !b.known}
		if f.probe {
			f.until = now + min(c.Lease, probeLease)
		}
		b.keepFlight(c.ID, f)
		b.let(c.Cost)
		b.took(c)
		l.hint(b)
		return Turn{Granted: true, Grant: g, Size: b.size}, nil
	}
	if i < 0 {
		i = len(*line)
		*line = append(*line, c)
	}
	t := Turn{Size: b.size, After: b.wait(c.Cost, b.keep(c), b.before(c, i))}
	// A hint comes when it is the call's turn.
	t.Again = max(t.After, turnAgain)
	if i == 0 && !b.lets(c.Cost, b.keep(c)) {
		t.Again = b.soonest(c.Cost, b.keep(c))
	}
	return t, nil
}

func class(c Call) int {
	if c.Interactive {
		return 1
	}
	return 0
}

// may says whether a call may go that is the i-th of its line; less than 0 if it is not in it.
func (b *localBucket) may(c Call, i int) bool {
	if i > 0 || i < 0 && len(b.lines[class(c)]) > 0 {
		return false
	}
	if c.Interactive {
		if w := b.lines[0]; len(w) > 0 && b.allowance >= w[0].Cost {
			return false // the others' turn
		}
		return b.lets(c.Cost, 0)
	}
	if len(b.lines[1]) > 0 && b.allowance < c.Cost {
		return false
	}
	return b.lets(c.Cost, b.keep(c))
}

// keep is what a call has to leave to interactive ones; nothing if it is its turn.
func (b *localBucket) keep(c Call) float64 {
	if c.Interactive || b.allowance >= c.Cost {
		return 0
	}
	return c.Keep * b.size
}

// took notes whose turn it was.
func (b *localBucket) took(c Call) {
	switch {
	case len(b.lines[0]) == 0:
		b.allowance = 0
	case c.Interactive:
		b.allowance += c.Cost / turnOf
	default:
		b.allowance = max(0, b.allowance-c.Cost)
	}
}

// before is what goes before the i-th of a line.
func (b *localBucket) before(c Call, i int) float64 {
	sum := 0.0
	for _, w := range b.lines[class(c)][:i] {
		sum += w.Cost
	}
	if !c.Interactive {
		for _, w := range b.lines[1] {
			sum += w.Cost
		}
	}
	return sum
}

// get finds or makes a bucket, as it is now.
func (l *Local) get(name string, now time.Duration) *localBucket {
	b := l.buckets[name]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.forget()
		}
		l.epoch++
		b = &localBucket{bucket: bucket{epoch: l.epoch, at: now, marginAt: now}, way: map[uint64]flight{}}
		l.buckets[name] = b
	}
	b.expire(now)
	b.advance(now)
	return b
}

// forget drops some bucket that is not in use.
func (l *Local) forget() {
	for name, b := range l.buckets {
		if b.underWay == 0 && len(b.lines[0])+len(b.lines[1]) == 0 {
			delete(l.buckets, name)
			return
		}
	}
}

// hint tells those who are next to ask again.
func (l *Local) hint(b *localBucket) {
	for _, line := range b.lines {
		if len(line) == 0 {
			continue
		}
		if ch := l.hints[line[0].ID]; ch != nil {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}

// Settle implements Buckets.
func (l *Local) Settle(_ context.Context, name string, c Call, g Grant, a Answer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Since(l.start)
	b := l.get(name, now)
	f, known := b.way[c.ID]
	switch {
	case a.Lost && known:
		if f.probe {
			b.probes = max(0, b.probes-1) // another may ask
		}
		b.lost += f.cost
		b.keepFlight(c.ID, flight{cost: f.cost, until: now + lostAfter, lost: true})
	case a.Lost: // given up before
	default:
		if !known { // given up before, or of another memory: only what is left is news
			g.Epoch = -1
		}
		delete(b.way, c.ID)
		b.settle(g, c.Cost, a, now)
	}
	l.hint(b)
	return nil
}

// Leave implements Buckets.
func (l *Local) Leave(_ context.Context, name string, c Call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.get(name, time.Since(l.start))
	line := &b.lines[class(c)]
	*line = slices.DeleteFunc(*line, func(w Call) bool { return w.ID == c.ID })
	l.hint(b)
	return nil
}

// Hints implements Buckets.
func (l *Local) Hints(c Call) (hints <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hints[c.ID] = ch
	return ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.hints, c.ID)
	}
}
