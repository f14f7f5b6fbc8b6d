#!/usr/bin/env bash
# make test-core
set -euo pipefail
cd "$(dirname "$0")/../.."
. internal/house/need.sh

# -short leaves out the tests that need more than Go or more than a few seconds.
export GOWORK=off
if have cc; then
	CGO_ENABLED=1 go test -race -short ./...
else
	echo "without the race detector: there is no C compiler"
	CGO_ENABLED=0 go test -short ./...
fi
