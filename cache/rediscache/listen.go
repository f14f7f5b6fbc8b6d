package rediscache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/internal/redislua"
)

// catchUp tells what was invalidated since what was told, and renews the lease as of its begin.
func (p *part) catchUp(ctx context.Context) error {
	for {
		if current, err := p.catchUpOnce(ctx); current || err != nil {
			return err
		}
	}
}

// catchUpOnce says whether what it has asked about was still so when the answer came.
func (p *part) catchUpOnce(ctx context.Context) (current bool, err error) {
	p.mu.Lock()
	epoch, seq := p.epoch, p.seq
	p.mu.Unlock()
	begin := time.Now()
	var cmd *redis.Cmd
	who, err := p.l.ask(ctx, func(pipe redis.Pipeliner) {
		cmd = pipe.Eval(ctx, since.Text, []string{p.key("meta"), p.key("log"), p.key("floors")}, epoch, strconv.FormatUint(seq, 10))
	})
	if err != nil {
		return false, wrap("catch up", err)
	}
	if !who.listened {
		return false, errNotListened
	}
	list, _ := cmd.Val().([]any)
	if len(list) < 3 {
		return false, errors.New("rediscache: catch up: not an answer")
	}
	now, latest, _ := place(list)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != epoch {
		return false, nil // a read was quicker, and knows an epoch now
	}
	if list[2] == "lost" {
		if p.lost(now, latest); now != "" {
			p.renew(begin)
		}
		return true, nil
	}
	for i := 3; i+2 < len(list); i += 3 {
		text, _ := list[i].(string)
		number, _ := list[i+1].(string)
		version, _ := list[i+2].(string)
		if at, err := strconv.ParseUint(number, 10, 64); err == nil && at > p.seq {
			p.tell(text, version, at)
		}
	}
	p.seq = max(p.seq, latest)
	p.renew(begin)
	return true, nil
}

// errNotListened says that the server that answers is not the one that this process listens to.
var errNotListened = errors.New("rediscache: another server answers than the one that is listened to")

// renew says that everything was told by a time. p.mu is held.
func (p *part) renew(at time.Time) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if p.l.hears {
		p.lease.Renew(at)
	}
}

// hear takes a message.
func (p *part) hear(ctx context.Context, payload string) {
	if len(payload) < genLen {
		return
	}
	epoch := payload[:genLen]
	head, body, _ := strings.Cut(payload[genLen:], "\n")
	seq, err := strconv.ParseUint(head, 10, 64)
	if err != nil {
		return // of a later version
	}
	all, ok := split(body)
	p.mu.Lock()
	switch {
	case epoch != p.epoch:
		p.lost(epoch, seq) // of those before nothing is known
	case seq == p.seq+1 && ok:
		for _, of := range all {
			p.tell(of.target, of.version, seq)
		}
		p.seq = seq
	case seq > p.seq:
		p.mu.Unlock()
		if err := p.catchUp(ctx); err != nil {
			p.l.deaf() // a message is missing, and nobody says which
		}
		return
	}
	p.mu.Unlock()
}

// told is one invalidation of a message.
type told struct{ target, version string }

// join and split are how a message lists what it tells.
func join(all []told) string {
	var out []byte
	for _, of := range all {
		out = append(binary.AppendUvarint(out, uint64(len(of.target))), of.target...)
		out = append(binary.AppendUvarint(out, uint64(len(of.version))), of.version...)
	}
	return string(out)
}

func split(body string) (all []told, ok bool) {
	b := []byte(body)
	next := func() (string, bool) {
		size, used := binary.Uvarint(b)
		if used <= 0 || size > uint64(len(b)-used) { //nolint:gosec // not negative
			return "", false
		}
		text := string(b[used : used+int(size)]) //nolint:gosec // it is less than len(b)
		b = b[used+int(size):]                   //nolint:gosec // as above
		return text, true
	}
	for len(b) > 0 {
		target, ok := next()
		version, ok2 := next()
		if !ok || !ok2 {
			return all, false
		}
		all = append(all, told{target, version})
	}
	return all, true
}

// deaf says that messages may be missed from now on.
func (l *line) deaf() {
	l.mu.Lock()
	channel := l.channel
	l.hears, l.channel = false, nil
	l.mu.Unlock()
	for _, p := range l.parts {
		p.mu.Lock()
		p.lease.End()
		p.mu.Unlock()
	}
	if channel != nil {
		_ = channel.Close() // whatever it says, it is not used any more
	}
}

const (
	// subscribing is how long a channel may take to be there.
	subscribing = 5 * time.Second
	// A process that can't listen tries again after a while, at random within these.
	minPause, maxPause = 50 * time.Millisecond, 2 * time.Second
)

// listen has a channel for as long as the Store is open.
func (l *line) listen() {
	defer l.deaf()
	pause := minPause
	for l.s.ctx.Err() == nil {
		begun := time.Now()
		err := l.listenOnce()
		l.deaf()
		if l.s.ctx.Err() != nil {
			return
		}
		if pause = min(2*pause, maxPause); time.Since(begun) > maxPause {
			pause = minPause
		}
		l.s.log.Warn("rediscache: the channel of invalidations is lost; what is in memory is not trusted until it is back", "error", err, "again_in", pause)
		select {
		case <-time.After(jittered(pause)):
		case <-l.s.ctx.Done():
		}
	}
}

// listenOnce listens until the channel is lost.
func (l *line) listenOnce() error {
	ctx := l.s.ctx
	channels, of := []string{l.own}, map[string]*part{}
	for _, p := range l.parts {
		channels = append(channels, p.channel())
		of[p.channel()] = p
	}
	sub, sharded, err := l.subscribe(ctx, channels)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.channel, l.sharded, l.heard = sub, sharded, time.Now()
	l.mu.Unlock()
	if err := ctx.Err(); err != nil { // Close has closed the channel that was there before
		return err
	}
	// From here on messages wait in the connection: what came before is in the log.
	if err := l.caughtUp(ctx); err != nil {
		_ = sub.Close()
		return err
	}
	l.s.log.Debug("rediscache: listening", "channels", len(channels))
	for {
		message, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		l.mu.Lock()
		current := l.channel == sub
		l.heard = time.Now()
		l.mu.Unlock()
		if !current {
			return errors.New("the channel was given up")
		}
		switch m := message.(type) {
		case *redis.Message:
			if p := of[m.Channel]; p != nil {
				p.hear(ctx, m.Payload)
			}
		case *redis.Subscription:
			return fmt.Errorf("%s of %s, unasked: its slot has moved, or the connection is another", m.Kind, m.Channel)
		}
	}
}

// subscribe subscribes, sharded in a Cluster whose servers can, and returns when all channels are there.
func (l *line) subscribe(ctx context.Context, channels []string) (sub *redis.PubSub, sharded bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, subscribing)
	defer cancel()
	if c, ok := l.s.client.(*redis.ClusterClient); ok {
		sub, err = acknowledged(ctx, c.SSubscribe(ctx, channels...), len(channels))
		if !redis.HasErrorPrefix(err, "ERR unknown command") {
			return sub, true, err
		}
	}
	sub, err = acknowledged(ctx, l.s.client.Subscribe(ctx, channels...), len(channels))
	return sub, false, err
}

func acknowledged(ctx context.Context, sub *redis.PubSub, n int) (*redis.PubSub, error) {
	for range n {
		message, err := sub.ReceiveTimeout(ctx, subscribing)
		if _, ok := message.(*redis.Subscription); err == nil && !ok {
			err = fmt.Errorf("rediscache: %T instead of an acknowledgement", message)
		}
		if err != nil {
			_ = sub.Close() // it is of no use
			return nil, err
		}
	}
	return sub, nil
}

// caughtUp brings all partitions up to date after the channel is there.
func (l *line) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, subscribing)
	defer cancel()
	if err := l.adoptListened(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	l.hears = true
	l.mu.Unlock()
	for _, p := range l.parts {
		if err := p.catchUp(ctx); err != nil {
			return err
		}
	}
	return nil
}

// adoptListened has all partitions take part in the epoch of the server that is listened to.
func (l *line) adoptListened(ctx context.Context) error {
	who, err := l.ask(ctx, func(redis.Pipeliner) {})
	if err != nil {
		return err
	}
	if !who.listened {
		return errNotListened
	}
	l.mu.Lock()
	l.run = who.run
	l.mu.Unlock()
	return l.adopt(ctx, l.parts, who)
}

// beat compares numbers with the server a few times in each lag: leases live by it.
func (l *line) beat() {
	for {
		l.s.mu.RLock()
		every := l.s.lag / 4
		l.s.mu.RUnlock()
		select {
		case <-l.s.ctx.Done():
			return
		case <-time.After(every):
			l.beatOnce(every)
		case <-l.faster:
		}
	}
}

func (l *line) beatOnce(every time.Duration) {
	l.mu.Lock()
	channel, silent := l.channel, time.Since(l.heard)
	hears := l.hears
	l.mu.Unlock()
	if channel == nil || !hears {
		return
	}
	if silent > 3*max(every, time.Second) {
		l.s.log.Warn("rediscache: the channel of invalidations is silent", "for", silent)
		l.deaf()
		return
	}
	ctx, cancel := context.WithTimeout(l.s.ctx, max(every, l.s.cfg.Timeout))
	defer cancel()
	_, _ = redislua.Within(ctx, "rediscache: beat", func(ctx context.Context) (struct{}, error) { // a failed one renews nothing
		_ = channel.Ping(ctx) // who does not answer is silent, soon
		begin := time.Now()
		metas, seqs := make([]*redis.StringCmd, len(l.parts)), make([]uint64, len(l.parts))
		for i, p := range l.parts {
			p.mu.Lock()
			seqs[i] = p.seq
			p.mu.Unlock()
		}
		var info, replication *redis.StringCmd
		node, err := l.node(ctx)
		if err != nil {
			return struct{}{}, err
		}
		who, err := l.askNode(ctx, node, func(pipe redis.Pipeliner) {
			info, replication = pipe.Info(ctx, "server"), pipe.Info(ctx, "replication")
			for i, p := range l.parts {
				metas[i] = pipe.Get(ctx, p.key("meta"))
			}
		})
		run, err := l.runOf(node, info, replication, err)
		if err != nil {
			return struct{}{}, err
		}
		l.mu.Lock()
		same := run == l.run
		l.mu.Unlock()
		if !who.listened || !same {
			l.deaf() // it talks to one server and listens to another, or that was demoted or promoted
			return struct{}{}, errNotListened
		}
		for i, p := range l.parts {
			m, ok := parseMeta(metas[i].Val())
			p.mu.Lock()
			current := ok && m.epoch == p.epoch && m.seq <= p.seq && m.seq >= seqs[i] // numbers that went back are those of a server that has lost some
			if current {
				p.renew(begin)
			}
			p.mu.Unlock()
			if !current {
				if err := p.catchUp(ctx); err != nil {
					return struct{}{}, err
				}
			}
		}
		return struct{}{}, l.flush(ctx)
	})
}
