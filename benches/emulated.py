"""Programs for the boards, run under QEMU's user emulation with the counter of instructions (instruction-counter.c)."""

import json
import os
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
BOARD = "aarch64-unknown-linux-gnu"


def build(*what):
    """A program for the board, as it is released; `what` names it to cargo."""
    command = ["cargo", "build", "--locked", "--release", "--target", BOARD, *what]
    messages = subprocess.run(command + ["--message-format", "json-render-diagnostics"], cwd=TOP, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = (json.loads(line) for line in messages.splitlines())
    programs = [one["executable"] for one in built if one.get("executable")]
    if len(programs) != 1:
        sys.exit(f"one program was to be built, not {programs}")
    return programs[0]


def build_counter(where):
    """The plugin, for the QEMU that is here: from QEMU 10 on it wants to be told another version of the same interface."""
    version = subprocess.run(["qemu-aarch64", "--version"], check=True, capture_output=True, text=True).stdout
    api = 4 if int(re.search(r"version (\d+)", version)[1]) >= 10 else 1
    counter = where / "counter.so"
    # It is preloaded into programs that are no QEMU, and lack what it calls there.
    lazy = "-Wl,-z,lazy"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", lazy, f"-DAPI={api}", TOP / "benches/instruction-counter.c", "-o", counter], check=True)
    return counter


def run(counter, cpu, command, marks=os.devnull, stdin=None):
    """What a program prints on a CPU, with a clock on which a nanosecond is an instruction; its marks go to a file."""
    environment = {"PATH": os.environ["PATH"], "QEMU_CPU": cpu, "QEMU_PLUGIN": f"{counter},out={marks}"}
    # Into QEMU, not into the program that it runs.
    environment |= {"LD_PRELOAD": str(counter), "QEMU_UNSET_ENV": "LD_PRELOAD"}
    done = subprocess.run([TOP / "tools/run-aarch64.sh", *command], env=environment, stdin=stdin, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode} on {cpu}: {done.stderr.strip()}")
    return done.stdout
