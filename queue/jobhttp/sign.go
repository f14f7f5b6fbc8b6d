package jobhttp

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SecretFunc gives the secrets that sign the callbacks of a group to a URL, newest first, each as "whsec_" and 24 to 64 bytes in base64.
// With several the receiver can change from one to the next at leisure. A receiver knows the secret it verifies with, so one for
// all groups lets each of them forge callbacks to the others. It is called on every try; an error is a failed attempt.
type SecretFunc = func(ctx context.Context, group, url string) ([]string, error)

// Secrets makes a SecretFunc that always gives the same. It fails for none, and for one that is not in the form of SecretFunc's.
func Secrets(secrets ...string) (SecretFunc, error) {
	if _, err := keys(secrets); err != nil {
		return nil, err
	}
	secrets = slices.Clone(secrets)
	return func(context.Context, string, string) ([]string, error) { return secrets, nil }, nil
}

const (
	secretPrefix         = "whsec_"
	minSecret, maxSecret = 24, 64 // bytes, as the specification says
)

// keys decodes secrets. Its errors say which one is wrong, and nothing of it.
func keys(secrets []string) ([][]byte, error) {
	if len(secrets) == 0 {
		return nil, errors.New("jobhttp: there is no secret to sign callbacks with")
	}
	decoded := make([][]byte, len(secrets))
	for i, s := range secrets {
		text, ok := strings.CutPrefix(s, secretPrefix)
		if !ok {
			return nil, fmt.Errorf("jobhttp: callback secret %d of %d does not begin with %s", i+1, len(secrets), secretPrefix)
		}
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("jobhttp: callback secret %d of %d is not base64 behind %s", i+1, len(secrets), secretPrefix)
		}
		if len(key) < minSecret || len(key) > maxSecret {
			return nil, fmt.Errorf("jobhttp: callback secret %d of %d has %d bytes; want %d to %d", i+1, len(secrets), len(key), minSecret, maxSecret)
		}
		decoded[i] = key
	}
	return decoded, nil
}

// sign makes the webhook-signature header: for each secret the HMAC-SHA256 of ID, time and body, joined by full stops.
func sign(secrets []string, id string, at time.Time, body []byte) (string, error) {
	decoded, err := keys(secrets)
	if err != nil {
		return "", err
	}
	signatures := make([]string, len(decoded))
	for i, key := range decoded {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(signatures, " "), nil
}
