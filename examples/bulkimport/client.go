package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// patience is how long a client bears a server that does not answer.
const patience = 30 * time.Second

// client is the other side: it knows HTTP, and nothing of queues.
type client struct{ base string }

// status is what an import's address answers, and its events say.
type status struct {
	JobID    string  `json:"jobId"`
	Status   string  `json:"status"`
	Progress int     `json:"progress"`
	Note     string  `json:"note"`
	Result   *result `json:"result"`
	Error    string  `json:"error"`
}

func (s status) ended() bool {
	return s.Status == "succeeded" || s.Status == "dead" || s.Status == "cancelled"
}

// refusedError is an answer that asking again does not change.
type refusedError struct {
	code   int
	detail string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("the server answers %d: %s", e.code, e.detail)
}

// do sends a request and uses the answer. One that is a refusal is an error.
func (c client) do(ctx context.Context, method, path string, body []byte, header http.Header, use func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		return use(resp)
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	var problem struct{ Detail string }
	if json.Unmarshal(text, &problem) != nil {
		problem.Detail = strings.TrimSpace(string(text))
	}
	refused := &refusedError{resp.StatusCode, problem.Detail}
	if resp.StatusCode >= 500 { // it is the server's trouble, and may pass
		return errors.New(refused.Error())
	}
	return refused
}

// patiently does something until it succeeds, or is refused.
func patiently(ctx context.Context, f func() error) error {
	for since := time.Now(); ; {
		err := f()
		if _, refused := errors.AsType[*refusedError](err); err == nil || refused || time.Since(since) > patience {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// post starts an import, and answers where it is. The key makes it safe to post again when no answer came.
func (c client) post(ctx context.Context, data []byte, key string) (location string, err error) {
	header := http.Header{"Content-Type": {"text/csv"}, "Idempotency-Key": {key}}
	err = patiently(ctx, func() error {
		return c.do(ctx, http.MethodPost, path, data, header, func(resp *http.Response) error {
			location = resp.Header.Get("Location")
			return nil
		})
	})
	return location, err
}

// follow reads an import's events until it has ended, over as many connections as that takes.
func (c client) follow(ctx context.Context, location string, see func(status) error) (last status, err error) {
	for lastID := ""; !last.ended(); {
		var stop error
		err := patiently(ctx, func() error {
			return c.do(ctx, http.MethodGet, location+"/events", nil, http.Header{"Last-Event-ID": {lastID}}, func(resp *http.Response) error {
				stop = events(resp.Body, func(id string, st status) error {
					lastID, last = id, st
					return see(st)
				})
				return nil
			})
		})
		if err := cmp.Or(err, stop); err != nil {
			return last, err
		}
		if !last.ended() { // the stream broke off: the server was killed, or stops
			time.Sleep(50 * time.Millisecond)
		}
	}
	return last, nil
}

// events reads Server-Sent Events until the stream breaks off, which is no error, or f fails.
func events(body io.Reader, f func(id string, st status) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	id, data := "", ""
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "data":
			data = value
		case "": // an empty line ends an event; one that begins with a colon is a comment
			if data == "" {
				continue
			}
			var st status
			if err := json.Unmarshal([]byte(data), &st); err != nil {
				return err
			}
			if err := f(id, st); err != nil {
				return err
			}
			data = ""
		}
	}
	return nil
}

// badRows reads the whole list of an import's bad rows.
func (c client) badRows(ctx context.Context, location string) (list []badRow, err error) {
	err = patiently(ctx, func() error {
		return c.do(ctx, http.MethodGet, location+"/bad", nil, nil, func(resp *http.Response) error {
			lines, err := csv.NewReader(resp.Body).ReadAll()
			if err != nil || len(lines) == 0 {
				return cmp.Or(err, io.ErrUnexpectedEOF)
			}
			list = nil
			for _, l := range lines[1:] {
				n, err := strconv.Atoi(l[0])
				if err != nil {
					return err
				}
				list = append(list, badRow{n, l[1]})
			}
			return nil
		})
	})
	return list, err
}
