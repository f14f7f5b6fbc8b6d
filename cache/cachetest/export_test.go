package cachetest

import (
	"context"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

// Failures runs the checks and names those that failed.
func Failures(ctx context.Context, fresh func() func() cache.Remote, short time.Duration) (failed []string) {
	for _, c := range checks {
		if err := c.run(ctx, newRig(fresh(), short)); err != nil {
			failed = append(failed, c.name+": "+err.Error())
		}
	}
	return failed
}
