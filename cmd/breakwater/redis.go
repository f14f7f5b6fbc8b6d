package main

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
)

// dial makes a client for what -redis says; it connects at the first use. server is where to, without user and password. No error
// repeats what was given: a URL that can't be read may have a password anywhere.
func dial(to string) (client redis.UniversalClient, server string, err error) {
	if to == "" {
		return nil, "", fmt.Errorf("no Redis is named; give -redis host:port, or set $%s", envRedis)
	}
	var all []*redis.Options
	var addrs []string
	for part := range strings.SplitSeq(to, ",") {
		o := &redis.Options{Addr: strings.TrimSpace(part)}
		if strings.Contains(part, "://") {
			if o, err = redis.ParseURL(o.Addr); err != nil {
				return nil, "", errors.New("-redis is not a URL such as redis://user:password@host:6379/0; what is special in a password must be percent-encoded")
			}
		} else if _, _, err := net.SplitHostPort(o.Addr); err != nil || strings.ContainsAny(o.Addr, "@/") {
			return nil, "", errors.New("-redis is neither host:port nor a URL such as redis://user:password@host:6379/0")
		}
		all, addrs = append(all, o), append(addrs, o.Addr)
	}
	first := all[0]
	if len(all) == 1 {
		return redis.NewClient(first), first.Addr, nil
	}
	if first.DB != 0 {
		return nil, "", errors.New("-redis names a database, which a Cluster does not have")
	}
	if first.TLSConfig != nil {
		first.TLSConfig.ServerName = "" // each node has its own
	}
	return redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, Username: first.Username, Password: first.Password, TLSConfig: first.TLSConfig}),
		strings.Join(addrs, ", "), nil
}

// open puts the engine and the queue over client.
func (c *call) open(client redis.UniversalClient) (err error) {
	c.engine = redisqueue.New(client, redisqueue.Config{Space: c.space, Partitions: c.partitions})
	c.queue, err = queue.New(c.engine, queue.Config{Name: c.name, Codecs: []queue.Codec{queue.Plain(), queue.Deflate()}})
	return err
}
