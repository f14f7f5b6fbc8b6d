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
	unsure    bool          // it may have been carried out, but no answer came
	poke      chan struct{} // there is something to do
	sending   []Settlement  // of the last Call

	// guarded by w.mu
	held     map[Token]*running
	settled  []settled
	underWay []settled // of the Call that is being made
	spare    []settled // to become settled when that is sent
	hungry   bool      // it found no slot
}

// settled is a settlement on its way to the broker.
type settled struct {
	Settlement
	job       *Job
	err       error // of a Retry
	cancelled bool  // the job is: whatever it was, it has ended as that
}

// fetch settles and claims until ctx ends.
func (f *fetcher) fetch(ctx, base context.Context) {
	hint := make(chan bool, 1) // says whether it came early
	waiting, early := false, 0
	idle := min(backstop, f.w.cfg.Lease/2) // or the engine would take us for gone
	for ctx.Err() == nil {
		runtime.Gosched() // handlers that are about to return make the call's batch larger
		settle, slots := f.take(maxClaim)
		if len(settle) == 0 && slots == 0 {
			select {
			case <-f.poke:
			case <-ctx.Done():
			}
			continue
		}
		claimed, ok := f.claim(ctx, base, settle, slots)
		if !ok {
			break // what is not settled goes with the drain
		}
		if ctx.Err() != nil {
			f.putBack(claimed.Jobs)
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
		next := idle
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

// putBack gives back jobs that came when the worker was told to stop.
func (f *fetcher) putBack(jobs []Lease) {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range jobs {
		f.settled = append(f.settled, settled{Settlement: Settlement{Token: jobs[i].Token, Action: Release}, job: &jobs[i].Job})
	}
	w.giveSlots(len(jobs))
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

// take takes settlements to send, and slots to fill. Where several fetchers share the slots, one whose broker
// does not answer must not keep them all.
func (f *fetcher) take(maxSlots int) ([]settled, int) {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	settle := f.settled
	if len(settle) <= maxSettle {
		f.settled, f.spare = f.spare[:0], nil
	} else {
		settle, f.settled = settle[:maxSettle:maxSettle], settle[maxSettle:]
	}
	slots := min(w.free, maxSlots)
	if n := len(w.fetchers); n > 1 {
		slots = min(slots, (w.free+n-1)/n)
	}
	w.free -= slots
	f.hungry = slots == 0
	f.underWay = settle
	return settle, slots
}

// claim makes one Call, the same one again while the broker fails, and gives back the slots that it
// did not fill. It says false if it failed and ctx ended; then the settlements are kept. A call under
// way is not cut off by ctx, which would leave what it claims to nobody until the leases end.
func (f *fetcher) claim(ctx, base context.Context, settle []settled, slots int) (Claimed, bool) {
	w := f.w
	f.number++
	call := Call{Partition: f.partition, Process: w.process, Number: f.number, Max: slots, Lease: w.cfg.Lease, BulkEvery: w.q.cfg.BulkEvery}
	if len(settle) > 0 {
		f.sending = f.sending[:0]
		for i := range settle {
			f.sending = append(f.sending, settle[i].Settlement)
		}
		call.Settle = f.sending
	}
	for failures := 0; ; failures++ {
		if failures == 2 && len(w.fetchers) > 1 && slots > 0 {
			// This partition may be away for long, and others need the slots. If the Call was carried out after all, what it
			// leased is given back by this one, and what it settled comes back as lost.
			w.mu.Lock()
			w.giveSlots(slots)
			w.mu.Unlock()
			slots = 0
			f.number++
			call.Number, call.Max = f.number, 0
		}
		if call.Again = f.unsure; call.Again {
			call.Held = f.tokens()
		}
		claimed, err := f.callBroker(base, call)
		f.unsure = err != nil
		if err == nil {
			w.mu.Lock()
			f.underWay = nil
			if n := slots - len(claimed.Jobs); n > 0 {
				w.giveSlots(n)
			}
			w.mu.Unlock()
			f.settledBy(ctx, settle, claimed)
			clear(settle)
			if f.spare == nil && cap(settle) > 0 {
				f.spare = settle[:0]
			}
			return claimed, true
		}
		if ctx.Err() == nil {
			w.q.log.LogAttrs(ctx, slog.LevelError, "queue: broker failed; trying again", slog.Int("failures", failures+1), slog.Any(logError, err))
		}
		wait(ctx, rand.N(min(backstop, 100*time.Millisecond<<min(failures, 10))))
		if ctx.Err() != nil {
			w.mu.Lock()
			w.giveSlots(slots)
			f.settled, f.underWay = append(settle, f.settled...), nil
			w.mu.Unlock()
			return Claimed{}, false
		}
	}
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

// settleAll sends what is left to settle until ctx ends. What can't be sent is kept.
func (f *fetcher) settleAll(ctx context.Context) {
	for {
		settle, _ := f.take(0)
		if len(settle) == 0 && !f.unsure { // a Call whose answer never came may have leased something
			return
		}
		if _, ok := f.claim(ctx, ctx, settle, 0); !ok {
			return // the leases end by themselves
		}
	}
}
