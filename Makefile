# The only list of commands; `make help` shows it.
.DEFAULT_GOAL := help
.PHONY: run test test-api test-examples bench bench-quick lint fmt sqlx openapi schemas help

run: ## Build and run the service with servers of its own
	cargo run --release --locked -- dev

test: ## Everything that proves the project; needs nothing running
	cargo build --locked --bin reading-sessions
	cargo test --locked --workspace
	$(MAKE) --no-print-directory test-api test-examples

test-api: ## Ask a service of its own what docs/openapi.json promises; SEED repeats
	cargo build --locked --bin reading-sessions
	tests/with-service tests/schemathesis/run

test-examples: ## Run the example clients and consumers against a service of its own
	cargo build --locked --workspace --bins
	tests/with-service examples/run

bench: ## Measure beside references, and write docs/benchmarks.md; ONLY="updates steady" measures parts
	cargo build --release --locked --workspace --bins
	$${CARGO_TARGET_DIR:-target}/release/bench $(if $(ONLY),$(ONLY:%=--only %),--report docs/benchmarks.md)

bench-quick: ## A short look at the same figures, or with ONLY at parts of them
	cargo build --release --locked --workspace --bins
	$${CARGO_TARGET_DIR:-target}/release/bench --quick $(ONLY:%=--only %)

lint: ## What CI denies
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt: ## Format the sources
	cargo fmt

sqlx: ## Check the queries against a database of their own and write .sqlx
	dev/sqlx

openapi: ## Write docs/openapi*.json, the descriptions of the HTTP APIs
	cargo run --locked -- openapi > target/openapi.json && mv target/openapi.json docs/openapi.json
	cargo run --locked -- openapi --operators > target/openapi.json && mv target/openapi.json docs/openapi-admin.json

schemas: ## Write nats/schemas, the schemas of what is published
	cargo run --locked -p tests --bin schemas

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
