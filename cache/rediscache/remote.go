package rediscache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/cache"
	"github.com/breakwater-go/breakwater/internal/redislua"
)

func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// gather asks each line for its part of out, at once where there are several, some hundred at a time. What a line that fails would have answered stays as it is, if another one has answered.
func gather[T any](out []T, lineOf func(i int) *line, ask func(l *line, of []int) ([]T, error)) error {
	parts := map[*line][]int{}
	for i := range out {
		l := lineOf(i)
		parts[l] = append(parts[l], i)
	}
	var mu sync.Mutex
	var errs []error
	some := false
	each := func(l *line, all []int) {
		for of := range slices.Chunk(all, atOnce) {
			got, err := ask(l, of)
			mu.Lock()
			if err == nil {
				some = true
				for n, i := range of {
					out[i] = got[n]
				}
			} else {
				errs = append(errs, err)
			}
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}
	if len(parts) == 1 {
		for l, all := range parts {
			each(l, all)
		}
	} else {
		var wg sync.WaitGroup
		for l, all := range parts {
			wg.Go(func() { each(l, all) })
		}
		wg.Wait()
	}
	if some {
		return nil
	}
	return errors.Join(errs...)
}

// Get implements [cache.Remote]. Where some servers of a Cluster are away, nothing is known of their keys, and the others' are answered.
func (s *Store) Get(ctx context.Context, name string, keys []cache.Key, claim time.Duration) ([]cache.Answer, error) {
	if s.err != nil {
		return nil, s.err
	}
	n := namesOf(name)
	qs := make([]question, len(keys))
	for i, key := range keys {
		qs[i] = question{key, s.partOf(key.Scope), n.target(cache.OfKey, key.Scope, key.ID)}
	}
	answers := make([]cache.Answer, len(keys))
	err := gather(answers, func(i int) *line { return qs[i].p.l }, func(l *line, of []int) ([]cache.Answer, error) {
		return l.get(ctx, n, pick(qs, of), claim)
	})
	return answers, err
}

func pick[T any](all []T, of []int) []T {
	if len(of) == len(all) {
		return all // their order is the same
	}
	out := make([]T, len(of))
	for n, i := range of {
		out[n] = all[i]
	}
	return out
}

// question is a key that is asked for.
type question struct {
	key    cache.Key
	p      *part
	target string
}

func (l *line) get(ctx context.Context, n names, qs []question, claim time.Duration) ([]cache.Answer, error) {
	if err := l.start(); err != nil {
		return nil, err
	}
	return breaker.Call(ctx, l.breaker, func(ctx context.Context) ([]cache.Answer, error) { return l.readOrClaim(ctx, n, qs, claim) })
}

func (l *line) readOrClaim(ctx context.Context, n names, qs []question, claim time.Duration) ([]cache.Answer, error) {
	if err := l.flush(ctx); err != nil {
		return nil, err
	}
	answers, err := l.read(ctx, n, qs, 0)
	if err != nil || claim == 0 {
		return answers, err
	}
	var at []int
	for i := range answers {
		if answers[i].Fresh <= 0 {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return answers, nil
	}
	lacking := pick(qs, at)
	claimed, err := l.read(ctx, n, lacking, claim) // looks again: another may have filled it just before
	if ctx.Err() != nil {
		l.unclaim(ctx, n, lacking, claimed)
		return nil, context.Cause(ctx)
	}
	if _, said := errors.AsType[redis.Error](err); said { // it is full: what is there is there, and the rest is loaded without a claim
		return answers, nil
	}
	for i, a := range claimed {
		answers[at[i]] = a
	}
	return answers, err
}

// unclaim gives up what was claimed for those who have not waited for it.
func (l *line) unclaim(ctx context.Context, n names, qs []question, claimed []cache.Answer) {
	var drops []cache.Fill
	for i, a := range claimed {
		if a.Claim != 0 {
			drops = append(drops, cache.Fill{Key: qs[i].key, Claim: a.Claim, Drop: true})
		}
	}
	if len(drops) > 0 {
		_, _ = l.fill(context.WithoutCancel(ctx), n, drops) // else they end by themselves
	}
}

// reading is what is asked of a partition in one pipeline.
type reading struct {
	p      *part
	lease  *cache.Lease
	of     []int // questions
	keys   []string
	scopes map[string]int // where the markers of scopes stand in keys
	mget   *redis.SliceCmd
	meta   meta
	now    uint64 // by the server's clock, in ms, before it was read
}

// asked are a question's commands.
type asked struct {
	token   uint64
	claimed bool // before it was read again
	claim   *redis.BoolCmd
	busy    *redis.DurationCmd
	scope   int // where its scope's marker stands, and the entry itself
	entry   int
}

// read reads entries, with what says whether they hold. With claim > 0 it claims them before.
func (l *line) read(ctx context.Context, n names, qs []question, claim time.Duration) ([]cache.Answer, error) {
	byPart := map[*part]*reading{}
	var parts []*reading
	cmds := make([]asked, len(qs))
	for i, q := range qs {
		r := byPart[q.p]
		if r == nil {
			r = &reading{p: q.p, keys: []string{q.p.key("meta"), q.p.key(n.target(cache.OfAll, "", ""))}, scopes: map[string]int{}}
			byPart[q.p], parts = r, append(parts, r)
		}
		r.of = append(r.of, i)
		if _, ok := r.scopes[q.key.Scope]; !ok {
			r.scopes[q.key.Scope] = len(r.keys)
			r.keys = append(r.keys, q.p.key(n.target(cache.OfScope, q.key.Scope, "")))
		}
		cmds[i] = asked{scope: r.scopes[q.key.Scope], entry: len(r.keys), token: rand.Uint64() | 1}
		r.keys = append(r.keys, q.p.key(q.target))
	}
	if err := l.readAll(ctx, parts, cmds, qs, claim); err != nil {
		return nil, err
	}
	answers, entries := make([]cache.Answer, len(qs)), make([]unpacked, len(qs))
	var tagged []*reading
	for _, r := range parts {
		var tags []string
		for _, i := range r.of {
			c, a := &cmds[i], &answers[i]
			a.Mark, a.Lease = cache.Mark{Epoch: epochOf(r.meta.epoch), Seq: r.meta.seq}, r.lease
			if claim > 0 && (c.claim.Val() || c.claimed) {
				a.Claim = c.token
			} else if claim > 0 {
				a.Busy = max(c.busy.Val(), time.Millisecond)
			}
			u, ok := held(r.mget.Val(), c, r.meta.epoch)
			a.Stamp = r.now
			if rest := time.Duration(int64(u.end-r.now)) * time.Millisecond; ok && u.end > r.now { //nolint:gosec // it is positive
				a.Found, a.Value, a.NotFound, a.Rest, a.Fresh = true, u.value, u.notFound, rest, rest-u.stale
				entries[i] = u
				for _, t := range u.tags {
					tags = append(tags, r.p.key(n.target(cache.OfTag, qs[i].key.Scope, t)))
				}
			}
		}
		if len(tags) > 0 {
			tagged = append(tagged, &reading{p: r.p, of: r.of, keys: tags, meta: r.meta})
		}
	}
	if err := l.checkTags(ctx, tagged, entries, answers); err != nil {
		return nil, err
	}
	var drops []cache.Fill
	for i := range answers {
		a := &answers[i]
		if a.Fresh > 0 {
			if a.Claim != 0 {
				drops = append(drops, cache.Fill{Key: qs[i].key, Claim: a.Claim, Drop: true})
			}
			a.Claim, a.Busy = 0, 0
		}
	}
	if len(drops) > 0 {
		if _, err := l.fill(ctx, n, drops); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// maxReads is how often it is read again because the server was not known.
const maxReads = 5

// begin has a process that knows nothing yet be told of what comes after its first read.
func (p *part) begin(m meta) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch == "" {
		p.epoch, p.seq = m.epoch, m.seq
	}
}

// readAll reads, until the server that answers is one on which the epochs were made.
func (l *line) readAll(ctx context.Context, parts []*reading, cmds []asked, qs []question, claim time.Duration) error {
	for range maxReads {
		for _, r := range parts {
			r.p.mu.Lock()
			r.lease = r.p.lease // the one before the read: what is missed meanwhile ends it
			r.p.mu.Unlock()
		}
		var now *redis.TimeCmd
		who, err := l.ask(ctx, func(pipe redis.Pipeliner) {
			now = pipe.Time(ctx) // what is read after it was not older then
			for _, r := range parts {
				for _, i := range r.of {
					c, q := &cmds[i], qs[i]
					if claim > 0 {
						c.claimed = c.claimed || c.claim != nil && c.claim.Val()
						c.claim = pipe.SetNX(ctx, q.p.key(claimKey(q.target)), token(c.token), claim)
						c.busy = pipe.PTTL(ctx, q.p.key(claimKey(q.target)))
					}
				}
				r.mget = pipe.MGet(ctx, r.keys...)
			}
		})
		if err != nil {
			return wrap("get", err)
		}
		var unknown []*part
		for _, r := range parts {
			m, ok := parseMeta(r.mget.Val()[0])
			r.now = uint64(now.Val().UnixMilli())
			if r.meta = m; !ok || who.asked && who.run != "" && r.meta.run != who.run {
				unknown = append(unknown, r.p)
			}
		}
		switch {
		case len(unknown) > 0:
			if err := l.adopt(ctx, unknown, who); err != nil {
				return err
			}
		case who.listened || who.asked:
			for _, r := range parts {
				r.p.begin(r.meta)
			}
			return nil
		default:
			l.deaf() // it talks to one server and listens to another
		}
	}
	return errors.New("rediscache: get: the server changes all the time")
}

func token(claim uint64) string { return strconv.FormatUint(claim, 16) }

// held reads an entry, if it is of the epoch and the generations that are now.
func held(values []any, c *asked, epoch string) (u unpacked, ok bool) {
	text, isText := values[c.entry].(string)
	if !isText {
		return u, false
	}
	u, ok = unpack(text)
	return u, ok && u.gens[0] == epoch && u.gens[1] == values[1] && u.gens[2] == values[c.scope]
}

// checkTags looks at the markers of tags, which are known when the entries are there.
func (l *line) checkTags(ctx context.Context, tagged []*reading, entries []unpacked, answers []cache.Answer) error {
	if len(tagged) == 0 {
		return nil
	}
	who, err := l.ask(ctx, func(pipe redis.Pipeliner) {
		for _, r := range tagged {
			r.mget = pipe.MGet(ctx, r.keys...)
		}
	})
	if err != nil {
		return wrap("get", err)
	}
	for _, r := range tagged {
		gens := r.mget.Val()
		for _, i := range r.of {
			u, holds := entries[i], who.listened || who.asked && (who.run == "" || who.run == r.meta.run)
			for n := range u.tags {
				holds = holds && u.gens[3+n] == gens[n]
			}
			if gens = gens[len(u.tags):]; !holds {
				answers[i] = cache.Answer{Mark: answers[i].Mark, Stamp: answers[i].Stamp, Lease: answers[i].Lease, Claim: answers[i].Claim, Busy: answers[i].Busy}
			}
		}
	}
	return nil
}

// Fill implements [cache.Remote]. Where some servers of a Cluster are away, what they would have said counts as kept.
func (s *Store) Fill(ctx context.Context, name string, fills []cache.Fill) ([]bool, error) {
	if s.err != nil {
		return nil, s.err
	}
	kept := make([]bool, len(fills))
	for i, f := range fills {
		kept[i] = !f.Drop
	}
	n := namesOf(name)
	err := gather(kept, func(i int) *line { return s.partOf(fills[i].Key.Scope).l }, func(l *line, of []int) ([]bool, error) {
		some := pick(fills, of)
		return breaker.Call(ctx, l.breaker, func(ctx context.Context) ([]bool, error) { return l.fill(ctx, n, some) })
	})
	return kept, err
}

// step is a script with what it gets.
type step struct {
	script redislua.Script
	keys   []string
	args   []any
}

func (l *line) fill(ctx context.Context, n names, fills []cache.Fill) ([]bool, error) {
	steps, none := make([]step, len(fills)), make([]bool, len(fills))
	for i := range fills {
		f := &fills[i]
		p := l.s.partOf(f.Key.Scope)
		entry := n.target(cache.OfKey, f.Key.Scope, f.Key.ID)
		claim := ""
		if f.Claim != 0 {
			claim = token(f.Claim)
		}
		if len(f.Tags) > maxTags {
			l.s.log.Warn("rediscache: an entry has too many tags, and is not kept", "key", f.Key, "tags", len(f.Tags), "at_most", maxTags)
		}
		if f.Drop || f.Fresh <= 0 || len(f.Tags) > maxTags {
			none[i] = true
			steps[i] = step{dropScript, []string{p.key(claimKey(entry))}, []any{claim}}
			continue
		}
		var epoch [genLen]byte
		putEpoch(epoch[:], f.Mark.Epoch)
		prefix, rest := packed(f)
		missing := ""
		if f.NotFound {
			missing = "1"
		}
		markers := []string{n.target(cache.OfAll, "", ""), n.target(cache.OfScope, f.Key.Scope, "")}
		for _, t := range f.Tags {
			markers = append(markers, n.target(cache.OfTag, f.Key.Scope, t))
		}
		st := step{fillScript, []string{p.key("meta"), p.key("log"), p.key("floors"), p.key(entry), p.key(claimKey(entry))}, []any{
			epoch[:], strconv.FormatUint(f.Mark.Seq, 10), nonce(), claim, prefix, rest, f.Stamp + millis(f.Keep), f.Stamp + millis(f.Fresh), millis(f.Keep) + 1, missing, entry,
		}}
		for _, m := range markers {
			st.keys, st.args = append(st.keys, p.key(m)), append(st.args, m)
		}
		steps[i] = st
	}
	answers, err := l.runAll(ctx, "fill", steps)
	kept := make([]bool, len(fills))
	for i, v := range answers {
		kept[i] = v == int64(1) && !none[i]
	}
	return kept, err
}

// runAll runs scripts in one pipeline, and those that the server does not know by their text.
func (l *line) runAll(ctx context.Context, what string, steps []step) ([]any, error) {
	answers := make([]any, len(steps))
	if len(steps) == 1 {
		v, err := steps[0].script.Run(ctx, l.s.client, steps[0].keys, steps[0].args...)
		answers[0] = v
		return answers, wrap(what, err)
	}
	cmds, err := l.s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, st := range steps {
			pipe.EvalSha(ctx, st.script.Hash, st.keys, st.args...)
		}
		return nil
	})
	if err != nil && len(cmds) < len(steps) {
		return answers, wrap(what, err)
	}
	var errs []error
	for i, cmd := range cmds {
		c, ok := cmd.(*redis.Cmd)
		if !ok {
			continue
		}
		v, err := c.Result()
		if redislua.Unknown(err) {
			v, err = steps[i].script.Run(ctx, l.s.client, steps[i].keys, steps[i].args...)
		}
		if answers[i] = v; err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 && !redislua.Unknown(err) { // a hook of the client's has said no
		errs = append(errs, err)
	}
	return answers, wrap(what, errors.Join(errs...))
}

func wrap(what string, err error) error {
	if err == nil || errors.Is(err, ErrServer) {
		return err // which says what it is
	}
	return fmt.Errorf("rediscache: %s: %w", what, err)
}
