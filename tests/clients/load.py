"""Sixty-four clients at once for a minute: every request is answered or refused with 503, memory stays, and voice stays as quick.

A part of tests/clients, which has the house. How quick voice is with and without them is told, not judged: that is the machine's business.
"""

import json
import pathlib
import threading
import time
import urllib.error
import urllib.request

from stage import Messages, wait_until

CLIENTS = 64
SECONDS = 60
CLIP = "016_voice.wav"
ROUNDS = 8
# What a process may grow by that served thousands of requests: caches that fill once, and the allocator's slack.
GROWTH_MIB = 24


def rss_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Crowd:
    """The clients; `statuses` counts what they got."""

    def __init__(self, house):
        self.house = house
        self.statuses, self.lock, self.ended = {}, threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(CLIENTS)]

    def _ask(self, n):
        body = {"model": self.house.model, "max_tokens": 16, "messages": [{"role": "user", "content": f"Say {n}."}], "stream": n % 2 == 0}
        headers = {"Authorization": f"Bearer {self.house.key}", "Content-Type": "application/json"}
        while not self.ended.is_set():
            request = urllib.request.Request(f"{self.house.url}/v1/chat/completions", json.dumps(body).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    text = answer.read().decode()
                    whole = "[DONE]" in text if body["stream"] else bool(json.loads(text)["choices"])
                    status = answer.status if whole else "cut short"
            except urllib.error.HTTPError as error:
                error.read()
                status = error.code
                if status == 503:
                    # As it is told, within reason: some come back at once.
                    self.ended.wait(min(float(error.headers.get("Retry-After", 1)), 0.2 if n % 4 else 2))
            except OSError as error:
                status = f"{type(error).__name__}: {error}"
            with self.lock:
                self.statuses[status] = self.statuses.get(status, 0) + 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def latencies(house, rounds, least_s=0.0):
    """Of a clip said again and again, ms from the end of speech to the report, by the daemon's clock; sorted."""
    found, came = [], threading.Event()

    def message(topic, payload):
        if topic.endswith("/mic/kitchen/event"):
            found.append(json.loads(payload)["timing"]["latency_ms"])
            came.set()

    messages = Messages(house.stage, message)
    started = time.monotonic()
    while len(found) < rounds or time.monotonic() - started < least_s:
        came.clear()
        house.say(CLIP)
        wait_until("what was said is reported", came.is_set, 60)
    messages.child.terminate()
    return sorted(found)


def percentile_95(values):
    return values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]


def run(house):
    alone = latencies(house, ROUNDS)
    pid = house.stage.daemon.pid
    with Crowd(house) as crowd:
        latencies(house, 2)
        before = rss_mib(pid)
        among = latencies(house, ROUNDS, SECONDS)
        after = rss_mib(pid)
    wrong = {status: count for status, count in crowd.statuses.items() if status not in (200, 503)}
    print(f"    {CLIENTS} clients: {crowd.statuses.get(200, 0)} answers, {crowd.statuses.get(503, 0)} refused with 503, others: {wrong or 'none'}")
    print(f"    anonymous memory: {before:.1f} MiB, then {after:.1f} MiB")
    alone95, among95 = percentile_95(alone), percentile_95(among)
    print(f"    voice, p95 of {len(alone)} and {len(among)}: {alone95:.0f} ms alone, {among95:.0f} ms among them, {among95 / alone95:.2f} times")
    wanted = wait_until("the queue is empty again", lambda: house.ask("/page/state")["health"]["queues"]["jobs"] == 0, 60)
    ok = not wrong and crowd.statuses.get(200, 0) > CLIENTS and after - before < GROWTH_MIB and wanted
    print("    ok" if ok else "    not ok")
    return 0 if ok else 1
