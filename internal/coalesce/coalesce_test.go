package coalesce_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/internal/coalesce"
)

func TestWhatComesTogetherGoesTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent [][]int
		failure := errors.New("no")
		l := coalesce.Line[int]{MaxCount: 4, MaxBytes: 100, AtOnce: 1, Send: func(ctx context.Context, calls []int) error {
			time.Sleep(time.Second)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			sent = append(sent, calls)
			if calls[0] == 9 {
				return failure
			}
			return nil
		}}
		first := l.Join(t.Context(), 1, 1, 1)
		synctest.Wait() // it is under way, alone
		left, leave := context.WithCancel(t.Context())
		done := []<-chan error{first}
		for _, c := range []struct{ in, count, bytes int }{{2, 1, 1}, {3, 2, 1}, {4, 1, 99}, {5, 1, 1}, {9, 9, 999}} {
			done = append(done, l.Join(t.Context(), c.in, c.count, c.bytes))
		}
		gone := l.Join(left, 6, 1, 1)
		leave()
		underWay, waiting := l.Len()
		require.Equal(t, []int{1, 6}, []int{underWay, waiting})
		for i, d := range done {
			err := <-d
			if i == len(done)-1 {
				require.ErrorIs(t, err, failure)
			} else {
				require.NoError(t, err)
			}
		}
		synctest.Wait()
		require.Equal(t, [][]int{{1}, {2, 3}, {4, 5}, {9}}, sent, "in order, as many as fit, and one that is too large alone")
		underWay, _ = l.Len()
		require.Zero(t, underWay)
		require.Empty(t, gone, "who has left is not sent")
	})
}

func TestContextLastsAsLongAsOneCallerWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := coalesce.Line[int]{MaxCount: 9, MaxBytes: 9, AtOnce: 1, Send: func(ctx context.Context, calls []int) error {
			if len(calls) == 1 {
				time.Sleep(time.Second) // the others gather
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		l.Join(t.Context(), 1, 1, 1)
		synctest.Wait()
		a, leaveA := context.WithTimeout(t.Context(), 2*time.Second)
		defer leaveA()
		b, leaveB := context.WithTimeout(t.Context(), 5*time.Second)
		defer leaveB()
		begin := time.Now()
		l.Join(a, 2, 1, 1)
		require.ErrorIs(t, <-l.Join(b, 3, 1, 1), context.Canceled)
		require.Equal(t, 5*time.Second, time.Since(begin))
	})
}
