# One target directory outside the checkout, shared by the demo, the tests and CI, and one
# profile: RocksDB is 30 CPU-minutes of C++, compiled once.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/quorate-target

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := $(CARGO_TARGET_DIR)/debug

# Every cargo call names the whole workspace: with -p, features of shared dependencies
# differ, and cargo would compile them (RocksDB too) a second time.
CARGO_BUILD := cargo build --workspace --bins

.PHONY: help demo test unit e2e chaos verify lint advisories fix bench bench-scheduler bench-scale build up down clients deps

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: deps ## Three masters, two nodes, a web application; kills the leader, then a node
	$(CARGO_BUILD)
	$(BIN)/quorate-demo

test: deps unit e2e ## All tests; those of real processes last

unit: ## Tests inside the crates
	cargo test --workspace --lib --bins

e2e: clients ## Tests of the real binary: real processes, real Docker
	cargo build --workspace --all-targets
	cargo test --workspace --test '*' -- --test-threads=1

# Fixed seeds, so that a build is comparable with the one before, and a fresh one, which is
# printed. About eight minutes; each run leaves its folder in $(CHAOS_OUT).
CHAOS_OUT ?= /tmp/quorate-chaos
CHAOS := $(BIN)/quorate chaos run --out $(CHAOS_OUT)

chaos: deps ## Breaks clusters on purpose, and judges what clients saw
	$(CARGO_BUILD)
	$(CHAOS)/kills --scenario kills --seed 1
	$(CHAOS)/pauses --scenario pauses --seed 2
	$(CHAOS)/planned --scenario planned --seed 3
	$(CHAOS)/partitions --scenario partitions --seed 4
	$(CHAOS)/nodes --scenario nodes --nodes 2 --seed 5
	$(CHAOS)/deaf --scenario deaf --nodes 2 --seed 5
	$(CHAOS)/docker --scenario docker --nodes 2 --seed 5
	$(CHAOS)/rolling --scenario rolling --nodes 2 --seed 5
	$(CHAOS)/clocks --scenario clocks --nodes 2 --seed 5
	$(CHAOS)/disk --scenario disk --seed 6
	$(CHAOS)/members --scenario members --seed 7
	$(CHAOS)/random --random --steps 12 --seed 8
	$(CHAOS)/fresh --random --steps 12
	$(BIN)/quorate chaos failover --kills 5

verify: lint test ## Everything that CI checks; changes no file of the checkout

lint: ## Format, clippy, licences and bans of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	deny=$$(deploy/install-cargo-deny.sh) && "$$deny" check bans licenses sources

advisories: ## Checks dependencies against the advisory database (downloads it)
	deny=$$(deploy/install-cargo-deny.sh) && "$$deny" check advisories

fix: ## Formats, and applies what clippy can fix by itself
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: ## Three masters against three members of Debian's etcd; BENCH=... for its options
	deploy/install-deps.sh --bench
	$(CARGO_BUILD)
	$(BIN)/quorate-bench --out $(CARGO_TARGET_DIR)/bench $(BENCH)

bench-scheduler: ## Pods decided about per second, by size of the cluster (about a minute)
	cargo bench --profile dev --workspace --bench scheduler --bench binding -- --json $(CARGO_TARGET_DIR)/bench-scheduler.json

bench-scale: ## Three masters, many hollow nodes, 30 pods each; SCALE="--nodes 5000" for the largest step
	$(CARGO_BUILD)
	$(BIN)/quorate-bench-scale --json $(CARGO_TARGET_DIR)/bench-scale.json $(SCALE)

build: ## Builds the binary
	deploy/install-deps.sh --build
	$(CARGO_BUILD)
	@echo "Built $(BIN)/quorate"

up: deps ## Builds, and starts a local cluster of three masters and two nodes
	$(CARGO_BUILD)
	$(BIN)/quorate up

down: ## Stops the cluster that 'make up' started
	$(BIN)/quorate down

clients:
	@deploy/install-kubectl.sh >/dev/null
	@deploy/install-helm.sh >/dev/null
	@deploy/install-python-client.sh >/dev/null

deps:
	@deploy/install-deps.sh
