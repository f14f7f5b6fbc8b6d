package redisqueue

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/internal/redislua"
)

// Forward puts the clock of a space's queues forward, and brings the ends of keys nearer.
func Forward(ctx context.Context, client redis.UniversalClient, space string, partitions int, d time.Duration) error {
	var mu sync.Mutex
	var keys []string
	list := func(ctx context.Context, node *redis.Client) error {
		found, err := node.Keys(ctx, redislua.Glob("{"+space+":")+"*").Result()
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, found...)
		return err
	}
	var err error
	if c, ok := client.(*redis.ClusterClient); ok {
		err = c.ForEachMaster(ctx, list)
	} else {
		err = list(ctx, client.(*redis.Client)) //nolint:forcetypeassert // there is no third
	}
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

// Line is how many scripts of Enqueue are under way, and how many callers wait for the next.
func (b *Broker) Line(queue string, partition int) (underWay, waiting int) {
	return b.line(place{queue, partition}).Len()
}

// ReadHead reads a job's head, ReadStored one that is kept with its head and lane.
func ReadHead(head string) error {
	_, err := parseHead(head)
	return err
}

func ReadStored(s string) error {
	head, record, err := cleave(s)
	if err == nil {
		_, _, err = parseJob(head, record)
	}
	return err
}
