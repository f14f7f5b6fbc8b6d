package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrSignature means that a signature is missing or that none of the secrets made it.
	ErrSignature = errors.New("webhook: signature is missing or wrong")
	// ErrTimestamp means that a signed query's timestamp is missing or more than 90 s away from now:
	// an old link, perhaps replayed.
	ErrTimestamp = errors.New("webhook: timestamp is missing or more than 90 s away")
	// ErrRepeated means that a query has a parameter twice that must stand once.
	ErrRepeated = errors.New("webhook: repeated parameter")
)

// tolerance is how far a signed query's timestamp may be from now: what Shopify's JavaScript library
// permits (lib/utils/hmac-validator.ts).
const tolerance = 90 * time.Second

// VerifyAppProxy checks a request that came through an app proxy: its query holds a hex HMAC-SHA256,
// signature, over all other parameters, sorted, as k=v without a separator, the values of a repeated
// one joined by commas. secrets are the app's, newest first. Its errors are [ErrSignature],
// [ErrTimestamp] and, for a repeated shop, timestamp, signature or hmac, [ErrRepeated].
//
//	err := webhook.VerifyAppProxy(r.URL.Query(), time.Now(), secret)
func VerifyAppProxy(query url.Values, now time.Time, secrets ...string) error {
	if err := once(query, "shop", "timestamp", "signature", "hmac"); err != nil {
		return err
	}
	var parts []string
	for k, v := range query {
		if k != "signature" {
			parts = append(parts, k+"="+strings.Join(v, ","))
		}
	}
	slices.Sort(parts)
	return verifyQuery(query, "signature", strings.Join(parts, ""), now, secrets)
}

// VerifyOAuth checks the query of an OAuth callback, of a link from the admin or of the app's own
// URL when it is opened there: a hex HMAC-SHA256, hmac, over the other parameters (without
// signature), sorted and URL-encoded. secrets are the app's, newest first. No parameter may be repeated
// but lists, whose names end in "[]" (ErrRepeated); these are signed as ids=["1", "2"]. Its other errors are
// [ErrSignature] and [ErrTimestamp]. It does not check state, which only the caller knows.
func VerifyOAuth(query url.Values, now time.Time, secrets ...string) error {
	plain, lists := url.Values{}, url.Values{}
	for k, v := range query {
		switch name, list := strings.CutSuffix(k, "[]"); {
		case k == "hmac" || k == "signature":
		case list:
			lists.Set(name, `["`+strings.Join(v, `", "`)+`"]`)
		default:
			plain[k] = v
		}
	}
	for k := range query {
		if !strings.HasSuffix(k, "[]") {
			if err := once(query, k); err != nil {
				return err
			}
		}
	}
	if len(lists) == 0 {
		return verifyQuery(query, "hmac", formEncode(plain), now, secrets)
	}
	var parts []string
	for k, v := range plain {
		parts = append(parts, k+"="+v[0])
	}
	for k, v := range lists {
		if _, both := plain[k]; both {
			return fmt.Errorf("%w %q", ErrRepeated, k)
		}
		parts = append(parts, k+"="+v[0])
	}
	slices.Sort(parts)
	return verifyQuery(query, "hmac", strings.Join(parts, "&"), now, secrets)
}

// formEncode encodes as browsers encode forms, and so as Shopify's libraries do: unlike Encode it leaves
// "*" and escapes "~".
func formEncode(v url.Values) string {
	return strings.NewReplacer("%2A", "*", "~", "%7E").Replace(v.Encode())
}

// VerifyBody checks a Flow action's or a fulfillment service's callback, or a webhook that came
// another way than through [Handler]: signature is the value of its X-Shopify-Hmac-Sha256 header,
// base64 of the HMAC-SHA256 of the raw body. Its error is [ErrSignature].
func VerifyBody(signature string, body []byte, secrets ...string) error {
	sum, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(body) == 0 {
		return ErrSignature
	}
	return verifySum(sum, string(body), secrets)
}

// Sign gives the X-Shopify-Hmac-Sha256 header of body: what [VerifyBody] and [Handler] accept. It is
// for senders in tests.
func Sign(body []byte, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func once(query url.Values, names ...string) error {
	for _, name := range names {
		if len(query[name]) > 1 {
			return fmt.Errorf("%w %q", ErrRepeated, name)
		}
	}
	return nil
}

func verifyQuery(query url.Values, name, message string, now time.Time, secrets []string) error {
	sum, err := hex.DecodeString(query.Get(name))
	if err != nil {
		return ErrSignature
	}
	if err := verifySum(sum, message, secrets); err != nil {
		return err
	}
	// After the signature, so that the answer tells a stranger nothing.
	sec, err := strconv.ParseInt(query.Get("timestamp"), 10, 64)
	if err != nil {
		return ErrTimestamp
	}
	if d := now.Sub(time.Unix(sec, 0)); d > tolerance || d < -tolerance {
		return ErrTimestamp
	}
	return nil
}

func verifySum(sum []byte, message string, secrets []string) error {
	for _, s := range secrets {
		if s == "" {
			continue // an unset variable must not become a secret that anybody knows
		}
		mac := hmac.New(sha256.New, []byte(s))
		mac.Write([]byte(message))
		if hmac.Equal(mac.Sum(nil), sum) {
			return nil
		}
	}
	return ErrSignature
}
