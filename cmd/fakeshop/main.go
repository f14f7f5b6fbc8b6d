// Command fakeshop is a Shopify to develop against: it serves a fake Admin API that is true to the real one in schema, cost, limits and errors, and plays a sale against
// anybody's app.
//
//	fakeshop -webhooks http://localhost:8080/webhooks -secret hush
//	fakeshop storm -to http://localhost:8080/webhooks -secret hush -orders 2000 -for 1m
//
// The Admin API is at http://localhost:4000/admin/api/2026-04/graphql.json by default, with any access token. docs/local-development.md says how to point an app at it; package
// shopifytest says what it can do.
//
// It exits with 0 if all went well, 1 if something failed or a webhook of the storm was not acknowledged, 2 if it was called wrongly.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "fakeshop:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "fakeshop:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

const usage = `usage: fakeshop [flags]             serve a fake Admin API until interrupted
       fakeshop storm -to URL [flags]  play a sale against an app, and serve the Admin API meanwhile

`

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 0 && args[0] == "storm" {
		return storm(ctx, args[1:], stdout)
	}
	return serve(ctx, args, stdout)
}

// shopFlags are those of both commands.
type shopFlags struct {
	addr, shop, token, plan, faults string
	latency                         time.Duration
	products                        int
	seed                            uint64
}

func (f *shopFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.addr, "addr", "localhost:4000", "`address` of the Admin API")
	flags.StringVar(&f.shop, "shop", "example.myshopify.com", "`shop` of requests that name none by their host or path")
	flags.StringVar(&f.token, "token", "", "the only access `token` that is accepted; any by default")
	flags.StringVar(&f.plan, "plan", "standard", "the shop's `plan`: standard, advanced or plus")
	flags.StringVar(&f.faults, "faults", "", "what goes wrong, as a `list` such as 503=0.01,cut=0.02: 429, 500, 502 (a page of HTML), 503, internal, cut, lost (the answer, after it took effect), bare (no extensions)")
	flags.DurationVar(&f.latency, "latency", 0, "how `long` a request takes, half of it at least and twice at most")
	flags.IntVar(&f.products, "products", 10, "how many products there are at the start, each with a tracked variant and 100 in stock")
	flags.Uint64Var(&f.seed, "seed", uint64(time.Now().UnixNano()), "seed of what is random")
}

// config is what the flags come to.
func (f *shopFlags) config() (shopifytest.Config, error) {
	cfg := shopifytest.Config{Shop: f.shop, Token: f.token}
	plans := map[string]shopifytest.Plan{"standard": shopifytest.Standard, "advanced": shopifytest.Advanced, "plus": shopifytest.Plus}
	plan, ok := plans[f.plan]
	if !ok {
		return cfg, fmt.Errorf("%w: -plan %q is none of standard, advanced and plus", errUsage, f.plan)
	}
	cfg.Plan = plan
	if f.latency < 0 || f.products < 0 {
		return cfg, fmt.Errorf("%w: -latency and -products must not be negative", errUsage)
	}
	if f.latency > 0 {
		cfg.Latency = func() time.Duration { return time.Duration(float64(f.latency) * (0.5 + 1.5*rand.Float64())) }
	}
	if f.faults != "" {
		shares, err := parseFaults(f.faults)
		if err != nil {
			return cfg, err
		}
		cfg.Fault = shopifytest.RandomFaults(f.seed, shares)
	}
	return cfg, nil
}

var faultNames = map[string]shopifytest.Fault{
	"429": shopifytest.TooManyRequests, "500": shopifytest.ServerError, "502": shopifytest.BadGateway, "503": shopifytest.Unavailable, "internal": shopifytest.InternalError,
	"cut": shopifytest.CutBefore, "lost": shopifytest.CutAfter, "bare": shopifytest.NoExtensions,
}

func parseFaults(list string) (map[shopifytest.Fault]float64, error) {
	shares, sum := map[shopifytest.Fault]float64{}, 0.0
	for part := range strings.SplitSeq(list, ",") {
		name, text, _ := strings.Cut(strings.TrimSpace(part), "=")
		fault, known := faultNames[name]
		share, err := strconv.ParseFloat(text, 64)
		if !known || err != nil || !(share >= 0 && share <= 1) {
			return nil, fmt.Errorf("%w: -faults: %q is not a fault and its share, such as 503=0.01", errUsage, part)
		}
		shares[fault] = share
		sum += share
	}
	if sum > 1 {
		return nil, fmt.Errorf("%w: -faults: the shares are more than 1 together", errUsage)
	}
	return shares, nil
}

// parse reads flags. An error is errUsage, or flag.ErrHelp if help was asked for and printed.
func parse(flags *flag.FlagSet, args []string, stdout io.Writer) error {
	flags.SetOutput(io.Discard) // errors are printed once, by main
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errUsage, err)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: %q is no flag", errUsage, flags.Arg(0))
	}
	return nil
}

// serve serves the Admin API until ctx ends.
func serve(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("fakeshop", flag.ContinueOnError)
	var f shopFlags
	f.register(flags)
	webhooks := flags.String("webhooks", "", "`URL` that webhooks are sent to; nowhere by default")
	secret := flags.String("secret", "", "`secret` that webhooks are signed with; $SHOPIFY_API_SECRET by default")
	if err := parse(flags, args, stdout); err != nil {
		return helped(err)
	}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	if *webhooks != "" {
		if cfg.WebhookURL, cfg.WebhookSecret, err = target("-webhooks", *webhooks, *secret); err != nil {
			return err
		}
	}
	fake, err := shopifytest.New(cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	defer fake.Close()
	if _, err := stock(fake.Shop(f.shop), f.products); err != nil {
		return err
	}
	return listen(ctx, f.addr, fake, func(addr string) error {
		fmt.Fprintf(stdout, "Admin API: http://%s/admin/api/2026-04/graphql.json (and REST), shop %s, any version, header X-Shopify-Access-Token\n", addr, f.shop)
		<-ctx.Done()
		s := fake.Shop(f.shop).Stats()
		fmt.Fprintf(stdout, "requests %d, throttled %d, points used %.0f, webhooks %d\n", s.Requests, s.Throttled, s.Points, s.Webhooks)
		return nil
	})
}

// helped is no error if help was asked for.
func helped(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

// listen serves the Admin API while work runs.
func listen(ctx context.Context, addr string, fake http.Handler, work func(addr string) error) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: fake, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	err = work(l.Addr().String())
	if cerr := srv.Close(); err == nil {
		err = cerr
	}
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) && err == nil {
		err = serr
	}
	return err
}
