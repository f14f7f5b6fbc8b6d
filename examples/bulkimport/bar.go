package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
)

// bar draws the progress of an import: one line that is drawn anew in a terminal, a line for every tenth of the way elsewhere.
type bar struct {
	out      io.Writer
	terminal bool
	last     string
	tenth    int
}

func newBar(out io.Writer) *bar {
	b := &bar{out: out, tenth: -1}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		b.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return b
}

func (b *bar) show(st status) {
	text := fmt.Sprintf("%3d %%  %s", st.Progress, cmp.Or(st.Note, st.Status))
	switch {
	case text == b.last:
	case b.terminal:
		const width = 24 // with the rest it fits into 80 columns
		full := st.Progress * width / 100
		fmt.Fprintf(b.out, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), text)
	case st.Progress/10 > b.tenth:
		b.tenth = st.Progress / 10
		fmt.Fprintln(b.out, text)
	}
	b.last = text
}

// say writes a line of its own.
func (b *bar) say(format string, args ...any) {
	if b.terminal && b.last != "" {
		fmt.Fprintln(b.out)
	}
	fmt.Fprintf(b.out, format+"\n", args...)
	b.last = ""
}
