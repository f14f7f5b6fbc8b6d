package jobhttp_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

// Whatever a stranger writes as a URL: what is accepted is https, to a public host, without a user.
func FuzzCallbackURL(f *testing.F) {
	for _, s := range []string{url, "https://[::ffff:10.0.0.1]/", "https://me@shop.example:443/", "https://10.0.0.1\\@shop.example/", "https://shop.example:65536", "http://shop.example", "https:/\\10.0.0.1", "https://shop.example:/"} {
		f.Add(s)
	}
	c := newCallbacks(f, jobhttp.CallbackConfig{})
	f.Fuzz(func(t *testing.T, text string) {
		if err := c.Check(text); err != nil {
			if len(text) > 5 && strings.Contains(err.Error(), text) {
				t.Fatalf("%q repeats %q", err, text)
			}
			return
		}
		u, err := neturl.Parse(text)
		require.NoError(t, err)
		require.Equal(t, "https", u.Scheme)
		require.Nil(t, u.User)
		require.NotEmpty(t, u.Hostname())
		require.LessOrEqual(t, len(text), 2048)
		if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
			require.True(t, jobhttp.Public(addr), addr)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), http.NoBody)
		require.NoError(t, err)
		require.Equal(t, u.Hostname(), req.URL.Hostname())
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"5", "0", "-1", "99999999999999999999", "Wed, 25 Nov 2026 00:10:00 GMT"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		d, ok := jobhttp.RetryAfter(value, now)
		if ok && (d < time.Second || d > 24*time.Hour) || !ok && d != 0 {
			t.Fatalf("%q is %v, %v", value, d, ok)
		}
	})
}

// Whatever path, ID, method and Last-Event-ID come in: an answer of ours goes out, and no header that the request has made.
func FuzzRequest(f *testing.F) {
	q, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	require.NoError(f, err)
	h, err := jobhttp.New(q, accept, ownShop, jobhttp.Config{Path: "/api/jobs"})
	require.NoError(f, err)
	receipts, err := q.Enqueue(f.Context(), queue.Job{Kind: "import", Group: "a", Track: true})
	require.NoError(f, err)
	_, err = q.Cancel(f.Context(), receipts[0].ID)
	require.NoError(f, err)
	id := receipts[0].ID
	for _, tt := range [][4]string{
		{"GET", "/api/jobs/" + id, "", ""}, {"GET", "/jobs/" + id + "/events", "a", "x\r\ny"}, {"DELETE", "/" + id, "a", ""}, {"POST", "", "a", ""}, {"GET", "/api/jobs/%2e%2e/" + id, "a", ""}, {"HEAD", "//", "", ""},
	} {
		f.Add(tt[0], tt[1], tt[2], tt[3])
	}
	f.Fuzz(func(t *testing.T, method, path, shop, last string) {
		if method == http.MethodPost {
			path, shop = "/api/jobs", "b" // fewer jobs than there are inputs
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", strings.NewReader("{}"))
		r.Method, r.URL.Path = method, path
		r.Header.Set("Shop", shop)
		r.Header.Set("Last-Event-ID", last)
		r.Header.Set("Idempotency-Key", "k")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 200, 202, 204, 404, 405, 410:
		default:
			t.Fatalf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
		if shop != "a" && strings.Contains(w.Body.String(), id) {
			t.Fatalf("%q sees the job of another: %s", shop, w.Body)
		}
		for name, values := range w.Header() {
			for _, v := range values {
				if strings.ContainsAny(name+v, "\r\n") {
					t.Fatalf("%s: %q", name, v)
				}
			}
		}
	})
}
