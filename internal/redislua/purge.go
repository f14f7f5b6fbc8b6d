package redislua

import (
	"context"
	"strings"

	"github.com/redis/go-redis/v9"
)

// scanCount is how many keys one step of a purge looks at.
const scanCount = 1000

// Glob makes a text one that SCAN finds as it stands.
func Glob(text string) string { return glob.Replace(text) }

var glob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// Purge deletes the keys of a server that match, through client, which finds each where it lives: a slot may be on its way. It answers how many there were.
func Purge(ctx context.Context, client redis.UniversalClient, node redis.Cmdable, match string) (n int, err error) {
	for cursor := uint64(0); ; {
		keys, next, err := node.Scan(ctx, cursor, match, scanCount).Result()
		if err != nil {
			return n, err
		}
		dels := make([]*redis.IntCmd, len(keys))
		_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, k := range keys {
				dels[i] = pipe.Del(ctx, k)
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		for _, d := range dels {
			n += int(d.Val())
		}
		if cursor = next; cursor == 0 {
			return n, nil
		}
	}
}
