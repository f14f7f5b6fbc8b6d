package shopify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/shopify"
	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

func reply(r *http.Request, status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

const ext = `"extensions":{"cost":{"requestedQueryCost":%v,"actualQueryCost":%v,"throttleStatus":{"maximumAvailable":2000,"currentlyAvailable":%v,"restoreRate":100}}}`

func TestAMutationThatHasDataIsNotSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			sent++
			return reply(r, 200, `{"data":{"a":{"order":{"id":"gid://shopify/Order/1"}},"b":null},"errors":[{"message":"Throttled","path":["b"],"extensions":{"code":"THROTTLED"}}],`+fmt.Sprintf(ext, 20, 10, 1900)+`}`), nil
		})
		s := newClient(t, base, nil)
		_, err := shopify.Mutate[any](t.Context(), s, `mutation { a: orderCreate(order: {}) { order { id } } b: orderCreate(order: {}) { order { id } } }`, nil)
		t.Log(err)
		require.Equal(t, 1, sent, "an answer with data has taken effect")
	})
}

func TestA429WithoutABucketIsNotSentAgainAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begun := time.Now()
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			at = append(at, time.Since(begun))
			return reply(r, 429, `{"errors":"slow"}`, "Retry-After", "2.0"), nil
		})
		s := newClient(t, base, nil)
		_, err := s.REST(t.Context(), http.MethodPost, "products.json", map[string]any{}, nil)
		t.Log(err, at)
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i]-at[i-1], 2*time.Second, "Retry-After: 2.0")
		}
	})
}

func TestAThrottledAnswerTellsTheCost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begun := time.Now()
		left := 300.0
		last := begun
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			now := time.Now()
			left += 100 * now.Sub(last).Seconds()
			last = now
			at = append(at, time.Since(begun))
			if left < 500 {
				return reply(r, 200, `{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],`+fmt.Sprintf(ext, 500, "null", int(left))+`}`), nil
			}
			left -= 500
			return reply(r, 200, `{"data":{"shop":{"id":"1"}},`+fmt.Sprintf(ext, 500, 500, int(left))+`}`), nil
		})
		s := newClient(t, base, nil)
		_, err := shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil) // computed: 1 or so
		t.Log(err, at)
		require.NoError(t, err, "2 s are enough")
		require.LessOrEqual(t, len(at), 2)
	})
}

func TestMaxThrottledIsOfAnyCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			sent++
			if strings.HasSuffix(r.URL.Path, "graphql.json") {
				return reply(r, 200, `{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],`+fmt.Sprintf(ext, 1, "null", 0)+`}`), nil
			}
			return reply(r, 429, `{}`, "X-Shopify-Shop-Api-Call-Limit", "40/40"), nil
		})
		s := newClient(t, base, func(c *shopify.Config) { c.MaxThrottled = 2 })
		_, err := s.REST(t.Context(), http.MethodGet, "shop.json", nil, nil)
		require.ErrorIs(t, err, shopify.ErrThrottled)
		require.Equal(t, 3, sent)
		_, err = shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
		require.ErrorIs(t, err, shopify.ErrThrottled)
		require.Equal(t, 6, sent)
	})
}

func TestAThrottledAnswerTeachesTheCost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reserved []float64
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			if len(reserved) == 0 {
				return reply(r, 200, `{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],`+fmt.Sprintf(ext, 7, "null", 5)+`}`), nil
			}
			return reply(r, 200, `{"data":{"shop":{"id":"1"}},`+fmt.Sprintf(ext, 7, 7, 1900)+`}`), nil
		})
		s := newClient(t, base, func(c *shopify.Config) {
			c.OnAnswer = func(a shopify.Answered) { reserved = append(reserved, a.Requested) }
		})
		for range 2 {
			_, err := shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
			require.NoError(t, err)
		}
		require.Equal(t, []float64{1, 7, 7}, reserved)
	})
}

func TestAnAnswerThatIsTooLongIsNotFetchedAgain(t *testing.T) {
	t.Parallel()
	sent := 0
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		sent++
		return reply(r, 200, `{"data":{"shop":{"id":"`+strings.Repeat("1", 100)+`"}}}`), nil
	})
	s := newClient(t, base, func(c *shopify.Config) { c.MaxAnswer = 100 })
	_, err := shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
	require.ErrorContains(t, err, "Config.MaxAnswer, 100 bytes")
	var p interface {
		error
		Permanent() bool
	}
	require.ErrorAs(t, err, &p)
	require.True(t, p.Permanent())
	require.Equal(t, 1, sent)
}

func TestAnActualCostAboveTheRequestedOne(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := shopify.NewLocal()
	call := func(id uint64, cost float64) shopify.Call {
		return shopify.Call{ID: id, Cost: cost, Lease: time.Minute}
	}
	take := func(c shopify.Call) shopify.Grant {
		turn, err := b.Take(ctx, "s", c)
		require.NoError(t, err)
		require.True(t, turn.Granted)
		return turn.Grant
	}
	const rate = 1e-6
	probe := call(1, 1)
	require.NoError(t, b.Settle(ctx, "s", probe, take(probe), shopify.Answer{Actual: 1, Left: 1000, Size: 1000, Rate: rate}))
	a, x := call(2, 10), call(3, 10)
	ga, gx := take(a), take(x)
	// Shopify: a first (left 990), then x, which really costs 600 (left 390). x's answer comes first.
	require.NoError(t, b.Settle(ctx, "s", x, gx, shopify.Answer{Actual: 600, Left: 390, Size: 1000, Rate: rate}))
	require.NoError(t, b.Settle(ctx, "s", a, ga, shopify.Answer{Actual: 10, Left: 990, Size: 1000, Rate: rate}))
	turn, err := b.Take(ctx, "s", call(4, 700))
	require.NoError(t, err)
	require.False(t, turn.Granted, "390 are left, and 700 were let go")
}

func TestAPanicBeneathLosesNoQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			if n++; n == 1 {
				panic("a middleware's bug")
			}
			return reply(r, 200, `{"data":{"shop":{"id":"1"}},`+fmt.Sprintf(ext, 1, 1, 1999)+`}`), nil
		})
		s := newClient(t, base, nil)
		ask := func() (err error) {
			defer func() {
				if v := recover(); v != nil {
					err = fmt.Errorf("%v", v)
				}
			}()
			_, err = shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
			return err
		}
		require.Error(t, ask())
		time.Sleep(10 * time.Minute) // far beyond the Lease
		require.NoError(t, ask())
	})
}

func TestAReservationEndsWithItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{Lease: time.Second})
		require.NoError(t, err)
		r, err := l.Reserve(t.Context(), "s", 1)
		require.NoError(t, err)
		require.NoError(t, r.Settle(t.Context(), shopify.Answer{Actual: 1, Left: 1000, Size: 1000, Rate: 100}))
		_, err = l.Reserve(t.Context(), "s", 850)
		require.NoError(t, err) // its goroutine is gone
		time.Sleep(time.Hour)
		_, err = l.Reserve(t.Context(), "s", 850)
		require.NoError(t, err)
	})
}

type counting struct {
	shopify.Buckets
	takes atomic.Int64
}

func (c *counting) Take(ctx context.Context, name string, call shopify.Call) (shopify.Turn, error) {
	c.takes.Add(1)
	return c.Buckets.Take(ctx, name, call)
}

func TestWaitersOfAnUnknownBucketDoNotPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &counting{Buckets: shopify.NewLocal()}
		l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: b})
		require.NoError(t, err)
		probe, err := l.Reserve(t.Context(), "s", 1)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if r, err := l.Reserve(ctx, "s", 1); err == nil {
					_ = r.Cancel(ctx)
				}
			})
		}
		synctest.Wait()
		before := b.takes.Load()
		time.Sleep(time.Second)
		n := b.takes.Load() - before
		cancel()
		wg.Wait()
		_ = probe.Cancel(t.Context())
		require.Less(t, n, int64(500), "50 waiters, one second")
	})
}

func TestWaitersBehindADearCallDoNotPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &counting{Buckets: shopify.NewLocal()}
		l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: b})
		require.NoError(t, err)
		r, err := l.Reserve(t.Context(), "s", 500)
		require.NoError(t, err)
		require.NoError(t, r.Settle(t.Context(), shopify.Answer{Actual: 5, Left: 600, Size: 2000, Rate: 100})) // actual is 1 % of the requested
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				cost := 1.0
				if i == 0 {
					cost = 1000
				} else {
					time.Sleep(time.Millisecond)
				}
				if r, err := l.Reserve(ctx, "s", cost); err == nil {
					_ = r.Cancel(ctx)
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		before := b.takes.Load()
		time.Sleep(time.Second)
		n := b.takes.Load() - before
		cancel()
		wg.Wait()
		require.Less(t, n, int64(500), "50 waiters, one second")
	})
}

func TestNumbersOfAnyKind(t *testing.T) {
	t.Parallel()
	type size int
	n := 250
	f := float32(250)
	const q = `query($n: Int!) { products(first: $n) { nodes { id variants(first: 50) { nodes { id } } } } }`
	c, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	want, err := c.Of(shopify.Request{Query: q, Variables: map[string]any{"n": 250}})
	require.NoError(t, err)
	for _, v := range []any{uint(250), int16(250), uint64(250), size(250), &n, f} {
		got, err := c.Of(shopify.Request{Query: q, Variables: map[string]any{"n": v}})
		if err != nil || got != want {
			t.Errorf("%T: %d, want %d (%v)", v, got, want, err)
		}
	}
}

func TestVariablesOfAnyType(t *testing.T) {
	t.Parallel()
	type variant struct {
		Price string `json:"price"`
	}
	c, err := shopify.NewCosts("2026-04")
	require.NoError(t, err)
	const q = `mutation($p: ProductCreateInput!, $m: [CreateMediaInput!]) { productCreate(product: $p, media: $m) { product { id } } }`
	want, err := c.Of(shopify.Request{Query: q, Variables: map[string]any{"m": make([]any, 100)}})
	require.NoError(t, err)
	list := make([]variant, 100)
	got, err := c.Of(shopify.Request{Query: q, Variables: map[string]any{"m": &list}})
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestTypenameDoesNotHideUserErrors(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	s := newClient(t, fake, nil)
	_, err := shopify.Mutate[any](t.Context(), s, `mutation { __typename productCreate(product: {title: ""}) { product { id } userErrors { field message } } }`, nil)
	require.ErrorIs(t, err, shopify.ErrUserErrors)
}

func TestAnAliasDoesNotHideUserErrors(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	s := newClient(t, fake, nil)
	_, err := shopify.Mutate[any](t.Context(), s, `mutation { productCreate(product: {title: ""}) { product { id } errors: userErrors { field message } } }`, nil)
	require.ErrorIs(t, err, shopify.ErrUserErrors)
}

func TestGraphQLThatCantBeReadUsesTheBucketOfPoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			sent++
			if sent == 1 {
				return reply(r, 200, `{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],`+fmt.Sprintf(ext, 10, "null", 5)+`}`), nil
			}
			return reply(r, 200, `{"data":{"shop":{"id":"1"}},`+fmt.Sprintf(ext, 10, 1, 1999)+`}`), nil
		})
		names := &naming{Buckets: shopify.NewLocal()}
		l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: names})
		require.NoError(t, err)
		tr, err := shopify.NewTransport(shopify.Config{Base: base, Limiter: l})
		require.NoError(t, err)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+shopName+"/admin/api/2026-04/graphql.json", strings.NewReader(`{ shop { id } }`))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/graphql")
		b, err := roundTrip(tr, r)
		require.NoError(t, err)
		t.Log(string(b), names.all)
		require.NotContains(t, strings.Join(names.all, " "), "/rest")
		require.NotContains(t, string(b), "THROTTLED")
	})
}

type naming struct {
	shopify.Buckets
	mu  sync.Mutex
	all []string
}

func (c *naming) Take(ctx context.Context, name string, call shopify.Call) (shopify.Turn, error) {
	c.mu.Lock()
	c.all = append(c.all, name)
	c.mu.Unlock()
	return c.Buckets.Take(ctx, name, call)
}

func TestAShopHasOneBucketHoweverItsURLIsWritten(t *testing.T) {
	t.Parallel()
	names := &naming{Buckets: shopify.NewLocal()}
	l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: names})
	require.NoError(t, err)
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		return reply(r, 200, `{"data":{"shop":{"id":"1"}},`+fmt.Sprintf(ext, 1, 1, 1999)+`}`), nil
	})
	tr, err := shopify.NewTransport(shopify.Config{Base: base, Limiter: l})
	require.NoError(t, err)
	for _, url := range []string{
		"https://example.myshopify.com/admin/api/2026-04/graphql.json", "https://Example.myshopify.com/admin/api/2026-04/graphql.json",
		"https://example.myshopify.com:443/admin/api/2026-04/graphql.json", "https://example.myshopify.com/admin/api/graphql.json",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"query":"{ shop { id } }"}`))
		require.NoError(t, err)
		_, err = roundTrip(tr, r)
		require.NoError(t, err)
		require.Equal(t, []string{"example.myshopify.com"}, names.all, url)
		names.all = nil
	}
}

func TestRetryAfterOfA503(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begun := time.Now()
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			at = append(at, time.Since(begun))
			return reply(r, 503, ``, "Retry-After", "5"), nil
		})
		s := newClient(t, base, nil)
		_, err := shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
		require.Error(t, err)
		require.Greater(t, len(at), 1)
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i]-at[i-1], 5*time.Second)
		}
	})
}

func TestALongRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			return reply(r, 429, ``, "Retry-After", "3600"), nil
		})
		s := newClient(t, base, nil)
		_, err := shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
		var te *shopify.ThrottledError
		require.ErrorAs(t, err, &te)
		require.GreaterOrEqual(t, te.After, time.Minute)
	})
}

func TestAHeaderThatIsNoNumber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			if n++; n == 1 {
				return reply(r, 200, `{}`, "X-Shopify-Shop-Api-Call-Limit", "NaN/40"), nil
			}
			return reply(r, 200, `{}`, "X-Shopify-Shop-Api-Call-Limit", "1/40"), nil
		})
		s := newClient(t, base, nil)
		_, err := s.REST(t.Context(), http.MethodGet, "shop.json", nil, nil)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = s.REST(t.Context(), http.MethodGet, "shop.json", nil, nil)
		require.NoError(t, err)
	})
}

func TestNumbersThatCantBe(t *testing.T) {
	t.Parallel()
	for _, st := range []string{`{"maximumAvailable":1e308,"currentlyAvailable":-1e308,"restoreRate":1e308}`, `{"maximumAvailable":2000,"currentlyAvailable":-1e308,"restoreRate":100}`, `{"maximumAvailable":1e400,"currentlyAvailable":0,"restoreRate":1}`, `{"maximumAvailable":-5,"currentlyAvailable":0,"restoreRate":-1}`} {
		t.Run(st, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := 0
				base := roundTripper(func(r *http.Request) (*http.Response, error) {
					if n++; n == 1 {
						return reply(r, 200, `{"data":{"shop":{}},"extensions":{"cost":{"requestedQueryCost":1,"actualQueryCost":1,"throttleStatus":`+st+`}}}`), nil
					}
					return reply(r, 200, `{"data":{"shop":{}},`+fmt.Sprintf(ext, 1, 1, 1999)+`}`), nil
				})
				b := &counting{Buckets: shopify.NewLocal()}
				l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: b})
				require.NoError(t, err)
				s := newClient(t, base, func(c *shopify.Config) { c.Limiter = l })
				_, err = shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
				require.NoError(t, err)
				time.Sleep(time.Hour)
				b.takes.Store(0)
				_, err = shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
				t.Log(err, b.takes.Load())
				require.NoError(t, err)
			})
		})
	}
}

func TestEachTakesFirstOfAnyKind(t *testing.T) {
	t.Parallel()
	fake := newFake(t, shopifytest.Config{})
	fill(t, fake, 30)
	for _, first := range []any{uint(5), int8(5), int64(5), 5.0} {
		var sizes []any
		s := newClient(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			b, _ := io.ReadAll(r.Body)
			var in struct{ Variables map[string]any }
			_ = json.Unmarshal(b, &in)
			sizes = append(sizes, in.Variables["first"])
			r.Body = io.NopCloser(bytes.NewReader(b))
			return fake.RoundTrip(r)
		}), nil)
		for _, err := range shopify.Each[productNode](t.Context(), s, `query($first: Int!, $after: String) { products(first: $first, after: $after) { nodes { id title } pageInfo { hasNextPage endCursor } } }`, map[string]any{"first": first}, "products") {
			require.NoError(t, err)
			break
		}
		if fmt.Sprint(sizes[0]) != "5" {
			t.Errorf("%T(%v): the page is of %v", first, first, sizes[0])
		}
	}
	s := newClient(t, fake, nil)
	for _, first := range []any{"many", -5, 0} {
		for _, err := range shopify.Each[productNode](t.Context(), s, `query($first: Int!) { products(first: $first) { nodes { id } } }`, map[string]any{"first": first}, "products") {
			require.ErrorContains(t, err, "first")
		}
	}
}

func TestARefusalForItsCostLapses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			if sent++; sent == 1 {
				return reply(r, 200, `{"errors":[{"message":"Query cost is 1001","extensions":{"code":"MAX_COST_EXCEEDED"}}],`+fmt.Sprintf(ext, 1001, "null", 2000)+`}`), nil
			}
			return reply(r, 200, `{"data":{"shop":{"id":"1"}},`+fmt.Sprintf(ext, 1, 1, 1999)+`}`), nil
		})
		s := newClient(t, base, nil)
		_, err := shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
		require.Error(t, err)
		time.Sleep(30 * 24 * time.Hour) // Shopify's prices have changed meanwhile
		_, err = shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
		require.NoError(t, err)
	})
}

type picky struct{}

func (*picky) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return errors.New("null?")
	}
	return nil
}

func TestPartialDataThatDoesNotFitHidesNoError(t *testing.T) {
	t.Parallel()
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		return reply(r, 200, `{"data":{"shop":null},"errors":[{"message":"no","path":["shop"],"extensions":{"code":"ACCESS_DENIED"}}],`+fmt.Sprintf(ext, 1, 1, 1999)+`}`), nil
	})
	s := newClient(t, base, nil)
	_, err := shopify.Query[struct{ Shop picky }](t.Context(), s, `{ shop { id } }`, nil)
	t.Log(err)
	require.ErrorIs(t, err, shopify.ErrAccessDenied)
}

func TestTokensAreNotShown(t *testing.T) {
	t.Parallel()
	c, err := shopify.New(shopify.StaticToken("shpat_secret"), shopify.ClientConfig{})
	require.NoError(t, err)
	s, err := c.Shop(shopName)
	require.NoError(t, err)
	_ = s
	require.NotContains(t, fmt.Sprintf("%v %+v", c, shopify.StaticToken("shpat_secret")), "shpat_secret")
}

func TestThrottledWithoutAStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begun := time.Now()
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			at = append(at, time.Since(begun))
			return reply(r, 200, `{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],"extensions":{"cost":{"requestedQueryCost":1,"actualQueryCost":null,"throttleStatus":{"maximumAvailable":0,"currentlyAvailable":0,"restoreRate":0}}}}`), nil
		})
		s := newClient(t, base, nil)
		_, err := shopify.Mutate[any](t.Context(), s, `mutation { customerCreate(input: {firstName: "A"}) { customer { id } userErrors { message } } }`, nil)
		require.ErrorIs(t, err, shopify.ErrThrottled)
		require.Len(t, at, 1, "nobody knows whose answer it is")
		at = nil
		_, err = shopify.Query[any](t.Context(), s, `{ shop { id } }`, nil)
		require.ErrorIs(t, err, shopify.ErrThrottled)
		require.Greater(t, len(at), 1)
		for i := 1; i < len(at); i++ {
			require.Positive(t, at[i]-at[i-1])
		}
	})
}

func TestRoundTripperContract(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("down") })
		tr, err := shopify.NewTransport(shopify.Config{Base: base})
		require.NoError(t, err)
		for _, q := range []string{`{"query":"mutation { a }"}`, `{"query":"{ products(first: 250) { nodes { variants(first: 250) { nodes { metafields(first: 250) { nodes { id } } } } } } }"}`, `nope`} {
			closed := &closer{Reader: strings.NewReader(q)}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+shopName+"/admin/api/2026-04/graphql.json", closed)
			require.NoError(t, err)
			_, err = roundTrip(tr, r)
			require.Error(t, err)
			require.True(t, closed.closed)
			require.Same(t, closed, r.Body)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		closed := &closer{Reader: strings.NewReader(`{"query":"{ shop { id } }"}`)}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+shopName+"/admin/api/2026-04/graphql.json", closed)
		require.NoError(t, err)
		_, err = roundTrip(tr, r)
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, closed.closed)
	})
}

type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

func TestNaN(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{})
		require.NoError(t, err)
		r, err := l.Reserve(t.Context(), "s", 1)
		require.NoError(t, err)
		_ = r.Settle(t.Context(), shopify.Answer{Actual: math.NaN(), Left: 1000, Size: 1000, Rate: 100})
		time.Sleep(time.Hour)
		_, err = l.Reserve(t.Context(), "s", 1)
		require.NoError(t, err)
	})
}

func TestAKeyDoesNotDependOnWhatIsSelected(t *testing.T) {
	t.Parallel()
	var keys []string
	s := newClient(t, roundTripper(func(r *http.Request) (*http.Response, error) {
		var in struct {
			Variables struct{ IdempotencyKey string }
		}
		_ = json.NewDecoder(r.Body).Decode(&in)
		keys = append(keys, in.Variables.IdempotencyKey)
		return reply(r, 200, `{"data":{}}`), nil
	}), nil)
	ctx := shopify.WithIdempotencyKey(t.Context(), "job")
	const m = `mutation($idempotencyKey: String!) { refundCreate(input: {orderId: "gid://shopify/Order/1"}) @idempotent(key: $idempotencyKey) { userErrors { message } } }`
	_, _ = shopify.Mutate[any](ctx, s, m, nil)
	_, _ = shopify.Mutate[any](ctx, s, strings.Replace(m, "userErrors { message }", "userErrors { message code }", 1), nil)
	require.Equal(t, keys[0], keys[1])
}

func TestAKeyInACommentIsNone(t *testing.T) {
	t.Parallel()
	s := newClient(t, roundTripper(func(r *http.Request) (*http.Response, error) {
		return reply(r, 200, `{"data":{"x":{}}}`), nil
	}), nil)
	_, err := shopify.Mutate[any](t.Context(), s, "# no $idempotencyKey here\nmutation { customerCreate(input: {firstName: \"A\"}) { customer { id } userErrors { message } } }", nil)
	require.NoError(t, err)
}

func TestAWaitThatIsTooLongForADuration(t *testing.T) {
	t.Parallel()
	for _, a := range []shopify.Answer{{Actual: 1, Left: 0, Size: 1000, Rate: 1e-7}} {
		b := &counting{Buckets: shopify.NewLocal()}
		l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: b, MaxWait: 100 * time.Millisecond})
		require.NoError(t, err)
		r, err := l.Reserve(t.Context(), "s", 1)
		require.NoError(t, err)
		require.NoError(t, r.Settle(t.Context(), a))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun := time.Now()
		_, err = l.Reserve(ctx, "s", 900)
		cancel()
		t.Log(err, time.Since(begun), b.takes.Load(), "takes")
		if !errors.Is(err, shopify.ErrQuota) {
			t.Errorf("%+v: MaxWait of 100 ms: %v after %v and %d takes", a, err, time.Since(begun), b.takes.Load())
		}
	}
}

func TestNextReadsLinks(t *testing.T) {
	t.Parallel()
	for _, l := range []string{
		`<https://a.myshopify.com/admin/api/2026-04/products.json?fields=id,title&limit=3&page_info=abc>; rel="next"`,
		`<https://a.myshopify.com/admin/api/2026-04/products.json?page_info=abc>; rel=next`,
	} {
		if shopify.Next(http.Header{"Link": {l}}) == "" {
			t.Errorf("no next page in %s", l)
		}
	}
}

func TestAnInteractiveCallDoesNotPollInTheOthersTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &counting{Buckets: shopify.NewLocal()}
		l, err := shopify.NewLimiter(shopify.LimiterConfig{Buckets: b, MaxWait: -1})
		require.NoError(t, err)
		r, err := l.Reserve(t.Context(), "s", 1)
		require.NoError(t, err)
		require.NoError(t, r.Settle(t.Context(), shopify.Answer{Actual: 1, Left: 2000, Size: 2000, Rate: 100}))
		ictx := shopify.WithInteractive(t.Context())
		// A background call that wants 900 waits; interactive ones take their 3600 first.
		r0, err := l.Reserve(ictx, "s", 1500)
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			r, err := l.Reserve(t.Context(), "s", 900)
			if err == nil {
				_ = r.Settle(t.Context(), shopify.Answer{Actual: 900})
			}
		})
		time.Sleep(time.Millisecond)
		_ = r0.Settle(t.Context(), shopify.Answer{Actual: 1500})
		for range 8 {
			r, err := l.Reserve(ictx, "s", 480)
			require.NoError(t, err)
			require.NoError(t, r.Settle(t.Context(), shopify.Answer{Actual: 480}))
		}
		before := b.takes.Load()
		begun := time.Now()
		r, err = l.Reserve(ictx, "s", 10)
		require.NoError(t, err)
		_ = r.Cancel(t.Context())
		n := b.takes.Load() - before
		t.Log(time.Since(begun), n)
		wg.Wait()
		require.Less(t, n, int64(100))
	})
}

func TestABrokenConnectionsCostIsNoRefund(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := shopify.NewLimiter(shopify.LimiterConfig{})
		require.NoError(t, err)
		n := 0
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			if n++; n > 1 && n < 10 {
				return nil, &netOpError{}
			}
			return reply(r, 200, `{"data":{"shop":{"id":"1"}},`+fmt.Sprintf(ext, 112, 1, 1999)+`}`), nil
		})
		s := newClient(t, base, func(c *shopify.Config) { c.Limiter = l; c.Breakers = noRetries(t) })
		for range 9 {
			_, _ = shopify.Query[any](t.Context(), s, `query($n: Int!) { products(first: $n) { nodes { id variants(first: 50) { nodes { id } } } } }`, map[string]any{"n": 250})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err = l.Reserve(ctx, shopName, 1500)
		var q *shopify.QuotaError
		require.ErrorAs(t, err, &q)
		l2, cancel2 := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel2()
		begun := time.Now()
		r, err := l.Reserve(l2, shopName, 1500)
		t.Log(q.After, "said; it took", time.Since(begun), err)
		if err == nil {
			_ = r.Cancel(t.Context())
		}
		require.Less(t, time.Since(begun), 10*q.After)
	})
}

type netOpError struct{}

func (*netOpError) Error() string { return "dial tcp: connection refused" }

// roundTrip sends a request, and reads the answer.
func roundTrip(tr http.RoundTripper, r *http.Request) ([]byte, error) {
	resp, err := tr.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
