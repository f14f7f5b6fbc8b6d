package brokertest

import (
	"strings"
	"testing"
)

// Refutes says whether the suite finds fault with an engine by the check of a name, or by an invariant that a random
// sequence quotes; and else what it found first.
func Refutes(t *testing.T, cfg Config, by string) (ok bool, found string) {
	t.Helper()
	cfg.Steps = 120
	for _, c := range checks {
		if c.name == by {
			err := cfg.check(t, c)
			return err != nil, ""
		}
	}
	for seed := range uint64(60) {
		if err := cfg.random(t, seed+1); err != nil {
			if strings.Contains(err.Error(), by) {
				return true, ""
			}
			found = err.Error()
		}
	}
	return false, found
}
