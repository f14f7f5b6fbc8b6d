# The one door: everything that is run in this repository is run from here.

export GOWORK := # the committed go.work, whatever the shell says
FUZZTIME ?= 1m
P ?=

.DEFAULT_GOAL := help
.PHONY: help test test-core test-faults lint bench fuzz mutants

help:
	@awk -F ': ## ' '/^[a-z-]+: ## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

test: ## every test of every module with the race detector, each module alone, the README's program
	@internal/house/test.sh

test-faults: ## only the tests that kill, pause, cut off and fill servers and processes; make test runs them too
	@cd queue/redisqueue && go test -race -count=1 -run 'P1|P3|Paused|Flush|Blocking|Full|Evict|Replica|AckAfter|Slots|Everything|Bulk' .
	@cd integration && go test -count=1 -run 'Redis|AnswerIsLost|Harmed|OutOfMemory|Killed' .

test-core: ## the root module's tests in under a minute, with Go alone
	@internal/house/core.sh

lint: ## format, .golangci.yml and tidy go.mod files, in every module
	@internal/house/lint.sh

bench: ## the webhook receiver beside its peers, the queue beside its targets
	@go run ./bench webhook
	@go run ./bench queue

fuzz: ## every fuzz test for FUZZTIME (1m) each
	@FUZZTIME=$(FUZZTIME) internal/house/fuzz.sh

mutants: ## take out what each promise rests on and see its test fail; P=P2 for one promise
	@go run ./internal/mutants $(P)
