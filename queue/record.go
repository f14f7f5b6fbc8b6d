package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// The record of a job, format 1, big-endian. What scripts and SQL need of it stands in front at fixed
// places, then strings, then the history, which grows, then headers and payload, which never change.
//
//	 0  1  format
//	 1  1  flags: 1 bulk, 2 relaxed, 4 tracked
//	 2  4  attempts
//	 6  4  max attempts
//	10  4  crashes
//	14  4  max crashes
//	18  8  since, in Unix milliseconds
//	26  8  deadline, in milliseconds
//	34  8  status kept for, in milliseconds
//	42     id, kind, group, key, dedupe key, codec: each 2 bytes of length and the text
//	       4 bytes of length of the history, then per attempt: 4 number, 8 Unix milliseconds, 2 length, text
//	       4 bytes of length of the headers, then per header: 2 length, name, 4 length, value
//	       payload, to the end
//
// testdata/format/v1 holds golden records. A change makes a new format; readers take the present and
// the former one.
const (
	recordFormat = 1
	recordFixed  = 42

	flagBulk, flagRelaxed, flagTracked = 1, 2, 4

	maxName = math.MaxUint16 // bytes of a kind, group, key, dedupe key or header's name
)

// ErrNewerFormat is wrapped by the error for a record that a later version of this module has
// written. A worker that meets one leaves the job as it is for a worker of that version.
var ErrNewerFormat = errors.New("queue: record is of a newer format")

// AppendBinary appends the job's record, as engines store it, to b. Delay, NotBefore and DedupeFor are
// not part of it. It fails if a kind, group, key, dedupe key or name of a header is over 65,535 bytes.
func (j Job) AppendBinary(b []byte) ([]byte, error) {
	if err := j.checkNames(); err != nil {
		return b, err
	}
	texts := j.names()
	size := recordFixed + 8 + len(j.Payload)
	for _, s := range texts {
		size += 2 + len(s)
	}
	headers, history := 0, 0
	for k, v := range j.Headers {
		headers += 6 + len(k) + len(v)
	}
	if n := len(j.History); n > 2*historyEnds {
		j.History = j.History[n-2*historyEnds:]
	}
	for _, a := range j.History {
		history += 14 + len(cut(a.Error, historyText))
	}
	b = slices.Grow(b, size+headers+history)

	flags := byte(0)
	if j.Class == Bulk {
		flags |= flagBulk
	}
	if j.Order == Relaxed {
		flags |= flagRelaxed
	}
	if j.Track {
		flags |= flagTracked
	}
	be := binary.BigEndian
	b = append(b, recordFormat, flags)
	for _, n := range [...]int{j.Attempts, j.MaxAttempts, j.Crashes, j.MaxCrashes} {
		b = be.AppendUint32(b, uint32(min(max(n, 0), math.MaxInt32)))
	}
	for _, ms := range [...]int64{millis(j.Since), spanMillis(j.Deadline), spanMillis(j.StatusFor)} {
		b = be.AppendUint64(b, uint64(ms)) //nolint:gosec // two's complement, read back the same way
	}
	for _, s := range texts {
		b = append16(b, s)
	}
	b = be.AppendUint32(b, uint32(history))
	for _, a := range j.History {
		b = be.AppendUint32(b, uint32(a.Number))     //nolint:gosec // counts failures
		b = be.AppendUint64(b, uint64(millis(a.At))) //nolint:gosec // as above
		b = append16(b, cut(a.Error, historyText))
	}
	b = be.AppendUint32(b, uint32(headers))
	if len(j.Headers) > 0 {
		for _, k := range slices.Sorted(maps.Keys(j.Headers)) {
			b = append16(b, k)
			b = be.AppendUint32(b, uint32(len(j.Headers[k]))) //nolint:gosec // checked above
			b = append(b, j.Headers[k]...)
		}
	}
	return append(b, j.Payload...), nil
}

func (j *Job) names() [6]string {
	return [...]string{j.ID, j.Kind, j.Group, j.Key, j.DedupeKey, j.codec}
}

// checkNames says whether a record can hold the job's texts.
func (j *Job) checkNames() error {
	for i, s := range j.names() {
		if len(s) > maxName {
			what := [...]string{"ID", "Kind", "Group", "Key", "DedupeKey", "Codec"}[i]
			return &sizeError{what: "Job." + what, got: len(s), most: maxName, sentinel: ErrNameTooLong}
		}
	}
	for k, v := range j.Headers {
		if len(k) > maxName || len(v) > math.MaxInt32 {
			return &sizeError{what: "a name in Job.Headers", got: max(len(k), len(v)), most: maxName, sentinel: ErrNameTooLong}
		}
	}
	return nil
}

// MarshalBinary is AppendBinary(nil).
func (j Job) MarshalBinary() ([]byte, error) { return j.AppendBinary(nil) }

// UnmarshalBinary reads a record. It keeps nothing of b. It fails with [ErrNewerFormat], or saying where
// the record is damaged.
func (j *Job) UnmarshalBinary(b []byte) error {
	var job Job
	if err := job.read(b); err != nil {
		return err
	}
	job.Payload = slices.Clone(job.Payload)
	*j = job
	return nil
}

func append16(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s))) //nolint:gosec // callers have checked it
	return append(b, s...)
}

// millis is 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// longestSpan is as long as a time.Duration can be, in milliseconds.
const longestSpan = int64(math.MaxInt64 / time.Millisecond)

// spanMillis rounds up: a span must not become none.
func spanMillis(d time.Duration) int64 {
	ms := d.Milliseconds()
	if d > time.Duration(ms)*time.Millisecond && ms < longestSpan {
		ms++
	}
	return ms
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// read is UnmarshalBinary of an empty job, whose payload is then a part of b.
func (j *Job) read(b []byte) error {
	switch {
	case len(b) == 0:
		return errors.New("queue: record is empty")
	case b[0] > recordFormat:
		return fmt.Errorf("%w: %d; this version reads up to %d", ErrNewerFormat, b[0], recordFormat)
	case b[0] < recordFormat:
		return fmt.Errorf("queue: record has format %d; this version reads %d", b[0], recordFormat)
	case len(b) < recordFixed:
		return fmt.Errorf("queue: record ends after %d bytes; its fixed part alone has %d", len(b), recordFixed)
	}
	flags := b[1]
	if flags&flagBulk != 0 {
		j.Class = Bulk
	}
	if flags&flagRelaxed != 0 {
		j.Order = Relaxed
	}
	j.Track = flags&flagTracked != 0
	fixed := recordReader{b: b, at: 2}
	j.Attempts, j.MaxAttempts, j.Crashes, j.MaxCrashes = fixed.count(), fixed.count(), fixed.count(), fixed.count()
	j.Since, j.Deadline, j.StatusFor = fromMillis(fixed.int64()), fixed.span(), fixed.span()
	if fixed.bad {
		return fixed.damaged("its counts and times")
	}

	r := recordReader{b: b, at: recordFixed}
	var ends [6]int
	start := r.at
	for i := range ends {
		r.take(r.uint16())
		ends[i] = r.at
	}
	if r.bad {
		return r.damaged("its names")
	}
	// One string for all names: they live as long as the job does.
	names := string(b[start:r.at])
	from := 0
	for i, s := range [...]*string{&j.ID, &j.Kind, &j.Group, &j.Key, &j.DedupeKey, &j.codec} {
		to := ends[i] - start
		*s = names[from+2 : to]
		from = to
	}
	if history := r.section(); history.len() > 0 {
		for history.len() > 0 && len(j.History) < 2*historyEnds {
			j.History = append(j.History, Attempt{Number: history.count(), At: fromMillis(history.int64()), Error: string(history.take(history.uint16()))})
		}
		if history.bad || history.len() > 0 {
			return r.damaged("its history")
		}
	}
	if headers := r.section(); headers.len() > 0 {
		j.Headers = map[string]string{}
		for headers.len() > 0 {
			name := string(headers.take(headers.uint16()))
			j.Headers[name] = string(headers.take(headers.uint32()))
		}
		if headers.bad {
			return r.damaged("its headers")
		}
	}
	if r.bad {
		return r.damaged("a length")
	}
	if r.len() > 0 {
		j.Payload = b[r.at:len(b):len(b)]
	}
	return nil
}

// setSince writes when a job was accepted or due into its record.
func setSince(record []byte, t time.Time) {
	binary.BigEndian.PutUint64(record[18:], uint64(millis(t))) //nolint:gosec // two's complement
}

// deadlineOf reads the deadline off a record.
func deadlineOf(record []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint64(record[26:])) * time.Millisecond //nolint:gosec // written from a Duration
}

// The places of the names in a record.
const (
	nameID  = 0
	nameKey = 3
)

// nameOf reads one name off a record.
func nameOf(record []byte, n int) []byte {
	at := recordFixed
	for range n {
		at += 2 + int(binary.BigEndian.Uint16(record[at:]))
	}
	return record[at+2:][:binary.BigEndian.Uint16(record[at:])]
}

// recordReader reads forward; what would go past the end makes it bad and it then reads zeros.
type recordReader struct {
	b   []byte
	at  int
	bad bool
}

func (r *recordReader) len() int { return len(r.b) - r.at }

func (r *recordReader) take(n int) []byte {
	if r.bad || n < 0 || n > r.len() {
		r.bad, r.at = true, len(r.b)
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *recordReader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *recordReader) uint32() int {
	if b := r.take(4); b != nil {
		return int(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *recordReader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b)) //nolint:gosec // two's complement
	}
	return 0
}

// count is a uint32 that a program has counted.
func (r *recordReader) count() int {
	n := r.uint32()
	r.bad = r.bad || n > math.MaxInt32
	return n
}

// span is a time.Duration in milliseconds.
func (r *recordReader) span() time.Duration {
	ms := r.int64()
	r.bad = r.bad || ms < 0 || ms > longestSpan
	return time.Duration(ms) * time.Millisecond
}

// section takes a length and so many bytes.
func (r *recordReader) section() recordReader {
	b := r.take(r.uint32())
	return recordReader{b: b, bad: r.bad}
}

func (r *recordReader) damaged(what string) error {
	return fmt.Errorf("queue: record of %d bytes is damaged: %s", len(r.b), what)
}
