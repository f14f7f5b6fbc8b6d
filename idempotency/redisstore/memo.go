package redisstore

import (
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/idempotency"
)

// maxMemoBytes bounds the results that a memo remembers.
const maxMemoBytes = 4 << 10

// memo remembers, in the process, some of what is done. It has two generations: when the younger one is full the older one goes, so that what is asked for
// stays for a while and nothing is kept in order.
type memo struct {
	half  int
	keep  time.Duration
	mu    sync.RWMutex
	young map[idempotency.Name]done
	old   map[idempotency.Name]done
	epoch int // how often something was forgotten: what was asked for before is not remembered after
}

type done struct {
	version     idempotency.Version
	fingerprint string
	result      []byte
	end         time.Time
}

func newMemo(most int, keep time.Duration) *memo {
	return &memo{half: max(1, most/2), keep: keep, young: map[idempotency.Name]done{}}
}

// claim answers a request from memory, if it can.
func (m *memo) claim(r *idempotency.Request) (c idempotency.Claim, ok bool) {
	m.mu.RLock()
	d, ok := m.young[r.Name]
	if !ok {
		d, ok = m.old[r.Name]
	}
	m.mu.RUnlock()
	if !ok || time.Until(d.end) <= 0 || r.Version > d.version {
		return idempotency.Claim{}, false
	}
	rec := idempotency.Record{State: idempotency.Done, Version: d.version, Fingerprint: d.fingerprint, Result: d.result}
	return rec.Judge(r), true
}

// now is the epoch, to be asked for before the server is.
func (m *memo) now() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.epoch
}

// done remembers what is done, until end at most, if nothing was forgotten since the epoch in which it was asked for.
func (m *memo) done(epoch int, name idempotency.Name, version idempotency.Version, fingerprint string, result []byte, end time.Time) {
	if len(result) > maxMemoBytes {
		return
	}
	if most := time.Now().Add(m.keep); end.After(most) {
		end = most
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.epoch {
		return
	}
	if len(m.young) >= m.half {
		m.young, m.old = make(map[idempotency.Name]done, m.half), m.young
	}
	m.young[name] = done{version, fingerprint, result, end}
	delete(m.old, name)
}

func (m *memo) forget(name idempotency.Name) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	delete(m.young, name)
	delete(m.old, name)
}

func (m *memo) purge(scope string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	for _, all := range [...]map[idempotency.Name]done{m.young, m.old} {
		for name := range all {
			if name.Scope == scope {
				delete(all, name)
			}
		}
	}
}
