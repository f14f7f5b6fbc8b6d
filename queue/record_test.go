package queue_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

var update = flag.Bool("update", false, "write new golden records; a record that is out there must never change")

var day = time.Date(2026, 11, 27, 8, 30, 0, 123e6, time.UTC)

// golden are the jobs whose records lie in testdata/format.
var golden = map[string]queue.Job{
	"least": {ID: "01GOLDEN", Kind: "k", MaxAttempts: 1, MaxCrashes: 1, Deadline: time.Hour, StatusFor: time.Hour, Since: day},
	"order": {
		ID: "06F2K5QF3R6A8V0S9T4E1B7C2D", Kind: "orders/create", Group: "app/shop.myshopify.com", Key: "order/820982911946154508", DedupeKey: "orders/create b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
		Headers: map[string]string{"X-Shopify-Topic": "orders/create", "X-Shopify-Shop-Domain": "shop.myshopify.com", "empty": ""},
		Payload: []byte(`{"id":820982911946154508,"name":"#9999"}`), MaxAttempts: 30, MaxCrashes: 5, Deadline: 72 * time.Hour, StatusFor: 24 * time.Hour, Since: day,
	},
	"failed": {
		ID: "06F2K5QF3R6A8V0S9T4E1B7C2E", Kind: "k", Class: queue.Bulk, Order: queue.Relaxed, Track: true, Attempts: 2, MaxAttempts: 3, Crashes: 1, MaxCrashes: 2,
		Deadline: time.Millisecond, StatusFor: time.Second, Since: day, Payload: []byte{0, 255},
		History: []queue.Attempt{{Number: 1, At: day, Error: "carrier: 503"}, {Number: 3, At: day.Add(time.Minute), Error: "ünlucky"}},
	},
}

// Golden records of every format that is out there are read, and what is written is the present one, to the byte.
func TestGoldenRecords(t *testing.T) {
	t.Parallel()
	for name, job := range golden {
		file := filepath.Join("testdata", "format", "v1", name+".hex")
		now, err := job.MarshalBinary()
		require.NoError(t, err)
		if *update {
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o750))
			require.NoError(t, os.WriteFile(file, []byte(lines(hex.EncodeToString(now))), 0o600))
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		stored, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		require.NoError(t, err)
		assert.Equal(t, stored, now, name)
		var got queue.Job
		require.NoError(t, got.UnmarshalBinary(stored))
		assert.Equal(t, job, got, name)
		assert.Equal(t, byte(1), stored[0], "the format byte")
		assert.Equal(t, uint32(job.Attempts), binary.BigEndian.Uint32(stored[2:]), "what scripts need stands at fixed places") //nolint:gosec // a small count
		assert.Equal(t, uint64(job.Since.UnixMilli()), binary.BigEndian.Uint64(stored[18:]))
	}
}

// What codecs have stored is read for as long as their names are.
func TestGoldenPayloads(t *testing.T) {
	t.Parallel()
	const id, payload = "06F2K5QF3R6A8V0S9T4E1B7C2D", `{"id":820982911946154508,"name":"#9999","note":"note note note note note note note note"}`
	for name, c := range map[string]queue.Codec{"deflate": queue.Deflate(), "aes-gcm": aesgcm(t, "a", "b"), "deflate+aes-gcm": queue.Chain(queue.Deflate(), aesgcm(t, "a", "b"))} {
		file := filepath.Join("testdata", "format", "v1", "payload-"+name+".hex")
		if *update {
			stored, err := c.Encode(id, []byte(payload))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, []byte(lines(hex.EncodeToString(stored))), 0o600))
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		stored, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		require.NoError(t, err)
		got, err := c.Decode(id, stored)
		require.NoError(t, err, name)
		assert.JSONEq(t, payload, string(got), name)
		assert.Equal(t, name, c.Name())
	}
}

func lines(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		n := min(64, len(s))
		b.WriteString(s[:n] + "\n")
		s = s[n:]
	}
	return b.String()
}

func TestRecordsThatCantBeRead(t *testing.T) {
	t.Parallel()
	whole, err := golden["failed"].MarshalBinary()
	require.NoError(t, err)
	var job queue.Job
	newer := append([]byte{2}, whole[1:]...)
	require.ErrorIs(t, job.UnmarshalBinary(newer), queue.ErrNewerFormat)
	require.ErrorContains(t, job.UnmarshalBinary(newer), "2; this version reads up to 1")
	require.ErrorContains(t, job.UnmarshalBinary(nil), "record is empty")
	require.ErrorContains(t, job.UnmarshalBinary([]byte{0}), "has format 0")
	damaged := 0
	for n := range whole {
		if err := job.UnmarshalBinary(whole[:n]); err != nil {
			damaged++
			require.NotErrorIs(t, err, queue.ErrNewerFormat)
		}
	}
	assert.Equal(t, len(whole)-2, damaged, "only the two bytes of payload can be missing unseen")

	long := queue.Job{Kind: "k", Key: strings.Repeat("x", 1<<16)}
	_, err = long.MarshalBinary()
	require.ErrorIs(t, err, queue.ErrNameTooLong)
	require.ErrorContains(t, err, "Job.Key has 65536 bytes; at most 65535 are possible")
	_, err = newQueue(t, new(queue.Memory)).Enqueue(t.Context(), long)
	require.ErrorIs(t, err, queue.ErrNameTooLong)
	_, err = new(queue.Memory).Enqueue(t.Context(), "q", queue.Batch{ID: "b", Jobs: []queue.Entry{{Job: long}}})
	require.ErrorIs(t, err, queue.ErrNameTooLong)
}

// Whatever the bytes: no panic, and what can be read is written as the same bytes again and read as the same job.
func FuzzRecord(f *testing.F) {
	for _, job := range golden {
		b, err := job.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var job queue.Job
		kept := bytes.Clone(b)
		if err := job.UnmarshalBinary(b); err != nil {
			return
		}
		clear(b)
		again, err := job.MarshalBinary()
		if err != nil {
			return // a header over 2 GiB
		}
		var second queue.Job
		if err := second.UnmarshalBinary(again); err != nil {
			t.Fatalf("%x was read, but what it was written as was not: %v", kept, err)
		}
		assert.Equal(t, job, second)
	})
}
