package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCell(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":                "-",
		`say "hi" \ plus`: `say "hi" \ plus`,
		"größe 日本":        "größe 日本",
		"a\tb\nc\vd":      `"a\tb\nc\vd"`,
		"\x1b[2J":         `"\x1b[2J"`,
		"\u009b2J":        `"\u009b2J"`,
		"\xff":            `"\xff"`,
		"ab\u202ecd":      `"ab\u202ecd"`,
		"\x7f":            `"\x7f"`,
	} {
		assert.Equal(t, want, cell(s))
	}
	assert.Equal(t, strings.Repeat("ü", 80)+"…", brief(strings.Repeat("ü", 81)))
	assert.Equal(t, "a\tb\nc\\x1bd'\\u009b\uFFFD", text("a\tb\nc\x1bd'\u009b\xff"))
}

// Whatever a queue holds, nothing that drives a terminal comes out, and JSON means what it meant.
func FuzzPrinted(f *testing.F) {
	f.Add("\x1b]0;x\a\u009b\u202e\U000E0001'\"\\\xff")
	f.Add("\xae\xff")
	f.Fuzz(func(t *testing.T, s string) {
		object, err := oneLine(map[string]string{"s": s})
		require.NoError(t, err)
		for _, printed := range []string{object, cell(s), brief(s), strings.NewReplacer("\n", "", "\t", "").Replace(text(s))} {
			assert.True(t, utf8.ValidString(printed))
			assert.False(t, strings.ContainsFunc(printed, unprintable), "%q", printed)
		}
		var back map[string]string
		require.NoError(t, json.Unmarshal([]byte(object), &back))
		assert.Equal(t, string([]rune(s)), back["s"], "bytes that are no text are U+FFFD")
	})
}
