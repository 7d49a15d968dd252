#!/usr/bin/env python3
"""How often wake words are missed and heard in vain, on an hour of synthetic speech in noise.

    wake-words.py GEMMAD MODEL.json ... [--minutes N]

espeak-ng says each wake word in 24 voices and speeds, and reads sentences that have none; noise of a room (pink) is added at several
ratios of signal to noise. `gemmad wake` hears all of it. Needs numpy and espeak-ng. Voices of a synthesiser are no people: the table tells how
one model and one level of noise compare with another, and nothing about a kitchen.
"""
import argparse
import json
import pathlib
import re
import subprocess
import tempfile
import wave

import numpy as np

RATE = 16000
RATIOS_DB = (None, 20, 10, 5)
VOICES = ["en-us", "en-gb", "en-gb-scotland", "en-us+f2", "en-gb+f4", "en-us+m3"]
SPEEDS = [120, 140, 160, 180]
GAP_S = 3
PIECE_S = 300
WORDS = """the a of and to in he have it that for they with as not on she at by this we you do but from or which one would all will there say who
make when can more if no man out other so what time up go about than into could state only new year some take come these know see use get like
then first any work now may such give over think most even find day also after way many must look before great back through long where much should
well people down own just because good each those feel seem how high too place little world very still nation hand old life tell write become here
show house both between need mean call develop under last right move thing general school never same another begin while number part turn real leave
might want point form off child few small since against ask late home interest large person end open public follow during present without again hold
jar of is alex naboo table okay hey microphone craft relax elected""".split()


def spoken(text, voice, speed):
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-w", file.name, text], check=True)
        with wave.open(file.name) as sound:
            rate, samples = sound.getframerate(), np.frombuffer(sound.readframes(sound.getnframes()), np.int16).astype(float)
    return np.interp(np.arange(0, len(samples), rate / RATE), np.arange(len(samples)), samples)


def pink(count, random):
    spectrum = np.fft.rfft(random.standard_normal(count))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 50 * count / RATE))
    noise = np.fft.irfft(spectrum, count)
    return noise / np.sqrt((noise ** 2).mean())


def write(path, samples):
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, RATE, len(samples), "NONE", ""))
        sound.writeframes(np.clip(samples, -32768, 32767).astype("<i2").tobytes())


def heard(gemmad, models, folder, samples):
    """Times at which each phrase was heard; files of any length are not taken, so a few minutes each."""
    found = []
    options = [option for model in models for option in ("--model", model)]
    for begin in range(0, len(samples), PIECE_S * RATE):
        path = pathlib.Path(folder) / "piece.wav"
        write(path, samples[begin : begin + PIECE_S * RATE])
        printed = subprocess.run([gemmad, "wake", *options, path], check=True, stdout=subprocess.PIPE, text=True).stdout
        lines = re.findall(r": ([0-9.]+) s: (.*) \([0-9.]+\)$", printed, re.MULTILINE)
        found += [(begin / RATE + float(second), phrase) for second, phrase in lines]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gemmad")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--minutes", type=float, default=60, help="speech without a wake word (default: 60)")
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    phrases = [json.loads(pathlib.Path(model).read_text())["wake_word"] for model in arguments.models]

    clips, said, at = [], [], 0
    for voice in VOICES:
        for speed in SPEEDS:
            for phrase in phrases:
                clip = np.concatenate([np.zeros(GAP_S * RATE), spoken(phrase, voice, speed)])
                at += len(clip)
                said.append((at / RATE, phrase))
                clips.append(clip)
    words = np.concatenate([*clips, np.zeros(GAP_S * RATE)])

    clips, length = [], 0
    while length < arguments.minutes * 60 * RATE:
        sentence = " ".join(random.choice(WORDS, 40)) + "."
        clips.append(spoken(sentence, VOICES[len(clips) % len(VOICES)], int(random.choice(SPEEDS))))
        length += len(clips[-1])
    others = np.concatenate(clips)
    hours = len(others) / RATE / 3600

    print("| signal to noise | " + " | ".join(f"{phrase}: missed, false an hour" for phrase in phrases) + " |")
    print("| --- |" + " --- |" * len(phrases))
    for ratio in RATIOS_DB:
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for speech in (words, others):
                loudness = np.sqrt((speech[np.abs(speech) > 50] ** 2).mean())
                noise = 3 if ratio is None else loudness / 10 ** (ratio / 20)
                found.append(heard(arguments.gemmad, arguments.models, folder, speech + noise * pink(len(speech), random)))
        cells = []
        for phrase in phrases:
            wanted = [second for second, what in said if what == phrase]
            hits = [second for second, what in found[0] if what == phrase]
            missed = sum(not any(-0.8 < hit - second < 1 for hit in hits) for second in wanted)
            false = sum(what == phrase for _, what in found[1])
            cells.append(f"{missed} of {len(wanted)}, {false / hours:.1f}")
        print(f"| {'none added' if ratio is None else f'{ratio} dB'} | " + " | ".join(cells) + " |", flush=True)


main()
