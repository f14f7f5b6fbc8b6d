package integration_test

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/idempotency"
	"github.com/breakwater-go/breakwater/idempotency/redisstore"
	"github.com/breakwater-go/breakwater/idempotency/sqlstore"
	"github.com/breakwater-go/breakwater/internal/redisserver/redistest"
)

// req is a request of shop "shop".
func req(t testing.TB, id string, lease time.Duration) idempotency.Request {
	t.Helper()
	r, err := idempotency.NewRequest("ship", idempotency.Key{Scope: "shop", ID: id})
	require.NoError(t, err)
	r.For, r.Retention = lease, time.Hour
	return r
}

// TestWhoLeavesReadsNothingThatIsWrittenYet is for the race detector.
func TestWhoLeavesReadsNothingThatIsWrittenYet(t *testing.T) {
	t.Parallel()
	s := sqlstore.New(open(t, filepath.Join(t.TempDir(), "marks.db?_pragma=synchronous(off)&_pragma=journal_mode(wal)&_pragma=busy_timeout(5000)")), sqlstore.Config{})
	require.NoError(t, s.Migrate(t.Context()))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
				r := req(t, "k", time.Second)
				c, err := s.Claim(ctx, r)
				e, extendErr := s.Extend(ctx, []idempotency.Lease{r.Lease}, time.Second)
				rec, inspectErr := s.Inspect(ctx, r.Name)
				cancel()
				assert.True(t, err == nil || c.State == 0)
				assert.True(t, extendErr == nil || len(e.Lost) == 0)
				assert.True(t, inspectErr == nil || rec.State == 0)
			}
		})
	}
	wg.Wait()
}

// TestNestedOnceTxFailsAtOnce: it would wait for itself.
func TestNestedOnceTxFailsAtOnce(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]int{"one connection": 1, "many": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger(t, filepath.Join(t.TempDir(), "shop.db"))
			l.db.SetMaxOpenConns(most)
			inner := sqlstore.OnceTx(l.store, "label", itself, insert)
			outer := sqlstore.OnceTx(l.store, "ship", itself, func(ctx context.Context, tx *sql.Tx, key string) error {
				require.ErrorIs(t, inner(ctx, key), idempotency.ErrNested)
				first, err := l.store.Mark(ctx, tx, "label", itself(key)) // that is the way
				require.True(t, first)
				return err
			})
			begin := time.Now()
			require.NoError(t, outer(t.Context(), "k"))
			require.Less(t, time.Since(begin), 4*time.Second)
			require.NoError(t, inner(t.Context(), "k"))
			require.Zero(t, l.effects(t, "k"), "it is marked")
		})
	}
}

// TestFirstUseOfAServerThatHangsEndsWithTheContext: nobody waits for another's look.
func TestFirstUseOfAServerThatHangsEndsWithTheContext(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redisstore.New(redistest.Dial(t, server.Addr), redisstore.Config{})
	require.NoError(t, server.Pause())
	defer server.Resume() //nolint:errcheck // over
	others, leave := context.WithCancel(t.Context())
	defer leave()
	for range 8 {
		go func() { _, _ = s.Claim(others, idempotency.Request{}) }()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := s.Claim(ctx, req(t, "b", time.Hour))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 2*time.Second)
}

// TestForgetWhoseAnswerWasLostForgetsTheMemo sends it again.
func TestForgetWhoseAnswerWasLostForgetsTheMemo(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	s := redisstore.New(p.client, redisstore.Config{})
	r := req(t, "k", time.Hour)
	_, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	require.NoError(t, s.Complete(t.Context(), r.Lease, []byte("r"), time.Hour))
	c, err := s.Claim(t.Context(), req(t, "k", time.Hour)) // remembered
	require.NoError(t, err)
	require.Equal(t, idempotency.Done, c.State)
	rec, err := s.Inspect(t.Context(), r.Name)
	require.NoError(t, err)
	p.lose(t, func() error { return s.Resolve(t.Context(), rec, idempotency.Resolution{Forget: true}) })
	_, err = s.Inspect(t.Context(), r.Name)
	require.ErrorIs(t, err, idempotency.ErrNoRecord)
	c, err = s.Claim(t.Context(), req(t, "k", time.Hour))
	require.NoError(t, err)
	require.Equal(t, idempotency.Claimed, c.State)
}

// between runs a func after the first SCAN has been answered, before what follows.
type between struct {
	do func()
}

func (between) DialHook(next redis.DialHook) redis.DialHook { return next }

func (between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h between) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "scan" {
			h.do()
		}
		return next(ctx, cmd)
	}
}

// TestPurgeForgetsTheMemoOfClaimsMeanwhile has a claim between the scan and the deletion.
func TestPurgeForgetsTheMemoOfClaimsMeanwhile(t *testing.T) {
	t.Parallel()
	client := redistest.Dial(t, redistest.Start(t).Addr)
	s := redisstore.New(client, redisstore.Config{})
	r := req(t, "k", time.Hour)
	_, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	require.NoError(t, s.Complete(t.Context(), r.Lease, nil, time.Hour))
	client.AddHook(between{do: func() {
		_, err := s.Claim(t.Context(), req(t, "k", time.Hour))
		assert.NoError(t, err)
	}})
	_, err = s.Purge(t.Context(), "shop")
	require.NoError(t, err)
	c, err := s.Claim(t.Context(), req(t, "k", time.Hour))
	require.NoError(t, err)
	require.Equal(t, idempotency.Claimed, c.State)
}

// TestFirstLookIsSentAgain cuts the connection before the first answer.
func TestFirstLookIsSentAgain(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	s := redisstore.New(p.client, redisstore.Config{})
	require.NoError(t, p.client.Ping(t.Context()).Err())
	before := p.dials.Load()
	p.cut(t)
	done := make(chan error, 1)
	r := req(t, "k", time.Hour)
	go func() { _, err := s.Claim(t.Context(), r); done <- err }()
	require.Eventually(t, func() bool { return p.dials.Load() > before }, 10*time.Second, time.Millisecond)
	p.heal(t)
	require.NoError(t, <-done)
}
