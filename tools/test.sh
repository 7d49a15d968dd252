#!/usr/bin/env bash
# The checks behind `make lint`, `make test` and `make test-boards`.   test.sh lint|here|boards
set -euo pipefail
cd "$(dirname "$0")/.."
exec 2>&1 # one stream, so that a log shows things in the order in which they happened
[ -d "${HOME-}/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"

board=aarch64-unknown-linux-gnu
host=$(rustc -vV | sed -n 's/^host: //p')

step() { printf '\n== %s (%d:%02d since the start)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

style() {
    step "cargo fmt"
    cargo fmt --all --check
    # The targets' own files are another workspace's; what they run is compiled into tests/memory/fuzz_corpora.rs.
    rustfmt --edition 2024 --check fuzz/fuzz_targets/*.rs
    # Advisories need their database from the network: `make deny` asks for those too.
    if cargo deny --version >/dev/null 2>&1; then
        step "licences, bans and sources"
        cargo deny --locked check bans licenses sources
    else
        step "licences, bans and sources: not checked, cargo-deny is missing (cargo install --locked cargo-deny)"
    fi
}

# For this machine, or for the target that is named.
clippy() {
    step "clippy, ${1-$host}"
    cargo clippy --locked --workspace --all-targets ${1+--target "$1"} -- -D warnings
}

# What of the virtual board's means is missing here, if anything (tests/board/README.md).
board_lacks() {
    local tool
    for tool in qemu-system-aarch64 qemu-img mmdebstrap; do
        command -v $tool >/dev/null || { echo "$tool (tools/install-build-deps.sh board)" && return; }
    done
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || { echo "root, to make its disk" && return; }
    grep -qw binfmt_misc /proc/filesystems || modprobe -q binfmt_misc 2>/dev/null || echo "a kernel with binfmt_misc"
}

# The kernels and the golden tests as aarch64 programs, once for each generation of boards:
# the CPU, the best ISA that must be chosen there, what the names of the golden tests contain that run there, and boards that have such a
# CPU. For floats the newer ones take the code of the first, so that there only packs are compared, and what else rounds to 8 bits; each
# compares the instruction sets that those before it have not (kernels/tests/agreement/isas.rs).
emulated() {
    # Our glue optimised as well: emulation makes every instruction dear. One choice of packages, and so of their features, for all.
    local test=(cargo test --locked --workspace --target $board --config 'profile.dev.package.gemmad.opt-level=1')
    local image counts imaged counted
    image=$(mktemp) counts=$(mktemp)
    if [ -z "$(board_lacks)" ]; then
        tests/board/acceptance.py --image-only >"$image" 2>&1 &
        imaged=$!
    fi
    step "build the aarch64 tests, and the virtual board's image beside"
    "${test[@]}" --no-run --test agreement --test golden
    # What is counted is the same on a busy machine.
    benches/instruction-counts.py --check >"$counts" 2>&1 &
    counted=$!
    while read -r cpu isa goldens boards; do
        step "aarch64 tests on an emulated $cpu ($boards), expecting $isa"
        export QEMU_CPU=$cpu GEMMAD_EXPECT_ISA=$isa
        "${test[@]}" --test agreement
        "${test[@]}" --test golden -- ${goldens//,/ }
        tools/run-aarch64.sh "${CARGO_TARGET_DIR:-target}/$board/debug/gemmad" --version | grep "kernels for $isa)"
    done <<'CPUS'
cortex-a72 neon :: Raspberry Pi 4
cortex-a76 dotprod pack,bits,mobile Raspberry Pi 5, RK3588, Jetson Orin
max i8mm pack,bits,mobile newer than all of them
CPUS
    unset QEMU_CPU GEMMAD_EXPECT_ISA
    step "instructions that the released kernels take, on the same CPUs"
    wait $counted || { cat "$counts" && exit 1; }
    cat "$counts"
    # Without root's rights, a mirror or binfmt_misc there is no image; that says nothing of gemmad.
    if [ -z "${imaged-}" ]; then
        step "the virtual board: not run, there is no $(board_lacks)"
    elif ! wait $imaged; then
        step "the virtual board: not run, its image could not be built"
        tail -n 20 "$image"
    else
        step "the core of what must hold on a board: the package on the virtual one (make board-test: all of it, as it is released)"
        tools/deb.sh --debug-build arm64
        tests/board/acceptance.py --deb target/debian/debug/gemmad_*_arm64.deb install voice vision
    fi
    rm "$image" "$counts"
}

build() {
    step "build all tests, $host"
    cargo test --locked --workspace --lib --bins --tests --no-run
}

native() {
    step "all tests, $host"
    cargo test --locked --workspace --test agreement instruction_set # says on which instruction sets the kernels are compared
    cargo test --locked --workspace --doc
    # More at a time than there are cores: most of them wait, for a broker, a bus or a clock.
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --workspace --no-fail-fast --test-threads $((2 * $(nproc)))
    else
        cargo test --locked --workspace --lib --bins --tests
    fi
}

# Fetches what looks at the HTTP door, beside what the compiler does.
fetch_clients() {
    if command -v chromium >/dev/null && command -v npm >/dev/null; then
        fetched=$(mktemp)
        tools/clients-test.sh --install quick >"$fetched" 2>&1 &
        fetching=$!
    fi
}

# Unmodified clients at the HTTP door of the program that the tests were built with. Where they cannot be had, that says nothing of gemmad.
clients() {
    step "clients from PyPI and npm, a browser and a fuzzer at the HTTP door (make clients-test: all of them)"
    if [ -z "${fetching-}" ]; then
        step "clients: not run, chromium or npm is missing (tools/install-build-deps.sh clients)"
    elif ! wait $fetching; then
        step "clients: not run, they could not be installed"
        tail -n 20 "$fetched"
    else
        tools/clients-test.sh "${CARGO_TARGET_DIR:-target}/debug/gemmad" quick
    fi
    rm -f "${fetched-}"
}

# What of the Makefile proves something and is not part of `make test`.
beside() {
    printf '\nThis is what runs anywhere. Beside it there are:\n'
    sed -n 's/^\(test-boards\|board-test\|ha-test\|nats-test\|clients-test\|fuzz\|soak\):.*## /  make \1\t/p' Makefile
}

case ${1-} in
lint)
    style
    clippy
    [ "$host" = $board ] || clippy $board
    ;;
here)
    beside
    fetch_clients
    style
    clippy
    build
    clients
    native # last: its summary ends the log
    ;;
boards)
    if [ "$host" = $board ]; then
        echo "this is such a board: make test has run it all, and there is nothing to emulate"
    else
        # Without this no NEON line would be looked at on a PC. The other packages have no lines of their own for boards: they are compiled
        # for them below, and `make lint` looks at them for both.
        step "clippy of the kernels, $board"
        cargo clippy --locked --package gemmad-kernels --all-targets --target $board -- -D warnings
        emulated
    fi
    ;;
*)
    echo "usage: tools/test.sh lint|here|boards" >&2
    exit 64
    ;;
esac
