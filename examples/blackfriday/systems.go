package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// call is what an integration sends to a system: take note of an event.
type call struct {
	Event   string `json:"event"` // the webhook ID
	Shop    string `json:"shop"`
	Subject string `json:"subject"`
	Topic   string `json:"topic"`
	Stock   int    `json:"stock,omitempty"` // of an inventory level

	// Of the Breakwater side: which worker calls, and how many leases of the job ended before it had this one.
	Worker  int `json:"worker,omitempty"`
	Crashes int `json:"crashes,omitempty"`
}

// effect is a call that a system has carried out.
type effect struct {
	System string
	call
	Came time.Time // when the call came in
	Done time.Time // when it took effect
}

// systems are the ERP, the database and the carrier of one side: an HTTP server that is slow and fails
// for a while, and a log of what took effect. Nothing of Breakwater but the fake shops is in here.
type systems struct {
	scale float64
	url   string
	srv   *http.Server
	admin *shopifytest.Server // the shops' Admin API; nil in tests that need none

	mu      sync.Mutex
	begin   time.Time
	effects []effect
	deaths  []call              // what each worker that died was about to do, or doing
	keyed   map[string][]*keyed // calls by their key
	killed  map[int]time.Time   // when workers were, by their number
	noted   map[string]bool     // keys whose calls are recorded as done
	under   int                 // calls under way
	down    map[string]int      // calls that reached a system while it failed
	last    time.Time
}

// weather is how a system does during a share of the storm.
type weather struct {
	from, to float64
	fails    bool
}

// A system answers after calm when all is well, after slow in bad weather, and with 503 while it fails.
var forecast = map[string]struct {
	calm, slow time.Duration
	bad        []weather
}{
	"erp":      {400 * time.Millisecond, 2 * time.Second, []weather{{0.20, 0.50, false}, {0.50, 0.85, true}}},
	"database": {200 * time.Millisecond, time.Second, []weather{{0.20, 0.50, false}, {0.72, 0.76, true}}},
	"carrier":  {600 * time.Millisecond, 3 * time.Second, []weather{{0.15, 0.50, false}, {0.60, 0.70, true}}},
}

func newSystems(scale float64, admin *shopifytest.Server) (*systems, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &systems{scale: scale, admin: admin, url: "http://" + l.Addr().String(), keyed: map[string][]*keyed{}, killed: map[int]time.Time{}, noted: map[string]bool{}, down: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{system}", s.serve)
	mux.HandleFunc("POST /deaths", s.death)
	mux.HandleFunc("POST /noted", s.note)
	mux.HandleFunc("/admin/", s.serveAdmin)
	s.srv = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.srv.Serve(l) }() // ends with stop
	return s, nil
}

// start says when the storm, and so the weather, begins.
func (s *systems) start(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin, s.last = at, at
}

// touch makes what is idle count from now.
func (s *systems) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
}

func (s *systems) stop() { _ = s.srv.Close() }

func (s *systems) serve(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("system")
	plan, known := forecast[name]
	var c call
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil || !known {
		http.Error(w, "bad call", http.StatusBadRequest)
		return
	}
	k := &keyed{key: r.Header.Get(keyHeader), system: name, call: c}
	share := s.came(k)
	defer s.answered(k)

	latency, fails := plan.calm, false
	for _, bad := range plan.bad {
		if share >= bad.from && share < bad.to {
			latency, fails = plan.slow, bad.fails
		}
	}
	if fails {
		s.mu.Lock()
		s.down[name]++
		s.mu.Unlock()
		time.Sleep(s.scaled(100 * time.Millisecond))
		http.Error(w, fmt.Sprintf("%s is down", name), http.StatusServiceUnavailable)
		return
	}
	if !s.again(k) {
		time.Sleep(s.scaled(latency))
		// The effect happens whether or not the caller still listens, as in any real system.
		s.take(k)
	}
	w.WriteHeader(http.StatusNoContent)
}

// death takes note of a worker that died, and of what it was about to do.
func (s *systems) death(w http.ResponseWriter, r *http.Request) {
	var c call
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		http.Error(w, "bad call", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.deaths = append(s.deaths, c)
	s.killed[c.Worker] = time.Now()
	s.last = time.Now() // somebody will take its jobs over
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// note takes note that a call was recorded as done.
func (s *systems) note(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.noted[r.Header.Get(keyHeader)] = true
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (s *systems) scaled(d time.Duration) time.Duration { return time.Duration(float64(d) / s.scale) }

// idle says for how long nothing has happened.
func (s *systems) idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under > 0 {
		return 0
	}
	return time.Since(s.last)
}

// reached is how many calls reached each system while it failed.
func (s *systems) reached() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.down)
}

func (s *systems) done() []effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clip(s.effects)
}

func (s *systems) dead() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clip(s.deaths)
}
