package main

import (
	"context"
	"time"

	"github.com/breakwater-go/breakwater/breaker"
	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/shopify"
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

// told is a task whose call is to be made, by its key, and whether it has been. The systems hear of that once the call is recorded as done: nobody may make it again.
type told struct {
	task

	key  string
	made bool
}

// guard is what the handlers of the Breakwater side share: each step of a job happens once, whoever takes the job over, a state that is older than
// one that was begun never follows it, and a system that fails is left alone.
type guard struct {
	keeper  *idempotency.Keeper
	systems *client
	shops   *shopify.Client
	step    func(next call, between bool) error       // asked before each step; nil if nobody is
	own     func(ctx context.Context, own call) error // the database, in the transaction that completes the job; nil if it is a system like the others
	steps   map[string]func(ctx context.Context, in task) error
	latest  func(ctx context.Context, in task) error
}

func newGuard(set settings, store idempotency.Store, buckets shopify.Buckets) (*guard, error) {
	keeper, err := idempotency.New(store, idempotency.Config{Lease: lease(set.Scale)})
	if err != nil {
		return nil, err
	}
	shops, err := newShops(set, buckets)
	if err != nil {
		return nil, err
	}
	g := &guard{keeper: keeper, systems: newClient(set.URL), shops: shops, steps: map[string]func(context.Context, task) error{}}
	for system := range forecast {
		b, err := breaker.New(system, breakerConfig(set.options))
		if err != nil {
			return nil, err
		}
		call := breaker.Guard(b, func(ctx context.Context, in *told) error {
			return g.systems.do(context.WithoutCancel(ctx), system, in.call, in.key)
		})
		// It goes by the job and not by the delivery, so that it can't hide a delivery that was queued twice.
		once := idempotency.Once(keeper, system, func(in *told) idempotency.Key {
			return idempotency.Key{Scope: in.Shop, ID: in.job}
		}, func(ctx context.Context, in *told) error { return g.tell(ctx, system, in, call) })
		g.steps[system] = func(ctx context.Context, in task) error {
			t := &told{task: in}
			if err := once(ctx, t); err != nil || !t.made {
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
	if in.Topic == "orders/create" {
		if err := g.read(ctx, in); err != nil {
			return err
		}
	}
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
func (g *guard) tell(ctx context.Context, system string, in *told, call func(context.Context, *told) error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if g.step != nil {
		if err := g.step(in.call, system != steps[in.Topic][0]); err != nil {
			return err
		}
	}
	var err error
	if in.key, err = idempotency.ChildKey(ctx, "call"); err != nil {
		return err
	}
	err = call(ctx, in)
	in.made = err == nil
	return err
}

// breakerConfig is that of the breaker of each system, in each worker. While one is open the queue puts the jobs off that meet it. A call that was begun is
// waited for, see lease, so that there is no timeout. The open time does not grow: with the longest, and what a job waits beyond it, it stays under a retry's wait,
// which is how long the storm waits for what may still come.
func breakerConfig(o options) breaker.Config {
	openFor := retryWait(o) * 3 / 4
	return breaker.Config{Timeout: breaker.NoTimeout, Window: retryWait(o), OpenFor: openFor, MaxOpenFor: openFor}
}
