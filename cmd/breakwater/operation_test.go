package main

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

func TestOperationUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"dead":                                           "no command given",
		"dead x":                                         `no command "dead x"`,
		"-redis a:1 jobs":                                `no command "-redis"`,
		"jobs":                                           "no Redis is named; give -redis host:port, or set $BREAKWATER_REDIS (breakwater jobs -h explains)",
		"jobs -redis a":                                  "-redis is neither host:port nor a URL",
		"jobs -redis http://a":                           "-redis is not a URL such as redis://",
		"jobs -redis a:1 x":                              `"x" is one argument too many`,
		"jobs -redis a:1 -limit 0":                       "want 1 or more",
		"jobs -redis a:1 -x":                             "not defined: -x",
		"jobs -redis a:1 -space {":                       "must not contain braces",
		"queues -redis a:1 -partitions -1":               "Config.Partitions is -1",
		"queues -redis a:1 -queue x":                     "not defined: -queue",
		"queues -redis redis://a:1/2,a:2":                "names a database",
		"dead ls -redis a:1 -from yesterday":             "want a time such as 2026-11-27T03:00:00Z",
		"dead show -redis a:1":                           "want one ID, as dead ls shows it; there are 0",
		"dead show -redis a:1 A B":                       "there are 2",
		"dead drop -redis a:1":                           "say which, in one way",
		"dead drop -redis a:1 ID -all":                   "say which, in one way",
		"dead replay -redis a:1 -yes -group g -all":      "say which, in one way",
		"dead replay -redis a:1 -yes -until 1h -all":     "say which, in one way",
		"park -redis a:1 -for 10m":                       "want -group",
		"park -redis a:1 -group g":                       "or 0 to unpark",
		"park -redis a:1 -group g -for -1s":              "or 0 to unpark",
		"purge -redis a:1 -yes":                          "say what: -group, -key or -kind",
		"tail -redis a:1 -every 0s":                      "-every is 0s",
		"dead ls -redis a:1 -until 2026-13-01T00:00:00Z": "want a time",
	} {
		var out bytes.Buffer
		err := run(t.Context(), strings.Fields(args), &out, &out)
		require.ErrorIs(t, err, errUsage, args)
		require.ErrorContains(t, err, want)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), append(strings.Fields(c.name), "-h"), &out, &out))
		assert.Contains(t, out.String(), "usage: breakwater "+c.name+" ")
	}
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"dead", "help"}, &out, &out))
	assert.Equal(t, 4, strings.Count(out.String(), "  dead "))
	out.Reset()
	require.Error(t, run(t.Context(), []string{"x"}, &out, &out))
	for _, c := range commands() {
		assert.Contains(t, out.String(), "  "+c.name+" ", "an unknown command lists all")
	}
}

// Every command names the server that it can't reach.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	const nobody = "127.0.0.1:1" // a free one might become another test's
	for _, command := range []string{
		"queues", "jobs", "dead ls -from 1h", "dead show ID", "dead replay ID", "dead drop -all -yes", "pause", "resume", "park -group g -for 1s",
		"purge -kind k", "purge -kind k -yes", "check", "tail",
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := run(t.Context(), append(strings.Fields(command), "-redis", nobody), &out, &out)
			require.ErrorContains(t, err, "can't reach Redis at "+nobody+" (-redis, $BREAKWATER_REDIS): ")
			require.NotErrorIs(t, err, errUsage)
		})
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	const secret = "hush:x@y/z"
	s := redistest.Start(t, "--requirepass", secret)
	good := "redis://:" + url.QueryEscape(secret) + "@" + s.Addr
	var out bytes.Buffer
	ask := func(args ...string) error {
		err := run(t.Context(), args, &out, &out)
		if err != nil {
			out.WriteString(err.Error())
		}
		return err
	}
	require.ErrorContains(t, ask("queues", "-redis", s.Addr), "wants another user or password; they go in the URL")
	require.ErrorContains(t, ask("queues", "-redis", "redis://:hush@"+s.Addr), "wants another user or password")
	require.ErrorIs(t, ask("queues", "-redis", "redis://:"+secret+"@"+s.Addr), errUsage)
	require.ErrorIs(t, ask("queues", "-redis", "hush@"+s.Addr), errUsage)
	require.NoError(t, ask("queues", "-redis", good))
	t.Setenv(envRedis, good)
	require.NoError(t, ask("queues"))
	require.NoError(t, ask("queues", "-h"))
	require.ErrorIs(t, ask("queues", "-x"), errUsage)
	require.NoError(t, s.Kill())
	require.ErrorContains(t, ask("queues"), "can't reach Redis at "+s.Addr)
	assert.NotContains(t, out.String(), "hush")
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.inSpace("other", 3)
	for i := range 20 {
		d.enqueue("ID", queue.Job{Kind: "ship", Group: strconv.Itoa(i)})
	}
	d.equal("QUEUE   JOBS  HELD  WAITING  SCHEDULED  DEAD  PARKED  PAUSED\norders  20    0     0        0          0     0       -\n",
		d.must("queues", "-space", "other", "-partitions", "3"))
	_, _, err := d.run("queues", "-space", "other")
	require.ErrorIs(t, err, redisqueue.ErrPartitions)
	require.ErrorContains(t, err, "-partitions is 1, which must be what your program gives")
}

// Several addresses are those of a Cluster; its only node may be named twice.
func TestCluster(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--cluster-enabled", "yes")
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	require.NoError(t, client.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	require.Eventually(t, func() bool {
		info, err := client.ClusterInfo(t.Context()).Result()
		return err == nil && strings.Contains(info, "cluster_state:ok")
	}, 20*time.Second, 10*time.Millisecond)
	q, err := queue.New(redisqueue.New(client, redisqueue.Config{}), queue.Config{})
	require.NoError(t, err)
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: "ship"})
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"queues", "-json", "-redis", "redis://" + s.Addr + ", " + s.Addr}, &out, &out))
	assert.Contains(t, out.String(), `{"queue":"default","jobs":1,`)
}
