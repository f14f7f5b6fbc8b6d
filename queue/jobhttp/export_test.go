package jobhttp

import (
	"net/http"
	"net/netip"
	"time"
)

// For tests of what stands between a stranger's URL and the network.
func Public(a netip.Addr) bool { return public(a) }

func Guard(network, address string) error { return guard(nil, network, address, nil) } //nolint:staticcheck // it does not look at its context

func (c *Callbacks) Check(text string) error {
	_, err := c.check(text)
	return err
}

func RetryAfter(value string, now time.Time) (time.Duration, bool) { return retryAfter(value, now) }

func Sign(secrets []string, id string, at time.Time, body []byte) (string, error) {
	return sign(secrets, id, at, body)
}

func NewTransport(cfg CallbackConfig) *http.Transport { return newTransport(cfg) }
