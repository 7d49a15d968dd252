#!/usr/bin/env python3
"""Makes the inputs that each corpus began with; what fuzzing found since stands beside them and is left alone.

    fuzz/seeds.py GEMMAD        the program makes a pack; sox makes sound; needs Pillow and numpy

They are small, as libFuzzer changes small inputs best: cut from tests/fixtures and models/demo, or written here.
"""
import io
import json
import math
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import tflite

TOP = Path(__file__).resolve().parents[1]
DEMO, TINY, TINY4 = TOP / "models/demo", TOP / "tests/fixtures/tiny-a", TOP / "tests/fixtures/tiny-g4a"
NEXT = b"\n=====\n"


def seed(target, name, *parts):
    folder = TOP / "fuzz/corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    parts = [part.encode() if isinstance(part, str) else part for part in parts]
    (folder / f"seed-{name}").write_bytes(NEXT.join(parts))


def safetensors(tensors, metadata=None):
    """Tensors as (name, type, shape, bytes)."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, kind, shape, values in tensors:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def read_safetensors(path):
    raw = path.read_bytes()
    length, = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    metadata = header.pop("__metadata__", {})
    found = []
    for name, info in header.items():
        start, end = info["data_offsets"]
        found.append((name, info["dtype"], info["shape"], raw[8 + length + start:8 + length + end]))
    return found, metadata


def checkpoints(gemmad):
    tensors, _ = read_safetensors(DEMO / "model.safetensors")
    small = [t for t in tensors if len(t[3]) <= 256]
    for group, prefix in [("text", "model.language_model"), ("audio", "model.audio_tower"), ("vision", "model.vision_tower"), ("embedder", "model.embed")]:
        seed("safetensors", group, safetensors([t for t in small if t[0].startswith(prefix)][:6]))
    text = [t for t in small if t[0].startswith("model.language_model")][:4]
    seed("safetensors", "text-only", safetensors([(n.replace("language_model.", ""), k, s, v) for n, k, s, v in text]))
    seed("safetensors", "types", safetensors([(f"model.language_model.{k}", k, [2, 4], bytes(8 * n)) for k, n in
                                              [("F32", 4), ("F16", 2), ("BF16", 2), ("F64", 8), ("I64", 8), ("U8", 1), ("BOOL", 1)]]))
    seed("safetensors", "empty", safetensors([("model.language_model.a", "F32", [0, 4], b""), ("model.language_model.b", "F32", [], bytes(4))]))
    seed("safetensors", "no-rows", safetensors([("model.language_model.a", "F32", [0, 1 << 62, 4], b"")]))
    seed("safetensors", "misaligned", safetensors([("model.language_model.a", "U8", [1], b"a"), ("model.language_model.b", "F32", [1], bytes(4))]))
    seed("safetensors", "huge-header", struct.pack("<Q", 1 << 62) + b"{}")
    seed("safetensors", "huge-shape", struct.pack("<Q", 96) + json.dumps({"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 4]}}).encode().ljust(96) + bytes(4))
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": {text[0][0]: "one.safetensors", text[1][0]: "two.safetensors"}})
    seed("safetensors", "shards", index, safetensors(text[:1]), safetensors(text[1:2]))
    seed("safetensors", "stale-index", index.replace("two", "gone"), safetensors(text[:1]), safetensors(text[1:2]))
    seed("safetensors", "shard-elsewhere", index.replace("two", "../two"), safetensors(text[:1]))

    # What was trained in 2, 4 and 8 bits: scales, steps, and a matrix of each width.
    tensors, _ = read_safetensors(TOP / "tests/fixtures/tiny-g4a-qat-mobile/model.safetensors")
    matrices = [t for t in tensors if t[1] in ("U8", "I8") and len(t[3]) < 1600]
    layers = {n.removesuffix(".weight") for n, *_ in matrices[:6]}
    seed("safetensors", "trained", safetensors([t for t in tensors if t[0].rpartition(".")[0] in layers]))
    steps = [t for t in tensors if t[0].endswith("activation_scale")]
    seed("safetensors", "trained-steps", safetensors([(n, k, s, struct.pack("<f", x)) for (n, k, s, _), x in zip(steps, (0, -1, math.nan, math.inf, 1e-45, 1e38))]))
    scales = [t for t in tensors if t[0].endswith(("_scale", "_quantized")) and len(t[3]) < 1600]
    seed("safetensors", "trained-scales", safetensors(scales[:12]))

    with tempfile.TemporaryDirectory() as home:
        trained = TOP / "tests/fixtures/tiny-g4a-qat-mobile"
        for recipe, source in (("mobile", trained), ("q8", TINY), ("balanced", TINY), ("small", TINY)):
            pack = Path(home) / f"{recipe}.pack"
            subprocess.run([gemmad, "pack", "--from", source, "--to", pack, "--recipe", recipe], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            manifest = json.loads((pack / "pack.json").read_text())
            manifest["files"] = {"text.safetensors": {"bytes": "SIZE", "sha256": "0" * 64}}
            for file in sorted(pack.glob("*.safetensors")):
                tensors, formats = read_safetensors(file)
                # One tensor of each format, the smallest.
                chosen = {}
                for tensor in sorted(tensors, key=lambda t: len(t[3])):
                    kind = formats.get(tensor[0], "plain " + tensor[1]).split(" ")[0]
                    if len(tensor[3]) < 6000:
                        chosen.setdefault(kind, tensor)
                names = {t[0] for t in chosen.values()}
                seed("pack", f"{recipe}-{file.stem}", json.dumps(manifest, indent=1), safetensors(list(chosen.values()), {n: f for n, f in formats.items() if n in names}))
        newer = dict(manifest, version=99)
        seed("pack", "newer", json.dumps(newer), safetensors(text[:1]))
        seed("pack", "elsewhere", json.dumps(dict(manifest, files={"../a.safetensors": {"bytes": "SIZE", "sha256": ""}})), safetensors(text[:1]))
        wrong = safetensors([("model.language_model.a", "U8", [34], bytes(34))], {"model.language_model.a": "q8_rows 1 32"})
        seed("pack", "blocks", json.dumps(manifest), wrong)
        seed("pack", "blocks-beyond", json.dumps(manifest), wrong.replace(b"q8_rows 1 32", b"q4_tiled 9 99"))


def read_gguf(path):
    """Keys as (name, kind, kind of a list's items, items), tensors as (name, dimensions, type, bytes), and which of its tokens to keep."""
    raw = path.read_bytes()
    _, n_tensors, n_keys = struct.unpack("<IQQ", raw[4:24])
    at = 24
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def number(form):
        nonlocal at
        value, = struct.unpack_from("<" + form, raw, at)
        at += struct.calcsize("<" + form)
        return value

    def text():
        nonlocal at
        n = number("Q")
        at += n
        return raw[at - n:at]

    keys = []
    keep = None
    for _ in range(n_keys):
        key, kind = text(), number("I")
        if kind == 8:
            keys.append((key, kind, None, [text()]))
        elif kind == 9:
            of, n = number("I"), number("Q")
            if of == 8:
                items = [text() for _ in range(n)]
            else:
                items = [raw[at + i * sizes[of]:at + (i + 1) * sizes[of]] for i in range(n)]
                at += n * sizes[of]
            if key == b"tokenizer.ggml.tokens":
                # Control tokens, bytes, and the letters.
                keep = [i for i, t in enumerate(items) if i < 300 or len(t) < 4]
                keep = keep[:600]
            keys.append((key, kind, of, items))
        else:
            keys.append((key, kind, None, [raw[at:at + sizes[kind]]]))
            at += sizes[kind]
    table = []
    for _ in range(n_tensors):
        name = text()
        dimensions = [number("Q") for _ in range(number("I"))]
        table.append((name, dimensions, number("I"), number("Q")))
    data = raw[(at + 31) // 32 * 32:]
    ends = sorted(offset for *_, offset in table)[1:] + [len(data)]
    ends = dict(zip(sorted(offset for *_, offset in table), ends))
    return keys, [(name, dimensions, kind, data[offset:ends[offset]]) for name, dimensions, kind, offset in table], keep


def packed(words):
    return struct.pack("<Q", len(words)) + words


def gguf_file(keys, tensors=b"", n_tensors=0, version=3):
    out = b"GGUF" + struct.pack("<IQQ", version, n_tensors, len(keys))
    for key, kind, of, items in keys:
        out += packed(key) + struct.pack("<I", kind)
        if kind == 8:
            out += packed(items[0])
        elif kind == 9:
            out += struct.pack("<IQ", of, len(items))
            out += b"".join(packed(i) for i in items) if of == 8 else b"".join(items)
        else:
            out += items[0]
    return out + tensors


def gguf_with(keys, tensors):
    """A whole file of these tensors."""
    infos, data = b"", b""
    for name, dimensions, kind, values in tensors:
        infos += packed(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, len(data))
        data += values + bytes(-len(values) % 32)
    head = gguf_file(keys, infos, len(tensors))
    return head + bytes(-len(head) % 32) + data


def shortened(keys, keep):
    """With the tokens to keep only, and few merges."""
    tokens = next(len(items) for key, _, _, items in keys if key == b"tokenizer.ggml.tokens")
    return [(k, kind, of, [items[i] for i in keep] if kind == 9 and len(items) == tokens else items[:80] if k == b"tokenizer.ggml.merges" else items)
            for k, kind, of, items in keys]


def smallest(tensors, most):
    """The smallest, as many as have so many bytes together."""
    chosen = []
    for tensor in sorted(tensors, key=lambda tensor: len(tensor[3])):
        most -= len(tensor[3])
        if most >= 0:
            chosen.append(tensor)
    return chosen


def gguf():
    keys, _, keep = read_gguf(TOP / "tests/fixtures/gguf/tiny-a.gguf")
    file, shorter = gguf_file, shortened(keys, keep)
    bare = [key for key in keys if not key[0].startswith(b"tokenizer")]
    one = packed(b"token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 4, 8, 0)
    seed("gguf", "keys-and-tokens", file(shorter))
    seed("gguf", "keys-only", file(bare))
    seed("gguf", "version-2", file(bare, version=2))
    seed("gguf", "version-9", file(bare, version=9))
    seed("gguf", "one-tensor", file(bare, one + bytes(256), 1))
    seed("gguf", "tensor-beyond", file(bare, one, 1))
    seed("gguf", "cut-off", file(shorter)[:3000])
    seed("gguf", "many", b"GGUF" + struct.pack("<IQQ", 3, 1 << 15, 1 << 13))
    lists = [(b"a.%d" % i, 9, 0, [b"\1"] * 200) for i in range(4)] + [(b"b", 9, 8, [b""] * 200)]
    seed("gguf", "lists", file(lists))
    blocks = (TOP / "tests/fixtures/gguf/blocks.gguf").read_bytes()
    seed("gguf", "blocks", blocks[:20000])

    # Gemma 4's text model and its towers, cut down to what is small.
    keys, tensors, keep = read_gguf(TOP / "tests/fixtures/tiny-g4a-gguf/text-qat-layout.gguf")
    bare = [key for key in keys if not key[0].startswith(b"tokenizer")]
    seed("gguf", "gemma4-keys-and-tokens", file(shortened(keys, keep)))
    seed("gguf", "gemma4-keys-only", file(bare))
    seed("gguf", "gemma4-tensors", gguf_with(bare, smallest(tensors, 8000)))
    part = [(b"split.no", 2, None, [bytes(2)]), (b"split.count", 2, None, [b"\2\0"])]
    seed("gguf", "gemma4-part", gguf_with(bare + part, smallest(tensors, 400)))
    keys, tensors, _ = read_gguf(TOP / "tests/fixtures/tiny-g4a-gguf/mmproj-bf16.gguf")
    seed("gguf", "mmproj-keys-only", file(keys))
    for tower in (b"v.", b"a."):
        own = [tensor for tensor in tensors if tensor[0].startswith(tower)]
        seed("gguf", f"mmproj-{tower[:1].decode()}", gguf_with(keys, smallest(own, 4000)))


def small_tokenizer(path):
    """Of a tokenizer.json the control tokens, the bytes and the letters, and the merges among what is left."""
    whole = json.loads(path.read_text())
    added = {token["content"] for token in whole["added_tokens"]}
    vocab = {t: i for t, i in whole["model"]["vocab"].items() if t in added or (t.startswith("<0x") and len(t) == 6) or len(t) == 1}
    merges = []
    for merge in whole["model"]["merges"]:
        left, right = merge if isinstance(merge, list) else merge.split(" ")
        if left in vocab and right in vocab and len(merges) < 60:
            merges.append(merge)
            vocab[left + right] = whole["model"]["vocab"][left + right]
    whole["model"] |= {"vocab": vocab, "merges": merges}
    return whole


def tokenizers():
    config = (DEMO / "tokenizer_config.json").read_text()
    demo, tiny = small_tokenizer(DEMO / "tokenizer.json"), small_tokenizer(TINY / "tokenizer.json")
    seed("tokenizer", "demo", json.dumps(demo))
    seed("tokenizer", "demo-config", json.dumps(demo), config)
    seed("tokenizer", "tiny", json.dumps(tiny), (TINY / "tokenizer_config.json").read_text())
    seed("tokenizer", "pad-is-eos", json.dumps(demo), json.dumps(json.loads(config) | {"pad_token": "<eos>"}))
    seed("tokenizer", "pad-null", json.dumps(demo), json.dumps(json.loads(config) | {"pad_token": None}))
    seed("tokenizer", "token-as-object", json.dumps(demo), json.dumps(json.loads(config) | {"bos_token": {"content": "<bos>", "lstrip": True}}))
    strips = json.loads(json.dumps(demo))
    for token in strips["added_tokens"]:
        token["lstrip"] = token["rstrip"] = True
    seed("tokenizer", "strips", json.dumps(strips))
    strings = json.loads(json.dumps(demo))
    strings["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in strings["model"]["merges"]]
    seed("tokenizer", "merges-as-text", json.dumps(strings))
    unigram = json.loads(json.dumps(demo))
    unigram["model"]["type"] = "Unigram"
    seed("tokenizer", "unigram", json.dumps(unigram))
    seed("tokenizer", "cut-off", json.dumps(demo)[:2000])


def configs():
    names = ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "slices.toml"]
    for name, home in [("demo", DEMO), ("tiny", TINY), ("gemma4", TINY4)]:
        seed("config", name, *[(home / n).read_bytes() if (home / n).exists() else b"" for n in names])
    demo = json.loads((DEMO / "config.json").read_text())
    seed("config", "text-only", json.dumps({k: v for k, v in demo.items() if k not in ("audio_config", "vision_config")}))
    seed("config", "text-alone", json.dumps(demo["text_config"] | {"model_type": "gemma3n_text", "architectures": ["Gemma3nForCausalLM"]}))
    generation = (DEMO / "generation_config.json").read_text()
    nested = {"image_processor": {"size": {"height": 256, "width": 256}, "do_resize": True}, "feature_extractor": {"sampling_rate": 16000}}
    seed("config", "nested-processor", json.dumps(demo), generation, b"", json.dumps(nested))
    seed("config", "many-eos", json.dumps(demo | {"eos_token_id": [1, 106, 1]}), json.dumps({"eos_token_id": [1, 2, 3], "do_sample": True, "temperature": 0.5, "top_p": 2}))
    seed("config", "slices", json.dumps(demo), generation, b"", b"", (DEMO / "slices.toml").read_text() + "\n[odd]\nwidths = [1, 2]\n")
    blocks = demo | {"vision_config": demo["vision_config"] | {"model_args": {"block_args": [["er_r1_k3_s2_e4_c128"], ["uir_r1_a3_k5_s2_e6_c256", "mqa_r1_k3_h8_s1_d64_c256"]], "stem_size": 16, "msfa_output_resolution": 4}}}
    seed("config", "blocks", json.dumps(blocks))
    gemma4 = json.loads((TINY4 / "config.json").read_text())
    text = gemma4["text_config"]
    seed("config", "gemma4-text", json.dumps(text))
    by_layer = {key: value for key, value in text.items() if key not in ("global_head_dim", "num_global_key_value_heads")}
    by_layer["per_layer_config"] = {f"{layer:02}": {"head_dim": 64, "num_key_value_heads": 1} for layer in (4, 9)}
    seed("config", "gemma4-by-layer", json.dumps(gemma4 | {"text_config": by_layer}))
    seed("config", "gemma4-larger", json.dumps(gemma4 | {"text_config": text | {"enable_moe_block": True}}))
    seed("config", "absurd", json.dumps(demo | {"text_config": demo["text_config"] | {"hidden_size": 1 << 60, "num_hidden_layers": -1}}))
    seed("config", "other-model", json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64}))


def sox(*arguments, input=None):
    return subprocess.run(["sox", "-D", *map(str, arguments)], input=input, check=True, capture_output=True).stdout


def wav(tag=1, channels=1, rate=16000, bits=16, data=bytes(64), align=None, size=None, extra=b"", before=b""):
    align = align if align is not None else channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, (rate * align) & 0xFFFFFFFF, align, bits) + extra
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sound():
    said = DEMO / "heldout/audio/009_both.wav"
    for name, options, seconds in [
        ("flac-16.flac", [], .08), ("flac-24-stereo.flac", ["-b", 24, "-c", 2, "-r", 8000], .05), ("mp3.mp3", ["-C", 32], .2), ("mp3-stereo.mp3", ["-r", 44100, "-c", 2], .1),
        ("vorbis.ogg", ["-C", 0], .15), ("vorbis-stereo.ogg", ["-c", 2, "-C", 1, "-r", 22050], .1), ("alaw.wav", ["-e", "a-law"], .05), ("mulaw.wav", ["-e", "mu-law"], .05),
        ("ima.wav", ["-e", "ima-adpcm"], .05), ("float.wav", ["-e", "floating-point", "-b", 32], .02), ("float-64.wav", ["-e", "floating-point", "-b", 64], .02),
        ("extensible.wav", ["-b", 24, "-c", 4], .02), ("aiff.aiff", [], .02),
    ]:
        kind = name.rsplit(".")[-1]
        with tempfile.NamedTemporaryFile(suffix="." + kind) as made:
            sox(said, *options, made.name, "trim", 0.5, seconds)
            seed("audio", name.replace(".", "-"), Path(made.name).read_bytes())
    wave = b"".join(struct.pack("<h", int(9000 * math.sin(i / 5))) for i in range(80))
    seed("audio", "wav", wav(data=wave))
    seed("audio", "wav-size-0", wav(data=wave, size=0))
    seed("audio", "wav-size-unknown", wav(data=wave, size=0xFFFFFFFF))
    seed("audio", "wav-align", wav(data=wave, align=3))
    seed("audio", "wav-align-0", wav(data=wave, align=0))
    seed("audio", "wav-u8", wav(bits=8, data=wave))
    seed("audio", "wav-12-bits", wav(bits=12, align=2, data=wave))
    seed("audio", "wav-1-hz", wav(rate=1, data=wave))
    seed("audio", "wav-fast", wav(rate=0xFFFFFFFF, data=wave))
    seed("audio", "wav-channels", wav(channels=60000, align=16, data=wave))
    seed("audio", "wav-list", wav(data=wave, before=b"LIST" + struct.pack("<I", 3) + b"abc\0"))
    seed("audio", "rf64", wav(data=wave).replace(b"RIFF", b"RF64", 1))
    seed("audio", "matroska", bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282886d6174726f736b61"))


def pictures():
    y, x = np.mgrid[0:48, 0:72]
    rgb = np.stack([x * 3, y * 5, (x + y) * 2], -1).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(rgb)

    def jpeg(image=image, **options):
        out = io.BytesIO()
        image.save(out, "JPEG", **options)
        return out.getvalue()

    def without(data, marker):
        """The segments of one marker left out."""
        while (at := data.find(bytes([0xFF, marker]))) >= 0:
            data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2:at + 4], "big"):]
        return data

    plain = jpeg(quality=75, subsampling=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 20
    rotated = jpeg(exif=exif, quality=50)
    files = {
        "444": plain, "420": jpeg(quality=60, subsampling=2), "422": jpeg(quality=60, subsampling=1), "grey": jpeg(image.convert("L"), quality=60),
        "progressive": jpeg(quality=60, progressive=True), "cmyk": jpeg(image.convert("CMYK"), quality=40), "restarts": jpeg(quality=60, restart_marker_blocks=3),
        "restart-rows": jpeg(quality=60, subsampling=2, restart_marker_rows=1), "optimised": jpeg(quality=30, optimize=True), "exif": rotated,
        "no-huffman": without(jpeg(quality=60, subsampling=1), 0xC4), "two-soi": b"\xff\xd8" + plain, "no-eoi": plain[:-2], "cut-off": plain[:-60],
        "lost-restart": jpeg(quality=60, restart_marker_blocks=3).replace(b"\xff\xd2", b"\xff\xd3", 1), "two-exif": rotated[:2] + rotated[2:2 + 2 + int.from_bytes(rotated[4:6], "big")] + rotated[2:],
        "tail": plain + bytes(9), "wide": jpeg(Image.fromarray(np.tile(rgb[:8], (1, 8, 1))), quality=20),
    }
    for name, data in files.items():
        seed("overview", name, data)
        seed("picture", "jpeg-" + name, data)
    for file in sorted((TOP / "tests/fixtures/images").glob("*.*")):
        if file.suffix in (".png", ".gif") and "expected" not in file.name:
            seed("picture", file.stem + file.suffix.replace(".", "-"), file.read_bytes())
    seed("picture", "bomb-png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0) + bytes(4))
    seed("picture", "interlaced-png", adam7())


def adam7():
    """A grey picture of 8 x 8, interlaced, each pass with rows of zeros."""
    import zlib
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    rows = b"".join((b"\0" + bytes(w)) * h for w, h in passes)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def words():
    schemas = [
        {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer", "minimum": 0, "maximum": 100}}, "required": ["a"], "additionalProperties": False},
        {"type": "array", "items": {"enum": ["on", "off", 1, None]}, "minItems": 1, "maxItems": 3},
        {"anyOf": [{"const": "x"}, {"type": "number", "exclusiveMinimum": -1.5}, {"type": "boolean"}]},
        {"$defs": {"t": {"type": "object", "properties": {"c": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"},
        {"type": "string", "pattern": "^[a-z]{2,5}$"}, {"type": "string", "format": "date-time"}, {"type": "string", "minLength": 2, "maxLength": 4},
        {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"type": "integer", "multipleOf": 5}}}]},
        {"oneOf": [{"type": "integer"}, {"type": "string"}]}, {"type": "object", "patternProperties": {"^x": {"type": "null"}}, "minProperties": 1},
        {"x-guidance": {"whitespace_flexible": False, "item_separator": ","}, "type": "object", "properties": {"a": {"type": "integer"}}},
        {"type": ["string", "null"], "enum": ["a", None]}, {"prefixItems": [{"type": "integer"}], "items": False, "type": "array"}, True, False, {"$ref": "http://example.org/x"},
        {"not": {"type": "string"}}, {"type": "string", "pattern": "(?=a)b"}, {"if": {"type": "string"}, "then": {"minLength": 1}, "else": True},
    ]
    for number, schema in enumerate(schemas):
        seed("schema", f"{number:02}", json.dumps(schema))
    expressions = ["[a-z]+", "(on|off)( now)?", r"\d{1,3}(\.\d+)?", "(a*)*b", r"[^\x00-\x1f\"]{0,20}", r"\p{L}+ \p{Nd}", "(?i)yes|no", "a{1000}", "(?=x)y", r"(a)\1", "", "\\", "[", "(?P<n>ä|€)", "x{2,", "on\noff\n", "kitchen lamp\ngarden gate\n\"quoted\"\nä\n", "a\na\n", "\n\n", "(?s).*", r"\bword\b"]
    for number, expression in enumerate(expressions):
        seed("regex", f"{number:02}", expression)

    reference = (TOP / "config/gemmad.toml").read_text()
    seed("settings", "reference", reference)
    bare = "\n".join(line for line in reference.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    seed("settings", "bare", bare)
    seed("settings", "commented-in", "\n".join(line[2:] if line.startswith("# ") and " = " in line and "[" not in line.split("=")[0] else line for line in bare.splitlines()))
    for file in sorted((TOP / "config/examples").glob("*.toml")):
        seed("settings", file.stem, file.read_text())
    for name, text in {
        "microphone": '[[microphone]]\nid = "kitchen"\ndevice = "hw:0"\n', "camera": '[[camera]]\nid = "porch"\ntype = "still"\nurl = "http://user:p%40ss@camera/a.jpg"\nfps = 1\n',
        "broker": '[mqtt]\nurl = "mqtts://broker:8883"\nuser = "u"\npassword_file = "/x"\nnode = "a/b"\n', "typo": "[modle]\npaht = 1\n", "limits": "[limits.image]\nmax_pixels = 99999999999999999999\n",
        "command": '[[command]]\nname = "light"\nphrases = ["turn {state} the {room} light"]\n[command.slots]\nstate = ["on", "off"]\nroom = { type = "text" }\n', "no-utf8": b"[model]\npath = \"\xff\"\n",
        "deep": "a = " + "[" * 200 + "]" * 200, "dates": "[model]\npath = 1979-05-27T07:32:00Z\n",
    }.items():
        seed("settings", name, text)


def doors():
    for name, text in {
        "ask": "ask\nWhy is the sky blue?", "ask-json": 'request/ask\n{"prompt":"x","system":"s","stream":true,"transaction":"t","schema":{"type":"object"},"choices":["a"],"temperature":0.5,"seed":7,"max_tokens":9,"timeout_ms":100,"conversation":"c","image":"aGVsbG8=","audio":"aGVsbG8="}',
        "describe": 'request/describe\n{"camera":"porch","prompt":"p"}', "describe-camera": 'camera/porch/describe\n{"prompt":"p"}', "describe-image": 'request/describe\n{"image":"/9j/"}', "transcribe": 'request/transcribe\n{"audio":"UklGRg==","language":"English"}',
        "cancel": 'request/cancel\n{"job":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}', "cancel-target": 'request/cancel\n{"target":"t"}', "reload": "request/reload\n{}", "stats": "request/stats\n", "mute": "mic/kitchen/mute/set\nON", "listen": "mic/kitchen/listen\n{}",
        "enabled": "camera/porch/enabled/set\noff", "captions": "camera/porch/captions/set\nOn", "slice": "matformer/set\ne2b", "tokens": "max_tokens/set\n64", "tokens-0": "max_tokens/set\n0", "deep": "request/ask\n" + '{"prompt":"x","schema":' + "[" * 40 + "]" * 40 + "}",
        "no-utf8": b"request/ask\n{\"prompt\":\"\xff\"}", "no-object": "request/ask\n[1,2]", "number": 'request/ask\n{"prompt":1e999,"max_tokens":-1}', "bad-base64": 'request/ask\n{"prompt":"x","image":"?"}', "unknown": 'request/ask\n{"promt":"x"}',
    }.items():
        seed("mqtt", name, text)

    def event(kind, data=None, payload=b"", beside=True):
        header = {"type": kind}
        body = b""
        if data is not None and beside:
            header["data"] = data
        elif data is not None:
            body = json.dumps(data).encode()
            header["data_length"] = len(body)
        if payload:
            header["payload_length"] = len(payload)
        return json.dumps(header).encode() + b"\n" + body + payload

    form = {"rate": 16000, "width": 2, "channels": 1}
    chunk = event("audio-chunk", form, bytes(640), beside=False)
    said = event("transcribe", {"language": "en"}) + event("audio-start", form) + chunk + chunk + event("audio-stop") + event("ping", {"text": "ä"})
    for name, sent in {
        "said": said, "no-start": chunk + event("audio-stop") + event("describe"), "twice": said + said, "stop-alone": event("audio-stop"), "recognize": event("recognize", {"text": "Turn on the light", "context": {"a": 1}}, beside=False) + event("ping"),
        "float-rate": event("audio-start", form | {"rate": 16000.0}) + chunk, "stereo": event("audio-start", {"rate": 44100, "width": 4, "channels": 2}) + event("audio-chunk", {"rate": 44100, "width": 4, "channels": 2}, bytes(123)) + event("audio-stop") + event("ping"),
        "1-hz": event("audio-start", form | {"rate": 1}) + event("audio-chunk", form | {"rate": 1}, bytes(999)) + event("audio-stop"), "0-hz": event("audio-start", form | {"rate": 0}), "width-1": event("audio-start", form | {"width": 1}),
        "many-channels": event("audio-start", form | {"channels": 64}) + event("audio-chunk", form, bytes(500)), "language": event("transcribe", {"language": "xx"}), "cut-off": said[:150], "no-json": b"hello\n", "long-data": b'{"type":"x","data_length":99999999999}\n',
        "long-payload": b'{"type":"audio-chunk","payload_length":18446744073709551615}\nabc', "negative": b'{"type":"a","payload_length":-1}\n', "describe": event("describe"), "null-data": b'{"type":"ping","data":null,"version":"1.5.3"}\n', "deep": b'{"type":"ping","data":' + b'{"a":' * 150 + b"1" + b"}" * 151 + b"\n",
    }.items():
        seed("wyoming", name, sent)

    def asked(path, body=b"", method="POST", head="Host: pi\r\n"):
        body = body.encode() if isinstance(body, str) else body
        return f"{method} {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    said = '"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0K"}},{"type":"input_audio","input_audio":{"data":"UklGRg==","format":"wav"}}]}]'
    form = "--b\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\nsrt\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--b--\r\n"
    of_form = "Host: pi\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    for name, sent in {
        "chat": asked("/v1/chat/completions", "{" + said + ',"stream":true,"stop":["x"],"seed":-1,"top_k":-1,"stream_options":{"include_usage":true}}'), "schema": asked("/v1/chat/completions", "{" + said + ',"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}}'),
        "responses": asked("/v1/responses", '{"input":[{"role":"user","content":"a"},{"type":"function_call_output","output":{"a":1}}],"stream":true,"text":{"format":{"type":"json_object"}}}'), "models": asked("//v1//models/", method="GET"), "model": asked("/v1/models/model:low-res", method="GET"),
        "ollama": asked("/api/chat", '{"model":"model:latest","messages":[{"role":"user","content":"a","images":["iVBORw0K"]},{"role":"tool","content":"b"}],"options":{"num_predict":-1,"temperature":0},"think":false,"format":"json"}'), "generate": asked("/api/generate", '{"model":"model","prompt":"a","stream":false,"keep_alive":"5m"}'),
        "load": asked("/api/generate", '{"model":"model","keep_alive":0}'), "show": asked("/api/show", '{"name":"model"}'), "pull": asked("/api/pull", '{"model":"other"}'), "form": asked("/v1/audio/transcriptions", form, head=of_form), "form-cut": asked("/v1/audio/translations", form[:60], head=of_form),
        "two": asked("/api/tags", method="GET") + asked("/health", method="GET"), "chunks": b"POST /api/show HTTP/1.1\r\nHost: pi\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"name\":\"model\"}\r\n0\r\n\r\n", "both-lengths": b"POST /api/show HTTP/1.1\r\nHost: pi\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "no-host": asked("/", method="GET", head=""), "foreign": asked("/", method="GET", head="Host: evil.example\r\n"), "origin": asked("/api/tags", method="GET", head="Host: pi\r\nOrigin: https://evil.example\r\n"), "page": asked("/", method="GET", head="Host: pi\r\nAccept: text/html\r\n"),
        "login": asked("/page/login", '{"key":"x"}'), "button": asked("/page/microphones/kitchen/mute"), "rubbish": b"\0\xff\r\n\r\n", "deep": asked("/api/chat", "[" * 300), "metrics": asked("/metrics", method="GET"), "long": b"GET /" + b"a" * 20000,
    }.items():
        seed("http", name, sent)

    def align(data, to):
        return data + bytes(-len(data) % to)

    def text(value):
        value = value.encode()
        return struct.pack("<I", len(value)) + value + b"\0"

    def dictionary(entries):
        """`a{sv}`; the values as (signature, alignment, bytes)."""
        body = b""
        for key, (signature, to, value) in entries.items():
            # The array begins 8 bytes into the message, so what is aligned here is aligned there.
            body = align(body, 8) + text(key)
            body += bytes([len(signature)]) + signature.encode() + b"\0"
            body = align(body, to) + value
        return struct.pack("<I", len(body)) + bytes(4) + body

    s = lambda value: ("s", 4, text(value))
    u, t, x, d, b = [lambda v, c=c, f=f, n=n: (c, n, struct.pack(f, v)) for c, f, n in (("u", "<I", 4), ("t", "<Q", 8), ("x", "<q", 8), ("d", "<d", 8), ("b", "<I", 4))]
    listed = align(text("on"), 4) + text("off")
    choices = ("as", 4, struct.pack("<I", len(listed)) + listed)
    for name, (method, entries) in {
        "empty": ("Ask", {}), "ask": ("Ask", {"system": s("be short"), "max_tokens": u(64), "temperature": d(0.5), "seed": t(7), "stream": b(1)}), "schema": ("Ask", {"schema": s('{"type":"object"}')}), "bad-schema": ("Ask", {"schema": s("{")}),
        "choices": ("Ask", {"choices": choices}), "conversation": ("Ask", {"conversation": s("c"), "timeout_ms": u(5), "matformer": s("e2b")}), "negative": ("Ask", {"max_tokens": x(-1)}), "nan": ("Ask", {"temperature": d(math.nan)}),
        "wrong-type": ("Ask", {"system": u(1)}), "unknown": ("Ask", {"sytem": s("x")}), "image": ("Ask", {"image": ("h", 4, struct.pack("<I", 0))}), "transcribe": ("Transcribe", {"language": s("English"), "max_tokens": u(9)}),
        "describe": ("Describe", {"prompt": s("What?"), "timeout_ms": t(1 << 40)}), "nested": ("Ask", {"system": ("v", 1, b"\1v\0\1v\0\1s\0" + bytes(3) + text("x"))}), "none": ("Cancel", {}),
    }.items():
        seed("dbus", name, method.encode() + b"\n" + dictionary(entries))


def wake_words():
    whole = tflite.model()
    seed("wake", "model", whole)
    seed("wake", "padded", tflite.model(frames=3, same=True))
    seed("wake", "one-frame-more", tflite.model(frames=4))
    seed("wake", "unknown-operator", tflite.model(operator="WHILE"))
    seed("wake", "weights-of-another-shape", tflite.model(conv=7))
    seed("wake", "scale-of-nothing", tflite.model(scale=0.0))
    seed("wake", "variable-of-no-value", tflite.model(variable=b"other"))
    seed("wake", "cut-off", whole[:len(whole) // 2])
    seed("wake", "magic-only", whole[:8])
    micro = {"probability_cutoff": 0.9, "sliding_window_size": 5, "feature_step_size": 10}
    manifest = {"type": "micro", "wake_word": "Hello", "model": "hello.tflite", "version": 2, "micro": micro}
    seed("wake", "manifest", json.dumps(manifest))
    seed("wake", "manifest-beside", json.dumps(manifest | {"model": "../hello.tflite"}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    checkpoints(sys.argv[1])
    gguf()
    tokenizers()
    configs()
    sound()
    pictures()
    words()
    wake_words()
    doors()
