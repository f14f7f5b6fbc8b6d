package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/breaker"
)

// simulated goes through outages in no time, at a tenth of the rate: the race detector bounds the goroutines. With BENCH_OUTAGE it is the whole rate
// and more of them, and the plots and results are written to that directory.
func simulated(t *testing.T) *outageBench {
	t.Helper()
	var out bytes.Buffer
	b := &outageBench{out: &out, rate: outageRate / 10, contenders: outageContenders()}
	step := 30 * time.Second
	if b.svg = os.Getenv("BENCH_OUTAGE"); b.svg != "" {
		b.rate, step = outageRate, 5*time.Second
	}
	// So many that open periods end at various times after them.
	for down := 45 * time.Second; down <= 75*time.Second; down += step {
		b.lengths = append(b.lengths, down)
	}
	require.NoError(t, b.run(t.Context()), &out)
	t.Log("\n" + out.String())
	return b
}

func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := simulated(t)
		if b.svg != "" {
			var lines bytes.Buffer
			require.NoError(t, printJSON(&lines, b.results))
			require.NoError(t, os.WriteFile(filepath.Join(b.svg, "outage.jsonl"), lines.Bytes(), 0o600))
		}
		of := func(kind, contender string) outageResult {
			for _, r := range b.results {
				if r.Outage == kind && r.Contender == contender {
					return r
				}
			}
			require.Fail(t, "no result", "%s, %s", kind, contender)
			return outageResult{}
		}
		for _, kind := range outageKinds() {
			retries, gobreaker := of(kind.name, "naive retries"), of(kind.name, "gobreaker, naive retries")
			assert.Greater(t, retries.WhileDown, 180*b.rate, kind.name) // of 60 s
			assert.Equal(t, kind.name != "collapsing", retries.Recovered, kind.name)
			assert.Greater(t, retries.Peak, 1.5, kind.name)
			assert.Greater(t, gobreaker.Peak, 1.3, kind.name)
			assert.Greater(t, gobreaker.WaitMedian, 600.0, kind.name)

			// Half of a window is full of failures that come up to a timeout late.
			most := 5.5 * float64(b.rate)
			if kind.hangs {
				most += 3 * float64(b.rate)
			}
			for contender, open := range map[string]time.Duration{ // the longest time open that it can have come to
				"breakwater":             60 * time.Second,
				"breakwater, Idempotent": 60 * time.Second,
				"breakwater, tuned":      10 * time.Second,
			} {
				r := of(kind.name, contender)
				name := kind.name + ", " + contender
				assert.Less(t, float64(r.WhileDown), most, name)
				assert.Less(t, r.WhileDown, gobreaker.WhileDown, name)
				assert.Less(t, r.WhileDown, retries.WhileDown/20, name)
				assert.LessOrEqual(t, float64(r.WhileDownMax), 1.25*float64(b.rate), name) // a tenth and a burst of 10 are retries
				assert.True(t, r.Recovered, name)
				late := 1.1*open.Seconds() + 1
				if kind.hangs { // a trial that came just before the end has to time out first
					late += 3
				}
				assert.LessOrEqual(t, r.Worst, late, name)
				assert.LessOrEqual(t, r.Peak, 1.05, name)
				assert.Less(t, r.WaitMedian, 1.0, name)
			}
		}
	})
}

// What a contender makes up is noticed.
func TestCheatingContenderIsInvalid(t *testing.T) {
	t.Parallel()
	type call = func(context.Context, attempt) (int, error)
	for what, w := range map[string]struct {
		call call
		want string
	}{
		"invents a result": {func(ctx context.Context, try attempt) (int, error) {
			v, _ := timed(ctx, try)
			return v, nil
		}, "got the value of call 0"},
		"fails without an outage": {func(context.Context, attempt) (int, error) { return 0, breaker.ErrOpen }, "failed before the outage"},
		"waits for the end": {func(ctx context.Context, try attempt) (int, error) {
			for {
				if v, err := timed(ctx, try); err == nil {
					return v, nil
				}
			}
		}, "there was no outage"},
		"does nothing wrong": {timed, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				b := &outageBench{out: &out, rate: 50, lengths: []time.Duration{5 * time.Second}}
				b.contenders = []outageContender{{what, func() (func(context.Context, attempt) (int, error), error) { return w.call, nil }}}
				err := b.run(t.Context())
				if w.want == "" {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, errInvalid)
				require.Contains(t, out.String(), "invalid: ")
				require.Contains(t, out.String(), w.want)
			})
		})
	}
}

func TestOutagePlots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &outageBench{out: new(bytes.Buffer), json: true, svg: dir, rate: 10, lengths: []time.Duration{time.Minute}, contenders: outageContenders()[:3]}
		require.NoError(t, b.run(t.Context()))
	})
	for _, kind := range outageKinds() {
		svg, err := os.ReadFile(filepath.Join(dir, "outage-"+kind.name+".svg"))
		require.NoError(t, err)
		for _, text := range []string{kind.name + ": 10 calls/s", "naive retries: ", "gobreaker, naive retries: ", "calls/s", "time in s", "calls that reach the dependency", "sans-serif"} {
			assert.Contains(t, string(svg), text)
		}
		assert.Equal(t, 1, strings.Count(string(svg), "</svg>"))
	}
}
