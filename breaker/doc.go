// Package breaker leaves a dependency alone that fails, and comes back to it gently.
//
// The problem: a carrier's API is slow or down. Every worker waits for it, retries hammer it while it tries to come up, jobs burn their attempts on
// it, and what has nothing to do with it stops too.
//
// A [Breaker] is everything that protects one dependency, in one fixed order:
//
//	fallback(retry(breaker(rate limit(concurrency limit(timeout(call))))))
//
// Make one for each dependency, once, and share it. [Breaker.Do] and [Call] make a call through it, [CallOr] with a fallback, [Guard] wraps a
// handler, [Breaker.Transport] an http.RoundTripper; [Group] keeps one for each host or other key.
//
//	carrier, err := breaker.New("carrier", breaker.Config{Timeout: 3 * time.Second, FailureRate: 0.5, OpenFor: 30 * time.Second})
//	label, err := breaker.Call(ctx, carrier, func(ctx context.Context) (Label, error) { return api.Buy(ctx, parcel) })
//
// What holds: while the breaker is open no call reaches the dependency; when its time is over, at most Config.Trials at once do, until it is
// known to work. An error of a breaker that rejects has a RetryAfter method, by which a queue puts the job off without counting an attempt. What
// does not: a call that was on its way when the breaker opened is not called back; each process has a breaker of its own, and finds out for itself.
package breaker
