package jobhttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What keeps callbacks out of private networks. A URL comes from a stranger, so it is looked at twice: as text, which spares an
// honest client a surprise, and as the address that is really dialed, which no DNS answer, redirect or way of writing an
// address can get around.

const maxURL = 2048 // bytes

// check reads a callback's URL and says what is wrong with it, in words for the client that do not repeat it.
func (c *Callbacks) check(text string) (*url.URL, error) {
	if len(text) > maxURL {
		return nil, fmt.Errorf("it has more than %d bytes", maxURL)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it is not a URL")
	}
	switch host := u.Hostname(); {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("it is not https")
	case u.Scheme == "http" && !c.cfg.AllowHTTP:
		return nil, errors.New("it is http, not https")
	case u.Opaque != "" || host == "":
		return nil, errors.New("it names no host")
	case u.User != nil:
		return nil, errors.New("it has a user name in it")
	case !validPort(u.Port()):
		return nil, errors.New("its port can't be")
	case !c.cfg.AllowPrivate && privateName(host):
		return nil, errors.New("its host is not public")
	}
	return u, nil
}

func validPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// privateName says whether a host is plainly not public: an address that is not, or a name that only a private network
// has. What other names stand for is known when they are dialed.
func privateName(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return !public(addr)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last == host || last == "localhost" || last == "local" || last == "internal"
}

var (
	// global6 is all of IPv6 that is given out. Outside of it are the unspecified, loopback, mapped and compatible addresses
	// (::/96, ::ffff:0:0/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48), discard (100::/64), SRv6 (5f00::/16), unique local (fc00::/7),
	// link-local (fe80::/10), site-local (fec0::/10) and multicast (ff00::/8). iana.org/assignments/ipv6-address-space
	global6 = netip.MustParsePrefix("2000::/3")

	// special are the exceptions within that and within IPv4, from iana.org/assignments/iana-ipv4-special-registry and
	// iana-ipv6-special-registry (RFC 6890), as of 2025. The few that the registries call globally reachable (AS112,
	// AMT) are in it too: no receiver of callbacks is there.
	special = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),       // this network
		netip.MustParsePrefix("10.0.0.0/8"),      // private
		netip.MustParsePrefix("100.64.0.0/10"),   // shared by carriers (CGNAT)
		netip.MustParsePrefix("127.0.0.0/8"),     // loopback
		netip.MustParsePrefix("169.254.0.0/16"),  // link-local, and there the metadata of clouds
		netip.MustParsePrefix("172.16.0.0/12"),   // private
		netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments
		netip.MustParsePrefix("192.0.2.0/24"),    // documentation
		netip.MustParsePrefix("192.31.196.0/24"), // AS112
		netip.MustParsePrefix("192.52.193.0/24"), // AMT
		netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relays
		netip.MustParsePrefix("192.168.0.0/16"),  // private
		netip.MustParsePrefix("192.175.48.0/24"), // AS112
		netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
		netip.MustParsePrefix("198.51.100.0/24"), // documentation
		netip.MustParsePrefix("203.0.113.0/24"),  // documentation
		netip.MustParsePrefix("224.0.0.0/4"),     // multicast
		netip.MustParsePrefix("240.0.0.0/4"),     // reserved, and broadcast

		netip.MustParsePrefix("2001::/23"),         // protocol assignments: Teredo, benchmarks, ORCHID
		netip.MustParsePrefix("2001:db8::/32"),     // documentation
		netip.MustParsePrefix("2002::/16"),         // 6to4: an IPv4 address in disguise
		netip.MustParsePrefix("2620:4f:8000::/48"), // AS112
		netip.MustParsePrefix("3ffe::/16"),         // 6bone, given back
		netip.MustParsePrefix("3fff::/20"),         // documentation

		netip.MustParsePrefix("168.63.129.16/32"), // in no registry: Azure's own services, as each of its machines sees them
	}
)

// public says whether an address may be called. It can't know of a NAT64 with a prefix of your own, nor which public addresses
// are yours.
func public(a netip.Addr) bool {
	if !a.IsValid() || a.Is6() && !global6.Contains(a) { // Is6 is true of mapped ones too, and one with a zone is in no prefix
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// privateError is why an address was not dialed.
type privateError struct{ addr string }

func (e *privateError) Error() string { return e.addr + " is not a public address" }

// Permanent makes the callback a dead letter: to try again would let a stranger probe the network at leisure.
func (e *privateError) Permanent() bool { return true }

// guard is called with each address just before it is dialed.
func guard(_ context.Context, network, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" || !public(addr.Addr()) {
		return &privateError{address}
	}
	return nil
}

// newTransport makes a transport that dials public addresses only. Proxy is nil: one from the environment would be dialed
// instead of the address, and be asked to dial it unguarded.
func newTransport(cfg CallbackConfig) *http.Transport {
	dialer := &net.Dialer{Timeout: cfg.Timeout, ControlContext: guard}
	if cfg.AllowPrivate {
		dialer.ControlContext = nil
	}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    cfg.Timeout,
		ResponseHeaderTimeout:  cfg.Timeout,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConns:           64,
		MaxResponseHeaderBytes: maxAnswer,
		DisableCompression:     true, // what is thrown away need not be unpacked
	}
}
