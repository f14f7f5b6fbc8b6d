package redisqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/internal/redislua"
	"github.com/breakwater-go/breakwater/queue"
)

// Config tunes a Broker. The zero value is valid.
type Config struct {
	// Space names what the keys belong to: queues of one space share its partitions. "" means "breakwater". It must not contain braces.
	Space string

	// Partitions is over how many slots of a Redis Cluster the space is spread; every group lives in one of them. 0 means 1, which
	// is right for a single server. All processes must use the same number; docs/redis.md says how to change it.
	Partitions int

	// Replicas is how many replicas must have confirmed an Enqueue before it is answered (WAIT); 0 waits for none. Without it what
	// was accepted in the last moment before a failover may be lost.
	Replicas int
	// ReplicasWithin is how long Enqueue waits for them; 0 means 1 s. After that it fails with [ErrNotReplicated].
	ReplicasWithin time.Duration

	Logger *slog.Logger // nil discards
}

// Broker keeps queues in Redis. It is safe for concurrent use by any number of processes.
type Broker struct {
	client redis.UniversalClient
	cfg    Config
	keeper redislua.Keeper
	err    error // what is wrong with how it was made
	parts  []*partition
	fit    sync.Map // addresses of servers that can keep a queue

	mu      sync.Mutex
	lines   map[place]*line
	waiters map[place]*waiter
	claims  map[place]int // that asked for jobs
}

// partition is where a share of the groups lives.
type partition struct {
	prefix string
	guards []string

	looking chan struct{} // held by whoever looks at it for the first time
	ready   atomic.Bool   // its server is fit, and the space has no other number of partitions
	noted   atomic.Bool   // the space's number of partitions is noted here
}

// place is a queue's share of a partition.
type place struct {
	queue     string
	partition int
}

var (
	_ queue.Broker   = (*Broker)(nil)
	_ queue.Operator = (*Broker)(nil)
)

const (
	defaultSpace = "breakwater"
	// maxPartitions is as many as a Cluster has slots, https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.
	maxPartitions = 16384
	stepIDs       = 128 // of one Replay or Drop
)

// ErrNotReplicated is wrapped by the error of an Enqueue that fewer replicas than Config.Replicas have confirmed in time. The jobs are
// in the queue of the primary; sending them again with their DedupeKeys is safe.
var ErrNotReplicated = errors.New("redisqueue: not enough replicas have confirmed")

// New makes a Broker over client: a *redis.Client, also one with failover by Sentinel, or a *redis.ClusterClient. It does no
// I/O; what is wrong with the server shows at the first use.
func New(client redis.UniversalClient, cfg Config) *Broker {
	b := &Broker{
		client: client, cfg: cfg, lines: map[place]*line{}, waiters: map[place]*waiter{}, claims: map[place]int{},
	}
	b.keeper = redislua.Keeper{Package: "redisqueue", Kept: "jobs", Unfit: ErrServer, Log: cfg.Logger}
	if cfg.Logger == nil {
		b.keeper.Log = slog.New(slog.DiscardHandler)
	}
	b.cfg.Space = cmp.Or(cfg.Space, defaultSpace)
	b.cfg.Partitions = cmp.Or(cfg.Partitions, 1)
	b.cfg.ReplicasWithin = cmp.Or(cfg.ReplicasWithin, time.Second)
	if b.err = errors.Join(b.keeper.Check(client), b.cfg.check(client)); b.err != nil {
		return b
	}
	for p := range b.cfg.Partitions {
		prefix := "{" + b.cfg.Space + ":" + strconv.Itoa(p) + "}:"
		b.parts = append(b.parts, &partition{prefix: prefix, guards: []string{prefix + "g1", prefix + "g2"}, looking: make(chan struct{}, 1)})
	}
	return b
}

func (c *Config) check(client redis.UniversalClient) error {
	switch {
	case strings.ContainsAny(c.Space, "{}"):
		return fmt.Errorf("redisqueue: New: Config.Space is %q; it must not contain braces, which mark where a key lives", c.Space)
	case c.Partitions < 0 || c.Partitions > maxPartitions:
		return fmt.Errorf("redisqueue: New: Config.Partitions is %d; want 0 for the default, or up to %d", c.Partitions, maxPartitions)
	case c.Replicas < 0:
		return fmt.Errorf("redisqueue: New: Config.Replicas is %d; want 0 for none, or more", c.Replicas)
	case c.ReplicasWithin < 0:
		return fmt.Errorf("redisqueue: New: Config.ReplicasWithin is %v; want 0 for the default, or more", c.ReplicasWithin)
	}
	var timeout time.Duration
	switch client := client.(type) {
	case *redis.Client:
		timeout = client.Options().ReadTimeout
	case *redis.ClusterClient:
		timeout = client.Options().ReadTimeout
	}
	if c.Replicas > 0 && timeout > 0 && c.ReplicasWithin >= timeout {
		return fmt.Errorf("redisqueue: New: Config.ReplicasWithin is %v; want less than the client's ReadTimeout of %v", c.ReplicasWithin, timeout)
	}
	return nil
}

// Info says "redis", durable.
func (b *Broker) Info() queue.BrokerInfo {
	return queue.BrokerInfo{Engine: "redis", Durable: true, Partitions: max(1, b.cfg.Partitions), Err: b.err}
}

// partitionOf is where a group lives. It must never change.
func (b *Broker) partitionOf(group string) int {
	if len(b.parts) <= 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(group))                // never fails: hash.Hash
	return int(h.Sum32() % uint32(len(b.parts))) //nolint:gosec // a small positive number
}

func (b *Broker) part(p int) error {
	if b.err != nil {
		return b.err
	}
	if p < 0 || p >= len(b.parts) {
		return fmt.Errorf("redisqueue: there is no partition %d of %d", p, len(b.parts))
	}
	return nil
}

// escape makes a queue's name one that is followed by a colon in keys.
var escape = strings.NewReplacer("%", "%25", ":", "%3A")

var unescape = strings.NewReplacer("%25", "%", "%3A", ":")

// Extend implements [queue.Broker].
func (b *Broker) Extend(ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
	if err := b.part(beat.Partition); err != nil {
		return queue.Extended{}, err
	}
	if len(beat.Tokens) == 0 {
		_, err := b.run(ctx, statsScript, beat.Partition, name)
		return queue.Extended{}, err
	}
	var e queue.Extended
	for tokens := range slices.Chunk(beat.Tokens, extendTokens) {
		if err := b.extend(ctx, name, beat, tokens, &e); err != nil {
			return queue.Extended{}, err
		}
	}
	return e, nil
}

// extendTokens is how many leases one script extends: it should not hold up others for long.
const extendTokens = 1000

func (b *Broker) extend(ctx context.Context, name string, beat queue.Heartbeat, tokens []queue.Token, e *queue.Extended) error {
	args := make([]any, 0, 1+3*len(tokens))
	args = append(args, micros(beat.Lease))
	for _, t := range tokens {
		percent, note := "", ""
		if p, ok := beat.Progress[t]; ok {
			percent, note = strconv.Itoa(p.Percent), cut(p.Note, maxNoteLen)
		}
		args = append(args, string(t), percent, note)
	}
	v, err := b.run(ctx, extendScript, beat.Partition, name, args...)
	if err != nil {
		return err
	}
	r := reply{v: v}
	for _, i := range r.at(0).list() {
		e.Lost = append(e.Lost, tokens[i.int()])
	}
	for _, i := range r.at(1).list() {
		e.Cancelled = append(e.Cancelled, tokens[i.int()])
	}
	return r.err(name)
}
