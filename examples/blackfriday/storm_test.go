package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The program as the README runs it, with a random seed: the right side keeps every promise and the
// storm hurts the left one. The same storm is too weak, or a promise broken, only with another exit status.
func TestStorm(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "blackfriday")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)

	for range 3 {
		seed := strconv.FormatInt(time.Now().UnixNano(), 10)
		cmd := exec.CommandContext(t.Context(), bin, "-orders", "600", "-seed", seed, "-json")
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
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "run", ".", "-orders", "0").CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "-orders must be at least 1")
}
