package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// checks are the directed cases: what random sequences are too short, too sequential or too polite for.
var checks = []check{
	{name: "DedupeKeyDoesNotSurviveAnEnqueueThatFailed", run: dedupeAfterFailure},
	{name: "DedupeHitReturnsTheFirstJobsID", run: dedupeHit},
	{name: "CallWithADeadContextChangesNothing", run: deadContext},
	{name: "BatchIsAcceptedWholeOrNotAtAll", run: batchWhole},
	{name: "ConcurrentEnqueuesOfOneDedupeKeyAcceptOne", run: concurrentDedupe},
	{name: "ClaimTakesUpAtMost128OfEachKind", run: takesUp},
	{name: "AnswersAreRememberedForTenMinutes", run: remembered},
	{name: "AckSentTwiceIsOkAndTheSecondChangesNothing", run: ackTwice},
	{name: "HeartbeatOfALostLeaseCannotReviveIt", run: lateHeartbeat},
	{name: "JobWhoseWorkerDiedIsInExactlyOneStructureAndIsTakenOver", run: takeover},
	{name: "TakeoverNeverOverwritesACompletedJob", run: completed},
	{name: "LeasesThatEndWhileNothingRunsGetOneMoreChance", run: away},
	{name: "ForgottenAnswerGivesBackWhatTheProcessDoesNotKnowOf", run: forgottenAnswer},
	{name: "CallThatWasGivenUpChangesNothingWhenItComesAfterAll", run: lateCall},
	{name: "ReleaseKeepsOrderAndAttempts", run: release},
	{name: "StrictOrderThroughRetries", run: strictOrder},
	{name: "GroupWith1000LanesDelaysAnotherGroupByAtMostOneRound", run: oneRound},
	{name: "BulkGetsItsShareAndNoMore", run: bulkShare},
	{name: "PerGroupCapIsExactAfterCrashesAndExpiries", run: capExact},
	{name: "WeightGivesSoManyLanesATurn", run: weight},
	{name: "SnoozeAndParkSpendNoAttemptAndKeepOrder", run: parkKeepsOrder},
	{name: "DelayedJobsDueWhileNothingRanComeInDueOrder", run: dueOrder},
	{name: "ClaimMovesAtMost128LateJobsAndSaysLookAgain", run: lateJobs},
	{name: "TurnThatYieldsNoJobIsNotSpent", run: lateTurn},
	{name: "HistoryKeepsTheFirstAndTheLastTenFailures", run: history},
	{name: "ReplayedDeadLetterGoesToTheTailOfItsLaneAndKeepsItsHistory", run: replay},
	{name: "DeadLettersAreFoundByEachField", run: findDead},
	{name: "DeadLettersAndJobsComeInPages", run: pages},
	{name: "StatusReadRightAfterEnqueueIsNeverUnknown", run: statusAtOnce},
	{name: "ProgressNeverGoesBackAndIsRejectedFromALostLease", run: progressFenced},
	{name: "PurgeOfManyIsResumableAndSparesWhatComesLater", run: purgeMany},
	{name: "PauseHoldsAndResumeWakes", run: pauseAndResume},
	{name: "WaitWakesForEverythingThatMakesWork", run: wakes},
	{name: "WaitEndsWithItsContext", run: waitEnds},
	{name: "JobsComeBackAsTheyWere", run: roundTrip},
	{name: "NamesWithAnyBytesDoNotCollide", run: oddNames},
	{name: "QueuesOfOneSpaceAreApart", run: apart},
	{name: "EveryGroupLivesInOnePartition", run: partitions, parted: true},
	{name: "ConcurrentWorkersRunEachJobOnceAndInOrder", run: concurrent, parted: true},
}

const long = 30 * time.Minute // a lease that no check outlives by accident

func (r *rig) id() string {
	r.ids++
	return fmt.Sprintf("j%07d", r.ids)
}

// job fills in what an engine expects to be filled in.
func (r *rig) job(j queue.Job) queue.Entry {
	if j.ID == "" {
		j.ID = r.id()
	}
	if j.Kind == "" {
		j.Kind = "k"
	}
	set := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	set(&j.MaxAttempts, 100)
	set(&j.MaxCrashes, 100)
	for d, to := range map[*time.Duration]time.Duration{&j.Deadline: 1000 * time.Hour, &j.DedupeFor: 48 * time.Hour, &j.StatusFor: 24 * time.Hour} {
		if *d == 0 {
			*d = to
		}
	}
	return queue.Entry{Job: j}
}

func (r *rig) enqueue(ctx context.Context, jobs ...queue.Job) ([]queue.Receipt, error) {
	batch := queue.Batch{ID: "batch " + r.id()}
	for _, j := range jobs {
		batch.Jobs = append(batch.Jobs, r.job(j))
	}
	return r.engine.Enqueue(ctx, r.name, batch)
}

// claim is a Claim of a process of its own numbers, in partition 0.
func (r *rig) claim(ctx context.Context, n int, settle ...queue.Settlement) (queue.Claimed, error) {
	return r.claimBy(ctx, "process", n, long, settle...)
}

func (r *rig) claimBy(ctx context.Context, process string, n int, lease time.Duration, settle ...queue.Settlement) (queue.Claimed, error) {
	r.number++
	return r.engine.Claim(ctx, r.name, queue.Call{Process: process, Number: r.number, Max: n, Lease: lease, Settle: settle})
}

// pass lets time pass with somebody looking for work, as in a queue whose workers live; their leases are a minute.
func (r *rig) pass(ctx context.Context, d time.Duration) error {
	const lease = time.Minute
	for left := d; left > 0; left -= lease / 3 {
		r.sleep(min(left, lease/3))
		if left > lease/3 {
			if _, err := r.claimBy(ctx, "looker", 0, lease); err != nil {
				return err
			}
		}
	}
	return nil
}

func ids(c queue.Claimed) (list []string) {
	for _, l := range c.Jobs {
		list = append(list, l.Job.ID)
	}
	return list
}

func keysOf(c queue.Claimed) (list []string) {
	for _, l := range c.Jobs {
		list = append(list, l.Job.Key)
	}
	return list
}

func settleAll(c queue.Claimed, a queue.Action) (list []queue.Settlement) {
	for _, l := range c.Jobs {
		list = append(list, queue.Settlement{Token: l.Token, Action: a})
	}
	return list
}

func dedupeAfterFailure(ctx context.Context, r *rig) error {
	dead, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.enqueue(dead, queue.Job{Group: "g", DedupeKey: "d"}); err == nil {
		return failed("an enqueue with a dead context succeeded")
	}
	receipts, err := r.enqueue(ctx, queue.Job{Group: "g", DedupeKey: "d"})
	if err != nil || receipts[0].Duplicate {
		return failed("after an enqueue that failed the key is taken: %+v, %v", receipts, err)
	}
	return nil
}

func dedupeHit(ctx context.Context, r *rig) error {
	first, err := r.enqueue(ctx, queue.Job{ID: "first", Group: "g", DedupeKey: "d", DedupeFor: time.Hour})
	if err != nil {
		return err
	}
	again, err := r.enqueue(ctx, queue.Job{ID: "second", Group: "g", DedupeKey: "d"}, queue.Job{ID: "other", Group: "h", DedupeKey: "d"})
	if err != nil {
		return err
	}
	want := []queue.Receipt{{ID: "first"}, {ID: "first", Duplicate: true}, {ID: "other"}}
	if got := slices.Concat(first, again); !slices.Equal(got, want) {
		return failed("the receipts are %+v; want %+v", got, want)
	}
	c, err := r.claim(ctx, 10)
	if err != nil || !slices.Equal(ids(c), []string{"first", "other"}) {
		return failed("claimed %v, %v; want first and other", ids(c), err)
	}
	r.sleep(time.Hour)
	third, err := r.enqueue(ctx, queue.Job{ID: "third", Group: "g", DedupeKey: "d"})
	if err != nil || third[0].Duplicate {
		return failed("the key outlived its time: %+v, %v", third, err)
	}
	return nil
}

func deadContext(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "job", Track: true}); err != nil {
		return err
	}
	dead, cancel := context.WithCancel(ctx)
	cancel()
	if c, err := r.claim(dead, 1); err == nil {
		return failed("a claim with a dead context answers %+v", c)
	}
	if _, err := r.engine.Cancel(dead, r.name, "job"); err == nil {
		return failed("a cancel with a dead context succeeded")
	}
	if err := r.engine.Pause(dead, r.name); err == nil {
		return failed("a pause with a dead context succeeded")
	}
	c, err := r.claim(ctx, 1)
	if err != nil || len(c.Jobs) != 1 {
		return failed("the job is not there after calls that failed: %v, %v", ids(c), err)
	}
	return nil
}

func batchWhole(ctx context.Context, r *rig) error {
	good, bad := r.job(queue.Job{ID: "good", DedupeKey: "d", Track: true}), r.job(queue.Job{ID: "bad", Key: strings.Repeat("x", 1<<16)})
	if _, err := r.engine.Enqueue(ctx, r.name, queue.Batch{ID: "b", Jobs: []queue.Entry{good, bad}}); !errors.Is(err, queue.ErrNameTooLong) {
		return failed("a name that no record can hold is answered by %v; want ErrNameTooLong", err)
	}
	if c, err := r.claim(ctx, 5); err != nil || len(c.Jobs) > 0 {
		return failed("of a batch that was refused %v were accepted, %v", ids(c), err)
	}
	again, err := r.enqueue(ctx, queue.Job{ID: "again", DedupeKey: "d"})
	if err != nil || again[0].Duplicate {
		return failed("of a batch that was refused the dedupe key is taken: %+v, %v", again, err)
	}
	return nil
}

func concurrentDedupe(ctx context.Context, r *rig) error {
	const callers, rounds = 8, 20
	for round := range rounds {
		key := strconv.Itoa(round)
		receipts := make([]queue.Receipt, callers)
		errs := make([]error, callers)
		var all sync.WaitGroup
		for i := range callers {
			e := r.job(queue.Job{Group: "g", DedupeKey: key})
			all.Go(func() {
				got, err := r.engine.Enqueue(ctx, r.name, queue.Batch{ID: "batch " + e.Job.ID, Jobs: []queue.Entry{e}})
				if errs[i] = err; err == nil {
					receipts[i] = got[0]
				}
			})
		}
		all.Wait()
		first := ""
		for i, rc := range receipts {
			if errs[i] != nil {
				return errs[i]
			}
			if !rc.Duplicate && first != "" {
				return broken(dedupes, "two of %d concurrent enqueues of one dedupe key were accepted", callers)
			}
			if !rc.Duplicate {
				first = rc.ID
			}
		}
		for _, rc := range receipts {
			if rc.ID != first {
				return broken(dedupes, "a duplicate names %q; the first is %q", rc.ID, first)
			}
		}
	}
	return nil
}

func takesUp(ctx context.Context, r *rig) error {
	const n = 300
	lease := time.Minute
	for i := range n {
		if _, err := r.enqueue(ctx, queue.Job{Key: "later" + strconv.Itoa(i), Delay: time.Hour}, queue.Job{Key: "held" + strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	for left := n; left > 0; left -= 30 {
		if c, err := r.claimBy(ctx, "victim", 30, lease); err != nil || len(c.Jobs) != 30 {
			return failed("%d jobs, %v", len(c.Jobs), err)
		}
	}
	if err := r.pass(ctx, lease-time.Second); err != nil {
		return err
	}
	r.sleep(time.Minute)
	stats := func(held, scheduled int) error {
		if _, err := r.claim(ctx, 0); err != nil {
			return err
		}
		s, err := r.engine.Stats(ctx, r.name)
		if err != nil || s.Held != held || s.Scheduled != scheduled {
			return failed("after a Claim %d are held and %d scheduled, %v; want %d and %d", s.Held, s.Scheduled, err, held, scheduled)
		}
		return nil
	}
	// Nothing ran for a minute, so the leases are spared first; then they end, with somebody looking all the time.
	if err := r.pass(ctx, 3*lease); err != nil {
		return err
	}
	if err := stats(0, n); err != nil {
		return err
	}
	r.sleep(time.Hour)
	for _, scheduled := range []int{n - bound, n - 2*bound, 0} {
		if err := stats(0, scheduled); err != nil {
			return err
		}
	}
	// And leases: all end in a moment in which somebody was there just before.
	for left := n; left > 0; left -= 30 {
		if _, err := r.claimBy(ctx, "victim", 30, lease); err != nil {
			return err
		}
	}
	for range 3 {
		r.sleep(19 * time.Second)
		if _, err := r.claimBy(ctx, "looker", 0, lease); err != nil {
			return err
		}
	}
	r.sleep(19 * time.Second)
	for _, held := range []int{n - bound, n - 2*bound, 0} {
		if err := stats(held, 0); err != nil {
			return err
		}
	}
	return nil
}

func remembered(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "a"}, queue.Job{ID: "b"}); err != nil {
		return err
	}
	call := queue.Call{Process: "p", Number: 7, Max: 1, Lease: long}
	first, err := r.engine.Claim(ctx, r.name, call)
	if err != nil {
		return err
	}
	r.sleep(9 * time.Minute)
	if _, err := r.claimBy(ctx, "new process", 0, long); err != nil {
		return err
	}
	call.Again = true
	again, err := r.engine.Claim(ctx, r.name, call)
	if err != nil || brief(again) != brief(first) {
		return broken(repeatable, "after 9 minutes the answer is %s, %v; it was %s", brief(again), err, brief(first))
	}
	return nil
}

func ackTwice(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "a", Key: "k"}, queue.Job{ID: "b", Key: "k"}); err != nil {
		return err
	}
	c, err := r.claim(ctx, 1)
	if err != nil || len(c.Jobs) != 1 {
		return failed("claimed %v, %v", ids(c), err)
	}
	ack := settleAll(c, queue.Ack)
	first, err1 := r.claim(ctx, 1, ack...)
	second, err2 := r.claim(ctx, 1, ack...)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if len(first.Lost) != 0 || len(second.Lost) != 1 {
		return failed("lost are %v and then %v; want none and then the token", first.Lost, second.Lost)
	}
	if !slices.Equal(ids(first), []string{"b"}) || len(second.Jobs) != 0 {
		return failed("claimed %v and then %v; want b and then nothing", ids(first), ids(second))
	}
	return nil
}

func lateHeartbeat(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "a", Key: "k"}); err != nil {
		return err
	}
	first, err := r.claimBy(ctx, "first", 1, time.Minute)
	if err != nil {
		return err
	}
	if err := r.pass(ctx, 2*time.Minute); err != nil {
		return err
	}
	second, err := r.claimBy(ctx, "second", 1, time.Minute)
	if err != nil || len(second.Jobs) != 1 {
		return failed("the lease of a dead worker was not taken over: %v, %v", ids(second), err)
	}
	beat := queue.Heartbeat{Tokens: []queue.Token{first.Jobs[0].Token, second.Jobs[0].Token}, Lease: time.Minute}
	e, err := r.engine.Extend(ctx, r.name, beat)
	if err != nil || !slices.Equal(e.Lost, beat.Tokens[:1]) {
		return failed("extend answers %+v, %v; want the first token as lost", e, err)
	}
	c, err := r.claim(ctx, 1, queue.Settlement{Token: first.Jobs[0].Token, Action: queue.Kill, Error: "late"}, queue.Settlement{Token: second.Jobs[0].Token, Action: queue.Ack})
	if err != nil || !slices.Equal(c.Lost, beat.Tokens[:1]) || len(c.Died) > 0 {
		return failed("the late settlement counted, or the right one did not: %+v, %v", c, err)
	}
	return nil
}

func takeover(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "poison", Key: "k", MaxCrashes: 3}, queue.Job{ID: "next", Key: "k"}); err != nil {
		return err
	}
	for i := range 3 {
		c, err := r.claimBy(ctx, "victim", 1, time.Minute)
		if err != nil || len(c.Jobs) != 1 || c.Jobs[0].Job.ID != "poison" || c.Jobs[0].Job.Crashes != i || c.Jobs[0].Job.Attempts != 0 {
			return failed("run %d: %+v, %v; want poison with %d crashes and no attempts", i, c, err, i)
		}
		r.sleep(20 * time.Second)
		none, err := r.claim(ctx, 1)
		if err != nil || len(none.Jobs) > 0 {
			return failed("a job whose lease goes on was claimed: %v, %v", ids(none), err)
		}
		if i == 2 { // a lease past its end that nobody has taken up is still held
			e, err := r.engine.Extend(ctx, r.name, queue.Heartbeat{Tokens: []queue.Token{c.Jobs[0].Token}, Lease: time.Minute})
			if err != nil || len(e.Lost) > 0 {
				return failed("a lease that nobody took is lost: %+v, %v", e, err)
			}
		}
		if err := r.pass(ctx, 90*time.Second); err != nil {
			return err
		}
	}
	c, err := r.claim(ctx, 1)
	if err != nil || !slices.Equal(ids(c), []string{"next"}) {
		return failed("claimed %v, %v; want next", ids(c), err)
	}
	dead, err := r.engine.Dead(ctx, r.name, queue.DeadFilter{})
	if err != nil || len(dead) != 1 || dead[0].Job.ID != "poison" || dead[0].Error != "crashed its worker 3 times" || len(dead[0].Job.History) != 3 {
		return failed("the dead letters are %+v, %v", dead, err)
	}
	return nil
}

func completed(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "j", Key: "k", Track: true}); err != nil {
		return err
	}
	c, err := r.claimBy(ctx, "slow", 1, time.Minute)
	if err != nil {
		return err
	}
	// It ends after its lease, before anybody has taken that up: done is done.
	r.sleep(2 * time.Minute)
	done, err := r.claimBy(ctx, "slow", 0, time.Minute, queue.Settlement{Token: c.Jobs[0].Token, Action: queue.Ack, Result: []byte("done")})
	if err != nil || len(done.Lost) > 0 {
		return failed("an Ack that nobody was faster than is lost: %+v, %v", done, err)
	}
	if err := r.pass(ctx, 3*time.Minute); err != nil {
		return err
	}
	again, err := r.claimBy(ctx, "other", 1, time.Minute)
	if err != nil || len(again.Jobs) > 0 {
		return failed("a completed job was taken over: %v, %v", ids(again), err)
	}
	if s, err := r.engine.Status(ctx, r.name, "j"); err != nil || s.State != queue.Succeeded || string(s.Result) != "done" {
		return broken(tracks, "its status is %+v, %v", s, err)
	}
	return nil
}

func away(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "a", Key: "k"}); err != nil {
		return err
	}
	held, err := r.claimBy(ctx, "survivor", 1, time.Minute)
	if err != nil || len(held.Jobs) != 1 {
		return failed("%v, %v", ids(held), err)
	}
	r.sleep(time.Hour) // nothing runs at all
	c, err := r.claim(ctx, 1)
	if err != nil || len(c.Jobs) != 0 {
		return failed("after an absence of the engine the lease of a living worker was taken at once: %v, %v", ids(c), err)
	}
	r.sleep(30 * time.Second)
	e, err := r.engine.Extend(ctx, r.name, queue.Heartbeat{Tokens: []queue.Token{held.Jobs[0].Token}, Lease: time.Minute})
	if err != nil || len(e.Lost) > 0 {
		return failed("the living worker's heartbeat came too late: %+v, %v", e, err)
	}
	// And if it is dead after all, somebody who looks rarely takes it over.
	for range 3 {
		r.sleep(10 * time.Minute)
		if c, err = r.claim(ctx, 1); err != nil {
			return err
		}
		if len(c.Jobs) == 1 {
			if c.Jobs[0].Job.Crashes != 1 {
				return failed("the job has %d crashes; want 1", c.Jobs[0].Job.Crashes)
			}
			return nil
		}
	}
	return failed("the lease of a dead worker is never taken over by one that looks rarely")
}

func forgottenAnswer(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "a"}, queue.Job{ID: "b"}, queue.Job{ID: "c"}); err != nil {
		return err
	}
	known, err := r.claimBy(ctx, "p", 1, long)
	if err != nil {
		return err
	}
	if _, err := r.claimBy(ctx, "p", 1, long); err != nil { // whose answer the process never gets
		return err
	}
	r.number++
	c, err := r.engine.Claim(ctx, r.name, queue.Call{Process: "p", Number: r.number, Max: 5, Lease: long, Again: true, Held: []queue.Token{known.Jobs[0].Token}})
	if err != nil || !slices.Equal(ids(c), []string{"b", "c"}) {
		return failed("claimed %v, %v; want b, which was given back, and c", ids(c), err)
	}
	if c.Jobs[0].Job.Attempts+c.Jobs[0].Job.Crashes != 0 {
		return failed("what was given back counts %d attempts and %d crashes", c.Jobs[0].Job.Attempts, c.Jobs[0].Job.Crashes)
	}
	return nil
}

func lateCall(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "a"}, queue.Job{ID: "b"}); err != nil {
		return err
	}
	first, err := r.claimBy(ctx, "p", 1, long)
	if err != nil || len(first.Jobs) != 1 {
		return failed("%v, %v", ids(first), err)
	}
	late := queue.Call{Process: "p", Number: r.number + 1, Max: 5, Lease: long, Settle: settleAll(first, queue.Kill)}
	r.number++
	done, err := r.claimBy(ctx, "p", 0, long, settleAll(first, queue.Ack)...)
	if err != nil || len(done.Lost) > 0 {
		return failed("%+v, %v", done, err)
	}
	c, err := r.engine.Claim(ctx, r.name, late)
	if err != nil || len(c.Jobs) > 0 || len(c.Died) > 0 || len(c.Lost) != 1 {
		return broken(repeatable, "a call that its process had given up was carried out: %+v, %v", c, err)
	}
	if c, err = r.claim(ctx, 5); err != nil || !slices.Equal(ids(c), []string{"b"}) {
		return failed("claimed %v, %v; want b", ids(c), err)
	}
	return nil
}

func release(ctx context.Context, r *rig) error {
	for i := range 8 {
		if _, err := r.enqueue(ctx, queue.Job{Group: "g", Key: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	c, err := r.claim(ctx, 5)
	if err != nil {
		return err
	}
	var last queue.Claimed
	for _, i := range []int{1, 4, 2, 0, 3} {
		n := 0
		if i == 3 {
			n = 8
		}
		if last, err = r.claim(ctx, n, queue.Settlement{Token: c.Jobs[i].Token, Action: queue.Release}); err != nil {
			return err
		}
	}
	if got := strings.Join(keysOf(last), ""); got != "01234567" {
		return failed("the lanes come back as %s; want them as they were claimed", got)
	}
	for _, l := range last.Jobs {
		if l.Job.Attempts+l.Job.Crashes > 0 {
			return failed("a release counts as %d attempts and %d crashes", l.Job.Attempts, l.Job.Crashes)
		}
	}
	return nil
}

func strictOrder(ctx context.Context, r *rig) error {
	var want, got []string
	for i := range 20 {
		id := fmt.Sprintf("strict%02d", i)
		want = append(want, id)
		if _, err := r.enqueue(ctx, queue.Job{ID: id, Group: "g", Key: "k"}); err != nil {
			return err
		}
	}
	var settle []queue.Settlement
	for range 1000 {
		c, err := r.claim(ctx, 3, settle...)
		if err != nil {
			return err
		}
		settle = nil
		if len(c.Jobs) > 1 {
			return broken(oneLease, "one lane was leased %d times", len(c.Jobs))
		}
		if len(c.Jobs) == 0 {
			if c.DueIn == 0 {
				break
			}
			r.sleep(c.DueIn)
			continue
		}
		l := c.Jobs[0]
		n, _ := strconv.Atoi(strings.TrimPrefix(l.Job.ID, "strict"))
		if l.Job.Attempts < n%3 {
			settle = append(settle, queue.Settlement{Token: l.Token, Action: queue.Retry, After: time.Duration(n%2) * time.Minute, Error: "not yet"})
			continue
		}
		got = append(got, l.Job.ID)
		settle = append(settle, queue.Settlement{Token: l.Token, Action: queue.Ack})
	}
	if !slices.Equal(got, want) {
		return broken(inOrder, "done in the order %v; want %v", got, want)
	}
	return nil
}

func oneRound(ctx context.Context, r *rig) error {
	for range 10 {
		spike := make([]queue.Job, 100)
		for i := range spike {
			spike[i] = queue.Job{Group: "noisy", Key: r.id()}
		}
		if _, err := r.enqueue(ctx, spike...); err != nil {
			return err
		}
	}
	const quiet = 20
	for i := range quiet {
		g := "quiet" + strconv.Itoa(i)
		if _, err := r.enqueue(ctx, queue.Job{Group: g, Key: "a"}, queue.Job{Group: g, Key: "b"}); err != nil {
			return err
		}
	}
	for round := range 2 {
		seen := map[string]bool{}
		c, err := r.claim(ctx, quiet+1)
		if err != nil {
			return err
		}
		for _, l := range c.Jobs {
			seen[l.Job.Group] = true
		}
		if len(seen) != quiet+1 {
			return broken(inRing, "in round %d only %d of %d groups had a turn", round, len(seen), quiet+1)
		}
	}
	return nil
}

func bulkShare(ctx context.Context, r *rig) error {
	for i := range 100 {
		if _, err := r.enqueue(ctx, queue.Job{Group: "g", Class: queue.Bulk, Key: strconv.Itoa(i)}, queue.Job{Group: "g", Key: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	for round := range 14 {
		c, err := r.claim(ctx, 8)
		if err != nil {
			return err
		}
		bulk := 0
		for _, l := range c.Jobs {
			if l.Job.Class == queue.Bulk {
				bulk++
			}
		}
		if bulk != 1 {
			return failed("With live work ready, bulk gets its share and no more: round %d has %d bulk jobs of %d; want 1 of 8", round, bulk, len(c.Jobs))
		}
	}
	return nil
}

func capExact(ctx context.Context, r *rig) error {
	if err := r.engine.Limit(ctx, r.name, "g", queue.Limits{Cap: 3}); err != nil {
		return err
	}
	for i := range 30 {
		class := queue.Live
		if i%2 == 0 {
			class = queue.Bulk
		}
		if _, err := r.enqueue(ctx, queue.Job{Group: "g", Class: class, Key: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	lease := time.Minute
	for round, action := range []queue.Action{queue.Ack, queue.Retry, queue.Snooze, queue.Kill, queue.Release, 0, 0, queue.Ack} {
		c, err := r.claimBy(ctx, "worker"+strconv.Itoa(round), 10, lease)
		if err != nil || len(c.Jobs) != 3 {
			return broken(underCap, "in round %d %d jobs of a group with cap 3 were claimed, %v", round, len(c.Jobs), err)
		}
		if more, err := r.claimBy(ctx, "another", 10, lease); err != nil || len(more.Jobs) != 0 {
			return broken(underCap, "in round %d %d jobs more were claimed, %v", round, len(more.Jobs), err)
		}
		if action == 0 { // the worker dies
			if err := r.pass(ctx, 3*lease); err != nil {
				return err
			}
			continue
		}
		if _, err := r.claim(ctx, 0, settleAll(c, action)...); err != nil {
			return err
		}
	}
	return nil
}

func weight(ctx context.Context, r *rig) error {
	if err := r.engine.Limit(ctx, r.name, "heavy", queue.Limits{Weight: 3}); err != nil {
		return err
	}
	for i := range 9 {
		if _, err := r.enqueue(ctx, queue.Job{Group: "heavy", Key: strconv.Itoa(i)}, queue.Job{Group: "light", Key: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	c, err := r.claim(ctx, 8)
	var turns []string
	for _, l := range c.Jobs {
		turns = append(turns, l.Job.Group[:1])
	}
	if got := strings.Join(turns, ""); err != nil || got != "hhhlhhhl" {
		return failed("the turns are %s, %v; want hhhlhhhl", got, err)
	}
	return nil
}

func parkKeepsOrder(ctx context.Context, r *rig) error {
	for i := range 4 {
		if _, err := r.enqueue(ctx, queue.Job{Group: "g", Key: strconv.Itoa(i % 2), Payload: []byte(strconv.Itoa(i))}, queue.Job{Group: "h", Key: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	c, err := r.claim(ctx, 1)
	if err != nil || len(c.Jobs) != 1 || c.Jobs[0].Job.Group != "g" {
		return failed("%+v, %v", c, err)
	}
	rest, err := r.claim(ctx, 10, queue.Settlement{Token: c.Jobs[0].Token, Action: queue.Snooze, After: time.Hour, Park: true})
	if err != nil || strings.Join(keysOf(rest), "") != "0123" || rest.Jobs[0].Job.Group != "h" {
		return failed("with g parked, %v were claimed, %v; want the 4 of h", keysOf(rest), err)
	}
	if rest.DueIn <= 0 || rest.DueIn > time.Hour {
		return broken(dueTimes, "dueIn is %v; want an hour", rest.DueIn)
	}
	r.sleep(time.Hour)
	var got []string
	settle := settleAll(rest, queue.Ack)
	for range 4 {
		c, err := r.claim(ctx, 1, settle...)
		if err != nil {
			return err
		}
		for _, l := range c.Jobs {
			if l.Job.Attempts > 0 {
				return broken(counts, "a snooze counts as an attempt")
			}
			got = append(got, l.Job.Key+string(l.Job.Payload))
		}
		settle = settleAll(c, queue.Ack)
	}
	slices.Sort(got)
	if fmt.Sprint(got) != "[00 02 11 13]" {
		return failed("after the park %v ran; want all 4 of g", got)
	}
	// 0 unparks, the last call wins.
	if _, err := r.enqueue(ctx, queue.Job{ID: "last", Group: "g"}); err != nil {
		return err
	}
	if err := errors.Join(r.engine.Park(ctx, r.name, "g", time.Hour), r.engine.Park(ctx, r.name, "g", 0)); err != nil {
		return err
	}
	if c, err = r.claim(ctx, 1, settle...); err != nil || !slices.Equal(ids(c), []string{"last"}) {
		return failed("after an unpark %v were claimed, %v", ids(c), err)
	}
	return nil
}

func dueOrder(ctx context.Context, r *rig) error {
	var want, got []string
	for i := range 300 { // more than one Claim takes up
		want = append(want, fmt.Sprintf("due%03d", i))
	}
	for i, id := range slices.Backward(want) {
		if _, err := r.enqueue(ctx, queue.Job{ID: id, Key: "k", Delay: time.Duration(i+1) * time.Second}); err != nil {
			return err
		}
	}
	if c, err := r.claim(ctx, 1); err != nil || len(c.Jobs) > 0 || c.DueIn <= 0 || c.DueIn > time.Second {
		return failed("before anything is due: %v, due in %v, %v", ids(c), c.DueIn, err)
	}
	r.sleep(time.Hour)
	var settle []queue.Settlement
	for range 320 {
		c, err := r.claim(ctx, 1, settle...)
		if err != nil {
			return err
		}
		settle = settleAll(c, queue.Ack)
		got = append(got, ids(c)...)
	}
	if !slices.Equal(got, want) {
		return failed("what fell due meanwhile runs in the order %v; want %v", got, want)
	}
	return nil
}

func lateJobs(ctx context.Context, r *rig) error {
	for i := range 200 {
		if _, err := r.enqueue(ctx, queue.Job{Group: "g", Key: strconv.Itoa(i), Deadline: time.Hour, Track: i == 0, ID: fmt.Sprintf("late%03d", i)}); err != nil {
			return err
		}
	}
	if _, err := r.enqueue(ctx, queue.Job{Group: "g", Key: "0", ID: "next"}, queue.Job{Group: "g", Key: "due", ID: "due", Delay: 90 * time.Minute, Deadline: time.Hour}); err != nil {
		return err
	}
	r.sleep(2 * time.Hour)
	first, err := r.claim(ctx, 8)
	if err != nil || len(first.Jobs) != 0 || first.DueIn != 1 || len(first.Died) != 128 {
		return failed("the first claim answers %v, %d died, due in %v, %v; want no job, 128 died, look again", ids(first), len(first.Died), first.DueIn, err)
	}
	second, err := r.claim(ctx, 8)
	if got := ids(second); err != nil || len(got) != 2 || !slices.Contains(got, "next") || !slices.Contains(got, "due") {
		return failed("the second claim answers %v, %v; want next, and due, whose deadline counts from when it was due", got, err)
	}
	dead, err := r.engine.Dead(ctx, r.name, queue.DeadFilter{Limit: 1000, Error: "deadline"})
	if err != nil || len(dead) != 200 {
		return failed("%d dead letters, %v; want 200", len(dead), err)
	}
	if s, err := r.engine.Status(ctx, r.name, "late000"); err != nil || s.State != queue.Dead || s.Error != "deadline" {
		return failed("the status of one is %+v, %v", s, err)
	}
	return nil
}

// lateTurn has a group whose second lane begins with a job that is past its deadline: the turn is that of the job behind it.
func lateTurn(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{Group: "g", Key: "x", ID: "g1"}, queue.Job{Group: "g", Key: "y", ID: "late", Deadline: time.Hour}, queue.Job{Group: "g", Key: "y", ID: "g2"},
		queue.Job{Group: "h", Key: "x", ID: "h1"}, queue.Job{Group: "h", Key: "y", ID: "h2"}); err != nil {
		return err
	}
	r.sleep(2 * time.Hour)
	if c, err := r.claim(ctx, 8); err != nil || !slices.Equal(ids(c), []string{"g1", "h1", "g2", "h2"}) || len(c.Died) != 1 {
		return failed("the claim answers %v, %d died, %v; want g1 h1 g2 h2, 1 died", ids(c), len(c.Died), err)
	}
	return nil
}

func history(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "j", MaxAttempts: 25}); err != nil {
		return err
	}
	var settle []queue.Settlement
	for i := range 25 {
		c, err := r.claim(ctx, 1, settle...)
		if err != nil || len(c.Jobs) != 1 || len(c.Jobs[0].Job.History) != min(i, 20) {
			return failed("run %d: %+v, %v", i, c, err)
		}
		settle = []queue.Settlement{{Token: c.Jobs[0].Token, Action: queue.Retry, Error: strings.Repeat("é", 1000) + strconv.Itoa(i)}}
	}
	if _, err := r.claim(ctx, 1, settle...); err != nil {
		return err
	}
	dead, err := r.engine.Dead(ctx, r.name, queue.DeadFilter{})
	if err != nil || len(dead) != 1 {
		return failed("%d dead letters, %v; want 1", len(dead), err)
	}
	var numbers []int
	size := 0
	for _, a := range dead[0].Job.History {
		numbers = append(numbers, a.Number)
		size += len(a.Error)
		if a.At.IsZero() || !strings.HasPrefix(a.Error, "éé") {
			return failed("an attempt of the history is %+v", a)
		}
	}
	if fmt.Sprint(numbers) != "[1 2 3 4 5 6 7 8 9 10 16 17 18 19 20 21 22 23 24 25]" || size > 8<<10 {
		return failed("the history has the attempts %v in %d bytes; want the first and last 10 in 8 KiB", numbers, size)
	}
	if dead[0].Job.Attempts != 25 {
		return broken(counts, "attempts is %d; want 25", dead[0].Job.Attempts)
	}
	return nil
}

func replay(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "dies", Key: "k", MaxAttempts: 1, DedupeKey: "d", Track: true, Deadline: time.Hour, Payload: []byte("body")},
		queue.Job{ID: "second", Key: "k"}, queue.Job{ID: "third", Key: "k"}); err != nil {
		return err
	}
	c, err := r.claim(ctx, 1)
	if err != nil {
		return err
	}
	if c, err = r.claim(ctx, 1, queue.Settlement{Token: c.Jobs[0].Token, Action: queue.Retry, Error: "boom"}); err != nil || len(c.Died) != 1 || c.Died[0].Job.Payload != nil {
		return broken(deadLetters, "there died %+v, %v; want one, without its payload", c.Died, err)
	}
	r.sleep(20 * time.Minute) // its deadline goes on only when it is back
	if n, err := r.engine.Replay(ctx, r.name, []string{"dies", "second", "nobody"}); err != nil || n != 1 {
		return failed("replay answers %d, %v; want 1", n, err)
	}
	if s, err := r.engine.Status(ctx, r.name, "dies"); err != nil || s.State != queue.Pending || s.Attempts != 0 {
		return broken(tracks, "after the replay the status is %+v, %v", s, err)
	}
	var got []string
	for range 3 {
		got = append(got, ids(c)...)
		for _, l := range c.Jobs {
			if j := l.Job; j.ID == "dies" && (j.Attempts != 0 || len(j.History) != 1 || j.History[0].Error != "boom" || string(j.Payload) != "body" || l.Age > 10*time.Minute) {
				return failed("the replayed job is %+v, of age %v; want no attempts, its history, its payload, a new deadline", j, l.Age)
			}
		}
		if c, err = r.claim(ctx, 1, settleAll(c, queue.Ack)...); err != nil {
			return err
		}
	}
	if fmt.Sprint(got) != "[second third dies]" {
		return failed("they ran as %v; want the replayed one at the tail", got)
	}
	again, err := r.enqueue(ctx, queue.Job{ID: "again", DedupeKey: "d"})
	if err != nil || !again[0].Duplicate {
		return failed("a replay freed the dedupe key: %+v, %v", again, err)
	}
	return nil
}

func findDead(ctx context.Context, r *rig) error {
	bury := func(id, group, kind, reason string) error {
		e := r.job(queue.Job{ID: id, Group: group, Kind: kind, DedupeKey: id})
		e.Dead = reason
		_, err := r.engine.Enqueue(ctx, r.name, queue.Batch{ID: r.id(), Jobs: []queue.Entry{e}})
		return err
	}
	if err := errors.Join(bury("a", "g", "k1", "carrier: no such address"), bury("b", "h", "k1", "erp: 503")); err != nil {
		return err
	}
	stats, err := r.engine.Stats(ctx, r.name)
	if err != nil {
		return err
	}
	r.sleep(time.Hour)
	half := stats.Now.Add(30 * time.Minute)
	if err := bury("c", "g", "k2", "erp: 500"); err != nil {
		return err
	}
	for want, f := range map[string]queue.DeadFilter{
		"[a b c]": {}, "[a c]": {Group: "g"}, "[a b]": {Kind: "k1"}, "[b c]": {Error: "erp"}, "[c]": {From: half}, "[b a]": {Until: half, IDs: []string{"b", "a"}}, "[]": {IDs: []string{"x"}},
	} {
		dead, err := r.engine.Dead(ctx, r.name, f)
		if err != nil {
			return err
		}
		got := []string{}
		for _, d := range dead {
			got = append(got, d.Job.ID)
		}
		wanted := strings.Fields(strings.Trim(want, "[]"))
		slices.Sort(wanted)
		if fmt.Sprint(got) != fmt.Sprint(wanted) {
			return failed("%+v finds %v; want %v, oldest first", f, got, wanted)
		}
	}
	if n, err := r.engine.Drop(ctx, r.name, []string{"a", "x"}); err != nil || n != 1 {
		return failed("drop answers %d, %v; want 1", n, err)
	}
	free, err := r.enqueue(ctx, queue.Job{ID: "new", Group: "g", DedupeKey: "a"})
	if err != nil || free[0].Duplicate {
		return failed("a dropped letter keeps its dedupe key: %+v, %v", free, err)
	}
	return nil
}

func pages(ctx context.Context, r *rig) error {
	var want []string
	for i := range 25 {
		id := fmt.Sprintf("p%02d", i)
		want = append(want, id)
		e := r.job(queue.Job{ID: id, Group: strconv.Itoa(i % 3)})
		e.Dead = "dead"
		live := r.job(queue.Job{ID: id + "live", Group: strconv.Itoa(i % 3), Delay: time.Duration(i%2) * time.Hour})
		if _, err := r.engine.Enqueue(ctx, r.name, queue.Batch{ID: r.id(), Jobs: []queue.Entry{e, live}}); err != nil {
			return err
		}
	}
	var dead, jobs []string
	letters := queue.DeadFilter{Limit: 4}
	filter := queue.JobFilter{Limit: 4}
	for range 10 {
		page, err := r.engine.Dead(ctx, r.name, letters)
		if err != nil || len(page) > 4 {
			return failed("a page of at most 4 has %d, %v", len(page), err)
		}
		for _, d := range page {
			dead = append(dead, d.Job.ID)
			letters.After, letters.AfterTime = d.Job.ID, d.At
		}
		list, err := r.engine.Jobs(ctx, r.name, filter)
		if err != nil || len(list) > 4 {
			return failed("a page of at most 4 has %d, %v", len(list), err)
		}
		for _, j := range list {
			jobs = append(jobs, strings.TrimSuffix(j.Job.ID, "live"))
			filter.After = j.Job.ID
		}
	}
	slices.Sort(dead) // several may have died in the same millisecond, in any order of partitions
	if !slices.Equal(dead, want) || !slices.Equal(jobs, want) {
		return failed("the pages have %v and %v; want each of %v once", dead, jobs, want)
	}
	return nil
}

func statusAtOnce(ctx context.Context, r *rig) error {
	for _, j := range []queue.Job{{ID: "now", Track: true}, {ID: "later", Track: true, Delay: time.Hour}} {
		if _, err := r.enqueue(ctx, j); err != nil {
			return err
		}
		if s, err := r.engine.Status(ctx, r.name, j.ID); err != nil || s.State != queue.Pending || s.Kind != "k" || s.Since.IsZero() || !s.Ended.IsZero() {
			return broken(tracks, "right after the enqueue of %s its status is %+v, %v", j.ID, s, err)
		}
	}
	c, err := r.claim(ctx, 1)
	if err != nil {
		return err
	}
	if s, err := r.engine.Status(ctx, r.name, "now"); err != nil || s.State != queue.Processing {
		return broken(tracks, "while it runs its status is %+v, %v", s, err)
	}
	done := queue.Settlement{Token: c.Jobs[0].Token, Action: queue.Ack, Result: []byte("ok\x00")}
	if _, err := r.claim(ctx, 0, done); err != nil {
		return err
	}
	if s, err := r.engine.Status(ctx, r.name, "now"); err != nil || s.State != queue.Succeeded || s.Percent != 100 || string(s.Result) != "ok\x00" || s.Ended.IsZero() {
		return broken(tracks, "when it is done its status is %+v, %v", s, err)
	}
	if state, err := r.engine.Cancel(ctx, r.name, "later"); err != nil || state != queue.Cancelled {
		return failed("cancel answers %s, %v", state, err)
	}
	if _, err := r.engine.Status(ctx, r.name, "nobody"); !errors.Is(err, queue.ErrUnknownJob) {
		return failed("the status of nobody is %v; want ErrUnknownJob", err)
	}
	r.sleep(25 * time.Hour)
	if _, err := r.engine.Status(ctx, r.name, "now"); !errors.Is(err, queue.ErrUnknownJob) {
		return broken(holdsNone, "status outlives its time: %v", err)
	}
	return nil
}

func progressFenced(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "j", Track: true}); err != nil {
		return err
	}
	report := func(t queue.Token, percent int) ([]queue.Token, error) {
		e, err := r.engine.Extend(ctx, r.name, queue.Heartbeat{Tokens: []queue.Token{t}, Lease: time.Minute, Progress: map[queue.Token]queue.Progress{t: {Percent: percent, Note: strconv.Itoa(percent)}}})
		return e.Lost, err
	}
	shows := func(percent int) error {
		if s, err := r.engine.Status(ctx, r.name, "j"); err != nil || s.Percent != percent {
			return broken(tracks, "progress is %d, %v; want %d", s.Percent, err, percent)
		}
		return nil
	}
	first, err := r.claimBy(ctx, "first", 1, time.Minute)
	if err != nil {
		return err
	}
	for _, p := range [][2]int{{40, 40}, {20, 40}, {60, 60}} {
		if lost, err := report(first.Jobs[0].Token, p[0]); err != nil || len(lost) > 0 {
			return failed("lost %v, %v", lost, err)
		}
		if err := shows(p[1]); err != nil {
			return err
		}
	}
	if err := r.pass(ctx, 2*time.Minute); err != nil {
		return err
	}
	second, err := r.claimBy(ctx, "second", 1, time.Minute)
	if err != nil || len(second.Jobs) != 1 {
		return failed("%v, %v", ids(second), err)
	}
	if lost, err := report(first.Jobs[0].Token, 99); err != nil || len(lost) != 1 {
		return failed("a lost lease reports progress: %v, %v", lost, err)
	}
	if err := shows(0); err != nil { // a new attempt begins anew
		return err
	}
	if _, err := report(second.Jobs[0].Token, 10); err != nil {
		return err
	}
	return shows(10)
}

func purgeMany(ctx context.Context, r *rig) error {
	for i := range 30 {
		jobs := make([]queue.Job, 100)
		for n := range jobs {
			jobs[n] = queue.Job{Group: "shop", Key: strconv.Itoa(n % 40), Track: true, DedupeKey: r.id(), Delay: time.Duration(n%5/4) * time.Hour}
		}
		jobs[0].Group = "other"
		if _, err := r.enqueue(ctx, jobs...); err != nil {
			return fmt.Errorf("batch %d: %w", i, err)
		}
	}
	held, err := r.claim(ctx, 4)
	if err != nil {
		return err
	}
	f := queue.PurgeFilter{Group: "shop"}
	erased, calls := 0, 0
	for {
		p, err := r.engine.Purge(ctx, r.name, f)
		if err != nil {
			return err
		}
		erased += p.Jobs
		if calls++; calls == 1 { // accepted after the call: spared
			if _, err := r.enqueue(ctx, queue.Job{ID: "after", Group: "shop", Key: "0", DedupeKey: "after"}); err != nil {
				return err
			}
		}
		if f.Cursor = p.Cursor; f.Cursor == "" {
			break
		}
	}
	if erased != 30*99 {
		return failed("%d jobs were erased; want %d", erased, 30*99)
	}
	if calls < 2 {
		return failed("a purge of 3,000 jobs in one step")
	}
	list, err := r.engine.Jobs(ctx, r.name, queue.JobFilter{Group: "shop"})
	if err != nil || len(list) != 1 || list[0].Job.ID != "after" {
		return failed("of the shop %d jobs are left, %v; want the one that came after", len(list), err)
	}
	e, err := r.engine.Extend(ctx, r.name, queue.Heartbeat{Tokens: []queue.Token{held.Jobs[0].Token, held.Jobs[1].Token, held.Jobs[2].Token, held.Jobs[3].Token}, Lease: long})
	want := 0
	for _, l := range held.Jobs {
		if l.Job.Group == "shop" {
			want++
		}
	}
	if err != nil || len(e.Cancelled) != want || len(e.Lost) != 0 {
		return failed("the handlers that run are told %+v, %v; want %d cancelled", e, err, want)
	}
	c, err := r.claim(ctx, 0, settleAll(held, queue.Retry)...)
	if err != nil || len(c.Lost) > 0 {
		return failed("%+v, %v", c, err)
	}
	if again, err := r.enqueue(ctx, queue.Job{ID: "x", Group: "shop", DedupeKey: "after"}); err != nil || !again[0].Duplicate {
		return failed("the dedupe key of what came after the purge is gone: %+v, %v", again, err)
	}
	stats, err := r.engine.Stats(ctx, r.name)
	if err != nil || stats.Jobs+stats.Scheduled != 31 {
		return failed("%+v, %v; want 30 jobs of the other group and the one that came after", stats, err)
	}
	return nil
}

func pauseAndResume(ctx context.Context, r *rig) error {
	if err := r.engine.Pause(ctx, r.name); err != nil {
		return err
	}
	if _, err := r.enqueue(ctx, queue.Job{ID: "j"}); err != nil {
		return err
	}
	if c, err := r.claim(ctx, 1); err != nil || len(c.Jobs) > 0 {
		return failed("a paused queue gave out %v, %v", ids(c), err)
	}
	waiting, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	woken := make(chan error, 1)
	go func() { woken <- r.engine.Wait(waiting, r.name, 0) }()
	if err := r.engine.Resume(ctx, r.name); err != nil {
		return err
	}
	if err := <-woken; err != nil {
		return failed("Resume wakes nobody: %v", err)
	}
	if c, err := r.claim(ctx, 1); err != nil || len(c.Jobs) != 1 {
		return failed("a resumed queue gave out %v, %v", ids(c), err)
	}
	return nil
}

func wakes(ctx context.Context, r *rig) error {
	nothing := func() error {
		c, err := r.claim(ctx, 1)
		if err != nil || len(c.Jobs) > 0 {
			return failed("there is something to claim already: %v, %v", ids(c), err)
		}
		return nil
	}
	var held queue.Claimed
	for _, step := range []struct {
		what   string
		before func() error
		do     func() error
	}{
		{"an enqueue", nothing, func() error { _, err := r.enqueue(ctx, queue.Job{ID: "1", Key: "k"}); return err }},
		{"the next of a lane", func() (err error) {
			if _, err = r.enqueue(ctx, queue.Job{ID: "2", Key: "k"}); err != nil {
				return err
			}
			if held, err = r.claim(ctx, 1); err != nil {
				return err
			}
			return nothing()
		}, func() error { _, err := r.claimBy(ctx, "other", 0, long, settleAll(held, queue.Ack)...); return err }},
		{"an unpark", func() error { return errors.Join(r.engine.Park(ctx, r.name, "", time.Hour), nothing()) }, func() error { return r.engine.Park(ctx, r.name, "", 0) }},
		{"a higher cap", func() (err error) {
			if _, err = r.enqueue(ctx, queue.Job{ID: "3"}); err != nil {
				return err
			}
			if held, err = r.claim(ctx, 1); err != nil {
				return err
			}
			return errors.Join(r.engine.Limit(ctx, r.name, "", queue.Limits{Cap: 1}), nothing())
		}, func() error { return r.engine.Limit(ctx, r.name, "", queue.Limits{}) }},
		{"a replay", func() (err error) {
			if held, err = r.claim(ctx, 1); err != nil {
				return err
			}
			kill := settleAll(held, queue.Kill)
			_, err = r.claim(ctx, 0, kill...)
			return errors.Join(err, nothing())
		}, func() error { _, err := r.engine.Replay(ctx, r.name, []string{held.Jobs[0].Job.ID}); return err }},
	} {
		if err := step.before(); err != nil {
			return fmt.Errorf("before %s: %w", step.what, err)
		}
		waiting, stop := context.WithTimeout(ctx, 2*time.Minute)
		woken := make(chan error, 1)
		go func() { woken <- r.engine.Wait(waiting, r.name, 0) }()
		err := step.do()
		if err == nil {
			err = <-woken
		}
		stop()
		if err != nil {
			return failed("%s wakes nobody: %v", step.what, err)
		}
	}
	return nil
}

func waitEnds(ctx context.Context, r *rig) error {
	waiting, stop := context.WithCancel(ctx)
	woken := make(chan error, 1)
	go func() { woken <- r.engine.Wait(waiting, r.name, 0) }()
	stop()
	if err := <-woken; err == nil {
		return failed("Wait in an empty queue ended without an error")
	}
	return nil
}

func roundTrip(ctx context.Context, r *rig) error {
	big := bytes.Repeat([]byte{0, 1, 255, '\n', '{'}, 200_000)
	want := []queue.Job{
		{ID: "empty"},
		{ID: "big", Payload: big, Headers: map[string]string{"X-Shopify-Topic": "orders/create", "empty": "", "bytes": "\x00\xff\n"}},
		{ID: "all", Kind: "orders/create", Group: "app/shop.myshopify.com", Class: queue.Bulk, Key: "order/1", DedupeKey: "d", Order: queue.Relaxed, MaxAttempts: 7, MaxCrashes: 8,
			Deadline: 90 * time.Minute, Track: true, StatusFor: time.Hour, Payload: []byte("{}")},
	}
	if _, err := r.enqueue(ctx, want...); err != nil {
		return err
	}
	c, err := r.claim(ctx, 10)
	if err != nil || len(c.Jobs) != len(want) {
		return failed("claimed %v, %v", ids(c), err)
	}
	for _, l := range c.Jobs {
		i := slices.IndexFunc(want, func(j queue.Job) bool { return j.ID == l.Job.ID })
		w := r.job(want[i]).Job
		w.DedupeFor = 0
		got := l.Job
		if got.Since.IsZero() {
			return failed("%s does not say since when it is there", got.ID)
		}
		got.Since = time.Time{}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", w) || !bytes.Equal(got.Payload, w.Payload) {
			return failed("a job came back as\n%.400s; want\n%.400s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", w))
		}
	}
	return nil
}

func oddNames(ctx context.Context, r *rig) error {
	odd := []string{"", "a", "b", "a/b", "a:b", "{a}", "a\x00b", "a\nb", "\xff\xfe", "*", "ü", strings.Repeat("long", 300)}
	var want []string
	for _, g := range odd {
		for _, k := range odd {
			id := r.id()
			want = append(want, fmt.Sprintf("%s %q %q", id, g, k))
			receipts, err := r.enqueue(ctx, queue.Job{ID: id, Group: g, Key: k, DedupeKey: k + "d"})
			if err != nil || receipts[0].Duplicate {
				return failed("group %q, key %q: %+v, %v", g, k, receipts, err)
			}
		}
	}
	c, err := r.claim(ctx, len(want)+1)
	if err != nil {
		return err
	}
	var got []string
	for _, l := range c.Jobs {
		got = append(got, fmt.Sprintf("%s %q %q", l.Job.ID, l.Job.Group, l.Job.Key))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return failed("of %d lanes %d were claimed: %.2000v", len(want), len(got), got)
	}
	return nil
}

func apart(ctx context.Context, r *rig) error {
	if _, err := r.enqueue(ctx, queue.Job{ID: "mine", Group: "g", Key: "k", DedupeKey: "d", Track: true}); err != nil {
		return err
	}
	other := &rig{engine: r.engine, name: r.name + "-other", sleep: r.sleep}
	if err := other.engine.Pause(ctx, other.name); err != nil {
		return err
	}
	receipts, err := other.enqueue(ctx, queue.Job{ID: "other", Group: "g", Key: "k", DedupeKey: "d"})
	if err != nil || receipts[0].Duplicate {
		return failed("queues share dedupe keys: %+v, %v", receipts, err)
	}
	if _, err := other.engine.Status(ctx, other.name, "mine"); !errors.Is(err, queue.ErrUnknownJob) {
		return failed("queues share status: %v", err)
	}
	c, err := r.claim(ctx, 10)
	if err != nil || !slices.Equal(ids(c), []string{"mine"}) {
		return failed("claimed %v, %v; want mine", ids(c), err)
	}
	follow := r.job(queue.Job{ID: "follow", Group: "g", Key: "k"})
	follow.Queue = other.name
	ack := queue.Settlement{Token: c.Jobs[0].Token, Action: queue.Ack, Enqueue: []queue.Entry{follow}}
	if _, err := r.claim(ctx, 1, ack); err != nil {
		return err
	}
	if late, err := r.claim(ctx, 1, ack); err != nil || len(late.Lost) != 1 {
		return failed("%+v, %v", late, err)
	}
	if err := other.engine.Resume(ctx, other.name); err != nil {
		return err
	}
	var got []string
	var settle []queue.Settlement
	for range 3 {
		c, err := other.claim(ctx, 10, settle...)
		if err != nil {
			return err
		}
		got, settle = append(got, ids(c)...), settleAll(c, queue.Ack)
	}
	if fmt.Sprint(got) != "[other follow]" {
		return failed("the other queue ran %v; want its own job, and once the one that the Ack brought", got)
	}
	return nil
}

func partitions(ctx context.Context, r *rig) error {
	n := max(1, r.engine.Info().Partitions)
	const groups, perGroup = 50, 4
	batch := make([]queue.Job, 0, groups*perGroup)
	for i := range perGroup {
		for g := range groups {
			batch = append(batch, queue.Job{ID: fmt.Sprintf("%02d-%d", g, i), Group: strconv.Itoa(g), Key: "k"})
		}
	}
	receipts, err := r.enqueue(ctx, batch...)
	if err != nil {
		return err
	}
	for i, rc := range receipts {
		if rc.ID != batch[i].ID {
			return failed("receipt %d is of %q; want %q", i, rc.ID, batch[i].ID)
		}
	}
	home := map[string]int{}
	seen := map[string][]string{}
	total := 0
	for p := range n {
		var settle []queue.Settlement
		for number := uint64(1); ; number++ {
			c, err := r.engine.Claim(ctx, r.name, queue.Call{Partition: p, Process: "p", Number: number, Max: 32, Lease: long, Settle: settle})
			if err != nil {
				return err
			}
			if len(c.Jobs) == 0 {
				break
			}
			if total > len(batch) {
				return failed("of %d jobs %d were claimed", len(batch), total)
			}
			for _, l := range c.Jobs {
				g := l.Job.Group
				if at, known := home[g]; known && at != p {
					return failed("group %s is in the partitions %d and %d", g, at, p)
				}
				home[g] = p
				seen[g] = append(seen[g], l.Job.ID)
				total++
			}
			settle = settleAll(c, queue.Ack)
		}
	}
	if total != len(batch) {
		return failed("%d of %d jobs came out of %d partitions", total, len(batch), n)
	}
	for g, list := range seen {
		if !slices.IsSorted(list) {
			return broken(inOrder, "group %s ran as %v", g, list)
		}
	}
	return nil
}

func concurrent(ctx context.Context, r *rig) error {
	const workers, lanes, perLane = 8, 10, 30
	n := max(1, r.engine.Info().Partitions)
	var mu sync.Mutex
	ran := map[string][]int{}
	holding := map[string]bool{}
	left := lanes * perLane
	fail := make(chan error, 1000)
	var all sync.WaitGroup
	for g := range lanes {
		all.Go(func() { // one producer for each lane
			for i := range perLane {
				name := fmt.Sprintf("%d-%d", g, i)
				e := queue.Entry{Job: queue.Job{ID: name, Kind: "k", Group: strconv.Itoa(g % 3), Key: strconv.Itoa(g), Payload: []byte(strconv.Itoa(i)), MaxAttempts: 9, MaxCrashes: 9,
					Deadline: long, DedupeKey: name, DedupeFor: long, StatusFor: long}}
				for range 2 { // and once more, as after a lost reply
					if _, err := r.engine.Enqueue(ctx, r.name, queue.Batch{ID: name, Jobs: []queue.Entry{e}}); err != nil {
						fail <- err
						return
					}
				}
			}
		})
	}
	for id := range workers {
		all.Go(func() {
			for number := uint64(1); ; number++ {
				mu.Lock()
				done := left <= 0
				mu.Unlock()
				if done || ctx.Err() != nil {
					return
				}
				if number > 20_000 {
					fail <- broken(onePlace, "jobs are missing")
					return
				}
				for p := range n {
					call := queue.Call{Partition: p, Process: "w" + strconv.Itoa(id), Number: 2 * number, Max: 3, Lease: long}
					c, err := r.engine.Claim(ctx, r.name, call)
					if err != nil {
						fail <- err
						return
					}
					mu.Lock()
					for _, l := range c.Jobs {
						if holding[l.Job.Key] && len(fail) < cap(fail)/2 {
							fail <- broken(oneLease, "lane %s is held twice", l.Job.Key)
						}
						holding[l.Job.Key] = true
					}
					mu.Unlock()
					runtime.Gosched() // the work
					mu.Lock()
					for _, l := range c.Jobs {
						i, _ := strconv.Atoi(string(l.Job.Payload))
						ran[l.Job.Key] = append(ran[l.Job.Key], i)
						holding[l.Job.Key] = false
						left--
					}
					mu.Unlock()
					call.Number, call.Max, call.Settle = 2*number+1, 0, settleAll(c, queue.Ack)
					if _, err := r.engine.Claim(ctx, r.name, call); err != nil {
						fail <- err
						return
					}
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-fail:
		return err
	default:
	}
	for k, list := range ran {
		if len(list) != perLane || !slices.IsSorted(list) {
			return broken(inOrder, "lane %s ran %v", k, list)
		}
	}
	return nil
}
