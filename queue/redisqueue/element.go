package redisqueue

import (
	"encoding/binary"
	"fmt"
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

	// A job's head, as lua/machine.lua says: format, number, time; then attempts, crashes and history.
	headFormat = 1
	headSize   = 14
	headTail   = headSize + 8
)

func cut(s string, n int) string { return text.Cut(s, n) }

// stored is a job's head, read.
type stored struct {
	number            int64 // orders what was accepted
	since             int64 // µs
	changed           bool  // the rest counts, and not what the record says
	attempts, crashes int
	history           []queue.Attempt
}

func parseHead(h string) (s stored, err error) {
	if h == "" || h[0] != headFormat {
		return s, fmt.Errorf("redisqueue: the head of a job has %d bytes and is not of format %d: %w", len(h), headFormat, queue.ErrNewerFormat)
	}
	if len(h) < headSize || len(h) > headSize && len(h) < headTail {
		return s, fmt.Errorf("redisqueue: the head of a job has %d bytes", len(h))
	}
	b := []byte(h)
	s.number, s.since = number(b[1:7]), number(b[7:14])
	if len(b) == headSize {
		return s, nil
	}
	s.changed = true
	s.attempts, s.crashes = int(number(b[headSize:][:4])), int(number(b[headSize+4:][:4]))
	// A record with nothing in it but the history.
	mini := make([]byte, emptyRecord, emptyRecord+8+len(b)-headTail)
	mini[0] = 1
	mini = binary.BigEndian.AppendUint32(mini, uint32(len(b)-headTail)) //nolint:gosec // 8 KiB at most
	mini = append(mini, b[headTail:]...)
	mini = append(mini, 0, 0, 0, 0)
	var j queue.Job
	if err := j.UnmarshalBinary(mini); err != nil {
		return s, fmt.Errorf("redisqueue: the head of a job: %w", err)
	}
	s.history = j.History
	return s, nil
}

// emptyRecord is how much of a record (queue/record.go) stands before its history, if it has no names.
const emptyRecord = 42 + 6*2

func number(b []byte) (n int64) {
	for _, c := range b {
		n = n<<8 | int64(c)
	}
	return n
}

func parseJob(head, record string) (j queue.Job, since int64, err error) {
	s, err := parseHead(head)
	if err != nil {
		return j, 0, err
	}
	err = j.UnmarshalBinary([]byte(record))
	if s.changed {
		j.Attempts, j.Crashes, j.History = s.attempts, s.crashes, s.history
	}
	j.Since = timeOf(s.since).Truncate(time.Millisecond)
	return j, s.since, err
}

// cleave takes a head and a record apart that are kept in one, behind the job's lane.
func cleave(s string) (head, record string, err error) {
	const lengths = 6
	if len(s) < lengths {
		return "", "", fmt.Errorf("a job of %d bytes", len(s))
	}
	lane, n := number([]byte(s[:4])), number([]byte(s[4:lengths]))
	s = s[lengths:]
	if lane+n > int64(len(s)) {
		return "", "", fmt.Errorf("a job of %d bytes, whose lane and head should have %d", len(s), lane+n)
	}
	return s[lane:][:n], s[lane+n:], nil
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
	extra := ""
	if delay := micros(j.Delay); delay > 0 || notBefore > 0 || e.Dead != "" {
		extra = strconv.FormatInt(delay, 10) + " " + strconv.FormatInt(notBefore, 10) + " " + cut(e.Dead, maxErrorLen)
	}
	if j.DedupeKey == "" {
		return append(args, record, laneOf(j), "", "", "", extra)
	}
	kept := make([]byte, 0, 4+len(j.ID)+len(j.Kind)+len(j.Key))
	kept = binary.BigEndian.AppendUint16(kept, uint16(len(j.ID))) //nolint:gosec // the record's encoding has checked them
	kept = append(kept, j.ID...)
	kept = binary.BigEndian.AppendUint16(kept, uint16(len(j.Kind))) //nolint:gosec // as above
	kept = append(kept, j.Kind...)
	kept = append(kept, j.Key...)
	return append(args, record, laneOf(j), dedupeOf(j), dedupeMillis(j.DedupeFor), kept, extra)
}

const (
	// farthest is a time, in µs, that fits a head, and that Lua's numbers still tell from its neighbours.
	farthest = int64(1) << 55
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
