package redislimit

// Trust has a Store trust a bucket at once that it did not know.
func (s *Store) Trust() *Store { s.settleIn = 0; return s }
