package rediscache

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/internal/redislua"
)

//go:embed meta.lua
var prelude string

//go:embed adopt.lua
var adoptText string

//go:embed since.lua
var sinceText string

//go:embed fill.lua
var fillText string

//go:embed invalidate.lua
var invalidateText string

//go:embed purge.lua
var purgeText string

//go:embed drop.lua
var dropText string

var (
	adopt          = redislua.New(prelude + adoptText)
	since          = redislua.New(prelude + sinceText)
	fillScript     = redislua.New(prelude + fillText)
	invalidateOnce = redislua.New(prelude + invalidateText)
	purgeScript    = redislua.New(prelude + purgeText)
	dropScript     = redislua.New(dropText)
)

// line is a server, or what may be one: who listens to it, and the breaker that leaves it alone.
type line struct {
	s       *Store
	parts   []*part
	breaker *breaker.Breaker
	own     string // a channel that only this process has
	starts  sync.Once
	faster  chan struct{} // a cache wants it to beat more often
	warned  atomic.Bool   // that the server does not say which one it is

	mu      sync.Mutex
	hears   bool // a channel is there, and everything from before it was told
	sharded bool // the channel is
	heard   time.Time
	channel *redis.PubSub
	run     string          // of the server that is listened to
	pending map[pend]unsure // invalidations that may not have been done
	unsures uint64
}

type unsure struct {
	version string
	n       uint64 // when it was noted
}

type pend struct {
	p      *part
	target string
}

// start has the line listened to.
func (l *line) start() error {
	l.s.mu.RLock()
	defer l.s.mu.RUnlock()
	if l.s.closed {
		return ErrClosed
	}
	l.starts.Do(func() {
		l.s.wg.Go(l.listen)
		l.s.wg.Go(l.beat)
	})
	return nil
}

// node is the server of the line.
func (l *line) node(ctx context.Context) (*redis.Client, error) {
	if c, ok := l.s.client.(*redis.ClusterClient); ok {
		node, err := c.MasterForKey(ctx, l.parts[0].key("meta"))
		if err != nil {
			return nil, fmt.Errorf("find the server: %w", err)
		}
		return node, nil
	}
	client, _ := l.s.client.(*redis.Client)
	return client, nil
}

// server is who answered.
type server struct {
	listened bool   // the one that this process listens to
	asked    bool   // it was asked which one it is: it is not known yet that the epochs were made on the one that is listened to
	run      string // what it calls itself; "" if it does not say
}

// ask sends commands to the server of the line in one pipeline, and finds out which server has answered them. A connection that is new may be to one that has taken over or come back, and has lost what the one before had taken: where this process
// listens, that is told by its own channel having a listener there, and else by what INFO says.
func (l *line) ask(ctx context.Context, do func(pipe redis.Pipeliner)) (who server, err error) {
	node, err := l.node(ctx)
	if err != nil {
		return who, err
	}
	return l.askNode(ctx, node, do)
}

func (l *line) askNode(ctx context.Context, node *redis.Client, do func(pipe redis.Pipeliner)) (who server, err error) {
	l.mu.Lock()
	listens, hears, sharded := l.channel != nil, l.hears, l.sharded
	l.mu.Unlock()
	var listeners *redis.MapStringIntCmd
	var info, replication *redis.StringCmd
	_, err = node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		do(pipe)
		switch {
		case listens && sharded:
			listeners = pipe.PubSubShardNumSub(ctx, l.own)
		case listens:
			listeners = pipe.PubSubNumSub(ctx, l.own)
		}
		if !hears {
			info, replication = pipe.Info(ctx, "server"), pipe.Info(ctx, "replication")
		}
		return nil
	})
	if c, ok := l.s.client.(*redis.ClusterClient); ok && (redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK")) {
		c.ReloadState(ctx)
	}
	if listeners != nil && listeners.Err() == nil && listeners.Val()[l.own] > 0 {
		who.listened = true
	}
	if info != nil {
		who.asked = true
		who.run, err = l.runOf(node, info, replication, err)
	}
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	return who, err
}

// runOf reads which server it is: its run_id, which is another after each start, and its master_replid, which is another after each promotion, and its role. err is the pipeline's.
func (l *line) runOf(node *redis.Client, info, replication *redis.StringCmd, err error) (string, error) {
	addr := node.Options().Addr
	if e := info.Err(); redislua.Silent(e) {
		if !l.warned.Swap(true) {
			l.s.log.Warn("rediscache: the server does not say which one it is (INFO): after a failover entries may be served until their TTL ends whose invalidation it has lost", "addr", addr)
		}
		if errors.Is(err, e) {
			err = nil
		}
		return "", err
	}
	if e := errors.Join(info.Err(), replication.Err()); e != nil {
		return "", e
	}
	is, has := redislua.Info(info.Val()), redislua.Info(replication.Val())
	if e := redislua.TooOld(is, addr, ErrServer); e != nil {
		return "", e
	}
	return is["run_id"] + "/" + has["master_replid"] + "/" + has["role"], err
}

// adopt has partitions take part in the epoch of a server, or begins one.
func (l *line) adopt(ctx context.Context, parts []*part, who server) error {
	run := who.run
	if !who.asked { // it is the one that is listened to
		l.mu.Lock()
		run = l.run
		l.mu.Unlock()
	}
	_, err := l.ask(ctx, func(pipe redis.Pipeliner) {
		for _, p := range parts {
			pipe.Eval(ctx, adopt.Text, []string{p.key("meta")}, nonce(), run)
		}
	})
	return wrap("adopt", err)
}

// place reads where a script's answer stands.
func place(v any) (epoch string, seq uint64, ok bool) {
	list, _ := v.([]any)
	if len(list) < 2 {
		return "", 0, false
	}
	epoch, _ = list[0].(string)
	text, _ := list[1].(string)
	seq, err := strconv.ParseUint(text, 10, 64)
	return epoch, seq, err == nil && len(epoch) == genLen
}
