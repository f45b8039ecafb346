# The only list of commands; `make help` shows it.
.DEFAULT_GOAL := help
.PHONY: run check test test-unit test-it test-api test-browser test-examples test-kubernetes try-compose campaign bench bench-quick profile lint fmt audit pin sqlx openapi schemas help

# Where cargo builds. Builds select the whole workspace where tests follow: with
# fewer packages, dependencies get other features and are compiled again.
TARGET = $${CARGO_TARGET_DIR:-target}

run: ## Build and run the service with servers of its own
	cargo run --profile local --locked -- dev

check: ## Type-check the workspace with its tests; the quickest answer to a change
	cargo check --locked --workspace --all-targets

test: ## Everything that proves the project; needs nothing running
	cargo build --locked --workspace --bin reading-sessions
	cargo test --locked --workspace
	$(MAKE) --no-print-directory test-kubernetes test-api test-browser test-examples

test-unit: ## The unit tests, without servers
	cargo test --locked --workspace --lib --bins

test-it: ## The integration tests; ONLY=relay runs one module, ONLY=relay::name one test
	cargo build --locked --workspace --bin reading-sessions
	cargo test --locked --workspace --test it -- $(ONLY)

test-api: ## Check a running service against docs/openapi.json; SEED=1 repeats a run
	cargo build --locked --workspace --bin reading-sessions
	tests/with-service tests/schemathesis/run

test-browser: ## Test the console in Chromium, which Debian's root installs if it is missing; SCREENSHOTS=docs/console writes its pictures
	cargo build --locked --workspace --bin reading-sessions
	SCREENSHOTS=$(abspath $(SCREENSHOTS)) tests/with-service tests/browser/run

test-examples: ## Run the example clients, consumers and load test against a running service
	cargo build --locked --workspace --bin reading-sessions --bin example-consumer
	tests/with-service examples/run

test-kubernetes: ## Check the manifests in deploy/kubernetes against the API schemas of Kubernetes
	tests/kubernetes/run

try-compose: ## Try compose.yaml with faults and an upgrade (needs docker); IMAGE and PREVIOUS name images, OVERRIDE a compose file, ONLY faults
	python3 -B tests/compose/main.py $(IMAGE:%=--image %) $(PREVIOUS:%=--previous %) $(OVERRIDE:%=--override %) $(if $(ONLY),--only $(ONLY))

campaign: ## Late, repeated and reordered traffic with kill -9 of processes, then verify; SECONDS=600
	cargo build --locked --workspace --bin reading-sessions
	CAMPAIGN_SECONDS=$(or $(SECONDS),600) cargo test --locked --workspace --test it -- --nocapture campaign

bench: ## Measure against references and write docs/benchmarks.md, fail if a missed bar is not in docs/profile.md; ONLY="updates steady" measures parts
	cargo build --release --locked --workspace --bin reading-sessions --bin bench
	$(TARGET)/release/bench $(if $(ONLY),$(ONLY:%=--only %),--report docs/benchmarks.md)

bench-quick: ## Rough figures of most parts in two minutes; ONLY selects parts
	cargo build --release --locked --workspace --bin reading-sessions --bin bench
	$(TARGET)/release/bench --quick $(ONLY:%=--only %)

profile: ## Measure what the service runs under load, for a faster image (`docker compose build`); needs llvm-profdata
	dev/profile

lint: ## What CI denies: formatting and clippy warnings
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo check --locked -p server --no-default-features

fmt: ## Format the sources
	cargo fmt

audit: ## Check dependencies, write target/sbom.cdx.json (needs cargo-deny, cargo-cyclonedx); CHECKS="bans licenses sources" needs no network
	cargo deny --locked check $(CHECKS)
	dev/sbom

pin: ## Write the current digests of the images into compose.yaml and Dockerfile (needs docker)
	dev/pin

sqlx: ## Check the queries against a scratch database and write .sqlx
	dev/sqlx

openapi: ## Write docs/openapi.json and docs/openapi-admin.json
	cargo build --locked --workspace --bin reading-sessions
	$(TARGET)/debug/reading-sessions openapi > $(TARGET)/openapi.json && mv $(TARGET)/openapi.json docs/openapi.json
	$(TARGET)/debug/reading-sessions openapi --admin > $(TARGET)/openapi.json && mv $(TARGET)/openapi.json docs/openapi-admin.json

schemas: ## Write nats/schemas, the JSON Schemas of the published events
	cargo run --locked -p tests --bin schemas

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
