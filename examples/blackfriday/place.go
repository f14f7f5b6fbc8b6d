package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
	"github.com/breakwater-go/breakwater/idempotency/sqlstore"
	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/redisqueue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/redislimit"
)

// place decides where the queue is, and makes a directory for it if nobody said. done is called with whether anything was wrong:
// then what the storm left is kept, to be looked at.
func place(o *options) (done func(wrong bool), err error) {
	switch {
	case o.Memory:
		return func(bool) {}, nil
	case o.Redis != "":
		return placeRedis(o)
	case o.DB != "":
		// The webhook IDs of a storm are its seed's: in the file of an earlier one they would be redeliveries.
		if _, err := os.Stat(o.DB); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("-db %s is there already; a storm needs a file of its own", o.DB)
		}
		return func(bool) {}, nil
	}
	dir, err := os.MkdirTemp("", "blackfriday-")
	if err != nil {
		return nil, err
	}
	o.DB = filepath.Join(dir, "storm.db")
	return func(wrong bool) {
		if wrong {
			fmt.Fprintln(os.Stderr, "blackfriday: the queue's file is kept:", o.DB)
			return
		}
		_ = os.RemoveAll(dir) // it is in the temporary directory
	}, nil
}

// home is where the Breakwater side keeps what must not be lost.
type home struct {
	broker queue.Broker
	cfg    queue.Config
	store  idempotency.Store
	quota  shopify.Buckets // of the shops
	file   *fileBook       // the database of the storm, where the queue is in a file; under -kill alone
	close  func() error
}

// open opens it.
func open(o options) (home, error) {
	cfg := queue.Config{MaxAttempts: 1000} // the systems are down for long
	switch {
	case o.Memory:
		cfg.AllowVolatile = true
		return home{broker: new(queue.Memory), cfg: cfg, store: new(idempotency.Memory), quota: shopify.NewLocal(), close: func() error { return nil }}, nil
	case o.Redis != "":
		client := dial(o)
		return home{
			broker: redisqueue.New(client, redisqueue.Config{Space: o.Space}), cfg: cfg,
			store: redisstore.New(client, redisstore.Config{Space: o.Space}), quota: redislimit.New(client, redislimit.Config{Prefix: o.Space}), close: client.Close,
		}, nil
	default:
		db, err := sql.Open("sqlite", o.DB+"?_pragma=busy_timeout(10000)")
		if err != nil {
			return home{}, err
		}
		broker := sqlqueue.New(db, sqlqueue.Config{})
		return home{broker: broker, cfg: cfg, store: sqlstore.New(db, sqlstore.Config{}), file: newFileBook(db, broker), quota: shopify.NewLocal(), close: db.Close}, nil
	}
}
