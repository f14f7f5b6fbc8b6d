package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/breaker"
)

func TestClassifyDefaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want breaker.Class
	}{
		{nil, breaker.Success},
		{errDown, breaker.Failure},
		{io.ErrUnexpectedEOF, breaker.Failure},
		{context.DeadlineExceeded, breaker.Failure},
		{context.Canceled, breaker.Failure}, // not by the caller, who is asked before
		{&breaker.OpenError{}, breaker.Ignored},
		{breaker.ErrLimited, breaker.Ignored},
		{fmt.Errorf("%w: %w", breaker.ErrTimeout, permanent{}), breaker.Failure},
		{permanent{}, breaker.Permanent},
		{busy{0}, breaker.Throttled},
		{&breaker.StatusError{Code: 302}, breaker.Success},
		{&breaker.StatusError{Code: 400}, breaker.Success},
		{&breaker.StatusError{Code: 408}, breaker.Success},
		{&breaker.StatusError{Code: 429}, breaker.Throttled},
		{&breaker.StatusError{Code: 500}, breaker.Failure},
		{&breaker.StatusError{Code: 504}, breaker.Failure},
	} {
		require.Equal(t, c.want, breaker.Classify(c.err), "%v", c.err)
		if c.err != nil {
			require.Equal(t, c.want, breaker.Classify(fmt.Errorf("ship: %w", c.err)), "%v", c.err)
		}
	}
	require.Equal(t, []string{"success", "failure", "ignored", "permanent", "throttled", "class 0"},
		[]string{breaker.Success.String(), breaker.Failure.String(), breaker.Ignored.String(), breaker.Permanent.String(), breaker.Throttled.String(), breaker.Class(0).String()})
	require.Equal(t, []string{"closed", "open", "half-open", "unknown"},
		[]string{breaker.Closed.String(), breaker.Open.String(), breaker.HalfOpen.String(), breaker.State(0).String()})
}

// check is breaker.CheckStatus of an answer that nobody reads.
func check(req *http.Request, status int, header ...[2]string) error {
	resp := answer(req, status, header...)
	defer resp.Body.Close()
	return breaker.CheckStatus(resp)
}

func TestCheckStatus(t *testing.T) {
	t.Parallel()
	req := request(t, http.MethodGet, nil)
	for status := 100; status < 400; status++ {
		require.NoError(t, check(req, status))
	}
	err := check(req, 404, [2]string{"Retry-After", "soon"})
	require.Equal(t, &breaker.StatusError{Code: 404, Host: "erp.example"}, err, "no secret of the URL's")
	require.EqualError(t, err, "breaker: erp.example answered with 404 Not Found")
	_, waits := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err)
	require.False(t, waits, "a queue puts off what has this method")

	const date = "Mon, 02 Jan 2006 15:04:05 GMT"
	for header, want := range map[string]time.Duration{
		"0":                             0,
		"120":                           2 * time.Minute,
		"99999999999999999999999":       9223372036 * time.Second,
		"Mon, 02 Jan 2006 15:05:05 GMT": time.Minute,
		"Mon, 02 Jan 2006 15:00:00 GMT": 0,
	} {
		err := check(req, 503, [2]string{"Retry-After", header}, [2]string{"Date", date})
		require.ErrorAs(t, err, new(*breaker.StatusError))
		d, ok := errors.AsType[interface {
			error
			RetryAfter() time.Duration
		}](err)
		require.True(t, ok, header)
		require.Equal(t, want, d.RetryAfter(), header)
		require.Equal(t, breaker.Failure, breaker.Classify(err), "it waits, and failed")
	}
	require.EqualError(t, breaker.CheckStatus(&http.Response{StatusCode: 500}), "breaker: the dependency answered with 500 Internal Server Error")
}

// Whatever a server says, a wait is not negative, and what is not understood is none.
func FuzzCheckStatus(f *testing.F) {
	for _, s := range []string{"", "0", "1", "-1", "1.5", "18446744073709551616", "Mon, 02 Jan 2006 15:04:05 GMT", "Monday, 02-Jan-06 15:04:05 GMT", "soon", " 5"} {
		f.Add(s, "Mon, 02 Jan 2006 15:04:05 GMT")
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, after, date string) {
		resp := &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {after}, "Date": {date}}}
		err := breaker.CheckStatus(resp)
		require.ErrorAs(t, err, new(*breaker.StatusError))
		if d, ok := errors.AsType[interface {
			error
			RetryAfter() time.Duration
		}](err); ok {
			require.GreaterOrEqual(t, d.RetryAfter(), time.Duration(0))
			require.NotEmpty(t, after)
		}
	})
}
