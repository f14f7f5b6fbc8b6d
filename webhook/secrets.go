package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"runtime/debug"
	"sync"
	"time"
)

// Secret is one key that Shopify may have signed with.
type Secret struct {
	App string // names the app in [Meta.App]; may be empty where there is one app
	Key string // the app's client secret, or the shop's own for webhooks made in the admin
}

// SecretFunc gives the secrets that a shop's deliveries may be signed with, newest first: those of
// each app that the endpoint serves, the former one for at least an hour after a rotation (Shopify
// takes that long to sign with the new one), and the shop's own where webhooks were made in its
// admin. No secrets and a nil error mean that the shop is unknown: its deliveries get 401.
// An error means that the secrets can't be had now: the delivery gets 503 and comes again.
//
// It runs before anything is verified: shop is what the request claims, checked only for the form
// "name.myshopify.com". Results are cached (see [Config.SecretTTL]), and concurrent deliveries of one shop
// share one call, whose context ends after 4.5 s. At most 32 calls run at once for shops that were
// not known before, and 32 to renew what is known; others wait.
type SecretFunc func(ctx context.Context, shop string) ([]Secret, error)

// Secrets is the SecretFunc of a single app: keys are its client secret and, during and after a
// rotation, the former ones.
func Secrets(keys ...string) SecretFunc {
	list := make([]Secret, len(keys))
	for i, k := range keys {
		list[i] = Secret{Key: k}
	}
	return func(context.Context, string) ([]Secret, error) { return list, nil }
}

const (
	// maxLookups bounds the calls of a SecretFunc under way, so that a flood of invented shops can't
	// drain the database behind it. Known shops have calls of their own to renew what is cached.
	maxLookups = 32
	// maxShops bounds the cached shops of each kind: twice this many at most are kept.
	maxShops = 10_000
	// unknownTTL is how long a shop stays unknown; short, so that a new install is soon heard.
	unknownTTL = 10 * time.Second
)

// keyring caches what a SecretFunc said, known and unknown shops apart, so that invented names can't
// push out real ones.
type keyring struct {
	load SecretFunc
	ttl  time.Duration

	renewals  chan struct{} // slots of calls for shops that were known before
	strangers chan struct{} // slots of calls for all others

	mu      sync.RWMutex
	known   generations[keys]
	unknown generations[keys]
	flights map[string]*flight
	signers map[string]*signer
}

// keys are the signers of one shop, until the cached answer ends.
type keys struct {
	list []*signer
	end  time.Time
}

// flight is one call of the SecretFunc and those that wait for it.
type flight struct {
	done chan struct{}
	list []*signer
	err  error
}

func newKeyring(load SecretFunc, ttl time.Duration) *keyring {
	return &keyring{
		load: load, ttl: ttl, flights: map[string]*flight{}, signers: map[string]*signer{},
		renewals: make(chan struct{}, maxLookups), strangers: make(chan struct{}, maxLookups),
	}
}

// of gives the signers of a shop; none if it is unknown.
func (k *keyring) of(ctx context.Context, now time.Time, shop string) ([]*signer, error) {
	k.mu.RLock()
	known, wasKnown := k.known.get(shop)
	cached, ok := known, wasKnown && now.Before(known.end)
	if !ok {
		cached, ok = k.unknown.get(shop)
		ok = ok && now.Before(cached.end)
	}
	k.mu.RUnlock()
	if ok {
		return cached.list, nil
	}

	k.mu.Lock()
	f, running := k.flights[shop]
	if !running {
		f = &flight{done: make(chan struct{})}
		k.flights[shop] = f
		slots := k.strangers
		if wasKnown {
			slots = k.renewals
		}
		go k.fly(context.WithoutCancel(ctx), shop, f, slots)
	}
	k.mu.Unlock()
	select {
	case <-f.done:
		return f.list, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly makes one call of the SecretFunc for all that wait for it, with a deadline of its own: whoever
// happened to be first must not set it. A call that ignores its context is left behind, and keeps its
// slot.
func (k *keyring) fly(ctx context.Context, shop string, f *flight, slots chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, maxTotal)
	defer cancel()
	type result struct {
		secrets []Secret
		err     error
	}
	results := make(chan result, 1)
	select {
	case slots <- struct{}{}:
		go func() {
			r := result{err: errLookup} // stands if load exits its goroutine
			defer func() {
				if v := recover(); v != nil {
					r.err = &panicError{value: v, what: "SecretFunc", stack: debug.Stack()}
				}
				<-slots
				results <- r
			}()
			r.secrets, r.err = k.load(ctx, shop)
		}()
	case <-ctx.Done():
	}
	var r result
	select {
	case r = <-results:
	case <-ctx.Done():
		r.err = ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.flights, shop)
	if f.err = r.err; f.err == nil {
		f.list = k.signersOf(r.secrets)
		k.keep(shop, f.list)
	}
	close(f.done)
}

// keep caches an answer. k.mu is held.
func (k *keyring) keep(shop string, list []*signer) {
	if len(list) == 0 {
		k.known.drop(shop)
		k.unknown.put(shop, keys{end: time.Now().Add(min(unknownTTL, k.ttl))})
		return
	}
	k.unknown.drop(shop)
	k.known.put(shop, keys{list, time.Now().Add(k.ttl)})
}

// signersOf turns secrets into signers; shops that share a secret share its signer, and with it the
// pooled hash states. k.mu is held.
func (k *keyring) signersOf(secrets []Secret) []*signer {
	list := make([]*signer, 0, len(secrets))
	for _, s := range secrets {
		if s.Key == "" {
			continue // an unset variable must not become a secret that anybody knows
		}
		id := s.App + "\x00" + s.Key
		sg, ok := k.signers[id]
		if !ok {
			if len(k.signers) >= maxShops {
				clear(k.signers) // costs sharing, nothing else
			}
			sg = newSigner(s)
			k.signers[id] = sg
		}
		list = append(list, sg)
	}
	return list
}

// signer computes the HMAC of one secret. crypto/hmac keeps the two key blocks' state over a Reset,
// which saves two of the few hash blocks that a small body has.
type signer struct {
	app   string
	pool  sync.Pool
	plain []byte
}

func newSigner(s Secret) *signer {
	sg := &signer{app: s.App, plain: []byte(s.Key)}
	sg.pool.New = func() any { return hmac.New(sha256.New, sg.plain) }
	return sg
}

// matches says whether sum is the HMAC-SHA256 of body, in constant time.
func (s *signer) matches(body []byte, sum *[sha256.Size]byte, scratch []byte) bool {
	h, _ := s.pool.Get().(hash.Hash)
	h.Reset()
	h.Write(body)
	got := h.Sum(scratch[:0])
	s.pool.Put(h)
	return subtle.ConstantTimeCompare(got, sum[:]) == 1
}

// generations is a bounded cache of two maps: once the young one is full it becomes the old one, and
// the old one is dropped. What is read again moves over at its next put.
type generations[V any] struct{ young, old map[string]V }

func (g *generations[V]) get(key string) (V, bool) {
	if v, ok := g.young[key]; ok {
		return v, true
	}
	v, ok := g.old[key]
	return v, ok
}

func (g *generations[V]) put(key string, v V) {
	if len(g.young) >= maxShops {
		g.old, g.young = g.young, nil
	}
	if g.young == nil {
		g.young = make(map[string]V)
	}
	g.young[key] = v
}

func (g *generations[V]) drop(key string) {
	delete(g.young, key)
	delete(g.old, key)
}

// validShop says whether s has the form name.myshopify.com, name being of a-z, 0-9 and "-" and not
// starting with "-": the only hosts that Shopify sends for. s is lower case already.
func validShop(s string) bool {
	const suffix = ".myshopify.com"
	n := len(s) - len(suffix)
	if n < 1 || n > 100 || s[n:] != suffix || s[0] == '-' {
		return false
	}
	for i := range n {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
