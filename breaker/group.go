package breaker

import (
	"container/list"
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// Group is a Breaker for each of a bounded number of keys, such as hosts or shops: one that is down hurts no other. It is safe for concurrent use.
type Group struct {
	name string
	most int
	cfg  Config

	mu    sync.Mutex
	byKey map[string]*list.Element // of order
	order *list.List               // of *Breaker and its key; the one that was used last is in front
}

type member struct {
	key     string
	breaker *Breaker
}

// NewGroup makes a Group that keeps at most maxKeys breakers, each by cfg, named name/key. Beyond that the closed one that was not used for the longest time goes, or if all are open any;
// those who use it may go on, and its key begins with a new one. A Limiter is refused: it would be shared by all keys.
func NewGroup(name string, maxKeys int, cfg Config) (*Group, error) {
	switch {
	case name == "":
		return nil, errors.New("breaker: name is empty; give the group's")
	case maxKeys < 1:
		return nil, fmt.Errorf("breaker: maxKeys is %d; want at least 1", maxKeys)
	case cfg.Limiter != nil:
		return nil, errors.New("breaker: Config.Limiter of a group would be shared by all its keys; limit each with MaxConcurrent, or make a Breaker for each")
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Group{name: name, most: maxKeys, cfg: cfg, byKey: make(map[string]*list.Element), order: list.New()}, nil
}

// Get returns the key's Breaker, a new one if need be.
func (g *Group) Get(key string) *Breaker {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e, ok := g.byKey[key]; ok {
		g.order.MoveToFront(e)
		return e.Value.(*member).breaker
	}
	if g.order.Len() >= g.most {
		g.evict()
	}
	b := &newCore(g.name+"/"+key, g.cfg).plain
	g.byKey[key] = g.order.PushFront(&member{key, b})
	return b
}

// evict makes room for one. What a closed breaker knows is soon known again; an open one keeps callers away.
func (g *Group) evict() {
	goes := g.order.Back()
	for e := goes; e != nil; e = e.Prev() {
		p := e.Value.(*member).breaker.core.now.Load()
		if p.state == Closed && !p.forced {
			goes = e
			break
		}
		if goes.Value.(*member).breaker.core.now.Load().forced && !p.forced {
			goes = e // somebody wanted those to stay as they are
		}
	}
	g.order.Remove(goes)
	delete(g.byKey, goes.Value.(*member).key)
}

// Stats returns those of all breakers, the one that was used last first.
func (g *Group) Stats() []Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Stats, 0, g.order.Len())
	for e := g.order.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*member).breaker.Stats())
	}
	return all
}

// Transport is Breaker.Transport with the Breaker of the request's key; a nil keyOf takes the URL's host, with its port if it has one.
func (g *Group) Transport(next http.RoundTripper, keyOf func(*http.Request) string) http.RoundTripper {
	if keyOf == nil {
		keyOf = func(req *http.Request) string { return req.URL.Host }
	}
	return newTransport(next, func(req *http.Request) *Breaker { return g.Get(keyOf(req)) })
}
