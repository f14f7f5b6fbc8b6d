package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// side is one integration in the storm, with its own sender and its own systems.
type side struct {
	name    string
	o       options
	truth   []event
	systems *systems
	app     *child
	url     string
	sender  *child

	mu       sync.Mutex
	attempts []attempt
	acked    map[string]bool
	sent     webhooktest.Ledger
}

func newSide(name string, o options, truth []event) (*side, error) {
	s := &side{name: name, o: o, truth: truth, acked: map[string]bool{}}
	var err error
	if s.systems, err = newSystems(o.Scale); err != nil {
		return nil, err
	}
	if s.app, err = start("child-"+name, settings{options: o, URL: s.systems.url}); err != nil {
		s.stop()
		return nil, err
	}
	if s.url, err = s.app.line(); err != nil {
		s.stop()
		return nil, fmt.Errorf("the %s process did not start: %w", name, err)
	}
	return s, nil
}

// run sends the storm and waits until the integration has done what it can.
func (s *side) run(ctx context.Context) error {
	begin := time.Now().Add(500 * time.Millisecond) // by then the sender has made its storm
	s.systems.start(begin)
	var err error
	if s.sender, err = start("child-sender", settings{options: s.o, URL: s.url, Begin: begin}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, s.sender.stop)
	defer stop()
	if err := s.listen(); err != nil {
		return fmt.Errorf("the sender of the %s side: %w", s.name, err)
	}
	// The drain: until nothing has happened for longer than any takeover and the wait of a retry, also when all
	// is done: a second effect of something may still be on its way, and must not escape the count.
	quiet := time.Second + takeover(s.o.Scale) + s.systems.scaled(10*time.Second)
	for ctx.Err() == nil && s.systems.idle() < quiet {
		time.Sleep(50 * time.Millisecond)
	}
	return ctx.Err()
}

// listen takes in what the sender reports. A sender that dies before it has reported its ledger is an error.
func (s *side) listen() error {
	for {
		text, err := s.sender.line()
		if err != nil {
			return err
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return err
		}
		if l.Ledger != nil {
			s.sent = *l.Ledger
			return nil
		}
		s.mu.Lock()
		s.attempts = append(s.attempts, *l.Attempt)
		if l.Attempt.Status/100 == 2 {
			s.acked[l.Attempt.Event] = true
		}
		s.mu.Unlock()
	}
}

func (s *side) progress() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d tries, %d of %d events acknowledged, %d effects", len(s.attempts), len(s.acked), len(s.truth), len(s.systems.done()))
}

func (s *side) stop() {
	if s.sender != nil {
		s.sender.stop()
	}
	if s.app != nil {
		s.app.stop()
	}
	s.systems.stop()
}
