# The one door: everything that is run in this repository is run from here.

export GOWORK := # the committed go.work, whatever the shell says
FUZZTIME ?= 1m
P ?=

.DEFAULT_GOAL := help
.PHONY: help test test-core lint bench fuzz mutants

help:
	@awk -F ': ## ' '/^[a-z-]+: ## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

test: ## every test of every module with the race detector, each module alone, the README's program
	@internal/house/test.sh

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
