# Everything one does here has a target. The agent is built by a cargo call of its own: it has no std, and features of
# shared crates are unified within one call.

# Absolute, because the tests are run from their own folders.
target := $(abspath $(or $(CARGO_TARGET_DIR),target))

# Where tests, demo and benchmarks find the programs that `build` makes.
export FENCEWIRE_PROGRAMS := $(target)/release

agent := -p fence-wire --features static-bin --profile agent
# The small form of the hashes: a third of the bytes, and no panic path that the optimiser leaves in.
small_hashes := RUSTFLAGS='--cfg sha2_backend="soft" --cfg sha2_backend_soft="compact"'
probe := tests/bare-metal/probe/Cargo.toml

.PHONY: help deps packages tools build lint test bare-metal bench demo clean
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: packages tools ## install what build, test and lint need (Debian packages, cargo-deny)

packages:
	@tests/setup/packages test

tools:
	@tests/setup/tools

build: ## the daemon and the agent, in target/release
	@tests/setup/packages build
	cargo build --release -p fencewired
	$(small_hashes) cargo build $(agent)
	@install -D $(target)/agent/fence_wire $(target)/release/fence_wire

lint: packages tools ## format, clippy, documentation, licences
	cargo fmt --check
	cargo fmt --check --manifest-path $(probe)
	cargo clippy --workspace --all-targets -- -D warnings
	$(small_hashes) cargo clippy $(agent) --bin fence_wire -- -D warnings
	cargo clippy --release --manifest-path $(probe) --target-dir $(target)/bare-metal -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace
	cargo deny check licenses bans sources

test: packages build ## the whole suite, then bare-metal
	cargo test --workspace --no-fail-fast
	@tests/bare-metal/check

bare-metal: ## the core on microcontrollers, proved free of panics by the linker
	@tests/bare-metal/check

bench: build ## measure, beside what it replaces
	TMPDIR=$(or $(wildcard /dev/shm),/tmp) cargo run --release -p fencewire-tests --bin bench

demo: build ## one guest fences another, on this machine, without a hypervisor
	cargo run --release -q -p fencewire-tests --bin demo

clean: ## remove what was built
	cargo clean
