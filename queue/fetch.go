package queue

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"
)

// fetcher settles and claims in one partition. All fetchers of a worker share its slots.
type fetcher struct {
	w         *worker
	partition int
	number    uint64        // of the last Call
	pending   *pending      // the Call that has no answer yet
	poke      chan struct{} // there is something to do
	reports   chan struct{} // there is progress for the heartbeat to carry
	sending   []Settlement  // of the last Call

	// guarded by w.mu
	held     map[Token]*running
	settled  []settled
	underWay []settled // of the Call that has no answer yet
	spare    []settled // to become settled when that is answered
}

// pending is a Call that is made, the same one again until it is answered: what it has settled and leased is only
// known then.
type pending struct {
	call   Call
	settle []settled
	slots  int // that are kept for what it leases
	tried  bool
}

// settled is a settlement on its way to the broker.
type settled struct {
	Settlement
	job       *Job
	err       error // of a Retry
	cancelled bool  // the job is: whatever it was, it has ended as that
}

// fetch settles and claims until ctx ends. Calls under way are cut off when patient ends.
func (f *fetcher) fetch(ctx, patient, base context.Context) {
	hint := make(chan bool, 1) // says whether it came early
	waiting, early := false, 0
	idle := min(backstop, f.w.cfg.Lease/2) // or the engine would take us for gone
	for ctx.Err() == nil {
		runtime.Gosched() // handlers that are about to return make the call's batch larger
		slots, ok := f.take(maxClaim)
		if !ok {
			select {
			case <-f.poke:
			case <-ctx.Done():
			}
			continue
		}
		claimed, ok := f.send(ctx, patient)
		if !ok {
			break // the drain sends it again
		}
		if ctx.Err() != nil {
			f.putBack(claimed.Jobs, len(claimed.Jobs))
			break
		}
		for i := range claimed.Jobs {
			f.start(base, &claimed.Jobs[i])
		}
		if len(claimed.Jobs) > 0 || slots == 0 {
			early = 0
			continue
		}

		// Nothing to claim: wait for a hint, for something to fall due, for a settlement or, as hints may
		// be lost, for the backstop.
		if !waiting {
			waiting = true
			go func(early int) { hint <- f.hint(ctx, early) }(early)
		}
		next := idle - rand.N(idle/8) // so that processes which wait do not all look at once
		if claimed.DueIn > 0 {
			next = min(next, claimed.DueIn)
		}
		look := time.NewTimer(next)
		select {
		case tooSoon := <-hint:
			waiting = false
			early++
			if !tooSoon {
				early = 0
			}
		case <-f.poke:
		case <-look.C:
		case <-ctx.Done():
		}
		look.Stop()
	}
	if waiting {
		<-hint
	}
}

// putBack gives back jobs that can't be run, and the slots that were kept for some of them.
func (f *fetcher) putBack(jobs []Lease, slots int) {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range jobs {
		f.settled = append(f.settled, settled{Settlement: Settlement{Token: jobs[i].Token, Action: Release}, job: &jobs[i].Job})
	}
	w.giveSlots(slots)
}

// hint waits for the broker's hint that there may be a job. A broker that fails or hints at nothing,
// early times in a row, is asked again after a growing pause, so that it can't make the loop spin.
func (f *fetcher) hint(ctx context.Context, early int) (tooSoon bool) {
	start := time.Now()
	err := f.w.q.broker.Wait(ctx, f.w.q.cfg.Name, f.partition) // why it fails shows at the next Claim
	pause := time.Duration(0)
	switch {
	case err != nil:
		pause = rand.N(min(backstop, 100*time.Millisecond<<min(early, 10)))
	case time.Since(start) < hintPause && early > 0:
		pause = min(hintPause, time.Millisecond<<min(early, 10))
	}
	wait(ctx, pause)
	return err != nil || time.Since(start) < 2*hintPause
}

// take makes the next Call out of settlements to send and slots to fill. It says false if there is neither.
func (f *fetcher) take(maxSlots int) (slots int, ok bool) {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	settle := f.settled
	if len(settle) <= maxSettle {
		f.settled, f.spare = f.spare[:0], nil
	} else {
		settle, f.settled = settle[:maxSettle:maxSettle], settle[maxSettle:]
	}
	slots = w.takeSlots(f, maxSlots, len(settle) == 0)
	if len(settle) == 0 && slots == 0 {
		f.spare = settle[:0]
		return 0, false
	}
	f.underWay = settle
	f.sending = f.sending[:0]
	for i := range settle {
		f.sending = append(f.sending, settle[i].Settlement)
	}
	f.number++
	f.pending = &pending{settle: settle, slots: slots, call: Call{
		Partition: f.partition, Process: w.process, Number: f.number, Settle: f.sending, Max: slots, Lease: w.cfg.Lease, BulkEvery: w.q.cfg.BulkEvery,
	}}
	return slots, true
}

// takeSlots takes slots for a fetcher. Where several share them, those that wait for one and do nothing else come first,
// in the order in which they began to, and each takes a share. waits says that this one will, if it gets none. The caller holds mu.
func (w *worker) takeSlots(f *fetcher, most int, waits bool) int {
	share := w.free
	if n := len(w.fetchers); n > 1 {
		share = (w.free + n - 1) / n
	}
	slots := 0
	if len(w.hungry) == 0 || w.hungry[0] == f {
		slots = min(share, most)
	}
	switch i := slices.Index(w.hungry, f); {
	case slots == 0 && waits && i < 0:
		w.hungry = append(w.hungry, f)
	case i >= 0 && (slots > 0 || !waits): // it has something to do, which may take long
		w.hungry = slices.Delete(w.hungry, i, i+1)
	}
	w.free -= slots
	w.giveSlots(0) // to whoever is first now
	return slots
}

// send makes the pending Call, again and again until it is answered. It says false if ctx ends first; then the Call stays
// pending. A Call under way is not cut off by ctx, which would leave what it leases to nobody for a while, but by patient.
func (f *fetcher) send(ctx, patient context.Context) (Claimed, bool) {
	w, p := f.w, f.pending
	for failures := 0; ; failures++ {
		if p.call.Again = p.tried; p.tried {
			p.call.Held = f.tokens()
		}
		p.tried = true
		claimed, err := f.callBroker(patient, p.call)
		if err == nil {
			f.pending = nil
			return f.answered(ctx, p, claimed), true
		}
		if ctx.Err() == nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: broker failed; trying again", slog.Int("failures", failures+1), slog.Any(logError, err))
		}
		wait(ctx, rand.N(min(backstop, 100*time.Millisecond<<min(failures, 10))))
		if ended := ctx.Err() != nil; ended || failures == 1 && len(w.fetchers) > 1 {
			// This partition may be away for long, and others need the slots.
			w.mu.Lock()
			w.giveSlots(p.slots)
			p.slots = 0
			w.mu.Unlock()
			if ended {
				return Claimed{}, false
			}
		}
	}
}

// answered takes in the answer to a Call. Jobs for which there is no slot any more are given back.
func (f *fetcher) answered(ctx context.Context, p *pending, claimed Claimed) Claimed {
	w := f.w
	w.mu.Lock()
	f.underWay = nil
	surplus := len(claimed.Jobs) - p.slots
	if surplus > 0 {
		slots := min(w.free, surplus)
		w.free -= slots
		surplus -= slots
	} else {
		w.giveSlots(-surplus)
	}
	w.mu.Unlock()
	if surplus > 0 {
		run := len(claimed.Jobs) - surplus
		f.putBack(claimed.Jobs[run:], 0)
		claimed.Jobs = claimed.Jobs[:run]
		poke(f.poke)
	}
	f.settledBy(ctx, p.settle, claimed)
	clear(p.settle)
	if f.spare == nil && cap(p.settle) > 0 {
		f.spare = p.settle[:0]
	}
	return claimed
}

func (f *fetcher) callBroker(base context.Context, call Call) (Claimed, error) {
	ctx, cancel := context.WithTimeout(base, callTimeout)
	defer cancel()
	return f.w.q.broker.Claim(ctx, f.w.q.cfg.Name, call)
}

// tokens are all that the process holds in the partition.
func (f *fetcher) tokens() []Token {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	tokens := make([]Token, 0, len(f.held)+len(f.settled))
	for t := range f.held {
		tokens = append(tokens, t)
	}
	for _, s := range f.settled {
		tokens = append(tokens, s.Token)
	}
	return tokens
}

// settledBy tells those who listen what a Call has settled.
func (f *fetcher) settledBy(ctx context.Context, settle []settled, claimed Claimed) {
	q := f.w.q
	if len(claimed.Died) > 0 {
		q.died(ctx, claimed.Died)
		poke(f.w.trims)
	}
	receipts := claimed.Enqueued
	for _, s := range settle {
		if slices.Contains(claimed.Lost, s.Token) {
			q.log.LogAttrs(ctx, slog.LevelWarn, "queue: settled too late: another worker has the job", append(jobAttrs(s.job), slog.String(logToken, string(s.Token)))...)
			continue
		}
		switch {
		case s.Action == Retry && q.cfg.Hooks.Retried != nil:
			if !s.cancelled && !slices.ContainsFunc(claimed.Died, func(d DeadLetter) bool { return d.Job.ID == s.job.ID }) {
				q.hookApart(ctx, "Retried", func() { q.cfg.Hooks.Retried(ctx, *s.job, s.err, s.After) })
			}
		case s.Action == Ack && q.cfg.Hooks.Enqueued != nil:
			for _, e := range s.Enqueue[:min(len(s.Enqueue), len(receipts))] {
				q.hookApart(ctx, "Enqueued", func() { q.cfg.Hooks.Enqueued(ctx, e.Job, receipts[0]) })
				receipts = receipts[1:]
			}
		}
	}
}

// settleAll sends what is left to settle until ctx ends, first the Call that has no answer yet. What can't be sent is
// kept.
func (f *fetcher) settleAll(ctx context.Context) {
	for {
		if f.pending == nil {
			if _, ok := f.take(0); !ok {
				return
			}
		}
		claimed, ok := f.send(ctx, ctx)
		if !ok {
			return // the leases end by themselves
		}
		f.putBack(claimed.Jobs, len(claimed.Jobs))
	}
}
