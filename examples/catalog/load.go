package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakwater-go/breakwater/shopify"
)

const (
	// pageEvery is which reads are of a page of many products, and pageSize of how many.
	pageEvery, pageSize = 10, 8

	readers = 64
	// pause is how long a reader looks at a page, on average.
	pause = 15 * time.Millisecond
)

// ways are the two ways to cache, by where the servers have them.
var ways = [...]struct{ name, path string }{{"recipe", "/recipe/products"}, {"Breakwater", "/products"}}

const (
	recipeWay = iota
	breakwaterWay
)

// crowd reads the storefront. Each reader asks for the same in both ways at once, and looks at it, and at the next when he has both: so they have the same load.
type crowd struct {
	shelves []atomic.Int64
	urls    []string
	client  *http.Client
	seed    uint64

	pages, singles atomic.Int64
	mu             sync.Mutex
	seen           [len(ways)]seen
}

// seen is what the crowd has seen of one way.
type seen struct {
	answers []answer
	failed  int
	failure string // one of them
}

func newCrowd(m *merchant, all []*child, seed uint64) *crowd {
	c := &crowd{shelves: m.shelves, seed: seed, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * readers}}}
	for _, s := range all {
		c.urls = append(c.urls, s.url)
	}
	return c
}

// run has the crowd read until ctx ends.
func (c *crowd) run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range uint64(readers) {
		all.Go(func() { c.reader(ctx, rand.New(rand.NewPCG(c.seed, 1000+i))) })
	}
	all.Wait()
	c.client.CloseIdleConnections()
}

func (c *crowd) reader(ctx context.Context, rng *rand.Rand) {
	pick := popular(rng, len(c.shelves))
	for ctx.Err() == nil {
		shelves := 1
		if rng.IntN(pageEvery) == 0 {
			shelves = pageSize
			c.pages.Add(1)
		} else {
			c.singles.Add(1)
		}
		ids := make([]string, shelves)
		for i := range ids {
			ids[i] = strconv.FormatInt(c.shelves[pick.Uint64()].Load(), 10)
		}
		server := rng.IntN(len(c.urls))
		var both sync.WaitGroup
		for way := range ways {
			both.Go(func() { c.read(context.WithoutCancel(ctx), way, server, ids) }) // to its end
		}
		both.Wait()
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.Int64N(int64(2 * pause)))):
		}
	}
}

// read asks a server for products, and notes what it has said.
func (c *crowd) read(ctx context.Context, way, server int, ids []string) {
	begin := time.Now()
	found, err := c.ask(ctx, c.urls[server]+ways[way].path, ids)
	end := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.seen[way]
	if err != nil {
		s.failed, s.failure = s.failed+1, err.Error()
		return
	}
	for _, id := range ids {
		a := answer{product: id, version: gone, server: server, start: begin, end: end}
		if v, ok := found[id]; ok {
			a.version = v
		}
		s.answers = append(s.answers, a)
	}
}

// ask returns the versions of those of the products that exist.
func (c *crowd) ask(ctx context.Context, url string, ids []string) (map[string]int, error) {
	if len(ids) == 1 {
		url += "/" + ids[0]
	} else {
		url += "?ids=" + strings.Join(ids, ",")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var page []product
	switch {
	case resp.StatusCode == http.StatusNotFound && len(ids) == 1: // it does not exist
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	case len(ids) == 1:
		page = make([]product, 1)
		err = json.NewDecoder(resp.Body).Decode(&page[0])
	default:
		err = json.NewDecoder(resp.Body).Decode(&page)
	}
	if err != nil {
		return nil, err
	}
	found := make(map[string]int, len(page))
	for _, p := range page {
		if found[strings.TrimPrefix(shopify.Subject(p.ID), "product/")], err = p.version(); err != nil {
			return nil, err
		}
	}
	return found, nil
}
