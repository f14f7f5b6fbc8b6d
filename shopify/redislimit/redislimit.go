// Package redislimit keeps the quota of shops in Redis, for all processes that call them: each call takes one script call before it goes, and one when its answer is there.
//
//	limiter, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: redislimit.New(rdb, redislimit.Config{})})
//
// The script is the machine of the in-process limiter; time is the server's. Calls that wait are told of their turn by pub/sub, over one connection for as long as some
// call of the process waits; a message that gets lost costs time, nothing else. A process that dies leaves calls that count as under way until their lease ends. If Redis loses
// its memory, the quota is learned anew: one call at a time, and not before a second has passed in which other processes' calls have come back.
//
// All keys of a bucket share a hash tag, so that Redis Cluster can keep it. A bucket that nobody uses is gone after an hour.
package redislimit

import (
	"context"
	crand "crypto/rand"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/internal/redislua"
	"github.com/breakwater-go/breakwater/shopify"
)

//go:embed quota.lua
var text string

var script = redislua.New(text)

// Config tunes a Store. The zero value is valid.
type Config struct {
	// Prefix begins all keys and channels; "" means "quota". Apps that share a Redis and call the same shops need one each: their buckets are not the same.
	Prefix string
}

// Store is shopify.Buckets in Redis. It is safe for concurrent use.
type Store struct {
	rdb     redis.UniversalClient
	prefix  string
	process string // names it among all

	mu      sync.Mutex
	waiting map[uint64]chan struct{}
	listens bool

	settleIn float64 // of tests
}

var _ shopify.Buckets = (*Store)(nil)

// settleIn is how long a bucket that nobody knew is not trusted, in seconds.
const settleIn = 1.0

// New makes a Store.
func New(rdb redis.UniversalClient, cfg Config) *Store {
	if cfg.Prefix == "" {
		cfg.Prefix = "quota"
	}
	var b [8]byte
	_, _ = crand.Read(b[:]) // never fails
	return &Store{rdb: rdb, prefix: cfg.Prefix, process: hex.EncodeToString(b[:]), waiting: map[uint64]chan struct{}{}, settleIn: settleIn}
}

// watched is how soon a context has to end to be watched: with go-redis's own timeout of 3 s by default, a server that hangs holds others up little longer.
const watched = 2 * time.Second

// run runs the script. more are numbers for it.
func (s *Store) run(ctx context.Context, op, name string, c shopify.Call, more ...float64) (string, error) {
	if s.rdb == nil {
		return "", errors.New("redislimit: the client is nil")
	}
	tag := s.prefix + ":{" + untagged.Replace(name) + "}:"
	class := 0.0
	if c.Interactive {
		class = 1
	}
	numbers := make([]byte, 0, 13*8)
	for _, n := range append([]float64{c.Cost, class, c.Keep, c.Lease.Seconds(), s.settleIn}, more...) {
		numbers = binary.LittleEndian.AppendUint64(numbers, math.Float64bits(n))
	}
	keys := []string{tag + "state", tag + "way", tag + "line0", tag + "line1", tag + "tickets"}
	do := func(ctx context.Context) (any, error) {
		return script.Run(ctx, s.rdb, keys, op, s.process+":"+strconv.FormatUint(c.ID, 10), s.channel(""), numbers)
	}
	var v any
	var err error
	if d, ok := ctx.Deadline(); ok && time.Until(d) < watched {
		v, err = redislua.Within(ctx, "redislimit: "+op, do)
	} else {
		v, err = do(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return "", fmt.Errorf("redislimit: %s: %w", op, err)
	}
	answer, _ := v.(string)
	return answer, err
}

// untagged takes out of a name what would end a hash tag.
var untagged = strings.NewReplacer("{", "_", "}", "_")

func (s *Store) channel(process string) string { return s.prefix + ":hints:" + process }

// Take implements shopify.Buckets, with one script call.
func (s *Store) Take(ctx context.Context, name string, c shopify.Call) (shopify.Turn, error) {
	v, err := s.run(ctx, "take", name, c)
	if err != nil {
		return shopify.Turn{}, err
	}
	var n [8]float64
	if len(v) != len(n)*8 {
		return shopify.Turn{}, fmt.Errorf("redislimit: take: the answer has %d bytes", len(v))
	}
	for i := range n {
		n[i] = math.Float64frombits(binary.LittleEndian.Uint64([]byte(v[i*8 : i*8+8])))
	}
	return shopify.Turn{
		Granted: n[0] == 1, Grant: shopify.Grant{Epoch: micros(n[1]), At: time.Duration(micros(n[2])) * time.Microsecond, Spent: n[3], Refunded: n[4]},
		Size: n[5], After: seconds(n[6]), Again: seconds(n[7]),
	}, nil
}

// micros are whole microseconds: the server's time has no finer ones.
func micros(s float64) int64 { return int64(s*1e6 + 0.5) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Settle implements shopify.Buckets.
func (s *Store) Settle(ctx context.Context, name string, c shopify.Call, g shopify.Grant, a shopify.Answer) error {
	ctx, cancel := settling(ctx)
	defer cancel()
	if a.Lost {
		_, err := s.run(ctx, "lost", name, c)
		return err
	}
	_, err := s.run(ctx, "settle", name, c, a.Actual, a.Left, a.Size, a.Rate, float64(g.Epoch)/1e6, g.At.Seconds(), g.Spent, g.Refunded)
	return err
}

// settling is a context for what has to be noted whatever becomes of the caller.
func settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), time.Second)
}

// Leave implements shopify.Buckets.
func (s *Store) Leave(ctx context.Context, name string, c shopify.Call) error {
	leave := func() error {
		ctx, cancel := settling(ctx)
		defer cancel()
		_, err := s.run(ctx, "leave", name, c)
		return err
	}
	if _, hurried := ctx.Deadline(); !hurried && ctx.Err() == nil {
		return leave()
	}
	go leave() //nolint:errcheck // whoever left does not wait for a server that hangs; the place ends by itself
	return nil
}

// Hints implements shopify.Buckets. The first call that waits subscribes, and the last one that stops ends that.
func (s *Store) Hints(c shopify.Call) (hints <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[c.ID] = ch
	if !s.listens && s.rdb != nil {
		s.listens = true
		go s.listen()
	}
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, c.ID)
	}
}

// linger is how long a process that has nobody waiting goes on listening: there may be others in a moment.
const linger = 5 * time.Second

// listen passes hints on until nobody has waited for a while.
func (s *Store) listen() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sub := s.rdb.Subscribe(ctx, s.channel(s.process))
	defer func() { _ = sub.Close() }()
	messages := sub.ChannelWithSubscriptions()
	idle := time.NewTicker(linger)
	defer idle.Stop()
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return // nobody closes it but this
			}
			s.hear(m)
		case <-idle.C:
			if s.idle() {
				return
			}
		}
	}
}

// hear passes a hint on. When the channel is there, at first or again, hints may have been missed: then all ask again.
func (s *Store) hear(message any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m := message.(type) {
	case *redis.Subscription:
		for _, ch := range s.waiting {
			hint(ch)
		}
	case *redis.Message:
		id, err := strconv.ParseUint(m.Payload, 10, 64)
		if ch := s.waiting[id]; err == nil && ch != nil {
			hint(ch)
		}
	}
}

func hint(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// idle says whether nobody waits: the next one who does begins to listen again.
func (s *Store) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.listens = false
	}
	return !s.listens
}
