package brokertest_test

import (
	"testing"
	"testing/synctest"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/brokertest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, brokertest.Config{
		New:    func(testing.TB) brokertest.Engine { return new(queue.Memory) },
		Bubble: synctest.Test,
	})
}

func TestMemoryWithPartitions(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, brokertest.Config{
		New:    func(testing.TB) brokertest.Engine { return &queue.Memory{Partitions: 5} },
		Bubble: synctest.Test,
	})
}
