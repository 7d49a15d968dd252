#!/usr/bin/env python3
"""Count what a model's works take on the CPUs of boards: instructions, and bytes of weights.

    work-counts.py --model SIZE --recipe RECIPE --pack PACK [--cpu CPU] [--record FILE]

counts what is not on record yet, which takes hours. SIZE is what `gemmad pack --synthetic` calls it, and PACK a pack that was made so.
What is counted is the released program with one thread under QEMU's user emulation, where its clock is the counter
(instruction-counter.c): each time that it tells is a number of instructions, loading apart. What follows from it for boards is
projected by the program itself, which has the record inside: `gemmad report --projections`.
"""

import argparse
import functools
import json
import pathlib
import tempfile

import emulated

RECORD = emulated.TOP / "kernels/benches/record/works.tsv"
HEADER = "model\trecipe\tcpu\twork\tinstructions\tbytes of weights\thow"
CPUS = ["cortex-a72", "cortex-a76"]
SPEECH = emulated.TOP / "models/demo/heldout/audio/001_voice.wav"
# As large as a camera's; what it shows does not matter.
PICTURE = emulated.TOP / "docs/pictures/homeassistant.png"
# What models know: Gemma 3n sizes of pictures in pixels, Gemma 4 numbers of soft tokens.
PIXELS = {"--resolution": ("px", (256, 512, 768))}
SOFT_TOKENS = {"--soft-tokens": ("soft tokens", (70, 280))}
PREFILLS, CHUNK = (128, 512), 128
DECODE = 2
# What is encoded together before a machine has shown what it takes (`[audio] batch_ms`): each batch reads the whole tower.
BATCH_S = 0.48
# What is counted beside prompts and pictures: a token that is decoded, a second of speech that is encoded, and what is left when it
# ends.
TOKEN, SECOND, REST = "token", "second of speech", "end of speech"
# How a work is known: as it was counted whole, or as work-estimates.py computes it from kernels.
COUNTED, ESTIMATED = "counted", ("kernels",)


def prompt(tokens):
    return f"prompt of {tokens} tokens"


def runs(tell, pack, sizes, counts):
    """Names of works -> what counts them, (instructions, bytes of weights) for each, in one run of the program."""
    files = json.loads((pack / "pack.json").read_text())["files"]
    audio, vision = (files[f"{tower}.safetensors"]["bytes"] for tower in ("audio", "vision"))

    def token():
        told = tell("bench", "text", "--prefill", "1", "--decode", str(DECODE), "--runs", "1")
        return ((1e9 / told["decode_tok_s"], told["weight_bytes_per_token"]),)

    def text(tokens):
        # Once only: nothing is faster the second time where instructions are counted. Each number is four tokens about.
        numbers = " ".join(str(1000 + 37 * number) for number in range((tokens - 16) // 5))
        timing = tell("ask", "--kv-cache", "f16", "--max-tokens", "1", numbers)["timing"]
        # A chunk of a prompt reads the weights once at most, as a token does.
        return ((1e6 * timing["prefill_ms"] * tokens / timing["prompt_tokens"], counts[TOKEN][1] * tokens // CHUNK),)

    def speech():
        with SPEECH.open("rb") as sound:
            told = tell("transcribe", "--soft-token-padding", "none", "--max-tokens", "1", "-", stdin=sound)
        timing = told["pieces"][0]["timing"]
        second = 1e6 * timing["encode_ms"] / told["duration_s"]
        # What was heard last, its soft tokens and the closing text.
        rest = 1e6 * (told["after_end_ms"] - timing["decode_ms"])
        return (second, audio / BATCH_S), (rest, audio + counts[TOKEN][1])

    def seen(option, size):
        told = tell("describe", option, str(size), "--max-tokens", "1", PICTURE)
        return ((1e6 * told["timing"]["encode_ms"], vision),)

    works = {(TOKEN,): token, (SECOND, REST): speech}
    works |= {(prompt(tokens),): functools.partial(text, tokens) for tokens in PREFILLS}
    for option, (unit, known) in sizes.items():
        works |= {(f"picture, {size} {unit}",): functools.partial(seen, option, size) for size in known}
    return works


def count(cpu, counts, pack, sizes, program, counter):
    """Adds to `counts` what is missing in it, a run at a time."""

    def tell(*command, stdin=None):
        line = [program, *command, "--model", pack, "--threads", "1", "--json"]
        return json.loads(emulated.run(counter, cpu, line, stdin=stdin))

    for works, run in runs(tell, pack, sizes, counts).items():
        if any(counts.get(work, ESTIMATED)[-1] != COUNTED for work in works):
            counted = [(round(spent), round(of_weights), COUNTED) for spent, of_weights in run()]
            counts |= dict(zip(works, counted))
            yield works


def write(path, counts):
    """Each line of another model, recipe or CPU stays where it is."""
    rows = ["\t".join([*key, work, *map(str, found)]) for key, works in counts.items() for work, found in works.items()]
    path.write_text("\n".join([HEADER, *rows]) + "\n")


def read(path):
    """(Model, recipe, CPU) -> work -> (instructions, bytes of weights, how that is known)."""
    counts = {}
    for line in path.read_text().splitlines()[1:] if path.exists() else []:
        *key, work, spent, of_weights, how = line.split("\t")
        counts.setdefault(tuple(key), {})[work] = (int(spent), int(of_weights), how)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="SIZE", help="e2b, e4b, gemma4-e2b or gemma4-e4b")
    parser.add_argument("--recipe", required=True, help="the recipe of the pack")
    parser.add_argument("--pack", required=True, type=pathlib.Path, help="the pack")
    parser.add_argument("--cpu", action="append", choices=CPUS, help="count on this one only")
    parser.add_argument("--record", type=pathlib.Path, default=RECORD, metavar="FILE", help="where the counts are")
    arguments = parser.parse_args()
    sizes = SOFT_TOKENS if arguments.model.startswith("gemma4-") else PIXELS
    program = emulated.build("--bin", "gemmad")
    with tempfile.TemporaryDirectory() as directory:
        counter = emulated.build_counter(pathlib.Path(directory))
        for cpu in arguments.cpu or CPUS:
            counts = read(arguments.record)
            works = counts.setdefault((arguments.model, arguments.recipe, cpu), {})
            # Written as they come: a count that is broken off goes on from there.
            for counted in count(cpu, works, arguments.pack, sizes, program, counter):
                write(arguments.record, counts)
                print(f"{cpu}: counted {', '.join(counted)}", flush=True)


if __name__ == "__main__":
    main()
