package redisqueue

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Forward puts the clock of a space's queues forward, and brings the ends of keys nearer.
func Forward(ctx context.Context, client *redis.Client, space string, partitions int, d time.Duration) error {
	keys, err := client.Keys(ctx, glob.Replace("{"+space+":")+"*").Result()
	if err != nil {
		return err
	}
	for _, key := range keys {
		ttl, err := client.PTTL(ctx, key).Result()
		if err != nil {
			return err
		}
		if ttl > 0 {
			if err := client.PExpire(ctx, key, max(0, ttl-d)).Err(); err != nil {
				return err
			}
		}
	}
	for p := range partitions {
		if err := client.IncrBy(ctx, "{"+space+":"+strconv.Itoa(p)+"}:ahead", d.Microseconds()).Err(); err != nil {
			return err
		}
	}
	return nil
}
