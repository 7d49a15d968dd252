#!/usr/bin/env python3
"""How long somebody waits between the last word and the answer, with and without an answer that is begun in the silence behind it.

early.py [--binary target/release/gemmad] [--model DIR] [--repeat N] [--tokens N] [--early MS] [--hangover MS] [--pauses MS ...]

A daemon with two microphones, pipes into which the held-out clips of the demo model are written at the pace of real time, with noise
around them. One begins its answers `--early` ms into the silence, the other when `--hangover` ms are over; they are spoken to in turn.
Told is how long it took from the last audible sample to the event. Then pairs of clips are spoken with pauses between them, to the
first microphone alone: told is how many answers were begun, and how many thrown away. Python's standard library only.
"""

import argparse
import array
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import wave

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "demo"))
from stage import MODEL, RATE_HZ, TOP, free_port, wait_until  # noqa: E402

FRAME = RATE_HZ // 50  # 20 ms are written at once
NOISE = random.Random(1)


def noise(seconds):
    """Faint noise, at -63 dB full scale: microphones give no digital silence."""
    return array.array("h", (round(NOISE.gauss(0, 23)) for _ in range(round(seconds * RATE_HZ))))


def clips():
    """The held-out clips from their first to their last sample within 30 dB of the loudest 20 ms."""
    for file in sorted((MODEL / "heldout/audio").glob("*.wav")):
        with wave.open(str(file)) as clip:
            samples = array.array("h", clip.readframes(clip.getnframes()))
        frames = [samples[at : at + FRAME] for at in range(0, len(samples), FRAME)]
        levels = [math.sqrt(sum(x * x for x in frame) / len(frame)) for frame in frames]
        heard = [at for at, level in enumerate(levels) if level > max(levels) * 0.0316]
        yield samples[heard[0] * FRAME : (heard[-1] + 1) * FRAME]


class House:
    """The daemon, its pipes, and what it has told."""

    def __init__(self, options, directory):
        self.port = free_port()
        microphones = ""
        for name, early_ms in (("early", options.early), ("late", 0)):
            os.mkfifo(directory / name)
            microphones += (
                f'[[microphone]]\nid = "{name}"\ntype = "replay"\ndevice = "{directory / name}"\n'
                f"[microphone.speech]\nearly_ms = {early_ms}\nhangover_ms = {options.hangover}\n"
            )
        config = directory / "gemmad.toml"
        config.write_text(
            f'[model]\npath = "{options.model.resolve()}"\naudio_idle_unload_s = 3600\n'
            f'[http]\nenabled = true\nlisten = "127.0.0.1:{self.port}"\n[mqtt]\nenabled = false\n[dbus]\nenabled = false\n'
            f"[queue]\nmax_tokens = {options.tokens}\n[degrade]\nhot_c = 0\nmemory_pressure_percent = 0\n{microphones}"
        )
        self.log = open(directory / "log", "w+", encoding="utf-8")
        self.daemon = subprocess.Popen(
            [options.binary, "run", "--config", config, "--state-dir", directory], stderr=self.log, stdout=self.log
        )
        wait_until("the daemon", lambda: self.answers() or self.daemon.poll() is not None, 600)
        if self.daemon.poll() is not None:
            self.log.seek(0)
            sys.exit(self.log.read())
        self.heard = []  # when, and the event
        self.changed = threading.Condition()
        threading.Thread(target=self.watch, daemon=True).start()
        self.pipes = {name: open(directory / name, "wb", buffering=0) for name in ("early", "late")}
        self.stopped = threading.Event()
        self.queues = {name: [] for name in self.pipes}
        for name in self.pipes:
            threading.Thread(target=self.feed, args=(name,), daemon=True).start()

    def answers(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health").status == 200
        except OSError:
            return False

    def watch(self):
        events = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/events")
        name = None
        for line in events:
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "event":
                name = value
            elif key == "data" and name == "heard":
                with self.changed:
                    self.heard.append((time.monotonic(), json.loads(value)))
                    self.changed.notify_all()

    def feed(self, name):
        """Noise at the pace of real time, and what is to be said in its place."""
        began, frames = time.monotonic(), 0
        while not self.stopped.is_set():
            queue = self.queues[name]
            sound = queue.pop(0) if queue else noise(FRAME / RATE_HZ)
            self.pipes[name].write(sound.tobytes())
            frames += 1
            time.sleep(max(0.0, began + frames * FRAME / RATE_HZ - time.monotonic()))

    def say(self, name, samples):
        """Says it to that microphone, and waits for what comes of it: from its last sample to the event, ms, and the event."""
        with self.changed:
            before = len(self.heard)
        frames = [samples[at : at + FRAME] for at in range(0, len(samples), FRAME)]
        self.queues[name].extend(frames)
        while self.queues[name]:
            time.sleep(0.002)
        ended = time.monotonic()
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.heard) > before, 120):
                sys.exit("early: nothing was heard")
            at, event = self.heard[before]
        time.sleep(1)  # whatever else comes of it
        return (at - ended) * 1e3, event, len(self.heard) - before

    def count(self):
        """Answers that were begun in a pause, and those of them that were thrown away."""
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics").read().decode()
        figures = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        return [int(figures[f"gemmad_early_answers{more}_total"]) for more in ("", "_thrown_away")]

    def close(self):
        self.stopped.set()
        self.daemon.terminate()
        self.daemon.wait()


def line(what, ms):
    ms = sorted(ms)
    worst = ms[math.ceil(0.95 * len(ms)) - 1]
    print(f"{what:>28}   {statistics.median(ms):7.0f}   {worst:7.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=TOP / "target/release/gemmad")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=12, help="tokens of an answer at most")
    parser.add_argument("--early", type=int, default=240)
    parser.add_argument("--hangover", type=int, default=700)
    parser.add_argument("--pauses", type=int, nargs="*", default=[200, 300, 400, 500, 600])
    options = parser.parse_args()
    speech = list(clips())
    with tempfile.TemporaryDirectory() as directory:
        house = House(options, pathlib.Path(directory))
        try:
            time.sleep(1)
            for name in house.pipes:
                house.say(name, speech[0])
            waited = {name: [] for name in house.pipes}
            computed, same = [], 0
            for n in range(options.repeat):
                texts = {}
                for name in ("late", "early") if n % 2 == 0 else ("early", "late"):
                    ms, event, _ = house.say(name, speech[n % len(speech)])
                    waited[name].append(ms)
                    texts[name] = event.get("text")
                    if name == "late":
                        computed.append(event["timing"]["latency_ms"])
                same += texts["late"] == texts["early"]
            print(f"{'last sample to event, ms':>28}   {'median':>7}   {'p95':>7}")
            line(f"begun after {options.hangover} ms", waited["late"])
            line(f"begun after {options.early} ms", waited["early"])
            line("of the first, computing", computed)
            print(f"{same} of {options.repeat} texts are the same\n")
            if options.pauses:
                print("  pause, ms   sentences   utterances   begun   thrown away")
            for pause in options.pauses:
                before, utterances = house.count(), 0
                for n in range(options.repeat):
                    first, second = speech[n % len(speech)], speech[(n + 1) % len(speech)]
                    utterances += house.say("early", first + noise(pause / 1e3) + second)[2]
                begun, thrown_away = (now - then for now, then in zip(house.count(), before))
                print(f"  {pause:9}   {options.repeat:9}   {utterances:10}   {begun:5}   {thrown_away:11}", flush=True)
        finally:
            house.close()


if __name__ == "__main__":
    main()
