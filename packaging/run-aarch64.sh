#!/bin/sh
# cargo's runner for aarch64 programs: run them directly on a board, under qemu's user emulation elsewhere.
# QEMU_CPU chooses the emulated CPU (cortex-a72, cortex-a76, max).
if [ "$(uname -m)" = aarch64 ]; then
    exec "$@"
fi
exec qemu-aarch64 -L /usr/aarch64-linux-gnu "$@"
