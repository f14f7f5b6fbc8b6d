package queuetest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/queuetest"
)

// shipping is the reader's own handler, with a carrier that is away for some calls.
type shipping struct{ away int }

func (s *shipping) ship(context.Context, queue.Job) error {
	if s.away--; s.away >= 0 {
		return errors.New("carrier is away")
	}
	return nil
}

// The README shows this test, see below.
//
//nolint:paralleltest // the test as a reader would write it
func TestShip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queuetest.New(t)
		mux := queue.NewMux()
		mux.Handle("ship", (&shipping{away: 2}).ship)
		_, err := q.Enqueue(t.Context(), queue.Job{Kind: "ship", Group: "a.myshopify.com", Key: "order/1"})
		require.NoError(t, err)

		result := q.Drain(t.Context(), mux) // runs until nothing is left; hours of back-off pass in no time
		require.Empty(t, result.Died)
		require.Len(t, result.Retried, 2)
	})
}

func TestREADMEShowsThatTest(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, shown, _ := strings.Cut(string(source), "a reader would write it\n")
	shown, _, ok := strings.Cut(shown, "\n}\n")
	require.True(t, ok)
	require.Contains(t, string(readme), "```go\n"+shown+"\n}\n```\n")
}
