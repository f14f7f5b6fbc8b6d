package queue

import (
	"encoding/binary"
	"time"
)

// IDTime reads from a job's ID when it was made, in UTC, to the millisecond, by the clock of the process that enqueued
// the job. It says false for a text that is not one of our IDs. It asks nobody: an ID that reads well
// need not be that of any job.
func IDTime(id string) (made time.Time, ok bool) {
	var raw [17]byte
	if len(id) != idEncoding.EncodedLen(16) {
		return time.Time{}, false
	}
	n, err := idEncoding.Decode(raw[:], []byte(id))
	// The decoder skips line ends and does not look at the last two bits: of all texts that decode to the
	// same bytes, one is the ID.
	if err != nil || n != 16 || idEncoding.EncodeToString(raw[:n]) != id {
		return time.Time{}, false
	}
	ms := binary.BigEndian.Uint64(raw[:8]) >> 16
	return time.UnixMilli(int64(ms)).UTC(), true
}
