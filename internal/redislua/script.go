// Package redislua runs Lua scripts in Redis: what every engine over Redis needs to survive restarts, failovers, slots on their way and lost
// answers.
package redislua

import (
	"context"
	"crypto/sha1" //nolint:gosec // that is how Redis names scripts
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// Script is a Lua script and the hash by which Redis knows it.
type Script struct{ Text, Hash string }

// New makes a Script.
func New(text string) Script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // as above
	return Script{text, hex.EncodeToString(sum[:])}
}

// Run runs a script by its hash, and with its text if the server does not know it.
func (s Script) Run(ctx context.Context, client redis.UniversalClient, keys []string, args ...any) (any, error) {
	v, err := client.EvalSha(ctx, s.Hash, keys, args...).Result()
	if Unknown(err) {
		v, err = client.Eval(ctx, s.Text, keys, args...).Result()
	}
	return v, err
}

// Unknown says whether the server does not know the hash: it was restarted, or its scripts flushed.
func Unknown(err error) bool { return redis.HasErrorPrefix(err, "NOSCRIPT") }

// Retryable says whether the server refused a script before it began, and may take it soon.
func Retryable(err error) bool {
	for _, prefix := range [...]string{"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "MOVED", "ASK", "NOREPLICAS", "BUSY"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// Lossy says whether a script that may be sent twice is to be sent again: it was refused before it began, or its answer was lost.
func Lossy(err error) bool {
	if Retryable(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	_, network := errors.AsType[net.Error](err)
	return network
}

// retryFor is how long a step is tried again: a slot on its way, a failover.
const retryFor = 5 * time.Second

// Retry does a step until it succeeds, again says no, ctx ends or 5 s have passed.
func Retry(ctx context.Context, client redis.UniversalClient, again func(error) bool, do func() error) error {
	begin := time.Now()
	for n := 0; ; n++ {
		err := do()
		if err == nil || !again(err) || ctx.Err() != nil || time.Since(begin) > retryFor {
			return err
		}
		if c, ok := client.(*redis.ClusterClient); ok {
			c.ReloadState(ctx) // what it asks for by node, it would find where it was
		}
		pause := time.NewTimer(rand.N(min(250*time.Millisecond, 20*time.Millisecond<<min(n, 4))))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// Within runs do until ctx ends at most: go-redis does not look at ctx while it reads. What is left of do ends with the client's own
// timeouts. The error then begins with what.
func Within[T any](ctx context.Context, what string, do func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}
