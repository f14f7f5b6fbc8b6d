package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/webhook"
)

// flawed makes a receiver that leaves something out: answer says what it hands to its sink, nil for
// nothing, and its status.
func flawed(answer func(verified bool, n int64, body []byte) (given []byte, status int)) receiver {
	return receiver{name: "flawed", headers: shopifyHeaders, handler: func(take func([]byte)) (http.Handler, error) {
		var verified atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			ok := webhook.VerifyBody(r.Header.Get(signatureHeader), body, secret) == nil
			if ok {
				verified.Add(1)
			}
			given, status := answer(ok, verified.Load(), body)
			if given != nil {
				take(given)
			}
			w.WriteHeader(status)
		}), nil
	}}
}

// flaws has each by what must be said about it.
var flaws = map[string]receiver{
	"took a body with a wrong signature": flawed(func(_ bool, _ int64, body []byte) ([]byte, int) {
		return body, http.StatusOK
	}),
	"gave its sink 0 deliveries": flawed(func(verified bool, _ int64, _ []byte) ([]byte, int) {
		if !verified {
			return nil, http.StatusUnauthorized
		}
		return nil, http.StatusOK
	}),
	"gave its sink a wrong body": flawed(func(verified bool, n int64, body []byte) ([]byte, int) {
		if !verified {
			return nil, http.StatusUnauthorized
		}
		if n%sampleEvery == 0 {
			body[0] ^= 1
		}
		return body, http.StatusOK
	}),
	"answered": flawed(func(verified bool, _ int64, body []byte) ([]byte, int) {
		if !verified {
			return nil, http.StatusUnauthorized
		}
		return body, http.StatusServiceUnavailable
	}),
}

func TestFlawedReceiverIsInvalidInProcess(t *testing.T) {
	t.Parallel()
	for what, rc := range flaws {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			rep := &report{out: &out}
			require.NoError(t, benchHandlers(t.Context(), rep, []receiver{rc, breakwater()}, payload(1<<10), time.Millisecond, want{"<", 1}))
			require.ErrorIs(t, rep.finish(), errInvalid)
			require.Contains(t, out.String(), " invalid ")
			require.Contains(t, out.String(), what)
		})
	}
}

func TestFlawedReceiverIsInvalidOverLoopback(t *testing.T) {
	t.Parallel()
	for what, rc := range flaws {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, err := newSite(t.Context(), rc, payload(1<<10))
			require.NoError(t, err)
			t.Cleanup(s.close)
			for s.problem() == nil {
				s.round(10 * time.Millisecond)
			}
			require.ErrorContains(t, s.problem(), what)
		})
	}
}

func TestEveryReceiverIsValid(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"webhook", "-json", "-rounds", "1", "-time", "20ms"}, &out))
	rows := 0
	for dec := json.NewDecoder(&out); dec.More(); rows++ {
		var got struct {
			Case       string
			Ours, Peer float64
			Ratio      float64 // "invalid" does not decode
		}
		require.NoError(t, dec.Decode(&got))
		assert.Positive(t, got.Ours, got.Case)
		assert.Positive(t, got.Peer, got.Case)
		assert.InDelta(t, got.Ours/got.Peer, got.Ratio, 1e-9, got.Case)
	}
	assert.Equal(t, 3*6+2, rows)
}

func TestRun(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"usage":            nil,
		`no benchmark "x"`: {"x"},
		"must be positive": {"webhook", "-rounds", "0"},
		"be positive":      {"queue", "-rounds", "-1"},
		`no engine "x"`:    {"queue", "-engine", "x"},
	} {
		require.ErrorContains(t, run(t.Context(), args, io.Discard), want)
	}
}
