package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/breakwater-go/breakwater/webhook"
)

func hexMAC(message, key string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(message))
	return hex.EncodeToString(mac.Sum(nil))
}

func parse(t *testing.T, query string) url.Values {
	t.Helper()
	v, err := url.ParseQuery(query)
	require.NoError(t, err)
	return v
}

var signedAt = time.Unix(1_700_000_000, 0)

func TestVerifyAppProxy(t *testing.T) {
	t.Parallel()
	// Keys sorted, no separator, repeated parameters joined by commas, values decoded.
	const message = "extra=1,2logged_in_customer_id=path_prefix=/apps/awesome reviewsshop=a.myshopify.comtimestamp=1700000000"
	query := "extra=1&extra=2&shop=a.myshopify.com&logged_in_customer_id=&path_prefix=%2Fapps%2Fawesome+reviews&timestamp=1700000000&signature=" + hexMAC(message, secret)
	require.NoError(t, webhook.VerifyAppProxy(parse(t, query), signedAt, secret))
	require.NoError(t, webhook.VerifyAppProxy(parse(t, query), signedAt, "new", secret), "through a rotation")
	require.NoError(t, webhook.VerifyAppProxy(parse(t, query), signedAt.Add(90*time.Second), secret))
	require.NoError(t, webhook.VerifyAppProxy(parse(t, query), signedAt.Add(-90*time.Second), secret))
	require.ErrorIs(t, webhook.VerifyAppProxy(parse(t, query), signedAt.Add(91*time.Second), secret), webhook.ErrTimestamp)
	require.ErrorIs(t, webhook.VerifyAppProxy(parse(t, query), signedAt.Add(-91*time.Second), secret), webhook.ErrTimestamp)
	require.ErrorIs(t, webhook.VerifyAppProxy(parse(t, query), signedAt, "other"), webhook.ErrSignature)
	require.ErrorIs(t, webhook.VerifyAppProxy(parse(t, query), signedAt), webhook.ErrSignature, "no secret")
	require.ErrorIs(t, webhook.VerifyAppProxy(parse(t, query+"&x=1"), signedAt, secret), webhook.ErrSignature)
	for _, name := range []string{"shop", "timestamp", "signature", "hmac"} {
		q := parse(t, query)
		q[name] = []string{"a", "b"}
		require.ErrorIs(t, webhook.VerifyAppProxy(q, signedAt, secret), webhook.ErrRepeated, name)
	}
	noTime := "shop=a.myshopify.com&signature=" + hexMAC("shop=a.myshopify.com", secret)
	require.ErrorIs(t, webhook.VerifyAppProxy(parse(t, noTime), signedAt, secret), webhook.ErrTimestamp)
	empty := "shop=a.myshopify.com&signature=" + hexMAC("shop=a.myshopify.com", "")
	require.ErrorIs(t, webhook.VerifyAppProxy(parse(t, empty), signedAt, ""), webhook.ErrSignature, "an empty secret is nobody's")
	require.ErrorIs(t, webhook.VerifyAppProxy(parse(t, "signature=xyz"), signedAt, secret), webhook.ErrSignature)
}

func TestVerifyOAuth(t *testing.T) {
	t.Parallel()
	// Keys sorted, joined by &, values URL-encoded as both of Shopify's own libraries do.
	const message = "code=0907a61c&host=YWRtaW4uc2hvcGlmeS5jb20%3D&shop=a.myshopify.com&state=some+nonce&timestamp=1700000000"
	query := message + "&signature=ignored&hmac=" + hexMAC(message, secret)
	require.NoError(t, webhook.VerifyOAuth(parse(t, query), signedAt, secret))
	require.NoError(t, webhook.VerifyOAuth(parse(t, query), signedAt, "new", secret))
	require.ErrorIs(t, webhook.VerifyOAuth(parse(t, query), signedAt.Add(91*time.Second), secret), webhook.ErrTimestamp)
	require.ErrorIs(t, webhook.VerifyOAuth(parse(t, query), signedAt, "other"), webhook.ErrSignature)
	require.ErrorIs(t, webhook.VerifyOAuth(parse(t, query+"&shop=b.myshopify.com"), signedAt, secret), webhook.ErrRepeated)
	require.ErrorIs(t, webhook.VerifyOAuth(parse(t, query+"&hmac=00"), signedAt, secret), webhook.ErrRepeated)
	require.ErrorIs(t, webhook.VerifyOAuth(parse(t, message), signedAt, secret), webhook.ErrSignature)

	// Forms are encoded unlike Go does it in two characters.
	const odd = "shop=a.myshopify.com&state=a%7Eb*c&timestamp=1700000000"
	require.NoError(t, webhook.VerifyOAuth(parse(t, odd+"&hmac="+hexMAC(odd, secret)), signedAt, secret))

	// A list, as links from the admin's bulk actions have.
	const list = `ids=["1", "2"]&shop=a.myshopify.com&timestamp=1700000000`
	withList := "ids%5B%5D=1&ids%5B%5D=2&shop=a.myshopify.com&timestamp=1700000000&hmac=" + hexMAC(list, secret)
	require.NoError(t, webhook.VerifyOAuth(parse(t, withList), signedAt, secret))
	require.ErrorIs(t, webhook.VerifyOAuth(parse(t, withList+"&ids=3"), signedAt, secret), webhook.ErrRepeated)
}

func TestVerifyBody(t *testing.T) {
	t.Parallel()
	body := []byte(`{"kind":"FULFILLMENT_REQUEST"}`)
	signature := webhook.Sign(body, secret)
	require.NoError(t, webhook.VerifyBody(signature, body, "new", secret))
	require.ErrorIs(t, webhook.VerifyBody(signature, append(body, '\n'), secret), webhook.ErrSignature)
	require.ErrorIs(t, webhook.VerifyBody(signature, body, ""), webhook.ErrSignature)
	require.ErrorIs(t, webhook.VerifyBody("", body, secret), webhook.ErrSignature)
	require.ErrorIs(t, webhook.VerifyBody("***", body, secret), webhook.ErrSignature)
	require.ErrorIs(t, webhook.VerifyBody(webhook.Sign(nil, secret), nil, secret), webhook.ErrSignature, "an empty body is never signed")
}

// A query with anything in it is refused or accepted, without a panic; what was accepted stays accepted,
// and one changed character is refused.
func FuzzVerifyQuery(f *testing.F) {
	f.Add("shop=a.myshopify.com&timestamp=1700000000&signature=00&hmac=00")
	f.Add("ids[]=1&ids[]=2&a=%2&timestamp=x")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		require.Error(t, webhook.VerifyAppProxy(q, signedAt, secret))
		require.Error(t, webhook.VerifyOAuth(q, signedAt, secret))

		q = url.Values{"x": {raw}, "timestamp": {strconv.FormatInt(signedAt.Unix(), 10)}}
		form := strings.NewReplacer("%2A", "*", "~", "%7E").Replace(q.Encode())
		q.Set("hmac", hexMAC(form, secret))
		require.NoError(t, webhook.VerifyOAuth(q, signedAt, secret))
		q.Set("x", raw+"!")
		assert.ErrorIs(t, webhook.VerifyOAuth(q, signedAt, secret), webhook.ErrSignature)
	})
}
