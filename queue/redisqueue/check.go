package redisqueue

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/internal/redislua"
)

const (
	checkRounds = 3
	checkPause  = 200 * time.Millisecond
)

// Check walks all keys of the space and answers what contradicts the invariants of docs/queue.md; nothing, if all is well. While
// work goes on what it reads changes under it, so that it reads again, and names only what it has found each time. It reads all
// that the space holds.
func (b *Broker) Check(ctx context.Context) (problems []string, err error) {
	return within(ctx, b.check)
}

func (b *Broker) check(ctx context.Context) (problems []string, err error) {
	if b.err != nil {
		return nil, b.err
	}
	for round := range checkRounds {
		found, err := b.walk(ctx)
		if err != nil {
			return nil, fmt.Errorf("redisqueue: check: %w", err)
		}
		if round > 0 {
			found = slices.DeleteFunc(found, func(s string) bool { return !slices.Contains(problems, s) })
		}
		if problems = found; len(problems) == 0 {
			return nil, nil
		}
		if round < checkRounds-1 {
			select {
			case <-time.After(checkPause):
			case <-ctx.Done():
				return problems, context.Cause(ctx)
			}
		}
	}
	return problems, nil
}

func (b *Broker) walk(ctx context.Context) (problems []string, err error) {
	for p := range b.parts {
		if err := b.ready(ctx, p); err != nil {
			return nil, err
		}
		node, err := b.node(ctx, p)
		if err != nil {
			return nil, err
		}
		prefix := b.parts[p].prefix
		queues := map[string]*walker{}
		var cursor uint64
		for {
			keys, next, err := node.Scan(ctx, cursor, redislua.Glob(prefix)+"*", scanCount).Result()
			if err != nil {
				return nil, err
			}
			for _, key := range keys {
				name, what, ok := strings.Cut(key[len(prefix):], ":")
				if !ok {
					if name != "queues" && name != "ahead" && name != "partitions" {
						problems = append(problems, fmt.Sprintf("partition %d: key %q is none of ours", p, key))
					}
					continue
				}
				w := queues[name]
				if w == nil {
					w = &walker{b: b, node: node, prefix: prefix + name + ":", keys: map[string]bool{}}
					queues[name] = w
				}
				w.keys[what] = true
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
		names := make([]string, 0, len(queues))
		for name := range queues {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			w := queues[name]
			if err := w.walk(ctx); err != nil {
				return nil, err
			}
			known, err := node.SIsMember(ctx, prefix+"queues", name).Result()
			if err != nil {
				return nil, err
			}
			if !known && w.keys["m"] {
				w.say("it is not in the list of queues")
			}
			for _, s := range w.problems {
				problems = append(problems, fmt.Sprintf("partition %d, queue %q: %s", p, unescape.Replace(name), s))
			}
		}
	}
	sort.Strings(problems)
	return problems, nil
}
