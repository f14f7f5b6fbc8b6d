package storetest

import (
	"context"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
)

// Failures runs the checks and names those that failed.
func Failures(ctx context.Context, fresh func() idempotency.Store, short time.Duration) (failed []string) {
	for _, c := range checks {
		if err := c.run(ctx, newRig(fresh(), short)); err != nil {
			failed = append(failed, c.name+": "+err.Error())
		}
	}
	return failed
}
