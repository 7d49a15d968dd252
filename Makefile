# One line for each thing people do. The scripts behind them are in tools/ and can be called by themselves.

.PHONY: help demo deps test-deps board-deps lint test test-boards fuzz soak ha-test nats-test clients-test cross deb reproducible board-image board-test deny

# Where rustup puts cargo, for a shell that does not know it yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)
release = $(or $(CARGO_TARGET_DIR),target)/release/gemmad

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

demo: ## build it and watch it work: a microphone that hears recordings, a camera that sees pictures, a broker, a bus, a demo model (MODEL=gemma4 or gemma3n)
	tools/install-build-deps.sh demo
	cargo build --locked --release --bin gemmad
	@python3 demo $(release) $(MODEL)

test-deps: ## install what building and testing on this machine need (Debian, Raspberry Pi OS, Ubuntu)
	tools/install-build-deps.sh test

deps: ## the same, and on a PC what builds for the boards and emulates their CPUs
	tools/install-build-deps.sh

board-deps: ## what the virtual board needs beside
	tools/install-build-deps.sh board

lint: ## format and clippy, for x86_64 and aarch64; warnings are errors
	tools/test.sh lint

test: test-deps ## format, clippy and all tests, on this machine: what to run after a change
	tools/test.sh here

test-boards: deps ## what boards will run, on a PC: clippy of the kernels, these and the golden tests on three emulated CPUs, instruction counts, the core of board-test (after board-deps)
	tools/test.sh boards

fuzz: ## damaged files and hostile messages, thought up by libFuzzer: MINUTES=n for each target (1), TARGETS="gguf mqtt" for some, JOBS=n at a time (1)
	tools/install-build-deps.sh fuzz
	tools/fuzz.py --minutes $(or $(MINUTES),1) --jobs $(or $(JOBS),1) $(TARGETS)

ha-test: ## the daemon with a real Home Assistant and the blueprints: 2025.4 (installed into target/ha-venv; needs Python 3.13), and as root a current one
	tools/install-build-deps.sh ha
	cargo build --locked --release --bin gemmad
	tools/ha-test.sh $(release)

nats-test: ## nats-server as the only broker: the MQTT tests and Home Assistant's with it; then many jobs of a fleet, whose workers, servers and network fail
	tools/install-build-deps.sh ha
	tools/nats-test.sh

clients-test: ## unmodified clients, a browser, a fuzzer and a current Home Assistant at the HTTP door (installs them into target/clients; PARTS="openai page" for some)
	tools/install-build-deps.sh clients
	cargo build --locked --release --bin gemmad
	tools/clients-test.sh $(release) $(PARTS)

soak: test-deps ## HOURS=n of work with everything failing now and then: no id may be lost, nothing may grow (docs/soak.md; the report is in target/soak)
	cargo build --locked --release --bin gemmad
	@python3 tests/soak $(release) --hours $(or $(HOURS),1) --out $(or $(CARGO_TARGET_DIR),target)/soak

cross: ## build the board's program on a PC: target/aarch64-unknown-linux-gnu/release/gemmad
	tools/cross.sh

deb: deps ## the Debian packages for amd64 and arm64: target/debian/ (needs cargo-deb and cargo-auditable, and builds them where they are missing)
	tools/deb.sh

reproducible: ## build the packages of target/debian/ once more from a clean clone elsewhere, and compare them byte by byte
	tools/reproducible.sh

board-image: board-deps ## the virtual board's disk image, target/board (needs root)
	tests/board/acceptance.py --image-only

board-test: board-image ## install the arm64 package on the virtual board and prove what it must do there (SCENARIOS="voice vision" for some)
	tools/deb.sh arm64
	tests/board/acceptance.py $(SCENARIOS)

deny: ## licences, sources and known advisories of everything linked (needs cargo-deny)
	cargo deny check
