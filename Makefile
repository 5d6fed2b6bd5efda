# Two commands matter: `make run` talks, `make test` passes every test. Both install what is missing.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test check fmt fuzz bench bench-turns bench-rooms bench-control bench-vad bench-media conformance soak setup

where = eval "$$(scripts/setup where)"

help: ## Lists what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Starts LiveKit and the gateway, talks to them, and stays up for you to talk
	@scripts/setup build-tools models livekit web
	cargo build --locked --bin june
	@$(where) && scripts/run

test: ## Runs every test, in three rings
	@scripts/setup all
	$(where) && cargo test --locked --workspace --lib
	$(where) && cargo test --locked --test gateway
	$(where) && cargo test --locked --workspace --test api --test livekit
	$(where) && cargo test --locked --test e2e -- --test-threads 1
	$(where) && cargo test --locked --test conformance

conformance: ## Looks at any gateway as a device does: make conformance URL=wss://… TOKEN=…
	@scripts/setup build-tools models
	$(where) && URL=$(URL) TOKEN=$(TOKEN) cargo test --locked --test conformance

soak: ## Ten minutes of conversation with a cut every twenty seconds (SOAK_SECONDS)
	@scripts/setup build-tools models livekit
	$(where) && cargo test --locked --test e2e -- --ignored --nocapture a_long_conversation

check: ## Formatting, lints and documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

SECONDS ?= 60

fuzz: ## Tries both decoders on what clients may send, for SECONDS=60 each
	JUNE_FUZZ_SECONDS=$(SECONDS) cargo test --locked --lib fuzz -- --nocapture

fmt: ## Formats the code
	cargo fmt --all

bench: bench-turns bench-rooms bench-control bench-vad bench-media ## Runs every benchmark

bench-turns: ## From the end of speech to the answer; what a session costs
	@scripts/setup build-tools models livekit
	$(where) && cargo bench --locked --bench turns

bench-rooms: ## Sessions made and webhooks taken a second; one change told to 1,000 and to 10,000 watchers
	@scripts/setup build-tools e2e
	$(where) && cargo bench --locked --bench rooms

bench-control: ## Memory of an idle control connection; 5,000 that reconnect; round trips; a client that does not read
	@scripts/setup build-tools
	$(where) && cargo bench --locked --bench control

bench-vad: ## What voice detection costs, and what its first stage misses
	@scripts/setup build-tools models
	$(where) && cargo bench --locked --bench vad

bench-media: ## What agents cost in LiveKit rooms, beside the official SDKs, and what losses do to words
	@scripts/setup build-tools models livekit e2e
	$(where) && cargo bench --locked -p libwebrtc --bench media
	$(where) && cargo bench --locked --bench loss

setup: ## Installs everything that the commands above need
	@scripts/setup all
