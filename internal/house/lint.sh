#!/usr/bin/env bash
# make lint
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

version=2.15.0
linter=$root/.bin/golangci-lint
config=$root/.golangci.yml

if [ "$("$linter" version --short 2>/dev/null)" != "$version" ]; then
	echo "installing golangci-lint $version into .bin"
	GOBIN=$root/.bin go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$version"
fi
"$linter" config verify --config "$config"

# All findings of all modules, then the verdict.
status=0
while IFS= read -r dir; do
	printf '== lint %s\n' "${dir/#"$root"/.}"
	cd "$dir"
	packages=$(go list ./...)
	[ -n "$packages" ] || continue # none yet
	"$linter" run --config "$config" ./... || status=1
	GOWORK=off go mod tidy -diff || status=1
	GOWORK=off go mod verify || status=1
done < <(go list -m -f '{{.Dir}}')
exit $status
