#!/usr/bin/env bash
# The checks behind `make lint` and `make test`.   test.sh lint|all
set -euo pipefail
cd "$(dirname "$0")/.."
exec 2>&1 # one stream, so that a log shows things in the order in which they happened
[ -d "${HOME-}/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"

board=aarch64-unknown-linux-gnu
host=$(rustc -vV | sed -n 's/^host: //p')

step() { printf '\n== %s (%d:%02d since the start)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

lint() {
    step "cargo fmt"
    cargo fmt --all --check
    step "clippy, $host"
    cargo clippy --locked --workspace --all-targets -- -D warnings
    # Without this no NEON line would even be type-checked on a PC.
    if [ "$host" != $board ]; then
        step "clippy, $board"
        cargo clippy --locked --workspace --all-targets --target $board -- -D warnings
    fi
    # Advisories need their database from the network: `make deny` asks for those too.
    if cargo deny --version >/dev/null 2>&1; then
        step "licences, bans and sources"
        cargo deny --locked check bans licenses sources
    else
        step "licences, bans and sources: not checked, cargo-deny is missing (cargo install --locked cargo-deny)"
    fi
}

# The kernels and the golden tests as aarch64 programs, once for each generation of boards:
# the CPU, the best ISA that must be chosen there, which golden tests, and boards that have such a CPU. For floats the newest one takes
# the code of the others, so that there only packs are compared.
emulated() {
    local kernels
    kernels=$(mktemp)
    step "build the aarch64 tests"
    cargo test --locked --target $board --no-run -p gemmad-kernels
    cargo test --locked --target $board --no-run --test 'golden*'
    cargo build --locked --target $board --bin gemmad
    while read -r cpu isa goldens boards; do
        step "aarch64 tests on an emulated $cpu ($boards), expecting $isa"
        export QEMU_CPU=$cpu GEMMAD_EXPECT_ISA=$isa
        cargo test --locked --target $board -p gemmad-kernels --lib --tests
        cargo test --locked --target $board --test "$goldens"
        packaging/run-aarch64.sh "${CARGO_TARGET_DIR:-target}/$board/debug/gemmad" bench kernels --threads 1 | tee "$kernels"
        grep -q "chosen here: $isa" "$kernels"
    done <<'CPUS'
cortex-a72 neon golden* Raspberry Pi 4
cortex-a76 dotprod golden* Raspberry Pi 5, RK3588, Jetson Orin
max i8mm golden_pack* newer than all of them
CPUS
    unset QEMU_CPU GEMMAD_EXPECT_ISA
    rm "$kernels"
    step "instructions that the released kernels take, on the same CPUs"
    packaging/instruction-counts.py --check
}

native() {
    step "examples in the documentation, $host"
    cargo test --locked --workspace --doc
    step "the kernels on this CPU"
    cargo test --locked -p gemmad-kernels --test agreement instruction_set
    step "all tests, $host"
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --workspace
    else
        cargo test --locked --workspace --lib --bins --tests
    fi
}

case ${1-} in
lint)
    lint
    ;;
all)
    lint
    [ "$host" = $board ] || emulated
    native # last: its summary ends the log
    ;;
*)
    echo "usage: packaging/test.sh lint|all" >&2
    exit 64
    ;;
esac
