package main

import "time"

// keyHeader is the header of a key that a caller passes on, so that a call that is made again has no second effect. Only the Breakwater side
// does so.
const keyHeader = "Idempotency-Key"

// keyed is a call as a system remembers it.
type keyed struct {
	call
	key    string
	system string
	came   time.Time
	ended  time.Time // when it was answered; zero while it is under way
	done   bool      // it took effect, or one before it had
	noted  bool      // it was recorded as done before it came
}

// came takes note of a call, and says how far the storm is.
func (s *systems) came(k *keyed) (share float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.came = time.Now()
	s.under++
	s.last = k.came
	if k.key != "" {
		k.noted = s.noted[k.key]
		s.keyed[k.key] = append(s.keyed[k.key], k)
	}
	return float64(k.came.Sub(s.begin)) * s.scale / float64(stormLength)
}

func (s *systems) answered(k *keyed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.ended = time.Now()
	s.under--
}

// again says whether a call of the same key took effect before.
func (s *systems) again(k *keyed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.before(k)
}

func (s *systems) before(k *keyed) bool {
	for _, other := range s.keyed[k.key] {
		k.done = k.done || other.done
	}
	return k.done
}

// take gives a call its effect, unless another of the same key had it meanwhile.
func (s *systems) take(k *keyed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.before(k) {
		k.done = true
		s.effects = append(s.effects, effect{System: k.system, call: k.call, Came: k.came, Done: time.Now()})
	}
}

// read adds effects that were found in the database, where that is no process here.
func (s *systems) read(effects []effect) {
	if len(effects) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.effects = append(s.effects, effects...)
	s.last = time.Now()
}

// kills takes note that a worker is about to be killed, and of what it is doing.
func (s *systems) kills(worker int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed[worker] = time.Now()
	for _, calls := range s.keyed {
		if k := calls[len(calls)-1]; k.Worker == worker && k.ended.IsZero() {
			s.deaths = append(s.deaths, k.call)
		}
	}
}

// busy says whether a call with a key was under way at a moment: a worker was in the midst of a job.
func (s *systems) busy(at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, calls := range s.keyed {
		for _, k := range calls {
			if k.came.Before(at) && (k.ended.IsZero() || k.ended.After(at)) {
				return true
			}
		}
	}
	return false
}

// repeats counts the calls that were made although one of their key had taken effect, or was still under way. A repeat is excused if the
// worker that made the call before it was killed before the repeat came in, and if the call was not recorded as done: nobody could know. What a
// dead worker had sent may come in after its death, so nothing is asked of that call's time; a worker's number is that of one process. Any other
// repeat is a job that ran twice.
func (s *systems) repeats() (excused, twice int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, calls := range s.keyed {
		for i, k := range calls[1:] {
			before := calls[i]
			killed, dead := s.killed[before.Worker]
			switch {
			case k.noted:
				twice++
			case before.failed(k): // its caller was told to try again
			case dead && killed.Before(k.came):
				excused++
			default:
				twice++
			}
		}
	}
	return excused, twice
}

// failed says whether a call had failed when the next one came.
func (k *keyed) failed(next *keyed) bool {
	return !k.done && !k.ended.IsZero() && k.ended.Before(next.came)
}
