package jobhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

// Addresses that callbacks never go to, and their nearest neighbours that they may go to.
func TestPublic(t *testing.T) {
	t.Parallel()
	for _, a := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255", "127.0.0.1", "127.255.255.255",
		"169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1",
		"192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
		"::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "100:0:0:1::1",
		"2001::1", "2001:0:4136:e378::1", "2001:2::1", "2001:10::1", "2001:1ff:ffff::1", "2001:db8::1", "2002:a00:1::1", "2002:808:808::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "3fff:fff::1",
		"4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "feff::1", "ff02::1", "2606:4700::1%eth0",
	} {
		addr := netip.MustParseAddr(a)
		assert.False(t, jobhttp.Public(addr), a)
		for _, network := range []string{"tcp4", "tcp6"} {
			err := jobhttp.Guard(network, netip.AddrPortFrom(addr, 443).String())
			require.Error(t, err, a)
			permanent, ok := errors.AsType[interface {
				error
				Permanent() bool
			}](err)
			assert.True(t, ok && permanent.Permanent(), a)
		}
	}
	for _, a := range []string{
		"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
		"192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15",
		"2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700:4700::1111", "2a00:1450::1", "3ffd::1", "2000::1", "3fff:1000::1",
	} {
		assert.True(t, jobhttp.Public(netip.MustParseAddr(a)), a)
	}
	assert.False(t, jobhttp.Public(netip.Addr{}))

	require.NoError(t, jobhttp.Guard("tcp4", "1.1.1.1:443"))
	require.NoError(t, jobhttp.Guard("tcp6", "[2606:4700:4700::1111]:443"))
	for _, tt := range []struct{ network, address string }{
		{"udp4", "1.1.1.1:443"}, {"unix", "/run/docker.sock"}, {"tcp4", "example.com:443"}, {"tcp4", "1.1.1.1"}, {"tcp4", ""}, {"ip4", "1.1.1.1"},
	} {
		require.Error(t, jobhttp.Guard(tt.network, tt.address), tt)
	}
}

func newCallbacks(t testing.TB, cfg jobhttp.CallbackConfig) *jobhttp.Callbacks {
	t.Helper()
	q, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	require.NoError(t, err)
	secrets, err := jobhttp.Secrets(secretA)
	require.NoError(t, err)
	c, err := jobhttp.NewCallbacks(q, secrets, cfg)
	require.NoError(t, err)
	return c
}

func TestCallbackURL(t *testing.T) {
	t.Parallel()
	strict, lax := newCallbacks(t, jobhttp.CallbackConfig{}), newCallbacks(t, jobhttp.CallbackConfig{AllowHTTP: true, AllowPrivate: true})
	const (
		noURL, noTLS, http, noHost, user, port, private = "it is not a URL", "it is not https", "it is http, not https", "it names no host", "it has a user name in it", "its port can't be", "its host is not public"
	)
	for _, tt := range []struct{ url, strict, lax string }{
		{"https://shop.example/done?x=1#y", "", ""},
		{"HTTPS://SHOP.EXAMPLE:8443", "", ""},
		{"https://1.1.1.1/", "", ""},
		{"https://[2606:4700:4700::1111]:443/", "", ""},
		{"http://shop.example/", http, ""},
		{"", noTLS, noTLS},
		{"shop.example/done", noTLS, noTLS},
		{"//shop.example/done", noTLS, noTLS},
		{"ftp://shop.example/", noTLS, noTLS},
		{"file:///etc/passwd", noTLS, noTLS},
		{"gopher://127.0.0.1:6379/_x", noTLS, noTLS},
		{"unix:///run/docker.sock", noTLS, noTLS},
		{"https:shop.example", noHost, noHost},
		{"https:///done", noHost, noHost},
		{"https://:443/", noHost, noHost},
		{"https://me@shop.example/", user, user},
		{"https://me:hush@shop.example/", user, user},
		{"https://shop.example@10.0.0.1/", user, user},
		{"https://@shop.example/", user, user},
		{"https://shop.example:0/", port, port},
		{"https://shop.example:65536/", port, port},
		{"https://shop.example:http/", noURL, noURL},
		{"https://shop.example/\r\nX-Evil: 1", noURL, noURL},
		{"https://shop .example/", noURL, noURL},
		{"https://%zz/", noURL, noURL},
		{"https://localhost/", private, ""},
		{"https://LOCALHOST./", private, ""},
		{"https://app.localhost/", private, ""},
		{"https://printer.local/", private, ""},
		{"https://metadata.google.internal/", private, ""},
		{"https://redis:6379/", private, ""},
		{"https://2130706433/", private, ""},
		{"https://0x7f000001/", private, ""},
		{"https://./", private, ""},
		{"https://127.0.0.1/", private, ""},
		{"https://169.254.169.254/latest/meta-data", private, ""},
		{"https://[::1]/", private, ""},
		{"https://[::ffff:127.0.0.1]/", private, ""},
		{"https://[fe80::1%25eth0]/", private, ""},
		{"https://[64:ff9b::a00:1]/", private, ""},
		{"https://shop.example/" + strings.Repeat("x", 2048), "it has more than 2048 bytes", "it has more than 2048 bytes"},
	} {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			for _, as := range []struct {
				c    *jobhttp.Callbacks
				want string
			}{{strict, tt.strict}, {lax, tt.lax}} {
				if as.want == "" {
					require.NoError(t, as.c.Check(tt.url))
				} else {
					require.EqualError(t, as.c.Check(tt.url), as.want)
				}
			}
		})
	}
}

// shoot runs one callback to a URL through the real transport, outside of any bubble, and answers why it died, if it did.
func shoot(t *testing.T, url string, cfg jobhttp.CallbackConfig) (died string) {
	t.Helper()
	cfg.MaxAttempts = 1
	q := newQueue(t, new(queue.Memory), queue.Config{})
	secrets, err := jobhttp.Secrets(secretA)
	require.NoError(t, err)
	callbacks, err := jobhttp.NewCallbacks(q, secrets, cfg)
	require.NoError(t, err)
	mux := muxOf(succeed)
	callbacks.Handle(mux)
	done := make(chan struct{}, 10)
	mux.Use(func(next queue.Handler) queue.Handler {
		return func(ctx context.Context, job queue.Job) error {
			err := next(ctx, job)
			if bytes.Contains(job.Payload, []byte(`"body"`)) {
				done <- struct{}{}
			}
			return err
		}
	})
	// As the watcher leaves it when the job has ended.
	payload := `{"jobId":"06GRO2VHC6HKE5Q71SKG5N1PK0","url":"` + url + `","body":{"type":"job.succeeded"}}`
	_, err = q.Enqueue(t.Context(), queue.Job{Kind: jobhttp.CallbackKind, Payload: []byte(payload), MaxAttempts: 1})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx, mux, queue.WorkerConfig{Concurrency: 1}) }()
	<-done
	stop()
	require.NoError(t, <-ran)
	dead, err := q.Dead(t.Context(), queue.DeadFilter{})
	require.NoError(t, err)
	if len(dead) == 0 {
		return ""
	}
	return dead[0].Error
}

// A name that stands for a private address, as after a DNS rebinding, is found out when it is dialed. The names are those
// that every machine knows; the check of the text would refuse "localhost", so its own check is done without.
func TestPrivateAddressIsNeverDialed(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(srv.Close)
	addr := srv.Listener.Addr().(*net.TCPAddr)
	transport := jobhttp.NewTransport(jobhttp.CallbackConfig{Timeout: time.Second})
	for _, host := range []string{"localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "[::1]", "127.1", "2130706433", "0x7f.1"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+":"+portOf(addr), http.NoBody)
		require.NoError(t, err)
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err == nil {
			resp.Body.Close()
		}
		require.Error(t, err, host)
		if host == "localhost" || strings.HasPrefix(host, "[") || host == "127.0.0.1" { // others may not resolve at all
			assert.ErrorContains(t, err, "is not a public address", host)
			_, permanent := errors.AsType[interface {
				error
				Permanent() bool
			}](err)
			assert.True(t, permanent, "the queue sees it through what http and net wrap it in: a dead letter at once")
		}
	}
	assert.Zero(t, asked.Load())
	assert.Nil(t, transport.Proxy, "a proxy from the environment would dial for us, unguarded")
}

func portOf(a *net.TCPAddr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

func TestPrivateAddressMakesADeadLetterAtOnce(t *testing.T) {
	t.Parallel()
	// The settings were changed after the submission.
	assert.Equal(t, "jobhttp: callback of job 06GRO2VHC6HKE5Q71SKG5N1PK0: its host is not public", shoot(t, "https://127.0.0.1:1/hush", jobhttp.CallbackConfig{}))
	assert.Equal(t, "jobhttp: callback of job 06GRO2VHC6HKE5Q71SKG5N1PK0: it is http, not https", shoot(t, "http://shop.example/hush", jobhttp.CallbackConfig{}))
}

func TestRealReceiver(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("POST /done", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		assert.JSONEq(t, `{"type":"job.succeeded"}`, string(body))
		assert.True(t, strings.HasPrefix(r.Header.Get("webhook-signature"), "v1,"))
		assert.Empty(t, r.Header.Get("Referer"))
		assert.Empty(t, r.Header.Get("Cookie"))
		asked.Add(1)
		w.Header().Set("Set-Cookie", "a=b")
		_, _ = w.Write(make([]byte, 1<<20)) // more than anybody reads
	})
	for from, to := range map[string]string{"/once": "/done", "/twice": "/once", "/thrice": "/twice", "/often": "/thrice", "/private": "https://10.0.0.1/", "/user": "https://me@shop.example/", "/plain": "http://127.0.0.1:1/", "/ftp": "ftp://shop.example/"} {
		mux.HandleFunc("POST "+from, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Set-Cookie", "a=b")
			http.Redirect(w, r, to, http.StatusPermanentRedirect)
		})
	}
	mux.HandleFunc("POST /found", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/done", http.StatusFound) })
	srv := httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	// Its certificate is for 127.0.0.1, which is private.
	lax := jobhttp.CallbackConfig{AllowPrivate: true, AllowHTTP: true, Transport: srv.Client().Transport}
	strict := jobhttp.CallbackConfig{Transport: hostOf{srv}}
	const before = "jobhttp: callback of job 06GRO2VHC6HKE5Q71SKG5N1PK0: "
	for _, tt := range []struct {
		url  string
		cfg  jobhttp.CallbackConfig
		want string
	}{
		{srv.URL + "/done", lax, ""},
		{srv.URL + "/once", lax, ""},
		{srv.URL + "/thrice", lax, ""},
		{srv.URL + "/often", lax, before + "127.0.0.1: more than 3 redirects"},
		{srv.URL + "/found", lax, before + "127.0.0.1 answered 302"},
		{srv.URL + "/plain", lax, before + "127.0.0.1: redirect: from https to http"},
		{srv.URL + "/user", lax, before + "127.0.0.1: redirect: it has a user name in it"},
		{srv.URL + "/ftp", lax, before + "127.0.0.1: redirect: it is not https"},
		{"https://shop.example/twice", strict, ""},
		{"https://shop.example/private", strict, before + "shop.example: redirect: its host is not public"},
		{"https://shop.example/plain", strict, before + "shop.example: redirect: it is http, not https"},
	} {
		asked.Store(0)
		assert.Equal(t, tt.want, shoot(t, tt.url, tt.cfg), tt.url)
		if tt.want == "" {
			assert.EqualValues(t, 1, asked.Load(), tt.url)
		} else {
			assert.Zero(t, asked.Load(), tt.url)
		}
	}
}

// hostOf sends every request to a server, whatever its host is.
type hostOf struct{ srv *httptest.Server }

func (h hostOf) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = h.srv.Listener.Addr().String()
	return h.srv.Client().Transport.RoundTrip(r)
}

// A receiver that sends its answer drop by drop holds a worker for Timeout, no longer.
func TestReceiverThatAnswersDropByDrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rc := new(receiver)
		rc.answers = []answer{{code: 200, body: drops{}}}
		start := time.Now()
		assert.Empty(t, shoot(t, "https://shop.example/", jobhttp.CallbackConfig{Transport: rc}))
		assert.Less(t, time.Since(start), 17*time.Second)
	})
}

type drops struct{}

func (drops) Read(p []byte) (int, error) { time.Sleep(time.Second); p[0] = 'x'; return 1, nil }

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"5", 5 * time.Second, true},
		{" 5\t", 5 * time.Second, true},
		{"0", time.Second, true},
		{"86401", 24 * time.Hour, true},
		{"99999999999999999999999", 24 * time.Hour, true},
		{"Wed, 25 Nov 2026 00:10:00 GMT", 10 * time.Minute, true},
		{"Wed, 25 Nov 2026 00:00:00 GMT", time.Second, true},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 24 * time.Hour, true},
		{"Mon, 01 Jan 0001 00:00:00 GMT", time.Second, true},
		{"", 0, false},
		{"-5", 0, false},
		{"+5", 0, false},
		{"1.5", 0, false},
		{"soon", 0, false},
		{"１", 0, false},
	} {
		t.Run(tt.value, func(t *testing.T) {
			t.Parallel()
			got, ok := jobhttp.RetryAfter(tt.value, now)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.ok, ok)
		})
	}
}
