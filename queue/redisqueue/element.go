package redisqueue

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/internal/text"
	"github.com/breakwater-go/breakwater/queue"
)

const (
	maxErrorLen = 2 << 10 // bytes kept of the failure that killed a job
	historyText = 360     // and of each in the history
	maxNoteLen  = 1 << 10

	// What stands in front of a job's record, as lua/machine.lua says.
	elementFormat = 1
	elementHead   = 18
)

func cut(s string, n int) string { return text.Cut(s, n) }

// element is a job as it is stored.
type element struct {
	number int64 // orders what was accepted
	since  int64 // µs
	record []byte
}

func parseElement(s string) (element, error) {
	if len(s) < elementHead {
		return element{}, fmt.Errorf("redisqueue: an element of %d bytes; its head alone has %d", len(s), elementHead)
	}
	if s[0] != elementFormat {
		return element{}, fmt.Errorf("redisqueue: an element of format %d: %w", s[0], queue.ErrNewerFormat)
	}
	b := []byte(s)
	return element{
		number: int64(math.Float64frombits(binary.BigEndian.Uint64(b[2:]))),
		since:  int64(math.Float64frombits(binary.BigEndian.Uint64(b[10:]))),
		record: b[elementHead:],
	}, nil
}

func parseJob(s string) (j queue.Job, since int64, err error) {
	e, err := parseElement(s)
	if err != nil {
		return j, 0, err
	}
	err = j.UnmarshalBinary(e.record)
	j.Since = timeOf(e.since).Truncate(time.Millisecond)
	return j, e.since, err
}

// laneOf names a job's lane: a job without a key has one of its own.
func laneOf(j *queue.Job) string {
	class, name := "l", j.Key
	switch {
	case j.Class == queue.Bulk && j.Key == "":
		class, name = "B", j.ID
	case j.Class == queue.Bulk:
		class = "b"
	case j.Key == "":
		class, name = "L", j.ID
	}
	return strconv.Itoa(len(j.Group)) + class + j.Group + name
}

// groupOf reads the group off a lane's name.
func groupOf(lane string) string {
	i := strings.IndexAny(lane, "lbLB")
	if i < 0 {
		return ""
	}
	n, err := strconv.Atoi(lane[:i])
	if err != nil || n > len(lane)-i-1 {
		return ""
	}
	return lane[i+1:][:n]
}

// dedupeOf names a job's dedupe key.
func dedupeOf(j *queue.Job) string {
	if j.DedupeKey == "" {
		return ""
	}
	return strconv.Itoa(len(j.Group)) + ":" + j.Group + j.DedupeKey
}

// accept appends what a script needs to accept a job.
func accept(args []any, e *queue.Entry, record []byte) []any {
	j := &e.Job
	notBefore := int64(0)
	if !j.NotBefore.IsZero() {
		notBefore = min(max(0, j.NotBefore.UnixMicro()), farthest)
		if j.NotBefore.Year() > 4000 { // UnixMicro has its bounds
			notBefore = farthest
		}
	}
	return append(args, record, laneOf(j), dedupeOf(j), dedupeMillis(j.DedupeFor), micros(j.Delay), notBefore, cut(e.Dead, maxErrorLen))
}

const (
	// farthest is a time, in µs, that Lua's numbers still tell from its neighbours.
	farthest = int64(1) << 56
	// longest is a span that Redis takes for a TTL, in ms.
	longest = int64(1) << 45
)

// micros is a span in microseconds, rounded up: a span must not become none.
func micros(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	us := d.Microseconds()
	if d > time.Duration(us)*time.Microsecond {
		us++
	}
	return us
}

func dedupeMillis(d time.Duration) int64 {
	return max(1, min((micros(d)+999)/1000, longest))
}

func timeOf(us int64) time.Time { return time.UnixMicro(us).UTC() }
