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
	"encoding/hex"
	"errors"
	"fmt"
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

// run runs the script.
func (s *Store) run(ctx context.Context, op, name string, c shopify.Call, more ...any) (any, error) {
	if s.rdb == nil {
		return nil, errors.New("redislimit: the client is nil")
	}
	tag := s.prefix + ":{" + strings.NewReplacer("{", "_", "}", "_").Replace(name) + "}:"
	class := "0"
	if c.Interactive {
		class = "1"
	}
	args := append([]any{
		op, s.process + ":" + strconv.FormatUint(c.ID, 10), number(c.Cost), class, number(c.Keep), number(c.Lease.Seconds()), s.channel(""), number(s.settleIn),
	}, more...)
	what := "redislimit: " + op
	v, err := redislua.Within(ctx, what, func(ctx context.Context) (any, error) {
		return script.Run(ctx, s.rdb, []string{tag + "state", tag + "way", tag + "line0", tag + "line1", tag + "tickets"}, args...)
	})
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return v, err
}

func (s *Store) channel(process string) string { return s.prefix + ":hints:" + process }

// number writes a number so that it is read as the same.
func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// Take implements shopify.Buckets, with one script call.
func (s *Store) Take(ctx context.Context, name string, c shopify.Call) (shopify.Turn, error) {
	v, err := s.run(ctx, "take", name, c)
	if err != nil {
		return shopify.Turn{}, err
	}
	list, ok := v.([]any)
	if !ok || len(list) != 8 {
		return shopify.Turn{}, fmt.Errorf("redislimit: take: the answer is %v", v)
	}
	var n [8]float64
	for i, e := range list {
		if n[i], err = strconv.ParseFloat(fmt.Sprint(e), 64); err != nil {
			return shopify.Turn{}, fmt.Errorf("redislimit: take: the answer is %v", v)
		}
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
	if a.Lost {
		_, err := s.run(ctx, "lost", name, c)
		return err
	}
	_, err := s.run(ctx, "settle", name, c, number(a.Actual), number(a.Left), number(a.Size), number(a.Rate), number(float64(g.Epoch)/1e6), number(g.At.Seconds()), number(g.Spent), number(g.Refunded))
	return err
}

// Leave implements shopify.Buckets.
func (s *Store) Leave(ctx context.Context, name string, c shopify.Call) error {
	_, err := s.run(ctx, "leave", name, c)
	return err
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
