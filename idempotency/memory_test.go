package idempotency_test

import (
	"testing"
	"testing/synctest"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/storetest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.Config{
		New:    func(*testing.T) idempotency.Store { return new(idempotency.Memory) },
		Bubble: synctest.Test,
	})
}
