#!/usr/bin/env python3
"""Count the instructions that listening for wake words takes on a board's CPU, as a share of one core of a Raspberry Pi 4.

    wake-cost.py MODEL.json ...

The crate is built as it is released and run under QEMU's user emulation, where a plugin counts what is executed
(instruction-counter.c). The share takes 1.5 GHz and one instruction a cycle, which such integer code exceeds.
"""
import pathlib
import sys
import tempfile

import emulated

HZ = 1.5e9


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    program = emulated.build("--package", "gemmad-wake", "--bench", "cost")
    models = [str(pathlib.Path(path).resolve()) for path in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        counter = emulated.build_counter(pathlib.Path(folder))
        marks = pathlib.Path(folder) / "marks"
        printed = emulated.run(counter, "cortex-a72", [program, *models], marks)
        at = [int(mark) for mark in marks.read_text().split()]
    print("| what | million instructions a second | share of a Pi 4's core |")
    print("| --- | --- | --- |")
    for line, before, after in zip(printed.splitlines(), at[::2], at[1::2]):
        name, seconds = line.split("\t")
        taken = (after - before) / int(seconds)
        print(f"| {name} | {taken / 1e6:.2f} | {100 * taken / HZ:.2f} % |")


main()
