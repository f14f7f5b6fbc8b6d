package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// machine is held by whoever plays a storm: two at once would only show that it is slow.
var machine sync.Mutex

// play runs the program. The same storm is too weak, or a promise broken, only with another exit status.
func play(t *testing.T, args ...string) ledger {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "blackfriday")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	machine.Lock()
	defer machine.Unlock()
	for range 3 {
		seed := strconv.FormatInt(time.Now().UnixNano(), 10)
		cmd := exec.CommandContext(t.Context(), bin, append(args, "-seed", seed, "-json")...)
		out, err = cmd.CombinedOutput()
		// 2: this machine was too busy to play the storm. That proves nothing, so it is played again; a broken promise is 1.
		if cmd.ProcessState.ExitCode() != 2 {
			break
		}
		t.Logf("%s", out)
	}
	require.NoError(t, err, "%s", out)
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var result map[string]ledger
	require.NoError(t, json.Unmarshal(lines[len(lines)-1], &result), "%s", out)
	b := result["breakwater"]
	assert.Zero(t, b.Lost+b.Twice+b.OutOfOrder)
	assert.Equal(t, b.Events, b.Acknowledged)
	assert.Positive(t, b.Abandoned)
	assert.Positive(t, result["classic"].Twice)
	return b
}

// The program as the README runs it, with a random seed: the right side keeps every promise and the
// storm hurts the left one.
func TestStorm(t *testing.T) {
	t.Parallel()
	b := play(t, "-orders", "600")
	assert.False(t, b.Kill)
}

// The same with processes that are killed.
func TestStormKill(t *testing.T) {
	t.Parallel()
	b := play(t, "-kill", "-orders", "250", "-scale", "20")
	assert.Positive(t, b.ServersCut)
	assert.Positive(t, b.WorkerKills)
}

// The same with the queue in Redis, which is killed as well.
func TestStormKillRedis(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	b := play(t, "-redis", "start", "-kill", "-orders", "250", "-scale", "20")
	assert.Positive(t, b.ServersCut)
	assert.Positive(t, b.WorkerKills)
	assert.True(t, b.RedisKill)
	assert.Positive(t, b.RedisCut)
	assert.Empty(t, b.Problems)
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	old := filepath.Join(t.TempDir(), "old.db")
	require.NoError(t, os.WriteFile(old, nil, 0o600))
	for want, args := range map[string][]string{
		"-orders must be at least 1":     {"-orders", "0"},
		"-memory does not go with -kill": {"-memory", "-kill"},
		"is there already":               {"-db", old},
		"-redis does not go with":        {"-redis", "start", "-memory"},
		"the queue is in one place":      {"-redis", "start", "-db", old + "2"},
		"connection refused":             {"-redis", "127.0.0.1:1"},
	} {
		out, err := exec.CommandContext(t.Context(), "go", append([]string{"run", "."}, args...)...).CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), want)
	}
}
