package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

const fullVariable = "BREAKWATER_TEST_FULL_DISK"

// TestFullDiskRefusesNewJobsWholeAndDrains fills a real file system: a small tmpfs in a namespace of its own, in which this test
// is run again. Where the system allows no such thing, what TestFileOverItsBoundRefusesNewJobsWholeAndDrains shows has to do.
func TestFullDiskRefusesNewJobsWholeAndDrains(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv(fullVariable); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
			_, _ = fmt.Fprintln(os.Stdout, "no tmpfs:", err) // for the parent
			return
		}
		s := newShopWith(t, filepath.Join(dir, "queue.db"), sqlqueue.Config{}, queue.Config{})
		before := true
		fillAndDrain(t, s, 4<<20, 32<<20, func() {
			if _, err := os.Stat(filepath.Join(dir, "queue.db-reserve")); before { //nolint:gosec // the parent's directory
				require.NoError(t, err, "the reserve is for workers")
			}
			before = false
		})
		_, _ = fmt.Fprintln(os.Stdout, "filled and drained")
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestFullDiskRefusesNewJobsWholeAndDrains$", "-test.v")
	cmd.Env = append(os.Environ(), fullVariable+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 || strings.Contains(string(out), "no tmpfs:") {
		if os.Getuid() != 0 {
			t.Logf("no namespace here: %v %s", err, out)
			return
		}
		cmd = exec.CommandContext(t.Context(), self, cmd.Args[1:]...) // root needs no namespace of users
		cmd.Env = append(os.Environ(), fullVariable+"="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err = cmd.CombinedOutput()
		if strings.Contains(string(out), "no tmpfs:") || err != nil && len(out) == 0 {
			t.Logf("no namespace here: %v %s", err, out)
			return
		}
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "filled and drained")
	t.Log("a tmpfs of 32 MiB")
}
