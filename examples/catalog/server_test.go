package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// rig is two servers over one Redis and one shop, in this process.
type rig struct {
	t        *testing.T
	admin    *admin
	merchant *merchant
	servers  []*server
	hooks    chan webhook.Delivery // that the shop sends
	held     chan struct{}         // closed to let answers of the Admin API go on; nil for ones that are not held up
	arrived  chan struct{}         // gets a value for each answer that is held up
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, hooks: make(chan webhook.Delivery, 100), arrived: make(chan struct{}, 100)}
	o := defaults()
	o.Redis, o.Space, o.Products, o.TTL = redistest.Start(t, "--maxmemory-policy", "noeviction").Addr, "test", pageSize, time.Hour
	var err error
	r.admin, err = newAdmin(func(d webhook.Delivery) { r.hooks <- d })
	require.NoError(t, err)
	t.Cleanup(r.admin.close)
	r.admin.late = func(context.Context) {
		if r.held != nil {
			r.arrived <- struct{}{}
			<-r.held
		}
	}
	r.merchant = newMerchant(r.admin.fake.Shop(shopDomain), newHistory(), o)
	require.NoError(t, r.merchant.stock())
	for range servers {
		s, err := newServer(settings{options: o, URL: r.admin.url})
		require.NoError(t, err)
		t.Cleanup(s.close)
		r.servers = append(r.servers, s)
	}
	for range o.Products {
		<-r.hooks
	}
	return r
}

// get asks a server for a page.
func (r *rig) get(server int, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.servers[server].routes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func (r *rig) path(way, shelf int) string { return ways[way].path + "/" + r.merchant.id(shelf) }

// version asks a server for a product.
func (r *rig) version(server, way, shelf int) int {
	r.t.Helper()
	return r.read(r.get(server, r.path(way, shelf)))
}

// read finds the version on a page.
func (r *rig) read(w *httptest.ResponseRecorder) int {
	r.t.Helper()
	if w.Code == http.StatusNotFound {
		return gone
	}
	require.Equal(r.t, http.StatusOK, w.Code, "%s", w.Body)
	var p product
	require.NoError(r.t, json.Unmarshal(w.Body.Bytes(), &p))
	v, err := p.version()
	require.NoError(r.t, err)
	return v
}

// deliver delivers the next webhook to a server.
func (r *rig) deliver(server int) {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.servers[server].routes().ServeHTTP(w, webhooktest.NewRequest(secret, <-r.hooks))
	require.Equal(r.t, http.StatusOK, w.Code, "%s", w.Body)
}

// The race that the recipe loses: an answer that was slow comes after the webhook. The recipe puts the old product back; the cache returns it to who had asked before the webhook, and keeps it nowhere.
func TestSlowAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for way, want := range map[int]int{recipeWay: 1, breakwaterWay: 2} {
		shelf := way
		r.held = make(chan struct{})
		asked := make(chan *httptest.ResponseRecorder, 1)
		go func() { asked <- r.get(0, r.path(way, shelf)) }()
		<-r.arrived
		require.NoError(t, r.merchant.retitle(shelf))
		r.deliver(1) // to the other process
		close(r.held)
		assert.Equal(t, 1, r.read(<-asked), "he had asked before")

		r.held = nil
		for server := range servers {
			assert.Equal(t, want, r.version(server, way, shelf), "%s, server %d", ways[way].name, server)
		}
	}
}

// What is deleted, and what was looked for before it was there, is seen to be so as soon as its webhook is acknowledged.
func TestDeletedAndCreated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const shelf = 3
	require.Equal(t, 1, r.version(0, breakwaterWay, shelf))
	require.NoError(t, r.merchant.remove(shelf))
	assert.Equal(t, 1, r.version(0, breakwaterWay, shelf), "nobody has been told")
	r.deliver(0)
	assert.Equal(t, gone, r.version(0, breakwaterWay, shelf))

	r.merchant.shelves[shelf].Store(r.merchant.last + r.merchant.step)
	announced := r.merchant.id(shelf)
	assert.Equal(t, gone, r.version(0, breakwaterWay, shelf))
	require.NoError(t, r.merchant.create(shelf))
	require.Equal(t, announced, r.merchant.id(shelf))
	assert.Equal(t, gone, r.version(0, breakwaterWay, shelf), "nobody has been told")
	r.deliver(0)
	assert.Equal(t, 1, r.version(0, breakwaterWay, shelf))
}

// A page of many products takes one call of the Admin API for what it misses, in both ways, and none for what is there.
func TestPageOfMany(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for way, app := range [...]string{recipeWay: usualApp, breakwaterWay: ourApp} {
		require.Equal(t, 1, r.version(0, way, 0))
		ids := []string{"1"} // there is no such product
		for shelf := range pageSize {
			ids = append(ids, r.merchant.id(shelf))
		}
		page := ways[way].path + "?ids=" + strings.Join(ids, ",")
		for range 2 {
			w := r.get(0, page)
			require.Equal(t, http.StatusOK, w.Code)
			var all []product
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &all))
			assert.Len(t, all, pageSize)
		}
		// The recipe does not know that what is not there is not there.
		assert.Equal(t, map[int]int{recipeWay: 3, breakwaterWay: 2}[way], r.admin.spentBy(app).Calls, ways[way].name)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for path, want := range map[string]int{
		"/healthz": http.StatusOK, "/stats": http.StatusOK, "/products/1": http.StatusNotFound, "/products/x": http.StatusBadRequest, "/products/1,2": http.StatusBadRequest,
		"/products": http.StatusBadRequest, "/products?ids=1,": http.StatusBadRequest, "/products?ids=1" + strings.Repeat(",1", maxPage): http.StatusBadRequest,
		"/recipe/products/1": http.StatusNotFound, "/other": http.StatusNotFound,
	} {
		assert.Equal(t, want, r.get(0, path).Code, path)
	}
	w := httptest.NewRecorder()
	r.servers[0].routes().ServeHTTP(w, webhooktest.NewRequest("another secret", webhook.Delivery{Meta: webhook.Meta{Topic: "products/update"}}))
	assert.Equal(t, http.StatusUnauthorized, w.Code)
}

// A job tells the index of the product as it is when the job runs, in whichever process that is.
func TestIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, stop := context.WithCancel(t.Context())
	worked := make(chan error, 1)
	go func() { worked <- r.servers[1].run(ctx) }()
	defer func() { stop(); require.NoError(t, <-worked) }()

	require.Equal(t, 1, r.version(1, breakwaterWay, 0), "the worker's process has it in memory")
	require.NoError(t, r.merchant.reprice(0))
	require.NoError(t, r.merchant.remove(1))
	r.deliver(0)
	r.deliver(0)
	require.Eventually(t, func() bool {
		n, err := waiting(ctx, r.servers[0].set.options)
		return err == nil && n == 0
	}, time.Minute, 10*time.Millisecond)
	have, err := r.servers[0].index.versions(ctx)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{r.merchant.id(0): 2}, have)
}
