package rediscache

// Remembered is how many invalidations a partition remembers.
const Remembered = remembered

// KeyOf is where something of a scope stands.
func (s *Store) KeyOf(scope, what string) string { return s.partOf(scope).key(what) }

// Listens says whether all lines that are used have their channel.
func (s *Store) Listens() bool {
	for _, l := range s.lines {
		l.mu.Lock()
		hears := l.hears
		l.mu.Unlock()
		if !hears {
			return false
		}
	}
	return true
}
