package jobhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	maxAnswer     = 64 << 10       // bytes read of a receiver's answer, so that its connection can be used again
	maxRetryAfter = 24 * time.Hour // of a receiver
	maxRedirects  = 3
)

// call sends one callback once.
func (c *Callbacks) call(ctx context.Context, job queue.Job, n note) error {
	fail := func(err error) error { return fmt.Errorf("jobhttp: callback of job %s: %w", n.JobID, err) }
	u, err := c.check(n.URL) // the settings may have changed since
	if err != nil {
		return queue.Permanent(fail(err))
	}
	secrets, err := c.secrets(ctx, job.Group, n.URL)
	if err != nil {
		return fail(err)
	}
	now := time.Now()
	signature, err := sign(secrets, job.ID, now, n.Body)
	if err != nil {
		return fail(err)
	}
	ctx, done := context.WithTimeout(ctx, c.cfg.Timeout)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(n.Body))
	if err != nil {
		return queue.Permanent(fail(withoutURL(err)))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Breakwater-Callback/1")
	req.Header.Set("Webhook-Id", job.ID)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", signature)
	resp, err := c.client.Do(req)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", u.Hostname(), withoutURL(err)))
	}
	defer resp.Body.Close()
	drain(ctx, resp.Body)
	return answered(resp, fail(fmt.Errorf("%s answered %d", u.Hostname(), resp.StatusCode)))
}

// drain reads the rest of an answer: what it says beyond its status does not matter, and whether it comes whole neither.
func drain(ctx context.Context, body io.Reader) {
	var buf [4 << 10]byte
	for read := 0; read < maxAnswer && ctx.Err() == nil; {
		n, err := body.Read(buf[:])
		if read += n; err != nil {
			return
		}
	}
}

// answered turns an answer into what it means to the queue; no is the error of one that is not 2xx.
func answered(resp *http.Response, no error) error {
	switch code := resp.StatusCode; {
	case code >= 200 && code <= 299:
		return nil
	case code == http.StatusGone: // the receiver wants no more
		return queue.Permanent(no)
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		if after, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
			return &later{no, after}
		}
	}
	return no
}

// retryAfter reads the header of that name: seconds, or a date. It is at least a second and at most a day.
func retryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.Trim(value, " \t")
	if digits := strings.TrimLeft(value, "0123456789"); value != "" && digits == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) { // so many digits are a long time
			return maxRetryAfter, true
		}
		return max(time.Duration(seconds)*time.Second, time.Second), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), time.Second), maxRetryAfter), true
}

// withoutURL takes the URL out of an http.Client's error, which becomes part of a history and a log: it may hold a secret.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// newClient makes the client of callbacks. It keeps no cookies, and follows few redirects.
func (c *Callbacks) newClient() *http.Client {
	transport := c.cfg.Transport
	if transport == nil {
		transport = newTransport(c.cfg)
	}
	return &http.Client{Transport: transport, CheckRedirect: c.redirect}
}

// redirect decides whether one more redirect is followed. Only 307 and 308 keep the method and the body.
func (c *Callbacks) redirect(req *http.Request, via []*http.Request) error {
	if req.Response == nil || req.Response.StatusCode != http.StatusTemporaryRedirect && req.Response.StatusCode != http.StatusPermanentRedirect {
		return http.ErrUseLastResponse // an answer that is not 2xx
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if _, err := c.check(req.URL.String()); err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	if req.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https" {
		return errors.New("redirect: from https to http")
	}
	req.Header.Del("Referer") // the first URL is not the second host's business
	return nil
}
