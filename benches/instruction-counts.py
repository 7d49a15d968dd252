#!/usr/bin/env python3
"""Count the instructions that the kernels take on the CPUs of the boards, and compare them with what is on record.

    instruction-counts.py --check [--record DIR]     fail where a kernel takes over 3 % more than kernels/benches/record says
    instruction-counts.py --update [--record DIR]    write what is counted now over the record, for a change that is meant

The kernels are built as they are released and run under QEMU's user emulation, where a plugin counts what is executed
(instruction-counter.c). A count is exact and knows no noise, whatever else the machine does; it is no time. Needs what
`make deps` installs.
"""

import argparse
import concurrent.futures
import pathlib
import sys
import tempfile

import emulated

RECORD = emulated.TOP / "kernels/benches/record"
# Each generation of boards, as tools/test.sh has them.
CPUS = {"cortex-a72": "neon", "cortex-a76": "dotprod", "max": "i8mm"}
# Another compiler or C library moves a count by less, a worse inner loop by more.
GROWTH = 0.03
HEADER = "kernel\tunit\tinstructions per unit"


def count(program, counter, cpu):
    """Kernel -> (unit, instructions per unit) on one CPU."""
    marks = counter.with_name(f"{cpu}.marks")
    printed = emulated.run(counter, cpu, [program], marks)
    (_, isa), *kernels = (line.split("\t") for line in printed.splitlines())
    if isa != CPUS[cpu]:
        sys.exit(f"instruction-counts: {cpu} is to run {CPUS[cpu]}, and ran {isa}")
    at = [int(mark) for mark in marks.read_text().split()]
    if len(at) != 2 * len(kernels):
        sys.exit(f"instruction-counts: {len(at)} marks for {len(kernels)} kernels on {cpu}")
    spent = (after - before for before, after in zip(at[::2], at[1::2]))
    return {name: (unit, taken / int(units)) for (name, unit, units), taken in zip(kernels, spent)}


def read(path):
    """A file of the record; empty where there is none yet."""
    if not path.exists():
        return {}
    rows = (line.split("\t") for line in path.read_text().splitlines()[1:])
    return {name: (unit, float(taken)) for name, unit, taken in rows}


def write(path, counts):
    rows = [f"{name}\t{unit}\t{taken:.3f}" for name, (unit, taken) in counts.items()]
    path.write_text("\n".join([HEADER, *rows]) + "\n")


def faults(cpu, recorded, counted):
    """What is wrong with the counts of one CPU, a line each; tells what became cheaper."""
    for name in sorted(recorded.keys() | counted.keys()):
        if name not in counted:
            yield f"{cpu}: {name} is on record and was not counted"
        elif name not in recorded:
            yield f"{cpu}: {name} is not on record"
        elif recorded[name][0] != counted[name][0]:
            yield f"{cpu}: {name} is counted per {counted[name][0]}, on record per {recorded[name][0]}"
        else:
            (unit, before), (_, now) = recorded[name], counted[name]
            change = now / before - 1
            told = f"{cpu}: {name} took {before:.3f} instructions per {unit} and takes {now:.3f}, {100 * change:+.1f} %"
            if change > GROWTH:
                yield told
            elif change < -GROWTH:
                print(f"instruction-counts: {told}; --update keeps it so")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="compare with the record")
    what.add_argument("--update", action="store_true", help="write the record")
    parser.add_argument("--record", type=pathlib.Path, default=RECORD, metavar="DIR", help="where the record is")
    arguments = parser.parse_args()
    # The program of kernels/benches/instructions.rs.
    program = emulated.build("-p", "gemmad-kernels", "--bench", "instructions")
    wrong = []
    with tempfile.TemporaryDirectory() as directory:
        counter = emulated.build_counter(pathlib.Path(directory))
        with concurrent.futures.ThreadPoolExecutor() as each:
            counts = each.map(lambda cpu: count(program, counter, cpu), CPUS)
        for cpu, counted in zip(CPUS, counts):
            path = arguments.record / f"{cpu}.tsv"
            if arguments.update:
                write(path, counted)
            else:
                wrong += faults(cpu, read(path), counted)
    if wrong:
        print("\n".join(["instruction-counts: kernels take more instructions than kernels/benches/record says:", *wrong]))
        print("Where this is meant, type benches/instruction-counts.py --update and commit the record with the reason.")
        return 1
    if arguments.check:
        print(f"instruction-counts: {len(counted)} kernels on {len(CPUS)} CPUs, none over {100 * GROWTH:.0f} % more than on record")
    return 0


if __name__ == "__main__":
    sys.exit(main())
