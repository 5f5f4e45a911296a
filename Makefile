# `make run` is the first look, `make up` the same on real parts, `make test` everything that must hold.
SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The binary takes every SHOPFLOOR_ variable as a setting; this one is the tests'.
SHOPFLOOR := env -u SHOPFLOOR_REQUIRE_REAL $(TARGET)/release/shopfloor
# Each target's corpus is fuzz/corpus/<target>.
FUZZ_TARGETS = $(or $(TARGETS),$(notdir $(wildcard fuzz/corpus/*)))
FUZZ_SECONDS = $(or $(SECONDS),60)
FUZZ := RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz/libfuzzer --sanitizer none
DATA_DIR = $(if $(findstring --dir,$(ARGS)),,--dir "$$(scripts/data-dir.sh)")

.PHONY: help run up test conformance fuzz chaos outage connections bench audit fmt lint compose-check kafka clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: ## the whole way in one process, nothing else to install; ARGS=--once stops by itself
	@scripts/setup.sh run
	cargo build --locked --release --bin shopfloor
	@exec $(SHOPFLOOR) up $(DATA_DIR) $(ARGS)

up: ## the same on real Kafka, HAProxy, two API processes and two gateways
	@scripts/setup.sh up
	cargo build --locked --release --bin shopfloor
	@exec $(SHOPFLOOR) up --real $(DATA_DIR) $(ARGS)

test: ## unit, property, integration and end to end, against real parts
	@scripts/setup.sh test
	@# With --tests the crates get the features that the tests ask for: without it all would be compiled twice.
	cargo build --locked --workspace --bins --tests
	cargo test --locked --workspace

conformance: ## the MQTT suites of Eclipse Paho and Mosquitto; PAHO= and MOSQUITTO= name checkouts
	cargo build --locked --bin shopfloor
	@python3 broker/conformance/run.py --gateway $(TARGET)/debug/shopfloor \
		$(if $(PAHO),--paho $(PAHO)) $(if $(MOSQUITTO),--mosquitto $(MOSQUITTO))

fuzz: ## each fuzz target, or TARGETS=codec, for SECONDS=60; what reaches new code goes to fuzz/corpus, which `make test` replays
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is not installed: cargo install --locked cargo-fuzz"; exit 1; }
	@for target in $(FUZZ_TARGETS); do \
		found=$(abspath $(TARGET))/fuzz/$$target; mkdir -p $$found; \
		$(FUZZ) $$target $$found fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 \
			-print_final_stats=1 || exit 1; \
		$(FUZZ) $$target fuzz/corpus/$$target $$found -- -set_cover_merge=1 -use_counters=0 -timeout=10 || exit 1; \
	done

chaos: ## faults under load, then an account of every acknowledged message; CYCLES, SEED, DELIVERY, FAULTS=kill,hang-kafka
	@scripts/setup.sh test
	cargo build --locked --release -p shopfloor -p shopfloor-chaos --bins
	@exec $(TARGET)/release/shopfloor-chaos $(if $(CYCLES),--cycles $(CYCLES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(DELIVERY),--delivery $(DELIVERY)) $(if $(FAULTS),--faults $(FAULTS))

outage: ## Kafka stopped for MINUTES=5 under RATE=3000 messages/s: acknowledgements, memory, backlog; DELIVERY
	@scripts/setup.sh test
	cargo build --locked --release -p shopfloor -p shopfloor-chaos --bins
	@exec $(TARGET)/release/shopfloor-outage $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE)) \
		$(if $(DELIVERY),--delivery $(DELIVERY))

connections: ## memory of idle connections, and storms of connections beside steady publishers; CONNECTIONS=10000
	cargo build --locked --release -p shopfloor -p shopfloor-benches --bins
	@exec $(TARGET)/release/shopfloor-connections $(if $(CONNECTIONS),--connections $(CONNECTIONS))

bench: ## ingest throughput, in messages and bytes a second
	cargo bench --locked -p shopfloor-benches $(ARGS)

fmt: ## formats the code
	cargo fmt --all

lint: ## what CI denies
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

audit: ## licences, advisories and duplicates of the dependencies
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is not installed: cargo install --locked cargo-deny"; exit 1; }
	cargo deny check

compose-check: ## compose/ is valid, where Docker's compose plugin can say so
	@scripts/compose-check.sh

kafka: ## Apache Kafka's jars into .run/kafka/lib
	@scripts/kafka-jars.sh

clean: ## everything that was built, downloaded or stored
	cargo clean
	rm -rf "$$(scripts/data-dir.sh 2>/dev/null)" .run
