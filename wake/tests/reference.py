#!/usr/bin/env python3
"""What pymicro-features and pymicro-wakeword make of clips, for tests/reference.rs.

    reference.py MODELS CLIP.raw ...     raw: 16 kHz, mono, 16 bits little-endian

Beside each CLIP.raw it leaves CLIP.features (40 numbers of 16 bits a frame) and, for each model, CLIP.MODEL.scores (a float64 a frame:
what the model thinks after it). Models are those in the folder MODELS, where it leaves the package's own, too.
"""

import shutil
import sys
from array import array
from pathlib import Path

import pymicro_wakeword
from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures

SCALE = 0.0390625


def main() -> None:
    models = Path(sys.argv[1])
    for file in (Path(pymicro_wakeword.__file__).parent / "models").iterdir():
        shutil.copy(file, models)
    for clip in map(Path, sys.argv[2:]):
        features = list(MicroWakeWordFeatures().process_streaming(clip.read_bytes()))
        numbers = array("H")
        for frame in features:
            numbers.extend(round(x / SCALE) for x in frame.flatten())
        clip.with_suffix(".features").write_bytes(numbers.tobytes())
        for model in sorted(models.glob("*.json")):
            word = MicroWakeWord.from_config(model)
            scores = array("d", (word.process_streaming_prob(frame) for frame in features))
            clip.with_suffix(f".{model.stem}.scores").write_bytes(scores.tobytes())


main()
