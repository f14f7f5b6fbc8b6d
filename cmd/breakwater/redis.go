package main

import (
	"errors"
	"fmt"
	"io"
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
	first.DialerRetries = 1 // each command is tried four times as it is
	if len(all) == 1 {
		return redis.NewClient(first), first.Addr, nil
	}
	if first.DB != 0 {
		return nil, "", errors.New("-redis names a database, which a Cluster does not have")
	}
	if first.TLSConfig != nil {
		first.TLSConfig.ServerName = "" // each node has its own
	}
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs, Username: first.Username, Password: first.Password, TLSConfig: first.TLSConfig, DialerRetries: first.DialerRetries,
	}), strings.Join(addrs, ", "), nil
}

// open puts the engine and the queue over client.
func (c *call) open(client redis.UniversalClient) (err error) {
	c.engine = redisqueue.New(client, redisqueue.Config{Space: c.space, Partitions: c.partitions})
	c.queue, err = queue.New(c.engine, queue.Config{Name: c.name, Codecs: []queue.Codec{queue.Plain(), queue.Deflate()}})
	return err
}

// explain adds what to do about an error of the connection.
func (c *call) explain(err error) error {
	_, network := errors.AsType[net.Error](err)
	switch {
	case redis.HasErrorPrefix(err, "NOAUTH"), redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "ERR AUTH"):
		return fmt.Errorf("Redis at %s wants another user or password; they go in the URL, redis://user:password@host:port, best in $%s: %w", c.server, envRedis, err) //nolint:staticcheck // a name
	case network, errors.Is(err, io.EOF):
		return fmt.Errorf("can't reach Redis at %s (-redis, $%s): %w", c.server, envRedis, err)
	case errors.Is(err, redisqueue.ErrPartitions):
		return fmt.Errorf("-partitions is %d, which must be what your program gives as redisqueue.Config.Partitions: %w", c.partitions, err)
	default:
		return err
	}
}
