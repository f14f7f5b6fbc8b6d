package breaker_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/breakwater-go/breakwater/breaker"
)

func TestRateLimitHoldsAndIsUsedUnderManyCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := calm()
		cfg.Limiter, cfg.MaxWait = rate.NewLimiter(100, 10), 50*time.Millisecond
		b := newBreaker(t, cfg)
		var (
			all   sync.WaitGroup
			calls atomic.Int64
			end   = time.Now().Add(3 * time.Second)
		)
		for range 32 {
			all.Go(func() {
				for time.Now().Before(end) {
					if b.Do(t.Context(), succeed) == nil {
						calls.Add(1)
					} else {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		all.Wait()
		require.LessOrEqual(t, calls.Load(), int64(3*100+10+5), "and those who waited at the end")
		require.GreaterOrEqual(t, calls.Load(), int64(3*100), "those who are sent away take nothing")
	})
}

func TestTrialThatWaitedPastItsLeaseIsAdmittedAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := hair()
		cfg.Limiter, cfg.MaxWait, cfg.TrialLease = rate.NewLimiter(rate.Every(time.Minute), 1), time.Hour, 10*time.Second
		b := newBreaker(t, cfg)
		due(trip(t, b))
		require.True(t, cfg.Limiter.Allow()) // the next turns are in a minute, and in two
		late := make(chan error, 1)
		go func() { late <- b.Do(t.Context(), func(context.Context) error { panic("another has the lease") }) }()
		time.Sleep(59 * time.Second)
		require.NoError(t, b.Do(t.Context(), succeed)) // whose own is over too when its turn comes, and nobody else's
		require.ErrorIs(t, <-late, breaker.ErrOpen)
		require.Equal(t, breaker.Closed, b.State())
	})
}

// An answer is either in time, with a body that can be read, or too late.
func TestAnswerThatComesAtTheTimeoutIsWholeOrNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Timeout: time.Second, MinCalls: 1 << 30})
		rt := b.Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			resp := answer(req, 200)
			resp.Body = &watched{resp.Body, req.Context()}
			return resp, nil
		}))
		for range 500 {
			resp, err := rt.RoundTrip(request(t, http.MethodPost, nil))
			if err != nil {
				require.ErrorIs(t, err, breaker.ErrTimeout)
				continue
			}
			time.Sleep(time.Second)
			_, err = io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
		}
	})
}

// watched is a body that can be read for as long as its context lives, as a real one.
type watched struct {
	io.ReadCloser

	ctx context.Context //nolint:containedctx // as in net/http
}

func (w *watched) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.ReadCloser.Read(p)
}

func TestCallLeavesTheBodyOfAResponseReadable(t *testing.T) {
	t.Parallel()
	b := newBreaker(t, breaker.Config{Timeout: time.Minute})
	resp, err := breaker.Call(t.Context(), b, func(ctx context.Context) (*http.Response, error) {
		resp := answer(request(t, http.MethodGet, nil), 200)
		resp.Body = &watched{resp.Body, ctx}
		return resp, nil
	})
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "answer", string(text))
}

// A handler in Guard whose client has the same breaker's Transport is counted twice, and recovers all the same.
func TestBreakerWithinItselfRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, hair())
		down := true
		rt := b.Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
			if down {
				return nil, errDown
			}
			return answer(req, 200), nil
		}))
		ship := breaker.Guard(b, func(ctx context.Context, _ int) error {
			_, err := send(rt, request(t, http.MethodPost, nil).WithContext(ctx))
			return err
		})
		require.ErrorIs(t, ship(t.Context(), 1), errDown)
		due(trip(t, b))
		require.ErrorIs(t, ship(t.Context(), 1), errDown)
		require.Equal(t, breaker.Open, b.State())
		down = false
		due(trip(t, b))
		require.NoError(t, ship(t.Context(), 1))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestInnerBreakerSeesAHangThatTheOuterOneEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := breaker.Config{Timeout: time.Second, MinCalls: 10}
		outer, inner := newBreaker(t, cfg), newBreaker(t, cfg)
		rt := outer.Transport(inner.Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})))
		for range 10 {
			_, err := send(rt, request(t, http.MethodPost, nil))
			require.Error(t, err)
		}
		synctest.Wait()
		require.Equal(t, []breaker.State{breaker.Open, breaker.Open}, []breaker.State{outer.State(), inner.State()})
	})
}

// RoundTrip is over: the caller may do with its request what it likes.
func TestRequestIsTheCallersAgainWhenRoundTripReturns(t *testing.T) {
	t.Parallel()
	goOn, read := make(chan struct{}), make(chan string, 1)
	rt := newBreaker(t, breaker.Config{}).Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
		<-goOn // whatever its context says
		read <- req.Header.Get("X-Shop") + req.URL.Host
		return nil, errDown
	}))
	ctx, cancel := context.WithCancel(t.Context())
	req := request(t, http.MethodPost, nil).WithContext(ctx)
	req.Header.Set("X-Shop", "a.")
	time.AfterFunc(time.Millisecond, cancel)
	_, err := send(rt, req)
	require.ErrorIs(t, err, context.Canceled)
	req.Header.Set("X-Shop", "b.")
	req.URL.Host = "other.example"
	close(goOn)
	require.Equal(t, "a.erp.example", <-read)
}

func TestBodyThatCanNotBeSentAgainIsNobodysFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, calm())
		req := request(t, http.MethodPost, http.NoBody)
		req.Body, req.GetBody = new(closer), func() (io.ReadCloser, error) { return nil, io.ErrUnexpectedEOF }
		_, err := send(b.Idempotent().Transport(roundTrip(func(*http.Request) (*http.Response, error) { return nil, errDown })), req)
		require.ErrorIs(t, err, errDown, "the real error")
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.EqualValues(t, 1, b.Stats().Failures)
	})
}

func TestClientsTimeoutIsStillATimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := &http.Client{Timeout: time.Second, Transport: newBreaker(t, breaker.Config{}).Transport(roundTrip(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}))}
		resp, err := client.Do(request(t, http.MethodPost, nil))
		if err == nil {
			resp.Body.Close()
		}
		u, ok := errors.AsType[*url.Error](err)
		require.True(t, ok)
		require.True(t, u.Timeout())
	})
}

func TestSlowHookHoldsNobodyLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := calm()
		told := 0
		cfg.Hooks.Called = func(breaker.Attempt) { told++; time.Sleep(time.Second) }
		b := newBreaker(t, cfg)
		var all sync.WaitGroup
		var longest atomic.Int64
		for range 1000 {
			all.Go(func() {
				begun := time.Now()
				assert.NoError(t, b.Do(t.Context(), succeed))
				longest.Store(max(longest.Load(), int64(time.Since(begun))))
			})
		}
		all.Wait()
		require.LessOrEqual(t, time.Duration(longest.Load()), 16*time.Second)
		time.Sleep(1000 * time.Second)
		synctest.Wait()
		require.Equal(t, 1000, told)
	})
}

func TestForcedBreakerOfAGroupIsTheLastToGo(t *testing.T) {
	t.Parallel()
	g, err := breaker.NewGroup("hosts", 3, hair())
	require.NoError(t, err)
	forced := g.Get("mended")
	forced.ForceOpen()
	for _, key := range []string{"a", "b", "c", "d"} {
		_ = trip(t, g.Get(key))
	}
	require.Same(t, forced, g.Get("mended"))
}

func TestResetFillsTheRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, calm())
		for range 20 {
			_, _ = tries(t.Context(), b, errDown)
		}
		b.Reset()
		at, _ := tries(t.Context(), b, errDown)
		require.Len(t, at, 3)
	})
}
