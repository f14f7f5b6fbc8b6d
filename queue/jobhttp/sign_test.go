package jobhttp_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/queue/jobhttp"
)

// The vector of the libraries at github.com/standard-webhooks/standard-webhooks.
func TestSignatureIsThatOfStandardWebhooks(t *testing.T) {
	t.Parallel()
	at := time.Unix(1614265330, 0)
	body := []byte(`{"test": 2432232314}`)
	const id, want = "msg_p5jXN8AQM9LWM0D4loKWxJek", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	got, err := jobhttp.Sign([]string{secretA}, id, at, body)
	require.NoError(t, err)
	assert.Equal(t, want, got)

	both, err := jobhttp.Sign([]string{secretB, secretA}, id, at, body)
	require.NoError(t, err)
	other, err := jobhttp.Sign([]string{secretB}, id, at, body)
	require.NoError(t, err)
	assert.Equal(t, other+" "+want, both, "in a rotation: newest first")
	assert.NotEqual(t, want, other)
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		secrets []string
		want    string
	}{
		{"none", nil, "jobhttp: there is no secret to sign callbacks with"},
		{"empty", []string{""}, "jobhttp: callback secret 1 of 1 does not begin with whsec_"},
		{"without the prefix", []string{secretA, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "jobhttp: callback secret 2 of 2 does not begin with whsec_"},
		{"not base64", []string{"whsec_hush hush"}, "jobhttp: callback secret 1 of 1 is not base64 behind whsec_"},
		{"too short to be safe", []string{"whsec_aHVzaA=="}, "jobhttp: callback secret 1 of 1 has 4 bytes; want 24 to 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := jobhttp.Secrets(tt.secrets...)
			require.EqualError(t, err, tt.want)
			assert.Nil(t, f)
		})
	}
	given := []string{secretA, secretB}
	f, err := jobhttp.Secrets(given...)
	require.NoError(t, err)
	given[0] = "changed"
	secrets, err := f(t.Context(), "a", url)
	require.NoError(t, err)
	assert.Equal(t, []string{secretA, secretB}, secrets)
}
