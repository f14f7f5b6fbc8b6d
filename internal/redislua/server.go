package redislua

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Keeper is who asks a server whether it can keep something.
type Keeper struct {
	Package string // whose logs and errors they are
	Kept    string // what is kept, in the plural: jobs
	Unfit   error  // what the error of a server wraps that can't
	Log     *slog.Logger
}

// Check finds what is wrong with a client for scripts that write what they read.
func (k *Keeper) Check(client redis.UniversalClient) error {
	switch c := client.(type) {
	case nil:
		return fmt.Errorf("%s: New: client is nil", k.Package)
	case *redis.Client:
		if c == nil {
			return fmt.Errorf("%s: New: client is a nil %T", k.Package, client)
		}
	case *redis.ClusterClient:
		if c == nil {
			return fmt.Errorf("%s: New: client is a nil %T", k.Package, client)
		}
		if c.Options().ReadOnly {
			return fmt.Errorf("%s: New: client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly); what was just written must be read: use one without", k.Package)
		}
	default:
		return fmt.Errorf("%s: New: client is a %T; want *redis.Client or *redis.ClusterClient", k.Package, client)
	}
	return nil
}

// Look asks a server what it is by INFO, which managed services allow where they have no CONFIG.
func (k *Keeper) Look(ctx context.Context, node *redis.Client) error {
	addr := node.Options().Addr
	text, err := node.Info(ctx).Result()
	if Silent(err) {
		k.Log.Warn(k.Package+": the server does not say what it is (INFO): whether it evicts keys, and whether it keeps them on its disk, is unknown", "addr", addr) //nolint:sloglint // one text for several packages
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: ask the server at %s what it is: %w", k.Package, addr, err)
	}
	return k.judge(Info(text), addr)
}

// Info reads what INFO answers.
func Info(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// Silent says whether a server does not tell what it is: INFO is forbidden, or renamed.
func Silent(err error) bool {
	return redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "ERR unknown command")
}

// TooOld is an error that wraps unfit, if the server at addr is older than what engines need.
func TooOld(info map[string]string, addr string, unfit error) error {
	if v := info["redis_version"]; v != "" && !atLeast(v, 6, 2) {
		return fmt.Errorf("%w: %s runs Redis %s; want 6.2 or later, or Valkey", unfit, addr, v)
	}
	return nil
}

//nolint:sloglint // one text for several packages
func (k *Keeper) judge(info map[string]string, addr string) error {
	if err := TooOld(info, addr, k.Unfit); err != nil {
		return err
	}
	switch policy := info["maxmemory_policy"]; policy {
	case "noeviction":
	case "":
		k.Log.Warn(k.Package+": the server does not say whether it evicts keys; "+k.Kept+" are lost if it does: maxmemory-policy must be noeviction", "addr", addr)
	default:
		return fmt.Errorf("%w: %s evicts keys when its memory is full (maxmemory-policy %s), %s among them; set it to noeviction", k.Unfit, addr, policy, k.Kept)
	}
	switch info["aof_enabled"] {
	case "1":
	case "0":
		k.Log.Warn(k.Package+": the server has no append-only file: a crash of it loses what was accepted since its last snapshot; set appendonly yes", "addr", addr)
	default:
		k.Log.Warn(k.Package+": the server does not say whether it has an append-only file; without one a crash of it loses "+k.Kept, "addr", addr)
	}
	return nil
}

func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return true // no number that we know how to read
	}
	a, errA := strconv.Atoi(parts[0])
	b, errB := strconv.Atoi(parts[1])
	return errA != nil || errB != nil || a > major || a == major && b >= minor
}
