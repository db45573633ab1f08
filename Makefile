# Everything one does here has a target. The agent is built by a cargo call of its own: it has no std, and features of
# shared crates are unified within one call.

# Absolute, because the tests are run from their own folders.
target := $(abspath $(or $(CARGO_TARGET_DIR),target))

# Where tests, demo and benchmarks find the programs that `build` makes.
export FENCEWIRE_PROGRAMS := $(target)/release

# Where `install` puts things. DESTDIR is put before all of it; nothing that is installed knows of DESTDIR.
PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
SYSCONFDIR ?= /etc
DOCDIR ?= $(PREFIX)/share/doc/fencewire
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
UDEVRULESDIR ?= $(PREFIX)/lib/udev/rules.d

# Each file as mode:source:destination. `uninstall` removes the destinations of the same lists.
both_files = $(foreach file,LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md $(wildcard docs/*.md),\
    644:$(file):$(DOCDIR)/$(file))
host_files = \
    755:$(FENCEWIRE_PROGRAMS)/fencewired:$(SBINDIR)/fencewired \
    644:host/dist/fencewired.toml.example:$(SYSCONFDIR)/fencewire/fencewired.toml.example \
    644:host/dist/fencewired.service.in:$(UNITDIR)/fencewired.service \
    644:host/dist/fencewire.sysusers:$(SYSUSERSDIR)/fencewire.conf \
    644:host/dist/fencewire.tmpfiles:$(TMPFILESDIR)/fencewire.conf
agent_files = \
    755:$(FENCEWIRE_PROGRAMS)/fence_wire:$(SBINDIR)/fence_wire \
    644:guest-agent/dist/60-fence-wire.rules:$(UDEVRULESDIR)/60-fence-wire.rules

# Names in a file that ends in .in are written out: what stands between @s.
fill = sed 's|@SBINDIR@|$(SBINDIR)|g; s|@SYSCONFDIR@|$(SYSCONFDIR)|g; s|@DOCDIR@|$(DOCDIR)|g'
define put
set -e; for file in $(1); do \
    mode=$${file%%:*} to=$${file#*:}; from=$${to%%:*} to='$(DESTDIR)'$${to#*:}; \
    [ -e "$$from" ] || { echo "$$from is missing: run make build" >&2; exit 1; }; \
    case $$from in \
        *.in) $(fill) "$$from" | install -D -m "$$mode" /dev/stdin "$$to" ;; \
        *) install -D -m "$$mode" "$$from" "$$to" ;; \
    esac; \
done
endef

agent := -p fence-wire --features static-bin --profile agent
# The small form of the hashes: a third of the bytes, and no panic path that the optimiser leaves in.
small_hashes := RUSTFLAGS='--cfg sha2_backend="soft" --cfg sha2_backend_soft="compact"'
probe := tests/bare-metal/probe/Cargo.toml
fuzz := tests/fuzz/Cargo.toml

# What of the bridge decides: whether, when and to whom something is done, and what is said of it.
decides := bridge/dispatch bridge/held bridge/memory bridge/reload bridge/requests guests journal policy power/away \
    power/away/file power/held power/hypervisor power/incarnation power/lane power/operation power/owner

has_mutants = cargo mutants --version >/dev/null 2>&1 || \
    { echo '$@: needs cargo-mutants: cargo install cargo-mutants --locked --version 27.1.0' >&2; exit 1; }

.PHONY: help deps packages tools build guest-image install install-host install-agent uninstall
.PHONY: lint test test-guests bare-metal stack fuzz mutants mutants-bridge instructions bench bench-guests demo demo-guests clean
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

guest-image: packages ## what the tests' guests boot, in target/release/guest: Debian's kernel, busybox, fence_virt
	@tests/setup/guest-image $(FENCEWIRE_PROGRAMS)/guest

install: install-host install-agent ## all that `build` made and what belongs to it: PREFIX=/usr/local, DESTDIR=

install-host: ## the daemon only, with its systemd unit, user and example configuration
	@$(call put,$(host_files) $(both_files))
	@$(if $(DESTDIR),,echo 'next: systemd-sysusers && systemctl daemon-reload; see $(DOCDIR)/docs/installing.md')

install-agent: ## the agent only, with its udev rule: for guests
	@$(call put,$(agent_files) $(both_files))
	@$(if $(DESTDIR)$(filter /usr/sbin,$(SBINDIR)),,echo 'Pacemaker looks for agents in /usr/sbin only: PREFIX=/usr')

uninstall: ## remove what `install` put there, and nothing else
	@rm -f $(foreach file,$(host_files) $(agent_files) $(both_files),'$(DESTDIR)$(lastword $(subst :, ,$(file)))')
	@rmdir $(foreach folder,$(DOCDIR)/docs $(DOCDIR) $(SYSCONFDIR)/fencewire,'$(DESTDIR)$(folder)') 2>/dev/null || :

lint: packages tools ## format, clippy, documentation, licences
	cargo fmt --check
	cargo fmt --check --manifest-path $(probe)
	cargo fmt --check --manifest-path $(fuzz)
	cargo clippy --workspace --all-targets -- -D warnings
	$(small_hashes) cargo clippy $(agent) --bin fence_wire -- -D warnings
	cargo clippy --release --manifest-path $(probe) --bins --examples --target-dir $(target)/bare-metal -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace
	cargo deny check licenses bans sources

test: packages build guest-image ## the whole suite, then bare-metal
	cargo test --workspace --no-fail-fast
	@tests/bare-metal/check

test-guests: packages build guest-image ## of the suite, only what is proved with real guests: a Linux system in each
	cargo test -p fencewire-tests --test guests

bare-metal: ## the core on microcontrollers, proved free of panics by the linker
	@tests/bare-metal/check

stack: ## how much stack each entry point of the core takes on microcontrollers
	@tests/bare-metal/stack

fuzz: ## look for inputs that break a promise of the core; TIME=60 seconds for each of sixteen targets
	@tests/fuzz/run $(or $(TIME),60)

mutants: ## break the core in hundreds of ways and see that its tests notice; over an hour
	@$(has_mutants)
	cargo mutants --package fencewire-core --output $(target)

mutants-bridge: build ## the same for what decides in the bridge, with its own tests and those of the five rules; hours
	@$(has_mutants)
	cargo mutants --no-config --package fencewired $(decides:%=--file host/src/%.rs) --output $(target)/bridge \
		--test-package fencewired,fencewire-tests --baseline skip --timeout 120 -- --lib --test rules -- --test-threads 24

instructions: ## count the instructions of a request, at either end, over each wire; needs valgrind
	@tests/instructions

bench: build ## measure, beside what it replaces
	cargo build --release -p fencewire-tests --bins
	TMPDIR=$(or $(wildcard /dev/shm),/tmp) cargo run --release -p fencewire-tests --bin bench

bench-guests: packages build guest-image ## the same as a process in a real guest sees it
	cargo build --release -q -p fencewire-tests --bins
	TMPDIR=$(or $(wildcard /dev/shm),/tmp) cargo run --release -q -p fencewire-tests --bin bench_guests

demo: build ## one guest fences another, on this machine, without a hypervisor
	cargo run --release -q -p fencewire-tests --bin demo

demo-guests: packages build guest-image ## the same with two real guests, each a Linux system in a QEMU of its own
	cargo build --release -q -p fencewire-tests --bins
	cargo run --release -q -p fencewire-tests --bin demo_guests

clean: ## remove what was built
	cargo clean
