package rediscache

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

// An entry is a prefix that scripts read (format, flags, number of tags, version), the epoch and the generations that it was made in (of its cache, its scope, each tag), and what only Go reads: when it ends, by the
// server's clock, for how long before that it is stale, the tags, the value.
const (
	format    = 1
	prefixLen = 20
	genLen    = 8
	maxTags   = 1000
)

func epochOf(epoch string) uint64 {
	if len(epoch) != genLen {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(epoch))
}

func hexVersion(v cache.Version) string { return fmt.Sprintf("%016x", uint64(v)) }

func versionOf(hex string) cache.Version {
	v, _ := strconv.ParseUint(hex, 16, 64) // "" is none
	return cache.Version(v)
}

// prefix is what fill.lua puts before the generations, and rest what it puts behind them.
func packed(f *cache.Fill) (prefix, rest string) {
	var b strings.Builder
	b.Grow(prefixLen)
	flags := byte(0)
	if f.NotFound {
		flags = 1
	}
	b.Write([]byte{format, flags, byte(len(f.Tags) >> 8), byte(len(f.Tags))}) //nolint:gosec // at most maxTags
	b.WriteString(hexVersion(f.Version))
	prefix = b.String()
	out := binary.AppendUvarint(make([]byte, 0, 24+len(f.Value)), f.Stamp+millis(f.Keep))
	out = binary.AppendUvarint(out, millis(f.Keep-f.Fresh))
	for _, t := range f.Tags {
		out = append(binary.AppendUvarint(out, uint64(len(t))), t...)
	}
	return prefix, string(append(out, f.Value...))
}

func millis(d time.Duration) uint64 { return uint64(max(d, 0) / time.Millisecond) }

// unpacked is an entry as Redis has it.
type unpacked struct {
	notFound bool
	gens     []string // epoch, of all, of the scope, of each tag
	tags     []string
	end      uint64        // by the server's clock, in ms
	stale    time.Duration // how long it is kept when it is not fresh any more
	value    []byte
}

func unpack(text string) (u unpacked, ok bool) {
	if len(text) < prefixLen || text[0] != format {
		return u, false
	}
	u.notFound = text[1]&1 != 0
	n := int(text[2])<<8 | int(text[3])
	text = text[prefixLen:]
	if len(text) < (3+n)*genLen {
		return u, false
	}
	for range 3 + n {
		u.gens, text = append(u.gens, text[:genLen]), text[genLen:]
	}
	b := []byte(text)
	end, used := binary.Uvarint(b)
	if used <= 0 {
		return u, false
	}
	u.end, b = end, b[used:]
	stale, used := binary.Uvarint(b)
	if used <= 0 {
		return u, false
	}
	u.stale, b = time.Duration(stale)*time.Millisecond, b[used:] //nolint:gosec // as it was written
	for range n {
		size, used := binary.Uvarint(b)
		if used <= 0 || size > uint64(len(b)-used) { //nolint:gosec // not negative
			return u, false
		}
		u.tags, b = append(u.tags, string(b[used:used+int(size)])), b[used+int(size):] //nolint:gosec // it is less than len(b)
	}
	u.value = b
	return u, true
}

// meta is the record of a partition; see meta.lua.
type meta struct {
	epoch string
	seq   uint64
	run   string
}

func parseMeta(v any) (m meta, ok bool) {
	text, isText := v.(string)
	if !isText || len(text) < genLen {
		return m, false
	}
	number, rest, _ := strings.Cut(text[genLen:], " ")
	_, run, _ := strings.Cut(rest, " ") // after the floor
	seq, err := strconv.ParseUint(number, 10, 64)
	return meta{text[:genLen], seq, run}, err == nil
}
