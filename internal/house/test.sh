#!/usr/bin/env bash
# make test
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
. internal/house/need.sh

need cc "gcc libc6-dev" "" "race detector"
need redis-server redis-server redis "Redis"
need node "nodejs npm" node "the official JavaScript packages"

race=()
export CGO_ENABLED=0
if have cc; then
	# SQLite is a million lines of translated C with one thread at a time in each connection: watched, it would be ten times slower. Not the
	# driver around it: an unwatched copy of a generic type that it shares with others would hide their races and invent some.
	race=(-race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false)
	CGO_ENABLED=1
fi

step() { printf '== %s\n' "$*"; }

# skipped prints package and name of every test that was skipped in a run.
skipped() {
	[ ! -f "$1" ] || sed -nE 's/^\{"Time":"[^"]*","Action":"skip","Package":"([^"]+)","Test":"([^"]+)".*/\1 \2/p' "$1"
}

go list -m -f '{{.Dir}}' | while IFS= read -r dir; do
	cd "$dir"
	step "build and vet ${dir/#"$root"/.} alone"
	export GOWORK=off
	packages=$(go list ./...)
	[ -n "$packages" ] || continue # none yet
	go build -o /dev/null ./...
	go vet ./...
done

step "build the README's program in an empty module"
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
awk '
	/^```go$/      { inside = 1; text = ""; next }
	/^```/         { if (inside && text ~ /^package main\n/) { printf "%s", text; exit } inside = 0 }
	inside         { text = text $0 "\n" }
' README.md >"$empty/main.go"
[ -s "$empty/main.go" ] || { echo "README.md has no go block that starts with package main" >&2; exit 1; }
cp examples/go.sum "$empty"
# The version that the examples are tested with, not the newest of the day.
sqlite=$(cd examples && GOWORK=off go list -m -f '{{.Path}}@{{.Version}}' modernc.org/sqlite)
(
	cd "$empty"
	export GOWORK=off
	go mod init example.com/readme 2>/dev/null
	go mod edit -replace "github.com/breakwater-go/breakwater=$root" -require "$sqlite"
	go mod tidy
	go build -o /dev/null .
)

step "test what the race detector would make too slow"
go test -count=1 -run TenMillion ./cache

step "test every module"
mkdir -p .out
log=.out/test.json
# go test would go on replaying a cached skip after its cause is gone.
fresh=()
if ci || [ -n "$installed" ] || [ -n "$(skipped $log)" ]; then
	fresh=(-count=1)
fi
rm -f $log
status=0
go run gotest.tools/gotestsum@v1.13.0 --format pkgname --format-hide-empty-pkg --jsonfile $log -- \
	${race[@]+"${race[@]}"} ${fresh[@]+"${fresh[@]}"} work || status=$?

if ci && [ -n "$(skipped $log)" ]; then
	printf 'skipped, which is a failure in CI:\n%s\n' "$(skipped $log)" >&2
	exit 1
fi
while IFS= read -r name; do
	add_not_run "$name (skipped)"
done < <(skipped $log)
not_run_list
exit $status
