package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/breakwater-go/breakwater/queue"
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

// open gives the broker of a side and its configuration.
func open(o options) (queue.Broker, queue.Config, error) {
	cfg := queue.Config{MaxAttempts: 1000} // the systems are down for long
	if o.Memory {
		cfg.AllowVolatile = true
		return new(queue.Memory), cfg, nil
	}
	_, broker, err := openBook(o)
	return broker, cfg, err
}

// book is what the workers under -kill write down where their queue is: the steps of jobs that are done. It has no key that would refuse
// a second one: it is there to be counted.
type book interface {
	// make prepares it, once.
	make(ctx context.Context) error
	// steps are the systems that are done with a job.
	steps(ctx context.Context, job string) ([]string, error)
	// did writes notes down. When it has returned nil they outlive the process.
	did(ctx context.Context, batch []note) error
	// read gives the keys of the notes after a mark, and the effects in the database if it is in the same place, in the order in which
	// they were written, and moves the mark.
	read(ctx context.Context, after *mark) (keys []string, effects []effect, err error)
	close() error
}

// database is a book that is the storm's database too: record writes the effect of a call in the transaction that completes its job.
// Without it the database is a system like the others.
type database interface {
	record(ctx context.Context, c call) error
}

// note says that a system is done with a job.
type note struct {
	job, system string
	written     chan error
}

// mark is how far a book has been read.
type mark struct{ notes, effects int }

func openBook(o options) (book, queue.Broker, error) {
	if o.Redis != "" {
		b, broker := openRedis(o)
		return b, broker, nil
	}
	b, broker, err := openFile(o.DB)
	return b, broker, err
}
