package brokertest

import "testing"

// Failures runs the whole suite on an engine and answers what it finds, by the names of the checks; a random
// sequence's is under "random".
func Failures(t *testing.T, cfg Config) map[string]string {
	t.Helper()
	cfg.Steps = 120
	found := map[string]string{}
	for _, c := range checks {
		if err := cfg.check(t, c); err != nil {
			found[c.name] = err.Error()
		}
	}
	for seed := range uint64(40) {
		if err := cfg.random(t, seed+1); err != nil {
			found["random"] = err.Error()
			break
		}
	}
	return found
}
