#!/usr/bin/env python3
"""Tokens a second of several clients at once, over HTTP, beside those of one; and beside another server on the same machine.

clients.py [--binary target/release/gemmad] [--model DIR] [--clients 1 4] [--tokens N] [--rounds N] [--beside URL]

Each client asks OpenAI's /v1/chat/completions for a streamed answer of N tokens, with words of its own, so that nothing is known from
before. Counted are the tokens that the servers say they made, from the first piece that any client got to the last: decoding, without
the prompts. Nothing is guessed. `--beside` names a server that runs already, such as llama.cpp's with four slots; servers and numbers of
clients take turns, and medians are told. Python's standard library only.
"""

import argparse
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "demo"))
from stage import MODEL, TOP, free_port, wait_until  # noqa: E402

CONFIG = """
[model]
path = "{model}"
[http]
enabled = true
listen = "127.0.0.1:{port}"
[mqtt]
enabled = false
[dbus]
enabled = false
[queue]
max_tokens = 4096
answers = 8
[guess]
tokens = 0
[degrade]
hot_c = 0
memory_pressure_percent = 0
"""


def ask(url, words, tokens, result):
    """One streamed answer: when its first and its last piece came, and its tokens."""
    body = {
        "model": model_of(url),
        "messages": [{"role": "user", "content": words}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    first = last = made = None
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            piece = json.loads(line[6:])
            if piece.get("usage"):
                made = piece["usage"]["completion_tokens"]
            elif any(choice.get("delta", {}).get(key) for choice in piece["choices"] for key in ("content", "reasoning_content")):
                last = time.monotonic()
                first = first or last
    result.append((first, last, made))


@functools.cache
def model_of(url):
    return json.load(urllib.request.urlopen(f"{url}/v1/models"))["data"][0]["id"]


def tokens_a_second(url, clients, tokens, seed):
    """All of them together, while all of them decode or one still does."""
    results = []
    asking = [
        threading.Thread(target=ask, args=(url, f"{seed} {n}: tell me about number {seed * 31 + n * 7}.", tokens, results))
        for n in range(clients)
    ]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    if len(results) < clients or any(None in result for result in results):
        sys.exit(f"clients: an answer of {url} is missing: {results}")
    began = min(first for first, _, _ in results)
    ended = max(last for _, last, _ in results)
    return sum(made for _, _, made in results) / (ended - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=TOP / "target/release/gemmad")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", help="address of another server, as http://127.0.0.1:8080")
    options = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory) / "gemmad.toml"
        config.write_text(CONFIG.format(model=options.model.resolve(), port=port))
        with open(config.with_name("log"), "w+", encoding="utf-8") as log:
            daemon = subprocess.Popen(
                [options.binary, "run", "--config", config, "--state-dir", directory], stdout=log, stderr=log
            )
            try:
                servers = {"gemmad": f"http://127.0.0.1:{port}"}
                wait_until("the daemon", lambda: answers(f"{servers['gemmad']}/health") or daemon.poll() is not None, 600)
                if daemon.poll() is not None:
                    log.seek(0)
                    sys.exit(log.read())
                if options.beside:
                    servers["beside"] = options.beside.rstrip("/")
                measure(options, servers)
            finally:
                daemon.terminate()
                daemon.wait()


def answers(url):
    try:
        return urllib.request.urlopen(url).status == 200
    except OSError:
        return False


def measure(options, servers):
    for url in servers.values():
        tokens_a_second(url, 1, 8, 999)
    figures = {(name, clients): [] for clients in options.clients for name in servers}
    for number in range(options.rounds):
        for name, clients in figures:
            figures[name, clients].append(tokens_a_second(servers[name], clients, options.tokens, 100 * number + clients))
    print(f"{'server':>8}   clients   tok/s median   of one   rounds")
    for (name, clients), rounds in sorted(figures.items()):
        median, one = statistics.median(rounds), statistics.median(figures[name, options.clients[0]])
        told = " ".join(f"{figure:.1f}" for figure in rounds)
        print(f"{name:>8}   {clients:7}   {median:12.1f}   {median / one:6.2f}   {told}")


if __name__ == "__main__":
    main()
