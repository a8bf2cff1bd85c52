# Wattle. `make demo` shows the product, `make test` proves it; both install what they miss.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build demo demo-ha test tools check unit e2e test-kernel soak bench-fleet bench-kernel generate release install uninstall advisories clean

PREFIX ?= /usr/local
UNITDIR ?= /etc/systemd/system
TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)
export CARGO_TERM_COLOR ?= always

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build all binaries for tests and the demo
	@scripts/tools.sh build
	cargo build --locked --workspace --bins

demo: ## Three machines, a fourth one joins, one is deleted: the product in a minute
	@scripts/tools.sh build demo
	@cargo build --locked --workspace --bins
	@target/debug/wattle-demo

demo-ha: ## Three replicas over three members of etcd lose one after the other: what users notice
	@scripts/tools.sh build demo etcd
	@cargo build --locked --workspace --bins
	@target/debug/wattle-demo-ha

test: tools check unit e2e test-kernel ## Everything that CI runs

tools: # all that the tests need at once, which is quicker than one after the other
	@scripts/tools.sh build check unit etcd demo kernel

check: ## Format, lints, docs, protocol, licences
	@scripts/tools.sh build check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --workspace --no-deps --document-private-items --quiet
	scripts/pure-crates.sh
	cd proto && buf lint && buf format --diff --exit-code
	cargo deny --locked check bans licenses sources

unit: ## Tests of each crate
	@scripts/tools.sh build unit etcd
	# More at once than there are processors: most of them wait more than they work.
	RUST_TEST_THREADS=4 cargo test --locked --workspace --exclude wattle-integration --exclude wattle-fleet

e2e: build ## Real processes and encrypted packets between network namespaces
	@scripts/tools.sh demo etcd
	# With the runtime, whose test clock is there only beside those who set it.
	cargo test --locked -p wattle-integration -p wattle-runtime -p wattle-fleet

test-kernel: build ## The kernel's own WireGuard, in an emulated machine where this one has none
	@scripts/tools.sh demo # first: whether a kernel has WireGuard is asked with `ip`
	@scripts/tools.sh kernel
	integration/kernel-tests.sh

# make soak PARTS="kernel keys"; CHAOS_MINUTES=5 make soak: some of it, shorter. integration/soak.sh has the list.
soak: build ## What CI can't wait for, two hours; what each part said last is in docs/soak
	@scripts/tools.sh demo etcd kernel
	integration/soak.sh $(PARTS)

# Nothing else should run meanwhile: control plane and fleet share the machine. About twenty minutes.
bench-fleet: ## The published set of fleets; writes docs/benchmarks.md
	@scripts/tools.sh build etcd
	cargo build --locked --release -p wattle-controlplane -p wattle-fleet
	$(MAKE) demo-ha
	target/release/wattle-fleet publish --out docs/benchmarks.md --failover target/demo-ha.json

bench-kernel: ## The agent on the kernel's WireGuard; writes target/bench/kernel.json
	@scripts/tools.sh build demo kernel bench-kernel
	integration/kernel-bench.sh

generate: ## Write the protocol's Rust bindings anew
	WATTLE_GENERATE=1 cargo test --locked -p wattle-proto --test generated

advisories: ## Known vulnerabilities in dependencies (needs the RustSec database)
	@scripts/tools.sh build check
	cargo deny --locked check advisories

release: ## Build what `make install` installs
	@scripts/tools.sh build
	cargo build --locked --release -p wattle-controlplane -p wattle-agent -p wattle-cli

# Builds nothing: root rarely has Rust.
install: ## Binaries of `make release` and systemd units (PREFIX, UNITDIR)
	@test -x target/release/wattle || { echo 'nothing to install yet: run `make release` first' >&2; exit 1; }
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin target/release/wattle target/release/wattle-agent target/release/wattle-controlplane
	install -d $(DESTDIR)$(UNITDIR)
	for unit in dist/systemd/*.service; do \
		sed 's|@BIN@|$(PREFIX)/bin|' $$unit > $(DESTDIR)$(UNITDIR)/$$(basename $$unit); \
	done
	@echo 'Installed. Next: systemctl daemon-reload && systemctl enable --now wattle-controlplane'

uninstall: ## Remove what `make install` put there, and the agent's interface; state stays
	@if [ -z "$(DESTDIR)" ] && [ -x $(PREFIX)/bin/wattle-agent ] && [ -e /var/lib/wattle/agent/identity.json ]; then \
		if command -v systemctl >/dev/null; then systemctl disable --now wattle-agent || true; fi; \
		$(PREFIX)/bin/wattle-agent down; \
	fi
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,wattle wattle-agent wattle-controlplane)
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,wattle-controlplane.service wattle-agent.service)

clean: ## Remove everything that was built
	cargo clean
