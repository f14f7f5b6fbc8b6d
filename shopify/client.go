package shopify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// TokenSource has the access tokens of shops. It must be safe for concurrent use.
type TokenSource interface {
	// Token returns the token to call a shop with, such as example.myshopify.com.
	Token(ctx context.Context, shop string) (string, error)
}

// StaticToken is the token of a custom app, which has one shop: it is given for whatever shop is asked for.
type StaticToken string

// Token implements TokenSource.
func (t StaticToken) Token(context.Context, string) (string, error) { return string(t), nil }

// hidden is what is shown of a token.
const hidden = "(a token)"

// String hides the token.
func (t StaticToken) String() string { return hidden }

// GoString hides the token.
func (t StaticToken) GoString() string { return hidden }

// LogValue hides the token.
func (t StaticToken) LogValue() slog.Value { return slog.StringValue(hidden) }

// StaticTokens are tokens by shop.
type StaticTokens map[string]string

// Token implements TokenSource. Errors: ErrUnauthorized.
func (t StaticTokens) Token(_ context.Context, shop string) (string, error) {
	if token := t[shop]; token != "" {
		return token, nil
	}
	return "", fmt.Errorf("%w: there is no token of %s", ErrUnauthorized, shop)
}

// String hides the tokens.
func (t StaticTokens) String() string { return fmt.Sprintf("(%d tokens)", len(t)) }

// GoString hides the tokens.
func (t StaticTokens) GoString() string { return t.String() }

// LogValue hides the tokens.
func (t StaticTokens) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Client calls the Admin API of shops. It is safe for concurrent use.
type Client struct {
	transport *Transport
	tokens    TokenSource
	endpoint  string

	mu    sync.Mutex
	shops map[string]*Shop
}

// String says no more than what it is: the tokens in it are hidden.
func (c *Client) String() string { return "shopify.Client" }

// GoString is String.
func (c *Client) GoString() string { return c.String() }

// ClientConfig tunes a Client. The zero value is valid.
type ClientConfig struct {
	Config

	// Endpoint is where requests are sent instead of to https://SHOP, with the shop as their Host: that of a fake, such as http://localhost:4000. "" means the shop.
	Endpoint string
}

// New makes a Client.
//
// It fails if tokens is nil, or as NewTransport does.
func New(tokens TokenSource, cfg ClientConfig) (*Client, error) {
	if tokens == nil {
		return nil, errors.New("shopify: New: tokens is nil; a custom app's is a StaticToken")
	}
	t, err := NewTransport(cfg.Config)
	if err != nil {
		return nil, err
	}
	return &Client{transport: t, tokens: tokens, endpoint: strings.TrimSuffix(cfg.Endpoint, "/"), shops: map[string]*Shop{}}, nil
}

// Shop is one shop, to be called by Query, Mutate, Each and REST. It is safe for concurrent use, and cheap: take one whenever it is needed.
type Shop struct {
	client *Client
	// Domain is the shop's, as in example.myshopify.com.
	Domain string

	mu   sync.Mutex
	left quotaLeft
}

// String is the domain.
func (s *Shop) String() string { return s.Domain }

// GoString is String.
func (s *Shop) GoString() string { return s.Domain }

// quotaLeft is what the last answer said of the bucket.
type quotaLeft struct{ left, size float64 }

// Shop returns a shop by its domain, such as example.myshopify.com.
//
// Errors: ErrShop.
func (c *Client) Shop(domain string) (*Shop, error) {
	if err := CheckDomain(domain); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.shops[domain]; s != nil {
		return s, nil
	}
	if len(c.shops) >= manyShops {
		clear(c.shops) // what the last answers said is soon said again
	}
	s := &Shop{client: c, Domain: domain}
	c.shops[domain] = s
	return s, nil
}

// Query asks a shop, and decodes the answer's data into a T.
//
// Errors: ErrQuota, ErrTooExpensive and breaker.ErrOpen: nothing was sent. *ResponseError: the answer has errors; T has what there is of data. *StatusError. *ThrottledError.
func Query[T any](ctx context.Context, s *Shop, query string, variables map[string]any) (T, error) {
	var out T
	_, err := s.graphql(ctx, Request{Query: query, Variables: variables}, &out)
	return out, err
}

// Mutate changes something in a shop, and decodes the answer's data into a T. Every field of the mutation should ask for its userErrors { field message }, and for their code where there is one.
//
// Where the mutation has @idempotent(key: $idempotencyKey), the variable is filled in from WithIdempotencyKey, and the call is sent again after failures.
//
// Errors: those of Query; *UserErrorsError: the shop will not do it, T has the payload.
func Mutate[T any](ctx context.Context, s *Shop, query string, variables map[string]any) (T, error) {
	var out T
	r := Request{Query: query, Variables: variables}
	costs, err := s.client.transport.costsOf(s.client.transport.cfg.Version)
	if err != nil {
		return out, err
	}
	p, err := costs.plan(r)
	if err != nil {
		return out, err
	}
	if p.op.VariableDefinitions.ForName(keyVariable) != nil && variables[keyVariable] == nil {
		key, err := idempotencyKey(ctx, p.what(), variables)
		if err != nil {
			return out, err
		}
		if r.Variables = maps.Clone(variables); r.Variables == nil {
			r.Variables = map[string]any{}
		}
		r.Variables[keyVariable] = key
	}
	data, err := s.graphql(ctx, r, &out)
	if err == nil {
		err = s.userErrors(data, p.payloadErrors())
	}
	return out, err
}

// keyVariable is the variable that Mutate fills in.
const keyVariable = "idempotencyKey"

type idempotencyCtx struct{}

// WithIdempotencyKey gives the mutations of a context their keys: for each another, made of key and of what the mutation is and says. key names the piece of work, and is the same whenever that is
// done again: the ID of a queue's job, or the key of an idempotency.Once. Shopify remembers keys for 24 hours.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyCtx{}, key)
}

// idempotencyKey makes a mutation's key: a UUID, as the API wants it, of the context's key, what the mutation does, and with what. What it asks to have answered makes no difference.
func idempotencyKey(ctx context.Context, what string, variables map[string]any) (string, error) {
	key, _ := ctx.Value(idempotencyCtx{}).(string)
	if key == "" {
		return "", fmt.Errorf("shopify: the mutation needs a key: give $%s, or the context one by WithIdempotencyKey", keyVariable)
	}
	b, err := json.Marshal(variables)
	if err != nil {
		return "", fmt.Errorf("shopify: the variables: %w", err)
	}
	sum := sha256.Sum256(append([]byte(key+"\x00"+what+"\x00"), b...))
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80 // version 8, RFC 9562
	h := hex.EncodeToString(u)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
}

// graphql sends a request and decodes the data. It returns the data too.
func (s *Shop) graphql(ctx context.Context, r Request, out any) (json.RawMessage, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("shopify: the variables: %w", err)
	}
	rep, err := s.send(context.WithValue(ctx, requestKey{}, &r), http.MethodPost, "graphql.json", body, true)
	if err != nil {
		return nil, err
	}
	if c := rep.extracts.Extensions.Cost; c != nil {
		s.note(c.ThrottleStatus.CurrentlyAvailable, c.ThrottleStatus.MaximumAvailable)
	}
	var a struct {
		Data   json.RawMessage `json:"data"`
		Errors []GraphError    `json:"errors"`
	}
	if err := json.Unmarshal(rep.body, &a); err != nil {
		return nil, fmt.Errorf("shopify: %s answered what is no JSON: %w", s.Domain, err)
	}
	partial := len(a.Data) > 0 && !bytes.Equal(a.Data, []byte("null"))
	var unfit error
	if partial && out != nil {
		if err := json.Unmarshal(a.Data, out); err != nil {
			unfit = fmt.Errorf("shopify: the answer of %s does not fit %T: %w", s.Domain, out, err)
		}
	}
	switch {
	case len(a.Errors) > 0:
		e := &ResponseError{Shop: s.Domain, Errors: a.Errors, RequestID: rep.Header.Get("X-Request-Id"), Partial: partial}
		if rep.throttled {
			return a.Data, &ThrottledError{Err: e, After: rep.after}
		}
		if unfit != nil {
			return a.Data, errors.Join(e, unfit)
		}
		return a.Data, e
	case unfit != nil:
		return nil, unfit
	case !partial:
		return nil, fmt.Errorf("shopify: %s answered without data and without errors", s.Domain)
	}
	return a.Data, nil
}

func (s *Shop) note(left, size float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = quotaLeft{left, size}
}

// send sends a request to a resource below the version, and makes an error of a status that is none of success.
func (s *Shop) send(ctx context.Context, method, resource string, body []byte, graphql bool) (*reply, error) {
	c := s.client
	token, err := c.tokens.Token(ctx, s.Domain)
	if err != nil {
		return nil, fmt.Errorf("shopify: the token of %s: %w", s.Domain, err)
	}
	base := "https://" + s.Domain
	if c.endpoint != "" {
		base = c.endpoint
	}
	req, err := http.NewRequestWithContext(ctx, method, base+"/admin/api/"+c.transport.cfg.Version+"/"+resource, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("shopify: %w", err)
	}
	req.Host = s.Domain
	req.Header = http.Header{"X-Shopify-Access-Token": {token}, "Accept": {"application/json"}}
	x := &exchange{shop: s.Domain, path: req.URL.Path, version: c.transport.cfg.Version, cost: 1, body: body, repeatable: method != http.MethodPost && method != http.MethodPatch}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if graphql {
		if err := c.transport.openGraphQL(req, x); err != nil {
			return nil, err
		}
	}
	r, err := c.transport.do(req, x)
	if err != nil {
		return nil, err
	}
	if r.StatusCode/100 != 2 {
		e := &StatusError{Shop: s.Domain, Status: r.StatusCode, RequestID: r.Header.Get("X-Request-Id"), Body: strings.TrimSpace(string(r.body[:min(len(r.body), 1024)]))}
		if r.throttled {
			return nil, &ThrottledError{Err: e, After: r.after}
		}
		return nil, e
	}
	return r, nil
}

// userErrors finds the user errors in the payloads of a mutation's data. keys are where they are.
func (s *Shop) userErrors(data json.RawMessage, keys map[string][]string) error {
	var roots map[string]json.RawMessage
	if err := json.Unmarshal(data, &roots); err != nil {
		return fmt.Errorf("shopify: the data of %s is no object: %w", s.Domain, err)
	}
	var all []UserError
	for _, root := range slices.Sorted(maps.Keys(keys)) {
		var payload map[string]json.RawMessage
		if roots[root] == nil { // left out by a directive
			continue
		}
		if err := json.Unmarshal(roots[root], &payload); err != nil {
			return fmt.Errorf("shopify: %s of %s is no payload: %w", root, s.Domain, err)
		}
		for _, key := range keys[root] {
			var errs []UserError
			if raw := payload[key]; raw != nil {
				if err := json.Unmarshal(raw, &errs); err != nil {
					return fmt.Errorf("shopify: %s.%s of %s can't be read: %w", root, key, s.Domain, err)
				}
			}
			for _, e := range errs {
				e.Mutation = root
				all = append(all, e)
			}
		}
	}
	if all == nil {
		return nil
	}
	return &UserErrorsError{Shop: s.Domain, Errors: all}
}

// REST calls a resource of the REST API, such as GET "products.json?limit=50", and decodes the answer into out, where that is not nil. in is the body, encoded as JSON; nil for none. It returns the
// answer's header: Link has the next page, for which Next is there.
//
// Errors: ErrQuota and breaker.ErrOpen: nothing was sent. *StatusError. *ThrottledError.
func (s *Shop) REST(ctx context.Context, method, resource string, in, out any) (http.Header, error) {
	var body []byte
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("shopify: the body: %w", err)
		}
		body = b
	}
	r, err := s.send(ctx, method, strings.TrimPrefix(resource, "/"), body, false)
	if err != nil {
		return nil, err
	}
	if out != nil && len(r.body) > 0 {
		if err := json.Unmarshal(r.body, out); err != nil {
			return r.Header, fmt.Errorf("shopify: the answer of %s does not fit %T: %w", s.Domain, out, err)
		}
	}
	return r.Header, nil
}

// Next is the resource of the page after an answer of REST, "" if it was the last.
func Next(h http.Header) string {
	for _, line := range h.Values("Link") {
		for line != "" { // <URL>; rel="next", <URL>; … (RFC 8288): a URL may have commas
			_, rest, ok := strings.Cut(line, "<")
			url, rest, closed := strings.Cut(rest, ">")
			if !ok || !closed {
				break
			}
			params, after, _ := strings.Cut(rest, ",")
			line = after
			if !isNext(params) {
				continue
			}
			if _, rest, ok := strings.Cut(url, "/admin/api/"); ok {
				_, resource, _ := strings.Cut(rest, "/")
				return resource
			}
		}
	}
	return ""
}

func isNext(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") && slices.Contains(strings.Fields(strings.Trim(strings.TrimSpace(v), `"`)), "next") {
			return true
		}
	}
	return false
}
