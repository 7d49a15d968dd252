#!/usr/bin/env bash
# Build the board's program on a PC with Debian's cross compiler, and prove that it starts on the oldest board there is.
# cross.sh [CARGO COMMAND]: `build` unless another is named.
# The same with Docker: CROSS_CONFIG=cross.toml cross build --release --target aarch64-unknown-linux-gnu
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d "${HOME-}/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"

board=aarch64-unknown-linux-gnu
program=${CARGO_TARGET_DIR:-target}/$board/release/gemmad
newest_glibc=2.35 # Ubuntu 22.04, which JetPack 6 is made of; Raspberry Pi OS is newer

[ $# -gt 0 ] || set -- build
cargo "$@" --locked --release --target $board

needed=$(readelf --wide --version-info "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
if [ "$(printf '%s\n' "$needed" GLIBC_$newest_glibc | sort -V | tail -1)" != GLIBC_$newest_glibc ]; then
    echo "cross: $program needs $needed; JetPack 6 has GLIBC_$newest_glibc" >&2
    exit 1
fi
# The kernels of newer boards are chosen at run time: nothing outside them may need more than an ARMv8.0.
answer=$(printf 'turn off the kitchen light\nReturn the command as JSON:' |
    QEMU_CPU=cortex-a72 tools/run-aarch64.sh "$program" ask --model models/demo -)
version=$(QEMU_CPU=cortex-a72 tools/run-aarch64.sh "$program" --version)
echo "cross: $program is $version, needs $needed, answers $answer on a Cortex-A72"
