# One line for each thing people do. The scripts behind them are in packaging/ and can be called by themselves.

.PHONY: help demo deps board-deps lint test ha-test cross deb reproducible board-image board-test deny

# Where rustup puts cargo, for a shell that does not know it yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)
release = $(or $(CARGO_TARGET_DIR),target)/release/gemmad

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

demo: ## build it and watch it work: a microphone that hears recordings, a camera that sees pictures, a broker, a bus, the demo model
	packaging/install-build-deps.sh demo
	cargo build --locked --release --bin gemmad
	@python3 packaging/demo $(release)

deps: ## install what building and testing need (Debian, Raspberry Pi OS, Ubuntu)
	packaging/install-build-deps.sh

board-deps: ## what the virtual board needs beside
	packaging/install-build-deps.sh board

lint: ## format and clippy, for x86_64 and aarch64; warnings are errors
	packaging/test.sh lint

test: deps ## everything CI runs: lint, the aarch64 tests and the kernels' instruction counts on three emulated CPUs, the core of board-test (after board-deps), all tests on this machine
	packaging/test.sh all

ha-test: ## the daemon with a real Home Assistant and the blueprints (installs Home Assistant into target/ha-venv; needs Python 3.13)
	packaging/install-build-deps.sh ha
	cargo build --locked --release --bin gemmad
	packaging/ha-test.sh $(release)

cross: ## build the board's program on a PC: target/aarch64-unknown-linux-gnu/release/gemmad
	packaging/cross.sh

deb: deps ## the Debian packages for amd64 and arm64: target/debian/ (needs cargo-deb and cargo-auditable, and builds them where they are missing)
	packaging/deb.sh

reproducible: ## build the packages of target/debian/ once more from a clean clone elsewhere, and compare them byte by byte
	packaging/reproducible.sh

board-image: board-deps ## the virtual board's disk image, target/board (needs root)
	tests/board/acceptance.py --image-only

board-test: board-image ## install the arm64 package on the virtual board and prove what it must do there (SCENARIOS="voice vision" for some)
	packaging/deb.sh arm64
	tests/board/acceptance.py $(SCENARIOS)

deny: ## licences, sources and known advisories of everything linked (needs cargo-deny)
	cargo deny check
