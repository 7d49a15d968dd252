#!/usr/bin/env python3
"""Compute what a Gemma 4's works take on the CPUs of boards, where counting the whole program would take hours.

    work-estimates.py --model SIZE --recipe RECIPE --pack PACK [--record FILE]

adds to the record of whole works (work-counts.py) those that are missing there, marked `kernels`: the shapes of the pack's matrices times
what each kernel was counted to take (kernels/benches/record). A matrix of n tokens is taken to cost what 128 cost, and what one token
costs more is shared among the n. Left out is what no kernel of the record does, such as resizing a picture and making frames of sound.
"""

import argparse
import json
import pathlib
import struct

import importlib

import emulated

counts = importlib.import_module("work-counts")

KERNELS = emulated.TOP / "kernels/benches/record"
PATCHES_A_SOFT_TOKEN = 9
# Frames of the conformer in a second, and those that are encoded together.
FRAMES, BATCH = 25, 12
# Behind the end of speech: a batch, and the soft tokens and the text that are left.
REST_TOKENS = 32


def kernels(cpu):
    """Kernel -> instructions for one weight or number (of 32), or one key of a head."""
    rows = (line.split("\t") for line in (KERNELS / f"{cpu}.tsv").read_text().splitlines()[1:])
    return {name: float(taken) / (32 if unit.startswith("32") else 1) for name, unit, taken in rows}


def matrices(path):
    """Name -> (format, weights) of what the pack has in few bits, and of float matrices."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    found = {}
    for name, told in header.pop("__metadata__").items():
        form, *shape = told.split()
        if len(shape) == 2 and shape[0].isdigit():
            found[name] = (form, int(shape[0]) * int(shape[1]))
    for name, tensor in header.items():
        if len(tensor["shape"]) == 2 and name not in found and tensor["dtype"] in ("BF16", "F32"):
            found[name] = (tensor["dtype"], tensor["shape"][0] * tensor["shape"][1])
    return found


class Cpu:
    def __init__(self, cpu, mobile):
        self.kernels, self.mobile = kernels(cpu), mobile

    def product(self, matrix, tokens):
        """Instructions that one of `tokens` tokens takes in a matrix."""
        form, weights = matrix
        if form in ("BF16", "F32"):
            return weights * self.kernels["matvec bf16" if tokens == 1 else "matmul bf16 16 tokens"]
        bits = form.split("_")[0]
        if form.endswith("row_scaled"):
            one, many = (self.kernels[f"{bits}_row_scaled {n} tokens"] for n in (1, 128))
        else:
            one, many = self.kernels[f"matvec {bits}"], self.kernels[f"matmul {bits} 128 tokens"]
        return weights * (many + (one - many) / tokens)

    def numbers(self, kernel, count):
        return self.kernels[kernel] * count

    def rounded(self, inputs, outputs):
        """Activations as the products want them; a mobile layer rounds what comes out, too."""
        if self.mobile:
            return self.numbers("round_activations 128 tokens", inputs + outputs)
        return self.numbers("quantize_activations 128 tokens", inputs)


def text(cpu, config, found):
    """Instructions of one token: of a prompt's in a chunk (n tokens, behind so many keys), and of one that passes all layers."""
    shared_from = config["num_hidden_layers"] - config["num_kv_shared_layers"]
    width = config["hidden_size"]

    def layer(i, tokens, keys, whole=True):
        full = config["layer_types"][i] == "full_attention"
        head = config["global_head_dim"] if full else config["head_dim"]
        heads = config["num_attention_heads"]
        own = {name: matrix for name, matrix in found.items() if f".layers.{i}." in name}
        if not whole:
            # Its keys and values are all that is needed of it.
            own = {name: matrix for name, matrix in own.items() if "k_proj" in name or "v_proj" in name}
            return sum(cpu.product(matrix, tokens) for matrix in own.values()) + cpu.rounded(2 * width, 2 * head)
        inner = next(matrix[1] for name, matrix in own.items() if "up_proj" in name) // width
        many = tokens > 1
        attend = {
            (True, False): "attend f16 8 tokens 4x256, 384 keys",
            (True, True): "attend f16 4 tokens 8x512, 384 keys",
            (False, False): "attend f16 4x256, 384 keys",
            (False, True): "attend f16 8x512, 384 keys",
        }[many, full]
        ple = config["hidden_size_per_layer_input"]
        seen = keys if full else min(keys, config["sliding_window"])
        return (
            sum(cpu.product(matrix, tokens) for matrix in own.values())
            + cpu.kernels[attend] * seen * heads
            + cpu.numbers("rms_norm", 5 * width + heads * head + 2 * head)
            + cpu.numbers("rope 8x256", heads * head + head)
            + cpu.numbers("add", 3 * width)
            + cpu.numbers("gelu_tanh_mul", inner + ple)
            + cpu.rounded((5 if cpu.mobile else 2) * width + heads * head + inner + width + ple, (heads + 2) * head + 3 * width + 2 * inner + ple)
        )

    projection = found["model.language_model.per_layer_model_projection.weight"]
    outside = {name: matrix for name, matrix in found.items() if ".layers." not in name and "projection" not in name}
    # The head is one plane of 2 bits, or the upper of two of 4; of the lower one few rows are read.
    head_bits = [matrix for name, matrix in outside.items() if matrix[1] > 1e8 and "residual" not in name][0]

    def prompt(tokens, chunk, keys):
        reached = (shared_from - 1) / config["num_hidden_layers"]
        below = sum(layer(i, chunk, keys) for i in range(shared_from - 1)) + layer(shared_from - 1, chunk, keys, whole=False)
        return tokens * (below + reached * cpu.product(projection, chunk)) + token(keys, shared_from - 1)

    def token(keys, first=0):
        layers = sum(layer(i, 1, keys) for i in range(first, config["num_hidden_layers"]))
        share = 1 - first / config["num_hidden_layers"]
        return layers + share * cpu.product(projection, 1) + cpu.product(head_bits, 1) + cpu.numbers("soft_cap", config["vocab_size"])

    return prompt, token


def audio(cpu, config, found):
    """Instructions of a second of speech."""
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    products = sum(cpu.product(matrix, BATCH) for name, matrix in found.items() if "relative_k_proj" not in name and "depthwise" not in name)
    inner = 4 * width
    numbers = (
        cpu.numbers("rms_norm", 8 * width)
        + cpu.numbers("silu", 2 * inner + width)
        + cpu.numbers("sigmoid", width)
        + cpu.numbers("add", 4 * width)
        + cpu.numbers("dot", 2 * config["attention_context_left"] * width + config["conv_kernel_size"] * width)
        + cpu.rounded((9 if cpu.mobile else 6) * width + 2 * inner, 8 * width + 2 * inner)
        + cpu.numbers("scale", 10 * width + 4 * inner)
    )
    first, second = config["subsampling_conv_channels"]
    bands = 128
    convolutions = cpu.numbers("dot", 2 * first * 9 * bands // 2 + second * first * 9 * bands // 4)
    return FRAMES * (products + layers * numbers + convolutions)


def picture(cpu, config, found, soft_tokens):
    """Instructions of a picture of as many soft tokens."""
    patches, width, layers = PATCHES_A_SOFT_TOKEN * soft_tokens, config["hidden_size"], config["num_hidden_layers"]
    inner = config["intermediate_size"]
    tower = sum(cpu.product(matrix, 128) for name, matrix in found.items() if "position_embedding" not in name and "embed_vision" not in name)
    embed = sum(cpu.product(matrix, 128) for name, matrix in found.items() if "embed_vision" in name)
    numbers = (
        cpu.kernels["attend_all int8 2x64"] * config["num_attention_heads"] * patches
        + cpu.numbers("rms_norm", 7 * width)
        + cpu.numbers("rope 8x256", 2 * width)
        + cpu.numbers("gelu_tanh_mul", inner)
        + cpu.numbers("add", 2 * width)
        + cpu.rounded((6 if cpu.mobile else 3) * width + inner, 5 * width + 2 * inner)
        + cpu.numbers("scale", 11 * width + 3 * inner)
    )
    return patches * (tower + layers * numbers) + soft_tokens * embed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="SIZE", help="gemma4-e2b or gemma4-e4b")
    parser.add_argument("--recipe", required=True, help="the recipe of the pack")
    parser.add_argument("--pack", required=True, type=pathlib.Path, help="the pack")
    parser.add_argument("--record", type=pathlib.Path, default=counts.RECORD, metavar="FILE", help="where whole works are")
    parser.add_argument("--token-bytes", required=True, type=int, help="weights that a token reads, as `gemmad bench` counts them")
    arguments = parser.parse_args()
    config = json.loads((arguments.pack / "config.json").read_text())
    found = {group: matrices(arguments.pack / f"{group}.safetensors") for group in ("text", "audio", "vision")}
    size = {group: (arguments.pack / f"{group}.safetensors").stat().st_size for group in ("audio", "vision")}
    record = counts.read(arguments.record)
    token_bytes = arguments.token_bytes
    for name in counts.CPUS:
        cpu = Cpu(name, arguments.recipe == "mobile")
        prompt, token = text(cpu, config["text_config"], found["text"])
        second = audio(cpu, config["audio_config"], found["audio"])
        works = {counts.prompt(tokens): (prompt(tokens, counts.CHUNK, tokens / 2), token_bytes * tokens // counts.CHUNK) for tokens in counts.PREFILLS}
        works[counts.TOKEN] = (token(counts.CHUNK), token_bytes)
        works[counts.SECOND] = (second, size["audio"] / counts.BATCH_S)
        works[counts.REST] = (second * BATCH / FRAMES + prompt(REST_TOKENS, REST_TOKENS, counts.CHUNK), size["audio"] + token_bytes)
        for soft_tokens in counts.SOFT_TOKENS["--soft-tokens"][1]:
            works[f"picture, {soft_tokens} soft tokens"] = (picture(cpu, config["vision_config"], found["vision"], soft_tokens), size["vision"])
        known = record.setdefault((arguments.model, arguments.recipe, name), {})
        for work, (spent, of_weights) in works.items():
            known.setdefault(work, (round(spent), round(of_weights), "kernels"))
    counts.write(arguments.record, record)


if __name__ == "__main__":
    main()
