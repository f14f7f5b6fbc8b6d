package idempotency_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
)

func shopOf(r *http.Request) string { return r.Header.Get("X-Shop") }

func newMiddleware(t *testing.T, k *idempotency.Keeper, cfg idempotency.HTTPConfig) *idempotency.Middleware {
	t.Helper()
	m, err := idempotency.NewMiddleware(k, shopOf, cfg)
	require.NoError(t, err)
	return m
}

// guard wraps h with a keeper of its own.
func guard(t *testing.T, cfg idempotency.HTTPConfig, h http.HandlerFunc) http.Handler {
	t.Helper()
	return newMiddleware(t, newKeeper(t, new(idempotency.Memory), idempotency.Config{MaxResultBytes: 1 << 10}), cfg).Wrap(h)
}

// ask is a request of shop a with key 1.
type ask struct {
	method, target, shop, body, kind string
	keys                             []string
	ctx                              context.Context //nolint:containedctx // the request's
}

func (a ask) of(t *testing.T) *http.Request {
	t.Helper()
	or := func(s, def string) string {
		if s == "" {
			return def
		}
		return s
	}
	ctx := a.ctx
	if ctx == nil {
		ctx = t.Context()
	}
	r := httptest.NewRequestWithContext(ctx, or(a.method, http.MethodPost), or(a.target, "/refunds"), strings.NewReader(a.body))
	r.Header.Set("X-Shop", or(a.shop, "a"))
	if a.kind != "" {
		r.Header.Set("Content-Type", a.kind)
	}
	if a.keys == nil {
		a.keys = []string{"1"}
	}
	for _, k := range a.keys {
		r.Header.Add("Idempotency-Key", k)
	}
	return r
}

func (a ask) send(t *testing.T, h http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, a.of(t))
	return w
}

// requireProblem checks that an answer is a problem of a kind.
func requireProblem(t *testing.T, w *httptest.ResponseRecorder, status int, kind string) {
	t.Helper()
	require.Equal(t, status, w.Code, w.Body.String())
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
	require.Equal(t, "urn:breakwater:idempotency:"+kind, p.Type)
	require.Equal(t, status, p.Status)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
}

func TestReplayIsByteIdentical(t *testing.T) {
	t.Parallel()
	runs := 0
	h := guard(t, idempotency.HTTPConfig{Headers: []string{"x-refund"}}, func(w http.ResponseWriter, r *http.Request) {
		runs++
		b, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, "10 EUR", string(b), "the handler reads what was sent")
		w.Header().Set("Content-Type", "application/vnd.refund")
		w.Header().Set("Location", "/refunds/1")
		w.Header().Set("Etag", `"v1"`)
		w.Header()["Link"] = []string{"<a>; rel=next", "<b>; rel=prev"}
		w.Header().Set("X-Refund", "yes")
		w.Header().Set("Set-Cookie", "session=of-the-first")
		w.Header().Set("Date", "Mon, 01 Jan 2024 00:00:00 GMT")
		w.Header().Set("X-Request-Id", "the first's")
		w.WriteHeader(http.StatusCreated)
		_, err = w.Write([]byte("\x00\xff refund"))
		assert.NoError(t, err)
		w.Header().Set("X-Too-Late", "yes")
	})
	first := ask{body: "10 EUR"}.send(t, h)
	require.Equal(t, http.StatusCreated, first.Code)
	require.Equal(t, "session=of-the-first", first.Header().Get("Set-Cookie"))
	require.Equal(t, "the first's", first.Header().Get("X-Request-Id"))
	require.Empty(t, first.Header().Get("Idempotency-Replayed"))
	require.Empty(t, first.Header().Get("X-Too-Late"))
	for range 2 {
		again := ask{body: "10 EUR"}.send(t, h)
		require.Equal(t, first.Code, again.Code)
		require.Equal(t, first.Body.Bytes(), again.Body.Bytes())
		require.Equal(t, http.Header{
			"Content-Type": {"application/vnd.refund"}, "Location": {"/refunds/1"}, "Etag": {`"v1"`}, "Link": {"<a>; rel=next", "<b>; rel=prev"}, "X-Refund": {"yes"},
			"Idempotency-Replayed": {"true"}, "Content-Length": {"9"},
		}, again.Header(), "no cookie, date or ID of the first")
	}
	require.Equal(t, 1, runs)
}

func TestKeyMissingEmptyOver255NonASCIIDuplicateHeaderQuotedSFString(t *testing.T) {
	t.Parallel()
	keys := map[string]string{}
	var seen string
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
	h := newMiddleware(t, k, idempotency.HTTPConfig{}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		child, err := idempotency.ChildKey(r.Context(), "x")
		assert.NoError(t, err)
		seen = child
	}))
	for i, group := range [][]string{
		{"8e03978e-40d5-43dd-bc93-6894a57f9324", `"8e03978e-40d5-43dd-bc93-6894a57f9324"`, ` "8e03978e-40d5-43dd-bc93-6894a57f9324" `},
		{`"a\"b\\c"`, `a"b\c`}, {"KG5LxwFBepaKHyUD"}, {strings.Repeat("x", 255)}, {"a, b"}, {`" "`},
	} {
		for _, key := range group {
			w := ask{keys: []string{key}}.send(t, h)
			require.Equal(t, http.StatusOK, w.Code, key)
			require.Equal(t, keys[group[0]] != "", w.Header().Get("Idempotency-Replayed") == "true", "%d: %s", i, key)
			keys[group[0]] = seen
		}
	}
	for name, bad := range map[string][]string{
		"missing": {}, "empty": {""}, "blank": {"  "}, "empty quotes": {`""`}, "over 255": {strings.Repeat("x", 256)}, "non-ASCII": {"schlüssel"}, "control": {"a\x01"},
		"twice": {"1", "2"}, "twice the same": {"1", "1"}, "open quotes": {`"a`}, "after the quotes": {`"a";b`}, "bad escape": {`"a\b"`}, "escape at the end": {`"a\`}, "DEL": {"a\x7f"},
	} {
		requireProblem(t, ask{keys: bad}.send(t, h), http.StatusBadRequest, "key")
		_ = name
	}
}

func TestSameKeyOtherPrincipalOrRouteOrMethodIsADifferentOperation(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	h := guard(t, idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, runs.Add(1)) })
	others := []ask{{}, {shop: "b"}, {target: "/orders"}, {target: "/refunds/"}, {method: http.MethodPatch}, {keys: []string{"2"}}, {target: "/" + strings.Repeat("x", 300)}, {target: "/" + strings.Repeat("x", 301)}}
	for range 2 {
		for i, a := range others {
			w := a.send(t, h)
			require.Equal(t, http.StatusOK, w.Code)
			require.Equal(t, fmt.Sprint(i+1), w.Body.String(), "nobody gets another's answer")
		}
	}
	w := httptest.NewRecorder()
	r := ask{}.of(t)
	r.Header.Del("X-Shop")
	h.ServeHTTP(w, r)
	requireProblem(t, w, http.StatusForbidden, "caller")
	w = ask{shop: strings.Repeat("x", 256)}.send(t, h)
	requireProblem(t, w, http.StatusBadRequest, "key")
}

func TestSameKeyOtherPayloadIs422EvenWhileInProgressAndEvenAfterCompletion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := guard(t, idempotency.HTTPConfig{}, func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) })
		first := make(chan int)
		go func() { first <- ask{body: "10 EUR"}.send(t, h).Code }()
		synctest.Wait()
		requireProblem(t, ask{body: "20 EUR"}.send(t, h), http.StatusUnprocessableEntity, "mismatch")
		requireProblem(t, ask{target: "/refunds?notify=1", body: "10 EUR"}.send(t, h), http.StatusUnprocessableEntity, "mismatch")
		w := ask{body: "10 EUR"}.send(t, h)
		requireProblem(t, w, http.StatusConflict, "in-progress")
		require.Equal(t, "5", w.Header().Get("Retry-After"))
		require.Equal(t, http.StatusOK, <-first)
		requireProblem(t, ask{body: "20 EUR"}.send(t, h), http.StatusUnprocessableEntity, "mismatch")
		require.Equal(t, http.StatusOK, ask{body: "10 EUR"}.send(t, h).Code)
	})
}

func TestDuplicateWhileRunningGets409WithRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := guard(t, idempotency.HTTPConfig{}, func(http.ResponseWriter, *http.Request) { time.Sleep(40 * time.Second) })
		done := make(chan int)
		go func() { done <- ask{}.send(t, h).Code }()
		time.Sleep(36 * time.Second) // the lease was extended twice
		w := ask{}.send(t, h)
		requireProblem(t, w, http.StatusConflict, "in-progress")
		require.Equal(t, "5", w.Header().Get("Retry-After"))
		require.Equal(t, http.StatusOK, <-done)
	})
}

func TestDuplicateWhileRunningWaitsAndGetsTheSameResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		m := newMiddleware(t, newKeeper(t, new(idempotency.Memory), idempotency.Config{Wait: time.Minute}), idempotency.HTTPConfig{})
		h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			runs++
			time.Sleep(20 * time.Second)
			_, _ = w.Write([]byte("done"))
		}))
		answers := make(chan string)
		for range 4 {
			go func() { answers <- ask{}.send(t, h).Body.String() }()
		}
		for range 4 {
			require.Equal(t, "done", <-answers)
		}
		require.Equal(t, 1, runs)
	})
}

// JSON is compared by what it says, multipart forms by their parts.
func TestCanonicalFingerprintIgnoresJSONKeyOrderAndKeepsNumberPrecision(t *testing.T) {
	t.Parallel()
	form := func(boundary, value string) ask {
		var b bytes.Buffer
		f := multipart.NewWriter(&b)
		require.NoError(t, f.SetBoundary(boundary))
		require.NoError(t, f.WriteField("amount", value))
		p, err := f.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"; filename="a.txt"`}, "Content-Type": {"text/plain"}})
		require.NoError(t, err)
		_, err = p.Write([]byte("file"))
		require.NoError(t, err)
		require.NoError(t, f.Close())
		return ask{body: b.String(), kind: f.FormDataContentType()}
	}
	js := func(body string) ask { return ask{body: body, kind: "application/json"} }
	for name, tt := range map[string]struct {
		a, b ask
		same bool
	}{
		"members' order and space":  {js(`{"a":1,"b":[true,null,"x"]}`), js("{ \"b\" : [true,\n null,\"x\"], \"a\" : 1 }"), true},
		"order within":              {js(`{"a":{"x":1,"y":2}}`), js(`{"a":{"y":2,"x":1}}`), true},
		"an array's order":          {js(`[1,2]`), js(`[2,1]`), false},
		"a number's last digit":     {js(`{"id":12345678901234567890}`), js(`{"id":12345678901234567891}`), false},
		"a number's precision":      {js(`{"p":0.1}`), js(`{"p":0.10000000000000001}`), false},
		"how a string is written":   {js(`"\u00e4\/"`), js(`"ä/"`), true},
		"a string and a number":     {js(`"1"`), js(`1`), false},
		"a member twice":            {js(`{"a":1,"a":2}`), js(`{"a":2}`), false},
		"two values":                {js(`1 2`), js(`12`), false},
		"no JSON":                   {js(`{"a":`), js(`{"a": `), false},
		"no UTF-8":                  {js("\"\xff\""), js("\"\xfe\""), false},
		"a subtype":                 {ask{body: `{"a":1,"b":2}`, kind: "application/vnd.api+json"}, ask{body: `{"b":2,"a":1}`, kind: "application/vnd.api+json"}, true},
		"a charset":                 {js(`{"a":1}`), ask{body: `{"a":1}`, kind: "application/json; charset=utf-8"}, true},
		"text":                      {ask{body: `{"a":1,"b":2}`, kind: "text/plain"}, ask{body: `{"b":2,"a":1}`, kind: "text/plain"}, false},
		"another type":              {js(`{}`), ask{body: `{}`, kind: "text/plain"}, false},
		"a form's boundary":         {form("one", "10"), form("two", "10"), true},
		"a form's value":            {form("one", "10"), form("one", "20"), false},
		"a form without its end":    {ask{body: "--x\r\n", kind: "multipart/form-data; boundary=x"}, ask{body: "--x\r\n\r\n", kind: "multipart/form-data; boundary=x"}, false},
		"no form at all":            {ask{body: "a", kind: "multipart/form-data; boundary=x"}, ask{body: "b", kind: "multipart/form-data; boundary=x"}, false},
		"a form cut off":            {ask{body: "--x\r\nA: b\r\n\r\nc", kind: "multipart/form-data; boundary=x"}, ask{body: "--x\r\nA: b\r\n\r\nd", kind: "multipart/form-data; boundary=x"}, false},
		"half of a surrogate pair":  {js(`"\ud800"`), js(`"\ud801"`), false},
		"a half in a member's name": {js(`{"\ud800":1}`), js(`{"\ud801":1}`), false},
		"a form without a boundary": {ask{body: "a", kind: "multipart/form-data"}, ask{body: "b", kind: "multipart/form-data"}, false},
		"a type that can't be read": {ask{body: "a", kind: "a/b; x"}, ask{body: "a", kind: "a/b; y"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := guard(t, idempotency.HTTPConfig{}, func(http.ResponseWriter, *http.Request) {})
			require.Equal(t, http.StatusOK, tt.a.send(t, h).Code)
			want := http.StatusUnprocessableEntity
			if tt.same {
				want = http.StatusOK
			}
			require.Equal(t, want, tt.b.send(t, h).Code)
			require.Equal(t, http.StatusOK, tt.a.send(t, h).Code)
		})
	}
}

func Test5xx429AndPanicAreNotStoredByDefault(t *testing.T) {
	t.Parallel()
	for status, stored := range map[int]bool{
		200: true, 201: true, 204: true, 303: true, 400: true, 404: true, 410: true, 422: true,
		401: false, 403: false, 408: false, 409: false, 423: false, 425: false, 429: false, 500: false, 502: false, 503: false, 504: false,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			runs := 0
			h := guard(t, idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) {
				runs++
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(status)
			})
			first, again := ask{}.send(t, h), ask{}.send(t, h)
			require.Equal(t, []int{status, status}, []int{first.Code, again.Code})
			require.Equal(t, "7", first.Header().Get("Retry-After"), "the client gets it all the same")
			require.Equal(t, stored, runs == 1)
			require.Equal(t, stored, again.Header().Get("Idempotency-Replayed") == "true")
		})
	}
	t.Run("panic", func(t *testing.T) {
		t.Parallel()
		runs := 0
		h := guard(t, idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) {
			if runs++; runs == 1 {
				w.WriteHeader(http.StatusCreated)
				panic(http.ErrAbortHandler)
			}
		})
		require.PanicsWithValue(t, http.ErrAbortHandler, func() { ask{}.send(t, h) })
		require.Equal(t, http.StatusOK, ask{}.send(t, h).Code, "nothing of the first has gone out")
	})
	t.Run("validation by choice", func(t *testing.T) {
		t.Parallel()
		runs := 0
		h := guard(t, idempotency.HTTPConfig{Record: func(_ *http.Request, status int) bool { return status < 300 }}, func(w http.ResponseWriter, _ *http.Request) {
			runs++
			w.WriteHeader(http.StatusUnprocessableEntity)
		})
		ask{body: "wrong"}.send(t, h)
		ask{body: "right"}.send(t, h)
		require.Equal(t, 2, runs, "the execution had not begun, so the key is free for a better body")
	})
}

func TestOversizeOrStreamingOrHijackedResponseIsNeverTruncated(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("0123456789", 1000)
	for name, h := range map[string]http.HandlerFunc{
		"oversize": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", "yes")
			for part := range 10 {
				_, _ = io.WriteString(w, large[part*1000:(part+1)*1000])
			}
		},
		"flush": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", "yes")
			_, _ = io.WriteString(w, large[:10])
			w.(http.Flusher).Flush() //nolint:forcetypeassert // that it is one is tested
			_, _ = io.WriteString(w, large[10:])
		},
		"flush at once": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", "yes")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, large)
		},
		"trailer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", "yes")
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, large)
			w.Header().Set("X-Sum", "5")
		},
		"hijack": func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close() //nolint:errcheck // it was answered
			_, _ = fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nX-Large: yes\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(large), large)
			_ = rw.Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var runs atomic.Int64
			server := httptest.NewServer(guard(t, idempotency.HTTPConfig{}, func(w http.ResponseWriter, r *http.Request) {
				runs.Add(1)
				h(w, r)
			}))
			defer server.Close()
			do := func() (*http.Response, string) {
				r := ask{}.of(t)
				r.RequestURI = ""
				r.URL.Scheme, r.URL.Host = "http", server.Listener.Addr().String()
				resp, err := server.Client().Do(r)
				require.NoError(t, err)
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				return resp, string(b)
			}
			first, body := do() //nolint:bodyclose // do has
			require.Equal(t, http.StatusOK, first.StatusCode)
			require.Equal(t, "yes", first.Header.Get("X-Large"))
			require.Equal(t, large, body)
			if name == "trailer" {
				require.Equal(t, "5", first.Trailer.Get("X-Sum"))
			}
			again, body := do() //nolint:bodyclose // do has
			require.Equal(t, http.StatusConflict, again.StatusCode)
			require.Contains(t, body, "urn:breakwater:idempotency:not-kept")
			require.Empty(t, again.Header.Get("Retry-After"), "asking again changes nothing")
			require.EqualValues(t, 1, runs.Load())
		})
	}
}

func TestStreamThatFailsFreesTheKey(t *testing.T) {
	t.Parallel()
	runs := 0
	h := guard(t, idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) {
		runs++
		w.WriteHeader(http.StatusBadGateway)
		_ = http.NewResponseController(w).Flush()
	})
	for range 2 {
		require.Equal(t, http.StatusBadGateway, ask{}.send(t, h).Code)
	}
	require.Equal(t, 2, runs)
}

func TestHintsGoOutAtOnce(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(guard(t, idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
		w.WriteHeader(http.StatusTeapot) // too late
	}))
	defer server.Close()
	r := ask{}.of(t)
	r.RequestURI = ""
	r.URL.Scheme, r.URL.Host = "http", server.Listener.Addr().String()
	var hints []string
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		hints = append(hints, h.Get("Link"))
		return nil
	}}))
	resp, err := server.Client().Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusAccepted, resp.StatusCode)
	require.Equal(t, []string{"</style.css>; rel=preload"}, hints)
}

func TestClientDisconnectMidHandlerDoesNotAbortOrWedge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, detach := range []bool{false, true} {
			runs := 0
			h := guard(t, idempotency.HTTPConfig{Detach: detach}, func(w http.ResponseWriter, r *http.Request) {
				runs++
				select {
				case <-r.Context().Done():
					w.WriteHeader(http.StatusServiceUnavailable)
				case <-time.After(time.Minute):
					_, _ = io.WriteString(w, "done")
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			ask{ctx: ctx}.send(t, h)
			cancel()
			w := ask{}.send(t, h)
			require.Equal(t, "done", w.Body.String())
			require.Equal(t, detach, w.Header().Get("Idempotency-Replayed") == "true", "detached, the first went on to its end")
			require.Equal(t, map[bool]int{false: 2, true: 1}[detach], runs)
		}
	})
}

func TestStoreAwayIs503(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fragile{claim: errBoom}
		h := newMiddleware(t, newKeeper(t, store, idempotency.Config{}), idempotency.HTTPConfig{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "ran")
		}))
		w := ask{}.send(t, h)
		requireProblem(t, w, http.StatusServiceUnavailable, "unavailable")
		require.Equal(t, "5", w.Header().Get("Retry-After"))

		store.fail(func() { store.claim, store.complete = nil, errBoom })
		w = ask{}.send(t, h)
		require.Equal(t, "ran", w.Body.String(), "the answer is true, whatever became of its record")

		time.Sleep(time.Hour)
		store.fail(func() { store.complete = idempotency.ErrLeaseLost })
		w = ask{}.send(t, h)
		requireProblem(t, w, http.StatusServiceUnavailable, "unavailable")
	})
}

func TestAnswerThatWritesNothingIsTrueWithoutARecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newMiddleware(t, newKeeper(t, &fragile{complete: errBoom}, idempotency.Config{}), idempotency.HTTPConfig{}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		require.Equal(t, http.StatusOK, ask{}.send(t, h).Code)
	})
}

func TestMountsUnderStripPrefixDoNotShareKeys(t *testing.T) {
	t.Parallel()
	m := newMiddleware(t, newKeeper(t, new(idempotency.Memory), idempotency.Config{}), idempotency.HTTPConfig{})
	mux := http.NewServeMux()
	for _, p := range []string{"/orders", "/refunds"} {
		mux.Handle(p+"/", http.StripPrefix(p, m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, p) }))))
	}
	for range 2 {
		for _, p := range []string{"/orders", "/refunds"} {
			require.Equal(t, p, ask{target: p + "/create"}.send(t, mux).Body.String())
		}
	}
}

func TestRequestsWithoutAKey(t *testing.T) {
	t.Parallel()
	runs := 0
	count := func(http.ResponseWriter, *http.Request) { runs++ }
	h := guard(t, idempotency.HTTPConfig{Optional: true}, count)
	for range 2 {
		require.Equal(t, http.StatusOK, ask{keys: []string{}}.send(t, h).Code)
	}
	require.Equal(t, 2, runs)
	requireProblem(t, ask{keys: []string{""}}.send(t, h), http.StatusBadRequest, "key")
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodHead} {
		require.Equal(t, http.StatusOK, ask{method: method, keys: []string{}}.send(t, guard(t, idempotency.HTTPConfig{}, count)).Code)
	}
	h = guard(t, idempotency.HTTPConfig{Methods: []string{http.MethodPut}}, count)
	requireProblem(t, ask{method: http.MethodPut, keys: []string{}}.send(t, h), http.StatusBadRequest, "key")
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	h := guard(t, idempotency.HTTPConfig{MaxBodyBytes: 10}, func(http.ResponseWriter, *http.Request) {})
	require.Equal(t, http.StatusOK, ask{body: "0123456789"}.send(t, h).Code)
	requireProblem(t, ask{body: "0123456789a", keys: []string{"2"}}.send(t, h), http.StatusRequestEntityTooLarge, "too-large")
	w := httptest.NewRecorder()
	r := ask{keys: []string{"3"}}.of(t)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader("a"), failing{}))
	h.ServeHTTP(w, r)
	requireProblem(t, w, http.StatusBadRequest, "body")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut") }

func TestMiddlewareConfig(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, new(idempotency.Memory), idempotency.Config{})
	for _, h := range []string{"set-cookie", "Date", "connection", "Transfer-Encoding"} {
		_, err := idempotency.NewMiddleware(k, shopOf, idempotency.HTTPConfig{Headers: []string{h}})
		require.ErrorContains(t, err, "can't be replayed")
	}
	_, err := idempotency.NewMiddleware(k, nil, idempotency.HTTPConfig{})
	require.ErrorContains(t, err, "caller")
	_, err = idempotency.NewMiddleware(k, shopOf, idempotency.HTTPConfig{MaxBodyBytes: -1})
	require.ErrorContains(t, err, "MaxBodyBytes")
}

// TestMiddlewareUnderARouter wraps one route of a mux, and a whole mux.
func TestMiddlewareUnderARouter(t *testing.T) {
	t.Parallel()
	m := newMiddleware(t, newKeeper(t, new(idempotency.Memory), idempotency.Config{}), idempotency.HTTPConfig{})
	runs := 0
	mux := http.NewServeMux()
	mux.Handle("POST /orders/{id}/refunds", m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		_, _ = io.WriteString(w, r.PathValue("id"))
	})))
	for range 2 {
		require.Equal(t, "7", ask{target: "/orders/7/refunds"}.send(t, mux).Body.String())
	}
	require.Equal(t, 1, runs)
	whole := m.Wrap(mux)
	for range 2 {
		require.Equal(t, "8", ask{target: "/orders/8/refunds"}.send(t, whole).Body.String(), "wrapped twice, it is guarded once")
	}
	require.Equal(t, 2, runs)
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte{1, 200, 1, 1, 4, 'L', 'i', 'n', 'k', 1, 'a', 'b'})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		status, h, body, err := idempotency.ParseResponse(b)
		if err == nil {
			require.GreaterOrEqual(t, status, 200)
			require.NotNil(t, h)
			require.LessOrEqual(t, len(body), len(b))
		}
	})
}

func FuzzCanonicalJSON(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[{}]}`, `{"a":1,"a":2}`, "\"\\ud800\"", "1e400", "[", "{}{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := idempotency.CanonicalJSON(b)
		require.Equal(t, c, idempotency.CanonicalJSON(c), "it stays as it is")
		require.Equal(t, json.Valid(b), json.Valid(c))
	})
}

func FuzzForm(f *testing.F) {
	f.Add([]byte("--x\r\nA: b\r\n\r\nc\r\n--x--\r\n"), "x")
	f.Fuzz(func(_ *testing.T, b []byte, boundary string) { idempotency.CanonicalForm(b, boundary) })
}

func FuzzKey(f *testing.F) {
	f.Add(`"a\"b"`)
	f.Fuzz(func(t *testing.T, s string) {
		if key, ok := idempotency.ReadKey(s); ok {
			require.NotEmpty(t, key)
			require.LessOrEqual(t, len(key), 255)
		}
	})
}

// TestAsTheDraftAndStripeHaveIt plays their examples: requests in turn, and what each is answered. Where we differ from Stripe it says so.
func TestAsTheDraftAndStripeHaveIt(t *testing.T) {
	t.Parallel()
	const (
		draft  = "draft-ietf-httpapi-idempotency-key-header-07"
		stripe = "docs.stripe.com/api/idempotent_requests"
	)
	type step struct {
		ask
		answers int // what the handler answers, if it runs
		want    int
		replay  bool
	}
	for _, tt := range []struct {
		source, what string
		steps        []step
	}{
		{draft + " 2.1", `Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324"`, []step{
			{ask{keys: []string{`"8e03978e-40d5-43dd-bc93-6894a57f9324"`}}, 201, 201, false},
			{ask{keys: []string{`"8e03978e-40d5-43dd-bc93-6894a57f9324"`}}, 500, 201, true},
		}},
		{draft + " 2.5", "a first time request is processed normally, a duplicate gets the result of it", []step{{ask{body: "a"}, 200, 200, false}, {ask{body: "a"}, 200, 200, true}, {ask{body: "a"}, 200, 200, true}}},
		{draft + " 2.7", "the key is missing: 400", []step{{ask{keys: []string{}}, 200, 400, false}}},
		{draft + " 2.7", "the key is reused with another payload: 422", []step{{ask{body: "a"}, 200, 200, false}, {ask{body: "b"}, 200, 422, false}}},
		{draft + " 2.6", "an error the resource has answered is a result like others", []step{{ask{}, 404, 404, false}, {ask{}, 200, 404, true}}},
		{stripe, "keys of up to 255 characters", []step{{ask{keys: []string{strings.Repeat("k", 255)}}, 200, 200, false}, {ask{keys: []string{strings.Repeat("k", 256)}}, 200, 400, false}}},
		{stripe, "a random string, as its libraries make them", []step{{ask{keys: []string{"KG5LxwFBepaKHyUD"}}, 200, 200, false}, {ask{keys: []string{"KG5LxwFBepaKHyUD"}}, 200, 200, true}}},
		{stripe, "the result of a failed card is kept", []step{{ask{}, 402, 402, false}, {ask{}, 200, 402, true}}},
		{stripe, "we differ: it keeps 500 as well; here what broke may be tried again", []step{{ask{}, 500, 500, false}, {ask{}, 200, 200, false}, {ask{}, 500, 200, true}}},
		{stripe, "a request that conflicts with another one leaves no result", []step{{ask{}, 409, 409, false}, {ask{}, 200, 200, false}}},
		{stripe, "a request over the rate limit leaves no result", []step{{ask{}, 429, 429, false}, {ask{}, 200, 200, false}}},
		{stripe, "a request without authentication leaves no result", []step{{ask{}, 401, 401, false}, {ask{}, 200, 200, false}}},
		{stripe, "GET and DELETE are idempotent by definition: a key has no effect", []step{
			{ask{method: http.MethodDelete}, 200, 200, false}, {ask{method: http.MethodDelete}, 404, 404, false}, {ask{method: http.MethodGet}, 200, 200, false}, {ask{method: http.MethodGet}, 304, 304, false},
		}},
		{stripe, "parameters are compared with the original ones", []step{{ask{target: "/refunds?a=1"}, 200, 200, false}, {ask{target: "/refunds?a=2"}, 200, 422, false}, {ask{target: "/refunds?a=1"}, 200, 200, true}}},
	} {
		t.Run(tt.source+" "+tt.what, func(t *testing.T) {
			t.Parallel()
			var next int
			h := guard(t, idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(next) })
			for i, s := range tt.steps {
				next = s.answers
				w := s.send(t, h)
				require.Equal(t, s.want, w.Code, "request %d", i+1)
				require.Equal(t, s.replay, w.Header().Get("Idempotency-Replayed") == "true", "request %d", i+1)
			}
		})
	}
}

// TestDeepJSONIsComparedAsItIs has what would take minutes, or the whole stack.
func TestDeepJSONIsComparedAsItIs(t *testing.T) {
	t.Parallel()
	for _, deep := range []string{
		strings.Repeat(`{"b":`, 200_000) + "1" + strings.Repeat("}", 200_000),
		strings.Repeat("[", 8<<20),
	} {
		if string(idempotency.CanonicalJSON([]byte(deep))) != deep {
			t.Error("it is not the text itself") // which a failure should not print
		}
	}
	const most = 100
	require.Equal(t, strings.Repeat("[", most)+strings.Repeat("]", most), string(idempotency.CanonicalJSON([]byte(strings.Repeat("[ ", most)+strings.Repeat("]", most)))))
}
