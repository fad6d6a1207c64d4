# Everything is run from the repository root. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := check
.PHONY: help deps run run-enforcer demo test lint fuzz generate generated check bench chaos

# How many inputs each fuzz target gets. A time is taken too, and then Go before
# 1.27 fails now and then with "context deadline exceeded" and no input
# (go.dev/issue/75804).
FUZZTIME ?= 20000x

# How long chaos breaks things; SEED=n repeats a schedule, KEEP=dir keeps the logs.
DURATION ?= 3m

# Debian packages that the tests need and this machine lacks.
MISSING = $(if $(shell command -v protoc),,protobuf-compiler) \
	$(if $(shell command -v npm),,nodejs npm) \
	$(if $(wildcard /usr/lib/rabbitmq/bin/rabbitmq-server),,rabbitmq-server) \
	$(if $(wildcard /usr/sbin/nginx),,nginx) \
	$(if $(shell command -v promtool),,prometheus) \
	$(if $(shell command -v chromium),,chromium) \
	$(if $(shell command -v cc),,gcc libc6-dev)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

deps: ## install what the tests need beyond Go, from Debian (as root) and npm
	$(if $(strip $(MISSING)),apt-get update && apt-get install -y --no-install-recommends $(MISSING))
	npm ci --prefix integration/node --no-audit --no-fund

run: ## run the adapter, with an embedded hub under data/
	go run ./adapter run --config resources/conf/adapter.toml

run-enforcer: ## run the enforcer's process, which follows that adapter
	go run ./enforcer/cmd run --config resources/conf/enforcer.toml

demo: ## show the path of a call through nginx, enforcer and adapter, step by step
	go run ./integration/demo

test: ## run all tests, the longest first; vet is a part of lint
	go test -race -shuffle=on -vet=off -timeout 20m ./integration ./...

lint: ## check style, who imports whom, and go.mod
	go tool -modfile=resources/tools/go.mod golangci-lint run
	go mod tidy -diff

fuzz: ## run every fuzz target with FUZZTIME inputs
	@packages=$$(go list ./...); \
	for package in $$packages; do \
		names=$$(go test -list '^Fuzz' "$$package"); \
		for name in $$names; do \
			[[ $$name == Fuzz* ]] || continue; \
			echo "$$package $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$package"; \
		done; \
	done

generate: ## generate the Go code and the descriptors beside each .proto
	resources/proto/generate.sh

PROTO_SUMS = find resources/proto -type f -exec sha256sum {} + | sort

generated: ## fail if generate changes, adds or removes a file
	@before=$$($(PROTO_SUMS)); \
	$(MAKE) --no-print-directory generate; \
	diff <(echo "$$before") <($(PROTO_SUMS)) || \
		{ echo "make generate changed the files above: commit them" >&2; exit 1; }

check: lint test generated ## all that a change must pass, with short fuzzing
	$(MAKE) --no-print-directory fuzz FUZZTIME=5000x

bench: ## measure speed and memory against the targets, in about 13 minutes
	go run ./integration/bench

chaos: ## break a NATS cluster and three replicas for DURATION, and tell what was lost
	DURATION=$(DURATION) go run ./integration/chaos
