// Package redisqueue keeps queues of package queue in Redis: the engine for more than one machine.
//
//	client := redis.NewClient(&redis.Options{Addr: "localhost:6379"})
//	jobs, err := queue.New(redisqueue.New(client, redisqueue.Config{}), queue.Config{})
//
// Every step of the machine (docs/queue.md) is one Lua script in one slot: it happens whole or not at all, and a script
// that is sent again after its answer was lost gets the same answer. What was accepted is as durable as the server is: with
// appendonly yes and appendfsync always nothing that was acknowledged is lost when it is killed, with everysec (Redis's default) up
// to the last second; see Config.Replicas for failovers. A server that may evict keys is refused.
//
// It needs Redis 6.2 or later, or Valkey; alone, behind Sentinel or as a Cluster. docs/redis.md has the layout of the keys, sizes,
// settings and the rights that its user needs.
package redisqueue
