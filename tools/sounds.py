#!/usr/bin/env python3
"""Makes the short sounds of the speaker: src/capture/speaker/sounds/*.wav.

    python3 tools/sounds.py            # writes them
    python3 tools/sounds.py --check    # fails where one is otherwise

Each is a few notes of two partials with a soft beginning and end, so that none of them resembles speech.

"""

import math
import sys
import wave
from pathlib import Path

RATE = 16_000
LEVEL = 0.35
FOLDER = Path(__file__).resolve().parent.parent / "src/capture/speaker/sounds"

# Hz and milliseconds of each note, one behind the other; 0 Hz is a rest.
SOUNDS = {
    "listening": [(659.26, 70), (987.77, 110)],
    "understood": [(783.99, 60), (1174.66, 60), (1567.98, 110)],
    "not_understood": [(493.88, 110), (369.99, 160)],
    "failed": [(311.13, 130), (0, 40), (311.13, 130), (0, 40), (233.08, 200)],
    "muted": [(587.33, 80), (293.66, 150)],
}


def note(hertz: float, milliseconds: int) -> list[int]:
    count = RATE * milliseconds // 1000
    samples = []
    for at in range(count):
        if hertz == 0:
            samples.append(0)
            continue
        seconds = at / RATE
        rise = min(1.0, at / (RATE * 0.008))
        fall = min(1.0, (count - at) / (RATE * 0.03))
        tone = math.sin(2 * math.pi * hertz * seconds) + 0.2 * math.sin(4 * math.pi * hertz * seconds)
        samples.append(round(32_767 * LEVEL / 1.2 * tone * rise * fall))
    return samples


def main() -> int:
    wrong = []
    for name, notes in SOUNDS.items():
        samples = [sample for hertz, milliseconds in notes for sample in note(hertz, milliseconds)]
        path = FOLDER / f"{name}.wav"
        if "--check" in sys.argv[1:]:
            with wave.open(str(path)) as file:
                frames = file.readframes(file.getnframes())
            found = [int.from_bytes(frames[at : at + 2], "little", signed=True) for at in range(0, len(frames), 2)]
            # Sines of another machine's library may differ in their last bit.
            same = len(found) == len(samples) and all(abs(x - y) <= 1 for x, y in zip(found, samples))
            if not same:
                wrong.append(name)
            continue
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples))
    for name in wrong:
        print(f"{name}.wav is not what tools/sounds.py makes", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
