#!/usr/bin/env python3
"""Counts the tests of a log on standard input, by what their runners said when they ended.

The same test on another CPU is another one.  Prints a line for each runner, and last `N passed, N failed`; fails where no runner was
heard, or a test failed.
"""
import re
import sys

# Each runner's last words, and what they say: passed and failed.
RUNNERS = {
    "cargo nextest": (
        r"^\s*Summary \[.*?\] +(?P<run>\d+)(?:/\d+)? tests? run: (?P<passed>\d+) passed",
        lambda found: (int(found["passed"]), int(found["run"]) - int(found["passed"])),
    ),
    "cargo test": (
        r"^test result: \w+\. (?P<passed>\d+) passed; (?P<failed>\d+) failed;",
        lambda found: (int(found["passed"]), int(found["failed"])),
    ),
    "instruction counts": (
        r"^instruction-counts: (?:(?P<kernels>\d+) kernels on \d+ CPUs, none|kernels take more)",
        lambda found: (int(found["kernels"]), 0) if found["kernels"] else (0, 1),
    ),
    "clients at the HTTP door": (
        r"^clients: (?P<passed>\d+) passed, (?P<failed>\d+) failed",
        lambda found: (int(found["passed"]), int(found["failed"])),
    ),
    "the virtual board": (
        r"^(?P<passed>\d+) of (?P<run>\d+) passed in \d+ min$",
        lambda found: (int(found["passed"]), int(found["run"]) - int(found["passed"])),
    ),
}


def main():
    counts = {}
    for line in sys.stdin.buffer:
        text = re.sub(r"\x1b\[[0-9;]*m", "", line.decode(errors="replace")).rstrip()
        for name, (words, read) in RUNNERS.items():
            if found := re.match(words, text):
                passed, failed = read(found)
                before = counts.get(name, (0, 0))
                counts[name] = (before[0] + passed, before[1] + failed)
    passed = sum(count for count, _ in counts.values())
    failed = sum(count for _, count in counts.values())
    print("\npassed  failed  by")
    for name, (good, bad) in counts.items():
        print(f"{good:6}  {bad:6}  {name}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
