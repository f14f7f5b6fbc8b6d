#!/usr/bin/env bash
# make fuzz
set -euo pipefail
cd "$(dirname "$0")/../.."

# go test -list prints a package's names, then the package.
targets=$(go test -list '^Fuzz' work | awk '
	/^Fuzz/     { names[n++] = $1 }
	/^ok[ \t]/  { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }
')
[ -n "$targets" ] || { echo "there is no fuzz test" >&2; exit 1; }

while read -r package name; do
	printf '\n== %s %s for %s\n' "$package" "$name" "${FUZZTIME:-1m}"
	# Coverage varies from run to run with timers and pools; shrinking such inputs would take all the time.
	go test -run '^$' -fuzz "^$name\$" -fuzzminimizetime 10x -fuzztime "${FUZZTIME:-1m}" "$package" </dev/null
done <<<"$targets"
