# `make demo` and `make test` are all the set-up there is; see README.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
TESTBED := $(or $(DIOLKOS_TESTBED),$(HOME)/.cache/diolkos-testbed)
CARGO := cargo
BIN := target/release/diolkos

.PHONY: help demo demo-mesh test lint unit testbed fuzz bench-smoke bench-dubbo bench-nacos fmt

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## the quickstart: file registry, no cluster; prints the table of hosts and serves the API
	@scripts/rust
	$(CARGO) build --release --locked --bin diolkos
	scripts/demo

demo-mesh: ## Consul, Kubernetes API, istiod and Envoy on this machine: requests reach both versions of a service
	@scripts/rust
	testbed/setup consul envoy kubernetes-istio
	$(CARGO) build --release --locked --bin diolkos
	$(CARGO) build --locked --example demo-mesh
	DIOLKOS_BIN=$(BIN) target/debug/examples/demo-mesh

test: lint testbed ## everything: checks, unit tests, tests against the real servers
	$(CARGO) test --workspace --locked --no-fail-fast

lint: ## the cheap checks
	@scripts/rust
	$(CARGO) fmt --all --check
	scripts/check-tree
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet

testbed: ## build the real servers (once; cached outside of the work tree)
	testbed/setup
	$(TESTBED)/bin/cargo-deny check --hide-inclusion-graph licenses bans sources

fuzz: ## each fuzz target for FUZZ_SECONDS (60)
	@scripts/rust
	scripts/fuzz

bench-smoke: ## 2,000 services x 5 instances in one Consul: time, memory, connections
	@scripts/rust
	testbed/setup consul kubernetes-istio
	$(CARGO) build --release --locked --bin diolkos
	$(CARGO) build --locked --example bench-smoke
	DIOLKOS_BIN=$(BIN) target/debug/examples/bench-smoke

bench-dubbo: ## 5,000 interfaces x 4 providers in one ZooKeeper and one etcd: time, memory, requests, watches
	@scripts/rust
	testbed/setup zookeeper kubernetes-istio
	$(CARGO) build --release --locked --bin diolkos
	$(CARGO) build --locked --example bench-dubbo
	DIOLKOS_BIN=$(BIN) target/debug/examples/bench-dubbo

bench-nacos: ## 5,000 services x 10 instances in one Nacos: time, memory, requests
	@scripts/rust
	testbed/setup nacos
	$(CARGO) build --release --locked --bin diolkos
	$(CARGO) build --locked --example bench-nacos
	DIOLKOS_BIN=$(abspath $(BIN)) target/debug/examples/bench-nacos

fmt: ## format
	$(CARGO) fmt --all
