#!/usr/bin/env python3
"""How long somebody who gives a command waits for its transcript while others are talking to the same daemon.

talkers.py [--binary target/release/gemmad] [--model DIR] [--repeat N] [--tokens N] [--talkers 0 1 2 4 4d]

A daemon with a Wyoming server and nothing else; every speaker is a client of it that sends sound at the pace of real time. Each
talker speaks the held-out clips of the demo model one after the other, 28 s at a time; `4d` adds a client that sends 2 bytes every
10 s. The command is 3 s long, and its latency is that from `audio-stop` to the transcript. The transcripts are compared with that of
the command alone: they have to be the same. Python's standard library only.
"""

import argparse
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import wave

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "demo"))
from stage import MODEL, RATE_HZ, TOP, free_port, wait_until  # noqa: E402

CHUNK = 2 * RATE_HZ // 25  # bytes of 40 ms
FORMAT = {"rate": RATE_HZ, "width": 2, "channels": 1}


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.answers = self.socket.makefile("rb")

    def send(self, kind, data=None, payload=b""):
        header = {"type": kind, "data": data or {}, "payload_length": len(payload)}
        self.socket.sendall(json.dumps(header).encode() + b"\n" + payload)

    def receive(self):
        header = json.loads(self.answers.readline())
        data = self.answers.read(header.get("data_length") or 0)
        return header["type"], json.loads(data) if data else header.get("data", {})

    def speak(self, pcm, stopped=threading.Event()):
        """At the pace of real time."""
        self.send("audio-start", FORMAT)
        started = time.monotonic()
        for count, at in enumerate(range(0, len(pcm), CHUNK), 1):
            if stopped.is_set():
                return
            self.send("audio-chunk", FORMAT, pcm[at : at + CHUNK])
            time.sleep(max(0.0, started + count * 0.04 - time.monotonic()))

    def transcript(self):
        """What was understood, and how long that took from the end of the speech."""
        started = time.monotonic()
        self.send("audio-stop")
        kind, data = self.receive()
        if kind != "transcript":
            sys.exit(f"talkers: {kind}: {data}")
        return data["text"], time.monotonic() - started


def clips():
    """The held-out clips of the demo model, raw."""
    for file in sorted((MODEL / "heldout/audio").glob("*.wav")):
        with wave.open(str(file)) as clip:
            yield clip.readframes(clip.getnframes())


def talk(port, speech, first, stopped):
    while not stopped.is_set():
        client = Client(port)
        client.speak(speech[first:] + speech[:first], stopped)
        if not stopped.is_set():
            client.transcript()
        client.socket.close()


def drip(port, stopped):
    client = Client(port)
    client.send("audio-start", FORMAT)
    while not stopped.is_set():
        client.send("audio-chunk", FORMAT, b"\0\0")
        stopped.wait(10)
    client.socket.close()


def measure(port, command, talkers, repeat):
    """Transcripts of the command, and their latencies, while that many talk."""
    stopped = threading.Event()
    speech = b"".join(clips())[: 28 * 2 * RATE_HZ]
    count = int(talkers.rstrip("d"))
    threads = [
        threading.Thread(target=talk, args=(port, speech, n * len(speech) // 8 * 2, stopped)) for n in range(count)
    ]
    if talkers.endswith("d"):
        threads.append(threading.Thread(target=drip, args=(port, stopped)))
    for thread in threads:
        thread.start()
    time.sleep(3 if threads else 0)
    results = []
    for _ in range(repeat):
        client = Client(port)
        client.speak(command)
        results.append(client.transcript())
        client.socket.close()
    stopped.set()
    for thread in threads:
        thread.join()
    # What the talkers left is forgotten before the next measurement.
    time.sleep(1)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=TOP / "target/release/gemmad")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=12, help="tokens of an answer at most")
    parser.add_argument("--talkers", nargs="*", default=["0", "1", "2", "4", "4d"])
    options = parser.parse_args()
    command = b"".join(list(clips())[:2])[: 3 * 2 * RATE_HZ]
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        config = pathlib.Path(directory) / "gemmad.toml"
        config.write_text(
            f'[model]\npath = "{options.model.resolve()}"\naudio_idle_unload_s = 3600\n'
            f"[mqtt]\nenabled = false\n[dbus]\nenabled = false\n[queue]\nmax_tokens = {options.tokens}\n"
            f'[wyoming]\nenabled = true\nlisten = "127.0.0.1:{port}"\nidle_timeout_s = 3600\nmax_clients = 16\n'
        )
        log = open(pathlib.Path(directory) / "log", "w+", encoding="utf-8")
        daemon = subprocess.Popen(
            [options.binary, "run", "--config", config, "--state-dir", directory], stderr=log, stdout=log
        )

        def connects():
            try:
                return Client(port)
            except ConnectionRefusedError:
                return daemon.poll()

        try:
            wait_until("the Wyoming server", connects, 600)
            if daemon.poll() is not None:
                log.seek(0)
                sys.exit(log.read())
            measure(port, command, "0", 1)
            text, alone = None, None
            print("talkers   median ms   longest ms   of alone   transcript")
            for talkers in options.talkers:
                results = measure(port, command, talkers, options.repeat)
                text = text if text is not None else results[0][0]
                same = "the same" if all(result[0] == text for result in results) else "another"
                seconds = [result[1] for result in results]
                median = statistics.median(seconds)
                alone = alone or median
                print(
                    f"{talkers:>7}   {median * 1e3:9.0f}   {max(seconds) * 1e3:10.0f}   {median / alone:8.2f}   {same}",
                    flush=True,
                )
        finally:
            daemon.terminate()
            daemon.wait()


if __name__ == "__main__":
    main()
