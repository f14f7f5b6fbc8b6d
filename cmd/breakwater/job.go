package main

import (
	"encoding/base64"
	"time"
	"unicode/utf8"

	"github.com/breakwater-go/breakwater/queue"
)

// jobLine is a job, or a dead letter, as JSON. The names of its fields stay.
type jobLine struct {
	ID          string            `json:"id"`
	State       queue.State       `json:"state"`
	Kind        string            `json:"kind"`
	Group       string            `json:"group"`
	Class       string            `json:"class"`
	Key         string            `json:"key"`
	Order       string            `json:"order"`
	DedupeKey   string            `json:"dedupeKey,omitempty"`
	Attempts    int               `json:"attempts"`
	MaxAttempts int               `json:"maxAttempts"`
	Crashes     int               `json:"crashes"`
	MaxCrashes  int               `json:"maxCrashes"`
	Since       time.Time         `json:"since"`
	Expires     time.Time         `json:"expires"`      // it is dead if it has not begun by then
	Due         time.Time         `json:"due,omitzero"` // of one that waits
	Died        time.Time         `json:"died,omitzero"`
	Error       string            `json:"error,omitempty"` // why it died, or its last failure
	History     []attemptLine     `json:"history,omitempty"`
	Bytes       int               `json:"payloadBytes"`
	Headers     map[string]string `json:"headers,omitempty"`
	Payload     *string           `json:"payload,omitempty"`
	Binary      []byte            `json:"payloadBase64,omitempty"` // of one that is no UTF-8
}

type attemptLine struct {
	Number int       `json:"number"`
	At     time.Time `json:"at"`
	Error  string    `json:"error"`
}

// describe is j as JSON; its headers and payload only if they are asked for.
func (c *call) describe(j *queue.Job, state queue.State) jobLine {
	l := jobLine{
		ID: j.ID, State: state, Kind: j.Kind, Group: j.Group, Class: j.Class.String(), Key: j.Key, Order: j.Order.String(), DedupeKey: j.DedupeKey,
		Attempts: j.Attempts, MaxAttempts: j.MaxAttempts, Crashes: j.Crashes, MaxCrashes: j.MaxCrashes,
		Since: j.Since, Expires: j.Since.Add(j.Deadline), Error: lastError(j), Bytes: len(j.Payload),
	}
	for _, a := range j.History {
		l.History = append(l.History, attemptLine{a.Number, a.At, a.Error})
	}
	if !c.payload {
		return l
	}
	l.Headers = j.Headers
	if utf8.Valid(j.Payload) {
		s := string(j.Payload)
		l.Payload = &s
	} else {
		l.Binary = j.Payload
	}
	return l
}

func lastError(j *queue.Job) string {
	if n := len(j.History); n > 0 {
		return j.History[n-1].Error
	}
	return ""
}

// contentsHeader goes on with a header where c shows headers and payloads.
func (c *call) contentsHeader() string {
	if c.payload {
		return ",HEADERS,PAYLOAD"
	}
	return ""
}

// contents are the cells of a job's headers and payload, if they are asked for.
func (c *call) contents(j *queue.Job) []string {
	if !c.payload {
		return nil
	}
	return []string{headersText(j), cell(payloadText(j))}
}

func headersText(j *queue.Job) string {
	if len(j.Headers) == 0 {
		return "-"
	}
	s, err := oneLine(j.Headers)
	if err != nil {
		return err.Error()
	}
	return s
}

// payloadText is a payload as it is if that is text, else in base64.
func payloadText(j *queue.Job) string {
	if utf8.Valid(j.Payload) {
		return string(j.Payload)
	}
	return base64.StdEncoding.EncodeToString(j.Payload)
}
