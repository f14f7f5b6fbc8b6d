package redisstore_test

import (
	"testing"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
	"github.com/breakwater-go/breakwater/idempotency/storetest"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	for name, cfg := range map[string]redisstore.Config{"memo": {}, "no memo": {NoMemo: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, storetest.Config{New: func(*testing.T) idempotency.Store { return redisstore.New(client, cfg) }})
		})
	}
}
