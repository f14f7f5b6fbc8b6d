package cache

import (
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2/stats"
)

// Hooks are told of what happens; nil ones are not. They are called from many goroutines, before those who wait have their answer: they must not block or panic, nor Get the key that they are told of, which would wait for itself.
type Hooks struct {
	// Loaded is told of each load, with its error.
	Loaded func(key Key, took time.Duration, err error)
	// Refused is told of each value that was not kept, because its key was invalidated while it was loaded, or something newer is known.
	Refused func(key Key)
	// RemoteFailed is told of each failure of the Remote: op is "get", "fill" or "invalidate".
	RemoteFailed func(op string, err error)
}

// Stats are counts since the cache was made.
type Stats struct {
	Hits          uint64 // answers from this process's memory
	RemoteHits    uint64 // from the Remote
	Stale         uint64 // answers that were stale, while they were loaded again
	StaleErrors   uint64 // loads that failed, with something stale to serve
	Loads         uint64 // keys loaded; NotFound and LoadErrors are among them
	NotFound      uint64
	LoadErrors    uint64
	Shared        uint64 // callers who waited for a load that another had begun
	Refused       uint64 // values not kept: invalidated while they were loaded, or older than what is known
	Invalidations uint64 // calls that this process made
	Notices       uint64 // invalidations that the Remote told of, this process's among them
	RemoteErrors  uint64
	CodecErrors   uint64 // values that did not encode, entries that did not decode

	Entries int // in this process's memory, about
}

type counts struct {
	hits *stats.Counter // one atomic number would be the slowest part of a hit on many cores

	remoteHits, stale, staleErrors, loads, notFound, loadErrors, shared, refused, invalidations, notices, remoteErrors, codec atomic.Uint64
}

func (c *counts) hit() { c.hits.RecordHits(1) }

func (c *counts) loaded(err error, notFound bool) {
	c.loads.Add(1)
	switch {
	case notFound:
		c.notFound.Add(1)
	case err != nil:
		c.loadErrors.Add(1)
	}
}

// Stats returns the counts so far.
func (c *Cache[K, V]) Stats() Stats {
	n := &c.counts
	s := Stats{
		Hits: n.hits.Snapshot().Hits, RemoteHits: n.remoteHits.Load(), Stale: n.stale.Load(), StaleErrors: n.staleErrors.Load(), Loads: n.loads.Load(), NotFound: n.notFound.Load(), LoadErrors: n.loadErrors.Load(), Shared: n.shared.Load(),
		Refused: n.refused.Load(), Invalidations: n.invalidations.Load(), Notices: n.notices.Load(), RemoteErrors: n.remoteErrors.Load(), CodecErrors: n.codec.Load(),
	}
	if c.local != nil {
		s.Entries = c.local.EstimatedSize()
	}
	return s
}
