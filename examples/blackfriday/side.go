package main

import (
	"cmp"
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
	crew    *crew // instead of app, under -kill
	url     string
	sender  *child

	mu       sync.Mutex
	attempts []attempt
	acked    map[string]bool
	sent     webhooktest.Ledger
	letters  map[string]string // events that are dead letters, by the reason
	problems []string          // what was found wrong in Redis afterwards
}

func newSide(ctx context.Context, name string, o options, truth []event) (*side, error) {
	s := &side{name: name, o: o, truth: truth, acked: map[string]bool{}}
	admin, err := newAdmin(o.Scale, truth)
	if err != nil {
		return nil, err
	}
	if s.systems, err = newSystems(o.Scale, admin); err != nil {
		return nil, err
	}
	if o.Kill && name == "breakwater" {
		if s.crew, err = newCrew(ctx, o, s.systems); err != nil {
			s.stop()
			return nil, err
		}
		s.url = s.crew.url
		return s, nil
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
func (s *side) run(ctx context.Context) (err error) {
	begin := time.Now().Add(500 * time.Millisecond) // by then the sender has made its storm
	s.systems.start(begin)
	if s.sender, err = start("child-sender", settings{options: s.o, URL: s.url, Begin: begin}); err != nil {
		return err
	}
	if s.crew == nil {
		if err := s.weather(ctx); err != nil {
			return err
		}
		return s.inspect(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	var killing sync.WaitGroup
	var trouble error
	killing.Go(func() {
		trouble = s.crew.run(ctx)
		cancel()
	})
	err = s.weather(ctx)
	if err == nil {
		if s.letters, err = s.crew.letters(ctx); err == nil {
			err = s.inspect(ctx)
		}
	}
	cancel()
	killing.Wait()
	return cmp.Or(trouble, err)
}

// inspect looks at what is left in Redis, if this side's queue is there.
func (s *side) inspect(ctx context.Context) (err error) {
	if s.o.Redis != "" && s.name == "breakwater" {
		s.problems, err = inspect(ctx, s.o)
	}
	return err
}

func (s *side) weather(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.sender.stop)
	defer stop()
	if err := s.listen(); err != nil {
		return cmp.Or(ctx.Err(), fmt.Errorf("the sender of the %s side: %w", s.name, err))
	}
	// The drain: until nothing has happened for longer than any takeover and the wait of a retry, also when all
	// is done: a second effect of something may still be on its way, and must not escape the count.
	quiet := time.Second + takeover(s.o.Scale) + retryWait(s.o)
	if s.o.server != nil { // leases that ended while Redis was away get one more
		quiet += lease(s.o.Scale)
	}
	if s.crew != nil { // the kills go on until all is done, and what is not can do without
		for ctx.Err() == nil && !s.complete() && s.systems.idle() < quiet {
			time.Sleep(200 * time.Millisecond)
		}
		close(s.crew.calm)
		s.systems.touch()
	}
	for ctx.Err() == nil && s.systems.idle() < quiet {
		time.Sleep(50 * time.Millisecond)
	}
	return ctx.Err()
}

// complete says whether all that was acknowledged has had its effects.
func (s *side) complete() bool {
	effects := s.systems.done()
	type key struct{ event, system string }
	had := map[key]bool{}
	for _, e := range effects {
		had[key{e.Event, e.System}] = true
	}
	states := s.states(effects)
	for _, e := range s.truth {
		for _, system := range steps[e.Topic] {
			if s.acked[e.ID] && !had[key{e.ID, system}] && !states.supersede(system, e) {
				return false
			}
		}
	}
	return true
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
	text := fmt.Sprintf("%d tries, %d of %d events acknowledged, %d effects", len(s.attempts), len(s.acked), len(s.truth), len(s.systems.done()))
	if s.crew != nil {
		k := s.crew.kills()
		text += fmt.Sprintf(", %d servers and %d workers killed", len(k.servers), k.workers)
		if s.o.server != nil {
			text += fmt.Sprintf(", Redis %d times", len(k.redis))
		}
	}
	return text
}

func (s *side) stop() {
	if s.sender != nil {
		s.sender.stop()
	}
	if s.app != nil {
		s.app.stop()
	}
	if s.crew != nil {
		s.crew.stop()
	}
	s.systems.stop()
}
