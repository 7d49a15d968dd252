#!/bin/sh
# cargo's runner for aarch64 programs: run them directly on a board, under qemu's user emulation elsewhere.
# QEMU_CPU chooses the emulated CPU (cortex-a72, cortex-a76, max).
if [ "$(uname -m)" = aarch64 ]; then
    exec "$@"
fi
# An arm64 C library installed by multiarch goes first: the cross compiler's loader would find that library too, and a
# loader and a library of different versions hang at the first thread.
if [ -e /lib/ld-linux-aarch64.so.1 ]; then
    exec qemu-aarch64 "$@"
fi
exec qemu-aarch64 -L /usr/aarch64-linux-gnu "$@"
