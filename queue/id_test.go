package queue_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

func TestIDTimeIsWhenTheJobWasEnqueued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
		require.NoError(t, err)
		for range 3 {
			time.Sleep(1234567 * time.Microsecond)
			receipts, err := q.Enqueue(t.Context(), queue.Job{Kind: "k"})
			require.NoError(t, err)
			made, ok := queue.IDTime(receipts[0].ID)
			require.True(t, ok, receipts[0].ID)
			assert.True(t, time.Now().Truncate(time.Millisecond).Equal(made), "%v, not %v", made, time.Now())
			assert.Equal(t, time.UTC, made.Location())
		}
	})
}

func TestIDTimeRefusesWhatIsNoID(t *testing.T) {
	t.Parallel()
	const good = "06GRO2VHC6HKE5Q71SKG5N1PK0"
	_, ok := queue.IDTime(good)
	require.True(t, ok)
	for _, tt := range []struct{ name, id string }{
		{"empty", ""},
		{"short", good[:25]},
		{"long", good + "0"},
		{"lower case", strings.ToLower(good)},
		{"another alphabet", "W" + good[1:]},
		{"a line end in it", good[:10] + "\n" + good[11:]},
		{"line ends only", strings.Repeat("\n", 26)},
		{"bits that mean nothing are set", good[:25] + "1"},
		{"padding", good[:24] + "=="},
		{"not ASCII", strings.Repeat("é", 13)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			made, ok := queue.IDTime(tt.id)
			assert.False(t, ok)
			assert.Zero(t, made)
		})
	}
}

func FuzzIDTime(f *testing.F) {
	f.Add("06GRO2VHC6HKE5Q71SKG5N1PK0")
	f.Add("VVVVVVVVVVVVVVVVVVVVVVVVVS")
	f.Add("0000000000000000000000000\n")
	f.Fuzz(func(t *testing.T, id string) {
		made, ok := queue.IDTime(id)
		if !ok {
			require.Zero(t, made)
			return
		}
		require.Len(t, id, 26)
		require.Equal(t, id, strings.ToUpper(id))
		require.GreaterOrEqual(t, made.UnixMilli(), int64(0))
		require.Less(t, made.UnixMilli(), int64(1)<<48)
	})
}
