package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/redislimit"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

const (
	quotaShop      = "example.myshopify.com"
	quotaProcesses = 8
	quotaWorkers   = 16 // of each process; a quarter of them are interactive, and think
	quotaThink     = 10 * time.Second
	quotaProducts  = 60
)

// quotaQueries are what is asked for. Their requested costs are 92, 2, 47 and 30 points; the actual ones of the first and third are what there is to find.
var quotaQueries = []string{
	`{ products(first: 100) { nodes { id variants(first: 50) { nodes { id price } } } } }`,
	`{ shop { id name primaryDomain { id } } }`,
	`{ products(first: 50) { nodes { id title } } orders(first: 20) { nodes { id lineItems(first: 10) { nodes { id } } } } }`,
	`{ productsCount { count } customersCount { count } ordersCount { count } }`,
}

// quotaBench is a comparison of ways to live with a quota.
type quotaBench struct {
	out    io.Writer
	json   bool
	svg    string
	length time.Duration // by the fake's clock
	speed  float64       // of the fake's clock
	redis  string        // address; "" leaves out the contender that needs one

	results []*quotaRun
}

// quotaRun is what one way came to.
type quotaRun struct {
	Way         string  `json:"way"`
	Calls       int     `json:"calls"`     // that were answered
	Throttled   int     `json:"throttled"` // answers that said so
	Used        float64 `json:"used"`      // share of the points that were restored, after the first sixth
	Background  float64 `json:"background_p99_s"`
	Interactive float64 `json:"interactive_p99_s"` // waits, by the fake's clock, after the first sixth

	throttled, points []float64 // by second of the fake's clock
}

func benchQuota(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("quota", flag.ContinueOnError)
	b := &quotaBench{out: out}
	flags.BoolVar(&b.json, "json", false, "print one JSON object per way and line")
	flags.StringVar(&b.svg, "svg", "", "`directory` for the plot, quota.svg; by default none is drawn")
	flags.DurationVar(&b.length, "for", time.Minute, "`length` of a run by the fake's clock")
	flags.Float64Var(&b.speed, "speed", 4, "how many times `faster` that clock runs")
	addr := flags.String("redis", "", "`address` of a Redis; by default a private one is started")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.length < 10*time.Second || !(b.speed > 0) {
		return errors.New("bench: -for must be at least 10s and -speed positive")
	}
	return withRedis("", *addr, func(addr string) error {
		b.redis = addr
		return b.run(ctx)
	})
}

// quotaCall makes one call of a process: it waits as its way says, sends, and says what came of it.
type quotaCall func(ctx context.Context, query string, cost float64, interactive bool, send func() (*quotaAnswer, error)) (*quotaAnswer, error)

// quotaAnswer is what a way sees of an answer.
type quotaAnswer struct {
	throttled bool
	quota     shopify.Answer
}

// quotaWay is one way to live with a quota. process makes what each process has.
type quotaWay struct {
	name    string
	process func(i int) (quotaCall, error)
}

func (b *quotaBench) run(ctx context.Context) error {
	ways := []quotaWay{
		{"retry at once", func(int) (quotaCall, error) { return b.naive(false), nil }},
		{"sleep, then retry", func(int) (quotaCall, error) { return b.naive(true), nil }},
		{"fixed rate", func(int) (quotaCall, error) { return b.fixed(), nil }},
	}
	local := shopify.NewLocal()
	ways = append(ways, quotaWay{"Breakwater, one process", func(int) (quotaCall, error) { return b.limited(local) }})
	if b.redis != "" {
		ways = append(ways, quotaWay{"Breakwater, over Redis", func(int) (quotaCall, error) {
			return b.limited(redislimit.New(redis.NewClient(&redis.Options{Addr: b.redis}), redislimit.Config{}))
		}})
	}
	for _, w := range ways {
		r, err := b.play(ctx, w)
		if err != nil {
			return fmt.Errorf("bench: quota: %s: %w", w.name, err)
		}
		b.results = append(b.results, r)
	}
	if b.svg != "" {
		if err := plotQuota(filepath.Join(b.svg, "quota.svg"), b.results); err != nil {
			return fmt.Errorf("bench: quota: %w", err)
		}
	}
	return b.print()
}

func (b *quotaBench) print() error {
	if b.json {
		for _, r := range b.results {
			if err := json.NewEncoder(b.out).Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "way\tcalls\tthrottled answers\tused of what was restored\tp99 of waits, background\tinteractive\t")
	for _, r := range b.results {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f %%\t%.1f s\t%.2f s\t\n", r.Way, r.Calls, r.Throttled, 100*r.Used, r.Background, r.Interactive)
	}
	return w.Flush()
}

func (b *quotaBench) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) / b.speed)
}

// quotaState is what a run counts.
type quotaState struct {
	begun time.Time

	mu    sync.Mutex
	run   quotaRun
	waits [2][]float64 // background, interactive; in seconds of the fake's clock
}

// play has all processes call for as long as it takes.
func (b *quotaBench) play(ctx context.Context, w quotaWay) (*quotaRun, error) {
	plan := shopifytest.Standard
	plan.PointsPerSecond *= b.speed
	fake, err := shopifytest.New(shopifytest.Config{Plan: plan, Latency: func() time.Duration { return b.scaled(50*time.Millisecond + rand.N(100*time.Millisecond)) }})
	if err != nil {
		return nil, err
	}
	for i := range quotaProducts {
		if _, err := fake.Shop(quotaShop).Exec(`mutation($t: String!) { productCreate(product: {title: $t}) { userErrors { message } } }`, map[string]any{"t": fmt.Sprint("Product ", i)}); err != nil {
			return nil, err
		}
	}
	costs, err := shopify.NewCosts("2026-04")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.scaled(b.length))
	defer cancel()
	s := &quotaState{begun: time.Now(), run: quotaRun{Way: w.name}}
	var all sync.WaitGroup
	for i := range quotaProcesses {
		call, err := w.process(i)
		if err != nil {
			return nil, err
		}
		for j := range quotaWorkers {
			all.Go(func() { b.worker(ctx, s, fake, costs, call, j < quotaWorkers/4) })
		}
	}
	b.sample(ctx, s, fake.Shop(quotaShop))
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	for k, p99 := range []*float64{&s.run.Background, &s.run.Interactive} {
		if slices.Sort(s.waits[k]); len(s.waits[k]) > 0 {
			*p99 = s.waits[k][len(s.waits[k])*99/100]
		}
	}
	return &s.run, nil
}

// sample notes what has happened in each second of the fake's clock.
func (b *quotaBench) sample(ctx context.Context, s *quotaState, shop *shopifytest.Shop) {
	ticks := time.NewTicker(b.scaled(time.Second))
	defer ticks.Stop()
	before := shop.Stats()
	seconds, warm := int(b.length/time.Second), int(b.length/time.Second)/6
	used := 0.0
	for i := range seconds {
		select {
		case <-ticks.C:
		case <-ctx.Done():
		}
		now := shop.Stats()
		s.run.throttled = append(s.run.throttled, float64(now.Throttled-before.Throttled))
		s.run.points = append(s.run.points, now.Points-before.Points)
		if i >= warm {
			used += now.Points - before.Points
		}
		before = now
	}
	s.run.Throttled = before.Throttled
	s.run.Used = used / (float64(seconds-warm) * shopifytest.Standard.PointsPerSecond)
}

func (b *quotaBench) worker(ctx context.Context, s *quotaState, fake http.RoundTripper, costs *shopify.Costs, call quotaCall, interactive bool) {
	for ctx.Err() == nil {
		if interactive && rest(ctx, b.scaled(time.Duration(rand.ExpFloat64()*float64(quotaThink)))) != nil {
			return
		}
		query := quotaQueries[rand.IntN(len(quotaQueries))]
		cost, err := costs.Of(shopify.Request{Query: query})
		if err != nil {
			panic(err) // they are ours
		}
		begun, last := time.Now(), time.Time{}
		a, err := call(ctx, query, float64(cost), interactive, func() (*quotaAnswer, error) {
			last = time.Now()
			return quotaSend(ctx, fake, query)
		})
		if err != nil || a.throttled {
			continue // the end
		}
		s.mu.Lock()
		s.run.Calls++
		k := 0
		if interactive {
			k = 1
		}
		if begun.Sub(s.begun) >= b.scaled(b.length/6) {
			s.waits[k] = append(s.waits[k], last.Sub(begun).Seconds()*b.speed)
		}
		s.mu.Unlock()
	}
}

// quotaSend sends a query to the fake.
func quotaSend(ctx context.Context, fake http.RoundTripper, query string) (*quotaAnswer, error) {
	body, err := json.Marshal(map[string]string{"query": query})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+quotaShop+"/admin/api/2026-04/graphql.json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Shopify-Access-Token", "token")
	resp, err := fake.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var in struct {
		Extensions struct {
			Cost struct {
				ActualQueryCost *float64
				ThrottleStatus  struct{ MaximumAvailable, CurrentlyAvailable, RestoreRate float64 }
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&in); err != nil {
		return nil, err
	}
	t := in.Extensions.Cost.ThrottleStatus
	a := &quotaAnswer{throttled: in.Extensions.Cost.ActualQueryCost == nil, quota: shopify.Answer{Left: t.CurrentlyAvailable, Size: t.MaximumAvailable, Rate: t.RestoreRate}}
	if !a.throttled {
		a.quota.Actual = *in.Extensions.Cost.ActualQueryCost
	}
	return a, nil
}

// naive sends, and when it was throttled sends again: at once, or after as long as the answer says that the bucket takes to hold as much, as go-shopify does.
func (b *quotaBench) naive(sleeps bool) quotaCall {
	return func(ctx context.Context, _ string, cost float64, _ bool, send func() (*quotaAnswer, error)) (*quotaAnswer, error) {
		for {
			a, err := send()
			if err != nil || !a.throttled {
				return a, err
			}
			if sleeps {
				if err := rest(ctx, time.Duration((cost-a.quota.Left)/a.quota.Rate*float64(time.Second))); err != nil {
					return nil, err
				}
			}
		}
	}
}

// fixed lets each process make its part of as many calls as the bucket restores points for, if each takes what it asks for: the largest rate that is never throttled.
func (b *quotaBench) fixed() quotaCall {
	const averageCost = (92.0 + 2 + 47 + 30) / 4
	perSecond := shopifytest.Standard.PointsPerSecond * b.speed / averageCost / quotaProcesses
	limiter := rate.NewLimiter(rate.Limit(perSecond), 1)
	again := b.naive(true)
	return func(ctx context.Context, query string, cost float64, interactive bool, send func() (*quotaAnswer, error)) (*quotaAnswer, error) {
		if err := limiter.Wait(ctx); err != nil {
			<-ctx.Done() // there is no turn before the end
			return nil, err
		}
		return again(ctx, query, cost, interactive, send)
	}
}

// limited is a shopify.Limiter.
func (b *quotaBench) limited(buckets shopify.Buckets) (quotaCall, error) {
	l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: buckets, MaxWait: -1})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, _ string, cost float64, interactive bool, send func() (*quotaAnswer, error)) (*quotaAnswer, error) {
		cctx := ctx
		if interactive {
			cctx = shopify.WithInteractive(ctx)
		}
		for {
			r, err := l.Reserve(cctx, quotaShop, cost)
			if err != nil {
				<-ctx.Done() // there is no turn before the end
				return nil, err
			}
			a, err := send()
			if err != nil {
				return nil, errors.Join(err, r.Lost(ctx))
			}
			if err := r.Settle(ctx, a.quota); err != nil || !a.throttled {
				return a, err
			}
		}
	}, nil
}
