package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/breaker"
)

func Example() {
	carrier, err := breaker.New("carrier", breaker.Config{Timeout: 3 * time.Second, MinCalls: 3, OpenFor: 30 * time.Second})
	if err != nil {
		panic(err)
	}
	buy := func(context.Context) (string, error) { return "", errors.New("connection refused") }
	for range 5 {
		label, err := breaker.CallOr(context.Background(), carrier, buy, func(_ context.Context, cause error) (string, error) {
			return fmt.Sprint("queued, open: ", errors.Is(cause, breaker.ErrOpen)), nil
		})
		fmt.Println(label, err)
	}
	fmt.Println(carrier.State(), carrier.Stats().Calls, "calls made")
	// Output:
	// queued, open: false <nil>
	// queued, open: false <nil>
	// queued, open: false <nil>
	// queued, open: true <nil>
	// queued, open: true <nil>
	// open 3 calls made
}

// A handler of a queue: while the carrier is away, jobs are put off for as long as the error's RetryAfter says.
func ExampleGuard() {
	carrier, err := breaker.New("carrier", breaker.Config{MinCalls: 1, OpenFor: time.Minute})
	if err != nil {
		panic(err)
	}
	ship := breaker.Guard(carrier, func(context.Context, string) error { return errors.New("connection refused") })
	fmt.Println(ship(context.Background(), "order/1"))
	err = ship(context.Background(), "order/2")
	open, ok := errors.AsType[*breaker.OpenError](err)
	fmt.Println(ok, open.Cause, open.RetryAfter() >= 59*time.Second)
	// Output:
	// connection refused
	// true connection refused true
}

// What may be done twice is retried: what reads, and what carries a key that the dependency knows.
func ExampleBreaker_Idempotent() {
	erp, err := breaker.New("erp", breaker.Config{Retry: breaker.Retry{MaxAttempts: 3, Backoff: time.Millisecond}})
	if err != nil {
		panic(err)
	}
	n := 0
	stock, err := breaker.Call(context.Background(), erp.Idempotent(), func(context.Context) (int, error) {
		if n++; n < 3 {
			return 0, errors.New("connection reset")
		}
		return 12, nil
	})
	fmt.Println(stock, err, "after", n, "attempts")
	// Output:
	// 12 <nil> after 3 attempts
}

func ExampleBreaker_Transport() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	erp, err := breaker.New("erp", breaker.Config{MinCalls: 2})
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: erp.Transport(http.DefaultTransport)}
	for range 3 {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL, nil)
		if err != nil {
			panic(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			fmt.Println(errors.Is(err, breaker.ErrOpen))
			continue
		}
		resp.Body.Close()
		fmt.Println(resp.StatusCode)
	}
	// Output:
	// 503
	// 503
	// true
}

// One for each shop: a shop whose warehouse is down hurts no other.
func ExampleGroup() {
	warehouses, err := breaker.NewGroup("warehouse", 1000, breaker.Config{MinCalls: 1})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	_ = warehouses.Get("a.myshopify.com").Do(ctx, func(context.Context) error { return errors.New("down") })
	fmt.Println(warehouses.Get("a.myshopify.com").State(), warehouses.Get("b.myshopify.com").State())
	// Output:
	// open closed
}

// All that protects a carrier which takes 10 calls a second, 4 at a time.
func ExampleNew() {
	_, err := breaker.New("carrier", breaker.Config{
		Timeout:       2 * time.Second,
		FailureRate:   0.5, // of at least 10 calls in 10 s
		SlowCall:      time.Second,
		SlowRate:      0.8,
		OpenFor:       15 * time.Second, // doubled with each trip in a row, up to
		MaxOpenFor:    2 * time.Minute,
		Limiter:       rate.NewLimiter(10, 5),
		MaxConcurrent: 4,
		MaxWait:       500 * time.Millisecond,
		Hooks: breaker.Hooks{Changed: func(c breaker.Change) {
			fmt.Println(c.Name, "is", c.To)
		}},
	})
	fmt.Println(err)
	_, err = breaker.New("carrier", breaker.Config{FailureRate: 50})
	fmt.Println(err)
	// Output:
	// <nil>
	// breaker: Config.FailureRate is 50; want a share, over 0 and at most 1
}
