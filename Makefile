# `make help` lists the targets. Everything builds with the dev profile: it optimises the dependencies, which carry
# the mathematics, and one build then serves tests, the development cluster and the demonstration.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
MPCIUM := $(TARGET_DIR)/debug/mpcium

# The development cluster.
DEV ?= dev
NODES ?= 3
NATS_PORT ?= 4222
CONSUL_PORT ?= 8500
# How ECDSA signatures are made: dkls23 or cggmp24.
ECDSA ?= dkls23
# Whose requests it takes: existing (all clients) or full (only those that sign every field, an id and an expiry).
CLIENTS ?= existing
# PRIMES=FILE takes, for cggmp24, safe primes from a file (seconds instead of a minute; for tests only).
PRIMES ?=
# How long `make fuzz` drives each target, and which (all of them if not given).
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
# KEEP=1 leaves the demonstration running with a prompt.
KEEP ?=

.DEFAULT_GOAL := help
.PHONY: help prerequisites servers kms-emulator build demo test planted bench gen-configs start-dev stop-dev logs fuzz fmt lint

help: ## Lists the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

prerequisites: ## Installs what the build needs besides Rust
	@sh scripts/install-prerequisites.sh

servers: ## Fetches nats-server and consul into .tools
	@sh scripts/fetch-servers.sh

kms-emulator: ## Fetches an emulator of AWS KMS into .tools, for tests
	@sh scripts/fetch-kms-emulator.sh

build: prerequisites ## Builds the program
	$(CARGO) build -p mpcium

demo: build ## Runs a whole cluster in one process: creates a wallet, signs, loses a node, signs again
	$(MPCIUM) demo --ecdsa $(ECDSA) $(if $(PRIMES),--primes $(PRIMES)) $(if $(KEEP),--keep)

test: prerequisites servers kms-emulator ## Everything that has to pass: format, lints, all tests
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace

# Bugs inside core are compiled in by a variable; a target directory of their own keeps them out of everything else.
planted: prerequisites ## Shows that the simulator notices every planted bug, and that no release can contain them
	! MPCIUM_PLANTED_BUGS=1 $(CARGO) check --release -p mpcium-core --target-dir $(TARGET_DIR)/planted 2>/dev/null
	MPCIUM_PLANTED_BUGS=1 $(CARGO) run -p sim --target-dir $(TARGET_DIR)/planted -- --planted all --iterations 2000

bench: prerequisites servers ## Measures the libraries alone and the same operations through clusters (BENCH="dkls23:3 ..." chooses)
	$(CARGO) build --release -p mpcium -p e2e --bins
	$(TARGET_DIR)/release/bench $(BENCH)

gen-configs: build ## Makes the folders of a development cluster in dev/
	$(MPCIUM) generate-configs --output-dir $(DEV) --number $(NODES) \
		--ecdsa $(ECDSA) --clients $(CLIENTS) --nats nats://127.0.0.1:$(NATS_PORT) --consul 127.0.0.1:$(CONSUL_PORT)

start-dev: build servers ## Starts NATS, Consul and the nodes of dev/
	@MPCIUM=$(abspath $(MPCIUM)) PRIMES=$(if $(PRIMES),$(abspath $(PRIMES))) sh deployments/dev/cluster.sh start $(DEV)

stop-dev: ## Stops them all
	@sh deployments/dev/cluster.sh stop $(DEV)

logs: ## Follows the logs of the development cluster
	@sh deployments/dev/cluster.sh logs $(DEV)

fuzz: ## Fuzzes every decoder by coverage, each for FUZZ_SECONDS (needs nightly and cargo-fuzz)
	@CARGO=$(CARGO) sh scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

fmt: ## Formats the code
	$(CARGO) fmt --all

lint: ## Runs clippy
	$(CARGO) clippy --workspace --all-targets -- -D warnings
