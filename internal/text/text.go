// Package text is what several packages do with texts.
package text

import "unicode/utf8"

// Cut shortens s to at most n bytes, at the end of a character.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for back := range utf8.UTFMax {
		if n >= back && utf8.RuneStart(s[n-back]) {
			return s[:n-back]
		}
	}
	return s[:n] // it is no text
}
