package queue_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue"
)

func aesgcm(t testing.TB, ids ...string) queue.Codec {
	t.Helper()
	var keys []queue.Key
	for _, id := range ids {
		keys = append(keys, queue.Key{ID: id, Secret: bytes.Repeat([]byte(id), 32)[:32]})
	}
	c, err := queue.AESGCM(keys...)
	require.NoError(t, err)
	return c
}

func TestCodecsRoundTrip(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 1000)
	_, _ = rand.Read(noise)
	for name, c := range map[string]queue.Codec{
		"plain": queue.Plain(), "deflate": queue.Deflate(), "aes": aesgcm(t, "a"), "both": queue.Chain(queue.Deflate(), aesgcm(t, "a")),
	} {
		for _, payload := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte("order "), 1000), noise} {
			stored, err := c.Encode("id", payload)
			require.NoError(t, err, name)
			got, err := c.Decode("id", stored)
			require.NoError(t, err, name)
			assert.Equal(t, payload, append([]byte{}, got...), name)
			assert.LessOrEqual(t, len(stored), len(payload)+64, name)
		}
	}
	stored, err := queue.Deflate().Encode("id", bytes.Repeat([]byte("order "), 1000))
	require.NoError(t, err)
	assert.Less(t, len(stored), 100)
}

func TestAESGCM(t *testing.T) {
	t.Parallel()
	c := aesgcm(t, "new", "old")
	stored, err := c.Encode("job", []byte("secret"))
	require.NoError(t, err)
	assert.NotContains(t, string(stored), "secret")
	again, err := c.Encode("job", []byte("secret"))
	require.NoError(t, err)
	assert.NotEqual(t, stored, again, "a fresh nonce")

	_, err = c.Decode("another job", stored)
	require.Error(t, err, "bound to its job")
	_, err = aesgcm(t, "other").Decode("job", stored)
	require.ErrorIs(t, err, queue.ErrNoCodec)
	for i := range stored {
		bad := bytes.Clone(stored)
		bad[i] ^= 1
		_, err := c.Decode("job", bad)
		require.Error(t, err, "byte %d", i)
		_, err = c.Decode("job", stored[:i])
		require.Error(t, err, "cut at %d", i)
	}
	newer := append([]byte{2}, stored[1:]...)
	_, err = c.Decode("job", newer)
	require.ErrorIs(t, err, queue.ErrNewerFormat)

	for want, keys := range map[string][]queue.Key{
		"there is no key": nil,
		`key ID ""`:       {{Secret: make([]byte, 32)}},
		"there twice":     {{ID: "a", Secret: make([]byte, 32)}, {ID: "a", Secret: make([]byte, 32)}},
		"key a: crypto":   {{ID: "a", Secret: make([]byte, 5)}},
	} {
		_, err := queue.AESGCM(keys...)
		require.ErrorContains(t, err, want)
	}
	_, err = queue.New(new(queue.Memory), queue.Config{AllowVolatile: true, Codecs: []queue.Codec{c, aesgcm(t, "x")}})
	require.ErrorContains(t, err, `two of the name "aes-gcm"`)
}

func FuzzDecode(f *testing.F) {
	aes, both := aesgcm(f, "a"), queue.Chain(queue.Deflate(), aesgcm(f, "a"))
	for _, c := range []queue.Codec{queue.Deflate(), aes, both} {
		b, err := c.Encode("id", []byte("some payload"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, c := range []queue.Codec{queue.Deflate(), aes, both} {
			_, _ = c.Decode("id", b) // no panic
		}
	})
}

// The payload is encoded in the broker, and decoded for handlers and for those who look.
func TestPayloadIsEncodedInTheBroker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(queue.Memory)
		q := newQueueWith(t, b, queue.Config{Codecs: []queue.Codec{aesgcm(t, "a")}, MaxPayloadBytes: 6})
		got := make(chan string, 1)
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error {
			got <- string(job.Payload)
			return queue.Permanent(errors.New("boom"))
		}), queue.WorkerConfig{})
		require.NoError(t, q.Pause(t.Context()))
		enqueue(t, q, queue.Job{Kind: "k", Payload: []byte("secret")})
		raw, err := b.Jobs(t.Context(), "default", queue.JobFilter{})
		require.NoError(t, err)
		assert.NotContains(t, string(raw[0].Job.Payload), "secret")
		seen, err := q.Jobs(t.Context(), queue.JobFilter{})
		require.NoError(t, err)
		assert.Equal(t, "secret", string(seen[0].Job.Payload))
		require.NoError(t, q.Resume(t.Context()))
		assert.Equal(t, "secret", <-got)
		synctest.Wait()
		assert.Equal(t, "secret", string(deadOf(t, q)[0].Job.Payload))
		n, err := q.Replay(t.Context(), queue.DeadFilter{})
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		assert.Equal(t, "secret", <-got)
		stop()
		_, err = q.Enqueue(t.Context(), queue.Job{Kind: "k", Payload: []byte("secret!")})
		require.ErrorIs(t, err, queue.ErrPayloadTooLarge, "the limit is on what the user gives")
	})
}

// TRAPS: two_versions_of_the_program_share_a_queue_during_a_deploy. What only the new version can read, handle or
// decrypt waits for it, untouched.
func TestTwoVersionsOfTheProgramShareAQueueDuringADeploy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &futureBroker{Memory: new(queue.Memory)}
		older := newQueueWith(t, b, queue.Config{Codecs: []queue.Codec{aesgcm(t, "old")}})
		newer := newQueueWith(t, b.Memory, queue.Config{Codecs: []queue.Codec{aesgcm(t, "new", "old"), queue.Deflate()}})
		newest := newQueueWith(t, b.Memory, queue.Config{Codecs: []queue.Codec{queue.Plain(), queue.Deflate(), aesgcm(t, "new", "old")}})
		deflated := newQueueWith(t, b.Memory, queue.Config{Codecs: []queue.Codec{queue.Deflate()}})
		var j journal
		mux := func(version string, kinds ...string) *queue.Mux {
			m := queue.NewMux()
			for _, k := range kinds {
				m.Handle(k, func(_ context.Context, job queue.Job) error {
					assert.Zero(t, job.Attempts)
					j.add("%s by %s", job.Payload, version)
					return nil
				})
			}
			return m
		}
		enqueue(t, older, queue.Job{Kind: "k", Payload: []byte("old key"), Key: "1"})
		enqueue(t, newer, queue.Job{Kind: "k", Payload: []byte("new key"), Key: "2"})
		enqueue(t, deflated, queue.Job{Kind: "k", Payload: []byte("deflated"), Key: "3"})
		enqueue(t, newest, queue.Job{Kind: "new kind", Payload: []byte("new kind"), Key: "4"})
		enqueue(t, newest, queue.Job{Kind: "k", Payload: []byte("new format"), Key: "future"})
		stopOld := work(t, older, mux("old", "k"), queue.WorkerConfig{})
		time.Sleep(20 * time.Hour)
		assert.Equal(t, []string{"old key by old"}, j.all())
		assert.Empty(t, deadOf(t, older))
		stopNew := work(t, newest, mux("new", "k", "new kind"), queue.WorkerConfig{})
		time.Sleep(10 * time.Minute)
		stopOld()
		stopNew()
		assert.ElementsMatch(t, []string{"old key by old", "new key by new", "deflated by new", "new kind by new", "new format by new"}, j.all())
		stats, err := newest.Stats(t.Context())
		require.NoError(t, err)
		assert.Zero(t, stats.Jobs+stats.Dead)

		// A payload for which nobody brings a codec is a dead letter after a day, and says so.
		enqueue(t, deflated, queue.Job{Kind: "k", Payload: []byte("x")})
		stop := work(t, older, mux("old", "k"), queue.WorkerConfig{})
		time.Sleep(26 * time.Hour)
		stop()
		dead := deadOf(t, older)
		require.Len(t, dead, 1)
		assert.Contains(t, dead[0].Error, `queue: no codec for this payload: it was encoded by "deflate"`)
	})
}

// futureBroker is an engine that meets records which it can't read: of a newer format where the key is "future",
// damaged where it is "damaged".
type futureBroker struct{ *queue.Memory }

func (b *futureBroker) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	c, err := b.Memory.Claim(ctx, name, call)
	for i, l := range c.Jobs {
		switch l.Job.Key {
		case "future":
			c.Jobs[i] = queue.Lease{Token: l.Token, Err: queue.ErrNewerFormat}
		case "damaged":
			c.Jobs[i] = queue.Lease{Token: l.Token, Err: errors.New("queue: record of 7 bytes is damaged")}
		}
	}
	return c, err
}

// TRAPS: undecodable_job_dies_alone_and_its_batch_runs
func TestUndecodableJobDiesAloneAndItsBatchRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &futureBroker{new(queue.Memory)}
		q := newQueueWith(t, b, queue.Config{Codecs: []queue.Codec{breakable{aesgcm(t, "a")}}})
		var j journal
		stop := work(t, q, muxOf("k", func(_ context.Context, job queue.Job) error { j.add("%s", job.Key); return nil }), queue.WorkerConfig{})
		var batch []queue.Job
		for _, key := range []string{"1", "damaged", "2", "sealed badly", "3"} {
			batch = append(batch, queue.Job{Kind: "k", Key: key, Payload: []byte(key)})
		}
		enqueue(t, q, batch...)
		time.Sleep(time.Minute)
		stop()
		assert.ElementsMatch(t, []string{"1", "2", "3"}, j.all())
		dead := deadOf(t, q)
		require.Len(t, dead, 2)
		for _, d := range dead {
			if d.Job.Key == "damaged" {
				assert.Equal(t, "queue: record of 7 bytes is damaged", d.Error)
			} else {
				assert.Equal(t, `queue: decode payload: aes-gcm: key "a": cipher: message authentication failed`, d.Error)
			}
		}
	})
}

// breakable spoils the payload "sealed badly".
type breakable struct{ queue.Codec }

func (b breakable) Encode(id string, payload []byte) ([]byte, error) {
	stored, err := b.Codec.Encode(id, payload)
	if string(payload) == "sealed badly" {
		stored[len(stored)-1] ^= 1
	}
	return stored, err
}
