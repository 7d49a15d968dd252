#!/usr/bin/env python3
"""Runs the fuzz targets, each for some minutes, and prints what came of it.

    fuzz.py --minutes N [--jobs N] [TARGET...]      all targets unless some are named

What was found lies in fuzz/artifacts/TARGET/ (`cargo fuzz run TARGET FILE` shows it again), the log beside it; inputs that reach new
code go to fuzz/corpus-grown/TARGET/, from where the next run goes on.  Needs cargo-fuzz.  The pinned toolchain is used, and told to
take the flags that only a nightly one takes otherwise.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

FUZZ = Path(__file__).resolve().parents[1] / "fuzz"

# One allocation, and all of them, MiB: inputs have 64 KiB at most, and the limits that targets set are small.  The sanitizer's own
# tables are in the second.
MAX_ALLOCATED, MAX_RESIDENT = 256, 1536
LONGEST_INPUT = 65_536
# Seconds after which an input is slow enough to be a finding.
SLOW = 25
# A target that has failed is started again; one that fails at every turn has shown what it has to.
STARTS = 20


def targets():
    listed = subprocess.run(["cargo", "fuzz", "list", "--fuzz-dir", "."], cwd=FUZZ, check=True, capture_output=True, text=True)
    return listed.stdout.split()


def build(names):
    environment = os.environ | {"RUSTC_BOOTSTRAP": "1"}
    # What is fuzzed is what is shipped: cargo adds libFuzzer to gemmad's own versions.
    shutil.copy(FUZZ.parent / "Cargo.lock", FUZZ / "Cargo.lock")
    for name in names:
        subprocess.run(["cargo", "fuzz", "build", "--fuzz-dir", ".", name], cwd=FUZZ, check=True, env=environment)
    host = re.search(r"^host: (.*)$", subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True, cwd=FUZZ).stdout, re.M)[1]
    return Path(os.environ.get("CARGO_TARGET_DIR", FUZZ / "target")).absolute() / host / "release"


def run(program, minutes):
    """Runs one target; what the table says of it."""
    name = program.name
    grown, found = FUZZ / "corpus-grown" / name, FUZZ / "artifacts" / name
    for folder in (grown, found):
        folder.mkdir(parents=True, exist_ok=True)
    known = set(found.iterdir())
    log = FUZZ / "artifacts" / f"{name}.log"
    dictionary = FUZZ / "dictionaries" / f"{name}.dict"
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:detect_odr_violation=0", "RUST_BACKTRACE": "1"}
    runs = seconds = starts = 0
    coverage = features = 0
    end = time.monotonic() + 60 * minutes
    with log.open("wb") as output:
        while (left := end - time.monotonic()) >= 1 and starts < STARTS:
            begun = time.monotonic()
            command = [program, f"-artifact_prefix={found}/", f"-max_total_time={int(left)}", f"-max_len={LONGEST_INPUT}", f"-timeout={SLOW}",
                       f"-malloc_limit_mb={MAX_ALLOCATED}", f"-rss_limit_mb={MAX_RESIDENT}", "-print_final_stats=1"]
            if dictionary.exists():
                command.append(f"-dict={dictionary}")
            # The first folder is the one that is added to.
            subprocess.run([*command, grown, FUZZ / "corpus" / name], stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=FUZZ)
            output.flush()
            seconds += time.monotonic() - begun
            starts += 1
            text = log.read_text(errors="replace")
            runs = sum(map(int, re.findall(r"^stat::number_of_executed_units: (\d+)", text, re.M)))
            for reached, of in re.findall(r"cov: (\d+) ft: (\d+)", text):
                coverage, features = max(coverage, int(reached)), max(features, int(of))
    new = sorted(set(found.iterdir()) - known)
    return name, runs, runs / max(seconds, 1), coverage, features, len(list(grown.iterdir())), new, starts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1, help="for each target (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (default: 1)")
    parser.add_argument("target", nargs="*", help="which (default: all)")
    args = parser.parse_args()
    known = targets()
    if unknown := [name for name in args.target if name not in known]:
        sys.exit(f"fuzz: no target {', '.join(unknown)}; there are {', '.join(known)}")
    names = args.target or known
    programs = build(names)
    print(f"\n{len(names)} targets, {args.minutes:g} minutes each, {args.jobs} at a time; logs: fuzz/artifacts/*.log", flush=True)
    findings = []
    heading = f"{'target':12} {'runs':>12} {'a second':>9} {'edges':>7} {'features':>9} {'inputs':>7}  findings"
    rows = [heading]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for name, runs, speed, coverage, features, inputs, new, starts in pool.map(lambda name: run(programs / name, args.minutes), names):
            findings += new
            rows.append(f"{name:12} {runs:12} {speed:9.0f} {coverage:7} {features:9} {inputs:7}  {len(new) or 'none'}{', given up' if starts == STARTS else ''}")
            print(f"{name}: {runs} runs, {len(new)} findings", flush=True)
    print("\n" + "\n".join(rows))
    for path in findings:
        print(f"found: {path.relative_to(FUZZ.parent)}")
    if findings:
        print("Put each into fuzz/corpus/TARGET/ when it is mended, so that tests/memory/fuzz_corpora.rs keeps it so.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
