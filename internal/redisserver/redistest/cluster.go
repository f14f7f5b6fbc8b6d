package redistest

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver"
)

const slots = 16384

// Cluster is a Redis Cluster of three nodes.
type Cluster struct {
	Servers []*redisserver.Server
	Nodes   []*redis.Client
	ids     []string
}

// StartCluster starts one that lives as long as the test, with its slots in equal shares, and a client of it.
func StartCluster(t testing.TB) (*Cluster, *redis.ClusterClient) {
	t.Helper()
	ctx := t.Context()
	c := &Cluster{}
	var addrs []string
	for i := range 3 {
		s := Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--appendonly", "yes")
		node := Dial(t, s.Addr)
		c.Servers = append(c.Servers, s)
		c.Nodes, addrs = append(c.Nodes, node), append(addrs, s.Addr)
		id, err := node.Do(ctx, "cluster", "myid").Text()
		require.NoError(t, err)
		c.ids = append(c.ids, id)
		require.NoError(t, node.ClusterAddSlotsRange(ctx, i*slots/3, (i+1)*slots/3-1).Err())
		if i > 0 {
			host, port, err := net.SplitHostPort(addrs[0])
			require.NoError(t, err)
			require.NoError(t, node.ClusterMeet(ctx, host, port).Err())
		}
	}
	for _, node := range c.Nodes {
		require.Eventually(t, func() bool {
			info := node.ClusterInfo(ctx).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		}, time.Minute, 10*time.Millisecond)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return c, client
}

// Owner is which node has a slot, as the first one sees it.
func (c *Cluster) Owner(t testing.TB, slot int) int {
	t.Helper()
	ranges, err := c.Nodes[0].ClusterSlots(t.Context()).Result() //nolint:staticcheck // CLUSTER SHARDS needs Redis 7
	require.NoError(t, err)
	for _, r := range ranges {
		if slot >= r.Start && slot <= r.End {
			for i, id := range c.ids {
				if r.Nodes[0].ID == id {
					return i
				}
			}
		}
	}
	require.Fail(t, "nobody has the slot", slot)
	return 0
}

// Begin has a slot be on its way to another node, with all its keys where they were, until back is called.
func (c *Cluster) Begin(t testing.TB, slot, to int) (back func()) {
	t.Helper()
	ctx, from := t.Context(), c.Owner(t, slot)
	require.NoError(t, c.Nodes[to].Do(ctx, "cluster", "setslot", slot, "importing", c.ids[from]).Err())
	require.NoError(t, c.Nodes[from].Do(ctx, "cluster", "setslot", slot, "migrating", c.ids[to]).Err())
	return func() {
		for _, node := range []int{from, to} {
			require.NoError(t, c.Nodes[node].Do(ctx, "cluster", "setslot", slot, "stable").Err())
		}
	}
}

// Move moves a slot to another node, as redis-cli --cluster reshard does, a few keys at a time.
func (c *Cluster) Move(t testing.TB, slot, to int) {
	t.Helper()
	ctx := t.Context()
	from := c.Owner(t, slot)
	if from == to {
		return
	}
	c.Begin(t, slot, to)
	host, port, err := net.SplitHostPort(c.Nodes[to].Options().Addr)
	require.NoError(t, err)
	for {
		keys, err := c.Nodes[from].ClusterGetKeysInSlot(ctx, slot, 5).Result()
		require.NoError(t, err)
		if len(keys) == 0 {
			break
		}
		args := []any{"migrate", host, port, "", 0, 5000, "keys"}
		for _, k := range keys {
			args = append(args, k)
		}
		require.NoError(t, c.Nodes[from].Do(ctx, args...).Err())
	}
	for _, i := range []int{to, from, 3 - to - from} {
		require.NoError(t, c.Nodes[i].Do(ctx, "cluster", "setslot", slot, "node", c.ids[to]).Err())
	}
}
