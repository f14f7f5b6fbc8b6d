package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bsm/redislock"
	"github.com/gofiber/fiber/v3"
	fiberidempotency "github.com/gofiber/fiber/v3/middleware/idempotency"
	fiberredis "github.com/gofiber/storage/redis/v3"
	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"

	"github.com/breakwater-go/breakwater/idempotency"
)

const (
	onceOp      = "ship"
	onceShops   = 1000
	onceLease   = 30 * time.Second // those of Keeper's defaults
	onceForget  = 48 * time.Hour
	firstOrder  = 820_982_911_946_100_000
	notObtained = 10 * time.Millisecond // until a lock is tried again
)

// thing is what is to be done once, with the names that contenders have for it.
type thing struct {
	key     idempotency.Key
	plain   string // as long as the key under which redisstore keeps it
	uuid    string // gofiber takes no other
	effects atomic.Int64
}

// newThings makes things that nobody has done.
func newThings(n int) []thing {
	things := make([]thing, n)
	for i := range things {
		t := &things[i]
		t.key = idempotency.Key{Scope: fmt.Sprintf("shop-%04d.myshopify.com", i%onceShops), ID: "order/" + strconv.Itoa(firstOrder+i)}
		t.plain = "breakwater:bare:" + t.key.Scope + ":" + onceOp + ":" + t.key.ID
		t.uuid = fmt.Sprintf("b4e9f1c2-7d05-4a36-9c1e-%012d", i)
	}
	return things
}

// guard does things once, in its own way.
type guard interface {
	// caller makes what one goroutine calls: it does a thing, which raises its effects, or says that it was done already.
	caller() func(ctx context.Context, t *thing) (replayed bool, err error)
	// done fails unless what is kept of the thing says that it is done.
	done(ctx context.Context, t *thing) error
}

// result is how a number of calls went.
type result struct {
	took    time.Duration
	replays int64
	err     error
}

func (r result) problem(replays int64) error {
	if r.err == nil && r.replays != replays {
		return fmt.Errorf("%d calls were replays; want %d", r.replays, replays)
	}
	return r.err
}

// doAll does each thing so many times, by so many goroutines.
func doAll(ctx context.Context, g guard, callers, times int, things []thing) result {
	var replays atomic.Int64
	errs := make([]error, callers)
	calls := make([]func(context.Context, *thing) (bool, error), callers)
	for i := range calls {
		calls[i] = g.caller()
	}
	var all sync.WaitGroup
	start := time.Now()
	for i, call := range calls {
		all.Go(func() {
			n := int64(0)
			defer func() { replays.Add(n) }()
			for range times {
				for at := i; at < len(things); at += callers {
					replayed, err := call(ctx, &things[at])
					if err != nil {
						errs[i] = err
						return
					}
					if replayed {
						n++
					}
				}
			}
		})
	}
	all.Wait()
	return result{time.Since(start), replays.Load(), errors.Join(errs...)}
}

// check fails unless each thing has had so many effects, and is kept as done.
func check(ctx context.Context, g guard, things []thing, effects int64) error {
	var wrong, undone atomic.Int64
	var first [onceCallers]error
	var all sync.WaitGroup
	for i := range onceCallers {
		all.Go(func() {
			for at := i; at < len(things); at += onceCallers {
				if things[at].effects.Load() != effects {
					wrong.Add(1)
				}
				if err := g.done(ctx, &things[at]); err != nil {
					undone.Add(1)
					if first[i] == nil {
						first[i] = err
					}
				}
			}
		})
	}
	all.Wait()
	var problem error
	if n := wrong.Load(); n > 0 {
		problem = fmt.Errorf("%d of %d keys had other than %d effects", n, len(things), effects)
	}
	if n := undone.Load(); n > 0 {
		var one error
		for _, err := range first {
			if err != nil {
				one = err
			}
		}
		problem = errors.Join(problem, fmt.Errorf("%d of %d keys are not kept as done, one of them: %w", n, len(things), one))
	}
	return problem
}

// kept is a Keeper at its defaults.
type kept struct {
	*idempotency.Keeper

	payload []byte // nil compares nothing
}

func newKept(s idempotency.Store, payload []byte) (kept, error) {
	k, err := idempotency.New(s, idempotency.Config{})
	return kept{k, payload}, err
}

func (k kept) caller() func(context.Context, *thing) (bool, error) {
	var now *thing
	work := func(context.Context) ([]byte, error) { //nolint:unparam // its type is Do's
		now.effects.Add(1)
		return nil, nil
	}
	return func(ctx context.Context, t *thing) (bool, error) {
		now = t
		key := t.key
		key.Payload = k.payload
		res, err := k.Do(ctx, onceOp, key, work)
		return res.Replayed, err
	}
}

func (k kept) done(ctx context.Context, t *thing) error {
	rec, err := k.Inspect(ctx, onceOp, t.key)
	if err == nil && rec.State != idempotency.Done {
		err = fmt.Errorf("%s is %v", t.key.ID, rec.State)
	}
	return err
}

// twoTrips is the limit: two commands one after the other, which do not look who completes.
type twoTrips struct{ client *redis.Client }

// What it stores is as long as redisstore's records are.
const (
	tripClaimed = "claimed for a lease"
	tripDone    = "it was done."
)

func (l twoTrips) caller() func(context.Context, *thing) (bool, error) {
	return func(ctx context.Context, t *thing) (bool, error) {
		err := l.client.SetArgs(ctx, t.plain, tripClaimed, redis.SetArgs{Mode: "NX", TTL: onceLease}).Err()
		if errors.Is(err, redis.Nil) {
			return true, l.done(ctx, t)
		}
		if err != nil {
			return false, err
		}
		t.effects.Add(1)
		return false, l.client.Set(ctx, t.plain, tripDone, onceForget).Err()
	}
}

func (l twoTrips) done(ctx context.Context, t *thing) error {
	v, err := l.client.Get(ctx, t.plain).Result()
	if err == nil && v != tripDone {
		err = fmt.Errorf("%s is %q", t.plain, v)
	}
	return err
}

// oneTrip looks first, and so replays in one command.
type oneTrip struct{ twoTrips }

func (l oneTrip) caller() func(context.Context, *thing) (bool, error) {
	do := l.twoTrips.caller()
	return func(ctx context.Context, t *thing) (bool, error) {
		if err := l.done(ctx, t); !errors.Is(err, redis.Nil) {
			return true, err
		}
		return do(ctx, t)
	}
}

// locked is a lock for as long as the work takes. It is gofiber's Locker too.
type locked struct {
	*redislock.Client

	client *redis.Client
	held   sync.Map // of Lock, by name
}

func newLocked(client *redis.Client) *locked {
	return &locked{Client: redislock.New(client), client: client}
}

func (l *locked) caller() func(context.Context, *thing) (bool, error) {
	return func(ctx context.Context, t *thing) (bool, error) {
		lock, err := l.Obtain(ctx, t.plain, onceLease, nil)
		if err != nil {
			return false, err
		}
		t.effects.Add(1)
		return false, lock.Release(ctx)
	}
}

// done is all that there is to see of it: the lock is free.
func (l *locked) done(ctx context.Context, t *thing) error {
	n, err := l.client.Exists(ctx, t.plain).Result()
	if err == nil && n > 0 {
		err = fmt.Errorf("%s is still locked", t.plain)
	}
	return err
}

func (l *locked) Lock(key string) error {
	lock, err := l.Obtain(context.Background(), "lock:"+key, onceLease, &redislock.Options{RetryStrategy: redislock.LinearBackoff(notObtained)})
	if err == nil {
		l.held.Store(key, lock)
	}
	return err
}

func (l *locked) Unlock(key string) error {
	v, _ := l.held.LoadAndDelete(key)
	lock, _ := v.(*redislock.Lock)
	return lock.Release(context.Background()) // fails where there is none
}

// viaFiber is gofiber's middleware over gofiber's storage, called as its server would, without a network.
type viaFiber struct {
	storage *fiberredis.Storage
	handler fasthttp.RequestHandler
}

const fiberThing = "thing" // by which the handler knows what to do

// newFiber makes one with a lock, or with the middleware's default, which is one within the process.
func newFiber(client *redis.Client, lock fiberidempotency.Locker) viaFiber {
	storage := fiberredis.NewFromConnection(client)
	app := fiber.New()
	app.Use(fiberidempotency.New(fiberidempotency.Config{Storage: storage, Lock: lock, Lifetime: onceForget}))
	app.Post("/"+onceOp, func(c fiber.Ctx) error {
		if t, ok := c.RequestCtx().UserValue(fiberThing).(*thing); ok {
			t.effects.Add(1)
		}
		return nil
	})
	return viaFiber{storage, app.Handler()}
}

func (f viaFiber) caller() func(context.Context, *thing) (bool, error) {
	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, nil, nil)
	return func(_ context.Context, t *thing) (bool, error) {
		ctx.Request.Reset()
		ctx.Response.Reset()
		ctx.Request.Header.SetMethod(http.MethodPost)
		ctx.Request.SetRequestURI("/" + onceOp)
		ctx.Request.Header.Set(fiberidempotency.ConfigDefault.KeyHeader, t.uuid)
		ctx.SetUserValue(fiberThing, t)
		before := t.effects.Load()
		f.handler(&ctx)
		if code := ctx.Response.StatusCode(); code != http.StatusOK {
			return false, fmt.Errorf("answered %d: %.200s", code, ctx.Response.Body())
		}
		return t.effects.Load() == before, nil
	}
}

func (f viaFiber) done(ctx context.Context, t *thing) error {
	v, err := f.storage.GetWithContext(ctx, t.uuid)
	if err == nil && v == nil {
		err = errors.New(t.uuid + " is not there")
	}
	return err
}
