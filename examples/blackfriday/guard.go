package main

import (
	"context"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/enqueue"
)

// task is a job as the handlers of the Breakwater side see it.
type task struct {
	call

	job       string
	updated   time.Time // when the resource last changed
	triggered time.Time
}

// told is a task whose call has been made, and the key of that. The systems hear of it once the call is recorded as done: nobody may make it again.
type told struct {
	task

	key string
}

// guard is what the handlers of the Breakwater side share: each step of a job happens once, whoever takes the job over, and a state that is older than
// one that was begun never follows it.
type guard struct {
	keeper  *idempotency.Keeper
	systems *client
	step    func(next call, between bool) error       // asked before each step; nil if nobody is
	own     func(ctx context.Context, own call) error // the database, in the transaction that completes the job; nil if it is a system like the others
	steps   map[string]func(ctx context.Context, in task) error
	latest  func(ctx context.Context, in task) error
}

func newGuard(set settings, store idempotency.Store) (*guard, error) {
	keeper, err := idempotency.New(store, idempotency.Config{Lease: lease(set.Scale)})
	if err != nil {
		return nil, err
	}
	g := &guard{keeper: keeper, systems: newClient(set.URL), steps: map[string]func(context.Context, task) error{}}
	for system := range forecast {
		// It goes by the job and not by the delivery, so that it can't hide a delivery that was queued twice.
		once := idempotency.Once(keeper, system, func(in *told) idempotency.Key {
			return idempotency.Key{Scope: in.Shop, ID: in.job}
		}, func(ctx context.Context, in *told) error { return g.tell(ctx, system, in) })
		g.steps[system] = func(ctx context.Context, in task) error {
			t := &told{task: in}
			if err := once(ctx, t); err != nil || t.key == "" {
				return err
			}
			return g.systems.noted(context.WithoutCancel(ctx), t.key)
		}
	}
	g.latest = idempotency.Latest(keeper, "state", func(in task) idempotency.Key {
		return idempotency.Key{Scope: in.Shop, ID: in.Subject}
	}, func(in task) idempotency.Version {
		return idempotency.Updated(in.updated, in.triggered)
	}, g.work)
	return g, nil
}

// handle does what is to be done for a job.
func (g *guard) handle(worker int) func(ctx context.Context, job queue.Job) error {
	return func(ctx context.Context, job queue.Job) error {
		e, err := webhook.Decode[stock](enqueue.Delivery(job))
		if err != nil {
			return err
		}
		in := task{job: job.ID, updated: e.UpdatedAt, triggered: e.TriggeredAt, call: call{
			Event: e.WebhookID, Topic: e.Topic, Shop: e.Shop, Subject: e.Subject, Stock: e.Body.Available, Worker: worker, Crashes: job.Crashes,
		}}
		if replaces[in.Topic] {
			return g.latest(ctx, in)
		}
		return g.work(ctx, in)
	}
}

// stock is what the handlers need of an inventory level's body; others have none.
type stock struct {
	Available int `json:"available"`
}

// work takes the steps of a job. Where the database is in the same place as the queue, its turn is last, in the transaction that completes the job.
func (g *guard) work(ctx context.Context, in task) error {
	for _, system := range steps[in.Topic] {
		if g.own != nil && system == "database" {
			continue
		}
		if err := g.steps[system](ctx, in); err != nil {
			return err // the queue tries again, and nothing of this subject runs meanwhile
		}
	}
	if g.own == nil {
		return nil
	}
	return g.own(ctx, in.call)
}

// tell tells a system of an event. If this process dies between the call and the record of it, nobody knows whether it happened, and it is made again. The key
// tells the system that it is the same one.
func (g *guard) tell(ctx context.Context, system string, in *told) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if g.step != nil {
		if err := g.step(in.call, system != steps[in.Topic][0]); err != nil {
			return err
		}
	}
	key, err := idempotency.ChildKey(ctx, "call")
	if err != nil {
		return err
	}
	if err := g.systems.do(context.WithoutCancel(ctx), system, in.call, key); err != nil {
		return err
	}
	in.key = key
	return nil
}
