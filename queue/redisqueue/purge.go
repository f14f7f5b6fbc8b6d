package redisqueue

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	purgeStep  = 1024 // jobs that one Purge erases, about
	purgePages = 16   // and pages of keys that it looks at
)

// sweep is where a Purge stands: it goes through the partitions, and in each through what can move from one place to another until a
// whole round has found nothing. A Purge's cursor is this, in text.
type sweep struct {
	UpTo      []int64  `json:"u"` // what was accepted later stays, by partition
	Partition int      `json:"p"`
	Stage     int      `json:"s"`
	Cursor    uint64   `json:"c"`           // of the page
	Lanes     [][]byte `json:"l,omitempty"` // names are any bytes, which JSON's strings are not
	From      int      `json:"f"`           // place in the first of Lanes
	Erased    bool     `json:"e"`           // in this round
}

// The stages of a round. Scheduled jobs and dead letters come twice: one may enter its lane after that was looked at, and leave it before.
var stages = [...]string{"dead", "sched", "lane", "sched", "dead", "st", "d"}

// Purge implements [queue.Operator]. It looks through all keys of the servers, with SCAN, at least twice.
func (b *Broker) Purge(ctx context.Context, name string, filter queue.PurgeFilter) (queue.Purged, error) {
	return within(ctx, func(ctx context.Context) (queue.Purged, error) { return b.purge(ctx, name, filter) })
}

func (b *Broker) purge(ctx context.Context, name string, filter queue.PurgeFilter) (queue.Purged, error) {
	if b.err != nil {
		return queue.Purged{}, b.err
	}
	var s sweep
	if filter.Cursor == "" {
		for p := range b.parts {
			v, err := b.run(ctx, statsScript, p, name)
			if err != nil {
				return queue.Purged{}, err
			}
			r := reply{v: v}
			s.UpTo = append(s.UpTo, r.at(9).int64())
			if err := r.err(name); err != nil {
				return queue.Purged{}, err
			}
		}
		s.From = -1
		if filter.Group != "" {
			s.Partition = b.partitionOf(filter.Group)
		}
	} else if text, err := base64.RawURLEncoding.DecodeString(filter.Cursor); err != nil || json.Unmarshal(text, &s) != nil || len(s.UpTo) != len(b.parts) {
		return queue.Purged{}, fmt.Errorf("redisqueue: %q is not a cursor of this Purge", filter.Cursor)
	}
	var purged queue.Purged
	for pages := 0; pages < purgePages && purged.Jobs < purgeStep; pages++ {
		n, err := b.sweep(ctx, name, filter, &s)
		purged.Jobs += n
		if err != nil {
			return purged, wrap(name, err)
		}
		if s.Partition >= len(b.parts) || filter.Group != "" && s.Partition != b.partitionOf(filter.Group) {
			return purged, nil
		}
	}
	text, err := json.Marshal(s)
	purged.Cursor = base64.RawURLEncoding.EncodeToString(text)
	return purged, err
}

// sweep does a page of it.
func (b *Broker) sweep(ctx context.Context, name string, f queue.PurgeFilter, s *sweep) (erased int, err error) {
	p, where := s.Partition, stages[s.Stage]
	if len(s.Lanes) > 0 {
		return b.sweepLane(ctx, name, f, s)
	}
	var names []string
	var next uint64
	switch where {
	case "lane":
		names, next, err = b.keys(ctx, name, p, "l:", s.Cursor)
		for _, lane := range names {
			if f.Group == "" || groupOf(lane) == f.Group {
				s.Lanes = append(s.Lanes, []byte(lane))
			}
		}
		names = nil
	case "st", "d":
		names, next, err = b.keys(ctx, name, p, where+":", s.Cursor)
	case "sched":
		names, next, err = b.client.HScan(ctx, b.key(name, p, "sched"), s.Cursor, "", scanCount).Result()
		names = firsts(names)
	case "dead":
		names, next, err = b.client.ZScan(ctx, b.key(name, p, "dead"), s.Cursor, "", scanCount).Result()
		names = firsts(names)
	}
	if err != nil {
		return 0, err
	}
	for len(names) > 0 {
		n := min(len(names), stepIDs)
		r, err := b.operate(ctx, p, name, "purge", append([]any{s.UpTo[p], f.Group, f.Key, f.Kind, where}, anys(names[:n])...)...)
		if err != nil {
			return erased, err
		}
		names = names[n:]
		erased += r.int()
		s.Erased = s.Erased || r.int() > 0
		if err := r.err(name); err != nil {
			return erased, err
		}
	}
	if s.Cursor = next; next == 0 && len(s.Lanes) == 0 {
		s.advance()
	}
	return erased, nil
}

func (b *Broker) sweepLane(ctx context.Context, name string, f queue.PurgeFilter, s *sweep) (int, error) {
	p := s.Partition
	r, err := b.operate(ctx, p, name, "purge", s.UpTo[p], f.Group, f.Key, f.Kind, "lane", string(s.Lanes[0]), s.From)
	if err != nil {
		return 0, err
	}
	erased := r.at(0).int()
	s.Erased = s.Erased || erased > 0
	if s.From = r.at(1).int(); s.From < 0 {
		s.From = -1
		if s.Lanes = s.Lanes[1:]; len(s.Lanes) == 0 && s.Cursor == 0 {
			s.advance()
		}
	}
	return erased, r.err(name)
}

// advance goes on to the next stage, round or partition.
func (s *sweep) advance() {
	if s.Stage++; s.Stage < len(stages) {
		return
	}
	s.Stage = 0
	if !s.Erased {
		s.Partition++
	}
	s.Erased = false
}

// firsts are the first of each pair.
func firsts(pairs []string) []string {
	var names []string
	for i := 0; i < len(pairs); i += 2 {
		names = append(names, pairs[i])
	}
	return names
}
