# `make run` starts a local demo, `make test` runs every test. Both install what is missing.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test bad-day check deny advisories fmt fuzz bench bench-turns bench-rooms bench-control bench-hold bench-vad bench-media bench-providers conformance soak setup

where = eval "$$(scripts/setup where)"

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Starts LiveKit and the gateway, plays a recorded question, and stays up for you to talk
	@scripts/setup build-tools models livekit web
	cargo build --locked --bin june
	@$(where) && scripts/run

test: ## Runs every test: unit, gateway, libwebrtc, end to end, conformance
	@scripts/setup build-tools models smollm2 livekit web e2e sdks faketime
	$(where) && cargo test --locked --workspace --lib
	cargo test --locked --workspace --doc
	$(where) && cargo test --locked --test gateway --test simulation
	$(where) && cargo test --locked --test bad_day
	$(where) && cargo test --locked --workspace --test api --test livekit
	$(where) && cargo test --locked --test e2e -- --test-threads 1
	$(where) && cargo test --locked --test conformance

conformance: ## Runs the black-box suite against any gateway: make conformance URL=wss://… TOKEN=…
	@scripts/setup build-tools models
	$(where) && URL=$(URL) TOKEN=$(TOKEN) cargo test --locked --test conformance

bad-day: ## Runs the tests of bad days (full disks, kill -9, clock jumps, …) ten times as long as make test (TIMES=10)
	@scripts/setup build-tools models faketime
	$(where) && BAD_DAY_TIMES=$(TIMES) cargo test --locked --test bad_day -- --nocapture

soak: ## Holds a ten-minute conversation whose connection is cut every 20 s (SOAK_SECONDS)
	@scripts/setup build-tools models livekit
	$(where) && SOAK_SECONDS=$${SOAK_SECONDS:-600} cargo test --locked --test e2e -- --nocapture cut_again_and_again

check: ## Checks formatting, lints, documentation and dependencies
	@scripts/setup build-tools check-tools
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	@$(MAKE) --no-print-directory deny

deny: ## Checks the dependencies' licences, versions and sources (deny.toml)
	@scripts/setup check-tools
	$(where) && "$$CARGO_DENY" --workspace --locked check licenses bans sources

advisories: ## Checks the dependencies against the RustSec database, which is downloaded
	@scripts/setup check-tools
	$(where) && "$$CARGO_DENY" --workspace --locked check advisories

SECONDS ?= 60
TIMES ?= 10

fuzz: ## Feeds random input to the message decoders, the check of frames and all REST routes, for SECONDS=60 each
	JUNE_FUZZ_SECONDS=$(SECONDS) cargo test --locked --lib fuzz -- --nocapture
	JUNE_FUZZ_SECONDS=$(SECONDS) cargo test --locked --test gateway fuzz -- --nocapture

fmt: ## Formats the code
	cargo fmt --all

bench: bench-turns bench-rooms bench-control bench-hold bench-vad bench-media bench-providers ## Runs every benchmark

bench-turns: ## Measures latency from the end of speech to the answer, and the cost of a session
	@scripts/setup build-tools models livekit
	$(where) && cargo bench --locked --bench turns

bench-rooms: ## Measures session creation, webhooks, and one room change sent to 1,000 and 10,000 subscribers
	@scripts/setup build-tools e2e
	$(where) && cargo bench --locked --bench rooms

bench-control: ## Measures control connections: memory, 5,000 reconnects, round trips, a client that stops reading
	@scripts/setup build-tools
	$(where) && cargo bench --locked --bench control

bench-hold: ## Measures what holds under attack: another user's latency, the LLM's calls, held connections, a full disk, kill -9
	@scripts/setup build-tools models
	$(where) && cargo bench --locked --bench hold

bench-vad: ## Measures the cost of voice detection, and the speech that its first stage misses
	@scripts/setup build-tools models
	$(where) && cargo bench --locked --bench vad

bench-media: ## Measures the cost of agents in LiveKit rooms against the official SDKs, and word errors under packet loss
	@scripts/setup build-tools models livekit e2e
	$(where) && cargo bench --locked -p libwebrtc --bench media
	$(where) && cargo bench --locked --bench loss

bench-providers: ## Measures the gateway's own share of a turn, takeovers from a provider that fails, and the cost of embedded models
	@scripts/setup build-tools models
	$(where) && cargo bench --locked --bench providers

setup: ## Installs everything that the targets above need
	@scripts/setup all
