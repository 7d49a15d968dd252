#!/usr/bin/env python3
"""Measure what each recipe costs, by `gemmad eval` on the models of the repository, and write the table of docs/packs.md.

    quality.py GEMMAD            print the table
    quality.py GEMMAD --write    put it into docs/packs.md

Packs are made on the spot, in a directory that is gone afterwards. `--verbose` shows the commands.
"""

import argparse
import json
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import typing

TOP = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = TOP / "docs/packs.md"
# A new recipe needs its place here.
RECIPES = ["q8", "balanced", "q4_0", "small"]
HELDOUT = TOP / "models/demo/heldout"
# What the demo models were trained to be asked.
COMMAND = "Return the command as JSON:"
HEAD = [
    "model", "recipe", "transcripts", "WER", "heard commands", "captions",
    "logits", "KL divergence, nats", "top-1 agreement", "soft tokens of sound", "of pictures",
]


class Model(typing.NamedTuple):
    path: str
    slices: list
    # Whether it was trained, so that its answers say something.
    answers: bool = True
    # Whether it runs as published, so that packs can be compared with it.
    published: bool = True
    recipes: list = RECIPES
    # Whether its inputs and outputs were rounded in training, so that it can be run without.
    rounds: bool = False


MODELS = [
    Model("models/demo-gemma4", ["full"]),
    Model("models/demo-gemma4/mobile", ["full"], published=False, recipes=["mobile"], rounds=True),
    Model("models/demo", ["full", "half"]),
    Model("tests/fixtures/tiny-g4a", ["full"], answers=False),
]


class Program:
    def __init__(self, path, verbose):
        self.path, self.verbose = path.resolve(), verbose

    def run(self, *arguments):
        command = [str(self.path), *map(str, arguments)]
        if self.verbose:
            print(shlex.join(command), file=sys.stderr)
        return subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE, text=True).stdout

    def eval(self, *arguments):
        return json.loads(self.run("eval", *arguments, "--json"))


def answers(program, model, path):
    """Right answers to all held-out files, and the word error rate, each for every slice."""
    slices = [word for name in model.slices for word in ("--matformer", name)] if len(model.slices) > 1 else []

    def rows(what, column, folder, *options):
        arguments = [what, "--model", path, "--context", 512, *slices, "--column", column, *options, HELDOUT / folder]
        return program.eval(*arguments)["rows"]

    def right(rows):
        return " / ".join(str(sum(pair["reference"] == pair["hypothesis"] for pair in row["pairs"])) for row in rows)

    transcripts = rows("audio", "transcript", "audio")
    commands = rows("audio", "json", "audio", "--prompt", COMMAND)
    captions = rows("captions", "caption", "images")
    rates = " / ".join(f"{100 * row['word_error_rate']:.1f}" for row in transcripts)
    return [right(transcripts), f"{rates} %", right(commands), right(captions)]


def numbers(program, reference, path, sentences):
    """How far what is computed is off."""
    media = [word for file in sorted(HELDOUT.glob("audio/*.wav")) for word in ("--audio", file)]
    media += [word for file in sorted(HELDOUT.glob("images/*.png")) for word in ("--image", file)]
    read = program.eval("--model", path, "--reference", reference, "--text", sentences)
    towers = program.eval("soft-tokens", "--model", path, "--reference", reference, *media)
    return [
        f"{100 * read['logits_difference']:.2f} %",
        f"{read['kl_divergence']:.2g}",
        f"{100 * read['top1_agreement']:.1f} %",
        f"{100 * towers['audio_difference']:.2f} %",
        f"{100 * towers['image_difference']:.2f} %",
    ]


def without_roundings(source, target):
    """A copy of a checkpoint with every step of 0, which rounds nothing."""
    shutil.copytree(source, target)
    for file in target.glob("*.safetensors"):
        raw = bytearray(file.read_bytes())
        length, = struct.unpack_from("<Q", raw)
        for name, info in json.loads(raw[8:8 + length]).items():
            if name.endswith("_activation_scale"):
                start, end = info["data_offsets"]
                raw[8 + length + start:8 + length + end] = bytes(end - start)
        file.write_bytes(raw)


def table(program, folder):
    # The sentences and commands of the held-out set.
    rows = [line.split("\t") for line in (HELDOUT / "audio/expected.tsv").read_text().splitlines()[1:]]
    sentences = folder / "sentences"
    sentences.write_text("".join(f"{row[2]}\n{row[3]}\n" for row in rows))
    lines = [HEAD, ["---"] * len(HEAD)]
    for model in MODELS:
        for recipe in [None, *model.recipes]:
            path = TOP / model.path
            if recipe:
                path = folder / f"{pathlib.Path(model.path).name}-{recipe}.pack"
                program.run("pack", "--from", model.path, "--to", path, "--recipe", recipe)
            elif not model.answers or not model.published:
                continue
            said = answers(program, model, path) if model.answers else [""] * 4
            off = numbers(program, model.path, path, sentences) if recipe and model.published else [""] * 5
            lines.append([f"`{model.path}`", f"`{recipe}`" if recipe else "as published", *said, *off])
            if model.rounds:
                bare, bare_pack = folder / "bare", folder / "bare.pack"
                without_roundings(TOP / model.path, bare)
                program.run("pack", "--from", bare, "--to", bare_pack, "--recipe", recipe)
                off = numbers(program, path, bare_pack, sentences)
                lines.append([f"`{model.path}`", f"`{recipe}`, nothing rounded", *answers(program, model, bare_pack), *off])
    return "".join(re.sub(" +", " ", f"| {' | '.join(line)} |") + "\n" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", metavar="GEMMAD", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = table(Program(options.program, options.verbose), pathlib.Path(folder))
    if not options.write:
        print(found, end="")
        return
    head = re.escape(f"| {' | '.join(HEAD)} |\n")
    text, places = re.subn(f"(?m)^{head}(\\|.*\n)*", lambda _: found, DOCUMENT.read_text())
    if places != 1:
        sys.exit(f"{DOCUMENT}: {places} tables have this head; expected one")
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
