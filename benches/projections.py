#!/usr/bin/env python3
"""Project how fast boards are, from instructions and bytes that were counted. No board was measured.

    projections.py [--record FILE]                 print a table for each board, from the counts on record
    projections.py --count PACK [--record FILE]    count first what is not on record, which takes hours

What is counted is the released program with one thread under QEMU's user emulation, where its clock is the counter
(instruction-counter.c): each time that it tells is a number of instructions, loading apart. PACK has the size of E2B,
`gemmad pack --synthetic e2b --recipe balanced`. A projection is the longer of two times: instructions divided by what all cores
issue, and bytes of weights divided by what the memory gives.
"""

import argparse
import functools
import json
import pathlib
import tempfile
import typing

import emulated

RECORD = emulated.TOP / "kernels/benches/record/e2b-balanced.tsv"
SPEECH = emulated.TOP / "models/demo/heldout/audio/001_voice.wav"
# As large as a camera's; what it shows does not matter.
PICTURE = emulated.TOP / "docs/pictures/homeassistant.png"
RESOLUTIONS_PX = (256, 512, 768)
PREFILL, DECODE, ANSWER = 128, 2, 12
# `[audio] batch_ms`: each batch reads the whole tower.
BATCH_S = 0.48
# What is counted: a prompt, a token that is decoded, a second of speech that is encoded, and what is left when it ends.
PROMPT, TOKEN, SECOND, REST = f"prompt of {PREFILL} tokens", "token", "second of speech", "end of speech"
# Soft tokens to which the reference fills a clip, less those of SPEECH, each of which stands for 160 ms.
PADDING = 188 - 20


class Board(typing.NamedTuple):
    cpu: str
    cores: int
    ghz: float
    # Instructions that a core completes in a cycle: an assumption. LLVM's models of the two (llvm-mca; of the Neoverse N1 for the A76,
    # which is the same core) let the products of matrices run at 1.7 and 2.0 where every load hits the first cache, for nearly
    # all are vector instructions, and two pipes do their arithmetic. Three quarters of that are taken.
    per_cycle: float
    # Plain reading on all cores, which `gemmad plan --read-gb-s` takes.
    read_gb_s: float


BOARDS = {
    "Raspberry Pi 4": Board("cortex-a72", cores=4, ghz=1.8, per_cycle=1.25, read_gb_s=5.6),
    "Raspberry Pi 5": Board("cortex-a76", cores=4, ghz=2.4, per_cycle=1.5, read_gb_s=11),
}


def picture(side):
    return f"picture of {side} px"


def runs(tell, pack, counts):
    """Names of works -> what counts them, (instructions, bytes of weights) for each, in one run of the program."""
    files = json.loads((pack / "pack.json").read_text())["files"]
    audio, vision = (files[f"{tower}.safetensors"]["bytes"] for tower in ("audio", "vision"))

    def text():
        told = tell("bench", "text", "--prefill", str(PREFILL), "--decode", str(DECODE), "--runs", "1")
        token = told["weight_bytes_per_token"]
        # A piece of a prompt reads the weights once, as a token does.
        return (1e9 * PREFILL / told["prefill_tok_s"], token), (1e9 / told["decode_tok_s"], token)

    def speech():
        with SPEECH.open("rb") as sound:
            told = tell("transcribe", "--soft-token-padding", "none", "--max-tokens", "1", "-", stdin=sound)
        timing = told["pieces"][0]["timing"]
        second = 1e6 * timing["encode_ms"] / told["duration_s"]
        # What was heard last, its soft tokens and the closing text.
        rest = 1e6 * (told["after_end_ms"] - timing["decode_ms"])
        return (second, audio / BATCH_S), (rest, audio + 2 * counts[TOKEN][1])

    def seen(side):
        told = tell("describe", "--resolution", str(side), "--max-tokens", "1", PICTURE)
        return ((1e6 * told["timing"]["encode_ms"], vision),)

    pictures = {(picture(side),): functools.partial(seen, side) for side in RESOLUTIONS_PX}
    return {(PROMPT, TOKEN): text, (SECOND, REST): speech} | pictures


def count(cpu, counts, pack, program, counter):
    """Adds to `counts` what is missing in it, a run at a time."""

    def tell(*command, stdin=None):
        line = [program, *command, "--model", pack, "--threads", "1", "--json"]
        return json.loads(emulated.run(counter, cpu, line, stdin=stdin))

    for works, run in runs(tell, pack, counts).items():
        if not counts.keys() >= set(works):
            counted = [(round(spent), round(of_weights)) for spent, of_weights in run()]
            counts.update(zip(works, counted))
            yield works


def write(path, counts):
    rows = [f"{cpu}\t{work}\t{spent}\t{of_weights}" for cpu, works in counts.items() for work, (spent, of_weights) in works.items()]
    path.write_text("\n".join(["cpu\twork\tinstructions\tbytes of weights", *rows]) + "\n")


def read(path):
    """CPU -> work -> (instructions, bytes of weights)."""
    counts = {board.cpu: {} for board in BOARDS.values()}
    for line in path.read_text().splitlines()[1:] if path.exists() else []:
        cpu, work, spent, of_weights = line.split("\t")
        counts[cpu][work] = (int(spent), int(of_weights))
    return counts


def project(board, works):
    """What is to be told of a board: its name, its value, and which of the two bounds it."""

    def seconds(work):
        spent, of_weights = works[work]
        computing = spent / (board.cores * board.ghz * 1e9 * board.per_cycle)
        reading = of_weights / (board.read_gb_s * 1e9)
        return max(computing, reading), "memory" if reading > computing else "cores"

    heard, bound = seconds(SECOND)
    yield "speech, share of real time", f"{heard:.2f}", bound
    for side in filter(lambda side: picture(side) in works, RESOLUTIONS_PX):
        encoded, bound = seconds(picture(side))
        yield f"{picture(side)}, s", f"{encoded:.1f}", bound
    prompt, bound = seconds(PROMPT)
    yield "prefill, tokens/s", f"{PREFILL / prompt:.0f}", bound
    token, bound = seconds(TOKEN)
    yield "decode, tokens/s", f"{1 / token:.1f}", bound
    rest, bound = seconds(REST)
    answer = rest + ANSWER * token
    yield f"end of speech to the last of {ANSWER} tokens, s", f"{answer:.1f}", bound
    yield "the same, padded as the reference does, s", f"{answer + PADDING / PREFILL * prompt:.1f}", bound


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=pathlib.Path, metavar="PACK", help="count what is not on record, with this pack")
    parser.add_argument("--record", type=pathlib.Path, default=RECORD, metavar="FILE", help="where the counts are")
    arguments = parser.parse_args()
    counts = read(arguments.record)
    if arguments.count:
        program = emulated.build("--bin", "gemmad")
        with tempfile.TemporaryDirectory() as directory:
            counter = emulated.build_counter(pathlib.Path(directory))
            for cpu in counts:
                # Written as they come: a count that is broken off goes on from there.
                for works in count(cpu, counts[cpu], arguments.count, program, counter):
                    write(arguments.record, counts)
                    print(f"{cpu}: counted {', '.join(works)}", flush=True)
    for name, board in BOARDS.items():
        print(f"{name}: a projection, not a measurement ({board.cores} x {board.cpu} at {board.ghz} GHz, {board.per_cycle} instructions")
        print(f"a cycle assumed, {board.read_gb_s} GB/s)")
        for what, value, bound in project(board, counts[board.cpu]):
            print(f"  {what:<56}{value:>8}  {bound}")


if __name__ == "__main__":
    main()
