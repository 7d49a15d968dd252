#!/usr/bin/env bash
# Build the board's program on a PC with Debian's cross compiler, and prove that it starts on the oldest board there is.
# The same with Docker: CROSS_CONFIG=cross.toml cross build --release --target aarch64-unknown-linux-gnu
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d "${HOME-}/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"

board=aarch64-unknown-linux-gnu
program=${CARGO_TARGET_DIR:-target}/$board/release/gemmad
newest_glibc=2.35 # Ubuntu 22.04, which JetPack 6 is made of; Raspberry Pi OS is newer

cargo build --locked --release --target $board

needed=$(readelf --wide --version-info "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
if [ "$(printf '%s\n' "$needed" GLIBC_$newest_glibc | sort -V | tail -1)" != GLIBC_$newest_glibc ]; then
    echo "cross: $program needs $needed; JetPack 6 has GLIBC_$newest_glibc" >&2
    exit 1
fi
version=$(QEMU_CPU=cortex-a72 packaging/run-aarch64.sh "$program" --version)
echo "cross: $program is $version, needs $needed, starts on a Cortex-A72"
